"""The rig: which modems there are, where they are plugged in, and how they are switched.

``load`` reads ``rig.toml`` (docs/rig.md) and finds all that can be wrong with it before any modem
is touched. A slot is then used like this::

    with locked(slot.port):                             # hil.lock
        async with hosted(slot) as port, power_of(slot) as power, Modem(port, ...) as modem:
            ...                                         # hil.hosting, hil.power
"""

from __future__ import annotations

import difflib
import os
import re
import stat
import tomllib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from hil.hosting import hosted as hosted
from hil.toml_lines import Path as Place
from hil.toml_lines import lines_of
from nbiot.errors import BadInput

EMULATED = "emulator:"
LABGRID = "labgrid:"
MOST_BYTES = 1_000_000
_NAME = r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}"
_HIDDEN = frozenset({"secret", "password", "token", "user"})  # their values are never shown
_SECRET_SOURCES = "env:NAME, file:PATH or keyring:SERVICE/USER"
_SECRET_SOURCE = re.compile(r"(env:[A-Za-z_][A-Za-z0-9_]*|file:.+|keyring:.+/[^/]+)")
_RUNS_PROGRAMS = frozenset({"command", "usb-hub", "labgrid"})


@dataclass(frozen=True, slots=True)
class Slot:
    """A place of the rig with one modem in it."""

    name: str
    port: str
    """Path (best in /dev/serial/by-id), URL as for ``--port``, or ``labgrid:PLACE``."""
    modem: str = "auto"
    """The profile of the modem that must be there."""
    baud: int | None = None
    apn: str | None = None
    server: str | None = None
    """HOST[:PORT], as for ``--server``; None: the EnOS stand-in on loopback, where only emulated
    modems reach it."""
    product_key: str | None = None
    device_key: str | None = None
    """None: the IMEI."""
    secret: str | None = None
    """Where the device secret is: env:NAME, file:PATH or keyring:SERVICE/USER."""
    power: Mapping[str, Any] | None = field(default=None, hash=False)
    """How its supply is switched: ``backend`` and what that backend wants."""
    reset: Mapping[str, Any] | None = field(default=None, hash=False)
    """How its reset line is pulled, likewise."""
    tags: frozenset[str] = frozenset()
    line: int = 0
    """Where it stands in the file; 0: in none."""

    @property
    def emulated(self) -> bool:
        """Is it a software modem that this process makes?"""
        return self.port.startswith(EMULATED)


@dataclass(frozen=True, slots=True)
class Rig:
    """All slots, in the order of the file."""

    path: Path | None
    slots: tuple[Slot, ...]

    def slot(self, name: str) -> Slot:
        """The slot of this name. Raises BadInput."""
        for slot in self.slots:
            if slot.name == name:
                return slot
        names = [slot.name for slot in self.slots]
        raise BadInput("slot", name, ", ".join(names), hint=_nearest(name, names))


class BadRig(BadInput):
    """The rig file cannot be used: where in it, which key, what was given, what is allowed."""

    def __init__(
        self,
        path: Path,
        line: int,
        key: str,
        given: object,
        allowed: str,
        *,
        hint: str = "",
        problem: str = "",
    ) -> None:
        where = f"{path}:{line}" if line else str(path)
        super().__init__(f"{where}: {key}", given, allowed, hint=hint)
        if problem:
            self.message = f"{where}: {problem}"
            self.args = (self.message,)
        self.path = path
        self.line = line


def emulated_rig() -> Rig:
    """One slot for each emulated family: what there is without a rig file."""
    names = ("bc95", "bc95-g", "bc66")
    slots = tuple(Slot(name, f"{EMULATED}{name}?speed=10", modem=name) for name in names)
    return Rig(None, slots)


def load(path: Path, *, ports: bool = True) -> Rig:
    """Read and check ``path``. Blocks. Raises BadRig.

    ports: whether a port that does not exist is an error
    """
    found, text = _read(path)
    reader = _Reader(path, _parse(path, text), lines_of(text))
    slots = reader.slots()
    _check_permissions(path, found, slots)
    if ports:
        check_ports(Rig(path, slots))
    return Rig(path, slots)


