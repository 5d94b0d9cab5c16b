"""EnOS's limit on authentications: 4 connection requests within 2 minutes.

Source: EnOS documentation 2.4.4, limitations. A fifth one is answered by five minutes of refusal.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from nbiot.errors import RateLimited

LIMIT = 4
WINDOW = 120.0  # s

DeviceId = tuple[str, str, str]  # server, product key, device key


class AuthLimit:
    """Counts the authentications of each device, and refuses the one that would be too many.

    With ``folder`` the count is shared by all processes of this user. ``clock`` gives wall-clock
    seconds.
    """

    def __init__(
        self, folder: Path | None = None, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._folder = folder
        self._clock = clock
        self._times: dict[DeviceId, list[float]] = {}

    def take(self, device: DeviceId) -> None:
        """Count one authentication of ``device``. Raises RateLimited when it is not allowed yet.

        Blocks for a moment (a small file) where a folder is given: call it in a thread.
        """
        now = self._clock()
        with self._record(device) as times:
            # A clock that was set back must not lock a device out.
            times[:] = [then for then in times if 0 <= now - then < WINDOW]
            if len(times) >= LIMIT:
                wait = times[-LIMIT] + WINDOW - now
                raise RateLimited(
                    f"{LIMIT} authentications of this device within {WINDOW:g} s;"
                    f" the next is allowed in {wait:.0f} s",
                    wait=wait,
                    hint="EnOS would refuse the device for five minutes.",
                )
            times.append(now)

    @contextmanager
    def _record(self, device: DeviceId) -> Iterator[list[float]]:
        if self._folder is None:
            yield self._times.setdefault(device, [])
            return
        with _locked(self._folder / f"auth-{_digest(device)}.json") as times:
            yield times


def state_folder() -> Path:
    """Where this user's programs keep their state (XDG base directory specification)."""
    base = os.environ.get("XDG_STATE_HOME", "")
    root = Path(base) if os.path.isabs(base) else Path.home() / ".local" / "state"
    return root / "nbiot"


def _digest(device: DeviceId) -> str:
    return hashlib.sha256("\n".join(device).encode()).hexdigest()[:16]


@contextmanager
def _locked(path: Path) -> Iterator[list[float]]:
    """The list of times in ``path``, for this process alone; written back when it changed."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        times = _read(file.read())
        yield times
        file.seek(0)
        file.truncate()
        file.write(json.dumps(times))


def _read(text: str) -> list[float]:
    """The times in ``text``; none when a power cut left something else there."""
    try:
        found = json.loads(text)
    except ValueError:
        return []
    if not isinstance(found, list):
        return []
    return [float(item) for item in found if isinstance(item, (int, float))]


PROCESS_LIMIT = AuthLimit()
"""The limit within this process, used where no other is given."""
