"""What the tests put on the wire: the documented device, and datagrams written by hand."""

from __future__ import annotations

import asyncio
import json
from typing import Any

Address = tuple[str, int]

PK, DK, SECRET = "KV315idW", "tPbZGCdmaE", "M3yy874uGY8INjEGddTR"
AUTH = ("auth", PK, DK)
UP_RAW = ("topic", "sys", PK, DK, "thing", "model", "up_raw")

VECTORS = {
    30: "72D5EC0D69361D2F10933015BCF9D38AE8977E6E61BEAFA9634F524FF8B8DCE3",
    3600: "51CC3D49A254DE334BBFFEC60E20DC897EC9697C954AA60CA9686B1EEF5B221C",
    86400: "08A54CCB1D939821E277BB66FB23E205E1740BC683FDBAD3B3F6AFB3BD4BABAD",
}

CON, NON, ACK, RST = range(4)
EMPTY, GET, POST, PUT, DELETE = range(5)
CHANGED = 2 << 5 | 4


def claim(lifetime: int = 3600, **changes: Any) -> bytes:
    """The payload of /auth; a change to None leaves that field out."""
    fields = {"secureMode": 2, "lifetime": lifetime, "sign": VECTORS.get(lifetime, "")} | changes
    kept = {name: value for name, value in fields.items() if value is not None}
    return json.dumps(kept, separators=(",", ":")).encode()


def header(kind: int, code: int, mid: int, token: bytes = b"") -> bytes:
    return bytes([0x40 | kind << 4 | len(token), code]) + mid.to_bytes(2) + token


def request(
    mid: int,
    path: tuple[str, ...] = AUTH,
    payload: bytes | None = None,
    *,
    token: bytes = b"\xa1\xb2",
    kind: int = CON,
    code: int = POST,
) -> bytes:
    """A request datagram; a good /auth unless told otherwise.  Path segments below 13 bytes."""
    options = b""
    for index, segment in enumerate(path):
        options += bytes([(0xB0 if index == 0 else 0) | len(segment)]) + segment.encode()
    body = claim() if payload is None else payload
    return header(kind, code, mid, token) + options + (b"\xff" + body if body else b"")


class Udp(asyncio.DatagramProtocol):
    """A bare UDP client: what it sends is what it was given."""

    def __init__(self) -> None:
        self.inbox: asyncio.Queue[bytes] = asyncio.Queue()
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.inbox.put_nowait(data)

    def send(self, data: bytes) -> None:
        self.transport.sendto(data)

    async def receive(self) -> bytes:
        return await asyncio.wait_for(self.inbox.get(), 5)

    async def ask(self, data: bytes) -> bytes:
        """Send one datagram and take one."""
        self.send(data)
        return await self.receive()

    async def is_quiet(self, seconds: float = 0.05) -> bool:
        """Whether nothing comes for a moment."""
        await asyncio.sleep(seconds)
        return self.inbox.empty()
