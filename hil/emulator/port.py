"""A software modem on a pseudo terminal, with the pace and the faults of a serial line."""

from __future__ import annotations

import asyncio
import os
import random
import termios
import tty
from collections import deque

from .engine import Modem
from .models import build
from .network import Network
from .options import Options

LOT = 8
"""Bytes that leave together when paced, as a USB UART delivers them."""
NOISE = b"\x00\x80\xfe\xf8\xe0\xff\xc0\xf0"
"""What a UART set to another rate makes of characters."""
_SPEEDS = {
    getattr(termios, name): int(name[1:])
    for name in dir(termios)
    if name[0] == "B" and name[1:].isdigit() and name != "B0"
}
_CODES = {rate: code for code, rate in _SPEEDS.items()}


class PtyModem:
    """Serve one software modem on a pty: `async with PtyModem("bc95") as pty: ... pty.path`.

    With `Options.baud` both directions are paced with absolute deadlines, 10 bits a byte: output
    leaves in lots of 8 bytes, a command reaches the modem when its last byte would have.
    """

    def __init__(
        self, model: str, options: Options | None = None, network: Network | None = None
    ) -> None:
        self._name = model
        self._options = options or Options()
        self._network = network or Network()
        self._modem: Modem | None = None
        self._master = self._slave = -1
        self.written = 0
        """Bytes that reached the terminal; `Urc.end` of the truth counts what left the modem."""
        self.path = ""
        """Path of the terminal a host opens."""

    @property
    def modem(self) -> Modem:
        """The engine behind the port."""
        assert self._modem is not None, "the pty is not open"
        return self._modem

    async def __aenter__(self) -> PtyModem:
        self._loop = asyncio.get_running_loop()
        self._modem = build(self._name, self._options, self._network, self._write, self._loop)
        self._modem.faults.port = self
        self._open()
        self._modem.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.modem.close()
        self.hang_up()

    def _open(self) -> None:
        self._out = bytearray()
        self._ready = bytearray()
        self._in: deque[tuple[float, bytes]] = deque()
        self._out_next = self._in_next = 0.0
        self._out_timer: asyncio.Handle | None = None
        self._in_timer: asyncio.Handle | None = None
        self._writing = False
        seed = self._options.chunk_seed
        self._chunks = None if seed is None else random.Random(seed)
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        self._set_speed(self.modem.rate or self.modem.model.rate)
        os.set_blocking(self._master, False)
        self.path = os.ttyname(self._slave)
        self._loop.add_reader(self._master, self._readable)

    def _set_speed(self, rate: int) -> None:
        settings = termios.tcgetattr(self._slave)
        settings[4] = settings[5] = _CODES.get(rate, termios.B9600)
        termios.tcsetattr(self._slave, termios.TCSANOW, settings)

    def hang_up(self) -> None:
        """Close the line as an unplugged adapter would; the modem itself lives on."""
        if self._master < 0:
            return
        for timer in (self._out_timer, self._in_timer):
            if timer is not None:
                timer.cancel()
        self._out_timer = self._in_timer = None
        self._loop.remove_reader(self._master)
        self._loop.remove_writer(self._master)
        self._writing = False
        self._in.clear()
        os.close(self._master)
        os.close(self._slave)
        self._master = self._slave = -1

    def pause(self) -> None:
        """Stop reading: what the host writes stays in the terminal until it is full."""
        if self._master >= 0:
            self._loop.remove_reader(self._master)

    def resume(self) -> None:
        """Read again."""
        if self._master >= 0:
            self._loop.add_reader(self._master, self._readable)

    def drain(self) -> None:
        """Throw away what no host has read or no modem has taken yet."""
        self._out.clear()
        self._ready.clear()
        self._in.clear()
        if self._master >= 0:
            termios.tcflush(self._slave, termios.TCIOFLUSH)

    # ------------------------------------------------------- host to modem

    def _readable(self) -> None:
        try:
            data = os.read(self._master, 65536)
        except BlockingIOError:
            return
        except OSError:
            self.hang_up()
            return
        if not data:
            self.hang_up()
            return
        for piece in self._pieces(data):
            self._hold(piece)
        if self._in_timer is None:
            self._deliver()

    def _pieces(self, data: bytes) -> list[bytes]:
        return data.splitlines(keepends=True) if self._byte_time(1) else [data]

    def _byte_time(self, count: int) -> float:
        if self._options.baud is None:
            return 0.0
        return count * 10 / (self.modem.rate or self._options.baud)

    def _hold(self, data: bytes) -> None:
        now = self._loop.time()
        self._in_next = max(self._in_next, now) + self._byte_time(len(data))
        self._in.append((self._in_next, data))

    def _deliver(self) -> None:
        self._in_timer = None
        while self._in:
            when, data = self._in[0]
            if self._byte_time(1) and when > self._loop.time():
                self._in_timer = self._loop.call_at(when, self._deliver)
                return
            self._in.popleft()
            self.modem.receive(self._as_heard(data))

    def host_rate(self) -> int | None:
        """The rate the host has set on its side, bit/s."""
        if self._master < 0:
            return None
        return _SPEEDS.get(termios.tcgetattr(self._master)[5])

    def _mismatch(self) -> bool:
        rate = self.modem.rate
        return self._options.check_baud and self.host_rate() != (rate or self.modem.model.rate)

    def _as_heard(self, data: bytes) -> bytes:
        if self.modem.rate is None:
            self.modem.rate = self.host_rate()  # auto-baud: the first byte sets the rate
        return _noise(data) if self._mismatch() else data

    # ------------------------------------------------------- modem to host

    def _write(self, data: bytes) -> None:
        if self._master < 0:
            return
        self._out += _noise(data) if self._mismatch() else data
        if self._out_timer is None:
            self._send_out()

    def _send_out(self) -> None:
        """Move output to the terminal: at once, in random pieces, or at the line's pace."""
        self._out_timer = None
        if self._byte_time(1):
            self._out_next = max(self._out_next, self._loop.time())
            self._next_lot()
        elif self._chunks is None:
            self._ready += self._out
            self._out.clear()
            self._flush()
        else:
            self._lot()

    def _next_lot(self) -> None:
        if self._out:
            size = min(self._lot_size(), len(self._out))
            self._out_next += self._byte_time(size)
            self._out_timer = self._loop.call_at(self._out_next, self._lot, size)

    def _lot_size(self) -> int:
        return LOT if self._chunks is None else self._chunks.randint(1, LOT)

    def _lot(self, size: int = 0) -> None:
        self._out_timer = None
        size = size or self._lot_size()
        self._ready += self._out[:size]
        del self._out[:size]
        self._flush()
        if self._byte_time(1):
            self._next_lot()
        elif self._out:
            self._out_timer = self._loop.call_soon(self._lot)

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
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._master)

    def _wait_writable(self) -> None:
        if not self._writing:
            self._writing = True
            self._loop.add_writer(self._master, self._flush)


def _noise(data: bytes) -> bytes:
    return bytes(NOISE[byte % len(NOISE)] for byte in data)
