"""A stand-in for a modem's UDP socket: a real UDP socket on the loopback interface."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

from nbiot.profile import Limits, Release, UdpSocket

HOST = "127.0.0.1"


class Loopback(asyncio.DatagramProtocol):
    """send, receive and close as UdpSocket has them; ``sent`` and ``heard`` keep the datagrams.

    It sends datagrams of at most ``limit`` bytes, as the modem that it stands for.
    """

    def __init__(self, limit: int = 1024) -> None:
        self.profile = SimpleNamespace(limits=Limits(datagram=limit, sockets=1))
        self.sent: list[bytes] = []
        self.releases: list[Release] = []
        self.heard: list[bytes] = []
        self.closed = 0
        self._inbox: asyncio.Queue[bytes] = asyncio.Queue()
        self._transport: Any = None

    @property
    def as_socket(self) -> UdpSocket:
        return cast("UdpSocket", self)

    @property
    def address(self) -> tuple[str, int]:
        host, port = self._transport.get_extra_info("sockname")
        return host, port

    async def send(self, data: bytes, release: Release = Release.NO) -> None:
        assert len(data) <= self.profile.limits.datagram
        self.sent.append(data)
        self.releases.append(release)
        self._transport.sendto(data)

    async def receive(self, seconds: float) -> bytes:
        async with asyncio.timeout(seconds):
            return await self._inbox.get()

    async def close(self) -> None:
        self.closed += 1
        self._transport.close()

    async def __aenter__(self) -> Loopback:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.heard.append(data)
        self._inbox.put_nowait(data)


async def connected(address: str, port: int, limit: int = 1024) -> Loopback:
    """A socket towards a peer on the loopback interface."""
    loop = asyncio.get_running_loop()
    _, found = await loop.create_datagram_endpoint(
        lambda: Loopback(limit), remote_addr=(address, port)
    )
    return found


@asynccontextmanager
async def loopback(port: int, limit: int = 1024) -> AsyncIterator[Loopback]:
    """The same, closed at the end."""
    async with await connected(HOST, port, limit) as found:
        yield found
    await asyncio.sleep(0)  # the transport lets go of its socket in the next round


def unused_port() -> int:
    """A UDP port that nobody listens on."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
