"""The CoAP client inside the BC66 family: one context for the whole modem.

Rules: Quectel command syntax as used by drivers, and where no capture exists the behaviour of
the Xinyi firmware that speaks the same commands (facts 1.4). All of it is from_manual.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from . import coap
from .clock import Handle
from .engine import AtError, BadParameter, Call, parse_hex, split_outside_quotes
from .network import Address, Endpoint, is_ipv4

if TYPE_CHECKING:
    from .mt2625 import Mt2625

BAD, NO_CONTEXT, NO_NETWORK = 50, 3, 30
MAX_PAYLOAD = 1000
ACK_TIMEOUT = 2.0
"""First retransmission after this many seconds (times 1..1.5), doubling (RFC 7252, 4.8)."""
MAX_RETRANSMIT = 4
NONE, WAITING, FAILED, TIMEOUT, SUCCESS, RESET = range(6)
"""Values of QCOAPDATASTATUS."""


@dataclass
class Head:
    """What QCOAPHEAD chose; stays for later sends (own choice)."""

    mid: int = 0
    """0: random."""
    token: bytes | None = None
    """None: the modem's own, the previous message id in lower-case hex."""


@dataclass
class Context:
    """What QCOAPCREATE makes."""

    port: int
    head: Head = field(default_factory=Head)
    options: list[tuple[int, bytes]] = field(default_factory=list)
    endpoint: Endpoint | None = None
    peer: Address | None = None
    status: int = NONE
    last_mid: int = 0
    pending: dict[int, Handle] = field(default_factory=dict)
    """Retransmission timers of confirmable messages by message id."""
    resources: list[str] = field(default_factory=list)


