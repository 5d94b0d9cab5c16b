"""Waits for hosts to open pseudo-terminals that nobody has open.

To asyncio such a terminal is one that hung up, ready for ever. Here edge-triggered epoll (Linux)
tells only when something changes, for all the terminals of a loop.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable


class Lobby:
    """The terminals of one event loop that wait for a host."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._poll = select.epoll()
        self._waiting: dict[int, Callable[[], None]] = {}
        loop.add_reader(self._poll.fileno(), self._look)

    def enter(self, fd: int, changed: Callable[[], None]) -> None:
        """Call back as soon as a host wrote, or opened and closed again."""
        self._waiting[fd] = changed
        self._poll.register(fd, select.EPOLLIN | select.EPOLLET)

    def leave(self, fd: int) -> None:
        if self._waiting.pop(fd, None) is not None:
            self._poll.unregister(fd)
        if not self._waiting:
            self._loop.remove_reader(self._poll.fileno())
            self._poll.close()
            _LOBBIES.pop(self._loop, None)  # nothing must keep a closed loop alive

    def _look(self) -> None:
        for fd, _ in self._poll.poll(0):
            changed = self._waiting.get(fd)
            if changed is not None:
                changed()
            if not self._waiting:
                return


_LOBBIES: dict[asyncio.AbstractEventLoop, Lobby] = {}


def lobby_of(loop: asyncio.AbstractEventLoop) -> Lobby:
    """The lobby all ptys of a loop share; to be entered at once."""
    if loop not in _LOBBIES:
        _LOBBIES[loop] = Lobby(loop)
    return _LOBBIES[loop]


def has_host(fd: int) -> bool:
    """Is the terminal of this master open anywhere?"""
    poll = select.poll()
    poll.register(fd, 0)
    return not poll.poll(0)
