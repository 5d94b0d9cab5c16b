"""A labgrid place as port and supply, by labgrid's own programs.

They run from an environment of their own (``pipx install labgrid``) and are never imported: in this
one labgrid would overwrite pyserial. The coordinator is theirs to find: LG_COORDINATOR.
"""

from __future__ import annotations

import ast
import asyncio
import os
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from textwrap import dedent

from hil.power import PowerError
from hil.power.programs import run
from nbiot.errors import NbiotError, PortBusy, PortError, PortLost

PROGRAM_VARIABLE = "NBIOT_LABGRID_CLIENT"
"""Environment variable that names labgrid-client where it is not on the PATH."""
_GRACE = 2.0  # s between the loss of a port and that of its place
_RESOURCE = re.compile(r"^Acquired resource .*/NetworkSerialPort/.*\n((?:[ \t]+.*\n?)+)", re.M)


class PlaceLost(PortLost):
    """labgrid forgot that a place was ours."""


@asynccontextmanager
async def acquired(
    place: str, *, on_lost: Callable[[NbiotError], None] | None = None
) -> AsyncIterator[str]:
    """Acquire ``place`` and yield the URL of its serial port. See hil.hosting.hosted.

    A place that this user has on this host already is used, and kept.
    """
    ours = True
    try:
        await _client("-p", place, "acquire")
    except PowerError as error:
        ours = f"You have already acquired place {place}." not in error.message
        if ours:
            kind = PortBusy if "already acquired" in error.message else PortError
            raise kind(f"labgrid place {place}: {error.message}", hint=error.hint) from error
    try:
        url = url_of(place, await _client("-p", place, "show"))
        async with _watched(place, on_lost):
            yield url
    finally:
        if ours:
            with suppress(PowerError):  # lost, or the coordinator is gone
                await _client("-p", place, "release")


def url_of(place: str, shown: str) -> str:
    """The URL of the serial port in what ``labgrid-client show`` printed. Raises PortError."""
    for found in _RESOURCE.finditer(shown):
        with suppress(ValueError, SyntaxError, LookupError, TypeError, AttributeError):
            params = ast.literal_eval(dedent(found[1]).strip())["params"]
            scheme = {"rfc2217": "rfc2217", "raw": "socket"}[params.get("protocol", "rfc2217")]
            return f"{scheme}://{params['host']}:{int(params['port'])}"
    raise PortError(
        f"labgrid place {place} has no serial port that can be used now",
        hint=f"`labgrid-client -p {place} show` must list a NetworkSerialPort with host and port.",
    )


@asynccontextmanager
async def _watched(place: str, on_lost: Callable[[NbiotError], None] | None) -> AsyncIterator[None]:
    """``labgrid-client monitor`` ends with the coordinator, and with that what it remembered."""
    task = asyncio.current_task()
    assert task is not None
    error = PlaceLost(
        f"labgrid place {place} is lost: the coordinator ended, and forgets who has which place",
        hint="Once it runs again, start over; somebody else may have the place by then.",
    )

    async def watch() -> None:
        with suppress(PowerError):
            await _client("monitor", seconds=None, keep=False)
        on_lost(error) if on_lost is not None else task.cancel()

    watching = asyncio.create_task(watch(), name=f"labgrid place {place}")
    try:
        yield
        if on_lost is None and watching.done():  # in a task that could not be cancelled any more
            raise error
    except asyncio.CancelledError:
        if on_lost is None and watching.done() and not task.uncancel():
            raise error from None
        raise
    except PortError as reason:  # labgrid's ser2net may go before it
        if reason is not error and (await asyncio.wait({watching}, timeout=_GRACE))[0]:
            raise error from reason
        raise
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching


@dataclass
class LabgridPower:
    """Backend ``labgrid``: the supply of a place that is acquired."""

    place: str

    async def check(self) -> None:
        """See hil.power."""
        await _client("-p", self.place, "show")

    async def on(self) -> None:
        """See hil.power.PowerSwitch."""
        await _client("-p", self.place, "power", "on")

    async def off(self) -> None:
        """See hil.power.PowerSwitch."""
        await _client("-p", self.place, "power", "off")


async def _client(*arguments: str, seconds: float | None = 30.0, keep: bool = True) -> str:
    program = os.environ.get(PROGRAM_VARIABLE) or "labgrid-client"
    return await run([program, *arguments], seconds=seconds, keep=keep)
