"""Software modems on TCP ports: bare bytes, one client at a time."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import cast

from .line import MOST_UNREAD, LineModem
from .network import Network
from .options import Options

KEEP_ALIVE = (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))
"""A client whose machine died in silence gives the port free after 25 s."""
PATIENCE = 2.0
"""A refused client may take so many seconds to go."""
HIGH_WATER = 4096
"""Bytes for the client in this process before the rest waits here, where it is counted."""


class TcpModem(LineModem):
    """Serve one software modem on a TCP port: `async with TcpModem("bc95", port=4001): ...`.

    A second client gets a line that says who has the port, and is cut off. What the modem says
    while there is no client is lost, and so is what a client left unread. Bare TCP has no rate,
    no DTR and no RTS; `Rfc2217Modem` has them.
    """

    scheme = "socket"

    def __init__(
        self,
        model: str,
        options: Options | None = None,
        network: Network | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        super().__init__(model, options, network)
        self._host, self.port = host, port
        """`port` 0: any free one, known as soon as it is open."""
        self._server: asyncio.Server | None = None
        self._client: asyncio.Transport | None = None
        self._waiting = bytearray()
        self._blocked = False
        self._refused: dict[asyncio.Transport, asyncio.TimerHandle] = {}

    @property
    def url(self) -> str:
        name = f"[{self._host}]" if ":" in self._host else self._host
        return f"{self.scheme}://{name}:{self.port}"

    async def open(self) -> None:
        self._server = await self._loop.create_server(lambda: _Client(self), self._host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def hang_up(self) -> None:
        super().hang_up()
        if self._server is not None:
            self._server.close()
        for transport in [*self._refused, *([self._client] if self._client else [])]:
            transport.abort()

    async def shut(self) -> None:
        for _ in range(2):  # an aborted connection needs a turn of the loop to close its socket
            await super().shut()

    # ------------------------------------------------------------- the client

    @property
    def attended(self) -> bool:
        return self._client is not None

    def arrived(self, transport: asyncio.Transport) -> None:
        """A client connected."""
        if self._client is not None:
            self._refuse(transport)
            return
        _watch_over(transport)
        transport.set_write_buffer_limits(HIGH_WATER)
        self._client = transport
        self._waiting.clear()
        self._blocked = False
        self.forget()
        self.read_on(not (self._paused or self._full))
        self.greet()

    def _refuse(self, transport: asyncio.Transport) -> None:
        """Say why and wait for the client to go: closing at once could destroy the words."""
        assert self._client is not None
        transport.write(f"This port is in use by {_name_of(self._client)}\r\n".encode())
        transport.write_eof()
        patience = self._loop.call_later(PATIENCE, transport.abort)
        self._refused[transport] = patience

    def greet(self) -> None:
        """A client has the port now."""

    def left(self, transport: asyncio.Transport) -> None:
        """A client is gone."""
        refused = self._refused.pop(transport, None)
        if refused is not None:
            refused.cancel()
        if transport is not self._client:
            return
        self._client = None
        self._waiting.clear()
        self.forget()
        self.client_gone()

    def client_gone(self) -> None:
        """The client that had the port is gone."""

    def read_on(self, wanted: bool) -> None:
        if self._client is not None and not self._client.is_closing():
            with contextlib.suppress(RuntimeError):  # it does, or does not, already
                self._client.resume_reading() if wanted else self._client.pause_reading()

    def from_client(self, data: bytes) -> None:
        """Bytes of the client that has the port."""
        self.heard(data)

    def block(self, blocked: bool) -> None:
        """The client does not read, or reads again."""
        self._blocked = blocked
        if not blocked and self._waiting:
            waiting = bytes(self._waiting)
            self._waiting.clear()
            self.to_client(waiting)

    def deliver(self, data: bytes) -> None:
        if len(self._waiting) + len(data) > MOST_UNREAD:
            self.unread += len(data)
        elif self._blocked:
            self._waiting += data
        else:
            self.to_client(data)

    def to_client(self, data: bytes) -> None:
        """Bytes of the modem for the client, who reads."""
        self.written += len(data)
        self.put(data)

    def put(self, data: bytes) -> None:
        """Bytes onto the connection, as they are."""
        if self._client is not None and not self._client.is_closing():
            self._client.write(data)

    def has(self, transport: asyncio.BaseTransport | None) -> bool:
        """Is this the client that has the port?"""
        return transport is not None and transport is self._client


class _Client(asyncio.Protocol):
    """One connection."""

    def __init__(self, port: TcpModem) -> None:
        self._port = port
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._port.arrived(self._transport)

    def connection_lost(self, error: Exception | None) -> None:
        if self._transport is not None:
            self._port.left(self._transport)

    def data_received(self, data: bytes) -> None:
        if self._port.has(self._transport):
            self._port.from_client(data)

    def pause_writing(self) -> None:
        if self._port.has(self._transport):
            self._port.block(True)

    def resume_writing(self) -> None:
        if self._port.has(self._transport):
            self._port.block(False)


def _name_of(transport: asyncio.Transport) -> str:
    address = transport.get_extra_info("peername")
    return f"{address[0]}:{address[1]}" if address else "another client"


def _watch_over(transport: asyncio.Transport) -> None:
    """Notice a client that died in silence."""
    sock = transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEP_ALIVE:
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
