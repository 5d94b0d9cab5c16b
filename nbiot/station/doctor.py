"""A walk over all that a station needs before the first board: files, key, database, ports, EnOS.

Nothing is changed, but that the state folder is made; a station may run meanwhile. Unlike those of
``nbiot doctor`` these steps do not build on each other: each says what it found.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import sqlite3
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from nbiot.doctor import Finding, Saw, Verdict
from nbiot.errors import NbiotError, PortBusy, StationError
from nbiot.link.ports import check_port
from nbiot.signing import secret_from
from nbiot.station.deploy import TARGETS

if TYPE_CHECKING:
    from hil.rig import Slot
    from nbiot.station.config import Config

STEP_SECONDS = 30.0
FREE_LEAST = 200e6  # bytes on the disk of the state folder
FEW_IDENTITIES = 50
SLOW_SYNC = 0.5  # s; a worn SD card
WRITTEN = 1_767_225_600.0  # 2026-01-01: no clock that is right is behind this
_VOLATILE = {"tmpfs", "ramfs", "overlay"}
_NETWORK = {"nfs", "nfs4", "cifs", "smb3", "9p"}


async def examine(config: Config) -> AsyncIterator[Finding]:
    """The findings, each as soon as it stands."""
    steps: list[tuple[str, Callable[[], Awaitable[Saw]]]] = [
        ("recipe", lambda: asyncio.to_thread(_recipe, config)),
        ("state folder", lambda: asyncio.to_thread(_state, config.state)),
        ("outbox", lambda: asyncio.to_thread(_outbox, config.state / "outbox.db")),
        ("vault", lambda: asyncio.to_thread(_vault, config.vault)),
        ("database", lambda: _database(config)),
        ("clock", _clock),
        *((f"slot {slot.name}", lambda slot=slot: _slot(slot, config)) for slot in config.slots),
        ("ModemManager", lambda: asyncio.to_thread(_modem_manager)),
        ("printer", lambda: _printer(config)),
        ("screen", lambda: asyncio.to_thread(_screen, config)),
        ("EnOS server", lambda: _server(config)),
        ("EnOS REST", lambda: _rest(config)),
    ]
    await asyncio.to_thread(_import, config)
    for name, step in steps:
        yield await _finding(name, step)


def _import(config: Config) -> None:
    """What the steps need takes up to a second on a Raspberry Pi: not in the event loop."""
    import nbiot.station.labels
    import nbiot.station.runner
    import nbiot.station.store

    if config.rest is not None:
        import nbiot.station.rest  # noqa: F401


async def _finding(name: str, step: Callable[[], Awaitable[Saw]]) -> Finding:
    try:
        async with asyncio.timeout(STEP_SECONDS):
            return Finding(name, *await step())
    except TimeoutError:
        return _failed(name, f"nothing within {STEP_SECONDS:g} s", "")
    except NbiotError as error:
        return Finding(name, Verdict.FAILED, error.message, error.hint, error.exit_code)
    except OSError as error:
        return _failed(name, f"{error.strerror or error} ({error.filename or 'system'})", "")


def _failed(name: str, saw: str, hint: str) -> Finding:
    return Finding(name, Verdict.FAILED, saw, hint, StationError.exit_code)


# --- on this machine ----------------------------------------------------------------------------


def _recipe(config: Config) -> Saw:
    from nbiot.station import recipe as recipes
    from nbiot.station.runner import check_together

    found = recipes.load(config.recipe)
    check_together(config, found)
    return Verdict.OK, f"{found.name}, {len(found.phases)} phases", ""


def _state(folder: Path) -> Saw:
    """Can a result be brought to the disk there, and would it be there tomorrow?"""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        began = time.perf_counter()
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor-") as file:
            file.write(b"\0" * 4096)
            file.flush()
            os.fsync(file.fileno())
        took = time.perf_counter() - began
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise StationError(
            f"{folder} cannot be written: {error.strerror}",
            hint="Results would be lost. Give it to the station's user: chown, mount -o remount,rw",
        ) from error
    saw = f"{folder}: {free / 1e9:.1f} GB free, a write is on the disk after {took * 1000:.0f} ms"
    kind = filesystem(folder)
    if kind in _VOLATILE:
        return Verdict.WARNING, f"{saw}; {kind} forgets it all without power", _PARTITION
    if kind in _NETWORK:
        return Verdict.WARNING, f"{saw}; it is on a network ({kind})", "SQLite is not for that."
    if free < FREE_LEAST:
        return Verdict.WARNING, saw, "Make room: traces in it may be deleted."
    if took > SLOW_SYNC:
        return Verdict.WARNING, saw, "Slow: is the SD card worn out?"
    return Verdict.OK, saw, ""


_PARTITION = "Mount a partition there: docs/station-raspberry-pi.md, read-only root."


def filesystem(path: Path, mounts: str = "/proc/self/mounts") -> str:
    """The kind of file system that ``path`` is on; empty: unknown."""
    best, kind = "", ""
    real = os.path.realpath(path)
    with suppress(OSError), open(mounts, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            _, point, found, *_ = line.split(" ")
            inside = real == point or real.startswith(point.rstrip("/") + "/")
            if inside and len(point) >= len(best):
                best, kind = point, found
    return kind


def _outbox(path: Path) -> Saw:
    """Read beside a running station; opening it as one would end that one's runs."""
    if not path.exists():
        return Verdict.OK, "none yet", ""
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=5)) as db:
            ((health,),) = db.execute("PRAGMA quick_check(1)").fetchall()
            ((waiting, aside),) = db.execute("SELECT count(*), count(error) FROM record").fetchall()
    except sqlite3.Error as error:
        raise StationError(
            f"the outbox {path} cannot be read: {error}", hint="Keep the file; call for help."
        ) from error
    if health != "ok":
        raise StationError(
            f"the outbox {path} is damaged: {health}",
            hint="Keep a copy of the file: results are in it. Then look at disk and supply.",
        )
    if aside:
        saw = f"{waiting - aside} results wait, {aside} were set aside"
        return Verdict.WARNING, saw, "The database refused them; their errors are in the outbox."
    return Verdict.OK, f"{waiting} results wait" if waiting else "empty", ""


