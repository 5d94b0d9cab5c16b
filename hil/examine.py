"""Trying each slot of a rig: lock, port, modem, SIM, secret, supply and reset line."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from hil import power
from hil.hosting import hosted
from hil.lock import locked
from hil.rig import Rig, Slot
from nbiot.errors import ModemError, NbiotError
from nbiot.modem import Modem

NOTHING = "-"
COLUMNS = ("port", "modem", "SIM", "secret", "power", "reset")


class OtherModem(ModemError):
    """A modem of another model than the rig file states."""

    exit_code = 27


@dataclass
class Examined:
    """What was found in one slot."""

    slot: Slot
    saw: dict[str, str] = field(default_factory=dict)
    """By column; what is not in here was not reached."""
    errors: dict[str, NbiotError] = field(default_factory=dict)
    about: dict[str, str] = field(default_factory=dict)
    """Of the modem: model, firmware, profile, imei, iccid."""

    @property
    def exit_code(self) -> int:
        """That of the first column that failed."""
        return next((self.errors[c].exit_code for c in COLUMNS if c in self.errors), 0)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        errors = {
            column: {
                "error": type(error).__name__,
                "message": error.message,
                "hint": error.hint,
                "exit_code": error.exit_code,
            }
            for column, error in self.errors.items()
        }
        return {
            "slot": self.slot.name,
            "line": self.slot.line,
            "port": self.slot.port,
            "ok": not errors,
            "exit_code": self.exit_code,
            "saw": self.saw,
            "modem": self.about,
            "errors": errors,
        }


Report = Callable[[Slot, str, NbiotError | None], None]
"""Called with the slot, a few words, and the error if there was one."""


async def examine(rig: Rig, report: Report) -> list[Examined]:
    """All slots at the same time, in the order of the file. Nothing is switched.

    Radios are switched on, as some modems tell of their SIM only then.
    """
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_Examination(slot, report).run()) for slot in rig.slots]
    return [task.result() for task in tasks]


class _Examination:
    def __init__(self, slot: Slot, report: Report) -> None:
        self._slot = slot
        self._report = report
        self._found = Examined(slot)
        self._port = ""
        self._modem: Modem | None = None

    async def run(self) -> Examined:
        async with AsyncExitStack() as stack:
            if await self._try("port", lambda: self._open(stack)):
                identified = await self._try("modem", lambda: self._identify(stack))
                if identified:
                    await self._try("SIM", self._sim)
            await self._try("secret", self._secret)
            await self._try("power", lambda: self._switch("power"))
            await self._try("reset", lambda: self._switch("reset"))
        return self._found

    async def _try(self, column: str, step: Callable[[], Awaitable[str]]) -> bool:
        try:
            self._found.saw[column] = saw = await step()
        except NbiotError as error:
            self._found.errors[column] = error
            self._report(self._slot, f"{column}: {error.message}", error)
            return False
        if saw != NOTHING:
            self._report(self._slot, f"{column}: {saw}", None)
        return True

    async def _open(self, stack: AsyncExitStack) -> str:
        await asyncio.to_thread(stack.enter_context, locked(self._slot.port))
        self._port = await stack.enter_async_context(hosted(self._slot))
        return self._port

    async def _identify(self, stack: AsyncExitStack) -> str:
        modem = Modem(self._port, baudrate=self._slot.baud)
        await stack.enter_async_context(modem)
        stated, profile = self._slot.modem, modem.profile.name
        self._found.about = {
            "model": modem.identity.model,
            "firmware": modem.identity.firmware,
            "profile": profile,
        }
        if stated not in ("auto", profile):
            raise OtherModem(
                f"the rig file states {stated}, but this is a {modem.identity.model}"
                f" (profile {profile})",
                hint=f'Is the right board in the slot? If so: modem = "{profile}"',
            )
        self._found.about["imei"] = await modem.imei()
        self._modem = modem
        return f"{modem.identity.model}, firmware {modem.identity.firmware}"

    async def _sim(self) -> str:
        assert self._modem is not None
        await self._modem.profile.radio_on()
        await self._modem.profile.check_sim()
        self._found.about["iccid"] = await self._modem.profile.iccid()
        return "ready"

    async def _secret(self) -> str:
        from nbiot.signing import secret_from

        if self._slot.secret is None:
            return NOTHING
        await asyncio.to_thread(secret_from, self._slot.secret)
        return "there"

    async def _switch(self, key: Any) -> str:
        return await power.check(self._slot, key) or NOTHING
