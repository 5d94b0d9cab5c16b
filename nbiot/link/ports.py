"""Which serial ports there are, who has one, and why one cannot be opened.

Everything here but :func:`list_ports_async` blocks (it reads /proc, /sys and /dev).
"""

from __future__ import annotations

import asyncio
import grp
import os
import stat
from pathlib import Path
from typing import NamedTuple

from nbiot.errors import PortBusy, PortError, PortMissing, PortNotPermitted

BY_ID = Path("/dev/serial/by-id")
_PTY_MAJORS = range(136, 144)  # Linux, Documentation/admin-guide/devices.txt
_MODEM_MANAGER = "ModemManager"


class PortInfo(NamedTuple):
    """A serial port of this machine."""

    path: str
    by_id: str
    """A path that stays the same when the device is plugged in again; empty when there is none."""
    description: str
    vid: int | None
    """USB vendor; None when the port is not on USB."""
    pid: int | None
    """USB product."""
    serial_number: str


def list_ports() -> list[PortInfo]:
    """The serial ports of this machine, by path. Ptys are not among them."""
    from serial.tools.list_ports import comports

    stable = _by_id()
    ports = [
        PortInfo(
            path=port.device,
            by_id=stable.get(os.path.realpath(port.device), ""),
            description=port.description or "",
            vid=port.vid,
            pid=port.pid,
            serial_number=port.serial_number or "",
        )
        for port in comports()
    ]
    return sorted(ports)


async def list_ports_async() -> list[PortInfo]:
    """:func:`list_ports` in a thread."""
    return await asyncio.to_thread(list_ports)


def _by_id() -> dict[str, str]:
    try:
        return {os.path.realpath(link): str(link) for link in sorted(BY_ID.iterdir())}
    except OSError:  # there is no such folder without a USB port
        return {}


# --- who has a port ---------------------------------------------------------------------------


def holder_of(path: str) -> list[tuple[int, str]]:
    """(process id, name) of those who locked ``path`` (flock), or else of those who have it open.

    Without root other users' open files are not to be seen, so an empty list proves nothing.
    """
    try:
        found = os.stat(path)
    except OSError:
        return []
    pids = _lockers(found) or _openers(os.path.realpath(path))
    return [(pid, name) for pid in sorted(pids) if (name := _name_of(pid))]


def _lockers(found: os.stat_result) -> set[int]:
    device = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    pids = set()
    for line in _read("/proc/locks").splitlines():  # 1: FLOCK ADVISORY WRITE 4987 00:1a:3 0 EOF
        match line.split():
            case [_, "FLOCK", _, _, pid, where, *_] if where == device:
                pids.add(int(pid))
    return {pid for pid in pids if _name_of(pid)}  # who locked may be gone, its child not


def _openers(real_path: str) -> set[int]:
    pids = set()
    for process in _processes():
        try:
            with os.scandir(f"/proc/{process}/fd") as open_files:
                links = [entry.path for entry in open_files]
        except OSError:  # another user's, or gone
            continue
        if any(_readlink(link) == real_path for link in links):
            pids.add(process)
    return pids


