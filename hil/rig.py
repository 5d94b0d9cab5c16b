"""The rig: which modems there are, where they are plugged in, and how they are switched.

``load`` reads ``rig.toml`` (docs/rig.md) and finds all that can be wrong with it before any modem
is touched. A slot is then used like this::

    with locked(slot.port):                             # hil.lock
        async with hosted(slot) as port, power_of(slot) as power, Modem(port, ...) as modem:
            ...                                         # hil.hosting, hil.power
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from hil.hosting import hosted as hosted
from nbiot.errors import BadInput
from nbiot.tomlfile import BadFile, Table, TomlFile, nearest, text

EMULATED = "emulator:"
LABGRID = "labgrid:"
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
        raise BadInput("slot", name, ", ".join(names), hint=nearest(name, names))


class BadRig(BadFile):
    """The rig file cannot be used: where in it, which key, what was given, what is allowed."""


def emulated_rig() -> Rig:
    """One slot for each emulated family: what there is without a rig file."""
    names = ("bc95", "bc95-g", "bc66")
    slots = tuple(Slot(name, f"{EMULATED}{name}?speed=10", modem=name) for name in names)
    return Rig(None, slots)


def load(path: Path, *, ports: bool = True) -> Rig:
    """Read and check ``path``. Blocks. Raises BadRig.

    ports: whether a port that does not exist is an error
    """
    file = TomlFile(path, "rig file", hint="`nbiot rig init` writes one.", error=BadRig)
    root = file.root()
    root.done("slot")
    slots = slots_of(root)
    _check_mode(file, slots)
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


def slots_of(root: Table) -> tuple[Slot, ...]:
    """The slots that the tables [slot.NAME] of any file describe. Raises BadFile.

    Whether others may read that file, and whether the ports exist, is not looked at.
    """
    tables = root.raw("slot")
    if not isinstance(tables, dict) or not tables:
        raise root.bad(
            "slot",
            "slot",
            "nothing" if tables is None else type(tables).__name__,
            "one table [slot.NAME] for each modem",
            problem="no slots: the file needs a table [slot.NAME] for each modem",
            hint="`nbiot rig init` writes a file to begin with.",
        )
    slots = tuple(_slot(root.file, name, values) for name, values in tables.items())
    _check_distinct(root.file, slots)
    return slots


def _slot(file: TomlFile, name: str, values: Any) -> Slot:
    place = ("slot", name)
    if not re.fullmatch(_NAME, name):
        allowed = "a name of letters, digits, - and _ (64 at most)"
        raise file.bad(place, "name of a slot", name, allowed)
    if not isinstance(values, dict):
        raise file.bad(place, f"slot {name}", values, f"a table: [slot.{name}]")
    table = Table(file, place, values, f"slot {name}")
    table.done(*_KEYS)
    table.need("port", _port, hint=_PORT_HINT)
    read = {key: table.need(key, _KEYS[key]) for key in values}
    slot = Slot(name, line=table.line, **read)
    for key in ("power", "reset"):
        if (switch := table.table(key)) is not None:
            _check_switch(slot, key, switch)
    return slot


def _check_switch(slot: Slot, key: str, table: Table) -> None:
    """Try the table ``power`` or ``reset`` on its backend, without touching a thing."""
    from hil.power import BadKey, backend_of

    try:
        backend_of(slot, key)
    except BadInput as error:
        inner = error.field if error.field in table else None
        problem = f"{table.of}: {error.message}" if isinstance(error, BadKey) else ""
        given = None if problem else error.given
        raise table.bad(
            inner,
            f"key {inner}" if inner else table.of,
            given,
            error.allowed,
            hint=error.hint,
            problem=problem,
        ) from None


def _check_distinct(file: TomlFile, slots: tuple[Slot, ...]) -> None:
    seen: dict[str, Slot] = {}
    for slot in slots:
        if slot.emulated:
            continue  # each use makes a modem of its own
        other = seen.setdefault(_identity(slot.port), slot)
        if other is not slot:
            same = "" if other.port == slot.port else f", as {other.port}"
            raise file.bad(
                ("slot", slot.name, "port"),
                f"slot {slot.name}, key port",
                slot.port,
                "a port of its own",
                problem=f"slot {slot.name} has the port of slot {other.name}"
                f" (line {other.line}{same}): {slot.port}",
                hint="Two slots cannot share a modem.",
            )


def _check_mode(file: TomlFile, slots: Iterable[Slot]) -> None:
    """Refuse a file that others may read while it tells of secrets, or write while it runs
    programs or says where secrets go.
    """
    tables = [table for slot in slots for table in (slot.power, slot.reset) if table is not None]
    if any(slot.secret for slot in slots) or any(_HIDDEN & set(table) for table in tables):
        file.check_mode(0o077, "it says where secrets are", to="600")
    elif any(table["backend"] in _RUNS_PROGRAMS for table in tables):
        file.check_mode(0o022, "it names programs to run", to="600")


# --- the keys of a slot -----------------------------------------------------------------------

_PORT_HINT = '`nbiot ports` lists what is plugged in. Without a board: port = "emulator:bc66"'


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
    hint = nearest(value, known) if isinstance(value, str) else ""
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
    "apn": text("1 to 100 letters, digits, - . _", r"[A-Za-z0-9._-]{1,100}"),
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
