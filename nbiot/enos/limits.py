"""EnOS's limit on authentications: 4 connection requests within 2 minutes.

Source: EnOS documentation 2.4.4, limitations. A fifth one is answered by five minutes of refusal.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from nbiot.errors import RateLimited

LIMIT = 4
WINDOW = 120.0  # s
STATE_MAX = 4096  # bytes of a state file that are looked at

DeviceId = tuple[str, str, str]  # server, product key, device key


class AuthLimit:
    """Counts the authentications of each device, and refuses the one that would be too many.

    With ``folder`` the count is shared by all processes of this user; where that folder cannot be
    used (a read-only or full disk), it is this object's own. ``clock`` gives wall-clock seconds.
    """

    def __init__(
        self, folder: Path | None = None, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._folder = folder
        self._clock = clock
        self._times: dict[DeviceId, list[float]] = {}
        self._turn = threading.Lock()

    def take(self, device: DeviceId) -> None:
        """Count one authentication of ``device``. Raises RateLimited when it is not allowed yet.

        To be called before sending: what may have been sent may have been counted by EnOS. Blocks
        for a moment (a small file) where a folder is given: call it in a thread.
        """
        with self._turn, self._record(device) as times:
            now = self._clock()
            # Times to come are from before the clock was set back: they count as of now, which
            # cannot lock a device out for longer than the window.
            times[:] = sorted(min(then, now) for then in times if now - then < WINDOW)
            if len(times) >= LIMIT:
                wait = times[-LIMIT] + WINDOW - now
                raise RateLimited(
                    f"{LIMIT} authentications of this device within {WINDOW:g} s;"
                    f" the next is allowed in {math.ceil(wait)} s",
                    wait=wait,
                    hint="EnOS would refuse the device for five minutes.",
                )
            times.append(now)

    @contextmanager
    def _record(self, device: DeviceId) -> Iterator[list[float]]:
        """The times of ``device``, kept afterwards. In a file they are this process's alone."""
        times = self._times.setdefault(device, [])
        if self._folder is None:
            yield times
            return
        try:
            fd = _open(self._folder, f"auth-{_digest(device)}.json")
        except OSError:
            self._folder = None  # it may fail again, halfway: this object's count is enough
            yield times
            return
        try:
            times[:] = _read(os.read(fd, STATE_MAX))
            yield times
        finally:
            try:
                _write(fd, times)
            except OSError:
                self._folder = None
            os.close(fd)  # and its lock with it


def state_folder() -> Path:
    """Where this user's programs keep their state (XDG base directory specification)."""
    base = os.environ.get("XDG_STATE_HOME", "")
    root = Path(base) if os.path.isabs(base) else Path.home() / ".local" / "state"
    return root / "nbiot"


def _digest(device: DeviceId) -> str:
    return hashlib.sha256("\n".join(device).encode()).hexdigest()[:16]


def _open(folder: Path, name: str) -> int:
    """Open and lock a file that only this user may read."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _read(raw: bytes) -> list[float]:
    """The times in ``raw``; none when a power cut left something else there."""
    try:
        found = json.loads(raw)
        times = [float(item) for item in found if type(item) in (int, float)]
    except (ValueError, TypeError, OverflowError, RecursionError):
        return []
    return [then for then in times if math.isfinite(then)]


def _write(fd: int, times: list[float]) -> None:
    raw = json.dumps(times).encode()
    os.pwrite(fd, raw, 0)
    os.ftruncate(fd, len(raw))


PROCESS_LIMIT = AuthLimit()
"""The limit within this process, used where no other is given."""
