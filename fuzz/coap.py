"""The decoder of CoAP messages and the exchange of one request.

``|<DATAGRAM|t|s`` - ``<`` a datagram comes, ``-`` it comes twice, ``t`` the deadline has passed,
``s`` the modem has taken the request. Our request has message id 0x4D49 ("MI") and token
"TokenABC". A ``|`` inside a datagram is written ``~``.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from nbiot.coap.exchange import Answered, Exchange, Timing
from nbiot.coap.message import Datagram, Method, Request, code_text, decode, encode_request
from nbiot.errors import BadDatagram, NoResponse, ResponseReset

from .script import fields, swift

MID, TOKEN = 0x4D49, b"TokenABC"
REQUEST = encode_request(Request(Method.POST, ("auth", "pk", "dk"), b"{}"), MID, TOKEN)
ACK, RST = 2, 3
TOKENS = (
    *(b"|t", b"|s", b"|<", b"|-", TOKEN, b"MI" + TOKEN, b"\xff{}", b"\xff"),
    *(b"\x68\x44MI" + TOKEN, b"\x48\x44\x01\x02" + TOKEN, b"\x58\x44\x01\x02" + TOKEN),
    *(b"\x60\x00MI", b"\x70\x00MI", b"\x40\x00\x01\x02", b"\x68\x84MI" + TOKEN),
    *(b"\xc2\x00\x32", b"\xe1\x07\x27", b"\xe2\x07\x29", b"\xd1\x0a\x06", b"\xd2\x0e\x08\x42"),
)


@dataclass
class Plain:
    """A message as this file reads it."""

    kind: int
    code: int
    mid: int
    token: bytes
    options: list[tuple[int, bytes]]
    payload: bytes


def plainly(data: bytes) -> Plain | None:
    """RFC 7252, section 3, read by the letter; None: a message format error."""
    if len(data) < 4 or data[0] >> 6 != 1 or data[0] & 15 > 8:
        return None
    if data[1] == 0 and (len(data) > 4 or data[0] & 15):
        return None
    at = 4 + (data[0] & 15)
    if len(data) < at:
        return None
    found = Plain(data[0] >> 4 & 3, data[1], data[2] << 8 | data[3], data[4:at], [], b"")
    last = 0
    while at < len(data):
        if data[at] == 0xFF:
            found.payload = data[at + 1 :]
            return found if found.payload else None
        sizes = []
        nibbles, at = divmod(data[at], 16), at + 1
        for nibble in nibbles:
            more = {13: 1, 14: 2}.get(nibble, 0)
            if nibble == 15 or at + more > len(data):
                return None
            extension = int.from_bytes(data[at : at + more], "big")
            sizes.append(extension + {13: 13, 14: 269}.get(nibble, nibble))
            at += more
        delta, length = sizes
        if at + length > len(data):
            return None
        last += delta
        found.options.append((last, data[at : at + length]))
        at += length
    return found


def check_decoder(data: bytes) -> Datagram | None:
    """``decode`` raises BadDatagram or tells what stands there."""
    plain = plainly(data)
    try:
        message = decode(data)
    except BadDatagram as error:
        str(error)
        return None
    assert plain is not None, "a malformed message was taken"
    assert (message.type, message.code, message.mid) == (plain.kind, plain.code, plain.mid)
    assert (message.token, message.payload) == (plain.token, plain.payload)
    assert sorted(n for n, _ in message.options) == [n for n, _ in plain.options]
    for number, value in plain.options:
        if number > 2000:  # EnOS's; a codec may write known ones in another way
            assert (number, value) in message.options
    assert message.is_empty == (plain.code == 0)
    assert message.is_response == (plain.code >> 5 in (2, 4, 5))
    code_text(message.code)
    return message


def one(data: bytes) -> None:
    """See the top of this file."""
    _, todo = fields(data)
    exchange = Exchange(
        REQUEST, MID, TOKEN, Timing(), answered=Answered(maxlen=8), rng=random.Random(0)
    )
    now = 0.0
    with swift(len(data)):
        for letter, argument in todo:
            now += 1.0
            if letter == b"s":
                exchange.sent(now)
            elif letter == b"t":
                now = max(now, exchange.deadline) if exchange.deadline < 1e9 else now
                try:
                    again = exchange.timed_out(now)
                except NoResponse as error:
                    str(error)
                    return
                assert again in ([], [REQUEST])
            else:
                datagram = argument.replace(b"~", b"|")
                for _ in range(2 if letter == b"-" else 1):
                    if not _hears(exchange, datagram, now):
                        return


def _hears(exchange: Exchange, datagram: bytes, now: float) -> bool:
    """Give ``datagram`` to the exchange and look at what it does. False: the exchange is over."""
    message = check_decoder(datagram)
    before = exchange.response
    try:
        replies = exchange.received(datagram, now)
    except ResponseReset:
        assert message is not None
        assert (message.type, message.mid, message.code) == (RST, MID, 0)
        return False
    kind = datagram[0] >> 4 if datagram else 0
    for reply in replies:
        assert kind == 0b0100, "a reply to what is not confirmable"
        assert reply in (b"\x60\x00" + datagram[2:4], b"\x70\x00" + datagram[2:4])
    assert len(replies) <= 1
    found = exchange.response
    if before is not None:
        assert found is before, "the response changed"
    elif found is not None:
        assert found == message
        assert found.token == TOKEN
        assert found.code >> 5 in (2, 4, 5)
        assert found.type != ACK or found.mid == MID
        assert found.type != RST
        assert not found.not_understood
    return True