def check_ports(rig: Rig, names: Collection[str] | None = None) -> None:
    """Raise BadRig for the first slot, of those named, whose port does not exist."""
    from nbiot.link.ports import port_missing

    for slot in rig.slots:
        wanted = names is None or slot.name in names
        if wanted and _is_path(slot.port) and not os.path.exists(slot.port):
            missing = port_missing(slot.port)
            raise BadRig(
                rig.path or Path("rig"),
                slot.line,
                f"slot {slot.name}, key port",
                slot.port,
                "a port that exists",
                problem=f"slot {slot.name}: {missing.message}",
                hint=missing.hint,
            )


# --- reading the file -------------------------------------------------------------------------


def _read(path: Path) -> tuple[os.stat_result, str]:
    hint = "`nbiot rig init` writes one."
    try:  # non-blocking, so that a FIFO does not hold us before we can see what it is
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        allowed = f"a file that can be read ({reason})"
        raise BadRig(path, 0, "rig file", str(path), allowed, hint=hint) from None
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise BadRig(path, 0, "rig file", str(path), "a regular file", hint=hint)
        with open(fd, "rb", closefd=False) as file:
            data = file.read(MOST_BYTES + 1)
    finally:
        os.close(fd)
    if len(data) > MOST_BYTES:
        raise BadRig(path, 0, "rig file", f"{len(data)} bytes or more", f"at most {MOST_BYTES}")
    try:
        return found, data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise BadRig(path, line, "rig file", f"byte {data[error.start]:#04x}", "UTF-8") from None


