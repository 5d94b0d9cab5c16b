"""The recipe: which phases a board goes through, in which order, and within which limits.

``load`` reads ``recipe.toml`` (docs/station.md) and finds all that can be wrong with it before any
board is touched.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from nbiot.errors import BadInput
from nbiot.station.record import Value
from nbiot.tomlfile import (
    Table,
    TomlFile,
    flag,
    keys_only,
    number,
    one_of,
    seconds,
    text,
    texts,
    whole,
)

SERIAL_NUMBER = r"[!-~]{1,64}"
"""What a serial number looks like where the recipe does not say."""


@dataclass(frozen=True, slots=True)
class Range:
    """From ``low`` to ``high``, both allowed; None: no such limit."""

    low: float | None = None
    high: float | None = None


ANY = Range()


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One phase. Names are unique within a recipe.

    seconds:  how long it may take; time in which the station waits for the database not counted
    may_skip: whether an operator may skip it, with a reason
    """

    kind: ClassVar[str]
    SECONDS: ClassVar[float]
    name: str
    seconds: float
    may_skip: bool = False
    line: int = 0


@dataclass(frozen=True, kw_only=True)
class Identify(Phase):
    """Find the modem; check who it is. Empty: any. ``sim``: whether a SIM must be in."""

    kind = "identify"
    SECONDS = 60.0
    models: tuple[str, ...] = ()
    firmware: tuple[str, ...] = ()
    sim: bool = True


@dataclass(frozen=True, kw_only=True)
class Radio(Phase):
    """Wait until the signal is within limits. dBm, dB, coverage level 0 to 2."""

    kind = "radio"
    SECONDS = 60.0
    rsrp: Range = ANY
    snr: Range = ANY
    ecl: Range = ANY


@dataclass(frozen=True, kw_only=True)
class Attach(Phase):
    """Join the network."""

    kind = "attach"
    SECONDS = 180.0


@dataclass(frozen=True, kw_only=True)
class Claim(Phase):
    """Take an identity out of the pool, or register one, for this IMEI."""

    kind = "claim"
    SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class Authenticate(Phase):
    """Authenticate to EnOS. From here on the identity is this board's for ever."""

    kind = "authenticate"
    SECONDS = 300.0


@dataclass(frozen=True, kw_only=True)
class Report(Phase):
    """Report measurepoints once, and get EnOS's answer.

    points: values by identifier; "$rsrp" and the like stand for what this run found, see FACTS
    """

    kind = "report"
    SECONDS = 300.0
    points: Mapping[str, Value] = field(hash=False)


@dataclass(frozen=True, kw_only=True)
class Command(Phase):
    """Wait for a command from EnOS and answer it. ``every``: s between two looks for it."""

    kind = "command"
    SECONDS = 300.0
    service: str
    every: float = 10.0


@dataclass(frozen=True, kw_only=True)
class Program(Phase):
    """Run an external program: JSON on its stdin, JSON on its stdout.

    identity: whether it gets the identity, its secret included; the identity is this board's for
              ever from then on
    port:     whether it gets the serial port; the modem is closed meanwhile
    """

    kind = "program"
    SECONDS = 120.0
    command: tuple[str, ...]
    identity: bool = False
    port: bool = False


@dataclass(frozen=True, kw_only=True)
class Label(Phase):
    """Print a label."""

    kind = "label"
    SECONDS = 30.0
    copies: int = 1


@dataclass(frozen=True, kw_only=True)
class Release(Phase):
    """Leave the network, switch the supply off where the rig can do that."""

    kind = "release"
    SECONDS = 60.0
    detach: bool = True
    power_off: bool = True


FACTS = ("imei", "iccid", "model", "firmware", "rsrp", "snr", "ecl", "serial_number", "station")
"""What "$name" may stand for in a report."""

