"""Switching a slot's modem: its supply and its reset line.

How that is done is a backend, found by the name in the entry point group ``nbiot.power``. A backend
is a dataclass whose fields are the keys of its table in the rig file (docs/rig.md); one that needs
to know the slot has a field ``slot``. It has ``on`` and ``off``, and may have

- ``__aenter__`` and ``__aexit__``, where it holds something while it is used;
- ``check``, which raises PowerError when it could not work now, and switches nothing;
- ``lasting = False``, where its state ends with the process.

Any backend serves as supply or as reset line: on is then "held in reset".
"""

from __future__ import annotations

import asyncio
import math
import types
import typing
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import MISSING, Field, fields
from difflib import get_close_matches
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from nbiot.errors import BadInput, NbiotError

if TYPE_CHECKING:
    from hil.rig import Slot

OFF_SECONDS = 5.0
"""How long a supply stays off in a cycle: capacitors must run empty."""
# Seconds that RESET is held, by profile. The facts pages have no number. The least that counts is,
# as the emulators have it (hil/emulator/pins.py: Quectel's hardware manuals, from memory), 0.1 for
# BC95 and BC95-G and 0.05 for BC66; this is some more, for what stands between pin and modem.
RESET_SECONDS = {"bc95": 0.2, "bc95-g": 0.2, "bc66": 0.1}
RESET_SECONDS_UNKNOWN = 0.2
MOST_SECONDS = 60.0


class PowerError(NbiotError):
    """The rig's switch for supply or reset did not do its work."""

    exit_code = 14


class BadKey(BadInput):
    """A key that a backend does not have, or cannot do without."""

    def __init__(self, key: str, problem: str, allowed: str, *, hint: str = "") -> None:
        super().__init__(key, None, allowed, hint=hint)
        self.message = problem
        self.args = (problem,)


class PowerSwitch(Protocol):
    """A supply that can be switched; what nbiot.supervisor calls Power."""

    async def off(self) -> None:
        """Take the supply away."""

    async def on(self) -> None:
        """Give it back."""


class ResetLine(Protocol):
    """A reset line that can be pulled."""

    async def pulse(self) -> None:
        """Hold the modem in reset for as long as it needs, and let go."""


class Pulse:
    """A switch as a reset line: on means held in reset."""

    def __init__(self, switch: PowerSwitch, seconds: float) -> None:
        self.switch = switch
        self.seconds = seconds

    async def pulse(self) -> None:
        """See ResetLine. Lets go when cancelled, too."""
        try:
            await self.switch.on()
            await asyncio.sleep(self.seconds)
        finally:
            await self.switch.off()


async def cycle(power: PowerSwitch, seconds: float = OFF_SECONDS) -> None:
    """Off, a pause, on; on again also when cancelled."""
    try:
        await power.off()
        await asyncio.sleep(seconds)
    finally:
        await power.on()


@asynccontextmanager
async def power_of(slot: Slot) -> AsyncIterator[PowerSwitch | None]:
    """The slot's supply; None when the rig cannot switch it.

    An emulated modem without a table ``power`` has one as long as ``hosted`` runs it.
    """
    async with _entered(slot, "power") as backend:
        yield backend


@asynccontextmanager
async def reset_of(slot: Slot) -> AsyncIterator[ResetLine | None]:
    """The slot's reset line; None when the rig cannot pull it. Emulated modems: as for power_of."""
    async with _entered(slot, "reset") as backend:
        yield None if backend is None else Pulse(backend, _reset_seconds(slot))


@asynccontextmanager
async def _entered(slot: Slot, key: Literal["power", "reset"]) -> AsyncIterator[Any]:
    backend = await asyncio.to_thread(backend_of, slot, key)
    async with AsyncExitStack() as stack:
        if hasattr(backend, "__aenter__"):
            await stack.enter_async_context(backend)
        yield backend


async def check(slot: Slot, key: Literal["power", "reset"]) -> str | None:
    """The name of the backend that could switch now; None when there is none. Switches nothing.

    Raises PowerError.
    """
    async with _entered(slot, key) as backend:
        if backend is None:
            return None
        if hasattr(backend, "check"):
            await backend.check()
        table = getattr(slot, key) or {"backend": "emulator"}
        return str(table["backend"])


