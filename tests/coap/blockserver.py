"""A server of RFC 7959 as a model: it takes requests in blocks and gives responses in blocks.

Written from the RFC, with the datagrams taken apart here, so that it shares no code with the
driver. What it likes is set in ``Manners``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .wire import ACK, message

CHANGED, CONTINUE, INCOMPLETE, TOO_LARGE = 0x44, 0x5F, 0x88, 0x8D
ETAG, BLOCK2, BLOCK1, SIZE2, SIZE1 = 4, 23, 27, 28, 60


@dataclass(frozen=True)
class Asked:
    """A request datagram, taken apart."""

    method: int
    mid: int
    token: bytes
    options: tuple[tuple[int, bytes], ...]
    payload: bytes

    def uint(self, number: int) -> int | None:
        values = [value for found, value in self.options if found == number]
        assert len(values) <= 1
        assert all(len(value) <= 3 and value[:1] != b"\0" for value in values)
        return int.from_bytes(values[0], "big") if values else None

    def block(self, number: int) -> tuple[int, bool, int] | None:
        """Number, more, size in bytes."""
        value = self.uint(number)
        if value is None:
            return None
        assert value & 7 != 7
        return value >> 4, bool(value & 8), 16 << (value & 7)


def taken_apart(data: bytes) -> Asked:
    """RFC 7252, section 3, for what a client of ours may send."""
    length = data[0] & 15
    assert data[0] >> 4 == 0b0100
    at, number, options = 4 + length, 0, []
    while at < len(data) and data[at] != 0xFF:
        parts = []
        nibbles, at = divmod(data[at], 16), at + 1
        for nibble in nibbles:
            more = {13: 1, 14: 2}.get(nibble, 0)
            extension = int.from_bytes(data[at : at + more], "big")
            parts.append(extension + {13: 13, 14: 269}.get(nibble, nibble))
            at += more
        number += parts[0]
        options.append((number, data[at : at + parts[1]]))
        at += parts[1]
    payload = data[at + 1 :]
    mid = int.from_bytes(data[2:4], "big")
    return Asked(data[1], mid, data[4 : 4 + length], tuple(options), payload)


def uint(value: int) -> bytes:
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


def block(number: int, more: bool, size: int) -> bytes:
    return uint(number << 4 | more << 3 | (size.bit_length() - 5))


@dataclass
class Manners:
    """``up``: the size of blocks that it prefers, one for each response to a block, the last one
    for all others. ``down``: the largest blocks it sends, likewise. ``too_large``: 4.13 to larger
    blocks, and to payloads beyond it in one piece. ``forgets``: 4.08 to these requests, counted
    from 1. ``enacts``: it carries out each block by itself (2.04, RFC 7959, figure 8).
    ``commands``: foreign options of each response, by its count from 1.
    """

    payload: bytes = b""
    up: tuple[int, ...] = (1024,)
    down: tuple[int, ...] = (1024,)
    too_large: int | None = None
    forgets: tuple[int, ...] = ()
    enacts: bool = False
    estimates: bool = False
    etag: bytes | None = None
    options: tuple[tuple[int, bytes], ...] = ()
    commands: dict[int, tuple[tuple[int, bytes], ...]] = field(default_factory=dict)


class BlockServer:
    """``answer`` gives the datagram for a datagram. ``bodies``: the whole requests."""

    def __init__(self, manners: Manners) -> None:
        self.manners = manners
        self.asked: list[Asked] = []
        self.bodies: list[bytes] = []
        self._body = b""
        self._ups = self._downs = 0

    def answer(self, data: bytes) -> bytes:
        asked = taken_apart(data)
        self.asked.append(asked)
        code, options, payload = self._respond(asked)
        foreign = self.manners.commands.get(len(self.asked), ())
        ordered = sorted((*options, *foreign), key=lambda option: option[0])
        return message(ACK, code, asked.mid, asked.token, ordered, payload)

    def _respond(self, asked: Asked) -> tuple[int, list[tuple[int, bytes]], bytes]:
        manners, part, wish = self.manners, asked.block(BLOCK1), asked.block(BLOCK2)
        if len(self.asked) in manners.forgets:
            return INCOMPLETE, [], b""
        size = part[2] if part else len(asked.payload)
        if manners.too_large is not None and size > manners.too_large:
            return TOO_LARGE, [(BLOCK1, block(0, False, manners.too_large))], b""
        if wish and wish[0] > 0:
            assert part is None
            assert asked.payload == b""
            return self._block2(wish)
        if part is None:
            self.bodies.append(asked.payload)
            return self._block2(wish)
        number, more, size = part
        if number == 0:
            self._body = b""
        if number * size != len(self._body) or (more and len(asked.payload) != size):
            return INCOMPLETE, [], b""
        assert 0 < len(asked.payload) <= size
        self._body += asked.payload
        if not more:
            self.bodies.append(self._body)
            code, options, payload = self._block2(wish)
            return code, [*options, (BLOCK1, block(number, False, size))], payload
        assert wish is None
        preferred = min(size, manners.up[min(self._ups, len(manners.up) - 1)])
        self._ups += 1
        code = CHANGED if manners.enacts else CONTINUE
        return code, [(BLOCK1, block(number, not manners.enacts, preferred))], b""

    def _block2(
        self, wish: tuple[int, bool, int] | None
    ) -> tuple[int, list[tuple[int, bytes]], bytes]:
        manners = self.manners
        options = list(manners.options)
        if manners.etag is not None:
            options.append((ETAG, manners.etag))
        largest = manners.down[min(self._downs, len(manners.down) - 1)]
        size = min(wish[2], largest) if wish else largest
        start = wish[0] * wish[2] if wish else 0
        if wish is None and len(manners.payload) <= size:
            return CHANGED, options, manners.payload
        self._downs += 1
        more = start + size < len(manners.payload)
        options.append((BLOCK2, block(start // size, more, size)))
        if manners.estimates:
            options.append((SIZE2, uint(len(manners.payload))))
        return CHANGED, options, manners.payload[start : start + size]
