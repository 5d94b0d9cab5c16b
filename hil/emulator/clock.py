"""Time as the emulator sees it: asyncio's loop in service, a hand-turned clock in tests."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Protocol


class Handle(Protocol):
    """A pending call that may be given up."""

    def cancel(self) -> None: ...


class Clock(Protocol):
    """What the emulator needs from time; `asyncio.AbstractEventLoop` satisfies it."""

    def time(self) -> float: ...

    def call_later(self, delay: float, callback: Callable[[], None], /) -> Handle: ...


class ManualHandle:
    """Handle of a call on a `ManualClock`."""

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class ManualClock:
    """A clock that only moves when told to: nothing sleeps."""

    def __init__(self, now: float = 0.0) -> None:
        self._now = now
        self._order = itertools.count()
        self._queue: list[tuple[float, int, ManualHandle]] = []

    def time(self) -> float:
        return self._now

    def call_later(self, delay: float, callback: Callable[[], None], /) -> ManualHandle:
        handle = ManualHandle(callback)
        when = self._now + max(delay, 0.0)
        heapq.heappush(self._queue, (when, next(self._order), handle))
        return handle

    def advance(self, seconds: float = 0.0) -> None:
        """Run everything due within `seconds` from now, in order, then stand there."""
        end = self._now + seconds
        while self.step(end):
            pass
        self._now = end

    def step(self, end: float) -> bool:
        """Run the next call due at or before `end`; False when there is none."""
        while self._queue and self._queue[0][2].callback is None:
            heapq.heappop(self._queue)
        if not self._queue or self._queue[0][0] > end:
            return False
        when, _, handle = heapq.heappop(self._queue)
        self._now = max(self._now, when)
        callback, handle.callback = handle.callback, None
        if callback is not None:
            callback()
        return True

    @property
    def pending(self) -> int:
        """Number of calls still to come."""
        return sum(handle.callback is not None for _, _, handle in self._queue)