class CoapClient:
    """State and rules behind the QCOAP commands."""

    def __init__(self, modem: Mt2625) -> None:
        self._modem = modem
        self._random = random.Random(modem.options.imei)
        self.context: Context | None = None
        self.show_address = False
        self.show_options = False

    def need(self) -> Context:
        """The context, or CME 3."""
        if self.context is None:
            raise AtError(NO_CONTEXT)
        return self.context

    def create(self, port: int) -> None:
        if self.context is not None:
            raise AtError(BAD)
        self.context = Context(port)

    def delete(self) -> None:
        self._close(self.need())
        self.context = None

    def close(self) -> None:
        """Forget everything without a word (reboot)."""
        if self.context is not None:
            self._close(self.context)
        self.context = None
        self.show_address = self.show_options = False

    def _close(self, context: Context) -> None:
        for timer in context.pending.values():
            timer.cancel()
        context.pending.clear()
        if context.endpoint is not None:
            context.endpoint.close()
        context.endpoint = context.peer = None

    # ----------------------------------------------------- head and options

    def set_head(self, call: Call) -> None:
        """1 | 2,tkl,token | 3,mid | 4,mid | 5,mid,tkl,token."""
        context = self.need()
        mode = call.number(0, 1, 5)
        call.count(*{1: (1, 1), 2: (3, 3), 3: (2, 2), 4: (2, 2), 5: (4, 4)}[mode])
        head = Head()
        if mode >= 3:
            head.mid = call.number(1, 0, 65535)
        if mode == 3:
            head.token = b""
        if mode in (2, 5):
            head.token = self._token(call, len(call) - 2)
        context.head = head

    def _token(self, call: Call, index: int) -> bytes:
        length = call.number(index, 1, 8)
        token = parse_hex(call.word(index + 1))
        if len(token) != length:
            raise BadParameter
        return token

    def set_options(self, call: Call) -> None:
        """`n,option,value[,...]`: the whole list, replacing the one before."""
        context = self.need()
        count = call.number(0, 1, 10)
        if call.text.count(",") != 2 * count:
            raise BadParameter  # so a comma inside a value breaks it
        fields = [part.strip(" ") for part in split_outside_quotes(call.text, ",")]
        if len(fields) != 2 * count + 1:
            raise BadParameter
        options: list[tuple[int, bytes]] = []
        for number, value in zip(fields[1::2], fields[2::2], strict=True):
            if not number.isdigit():
                raise BadParameter
            options += option_bytes(int(number), value.strip('"'))
        context.options = options

    # ----------------------------------------------------------------- send

    def send(self, kind: int, code: int, address: Address, payload: bytes) -> None:
        """Build the message and hand it to the radio."""
        context = self.need()
        if not self._modem.radio.attached:
            raise AtError(NO_NETWORK)
        self._connect(context, address)
        message = self._message(context, kind, code, payload)
        data = coap.encode(message)
        if not self._transmit(context, data):
            raise AtError(NO_CONTEXT)
        context.status = SUCCESS
        if kind == coap.CON:
            context.status = WAITING
            wait = ACK_TIMEOUT * self._random.uniform(1.0, 1.5)
            self._arm(context, message.mid, data, wait, MAX_RETRANSMIT)

    def _connect(self, context: Context, address: Address) -> None:
        """The first send opens the socket. Another IP closes the session and clears the
        options; another port of the same IP is ignored."""
        if context.peer is not None and context.peer[0] != address[0]:
            self._close(context)
            context.options = []
        if context.peer is None:
            context.peer = address
            context.endpoint = self._modem.network.open(self._heard)

    def _message(self, context: Context, kind: int, code: int, payload: bytes) -> coap.Message:
        head = context.head
        mid = head.mid or self._random.randint(1, 65535)
        token = head.token
        if token is None:
            token = f"{context.last_mid:x}".encode() if context.last_mid else b"0"
        context.last_mid = mid
        return coap.Message(kind, code, mid, token, context.options, payload)

    def _transmit(self, context: Context, data: bytes) -> bool:
        endpoint, peer, radio = context.endpoint, context.peer, self._modem.radio
        if endpoint is None or peer is None:
            return False

        def transmit() -> None:
            if context.endpoint is endpoint:
                self._modem.uplink(data, peer, lambda: endpoint.send(data, peer))

        return radio.send(transmit, lambda sent: None)

    def _arm(self, context: Context, mid: int, data: bytes, wait: float, left: int) -> None:
        def expired() -> None:
            context.pending.pop(mid, None)
            if not left:
                context.status = TIMEOUT
                return
            self._transmit(context, data)
            self._arm(context, mid, data, wait * 2, left - 1)

        context.pending[mid] = self._modem.after(wait, expired)

    # -------------------------------------------------------------- receive

    def _heard(self, data: bytes, peer: Address) -> None:
        self._modem.downlink(data, peer, lambda: self._arrived(data, peer))

    def _arrived(self, data: bytes, peer: Address) -> None:
        context = self.context
        if context is None or context.endpoint is None:
            return
        try:
            message = coap.decode(data)
        except ValueError:
            return
        self._modem.record("received", peer, data)
        if message.type in (coap.ACK, coap.RST):
            self._acknowledged(context, message)
        if message.type == coap.CON:
            reply = coap.Message(coap.ACK if message.code else coap.RST, 0, message.mid)
            if not 1 <= message.code < 32:
                self._transmit(context, coap.encode(reply))
        if message.code >= 64:
            self._modem.urc(self._describe("rsp", message, peer))
        elif 1 <= message.code < 32:
            self._requested(context, message, peer)

    def _acknowledged(self, context: Context, message: coap.Message) -> None:
        timer = context.pending.pop(message.mid, None)
        if timer is None:
            return
        timer.cancel()
        context.status = RESET if message.type == coap.RST else SUCCESS

    def _requested(self, context: Context, message: coap.Message, peer: Address) -> None:
        path = "/".join(v.decode("latin-1") for n, v in message.options if n == coap.URI_PATH)
        if path in (resource.strip("/") for resource in context.resources):
            self._modem.urc(self._describe("req", message, peer))
            return
        kind = coap.ACK if message.type == coap.CON else coap.NON
        reply = coap.Message(kind, coap.code_of(404), message.mid, message.token)
        self._transmit(context, coap.encode(reply))

    def _describe(self, kind: str, message: coap.Message, peer: Address) -> bytes:
        parts = [f'+QCOAPURC: "{kind}"']
        if self.show_address:
            parts += [peer[0], str(peer[1])]
        if kind == "rsp":
            parts += [str(message.type), message.dotted, str(message.mid)]
        else:
            parts += [str(message.type), str(message.code), str(message.mid), "00"]
            if message.token:
                parts += [str(len(message.token)), message.token.hex().upper()]
        if self.show_options:
            shown = [part for option in message.options for part in _show_option(*option)]
            parts += [str(len(shown) // 2), *shown] if shown else []
        if message.payload:
            parts += [str(len(message.payload)), message.payload.hex().upper()]
        return ",".join(parts).encode("latin-1")


def parse_send(call: Call) -> tuple[int, int, Address]:
    """Type, code byte and peer of QCOAPSEND."""
    kind, number = call.number(0, 0, 3), call.number(1, 1, 599)
    address = call.word(2)
    if not is_ipv4(address) or 4 < number < 200:
        raise BadParameter
    return kind, coap.code_of(number), (address, call.number(3, 1, 65535))


def _texts(separator: str) -> Callable[[int, str], list[tuple[int, bytes]]]:
    def split(number: int, value: str) -> list[tuple[int, bytes]]:
        parts = [part for part in value.split(separator) if part]
        if any(len(part) > 255 for part in parts):
            raise BadParameter
        return [(number, part.encode("latin-1")) for part in parts]

    return split


def _text(number: int, value: str) -> list[tuple[int, bytes]]:
    if len(value) > 1034:
        raise BadParameter
    return [(number, value.encode("latin-1"))]


def _uint(number: int, value: str) -> list[tuple[int, bytes]]:
    if not value.isdigit() or (number == coap.OBSERVE and int(value) > 1):
        raise BadParameter
    return [(number, coap.uint(int(value)))]


def _format(number: int, value: str) -> list[tuple[int, bytes]]:
    known = coap.FORMATS.get(value.lower())
    return _uint(number, value) if known is None else [(number, coap.uint(known))]


def _block(number: int, value: str) -> list[tuple[int, bytes]]:
    if not value.isdigit():
        raise BadParameter
    return [(number, coap.uint(int(value) << 4 | 5))]  # 512-byte blocks


_ENCODERS: dict[int, Callable[[int, str], list[tuple[int, bytes]]]] = {
    coap.URI_HOST: _text,
    coap.OBSERVE: _uint,
    coap.URI_PORT: _uint,
    coap.URI_PATH: _texts("/"),
    coap.CONTENT_FORMAT: _format,
    coap.URI_QUERY: _texts("&"),
    coap.BLOCK1: _block,
    coap.PROXY_URI: _text,
    coap.SIZE1: _uint,
}


def option_bytes(number: int, value: str) -> list[tuple[int, bytes]]:
    """Options a pair of QCOAPOPTION puts in the message: none for unknown numbers."""
    encoder = _ENCODERS.get(number)
    return encoder(number, value) if encoder is not None else []


def _show_option(number: int, value: bytes) -> list[str]:
    if number in (coap.URI_HOST, coap.URI_PATH, coap.URI_QUERY, coap.PROXY_URI):
        return [str(number), f'"{value.decode("latin-1")}"']
    if number in (coap.BLOCK1, coap.BLOCK2):
        block = int.from_bytes(value, "big")
        more = "M" if block & 8 else "_"
        return [str(number), f'"{block >> 4}/{more}/{16 << (block & 7)}"']
    if number in (coap.OBSERVE, coap.URI_PORT, coap.CONTENT_FORMAT, coap.SIZE1):
        return [str(number), f'"{int.from_bytes(value, "big")}"']
    return []
