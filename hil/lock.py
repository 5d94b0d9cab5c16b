"""A lock for each port of this machine, so that two runs never share a modem.

The lock is a flock on a file in a folder that is the same for every user; it ends with the process
that holds it, however that ends. The file stays: removing it would let two runs lock two files.

While a port is open the driver besides locks the port itself and sets TIOCEXCL (nbiot.link.serial);
that keeps out programs that know nothing of this lock. Here TIOCEXCL would keep out the run itself.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from nbiot.errors import PortBusy, PortError
from nbiot.link.ports import check_port, holder_of, port_missing

FOLDER_VARIABLE = "NBIOT_LOCK_FOLDER"
"""Environment variable that names another folder, e.g. one that several containers share."""
_FOLDERS = ("/run/lock", "/var/lock", "/tmp")
_TCP = ("socket:", "rfc2217:")
_UNSHARED = ("emulator:", "replay:")  # each opening is a thing of its own


@contextmanager
def locked(port: str, *, unused: bool = True) -> Iterator[None]:
    """Hold the lock of ``port``. Raises PortBusy (who has it), PortMissing, PortError.

    unused: whether the port must exist, and be open in no other program

    All names of a device have one lock; so have socket:// and rfc2217:// to the same place.
    """
    if port.startswith(_UNSHARED):
        yield
        return
    if unused and port.startswith("/") and not os.path.exists(port):
        raise port_missing(port)
    fd = _lock(port, lock_file(port))
    try:
        if unused and port.startswith("/"):
            check_port(port)  # somebody may have it open who does not know of the lock
        yield
    finally:
        os.close(fd)


def lock_file(port: str) -> Path:
    """Where the lock of ``port`` is."""
    identity = identity_of(port)
    readable = re.sub(r"[^A-Za-z0-9]+", "-", identity).strip("-")[-40:]
    digest = hashlib.sha256(identity.encode()).hexdigest()[:8]
    return _folder() / f"nbiot-{readable}-{digest}.lock"


def identity_of(port: str) -> str:
    """The same text for all names of one port."""
    if port.startswith("/"):
        try:
            found = os.stat(port)
        except OSError:
            return os.path.realpath(port)
        if stat.S_ISCHR(found.st_mode):  # two nodes may be one device
            return f"/dev/char/{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}"
        return os.path.realpath(port)
    if port.startswith(_TCP):
        try:
            url = urlsplit(port)
            return f"tcp://{(url.hostname or '').lower()}:{url.port}"
        except ValueError:  # no port that any link would take
            pass
    return port


def _folder() -> Path:
    if chosen := os.environ.get(FOLDER_VARIABLE):
        return Path(chosen)
    for name in _FOLDERS:  # by its mode, not by what this user may do: all must choose the same
        try:
            mode = os.stat(name).st_mode
        except OSError:
            continue
        if stat.S_ISDIR(mode) and mode & stat.S_IWOTH:
            return Path(name)
    return Path(_FOLDERS[-1])


def _lock(port: str, path: Path) -> int:
    """The descriptor that holds the lock; closing it lets go."""
    while True:
        fd = _open(path)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_still(path, fd):
                return fd
        except BlockingIOError:
            os.close(fd)
            raise _busy(port, path) from None
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)  # somebody removed the file meanwhile


def _open(path: Path) -> int:
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
    while True:
        try:
            # Without O_CREAT: the kernel may refuse that for others' files (fs.protected_regular).
            with suppress(FileNotFoundError):
                return os.open(path, flags)
            with suppress(FileExistsError):
                fd = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o644)
                os.fchmod(fd, 0o644)  # whatever the umask: every user must be able to lock it
                return fd
        except OSError as error:
            raise PortError(
                f"the lock file {path} cannot be opened: {error.strerror}",
                hint=f"Set {FOLDER_VARIABLE} to a folder that every user of the rig may write.",
            ) from error


def _is_still(path: Path, fd: int) -> bool:
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(fd))
    except FileNotFoundError:
        return False


def _busy(port: str, path: Path) -> PortBusy:
    holders = holder_of(str(path))
    if any(pid == os.getpid() for pid, _ in holders):
        return PortBusy(
            f"{port} is locked by this process already (pid {os.getpid()})",
            hint="Two slots, or two tests at the same time, cannot share a modem.",
        )
    who = ", ".join(f"{name} (pid {pid})" for pid, name in holders)
    if not who:
        who = "a run that cannot be seen from here (in a container?)"
    return PortBusy(
        f"{port} is in use by another run: {who}",
        hint="Wait for its end or stop it; a run that dies leaves no lock behind.",
    )
