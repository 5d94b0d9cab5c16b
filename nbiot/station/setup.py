"""What ``nbiot station init`` and ``export`` do."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import platform
import re
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from nbiot.errors import BadInput

if TYPE_CHECKING:
    from nbiot.link.ports import PortInfo
    from nbiot.station.config import Config
    from nbiot.station.store import Store

RECIPE_FILE = "recipe.toml"

_STATION = """\
# A provisioning station; docs/station.md tells each key. Check it with: nbiot station doctor
name = {name}
recipe = "recipe.toml"
# database = "postgresql+psycopg://station@10.0.0.5/factory"   # else a file of this station alone
# database_password = "file:database.password"
# vault = "file:/etc/nbiot/vault.key"   # all stations of a line have the same key
# printer = "zpl://10.0.0.9"            # or cups://QUEUE, file:FOLDER

[enos]
host = "abc.def.com"                    # of your EnOS environment; or server = "HOST[:PORT]"

[identities]
from = "pool"                           # or "register", at EnOS: see docs/station.md
# product_key = "..."                   # else whichever the pool has

# [screen]
# host = "0.0.0.0"                      # to be seen from other machines; then a PIN is needed
# pin = "file:screen.pin"
"""

_RECIPE = """\
# What a board goes through; docs/station.md tells each key.
name = "first"
# scan = true                           # wait until the board's serial number is scanned

[[phase]]
kind = "identify"
# models = ["BC95-G"]
# firmware = ["BC95GJBR01A07"]

[[phase]]
kind = "claim"

[[phase]]
kind = "attach"
seconds = 180

[[phase]]
kind = "radio"
rsrp = {{ low = -110 }}
seconds = 30

[[phase]]
kind = "authenticate"

# [[phase]]
# kind = "report"
# points = {{ rsrp = "$rsrp" }}          # identifiers of your product's model

# [[phase]]
# kind = "label"

[[phase]]
kind = "release"
"""


async def write_files(path: Path, name: str | None) -> list[Path]:
    """Write the station file and its recipe where there are none; what was written."""
    from nbiot.link.ports import list_ports_async

    ports = await list_ports_async()
    name = name or re.sub(r"[^A-Za-z0-9_-]", "-", platform.node())[:32].lstrip("-_") or "S1"
    texts = {path: _station_text(name, ports), path.parent / RECIPE_FILE: _RECIPE.format()}
    return [file for file, text in texts.items() if await asyncio.to_thread(_new, file, text)]


def _new(path: Path, text: str) -> bool:
    """Write ``path`` unless it is there."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return False
    except OSError as error:
        raise BadInput("file", str(path), f"one that can be made ({error.strerror})") from None
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.write(text)
    return True


def _station_text(name: str, ports: list[PortInfo]) -> str:
    blocks = [_STATION.format(name=json.dumps(name))]
    if not ports:
        blocks.append(
            "# No serial port was plugged in when this was written: these are emulated.\n"
        )
    found = [(port.by_id or port.path, port.description) for port in ports]
    for number, (port, about) in enumerate(found or [("emulator:bc66?speed=4", "emulated")], 1):
        words = "".join(c if c.isprintable() else "?" for c in about)
        blocks.append(f"[slot.{number}]  # {words}\nport = {json.dumps(port)}\n")
    return "\n".join(blocks)


async def make_parts(config: Config) -> list[str]:
    """State folder, key of the vault, tables: what is missing is made. In words, what was."""
    from nbiot.station.runner import store_of
    from nbiot.station.store import database_url, shown
    from nbiot.station.vault import Vault

    await asyncio.to_thread(config.state.mkdir, 0o700, True, True)
    said = []
    if key := await asyncio.to_thread(_missing_key, config.vault):
        await asyncio.to_thread(Vault.create, key)
        said.append(f"{key} is made: the key of the vault. Keep a copy of it in a safe place.")
    async with await asyncio.to_thread(lambda: store_of(config, create=True)):
        url = await asyncio.to_thread(database_url, config.database)
        said.append(f"{shown(url)} has its tables.")
    return said


def _missing_key(source: str) -> Path | None:
    """The key file, if it is one and is not there."""
    kind, _, rest = source.partition(":")
    path = Path(rest).expanduser()
    return path if kind == "file" and not path.exists() else None


async def export(store: Store, kind: str, file: IO[str]) -> None:
    """Write identities ("csv", "json") or results ("records", "openhtf") to ``file``."""
    if kind in ("csv", "json"):
        await _export_identities(store, kind, file)
        return
    if kind == "openhtf":
        from nbiot.station.openhtf import to_openhtf
    before = None
    while page := await store.records(limit=200, before=before):
        rows = [to_openhtf(r) if kind == "openhtf" else r.as_dict() for r in page]
        await asyncio.to_thread(file.writelines, [json.dumps(row) + "\n" for row in rows])
        before = page[-1].id


async def _export_identities(store: Store, kind: str, file: IO[str]) -> None:
    rows: list[dict[str, Any]] = []
    first = True
    async for row in store.export():
        rows.append(row)
        if len(rows) == 1000:
            await asyncio.to_thread(_write_rows, kind, file, rows, first)
            rows, first = [], False
    await asyncio.to_thread(_write_rows, kind, file, rows, first)


def _write_rows(kind: str, file: IO[str], rows: list[dict[str, Any]], first: bool) -> None:
    if kind == "json":
        file.writelines(json.dumps(row) + "\n" for row in rows)
        return
    if not rows:
        return
    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    if first:
        writer.writeheader()
    writer.writerows(rows)
