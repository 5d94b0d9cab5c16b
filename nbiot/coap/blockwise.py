"""One request and its whole response, in blocks that fit into the modem's datagrams (RFC 7959).

No I/O and no clock: ``Transfer.next`` is what to send in the next exchange, ``received`` takes that
exchange's response. Each block is an exchange of its own, with a new message id and a new token: a
response that comes late then cannot be taken for that to another block.

There is no Request-Tag (RFC 9175, 3): it tells apart the blocks of transfers that run at the same
time from one endpoint, and here one runs at a time. Without DTLS it would protect against nobody.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from nbiot.coap.message import (
    BLOCK1,
    BLOCK2,
    ETAG,
    SIZE1,
    SIZE2,
    TOKEN_BYTES,
    Datagram,
    Method,
    Options,
    Request,
    code_text,
    encode_request,
)
from nbiot.errors import BadDatagram, BadInput, DatagramTooLong, ResponseLost

LARGEST_SZX = 6  # 1024 bytes; 7 is reserved
MOST_PAYLOAD = 64 * 1024  # bytes of a payload each way; a peer cannot make the host take more
RESPONSE_OVERHEAD = 128  # bytes kept free in a received datagram for header, token and options
FIRST_FOREIGN_OPTION = 2048  # options from here on are not the IETF's (RFC 7252, 12.2)

CONTINUE = 0x5F  # 2.31
INCOMPLETE = 0x88  # 4.08
TOO_LARGE = 0x8D  # 4.13


@dataclass(frozen=True, slots=True)
class Block:
    """The value of a Block1 or Block2 option (RFC 7959, 2.2).

    ``number``: 0 to 2**20 - 1; ``szx``: 0 to 6, for blocks of 16 to 1024 bytes.
    """

    number: int
    more: bool
    szx: int

    @property
    def size(self) -> int:
        """Bytes in a full block."""
        return 16 << self.szx

    @property
    def start(self) -> int:
        """Where in the payload the block begins."""
        return self.number * self.size

    def encode(self) -> bytes:
        return _uint(self.number << 4 | self.more << 3 | self.szx)

    @classmethod
    def decode(cls, value: bytes) -> Block:
        """Raises BadDatagram."""
        whole = int.from_bytes(value, "big")
        if len(value) > 3 or whole & 7 > LARGEST_SZX:
            raise BadDatagram(f"a block option that means nothing ({value.hex()})")
        return cls(whole >> 4, bool(whole & 8), whole & 7)


@dataclass(frozen=True, slots=True)
class Part:
    """What to send in one exchange of a transfer.

    ``options``: what it has beside the options of ``request``. ``final``: as far as can be known,
    the response to it is the last datagram of the transfer. ``way``, ``block``, ``blocks``: which
    block it sends ("up") or asks for ("down"), counted from 1, of how many; no way: it is whole.
    """

    request: Request
    options: Options = ()
    final: bool = True
    way: Literal["", "up", "down"] = ""
    block: int = 1
    blocks: int | None = None

    @property
    def name(self) -> str:
        """ "block 2 of 5"; empty when there is one only."""
        if not self.way:
            return ""
        return f"block {self.block}" + (f" of {self.blocks}" if self.blocks else "")


@dataclass(frozen=True, slots=True)
class Outcome:
    """The response. ``options``: see ``Response``."""

    code: str
    payload: bytes
    options: Options


class Transfer:
    """Send ``next``, give ``received`` its response, until ``outcome`` is there.

    request:       payload of at most 64 KiB
    most_sent:     bytes of the longest datagram that the modem sends
    most_received: bytes of the longest datagram that it takes; None does not ask the server to
                   keep to it. Options of the response have 128 of them.

    Raises DatagramTooLong when not even blocks of 16 bytes fit; BadInput.
    """

    def __init__(
        self,
        request: Request,
        most_sent: int,
        *,
        most_received: int | None = None,
        token_bytes: int = TOKEN_BYTES,
    ) -> None:
        if len(request.payload) > MOST_PAYLOAD:
            raise BadInput(
                "payload", f"{len(request.payload)} bytes", f"at most {MOST_PAYLOAD} bytes"
            )
        self.outcome: Outcome | None = None
        self._request = request
        self._most_sent = most_sent
        self._token_bytes = token_bytes
        self._wish = None if most_received is None else _szx_within(most_received)
        self._szx: int | None = None  # of the request's blocks; None: it goes in one datagram
        self._sent = 0  # bytes of the request's payload that the server has
        self._down = _Down()
        self._foreign: list[Options] = []
        self._enacted = False
        self._restarted = False
        whole = self._whole()
        if len(request.payload) > Block(0, False, LARGEST_SZX).size or not self._fits(whole):
            self._szx = self._largest_szx()
        self.next: Part | None = self._upload()

    def received(self, message: Datagram) -> None:
        """The response to ``next``.

        Raises BadDatagram when its block options make no sense, ResponseLost when the whole
        response cannot be had. The transfer is over then.
        """
        part, self.next = self.next, None
        if part is None:
            raise BadDatagram(f"{code_text(message.code)} to a transfer that has ended")
        self._keep_foreign(message)
        block1, block2 = block_in(message, BLOCK1), block_in(message, BLOCK2)
        if part.way == "down":
            self._downloaded(message, block2)
        else:
            self._uploaded(part, message, block1, block2)

    # --- the request (Block1) ---------------------------------------------------------------

    def _uploaded(
        self, part: Part, message: Datagram, block1: Block | None, block2: Block | None
    ) -> None:
        if message.code >> 5 != 2:
            if not self._began_anew(message, block1):
                self._finish(message, message.payload)
            return
        if message.code != CONTINUE:
            self._enacted = True
        block = self._block if part.way else Block(0, False, LARGEST_SZX)  # or the only one
        _check_acknowledged(message, block, block1)
        if not block.more:
            self._first_of_response(message, block2)
            return
        # 2.31, or a server that enacts each block by itself: it gets the others, too (RFC 7959,
        # 2.3), and what it says to the last one counts.
        self._sent += block.size
        self._shrink(block1)
        self.next = self._upload()

    def _began_anew(self, message: Datagram, block1: Block | None) -> bool:
        """Does the server's error ask for another try, and may there be one?"""
        if message.code == INCOMPLETE and self._szx is not None:
            return self._restart()
        if message.code != TOO_LARGE or block1 is None or not self._may_repeat():
            return False  # 4.13 without a hint: it is the payload that is too large
        smaller = self._szx is None or block1.szx < self._szx
        if not smaller or len(self._request.payload) <= block1.size:
            return False
        self._szx = block1.szx
        self._begin()
        return True

    def _shrink(self, block1: Block | None) -> None:
        """Go on with the smaller blocks that the server prefers (RFC 7959, 2.3)."""
        assert self._szx is not None
        if block1 is not None:
            self._szx = min(self._szx, block1.szx)

    @property
    def _block(self) -> Block:
        """The block that is to be sent."""
        assert self._szx is not None
        size = Block(0, False, self._szx).size
        more = self._sent + size < len(self._request.payload)
        return Block(self._sent // size, more, self._szx)

    def _upload(self) -> Part:
        if self._szx is None:
            return self._checked(self._whole())
        block, payload = self._block, self._request.payload
        part = Part(
            replace(self._request, payload=payload[block.start : block.start + block.size]),
            # What is wished of the response belongs to the request's last block (RFC 7959, 2.7).
            (*(() if block.more else self._wished()), (BLOCK1, block.encode())),
            final=not block.more,
            way="up",
            block=block.number + 1,
            blocks=-(-len(payload) // block.size),
        )
        if block.number == 0:
            sized = replace(part, options=(*part.options, (SIZE1, _uint(len(payload)))))
            part = sized if self._fits(sized) else part
        return self._checked(part)

    def _whole(self) -> Part:
        return Part(self._request, self._wished())

    def _wished(self) -> Options:
        return () if self._wish is None else ((BLOCK2, Block(0, False, self._wish).encode()),)

    # --- the response (Block2) --------------------------------------------------------------

    def _first_of_response(self, message: Datagram, block2: Block | None) -> None:
        self._down = _Down(message)
        if block2 is None:
            self._finish(message, message.payload)
            return
        size2 = _values(message, SIZE2)
        if size2 and len(size2[0]) <= 4:
            self._down.expected = int.from_bytes(size2[0], "big")
        self._down.szx = block2.szx
        self._append(message, block2)

    def _downloaded(self, message: Datagram, block2: Block | None) -> None:
        first = self._down.first
        assert first is not None
        if message.code >> 5 != 2 or message.code == CONTINUE:
            self._broken(f"the server says {code_text(message.code)}")
        elif _values(message, ETAG) != _values(first, ETAG):
            self._broken("it changed meanwhile (another ETag)")
        elif block2 is None or block2.szx > self._down.szx:
            raise BadDatagram("a response that is not the block that was asked for")
        else:
            self._append(message, block2)

    def _append(self, message: Datagram, block2: Block) -> None:
        down, size = self._down, len(message.payload)
        if block2.start != len(down.body):
            raise BadDatagram(
                f"the server sends what begins at byte {block2.start} of the response;"
                f" byte {len(down.body)} comes next"
            )
        if size > block2.size or (block2.more and size != block2.size):
            raise BadDatagram(f"{size} bytes in a block of {block2.size}")
        down.body += message.payload
        if max(len(down.body) + block2.more, down.expected or 0) > MOST_PAYLOAD:
            raise ResponseLost(
                f"the response is longer than {MOST_PAYLOAD} bytes", hint="Ask for less."
            )
        if block2.more:
            down.szx = block2.szx if self._wish is None else min(block2.szx, self._wish)
            self.next = self._continuation()
        else:
            assert down.first is not None
            self._finish(down.first, bytes(down.body))

    def _continuation(self) -> Part:
        """Ask for the next block: the request again, but for its payload and Block1 (RFC 7959, 2.7
        and 3.3). Content-Format stays: servers know the transfer by its options.
        """
        down = self._down
        block = Block(len(down.body) // (16 << down.szx), False, down.szx)
        expected = down.expected if down.expected and down.expected > block.start else None
        return self._checked(
            Part(
                replace(self._request, payload=b""),
                ((BLOCK2, block.encode()),),
                final=expected is not None and block.start + block.size >= expected,
                way="down",
                block=block.number + 1,
                blocks=None if expected is None else -(-expected // block.size),
            )
        )

    def _broken(self, why: str) -> None:
        """The blocks in hand and the ones to come are not of one response."""
        if self._restart():
            return
        first = self._down.first
        assert first is not None
        raise ResponseLost(
            f"the server answered {code_text(first.code)}, but not all of its response could be"
            f" had: {why}",
            hint="Try again."
            if self._may_repeat()
            else "The request was carried out; only its response is lost.",
        )

    # --- both -------------------------------------------------------------------------------

    def _restart(self) -> bool:
        """Begin with the first block again, once, if that does no harm."""
        if self._restarted or not self._may_repeat():
            return False
        self._restarted = True
        self._begin()
        return True

    def _may_repeat(self) -> bool:
        """A POST that the server may have carried out is not repeated (RFC 7252, 5.8.2)."""
        return not self._enacted or self._request.method is not Method.POST

    def _begin(self) -> None:
        self._sent = 0
        self._down = _Down()
        self.next = self._upload()

    def _finish(self, message: Datagram, payload: bytes) -> None:
        plain = (
            (number, value)
            for number, value in message.options
            if number < FIRST_FOREIGN_OPTION and number not in (BLOCK1, BLOCK2)
        )
        foreign = (option for group in self._foreign for option in group)
        self.outcome = Outcome(code_text(message.code), payload, (*plain, *foreign))

    def _keep_foreign(self, message: Datagram) -> None:
        """Any response may bring a command of EnOS; servers repeat options in each block.

        They are compared as a group: two commands may well have an option in common.
        """
        group = tuple(option for option in message.options if option[0] >= FIRST_FOREIGN_OPTION)
        if group and group not in self._foreign:
            self._foreign.append(group)

    def _largest_szx(self) -> int:
        for szx in range(LARGEST_SZX, -1, -1):
            size = Block(0, False, szx).size
            block = Block(len(self._request.payload) // size, True, szx)
            request = replace(self._request, payload=bytes(size))
            part = Part(request, (*self._wished(), (BLOCK1, block.encode())))
            if self._fits(part):
                return szx
        raise DatagramTooLong(
            f"blocks of 16 bytes make datagrams of {self._size(part)} bytes; the modem takes"
            f" {self._most_sent}",
            hint="The path and the options are too long for this modem.",
        )

    def _checked(self, part: Part) -> Part:
        if not self._fits(part):
            raise DatagramTooLong(
                f"a request of {self._size(part)} bytes; the modem takes {self._most_sent}"
            )
        return part

    def _fits(self, part: Part) -> bool:
        return self._size(part) <= self._most_sent

    def _size(self, part: Part) -> int:
        return len(encode_request(part.request, 0, bytes(self._token_bytes), part.options))


@dataclass(slots=True)
class _Down:
    """A response on its way. ``expected``: its size as the server estimates it (Size2)."""

    first: Datagram | None = None
    body: bytearray = field(default_factory=bytearray)
    szx: int = LARGEST_SZX
    expected: int | None = None


def _check_acknowledged(message: Datagram, block: Block, block1: Block | None) -> None:
    """Does ``message``, of class 2, say what a response to ``block`` can say?"""
    code = code_text(message.code)
    if block.more and block1 is None:
        raise BadDatagram(
            f"the server answers {code} to a block as if it were the whole request",
            hint="It does not know block-wise transfers; send less.",
        )
    if not block.more and (message.code == CONTINUE or (block1 and block1.more)):
        raise BadDatagram(f"the server asks for more ({code}), but it has the whole request")
    if block1 and block1.number != block.number:
        raise BadDatagram(f"the server acknowledges block {block1.number}; {block.number} was sent")


def block_in(message: Datagram, number: int) -> Block | None:
    """Block option ``number`` of ``message``. Raises BadDatagram: these options are critical, so
    one that is malformed or comes twice makes the response unusable (RFC 7252, 5.4).
    """
    values = _values(message, number)
    if len(values) > 1:
        raise BadDatagram(f"{len(values)} options {number} in one response")
    return Block.decode(values[0]) if values else None


def _values(message: Datagram, number: int) -> list[bytes]:
    return [value for found, value in message.options if found == number]


def _szx_within(most_received: int) -> int:
    """The szx of blocks that come in datagrams of ``most_received`` bytes."""
    for szx in range(LARGEST_SZX, -1, -1):
        if RESPONSE_OVERHEAD + Block(0, False, szx).size <= most_received:
            return szx
    raise BadInput("most_received", most_received, f"{RESPONSE_OVERHEAD + 16} bytes or more")


def _uint(value: int) -> bytes:
    """RFC 7252, 3.2: as few bytes as possible, none for 0."""
    return value.to_bytes((value.bit_length() + 7) // 8, "big")