KINDS: dict[str, type[Phase]] = {
    kind.kind: kind
    for kind in (
        Identify,
        Radio,
        Attach,
        Claim,
        Authenticate,
        Report,
        Command,
        Program,
        Label,
        Release,
    )
}
# kind: what must have come before
_NEEDS: dict[str, tuple[str, ...]] = {
    "radio": ("identify",),
    "attach": ("identify",),
    "claim": ("identify",),
    "authenticate": ("attach", "claim"),
    "report": ("authenticate",),
    "command": ("authenticate",),
    "label": ("identify",),
}
_ONCE = frozenset({"identify", "claim", "authenticate", "release"})
_NEVER_SKIPPED = frozenset({"identify", "claim", "attach", "authenticate", "release"})


@dataclass(frozen=True, slots=True)
class Recipe:
    """The phases, in order.

    scan:          whether a board waits until its serial number was scanned, or Start was pressed
    serial_number: what a serial number looks like, a regular expression
    """

    name: str
    phases: tuple[Phase, ...]
    scan: bool = False
    serial_number: str = SERIAL_NUMBER
    path: Path | None = None

    def first(self, kind: type[Phase]) -> Phase | None:
        """The first phase of this kind."""
        return next((phase for phase in self.phases if isinstance(phase, kind)), None)

    def check_serial_number(self, given: str) -> str:
        """``given`` if it is a serial number. Raises BadInput."""
        if re.fullmatch(self.serial_number, given):
            return given
        allowed = f"what the recipe wants: {self.serial_number}"
        hint = "Was the right barcode of the board scanned?"
        raise BadInput("serial number", given[:80], allowed, hint=hint)


def load(path: Path) -> Recipe:
    """Read and check ``path``. Blocks. Raises BadFile."""
    file = TomlFile(path, "recipe", hint="`nbiot station init` writes one.")
    root = file.root()
    recipe = Recipe(
        name=root.need("name", text("a name of 1 to 64 characters", r"[^\x00-\x1f]{1,64}")),
        scan=root.get("scan", flag, False),
        serial_number=root.get("serial_number", _pattern, SERIAL_NUMBER),
        phases=tuple(_phase(table) for table in root.array("phase")),
        path=path,
    )
    root.done()
    _check_order(root, recipe.phases)
    if any(isinstance(phase, Program) for phase in recipe.phases):
        file.check_mode(0o022, "it names programs to run", to="go-w")
    return recipe


def _phase(table: Table) -> Phase:
    name = table.need("kind", one_of(*KINDS))
    kind = KINDS[name]
    common: dict[str, Any] = {
        "name": table.get("name", text("a name", r"[A-Za-z0-9][A-Za-z0-9 _-]{0,39}"), name),
        "seconds": table.get("seconds", seconds(3600), kind.SECONDS),
        "may_skip": table.get("may_skip", flag, False),
        "line": table.line,
    }
    if common["may_skip"] and name in _NEVER_SKIPPED:
        raise table.bad("may_skip", "may_skip", True, f"false: nothing goes on without {name}")
    phase = _READERS[name](table, common)
    table.done()
    return phase


def _check_order(root: Table, phases: Sequence[Phase]) -> None:
    if not phases:
        problem = "no phases: the file needs a table [[phase]] for each"
        raise root.bad(None, "phase", None, "[[phase]]", problem=problem)
    kinds: set[str] = set()
    names: dict[str, Phase] = {}
    for at, phase in enumerate(phases):
        table = root.array("phase")[at]
        missing = [kind for kind in _NEEDS.get(phase.kind, ()) if kind not in kinds]
        if missing:
            problem = f"{phase.name}: needs a phase {missing[0]} before it"
            raise table.bad(None, "phase", phase.kind, "another order", problem=problem)
        if phase.kind in _ONCE and phase.kind in kinds:
            problem = f"{phase.name}: there is a phase {phase.kind} already"
            raise table.bad(None, "phase", phase.kind, "each of these once", problem=problem)
        if phase.name in names:
            line = names[phase.name].line
            problem = f"{phase.name}: another phase (line {line}) has this name"
            hint = 'Give one of them a name of its own: name = "..."'
            raise table.bad(None, "phase", phase.name, "distinct names", problem=problem, hint=hint)
        if isinstance(phase, Program) and phase.identity and "claim" not in kinds:
            problem = f"{phase.name}: identity = true needs a phase claim before it"
            raise table.bad("identity", "identity", True, "false", problem=problem)
        if "release" in kinds:
            problem = f"{phase.name}: stands behind release, where the board is let go"
            raise table.bad(None, "phase", phase.kind, "release as the last one", problem=problem)
        kinds.add(phase.kind)
        names[phase.name] = phase