def _vault(source: str) -> Saw:
    from nbiot.station.vault import Vault

    return Verdict.OK, f"{source} has the key {Vault.open(source).key_id}", ""


async def _database(config: Config) -> Saw:
    from nbiot.station.runner import store_of

    async with await asyncio.to_thread(store_of, config) as store:
        counts = await store.counts()
    if config.rest is not None:
        return Verdict.OK, f"{counts.proven} identities proven", ""
    saw = f"{counts.free} identities free, {counts.proven} proven"
    if counts.free < FEW_IDENTITIES:
        return Verdict.WARNING, saw, "Type: nbiot station import FILE.csv"
    return Verdict.OK, saw, ""


async def _clock() -> Saw:
    now = time.time()
    shown = time.strftime("%Y-%m-%d %H:%M:%S %Z")
    if now < WRITTEN:
        raise StationError(
            f"it is {shown} by this clock",
            hint="Set it: timedatectl set-ntp true, or put a clock chip on the Raspberry Pi.",
        )
    synchronised = await _said("timedatectl", "show", "-p", "NTPSynchronized", "--value")
    if synchronised == "no":
        hint = "Type: timedatectl set-ntp true. EnOS's REST interface refuses a clock that is off."
        return Verdict.WARNING, f"{shown}, set by nobody", hint
    known = "by a time server" if synchronised == "yes" else "nobody tells whether it is right"
    return Verdict.OK, f"{shown}, {known}", ""


