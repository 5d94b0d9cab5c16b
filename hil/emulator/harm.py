"""A seam that does harm: the machinery behind `hil.faults`.

A fault is an `Effect` in the table `FAULTS`: it overrides the hooks it needs. Output passes two
queues: pieces the modem itself is late with wait in the first, pieces slow on the wire in the
second.
"""

from __future__ import annotations

import random
import re
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

from .cells import Stat
from .clock import Handle
from .engine import AtError, Modem, Result
from .models import MODELS
from .network import Way
from .seam import Happening, Kind, Piece, Seam

Value = float | int | str
FAMILIES = ("hisilicon", "mt2625")


# ---------------------------------------------------------------- parameters


@dataclass(frozen=True)
class Parameter:
    """One parameter of a fault; its type is that of the default."""

    default: Value
    about: str
    low: float = 0
    high: float = 0
    choices: tuple[str, ...] = ()

    @property
    def allowed(self) -> str:
        """The allowed values in words."""
        if self.choices:
            return " or ".join(self.choices)
        if isinstance(self.default, str):
            return "text"
        if isinstance(self.default, int):
            return f"a whole number {int(self.low)}..{int(self.high)}"
        return f"a number {self.low:g}..{self.high:g}"

    def read(self, text: str) -> Value:
        """Text to value; ValueError when it is not allowed."""
        if isinstance(self.default, str):
            if self.choices and text not in self.choices:
                raise ValueError(text)
            return text
        value = int(text) if isinstance(self.default, int) else float(text)
        if not self.low <= value <= self.high:
            raise ValueError(text)
        return value


def seconds(default: float, about: str) -> Parameter:
    return Parameter(float(default), f"{about}, s", 0, 3600)


def whole(default: int, low: int, high: int, about: str) -> Parameter:
    return Parameter(default, about, low, high)


def choice(about: str, *choices: str) -> Parameter:
    return Parameter(choices[0], about, choices=choices)


@dataclass(frozen=True)
class Fault:
    """A kind of fault."""

    name: str
    about: str
    effect: type[Effect]
    families: tuple[str, ...]
    parameters: Mapping[str, Parameter]
    tellable: bool
    """Can a host tell its results from the truth? Otherwise no table of wrong answers has it."""

    def applies(self, model: str) -> bool:
        """Does it make sense on this model?"""
        return MODELS[model].engine.FAMILY in self.families


@dataclass(frozen=True)
class FaultSpec:
    """A fault with its parameters, as asked for."""

    name: str
    values: Mapping[str, Value] = field(default_factory=dict)
    """All parameters, defaults included."""

    def __str__(self) -> str:
        return f"{self.name}:" + ",".join(f"{key}={value}" for key, value in self.values.items())


FAULTS: dict[str, Fault] = {}
E = TypeVar("E", bound="type[Effect]")


def fault(
    name: str,
    about: str,
    *,
    probability: float = 0.1,
    families: tuple[str, ...] = FAMILIES,
    tellable: bool = True,
    **parameters: Parameter,
) -> Callable[[E], E]:
    """Enter an effect into the table."""
    common = {
        "probability": Parameter(float(probability), "chance at each opportunity", 0, 1),
        "seed": whole(0, 0, 2**63 - 1, "of the random choices"),
        "at": whole(0, 0, 10**9, "only at this opportunity, 1 = the first; 0: any"),
        "count": whole(0, 0, 10**9, "at most so many times; 0: no limit"),
        "on": Parameter("", "only while the last command begins so, without AT and + (`CEREG?`)"),
    }

    def enter(effect: E) -> E:
        effect.name = name
        FAULTS[name] = Fault(name, about, effect, families, common | parameters, tellable)
        return effect

    return enter


def check(specs: Iterable[FaultSpec], family: str) -> None:
    """Refuse faults that do not apply to a family."""
    for spec in specs:
        families = FAULTS[spec.name].families
        if family not in families:
            raise ValueError(f"fault {spec.name}: not for {family}; allowed: {', '.join(families)}")


# -------------------------------------------------------------- the harmful seam


class Gate:
    """A queue that lets pieces out in order, each after its own delay."""

    def __init__(self, modem: Modem, out: Callable[[Piece], None]) -> None:
        self._modem, self._out = modem, out
        self._queue: deque[Piece] = deque()
        self._timer: Handle | None = None
        self.held = False
        self.joins = False
        """Does what waited behind a delay leave in one piece with it?"""

    @property
    def waiting(self) -> bool:
        return bool(self._queue)

    def push(self, piece: Piece) -> None:
        self._queue.append(piece)
        self.run()

    def run(self) -> None:
        """Let out what may leave now."""
        while self._queue and self._timer is None and not self.held:
            first = self._queue[0]
            if first.delay > 0:
                delay, first.delay = first.delay, 0.0
                self._timer = self._modem.after(delay, self._due)
                return
            self._out(self._queue.popleft())

    def _due(self) -> None:
        self._timer = None
        while self.joins and len(self._queue) > 1 and not self._queue[1].delay:
            first, second = self._queue.popleft(), self._queue.popleft()
            self._queue.appendleft(joined(first, second))
        self.run()

    def flush(self) -> None:
        """Everything out, now."""
        self._stop_timer()
        while self._queue:
            self._out(self._queue.popleft())

    def clear(self) -> None:
        self._stop_timer()
        self._queue.clear()
        self.held = False

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None