def _processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def _name_of(pid: int) -> str:
    return _read(f"/proc/{pid}/comm").strip()


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def _readlink(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


# --- why a port cannot be opened --------------------------------------------------------------


def is_pty(found: os.stat_result) -> bool:
    """Whether this is a pseudo-terminal (an emulator, socat), not hardware."""
    return stat.S_ISCHR(found.st_mode) and os.major(found.st_rdev) in _PTY_MAJORS


def check_port(path: str) -> None:
    """Raise what is known before opening: PortMissing, PortError (not a port), PortBusy.

    PortBusy matters for root: the kernel lets root open a port that ModemManager uses.
    """
    try:
        found = os.stat(path)
    except FileNotFoundError:
        raise port_missing(path) from None
    except OSError as error:
        raise PortError(f"{path} cannot be looked at: {error.strerror}") from error
    if not stat.S_ISCHR(found.st_mode):
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "not a device"
        raise PortError(f"{path} is {kind}, not a serial port", hint=_those_that_exist())
    if _subsystem(found.st_rdev) not in ("tty", ""):  # /dev/null: half the machine has it open
        raise PortError(f"{path} is a device, but not a serial port", hint=_those_that_exist())
    if not is_pty(found) and any(pid != os.getpid() for pid, _ in holder_of(path)):
        raise port_busy(path)


def _subsystem(device: int) -> str:
    """The kernel's word for what a device is; empty when it does not say (a pty)."""
    where = f"/sys/dev/char/{os.major(device)}:{os.minor(device)}/subsystem"
    return os.path.basename(_readlink(where))


def port_missing(path: str) -> PortMissing:
    """The error for a path that does not exist, naming the ports that do."""
    return PortMissing(f"there is no port {path}", hint=_those_that_exist())


def _those_that_exist() -> str:
    ports = list_ports()
    if not ports:
        return "This machine has no serial port now: check cable and power, then look at dmesg."
    lines = [f"  {port.path}  {port.description}  {port.by_id}".rstrip() for port in ports]
    if any(port.by_id for port in ports):
        lines.append(f"Prefer the paths in {BY_ID}: they survive plugging in again.")
    return "\n".join(["Ports of this machine:", *lines])


def port_not_permitted(path: str) -> PortNotPermitted:
    """The error for a port that this user may not open, with the command that helps."""
    message = f"this user may not open {path}"
    try:
        found = os.stat(path)
    except OSError:
        return PortNotPermitted(message)
    group, mode = _group_name(found.st_gid), stat.S_IMODE(found.st_mode)
    message += f" (group {group}, mode {mode:04o})"
    if found.st_gid == 0 or mode & 0o060 != 0o060:
        hint = "The group is of no help here: a udev rule must set GROUP and MODE of the device."
    elif found.st_gid in (os.getegid(), *os.getgroups()):
        hint = "The group is right: is this a container without access to the device?"
    else:
        hint = f"Type: sudo usermod -aG {group} $USER\nThen log out and in again."
    return PortNotPermitted(message, hint=hint)


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def port_busy(path: str) -> PortBusy:
    """The error for a port that somebody has, naming who where that can be seen."""
    holders = holder_of(path)
    others = [(pid, name) for pid, name in holders if pid != os.getpid()]
    if holders and not others:
        return PortBusy(
            f"{path} is already open in this process (pid {os.getpid()})",
            hint="Close the other link first.",
        )
    if not others and (manager := _running(_MODEM_MANAGER)):
        who, others = "another program, probably ", [(manager, _MODEM_MANAGER)]
    else:
        who = "" if others else "another program, which this user may not see"
    who += ", ".join(f"{name} (pid {pid})" for pid, name in others)
    if any(name == _MODEM_MANAGER for _, name in others):
        hint = _modem_manager_hint(path)
    elif others:
        hint = "Stop it first: kill " + " ".join(str(pid) for pid, _ in others)
    else:
        hint = f"To see it, type: sudo fuser -v {path}"
    return PortBusy(f"{path} is in use by {who}", hint=hint)


def _running(name: str) -> int:
    return next((pid for pid in _processes() if _name_of(pid) == name), 0)


def _modem_manager_hint(path: str) -> str:
    real_path = os.path.realpath(path)
    port = next((port for port in list_ports() if port.path == real_path and port.vid), None)
    vid = f"{port.vid:04x}" if port and port.vid is not None else "<USB vendor>"
    pid = f"{port.pid:04x}" if port and port.pid is not None else "<USB product>"
    return (
        "For now, type: sudo systemctl stop ModemManager\n"
        "For good, put this line into /etc/udev/rules.d/99-nbiot.rules and plug in again:\n"
        f'ATTRS{{idVendor}}=="{vid}", ATTRS{{idProduct}}=="{pid}", ENV{{ID_MM_DEVICE_IGNORE}}="1"'
    )
