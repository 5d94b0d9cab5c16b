"""Deadlines of many serial lines on one timer.

An asyncio timer for each lot of bytes of each line costs more than the bytes themselves: here
what is due within the same millisecond is done together. Deadlines are absolute, so that nothing
drifts; a call comes up to a millisecond late, which is as exact as epoll waits.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
from collections.abc import Callable

TICK = 0.001
SLACK = 1e-6
"""What is due so soon is due."""


class Appointment:
    """A call to come."""

    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class Pacer:
    """The appointments of one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._order = itertools.count()
        self._queue: list[tuple[float, int, Appointment]] = []
        self._timer: asyncio.TimerHandle | None = None
        self.users = 0

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def call_at(self, when: float, callback: Callable[[], None]) -> Appointment:
        """Call at `when` of the loop's time, or up to a tick later."""
        appointment = Appointment(callback)
        heapq.heappush(self._queue, (when, next(self._order), appointment))
        self._set_timer()
        return appointment

    def _set_timer(self) -> None:
        due = math.ceil(self._queue[0][0] / TICK) * TICK
        if self._timer is not None:
            if self._timer.when() <= due:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(due, self._run)

    def _run(self) -> None:
        self._timer = None
        now = self._loop.time() + SLACK
        while self._queue and self._queue[0][0] <= now:
            callback = heapq.heappop(self._queue)[2].callback
            if callback is not None:
                callback()
        self._forget_cancelled()
        if self._queue:
            self._set_timer()

    def _forget_cancelled(self) -> None:
        while self._queue and self._queue[0][2].callback is None:
            heapq.heappop(self._queue)


_PACERS: dict[asyncio.AbstractEventLoop, Pacer] = {}


def join_pacer(loop: asyncio.AbstractEventLoop) -> Pacer:
    """The pacer all lines of a loop share; each that joined leaves."""
    pacer = _PACERS.setdefault(loop, Pacer(loop))
    pacer.users += 1
    return pacer


def leave_pacer(loop: asyncio.AbstractEventLoop) -> None:
    """The last one to leave ends it: nothing must keep a closed loop alive."""
    pacer = _PACERS[loop]
    pacer.users -= 1
    if not pacer.users:
        pacer.close()
        del _PACERS[loop]
