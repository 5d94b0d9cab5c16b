"""The serial line between a modem and its port: pace, pieces, rate, and who is at the other end.

A subclass brings the port: it calls `heard` with the host's bytes and gets the modem's through
`deliver`.
"""

from __future__ import annotations

import asyncio
import random
from abc import ABC, abstractmethod
from collections import deque
from types import TracebackType
from typing import Self

from .engine import Modem
from .models import build
from .network import Network
from .options import Options
from .pace import Appointment, join_pacer, leave_pacer
from .uart import garbled, same_rate

LOT = 8
"""Bytes that leave together when paced, as a USB UART delivers them."""
MOST_UNREAD = 128 * 1024
"""Bytes kept for a host that does not read; what comes on top is lost."""
MOST_UNHEARD = 16 * 1024
"""Bytes on their way to the modem; with more, the port is not read until they are less."""
LOOK_AGAIN = 0.02
"""The host's rate is looked up again after so many seconds: it costs a system call."""


class LineModem(ABC):
    """Serve one software modem on a port: `async with PtyModem("bc95") as port: ... port.url`.

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
        self.written = 0
        """Bytes that reached the port; `Urc.end` of the truth counts what left the modem."""
        self.unread = 0
        """Bytes that were lost because no host read them."""

    @property
    def modem(self) -> Modem:
        """The engine behind the port."""
        assert self._modem is not None, "the port is not open"
        return self._modem

    @property
    @abstractmethod
    def url(self) -> str:
        """Where a host finds it: a path, `socket://...`, `rfc2217://...`."""

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._modem = build(self._name, self._options, self._network, self._write, self._loop)
        self._pacer = join_pacer(self._loop)
        self._modem.faults.port = self
        self._out = bytearray()
        self._in: deque[tuple[float, bytes]] = deque()
        self._unheard = 0
        self._slow = self._options.baud is not None
        self._out_due = self._in_due = 0.0
        self._lot = 0
        self._out_timer: Appointment | asyncio.Handle | None = None
        self._in_timer: Appointment | None = None
        self._paused = self._full = False
        self._seen_rate: int | None = None
        self._look_at = 0.0
        self._half_heard = b""
        seed = self._options.chunk_seed
        self._chunks = None if seed is None else random.Random(seed)
        try:
            await self.open()
            self._modem.start()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._close()

    async def _close(self) -> None:
        self.modem.close()
        self.hang_up()
        leave_pacer(self._loop)
        await self.shut()

    # ------------------------------------------------------------ of the port

    @abstractmethod
    async def open(self) -> None:
        """Open the port."""

    async def shut(self) -> None:
        """Wait until the port is closed."""
        await asyncio.sleep(0)

    @abstractmethod
    def deliver(self, data: bytes) -> None:
        """Give bytes to the host; called only while it is `attended`."""

    @abstractmethod
    def read_on(self, wanted: bool) -> None:
        """Read from the port, or stop."""

    @property
    @abstractmethod
    def attended(self) -> bool:
        """Has a host opened the port? Otherwise nobody keeps what the modem says."""

    def host_rate(self) -> int | None:
        """The rate the host has set on its side, bit/s; None: the port cannot tell."""
        return None

    def hang_up(self) -> None:
        """Close the line as an unplugged adapter would; the modem itself lives on."""
        self.forget()
        if self._in_timer is not None:
            self._in_timer.cancel()
            self._in_timer = None

    def pause(self) -> None:
        """Stop reading: what the host writes stays in its port until that is full."""
        self._paused = True
        self.read_on(False)

    def resume(self) -> None:
        """Read again."""
        self._paused = False
        self.read_on(not self._full)

    def drain(self) -> None:
        """Throw away what no host has read or no modem has taken yet."""
        self.forget()

    def forget(self, *, out: bool = True, into: bool = True) -> None:
        """Throw away what is on the line."""
        if out:
            self._out.clear()
            self._lot = 0
            if self._out_timer is not None:
                self._out_timer.cancel()
                self._out_timer = None
        if into:
            self._in.clear()
            self._unheard = 0
            self._half_heard = b""
            self._fill()

    # ------------------------------------------------------- host to modem

    def heard(self, data: bytes) -> None:
        """Bytes came from the host."""
        self._look()
        if not self._slow:
            self.modem.receive(self._as_heard(data))
            return
        for piece in data.splitlines(keepends=True):
            self._in_due = max(self._in_due, self._loop.time()) + self._byte_time(len(piece))
            self._in.append((self._in_due, piece))
            self._unheard += len(piece)
        self._fill()
        if self._in_timer is None:
            self._hear_later()

    def _fill(self) -> None:
        """Stop reading the port when too much is on its way, go on when there is room."""
        full = self._unheard > MOST_UNHEARD
        if full != self._full:
            self._full = full
            self.read_on(not (full or self._paused))

    def _hear_later(self) -> None:
        self._in_timer = self._pacer.call_at(self._in[0][0], self._hear) if self._in else None

    def _hear(self) -> None:
        self._in_timer = None
        now = self._loop.time()
        while self._in and self._in[0][0] <= now + 1e-6:
            data = self._in.popleft()[1]
            self._unheard -= len(data)
            self.modem.receive(self._as_heard(data))
        self._fill()
        if self._in_timer is None:
            self._hear_later()

    def _byte_time(self, count: int) -> float:
        return count * 10 / (self.modem.rate or self._options.baud or 9600)

    # --------------------------------------------------------------- rates

    def _look(self) -> None:
        """Look up the host's rate."""
        if self._options.check_baud is not False:
            self._look_at = self._loop.time() + LOOK_AGAIN
            self._seen_rate = self.host_rate()

    def _as_heard(self, data: bytes) -> bytes:
        rate, host = self.modem.rate, self._seen_rate
        if host is None:
            return data
        if rate is None:
            return self._synchronised(data, host)
        return data if same_rate(rate, host) else garbled(data, host, rate)

    def _synchronised(self, data: bytes, host: int) -> bytes:
        """Auto-baud: what comes before the first AT is lost, the AT sets the rate."""
        data = self._half_heard + data
        start = data.upper().find(b"AT")
        if start < 0:
            self._half_heard = data[-1:]
            return b""
        self._half_heard = b""
        self.modem.rate = host
        return data[start:]

    def _as_seen(self, data: bytes) -> bytes:
        if self._loop.time() > self._look_at:
            self._look()
        rate, host = self.modem.rate, self._seen_rate
        if host is None or rate is None or same_rate(rate, host):
            return data
        return garbled(data, rate, host)

    # ------------------------------------------------------- modem to host

    def _write(self, data: bytes) -> None:
        if not self.attended:
            self.unread += len(data)
            return
        if self._options.check_baud is not False:
            data = self._as_seen(data)
        if len(self._out) + len(data) > MOST_UNREAD:
            self.unread += len(data)
            return
        if not self._slow and self._chunks is None:
            self.deliver(data)
            return
        self._out += data
        if self._out_timer is not None:
            return
        if self._slow:
            self._out_due = max(self._out_due, self._loop.time())
            self._next_lot()
            self._out_later()
        else:
            self._chunk()

    def _next_lot(self, gone: int = 0) -> None:
        """The next bytes to leave together, after the first `gone`, and when."""
        size = LOT if self._chunks is None else self._chunks.randint(1, LOT)
        self._lot = min(size, len(self._out) - gone)
        self._out_due += self._byte_time(self._lot)

    def _out_later(self) -> None:
        self._out_timer = self._pacer.call_at(self._out_due, self._lots)

    def _lots(self) -> None:
        """The lots that are due now leave."""
        self._out_timer = None
        now = self._loop.time() + 1e-6
        size = 0
        while self._lot and self._out_due <= now:
            size += self._lot
            self._next_lot(size)
        if size:
            data = bytes(self._out[:size])
            del self._out[:size]
            self.deliver(data)
        if self._lot and self._out_timer is None:
            self._out_later()

    def _chunk(self) -> None:
        """Pieces of random size, as fast as the loop turns."""
        self._out_timer = None
        assert self._chunks is not None
        size = self._chunks.randint(1, LOT)
        data = bytes(self._out[:size])
        del self._out[:size]
        if data:
            self.deliver(data)
        if self._out:
            self._out_timer = self._loop.call_soon(self._chunk)
