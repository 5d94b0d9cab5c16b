"""A software modem on a pseudo terminal."""

from __future__ import annotations

import os
import select
import termios
import tty

from .line import MOST_UNREAD, LineModem
from .lobby import Lobby, has_host, lobby_of

_SPEEDS = {
    getattr(termios, name): int(name[1:])
    for name in dir(termios)
    if name[0] == "B" and name[1:].isdigit() and name != "B0"
}
_CODES = {rate: code for code, rate in _SPEEDS.items()}
WATCHED = hasattr(select, "epoll")
"""Can it be told whether a terminal is open? Elsewhere than on Linux it counts as open."""


class PtyModem(LineModem):
    """Serve one software modem on a pty: `async with PtyModem("bc95") as pty: ... pty.path`.

    What the modem says while no program has the terminal open is lost, as with a real port, and
    so is what the last program left unread. A pty has no DTR and RTS; RFC 2217 ports have.
    """

    path = ""
    """Path of the terminal a host opens."""
    _master = _slave = -1
    _lobby: Lobby | None = None
    """Where it waits for a host; None: one is there."""

    @property
    def url(self) -> str:
        return self.path

    async def open(self) -> None:
        self._ready = bytearray()
        self._writing = False
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        self._set_speed(self.modem.rate or self.modem.model.rate)
        os.set_blocking(self._master, False)
        self.path = os.ttyname(self._slave)
        if WATCHED:
            self._close_slave()
            self._wait_for_host()
        else:
            self._loop.add_reader(self._master, self._readable)

    def _close_slave(self) -> None:
        os.close(self._slave)
        self._slave = -1

    def _set_speed(self, rate: int) -> None:
        settings = termios.tcgetattr(self._slave)
        settings[4] = settings[5] = _CODES.get(rate, termios.B9600)
        termios.tcsetattr(self._slave, termios.TCSANOW, settings)

    def hang_up(self) -> None:
        if self._master < 0:
            return
        super().hang_up()
        if self._lobby is not None:
            self._lobby.leave(self._master)
            self._lobby = None
        self._loop.remove_reader(self._master)
        self._loop.remove_writer(self._master)
        self._writing = False
        os.close(self._master)
        if self._slave >= 0:
            self._close_slave()
        self._master = -1

    def read_on(self, wanted: bool) -> None:
        if self._master < 0 or self._lobby is not None:
            return
        if wanted:
            self._loop.add_reader(self._master, self._readable)
        else:
            self._loop.remove_reader(self._master)

    def drain(self) -> None:
        super().drain()
        if self._master >= 0:
            self._ready.clear()
            self._flush_terminal(termios.TCIOFLUSH)

    def _flush_terminal(self, which: int) -> None:
        try:
            slave = os.open(self.path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        except OSError:  # a host has it, for itself alone
            return
        termios.tcflush(slave, which)
        os.close(slave)

    # --------------------------------------------------------------- the host

    def _wait_for_host(self) -> None:
        """No host has the terminal open."""
        self._loop.remove_reader(self._master)
        self._loop.remove_writer(self._master)
        self._writing = False
        self._ready.clear()
        self.forget(into=False)
        self._lobby = lobby_of(self._loop)
        self._lobby.enter(self._master, self._host_came)

    def _host_came(self) -> None:
        """A host has opened the terminal, or had, or there is a false alarm."""
        assert self._lobby is not None
        if not (has_host(self._master) or self._unread_input()):
            return
        self._lobby.leave(self._master)
        self._lobby = None
        self.read_on(not (self._paused or self._full))

    def _unread_input(self) -> bool:
        poll = select.poll()
        poll.register(self._master, select.POLLIN)
        return any(event & select.POLLIN for _, event in poll.poll(0))

    @property
    def attended(self) -> bool:
        if self._lobby is not None:
            self._host_came()
        return self._master >= 0 and self._lobby is None

    def host_rate(self) -> int | None:
        if self._master < 0:
            return None
        return _SPEEDS.get(termios.tcgetattr(self._master)[5])

    def _readable(self) -> None:
        try:
            data = os.read(self._master, 65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self.heard(data)
        elif WATCHED:
            self._flush_terminal(termios.TCIFLUSH)
            self._wait_for_host()
        else:
            self.hang_up()

    def deliver(self, data: bytes) -> None:
        if len(self._ready) + len(data) > MOST_UNREAD:
            self.unread += len(data)
            return
        self._ready += data
        if not self._writing:
            self._flush()

    def _flush(self) -> None:
        while self._ready and self._master >= 0:
            try:
                written = os.write(self._master, self._ready)
            except BlockingIOError:
                self._wait_writable()
                return
            except OSError:
                self._ready.clear()
                return
            del self._ready[:written]
            self.written += written
        if self._writing and self._master >= 0:
            self._writing = False
            self._loop.remove_writer(self._master)

    def _wait_writable(self) -> None:
        if not self._writing:
            self._writing = True
            self._loop.add_writer(self._master, self._flush)