def _parse(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        problem = str(error)
        if place := re.search(r" \(at line (\d+), column (\d+)\)$", problem):
            line, problem = int(place[1]), f"{problem[: place.start()]} (column {place[2]})"
        else:  # "(at end of document)"
            line = text.count("\n", 0, len(text.rstrip())) + 1
        raise BadRig(
            path, line, "TOML", problem, "TOML; docs/rig.md has an example", problem=problem
        ) from None
    except RecursionError:
        raise BadRig(path, 0, "TOML", "values inside values", "fewer levels") from None


def _check_permissions(path: Path, found: os.stat_result, slots: Iterable[Slot]) -> None:
    """Refuse a file that others may read while it tells of secrets, or write while it runs
    programs or says where secrets go.
    """
    mode = stat.S_IMODE(found.st_mode)
    tables = [table for slot in slots for table in (slot.power, slot.reset) if table is not None]
    secrets = any(slot.secret for slot in slots) or any(_HIDDEN & set(table) for table in tables)
    programs = any(table["backend"] in _RUNS_PROGRAMS for table in tables)
    if secrets and mode & 0o077:
        problem = f"others may use this file (mode {mode:04o}), and it says where secrets are"
    elif programs and mode & 0o022:
        problem = f"others may write this file (mode {mode:04o}), and it names programs to run"
    elif (secrets or programs) and found.st_uid not in (0, os.geteuid()) and os.geteuid():
        problem = "this file is another user's, and it says where secrets are or what to run"
    else:
        return
    import shlex

    foreign = found.st_uid not in (0, os.geteuid()) and os.geteuid()
    name = shlex.quote(str(path))
    to_type = f"sudo chown $USER {name} && chmod 600 {name}" if foreign else f"chmod 600 {name}"
    raise BadRig(
        path, 0, "rig file", f"mode {mode:04o}", "0600", problem=problem, hint=f"Type: {to_type}"
    )


class _Reader:
    """Makes slots of the parsed file; knows where things stand."""

    def __init__(self, path: Path, tables: dict[str, Any], lines: dict[Place, int]) -> None:
        self._path = path
        self._tables = tables
        self._lines = lines

    def slots(self) -> tuple[Slot, ...]:
        self._known((), self._tables, ["slot"], "the file")
        tables = self._tables.get("slot")
        if not isinstance(tables, dict) or not tables:
            line = self._lines.get(("slot",), 0)
            raise BadRig(
                self._path,
                line,
                "slot",
                "nothing" if tables is None else type(tables).__name__,
                "one table [slot.NAME] for each modem",
                problem="no slots: the file needs a table [slot.NAME] for each modem",
                hint="`nbiot rig init` writes a file to begin with.",
            )
        slots = tuple(self._slot(name, table) for name, table in tables.items())
        self._check_distinct(slots)
        return slots

    def _slot(self, name: str, table: Any) -> Slot:
        place: Place = ("slot", name)
        if not re.fullmatch(_NAME, name):
            allowed = "a name of letters, digits, - and _ (64 at most)"
            raise self._bad(place, "name of a slot", name, allowed)
        if not isinstance(table, dict):
            raise self._bad(place, f"slot {name}", table, f"a table: [slot.{name}]")
        where = f"slot {name}"
        self._known(place, table, _KEYS, where)
        if "port" not in table:
            problem = f"{where}: the key port is missing"
            raise self._bad(place, "port", None, "a port", problem=problem, hint=_PORT_HINT)
        values = {}
        for key, value in table.items():
            try:
                values[key] = _KEYS[key](value)
            except BadInput as error:
                raise self._because((*place, key), f"{where}, key {key}", error) from None
        slot = Slot(name, line=self._lines.get(place, 0), **values)
        for key in ("power", "reset"):
            if values.get(key) is not None:
                self._check_switch(slot, key)
        return slot

    def _check_switch(self, slot: Slot, key: str) -> None:
        """Try the table ``power`` or ``reset`` on its backend, without touching a thing."""
        from hil.power import BadKey, backend_of

        place: Place = ("slot", slot.name, key)
        try:
            backend_of(slot, key)
        except BadInput as error:
            inner = error.field if (*place, error.field) in self._lines else None
            where = f"slot {slot.name}, {key}" + (f", key {inner}" if inner else "")
            at = (*place, inner) if inner else place
            if isinstance(error, BadKey):
                problem = f"slot {slot.name}, {key}: {error.message}"
                bad = self._bad(at, where, None, error.allowed, problem=problem, hint=error.hint)
                raise bad from None
            raise self._because(at, where, error) from None

    def _check_distinct(self, slots: tuple[Slot, ...]) -> None:
        seen: dict[str, Slot] = {}
        for slot in slots:
            if slot.emulated:
                continue  # each use makes a modem of its own
            other = seen.setdefault(_identity(slot.port), slot)
            if other is not slot:
                same = "" if other.port == slot.port else f", as {other.port}"
                raise self._bad(
                    ("slot", slot.name, "port"),
                    f"slot {slot.name}, key port",
                    slot.port,
                    "a port of its own",
                    problem=f"slot {slot.name} has the port of slot {other.name}"
                    f" (line {other.line}{same}): {slot.port}",
                    hint="Two slots cannot share a modem.",
                )

    def _known(self, place: Place, table: dict[str, Any], keys: Collection[str], of: str) -> None:
        for key in table:
            if key not in keys:
                raise self._bad(
                    (*place, key),
                    f"key of {of}",
                    key,
                    ", ".join(keys),
                    problem=f"{of} has no key {key!r}; there are {', '.join(keys)}",
                    hint=_nearest(key, keys),
                )

    def _because(self, place: Place, what: str, error: BadInput) -> BadRig:
        return self._bad(place, what, error.given, error.allowed, hint=error.hint)

    def _bad(self, place: Place, what: str, given: object, allowed: str, **more: str) -> BadRig:
        line = next((self._lines[p] for p in _outwards(place) if p in self._lines), 0)
        return BadRig(self._path, line, what, given, allowed, **more)


def _outwards(place: Place) -> Iterable[Place]:
    return (place[:length] for length in range(len(place), 0, -1))


def _nearest(given: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(given.lower(), known, 1)
    return f"Did you mean {close[0]}?" if close else ""


# --- the keys of a slot -----------------------------------------------------------------------

_PORT_HINT = '`nbiot ports` lists what is plugged in. Without a board: port = "emulator:bc66"'


def _text(key: str, allowed: str, pattern: str) -> Callable[[object], str]:
    def read(value: object) -> str:
        if isinstance(value, str) and re.fullmatch(pattern, value, re.ASCII):
            return value
        raise BadInput(key, value, allowed)

    return read


def _port(value: object) -> str:
    allowed = "a path such as /dev/serial/by-id/..., or a URL such as rfc2217://HOST:PORT"
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise BadInput("port", value, allowed, hint=_PORT_HINT)
    scheme, colon, rest = value.partition(":")
    if value.startswith(EMULATED):
        from hil.link import emulator_settings

        emulator_settings(rest)
    elif value.startswith(LABGRID):
        if not re.fullmatch(r"[^\s/]+", rest):
            raise BadInput("port", value, "labgrid: and the name of a place")
    elif colon and "/" not in scheme:
        schemes = [entry.name for entry in entry_points(group="nbiot.links")]
        if scheme not in schemes:
            known = ", ".join(f"{name}:" for name in sorted([*schemes, "labgrid"]))
            raise BadInput("port", value, f"a path, or a URL that begins with {known}")
    elif not value.startswith("/"):
        raise BadInput("port", value, "a path from the root (/dev/...)", hint=_PORT_HINT)
    return value


def _modem(value: object) -> str:
    from nbiot.modem import profiles

    known = ("auto", *profiles())
    if isinstance(value, str) and value in known:
        return value
    hint = _nearest(value, known) if isinstance(value, str) else ""
    raise BadInput("modem", value, ", ".join(known), hint=hint)


def _baud(value: object) -> int:
    from nbiot.link import check_baudrate

    return check_baudrate(value)


def _server(value: object) -> str:
    found = (
        re.fullmatch(r"(?:coaps://)?([A-Za-z0-9.-]{1,253})(?::(\d{1,5}))?", value, re.ASCII)
        if isinstance(value, str)
        else None
    )
    if found is None or not 0 < int(found[2] or 5683) < 65536:
        raise BadInput("server", value, "HOST, HOST:PORT or coaps://HOST[:PORT]")
    return found[0]


def _product_key(value: object) -> str:
    from nbiot.signing import check_product_key

    return check_product_key(value)


def _device_key(value: object) -> str:
    from nbiot.signing import check_device_key

    return check_device_key(value)


def check_secret_source(value: object, name: str = "secret") -> str:
    """``value`` if it says where a secret is, else BadInput, which does not show it."""
    if isinstance(value, str) and _SECRET_SOURCE.fullmatch(value):
        return value
    del value
    raise BadInput(
        name,
        "a text that names no source (not shown: it may be the secret itself)",
        _SECRET_SOURCES,
        hint=f'Write {name} = "env:NBIOT_DEVICE_SECRET", and before the run type:'
        " read -rs NBIOT_DEVICE_SECRET && export NBIOT_DEVICE_SECRET",
    )


def _switch(value: object) -> dict[str, Any]:
    if isinstance(value, dict) and isinstance(value.get("backend"), str):
        return value
    given = f"a table without backend: {', '.join(value)}" if isinstance(value, dict) else value
    raise BadInput("power or reset", given, 'a table such as { backend = "http", ... }')


def _tags(value: object) -> frozenset[str]:
    if isinstance(value, list) and all(isinstance(tag, str) and tag.strip() for tag in value):
        return frozenset(value)
    raise BadInput("tags", value, 'a list of texts: ["roof", "slow"]')


_KEYS: dict[str, Callable[[Any], Any]] = {
    "port": _port,
    "modem": _modem,
    "baud": _baud,
    "apn": _text("apn", "1 to 100 letters, digits, - . _", r"[A-Za-z0-9._-]{1,100}"),
    "server": _server,
    "product_key": _product_key,
    "device_key": _device_key,
    "secret": check_secret_source,
    "power": _switch,
    "reset": _switch,
    "tags": _tags,
}
assert {*_KEYS, "name", "line"} == {entry.name for entry in fields(Slot)}


# --- ports ------------------------------------------------------------------------------------


def _is_path(port: str) -> bool:
    return port.startswith("/")


def _identity(port: str) -> str:
    from hil.lock import identity_of

    return identity_of(port)
