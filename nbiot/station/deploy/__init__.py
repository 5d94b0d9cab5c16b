"""Putting a station on a machine: systemd unit, user, udev rules, folders, journal.

``install`` writes files and starts nothing. ``watched`` tells systemd that the station lives.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import NoReturn

from nbiot.errors import BadInput, StationError

TARGETS = {
    "nbiot-station.sysusers": "etc/sysusers.d/nbiot-station.conf",
    "nbiot-station.tmpfiles": "etc/tmpfiles.d/nbiot-station.conf",
    "nbiot-station.rules": "etc/udev/rules.d/61-nbiot-station.rules",
    "nbiot-station.journald": "etc/systemd/journald.conf.d/nbiot-station.conf",
    "nbiot-station.service": "etc/systemd/system/nbiot-station.service",
}
"""Our files and where they go. The rules need what 60-serial.rules finds out."""

NEXT = (
    "sudo systemd-sysusers && sudo systemd-tmpfiles --create",
    "sudo udevadm control --reload && sudo udevadm trigger --subsystem-match=tty",
    "sudo systemctl daemon-reload && sudo systemctl restart systemd-journald",
    "sudo systemctl enable --now nbiot-station",
)


@dataclass(frozen=True)
class Settings:
    """Where things are on the machine. Raises BadInput.

    slots: name of a slot -> the ID_PATH of its socket of the USB hub, as ``udevadm info`` tells;
           it becomes /dev/nbiot/NAME
    """

    program: str = ""
    """Path of ``nbiot``; empty: that of this environment."""
    user: str = "nbiot"
    config: str = "/etc/nbiot/station.toml"
    state: str = "/var/lib/nbiot-station"
    slots: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("program", "config", "state"):
            value = getattr(self, name)
            if value and not re.fullmatch(r"(/[A-Za-z0-9._@+-]+)+", value):
                raise BadInput(name, value, "a path from the root, without spaces")
        if not re.fullmatch(r"[a-z_][a-z0-9_-]{0,30}", self.user):
            raise BadInput("user", self.user, "a system user's name, as nbiot")
        if not self.state.startswith("/var/lib/"):
            raise BadInput(
                "state",
                self.state,
                "a folder in /var/lib",
                hint="With a read-only root mount another partition there.",
            )
        for name, where in self.slots.items():
            if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
                raise BadInput("slot", name, "1 to 64 letters, digits, - and _")
            if not re.fullmatch(r"[A-Za-z0-9:._-]+", where):
                raise BadInput(
                    f"slot {name}",
                    where,
                    "an ID_PATH",
                    hint="Type: udevadm info -q property /dev/ttyUSB0 | grep ID_PATH=",
                )


def install(
    root: Path = Path("/"), settings: Settings | None = None, *, dry_run: bool = False
) -> list[str]:
    """Write what a station needs below ``root``; what was done, in words, and what to type next.

    May be repeated. A file that is there with other contents is kept beside it as ``.old``. Blocks.
    Raises StationError when it may not write.
    """
    told = []
    for name, content in rendered(settings or Settings()).items():
        path = root / TARGETS[name]
        try:
            told.append(_put(path, content, dry_run))
        except OSError as error:
            raise StationError(
                f"{path} cannot be written: {error.strerror}",
                hint="Type it with sudo, or look first: nbiot station install --dry-run",
            ) from error
    return [*told, "Next, type:", *(f"  {command}" for command in NEXT)]


def rendered(settings: Settings) -> dict[str, str]:
    """Our files with the settings in them."""
    words = {
        "NBIOT": settings.program or _this_program(),
        "USER": settings.user,
        "CONFIG": settings.config,
        "CONFIG_FOLDER": str(Path(settings.config).parent),
        "STATE": settings.state,
        "STATE_NAME": settings.state.removeprefix("/var/lib/"),
        "SLOTS": "".join(_slot_rule(*slot) for slot in settings.slots.items()),
    }
    return {
        name: re.sub(
            r"@([A-Z_]+)@", lambda found: words[found[1]], (_FILES / name).read_text("utf-8")
        )
        for name in TARGETS
    }


_FILES = files(__package__) / "files"


def _slot_rule(name: str, where: str) -> str:
    return (
        f'SUBSYSTEM=="tty", KERNEL=="ttyUSB*|ttyACM*", ENV{{ID_PATH}}=="{where}", '
        f'SYMLINK+="nbiot/{name}"\n'
    )


def _this_program() -> str:
    beside = Path(sys.executable).with_name("nbiot")
    return str(beside) if beside.exists() else shutil.which("nbiot") or "/usr/local/bin/nbiot"


def _put(path: Path, content: str, dry_run: bool) -> str:
    there = path.read_text("utf-8", "replace") if path.exists() else None
    if there == content:
        return f"unchanged    {path}"
    if dry_run:
        return f"would write  {path}" if there is None else f"would change {path}"
    path.parent.mkdir(parents=True, exist_ok=True)
    if there is not None:
        shutil.copy2(path, path.with_name(f"{path.name}.old"))
    new = path.with_name(f".{path.name}.new")
    new.write_text(content, "utf-8")
    new.chmod(0o644)
    new.rename(path)
    return f"wrote        {path}" + ("" if there is None else f" (before: {path.name}.old)")


# --- a living station ---------------------------------------------------------------------------


async def watched(environ: Mapping[str, str] = os.environ) -> NoReturn:
    """Tell systemd that the station is ready, and then, time and again, that its loop turns.

    Run it beside the station once that is open; it never ends. Without systemd it does nothing.
    """
    tell = _notifier(environ)
    tell("READY=1")
    try:
        while True:
            await asyncio.sleep(_interval(environ))
            tell("WATCHDOG=1")
    finally:
        tell("STOPPING=1")


def _interval(environ: Mapping[str, str]) -> float:
    """s; a third of what systemd allows. An hour when it does not watch."""
    microseconds = environ.get("WATCHDOG_USEC", "")
    mine = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return int(microseconds) / 3e6 if microseconds.isdigit() and mine else 3600.0


def _notifier(environ: Mapping[str, str]) -> Callable[[str], None]:
    """See sd_notify(3)."""
    address = environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return lambda _: None
    if address.startswith("@"):  # an abstract socket
        address = "\0" + address[1:]

    def tell(words: str) -> None:
        kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        with socket.socket(socket.AF_UNIX, kind) as channel:
            try:
                channel.sendto(words.encode(), address)
            except OSError:  # systemd restarts us for silence, if it must
                return

    return tell