def joined(first: Piece, second: Piece) -> Piece:
    """Two pieces as one."""
    return Piece(
        second.kind,
        first.data + second.data,
        first.texts + second.texts,
        damaged=first.damaged or second.damaged,
    )


class Faults(Seam):
    """A seam with faults; each modem has its own."""

    def __init__(self, specs: Iterable[FaultSpec]) -> None:
        super().__init__()
        self.specs = tuple(specs)
        effects = [FAULTS[spec.name].effect(self, spec.values) for spec in self.specs]
        self.effects = sorted(effects, key=lambda effect: effect.BYTES)
        self.last_command = ""
        self.gone = False
        """Was the line hung up?"""
        self.echo_at_once = False

    def attach(self, modem: Modem) -> None:
        super().attach(modem)
        check(self.specs, modem.FAMILY)
        self.late = Gate(modem, self._to_wire)
        self.wire = Gate(modem, modem.put)
        for effect in self.effects:
            effect.attached()

    def note(self, name: str, detail: str) -> None:
        self.log.append(Happening(self.modem.clock.time(), name, detail))

    def hang_up(self) -> None:
        """The line goes dead for good."""
        self.gone = True
        self.late.clear()
        self.wire.clear()
        if self.port is not None:
            self.port.hang_up()

    # ----------------------------------------------------------------- hooks

    def started(self) -> None:
        for effect in self.effects:
            effect.started()

    def closed(self) -> None:
        self.late.clear()
        self.wire.clear()

    def booting(self) -> None:
        self.late.clear()
        self.wire.flush()
        for effect in self.effects:
            effect.booting()

    def booted(self) -> None:
        for effect in self.effects:
            effect.booted()

    def output(self, piece: Piece) -> None:
        if self.gone:
            return
        pieces = [piece]
        for effect in self.effects:
            pieces = [new for old in pieces for new in effect.output(old)]
        for new in pieces:
            if self.echo_at_once and new.kind is Kind.ECHO:
                self._to_wire(new)
            else:
                self.late.push(new)

    def _to_wire(self, piece: Piece) -> None:
        pieces = [piece]
        for effect in self.effects:
            pieces = [new for old in pieces for new in effect.wire(old)]
        for new in pieces:
            self.wire.push(new)

    def input(self, data: bytes) -> bytes:
        for effect in self.effects:
            data = effect.input(data)
        return b"" if self.gone else data

    def command(self, line: str) -> AtError | Result | None:
        self.last_command = line
        verdict: AtError | Result | None = None
        for effect in self.effects:
            if verdict is None:
                verdict = effect.command(line)
        return verdict

    def datagram(self, way: Way, data: bytes, pass_on: Callable[[], None]) -> None:
        for effect in reversed(self.effects):
            pass_on = effect.datagram(way, data, pass_on)
        pass_on()

    def uplink_busy(self) -> bool:
        return any(effect.uplink_busy() for effect in self.effects)

    def attach_delay(self, seconds: float) -> float:
        for effect in self.effects:
            seconds = effect.attach_delay(seconds)
        return seconds

    def registration(self, stat: Stat, cause: int) -> tuple[Stat, int]:
        for effect in self.effects:
            stat, cause = effect.registration(stat, cause)
        return stat, cause


def bare(line: str) -> str:
    """A command line without AT and +, in capitals."""
    return line.strip().upper().removeprefix("AT").lstrip("+")


def command_name(line: str) -> str:
    """`AT+CEREG?` -> `+CEREG`."""
    return "+" + re.split(r"[=?;]", bare(line))[0]


class Effect:
    """What one fault does at the hooks of the seam; does nothing by itself."""

    BYTES: ClassVar[bool] = False
    """Works on bytes: comes after those that know whole pieces."""
    name: ClassVar[str]

    def __init__(self, seam: Faults, values: Mapping[str, Value]) -> None:
        self.seam = seam
        self.value: Mapping[str, Any] = values
        self.random = random.Random(f"{self.name}:{values['seed']}")
        self._on = bare(str(values["on"]))
        self._chances = self._hits = 0

    @property
    def modem(self) -> Modem:
        return self.seam.modem

    def strikes(self) -> bool:
        """An opportunity: does the fault happen now?"""
        if self._on and not bare(self.seam.last_command).startswith(self._on):
            return False
        self._chances += 1
        value = self.value
        if value["at"] not in (0, self._chances) or 0 < value["count"] <= self._hits:
            return False
        if self.random.random() >= value["probability"]:
            return False
        self._hits += 1
        return True

    def note(self, detail: str) -> None:
        self.seam.note(self.name, detail)

    def attached(self) -> None: ...

    def started(self) -> None: ...

    def booting(self) -> None: ...

    def booted(self) -> None: ...

    def output(self, piece: Piece) -> list[Piece]:
        return [piece]

    def wire(self, piece: Piece) -> list[Piece]:
        return [piece]

    def input(self, data: bytes) -> bytes:
        return data

    def command(self, line: str) -> AtError | Result | None:
        return None

    def datagram(self, way: Way, data: bytes, pass_on: Callable[[], None]) -> Callable[[], None]:
        return pass_on

    def uplink_busy(self) -> bool:
        return False

    def attach_delay(self, seconds: float) -> float:
        return seconds

    def registration(self, stat: Stat, cause: int) -> tuple[Stat, int]:
        return stat, cause


def shown(data: bytes, limit: int = 60) -> str:
    """Bytes for the log."""
    return repr(data if len(data) <= limit else data[:limit] + b"...")
