"""Block-wise transfers (RFC 7959): requests come together (Block1), answers are cut (Block2).

Time is the cloud's clock, looked at when something arrives; nothing here waits.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

from hil.cloud.records import Refused

TRANSFER_LIFETIME = 93.0  # s; MAX_TRANSMIT_WAIT of RFC 7252: the client has given up by then
TRANSFERS_KEPT = 256  # of each kind, all clients together
LONGEST_BODY = 64 * 1024  # if no limit is smaller
_LAST_NUMBER = 0xFFFFF
_RESERVED_EXPONENT = 7

T = TypeVar("T")


class Block(NamedTuple):
    """The value of a Block option; ``exponent`` is SZX, a block has 2 ** (SZX + 4) bytes."""

    number: int
    more: bool
    exponent: int

    @property
    def size(self) -> int:
        return 16 << self.exponent

    @property
    def start(self) -> int:
        return self.number * self.size


def read_block(option: Any) -> Block | None:
    """The Block1 or Block2 option that aiocoap read; refuses what RFC 7959, 2.2 forbids."""
    if option is None:
        return None
    block = Block(option.block_number, bool(option.more), option.size_exponent)
    if block.number > _LAST_NUMBER:
        raise Refused("4.02", "a Block option of more than 3 bytes")
    if block.exponent == _RESERVED_EXPONENT:
        raise Refused("4.00", "the size exponent 7 of a Block option is reserved")
    return block


class _Transfers(Generic[T]):
    """Transfers under way; the old ones and those that are too many are forgotten."""

    def __init__(self) -> None:
        self._known: dict[Hashable, tuple[float, T]] = {}

    def __len__(self) -> int:
        return len(self._known)

    def put(self, key: Hashable, value: T, now: float) -> None:
        self._known.pop(key, None)  # to the end, where the young ones are
        self._known[key] = now, value
        while len(self._known) > TRANSFERS_KEPT:
            del self._known[next(iter(self._known))]

    def get(self, key: Hashable, now: float) -> T | None:
        since, value = self._known.get(key, (now, None))
        if now - since >= TRANSFER_LIFETIME:
            self.drop(key)
            return None
        return value

    def drop(self, key: Hashable) -> None:
        self._known.pop(key, None)


class Uploads:
    """Requests which come in blocks, each from the first block on and without gaps.

    A transfer is known by its source, method and options other than Block and Size (RFC 7959, 2.5).
    It is over with its last block: that block again, under a new message ID, is 4.08, so that no
    body is taken twice.
    """

    def __init__(self) -> None:
        self._transfers: _Transfers[bytes] = _Transfers()

    def __len__(self) -> int:
        return len(self._transfers)

    def take(
        self, key: Hashable, block: Block, chunk: bytes, size1: int, limit: int | None, now: float
    ) -> bytes | None:
        """The whole body with its last block, None before that."""
        body = b"" if block.number == 0 else self._transfers.get(key, now)
        self._transfers.drop(key)  # whatever goes wrong now ends it
        if body is None:
            raise Refused("4.08", f"block {block.number} of no transfer, or of one too old")
        if block.more and len(chunk) != block.size:
            raise Refused("4.00", f"{len(chunk)} bytes in a block of {block.size}")
        if block.start != len(body):
            raise Refused("4.08", f"block {block.number} is not the next one")
        body += chunk
        limit = LONGEST_BODY if limit is None else limit
        if max(len(body), size1) > limit:
            raise Refused("4.13", f"more than {limit} bytes in blocks", size1=limit)
        if not block.more:
            return body
        self._transfers.put(key, body, now)
        return None


@dataclass(frozen=True)
class Slice:
    """A part of an answer; ``block`` is None when it is the whole of it."""

    chunk: bytes
    block: Block | None = None

    @property
    def is_final(self) -> bool:
        return self.block is None or not self.block.more


@dataclass
class Downloads(Generic[T]):
    """Answers which left in blocks; ``kept`` is handed back with each further block."""

    largest: int = 6  # exponent of the largest block we send
    _transfers: _Transfers[tuple[bytes, T]] = field(default_factory=_Transfers)

    def __len__(self) -> int:
        return len(self._transfers)

    def begin(
        self, key: Hashable, payload: bytes, wanted: Block | None, kept: T, now: float
    ) -> Slice:
        """The first block, or all of it if that is no more than what is wanted."""
        exponent = self._exponent(wanted)
        if len(payload) <= 16 << exponent:
            return Slice(payload)
        self._transfers.put(key, (payload, kept), now)
        return _cut(payload, Block(0, False, exponent))

    def go_on(self, key: Hashable, wanted: Block, now: float) -> tuple[Slice, T]:
        """A further block of the answer to the same request."""
        found = self._transfers.get(key, now)
        if found is None:
            raise Refused("4.08", f"block {wanted.number} of no answer, or of one too old")
        payload, kept = found
        if wanted.start >= len(payload):
            raise Refused("4.00", f"block {wanted.number} is behind the end of the answer")
        exponent = self._exponent(wanted)
        number = wanted.number << (wanted.exponent - exponent)
        return _cut(payload, Block(number, False, exponent)), kept

    def _exponent(self, wanted: Block | None) -> int:
        return self.largest if wanted is None else min(wanted.exponent, self.largest)


def _cut(payload: bytes, block: Block) -> Slice:
    end = block.start + block.size
    return Slice(payload[block.start : end], block._replace(more=end < len(payload)))
