"""One message of a device: authenticate, say it, hear the answer, hang up.

To be imported once the options are known to be good: it loads all that talks CoAP.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from nbiot.cli.common import modem_from, run
from nbiot.cli.enos import Target, limit_of
from nbiot.enos.auth import Device
from nbiot.enos.commands import Command
from nbiot.enos.session import Answer, EnosCloud, EnosSession
from nbiot.errors import NoResponse
from nbiot.modem import Modem
from nbiot.profile import Progress, Report
from nbiot.session import Cost, Exchanged

Ask = Callable[[EnosSession], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Told:
    """What EnOS answered, and what it took, the authentication included."""

    target: Target
    device_key: str
    data: Any
    cost: Cost
    waiting: list[Command]
    has_release: bool

    def as_dict(self, **more: Any) -> dict[str, Any]:
        """For JSON."""
        return {
            "ok": True,
            "product_key": self.target.product_key,
            "device_key": self.device_key,
            "server": str(self.target.server),
            **more,
            "commands_waiting": [command_dict(command) for command in self.waiting],
            "cost": dataclasses.asdict(self.cost),
        }

    def words(self, headline: str, values: Mapping[str, Any] | None = None) -> str:
        """For people. A value None is one that is not there."""
        cost = self.cost
        again = f", sent again {cost.retransmissions} times" if cost.retransmissions else ""
        if cost.released:
            radio = "the network was asked to release the radio then"
        else:
            why = "" if self.has_release else " (this modem has no known way to stop that)"
            radio = f"the network keeps the radio for some 10 to 20 s more{why}"
        said = [
            ("server", str(self.target.server)),
            (
                "on air",
                f"{cost.up} bytes up, {cost.down} down in {cost.round_trips} round trips{again}"
                " (CoAP, authentication included)",
            ),
            ("serial line", f"{cost.at_round_trips} AT round trips, {cost.serial_bytes} bytes"),
            ("connected", f"{cost.connected:.3f} s; {radio}"),
        ]
        shown = [
            f"  {name} {'(not set)' if value is None else f'= {value_words(value)}'}"
            for name, value in (values or {}).items()
        ]
        return "\n".join([headline, *shown, *(f"  {name:<11} {text}" for name, text in said)])


def one_shot(
    options: dict[str, Any], target: Target, ask: Ask, show: Callable[[Told, bool], None]
) -> None:
    """Run ``ask`` in a session of its own and show what came of it. Ends the process on errors.

    Commands that EnOS hands over meanwhile are named on standard error and not answered, so that
    EnOS can send them to a program that carries them out.
    """
    as_json, quiet = options["as_json"], options["quiet"]
    told: Told = run(_converse(target, ask, **options), as_json=as_json)
    show(told, as_json)
    # No progress but a warning, so --quiet does not hush it; but the JSON has it already.
    for command in [] if quiet and as_json else told.waiting:
        which = f"{command.kind} {command.service}".strip()
        number = f", id {command.id}" if command.id is not None else ""
        click.echo(
            f"nbiot: EnOS has a command for this device ({which}{number}). It was not answered;"
            " if EnOS sends it again, `nbiot commands` can take it.",
            err=True,
        )


async def _converse(
    target: Target,
    ask: Ask,
    *,
    port: str,
    model: str,
    baud: int | None,
    trace: Path | None,
    quiet: bool,
    as_json: bool,
) -> Told:
    del as_json
    with modem_from(port, model, baud, trace, quiet=quiet) as modem:
        async with modem:
            await modem.attach(target.apn, timeout=target.attach_timeout)
            device = await target.device(modem)
            session = await _session(modem, target, device)
            stream = session.commands()  # nobody reads it before the end: nothing is answered
            async with session:
                answer = await _asked(session, ask)
                modem.report(Progress("answered", "EnOS took it"))
                await session.settled()
            return Told(
                target,
                device.device_key,
                answer.data,
                _sum([*session.spent, answer.cost]),
                [command async for command in stream],
                modem.profile.has_release_assistance,
            )


async def _asked(session: OneShot, ask: Ask) -> Answer:
    await session.settled()
    session.to_come = 0  # what is asked now is the last: the radio may go
    try:
        return await ask(session)
    except NoResponse as error:
        raise NoResponse(
            f"{error.message}; the authentication was answered, so EnOS may have the message",
            hint="Look in the EnOS console before sending it again.",
        ) from None


class OneShot(EnosSession):
    """Keeps the radio after its authentication, and knows what that cost."""

    def __init__(self, *args: Any, report: Report, **options: Any) -> None:
        super().__init__(*args, report=report, **options)
        self.to_come = 1  # the message
        self.spent: list[Cost] = []
        self._show = report

    async def authenticate(self) -> Exchanged:
        """On entry."""
        done = await super().authenticate()
        self.spent.append(done.cost)
        self._show(Progress("authenticated", f"authenticated ({done.response.code})"))
        return done


async def _session(modem: Modem, target: Target, device: Device) -> OneShot:
    limit: Any = limit_of(target.server)
    if target.no_wait:  # the session would wait: count before it, and let it go the first time
        identity = EnosCloud(device, target.server).identity
        await asyncio.to_thread(limit.take, identity)
        limit = _TakenOnce(limit)
    return OneShot(
        modem,
        device,
        target.server,
        content_format=target.content_format,
        timing=target.timing,
        resolve_by=target.resolve,
        limit=limit,
        report=modem.report,
    )


class _TakenOnce:
    """A limit of which one was taken before."""

    def __init__(self, limit: Any) -> None:
        self._limit = limit
        self._spare = 1

    def take(self, device: tuple[str, str, str]) -> None:
        """As of AuthLimit."""
        if self._spare:
            self._spare = 0
        else:
            self._limit.take(device)


def _sum(costs: list[Cost]) -> Cost:
    """``released`` is that of the last."""
    numbers = {
        field.name: sum(getattr(cost, field.name) for cost in costs)
        for field in dataclasses.fields(Cost)
        if field.name != "released"
    }
    numbers["connected"] = round(numbers["connected"], 4)
    return Cost(**numbers, released=costs[-1].released)


def command_dict(command: Command) -> dict[str, Any]:
    """A command for JSON and for programs: kind, service, id, and params or hex."""
    about = {"kind": str(command.kind), "service": command.service, "id": command.id}
    if command.kind == "raw":
        return {**about, "hex": command.payload.hex()}
    return {**about, "params": command.params}


def value_words(value: Any) -> str:
    """A value on one line."""
    return json.dumps(value, ensure_ascii=False)
