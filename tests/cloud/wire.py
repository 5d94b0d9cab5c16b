"""What the tests put on the wire: the documented device, and datagrams written by hand."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

Address = tuple[str, int]

PK, DK, SECRET = "KV315idW", "tPbZGCdmaE", "M3yy874uGY8INjEGddTR"
AUTH = ("auth", PK, DK)
UP_RAW = ("topic", "sys", PK, DK, "thing", "model", "up_raw")
DOWN_RAW_PATH = f"/topic/sys/{PK}/{DK}/thing/model/down_raw"

VECTORS = {
    30: "72D5EC0D69361D2F10933015BCF9D38AE8977E6E61BEAFA9634F524FF8B8DCE3",
    3600: "51CC3D49A254DE334BBFFEC60E20DC897EC9697C954AA60CA9686B1EEF5B221C",
    86400: "08A54CCB1D939821E277BB66FB23E205E1740BC683FDBAD3B3F6AFB3BD4BABAD",
}

CON, NON, ACK, RST = range(4)
EMPTY, GET, POST, PUT, DELETE = range(5)
CHANGED = 2 << 5 | 4
URI_PATH, BLOCK2, BLOCK1, SIZE1 = 11, 23, 27, 60

Options = Sequence[tuple[int, bytes]]


def topic(name: str) -> tuple[str, ...]:
    """The path of one of the device's topics."""
    return ("topic", "sys", PK, DK, *name.split("/"))


def claim(lifetime: int = 3600, **changes: Any) -> bytes:
    """The payload of /auth; a change to None leaves that field out."""
    fields = {"secureMode": 2, "lifetime": lifetime, "sign": VECTORS.get(lifetime, "")} | changes
    kept = {name: value for name, value in fields.items() if value is not None}
    return json.dumps(kept, separators=(",", ":")).encode()


def header(kind: int, code: int, mid: int, token: bytes = b"") -> bytes:
    return bytes([0x40 | kind << 4 | len(token), code]) + mid.to_bytes(2) + token


def encode_options(options: Options) -> bytes:
    """Option numbers as deltas, long ones with one or two bytes more (RFC 7252, 3.1)."""
    encoded, last = b"", 0
    for number, value in sorted(options, key=lambda option: option[0]):
        delta, delta_more = _nibble(number - last)
        length, length_more = _nibble(len(value))
        encoded += bytes([delta << 4 | length]) + delta_more + length_more + value
        last = number
    return encoded


def _nibble(value: int) -> tuple[int, bytes]:
    if value < 13:
        return value, b""
    if value < 269:
        return 13, bytes([value - 13])
    return 14, (value - 269).to_bytes(2)


def block(number: int, more: bool, size: int) -> bytes:
    """The value of a Block option."""
    value = number << 4 | more << 3 | size.bit_length() - 5
    return value.to_bytes((value.bit_length() + 7) // 8)


def request(
    mid: int,
    path: tuple[str, ...] = AUTH,
    payload: bytes | None = None,
    *,
    token: bytes = b"\xa1\xb2",
    kind: int = CON,
    code: int = POST,
    options: Options = (),
) -> bytes:
    """A request datagram; a good /auth unless told otherwise."""
    encoded = encode_options([*((URI_PATH, segment.encode()) for segment in path), *options])
    body = claim() if payload is None else payload
    return header(kind, code, mid, token) + encoded + (b"\xff" + body if body else b"")


@dataclass(frozen=True)
class Answer:
    kind: int
    code: str
    mid: int
    token: bytes
    options: tuple[tuple[int, bytes], ...]
    payload: bytes

    def option(self, number: int) -> list[bytes]:
        return [value for each, value in self.options if each == number]

    @property
    def commands(self) -> list[tuple[str, bytes]]:
        """The pairs of 2100 and 2102, in order."""
        topics = [value.decode() for value in self.option(2100)]
        return list(zip(topics, self.option(2102), strict=True))

    @property
    def json(self) -> Any:
        return json.loads(self.payload)


def read(datagram: bytes) -> Answer:
    """Take an answer apart by hand."""
    kind, length, code = datagram[0] >> 4 & 3, datagram[0] & 15, datagram[1]
    mid, token, rest = (
        int.from_bytes(datagram[2:4]),
        datagram[4 : 4 + length],
        datagram[4 + length :],
    )
    options, number = [], 0
    while rest and rest[0] != 0xFF:
        head, rest = rest[0], rest[1:]
        delta, rest = _extended(head >> 4, rest)
        size, rest = _extended(head & 15, rest)
        number += delta
        options.append((number, rest[:size]))
        rest = rest[size:]
    dotted = f"{code >> 5}.{code & 31:02}"
    return Answer(kind, dotted, mid, token, tuple(options), rest[1:])


def _extended(nibble: int, rest: bytes) -> tuple[int, bytes]:
    if nibble == 13:
        return rest[0] + 13, rest[1:]
    if nibble == 14:
        return int.from_bytes(rest[:2]) + 269, rest[2:]
    return nibble, rest


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


@contextlib.asynccontextmanager
async def connected(address: Address) -> AsyncIterator[Udp]:
    loop = asyncio.get_running_loop()
    transport, udp = await loop.create_datagram_endpoint(Udp, remote_addr=address)
    try:
        yield udp
    finally:
        transport.close()
        await asyncio.sleep(0)


class Talker:
    """A device that sends CON until the answer with its token comes; NSTART is 1.

    ``repeat_after`` seconds until the first repetition; it does not grow, the tests have no time.
    """

    def __init__(self, udp: Udp, repeat_after: float = 2.0) -> None:
        self.udp = udp
        self.repeat_after = repeat_after
        self.sent = 0
        self._last = 0

    async def ask(
        self,
        path: tuple[str, ...] = AUTH,
        payload: bytes | None = None,
        *,
        code: int = POST,
        options: Options = (),
    ) -> Answer:
        self._last += 1
        mid, token = self._last % 0x10000, self._last.to_bytes(4)
        datagram = request(mid, path, payload, token=token, code=code, options=options)
        for _ in range(200):
            self.sent += 1
            self.udp.send(datagram)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.repeat_after):
                    return await self._answer(token)
        raise AssertionError("no answer to 200 datagrams")

    async def _answer(self, token: bytes) -> Answer:
        while True:
            answer = read(await self.udp.inbox.get())
            if answer.token == token and answer.code != "0.00":
                if answer.kind == CON:
                    self.udp.send(header(ACK, EMPTY, answer.mid))
                return answer

    async def report(self, name: str, params: Any, **envelope: Any) -> Answer:
        """A JSON report on one of the device's topics; None leaves a field of the envelope out."""
        fields = {"id": "1", "version": "1.0", "method": name.replace("/", "."), "params": params}
        fields |= envelope
        kept = {key: value for key, value in fields.items() if value is not None}
        return await self.ask(topic(name), json.dumps(kept).encode())

    async def in_blocks(
        self, path: tuple[str, ...], payload: bytes, size: int, options: Options = ()
    ) -> list[Answer]:
        """Send the payload by Block1; the answers to all blocks, or up to the first refusal."""
        answers: list[Answer] = []
        sent = 0
        while sent < len(payload):
            chunk = payload[sent : sent + size]
            more = sent + size < len(payload)
            block1 = (BLOCK1, block(sent // size, more, size))
            answer = await self.ask(path, chunk, options=[block1, *options])
            answers.append(answer)
            sent += len(chunk)
            if answer.code != "2.31":
                break
            size = min(size, 16 << (answer.option(BLOCK1)[0][-1] & 7))  # the server's wish
        return answers
