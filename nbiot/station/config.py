"""The station's own facts: its name, its slots, database, key, printer, and where EnOS is.

``load`` reads ``station.toml`` (docs/station.md) and finds all that can be wrong with it before
anything is touched.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hil.rig import check_secret_source, slots_of
from hil.rig import load as load_rig
from nbiot.enos import Server
from nbiot.enos.dtls import DtlsServer
from nbiot.enos.limits import state_folder
from nbiot.errors import BadInput
from nbiot.signing import check_lifetime, check_product_key
from nbiot.tomlfile import Table, TomlFile, number, one_of, text, whole

if TYPE_CHECKING:
    from hil.rig import Slot

DEFAULT_PORT = 8642
KEPT_TRACES = 2000
_TELLS = "it says where secrets are and which programs run"


@dataclass(frozen=True, slots=True)
class Rest:
    """EnOS's REST interface, where identities are registered. ``secret_key``: where it is."""

    address: str
    org_id: str
    access_key: str
    secret_key: str


@dataclass(frozen=True, slots=True)
class Screen:
    """The operator's page. ``pin``: where the PIN is; must be given outside of loopback."""

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    pin: str | None = None


@dataclass(frozen=True, slots=True)
class Paper:
    """The labels in the printer: mm, dots per inch."""

    width: float = 50.0
    height: float = 30.0
    dpi: int = 203


@dataclass(frozen=True, kw_only=True)
class Config:
    """One station.

    database:  SQLAlchemy URL, without password
    password:  where the database's password is
    vault:     where the key of the secrets' column is
    state:     folder of this station alone: outbox, traces, lock
    boards:    "detected": a port that comes is a board that was put in; "operator": somebody
               presses Start; "auto": the first for USB ports, the second for others
    """

    name: str
    slots: tuple[Slot, ...]
    database: str
    vault: str
    state: Path
    recipe: Path = Path("recipe.toml")
    password: str | None = None
    boards: str = "auto"
    printer: str | None = None
    paper: Paper = Paper()
    screen: Screen = Screen()
    server: Server | None = None
    lifetime: int = 3600
    ack_timeout: float | None = None
    product_key: str | None = None
    rest: Rest | None = None
    traces: int = KEPT_TRACES
    path: Path | None = None

    def slot(self, name: str) -> Slot:
        """The slot of this name. Raises BadInput."""
        for slot in self.slots:
            if slot.name == name:
                return slot
        raise BadInput("slot", name, ", ".join(slot.name for slot in self.slots))


def default_state(name: str) -> Path:
    """The state folder of a station that names none."""
    return state_folder() / f"station-{name}"