async def _said(*command: str) -> str:
    """What a program printed; empty when it is not there or fails."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError:
        return ""
    try:
        async with asyncio.timeout(5):
            out, _ = await process.communicate()
    except TimeoutError:
        return ""
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return out.decode(errors="replace").strip()


# --- ports --------------------------------------------------------------------------------------


async def _slot(slot: Slot, config: Config) -> Saw:
    if not slot.port.startswith("/"):
        return Verdict.OK, slot.port, ""
    return await asyncio.to_thread(_port, slot.port, config.boards)


def _port(path: str, boards: str) -> Saw:
    if not os.path.exists(path):
        if boards != "operator" and path.startswith(("/dev/serial/", "/dev/nbiot/", "/dev/tty")):
            return Verdict.OK, f"{path}: no board in it", ""
        return Verdict.WARNING, f"{path} is not there", "Plug it in, or correct the station file."
    try:
        check_port(path)
    except PortBusy as error:
        return Verdict.WARNING, error.message, "A station that runs has it; else stop that program."
    if not os.access(path, os.R_OK | os.W_OK):
        user = "nbiot" if sys.stdin is None or not sys.stdin.isatty() else "$USER"
        return (
            Verdict.FAILED,
            f"{path} may not be opened by this user",
            f"Type: sudo usermod -aG dialout {user}, and log in anew.",
        )
    if path.startswith(("/dev/ttyUSB", "/dev/ttyACM")):
        return (
            Verdict.WARNING,
            f"{path} is another socket after the next start",
            "Name it as in /dev/serial/by-id, or /dev/nbiot (nbiot station install).",
        )
    return Verdict.OK, path, ""


def _modem_manager(processes: Path = Path("/proc"), root: Path = Path("/")) -> Saw:
    for comm in processes.glob("[0-9]*/comm"):
        with suppress(OSError):
            if comm.read_text().strip() == "ModemManager":
                break
    else:
        return Verdict.OK, "does not run", ""
    if (root / TARGETS["nbiot-station.rules"]).exists():
        return Verdict.OK, "runs, and is kept from the ports by our udev rules", ""
    hint = "It types into ports that come: sudo nbiot station install, or stop and mask it."
    return Verdict.WARNING, "runs", hint


# --- around it ----------------------------------------------------------------------------------


async def _printer(config: Config) -> Saw:
    from nbiot.station.runner import printer_of

    printer = await asyncio.to_thread(printer_of, config)
    if printer is None:
        return Verdict.SKIPPED, "the station file names none", ""
    return Verdict.OK, await printer.check(), ""


def _screen(config: Config) -> Saw:
    screen = config.screen
    if screen.pin is not None:
        secret_from(screen.pin)  # raises what is wrong with it
    saw = f"http://{screen.host}:{screen.port}"
    try:
        family = socket.AF_INET6 if ":" in screen.host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((screen.host, screen.port))
    except OSError as error:
        words = f"{saw}: {error.strerror or error}"
        return Verdict.WARNING, words, "A station that runs has it; else choose another port."
    return Verdict.OK, f"{saw} is free", ""


async def _server(config: Config) -> Saw:
    """From here the address need not be reachable: the boards have a network of their own."""
    if config.server is None:
        return Verdict.SKIPPED, "the station file names none", ""
    host, port = config.server.host, config.server.port
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            host, port, family=socket.AF_INET, type=socket.SOCK_DGRAM
        )
    except OSError as error:
        hint = "Boards may know it all the same: the modem's network has name servers of its own."
        return Verdict.WARNING, f"{host} is not found from here: {error.strerror}", hint
    return Verdict.OK, f"{host} is {found[0][4][0]}", ""


async def _rest(config: Config) -> Saw:
    if config.rest is None:
        return Verdict.SKIPPED, "identities come from the pool", ""
    from nbiot.station.rest import EnosRest

    rest = config.rest
    secret = await asyncio.to_thread(secret_from, rest.secret_key)
    async with EnosRest(rest.address, rest.org_id, rest.access_key, secret) as client:
        saw = await client.check()
        if config.product_key is None:
            return Verdict.OK, saw, ""
        product = await client.product(config.product_key)
    return Verdict.OK, f"{saw}; product {product.name or product.product_key}", ""