def is_lasting(slot: Slot) -> bool:
    """Whether the supply stays as it was switched when this process ends."""
    return bool(getattr(backend_of(slot, "power"), "lasting", True))


# --- making a backend of its table ------------------------------------------------------------


def backend_of(slot: Slot, key: str) -> Any:
    """The backend that the slot's table ``key`` describes, not entered; None where there is none.

    Blocks (imports). Raises BadInput, whose field is the key at fault.
    """
    table = getattr(slot, key)
    if table is None:
        from hil.power.emulator import EmulatorPower

        return EmulatorPower(slot, key) if EmulatorPower.is_for(slot) else None
    values = {name: value for name, value in table.items() if name != "backend"}
    if key == "reset":
        values.pop("seconds", None)
        _reset_seconds(slot)
    kind = _backend(table["backend"])
    return _filled(kind, table["backend"], values, {"slot": slot, "role": key})


def _reset_seconds(slot: Slot) -> float:
    given = (slot.reset or {}).get("seconds")
    if given is None:
        return RESET_SECONDS.get(slot.modem, RESET_SECONDS_UNKNOWN)
    return positive("seconds", given, MOST_SECONDS)


def positive(name: str, value: object, most: float) -> float:
    """``value`` if it is a number above 0 and up to ``most``, else BadInput."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if is_number and math.isfinite(number := cast("float", value)) and 0 < number <= most:
        return float(number)
    raise BadInput(name, value, f"a number above 0, {most:g} at most (seconds)")


def backends() -> list[str]:
    """The names of all installed backends."""
    return sorted(entry.name for entry in entry_points(group="nbiot.power"))


def _backend(name: str) -> type[Any]:
    for entry in entry_points(group="nbiot.power"):
        if entry.name == name:
            try:
                kind: type[Any] = entry.load()
            except Exception as error:
                raise BadInput(
                    "backend",
                    name,
                    f"a backend that can be loaded ({entry.value}: {error})",
                    hint="Install again the package that brings it.",
                ) from error
            return kind
    known = backends()
    close = get_close_matches(name, known, 1)
    raise BadInput(
        "backend", name, ", ".join(known), hint=f"Did you mean {close[0]}?" if close else ""
    )


def _filled(kind: type[Any], name: str, table: Mapping[str, Any], ours: Mapping[str, Any]) -> Any:
    """An instance of ``kind`` with the values of ``table``, and those of ours that it wants."""
    from hil.rig import Slot

    wanted = {entry.name: entry for entry in fields(kind)}
    types_of = typing.get_type_hints(kind, localns={"Slot": Slot})
    keys = [key for key in wanted if key not in ours]
    for key, value in table.items():
        if key not in keys:
            close = get_close_matches(key, keys, 1)
            raise BadKey(
                key,
                f"{name} has no key {key!r}; there are {', '.join(keys) or 'none'}",
                ", ".join(keys),
                hint=f"Did you mean {close[0]}?" if close else "",
            )
        _check_type(key, value, types_of[key])
    for key in keys:
        if key not in table and _is_required(wanted[key]):
            kind_of = _words(types_of[key])
            raise BadKey(key, f"{name} cannot do without the key {key}: {kind_of}", kind_of)
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in table.items()}
    return kind(**values, **{key: value for key, value in ours.items() if key in wanted})


def _is_required(entry: Field[Any]) -> bool:
    return entry.default is MISSING and entry.default_factory is MISSING


_WORDS: dict[Any, str] = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    tuple: 'a list of texts: ["one", "two"]',
}


def _check_type(key: str, value: object, hint: Any) -> None:
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if any(_is_a(value, option) for option in options):
        return
    raise BadInput(key, type(value).__name__, _words(hint))


def _is_a(value: object, kind: Any) -> bool:
    if typing.get_origin(kind) is tuple:
        return isinstance(value, list) and bool(value) and all(isinstance(v, str) for v in value)
    if kind is float:
        return type(value) in (int, float)
    return type(value) is kind


def _words(hint: Any) -> str:
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    kinds = [typing.get_origin(option) or option for option in options]
    return " or ".join(_WORDS[kind] for kind in kinds if kind in _WORDS)
