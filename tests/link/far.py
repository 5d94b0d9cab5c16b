"""The far ends over which every link must do the same, and a receiver that remembers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import termios
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

from nbiot.errors import PortLost
from nbiot.link import BUFFER_LIMIT, Link, open_link
from nbiot.link.memory import MemoryLink
from nbiot.link.serial import open_serial
from tests.link.portmanager import Rfc2217Server
from tests.link.ser2net import requires_ser2net, ser2net

SPEEDS = {termios.B9600: 9600, termios.B115200: 115200}


class Ear:
    """A receiver that remembers."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.losses: list[PortLost] = []
        self.news = asyncio.Event()

    def received(self, data: bytes) -> None:
        assert data
        assert not self.losses
        self.data += data
        self.news.set()

    def lost(self, error: PortLost) -> None:
        self.losses.append(error)
        self.news.set()

    async def until(self, true: Callable[[], bool], limit: float = 2) -> None:
        async with asyncio.timeout(limit):
            while not true():
                self.news.clear()
                await self.news.wait()


class Far(Protocol):
    """The far end of a link."""

    has_baudrate: bool
    slack: int
    """Bytes that others than the link keep while nobody takes them."""

    async def open(self) -> Link: ...
    def send(self, data: bytes) -> None: ...
    async def take(self, count: int) -> bytes: ...
    def stall(self) -> None: ...
    def hang_up(self) -> None: ...
    def hang_up_full(self) -> None:
        """Hang up while the far end holds bytes that nobody took."""

    def baudrate(self) -> int: ...
    def lines(self) -> dict[str, bool] | None: ...
    async def left(self) -> None:
        """The far end has seen that the link was closed."""

    def destroy(self) -> None: ...


async def polled(read: Callable[[int], bytes], count: int) -> bytes:
    taken = bytearray()
    async with asyncio.timeout(2):
        while len(taken) < count:
            try:
                taken += read(count - len(taken))
            except BlockingIOError:
                await asyncio.sleep(0.001)
    return bytes(taken)


async def drained(fd: int, quiet: float) -> None:
    """Take what comes until nothing comes for ``quiet`` seconds."""
    while True:
        with contextlib.suppress(BlockingIOError):
            while os.read(fd, 4096):
                pass
        await asyncio.sleep(quiet)
        if not select.select([fd], [], [], 0)[0]:
            return


class PtyFar:
    has_baudrate = True
    slack = BUFFER_LIMIT
    transport = "direct"

    def __init__(self, folder: Path) -> None:
        self.master, self.slave = os.openpty()  # an open slave keeps the pty alive between links
        self.path = os.ttyname(self.slave)
        os.set_blocking(self.master, False)
        self.stack = ExitStack()

    async def open(self) -> Link:
        return await open_serial(self.path, transport=self.transport)

    def send(self, data: bytes) -> None:
        assert os.write(self.master, data) == len(data)

    async def take(self, count: int) -> bytes:
        return await polled(lambda size: os.read(self.master, size), count)

    def stall(self) -> None:
        pass  # nobody reads unless take() is called

    def hang_up(self) -> None:
        os.close(self.master)
        self.master = -1

    def hang_up_full(self) -> None:
        self.hang_up()

    def baudrate(self) -> int:
        return SPEEDS[termios.tcgetattr(self.master)[5]]

    def lines(self) -> dict[str, bool] | None:
        return None

    async def left(self) -> None:
        pass

    def destroy(self) -> None:
        self.stack.close()
        for fd in (self.master, self.slave):
            with contextlib.suppress(OSError):
                os.close(fd)


class PyserialAsyncioFar(PtyFar):
    transport = "pyserial-asyncio"


class Ser2netFar(PtyFar):
    """A pty behind Debian's ser2net."""

    slack = 4 * BUFFER_LIMIT

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.port, self.process = self.stack.enter_context(ser2net(folder, self.path))

    async def open(self) -> Link:
        return await open_link(f"rfc2217://127.0.0.1:{self.port}")

    def hang_up_full(self) -> None:
        """ser2net 4.3 does not see its device go while it holds bytes for it."""
        self.process.kill()

    async def left(self) -> None:
        await drained(self.master, 0.1)


class PortManagerFar(PtyFar):
    """A pty behind pyserial's server."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.server = Rfc2217Server(self.path)
        self.stack.callback(self.server.close)

    async def open(self) -> Link:
        return await open_link(f"rfc2217://127.0.0.1:{self.server.port}")

    def lines(self) -> dict[str, bool] | None:
        return self.server.serial.lines

    async def left(self) -> None:
        async with asyncio.timeout(2):
            while not self.server.idle.is_set():
                await drained(self.master, 0.001)


class SocketFar:
    """A TCP peer."""

    has_baudrate = False
    slack = BUFFER_LIMIT

    def __init__(self, folder: Path) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        self.port: int = self.listener.getsockname()[1]
        self.peer: socket.socket | None = None

    async def open(self) -> Link:
        link = await open_link(f"socket://127.0.0.1:{self.port}")
        self.hang_up()
        self.peer, _ = self.listener.accept()
        self.peer.setblocking(False)
        return link

    def send(self, data: bytes) -> None:
        assert self.peer is not None
        assert self.peer.send(data) == len(data)

    async def take(self, count: int) -> bytes:
        assert self.peer is not None
        return await polled(self.peer.recv, count)

    def stall(self) -> None:
        pass

    def hang_up(self) -> None:
        if self.peer is not None:
            self.peer.close()

    def hang_up_full(self) -> None:
        self.hang_up()

    def baudrate(self) -> int:
        return 0

    def lines(self) -> dict[str, bool] | None:
        return None

    async def left(self) -> None:
        self.hang_up()

    def destroy(self) -> None:
        self.hang_up()
        self.listener.close()


class MemoryFar:
    has_baudrate = True
    slack = BUFFER_LIMIT
    link: MemoryLink

    def __init__(self, folder: Path) -> None:
        pass

    async def open(self) -> Link:
        self.link = MemoryLink(baudrate=9600)
        return self.link

    def send(self, data: bytes) -> None:
        self.link.feed(data)

    async def take(self, count: int) -> bytes:
        self.link.stalled = False
        taken = bytes(self.link.sent[:count])
        del self.link.sent[:count]
        return taken

    def stall(self) -> None:
        self.link.stalled = True

    def hang_up(self) -> None:
        self.link.lose()

    def hang_up_full(self) -> None:
        self.hang_up()

    def baudrate(self) -> int:
        return self.link.baudrate

    def lines(self) -> dict[str, bool] | None:
        return None

    async def left(self) -> None:
        pass

    def destroy(self) -> None:
        pass


FARS: dict[str, tuple[Callable[[Path], Far], Any]] = {  # with the mark that may skip it
    "pty": (PtyFar, ()),
    "pyserial-asyncio": (PyserialAsyncioFar, ()),
    "memory": (MemoryFar, ()),
    "socket": (SocketFar, ()),
    "rfc2217-ser2net": (Ser2netFar, requires_ser2net),
    "rfc2217-pyserial": (PortManagerFar, ()),
}
