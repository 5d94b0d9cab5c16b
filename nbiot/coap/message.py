"""CoAP messages: what a caller asks and gets, and the bytes between (RFC 7252, section 3).

aiocoap's codec does the encoding and decoding. In front of it stands a strict check, because that
codec takes some datagrams that RFC 7252 calls message format errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from aiocoap import Code, Message
from aiocoap.error import Error as AiocoapError
from aiocoap.numbers.optionnumbers import OptionNumber
from aiocoap.numbers.types import Type

from nbiot.errors import BadDatagram, BadInput

PAYLOAD_MARKER = 0xFF
ETAG, BLOCK2, BLOCK1, SIZE2, SIZE1 = 4, 23, 27, 28, 60  # RFC 7252, 5.10; RFC 7959, 6

# Each byte saved is two on a BC95's serial line. An off-path sender must guess 32 bits (token and
# message id) for a piggybacked response, as RFC 7252, 5.3.1 asks for without DTLS, but only the
# token's 16 for a separate one: what protects there is the port, hidden behind the operator's NAT.
TOKEN_BYTES = 2

Options = tuple[tuple[int, bytes], ...]
"""Numbers and values, in the order of the numbers."""

# Options that must be understood if present (odd numbers); others of that class make a response
# unusable (RFC 7252, 5.4.1). 2101 is EnOS's: the signature of its dialect before September 2019.
UNDERSTOOD_CRITICAL = frozenset({1, 3, 5, 7, 11, 15, 17, 23, 27, 35, 39, 2101})


class Method(IntEnum):
    """Request codes (RFC 7252, 12.1.1)."""

    GET = 1
    POST = 2
    PUT = 3
    DELETE = 4


@dataclass(frozen=True, slots=True)
class Request:
    """A confirmable request. ``content_format``: RFC 7252, 12.3 (50 is JSON); None sends none.

    The payload stays out of repr: EnOS's signature in it has no nonce, so it can be used again.
    """

    method: Method
    path: tuple[str, ...]
    payload: bytes = field(default=b"", repr=False)
    content_format: int | None = None

    def __post_init__(self) -> None:
        for segment in self.path:
            if len(segment.encode()) > 255 or segment in (".", ".."):
                raise BadInput(
                    "path", segment, "segments of at most 255 bytes, none of them . or .."
                )
        number = self.content_format
        if number is not None and not (type(number) is int and 0 <= number <= 65535):
            raise BadInput("content_format", number, "0 to 65535; 50 is JSON")


@dataclass(frozen=True, slots=True)
class Stats:
    """What a request and its response cost: the sum over all exchanges that they took.

    ``up``, ``down``: bytes of the UDP payloads each way, retransmissions included (IP and UDP
    headers add 28 each); None where only the modem knows. Of a modem's own CoAP client, ``up`` is
    one transmission as this driver would write it. ``round_trip``: seconds from handing the request
    to the modem until the response was in the host, all of it. ``exchanges``: requests with a
    response of their own; more than 1 where something went in blocks.
    """

    up: int | None
    down: int | None
    datagrams_up: int
    datagrams_down: int
    retransmissions: int
    round_trip: float
    exchanges: int = 1


@dataclass(frozen=True, slots=True)
class Response:
    """The answer to a request. ``code`` as "2.04"; ``options`` as (number, value) in order.

    Over several blocks, the code and the IETF's options are those of the response to the last block
    of the request. Options from 2048 on, such as EnOS's 2100 and 2102, are those of all responses
    in the order of their coming; a response that has all of them alike with another adds none.
    Block1 and Block2 are not among them: ``payload`` is whole. Of a response that is no success,
    only the first block is fetched.
    """

    code: str
    payload: bytes = field(repr=False)  # an activation's holds a secret
    options: Options
    stats: Stats

    @property
    def ok(self) -> bool:
        """Class 2: success."""
        return self.code.startswith("2.")

    def option(self, number: int) -> bytes | None:
        """The first value of option ``number``, or None."""
        return next((value for found, value in self.options if found == number), None)


@dataclass(frozen=True, slots=True)
class Datagram:
    """A decoded CoAP message."""

    type: Type
    code: int
    mid: int
    token: bytes
    options: Options
    payload: bytes = field(repr=False)

    @property
    def is_empty(self) -> bool:
        return self.code == 0

    @property
    def is_response(self) -> bool:
        return self.code >> 5 in (2, 4, 5)

    @property
    def not_understood(self) -> list[int]:
        """Critical options that this driver does not know."""
        return [n for n, _ in self.options if n % 2 and n not in UNDERSTOOD_CRITICAL]


def code_text(code: int) -> str:
    """2.04 for 68 (RFC 7252, 3)."""
    return f"{code >> 5}.{code & 31:02d}"


def encode_request(request: Request, mid: int, token: bytes, options: Options = ()) -> bytes:
    """The datagram of a confirmable request; ``options`` are those beside the request's own."""
    message = Message(code=Code(int(request.method)), payload=request.payload)
    message.opt.uri_path = request.path
    if request.content_format is not None:
        message.opt.content_format = request.content_format
    for number, value in options:
        message.opt.add_option(OptionNumber(number).create_option(decode=value))
    message.mtype = Type.CON
    message.mid = mid
    message.token = token
    return bytes(message.encode())


def encode_empty(kind: Type, mid: int) -> bytes:
    """An empty ACK or RST for message ``mid``."""
    return bytes([0x40 | kind << 4, 0, mid >> 8, mid & 0xFF])


def decode(data: bytes) -> Datagram:
    """The message in ``data``. Raises BadDatagram, and nothing else, on anything malformed."""
    _check(data)
    try:
        message = Message.decode(data)
        options = tuple((int(o.number), bytes(o.encode())) for o in message.opt.option_list())
    except (AiocoapError, ValueError, IndexError, KeyError, TypeError) as error:
        raise BadDatagram(f"not a CoAP message ({error})") from error
    return Datagram(
        Type(message.mtype), int(message.code), message.mid, message.token, options, message.payload
    )


def _check(data: bytes) -> None:
    """The message format errors of RFC 7252, section 3, that a codec may let pass."""
    if len(data) < 4:
        raise BadDatagram(f"{len(data)} bytes; a CoAP message has 4 at least")
    if data[0] >> 6 != 1:
        raise BadDatagram(f"CoAP version {data[0] >> 6}; this is version 1")
    token_length = data[0] & 0x0F
    if token_length > 8:
        raise BadDatagram(f"token length {token_length}; at most 8")
    if data[1] == 0 and len(data) > 4:
        raise BadDatagram("an empty message with something after its header")
    if len(data) < 4 + token_length:
        raise BadDatagram("cut inside the token")
    _check_options(data, 4 + token_length)


def _check_options(data: Sequence[int], position: int) -> None:
    while position < len(data):
        byte = data[position]
        position += 1
        if byte == PAYLOAD_MARKER:
            if position == len(data):
                raise BadDatagram("a payload marker without payload")
            return
        for nibble in (byte >> 4, byte & 0x0F):
            if nibble == 15:
                raise BadDatagram("a reserved option nibble")
        length = byte & 0x0F
        position += (0, 1, 2)[max(0, (byte >> 4) - 12)]
        if length == 13:
            length = 13 + (data[position] if position < len(data) else 0)
            position += 1
        elif length == 14:
            pair = data[position : position + 2]
            length = 269 + (pair[0] << 8 | pair[1] if len(pair) == 2 else 0)
            position += 2
        position += length
        if position > len(data):
            raise BadDatagram("cut inside an option")