def load(path: Path) -> Config:
    """Read and check ``path``. Blocks. Raises BadFile."""
    file = TomlFile(path, "station file", hint="`nbiot station init` writes one.")
    root = file.root()
    allowed = "1 to 32 letters, digits, - and _"
    name = root.need("name", text(allowed, r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}"))
    state = root.get("state", _path_in(path), None) or default_state(name)
    identities = _identities(root)
    config = Config(
        name=name,
        state=state,
        database=root.get("database", _database, None)
        or f"sqlite+aiosqlite:///{state / 'station.db'}",
        password=root.get("database_password", check_secret_source, None),
        vault=root.get("vault", check_secret_source, None) or f"file:{state / 'vault.key'}",
        recipe=root.get("recipe", _path_in(path), None) or path.parent / "recipe.toml",
        boards=root.get("boards", one_of("auto", "detected", "operator"), "auto"),
        printer=root.get("printer", _printer, None),
        paper=_paper(root),
        screen=_screen(root),
        traces=root.get("traces", whole(0, 10_000_000), KEPT_TRACES),
        slots=_slots(root),
        path=path,
        **_enos(root),
        **identities,
    )
    root.done()
    file.check_mode(0o022, _TELLS, to="go-w")
    return config


def _slots(root: Table) -> tuple[Slot, ...]:
    rig = root.get("rig", _path_in(root.file.path), None)
    if rig is not None and "slot" in root:
        problem = "slots stand here and in the rig file; only one of the two can be"
        raise root.bad("slot", "slot", "both", "rig or [slot.NAME]", problem=problem)
    if rig is not None:
        return load_rig(rig, ports=False).slots
    return slots_of(root)


def _enos(root: Table) -> dict[str, Any]:
    table = root.table("enos")
    if table is None:
        return {}
    host = table.get("host", _enos_host, None)
    server = table.get("server", _server, None)
    if (host is None) == (server is None):
        problem = "table enos: one of host (an EnOS environment) and server is needed"
        raise table.bad(None, "enos", "both" if host else "none", "one", problem=problem)
    found = {
        "server": host or server,
        "lifetime": table.get("lifetime", check_lifetime, 3600),
        "ack_timeout": table.get("ack_timeout", number(0.1, 60, "(seconds)"), None),
    }
    table.done()
    return found


def _identities(root: Table) -> dict[str, Any]:
    table = root.table("identities")
    if table is None:
        return {}
    source = table.get("from", one_of("pool", "register"), "pool")
    product_key = table.get("product_key", check_product_key, None)
    rest = _rest(table) if source == "register" else None
    if rest is not None and product_key is None:
        problem = "table identities: registration needs a product_key"
        raise table.bad(None, "product_key", None, "a product key", problem=problem)
    table.done()
    return {"product_key": product_key, "rest": rest}


def _rest(table: Table) -> Rest:
    return Rest(
        address=table.need("rest", _rest_address),
        org_id=table.need("org_id", text("the organisation's id", r"[A-Za-z0-9_-]{1,64}")),
        access_key=table.need("access_key", text("the application's access key")),
        secret_key=table.need("secret_key", check_secret_source),
    )


def _screen(root: Table) -> Screen:
    table = root.table("screen")
    if table is None:
        return Screen()
    found = Screen(
        host=table.get("host", text("an address of this machine", r"[A-Za-z0-9.:-]+"), "127.0.0.1"),
        port=table.get("port", whole(1, 65535), DEFAULT_PORT),
        pin=table.get("pin", check_secret_source, None),
    )
    table.done()
    return found


def _paper(root: Table) -> Paper:
    table = root.table("label")
    if table is None:
        return Paper()
    found = Paper(
        width=table.get("width", number(12, 110, "mm"), 50.0),
        height=table.get("height", number(12, 200, "mm"), 30.0),
        dpi=table.get("dpi", _dpi, 203),
    )
    table.done()
    return found


def _dpi(value: object) -> int:
    from nbiot.station.labels import DOTS_PER_MM

    if type(value) is int and value in DOTS_PER_MM:
        return value
    raise BadInput("dpi", value, ", ".join(map(str, DOTS_PER_MM)))


def _path_in(file: Path) -> Any:
    """A path; one that is not from the root is in the folder of ``file``."""
    read = text("a path")
    return lambda value: file.parent / Path(read(value)).expanduser()


def _database(value: object) -> str:
    from nbiot.station.store import database_url

    found = text("a database URL")(value)
    if re.search(r"://[^/@]*:[^/@]+@", found):
        del value
        raise BadInput(
            "database",
            "a URL with a password in it (not shown)",
            "postgresql+psycopg://USER@HOST/NAME",
            hint='Write database_password = "file:PATH" instead.',
        )
    database_url(found)
    return found


def _printer(value: object) -> str:
    from nbiot.station.labels import printer_from

    found = text("zpl://HOST[:PORT], cups://QUEUE or file:FOLDER")(value)
    printer_from(found)
    return found


def _server(value: object) -> Server:
    found = text("HOST, HOST:PORT or coaps://HOST[:PORT]")(value)
    return DtlsServer.parse(found) if found.startswith("coaps://") else Server.parse(found)


def _rest_address(value: object) -> str:
    from nbiot.station.rest import check_address

    return check_address(text("https://apim-... of the EnOS environment")(value))


def _enos_host(value: object) -> Server:
    return Server.of_enos(text("the host name of an EnOS environment")(value))