# --- what each kind has -----------------------------------------------------------------------


def _identify(table: Table, common: dict[str, Any]) -> Phase:
    return Identify(
        models=table.get("models", texts("model names"), ()),
        firmware=table.get("firmware", texts("firmware versions"), ()),
        sim=table.get("sim", flag, True),
        **common,
    )


def _radio(table: Table, common: dict[str, Any]) -> Phase:
    return Radio(
        rsrp=table.get("rsrp", _range(-156, 0, "dBm"), ANY),
        snr=table.get("snr", _range(-50, 50, "dB"), ANY),
        ecl=table.get("ecl", _range(0, 2, ""), ANY),
        **common,
    )


def _report(table: Table, common: dict[str, Any]) -> Phase:
    return Report(points=table.need("points", _points), **common)


def _command(table: Table, common: dict[str, Any]) -> Phase:
    return Command(
        service=table.need("service", text("a service's identifier", r"[A-Za-z0-9._-]{1,128}")),
        every=table.get("every", seconds(600), 10.0),
        **common,
    )


def _program(table: Table, common: dict[str, Any]) -> Phase:
    return Program(
        command=table.need("command", _command_line),
        identity=table.get("identity", flag, False),
        port=table.get("port", flag, False),
        **common,
    )


def _label(table: Table, common: dict[str, Any]) -> Phase:
    return Label(copies=table.get("copies", whole(1, 20), 1), **common)


def _release(table: Table, common: dict[str, Any]) -> Phase:
    return Release(
        detach=table.get("detach", flag, True),
        power_off=table.get("power_off", flag, True),
        **common,
    )


_READERS: dict[str, Callable[[Table, dict[str, Any]], Phase]] = {
    "identify": _identify,
    "radio": _radio,
    "attach": lambda _, common: Attach(**common),
    "claim": lambda _, common: Claim(**common),
    "authenticate": lambda _, common: Authenticate(**common),
    "report": _report,
    "command": _command,
    "program": _program,
    "label": _label,
    "release": _release,
}


def _range(least: float, most: float, unit: str) -> Callable[[object], Range]:
    one = number(least, most, unit)

    def read(value: object) -> Range:
        if not isinstance(value, dict) or not value:
            raise BadInput(
                "limits", value, "limits such as { low = -110 } or { low = 0, high = 1 }"
            )
        keys_only(value, ("low", "high"), "limits")
        found = Range(**{key: one(limit) for key, limit in value.items()})
        if found.low is not None and found.high is not None and found.low > found.high:
            raise BadInput("limits", value, "a low that is not above high")
        return found

    return read


def _points(value: object) -> dict[str, Value]:
    from nbiot.enos.things import measurepoints

    if not isinstance(value, dict):
        raise BadInput("points", value, 'values by identifier: { rsrp = "$rsrp" }')
    for name, point in value.items():
        if isinstance(point, str) and point.startswith("$") and point[1:] not in FACTS:
            raise BadInput(f"points.{name}", point, ", ".join(f"${fact}" for fact in FACTS))
    measurepoints(value)  # raises what EnOS would refuse
    return value


def _command_line(value: object) -> tuple[str, ...]:
    line = texts("texts: the program and its arguments")(value)
    if shutil.which(line[0]) is None:
        raise BadInput("command", line[0], "a program in the PATH, or a path of one")
    return line


def _pattern(value: object) -> str:
    try:
        return re.compile(text("a regular expression")(value)).pattern
    except re.error as error:
        raise BadInput("pattern", value, f"a regular expression ({error})") from None
