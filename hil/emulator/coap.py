"""The least of CoAP (RFC 7252) that the BC66's own client needs."""

from __future__ import annotations

from dataclasses import dataclass, field

CON, NON, ACK, RST = range(4)

URI_HOST, OBSERVE, URI_PORT, URI_PATH, CONTENT_FORMAT = 3, 6, 7, 11, 12
URI_QUERY, BLOCK2, BLOCK1, PROXY_URI, SIZE1 = 15, 23, 27, 35, 60

FORMATS = {
    "text": 0,
    "link": 40,
    "xml": 41,
    "octet-stream": 42,
    "exi": 47,
    "json": 50,
    "cbor": 60,
}


@dataclass
class Message:
    """One CoAP message."""

    type: int
    code: int
    mid: int
    token: bytes = b""
    options: list[tuple[int, bytes]] = field(default_factory=list)
    payload: bytes = b""

    @property
    def dotted(self) -> str:
        """Code as `2.05`."""
        return f"{self.code >> 5}.{self.code & 31:02d}"


def code_of(number: int) -> int:
    """Code byte of a number as QCOAPSEND takes it: 1..4 methods, 205, 404 ... responses."""
    return number if number < 100 else (number // 100 << 5) | number % 100


def uint(value: int) -> bytes:
    """Unsigned integer in as few bytes as possible, 0 = none."""
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


def encode(message: Message) -> bytes:
    """Message to bytes."""
    out = bytearray([0x40 | message.type << 4 | len(message.token), message.code])
    out += message.mid.to_bytes(2, "big") + message.token
    last = 0
    for number, value in sorted(message.options, key=lambda option: option[0]):
        delta, delta_more = _nibble(number - last)
        length, length_more = _nibble(len(value))
        out.append(delta << 4 | length)
        out += delta_more + length_more + value
        last = number
    if message.payload:
        out += b"\xff" + message.payload
    return bytes(out)


def _nibble(value: int) -> tuple[int, bytes]:
    if value < 13:
        return value, b""
    if value < 269:
        return 13, bytes([value - 13])
    return 14, (value - 269).to_bytes(2, "big")


def decode(data: bytes) -> Message:
    """Bytes to message; ValueError when they are none."""
    if len(data) < 4 or data[0] >> 6 != 1 or data[0] & 15 > 8:
        raise ValueError("not CoAP")
    token_end = 4 + (data[0] & 15)
    if len(data) < token_end:
        raise ValueError("token is cut")
    mid = int.from_bytes(data[2:4], "big")
    message = Message(data[0] >> 4 & 3, data[1], mid, data[4:token_end])
    position, number = token_end, 0
    while position < len(data):
        if data[position] == 0xFF:
            message.payload = data[position + 1 :]
            break
        delta, length, position = _read_nibbles(data, position)
        number += delta
        if position + length > len(data):
            raise ValueError("option is cut")
        message.options.append((number, data[position : position + length]))
        position += length
    return message


def _read_nibbles(data: bytes, position: int) -> tuple[int, int, int]:
    first = data[position]
    position += 1
    values = []
    for nibble in (first >> 4, first & 15):
        size = {13: 1, 14: 2}.get(nibble, 0)
        if nibble == 15 or position + size > len(data):
            raise ValueError("bad option header")
        more = int.from_bytes(data[position : position + size], "big")
        values.append({13: 13, 14: 269}.get(nibble, nibble) + more)
        position += size
    return values[0], values[1], position
