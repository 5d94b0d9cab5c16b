"""Where datagrams enter and leave; the only place which loses, doubles or spoils them.

De-duplication is done here too (RFC 7252, 4.5; "EnOS caches and de-duplicates" says the learn
page): a message ID seen within EXCHANGE_LIFETIME from the same address and port gets the same
answer again, and the server does not see it.  The time is the cloud's clock, so that a simulated
day may use up message IDs as fast as it likes.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast

import aiocoap  # type: ignore[import-untyped, unused-ignore]
from aiocoap import error, interfaces  # type: ignore[import-untyped, unused-ignore]
from aiocoap.numbers import (  # type: ignore[import-untyped, unused-ignore]
    ACK,
    CON,
    RST,
    TransportTuning,
)

from hil.cloud.behaviour import Behaviour, is_response, spoil
from hil.cloud.records import Address, Counters, Datagram, Kept

EXCHANGE_LIFETIME = 247.0  # s
_LONGEST_TOKEN = 8
_PEERS_KEPT = 1024

logger = logging.getLogger("hil.cloud")


@dataclass(frozen=True)
class Impairment:
    """A bad network between the clients and the border, in both directions.

    Of each datagram it is decided by chance, from ``seed`` and in the order in which they come: it
    is lost; or doubled; and each copy is held back for up to ``delay`` seconds, so that later ones
    overtake it (``reorder``).
    """

    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    seed: int = 0
    delay: float = 0.02
    inward: bool = True
    outward: bool = True


class _Weather:
    """An impairment at work.  Each direction has chances of its own: they do not disturb it."""

    def __init__(self, impairment: Impairment, counters: Counters) -> None:
        self._impairment = impairment
        self._counters = counters
        self._chances = {way: random.Random(f"{impairment.seed}/{way}") for way in ("in", "out")}

    def carry(self, way: Literal["in", "out"], deliver: Callable[[], None]) -> None:
        it, chance = self._impairment, self._chances[way]
        if not (it.inward if way == "in" else it.outward):
            deliver()
            return
        if chance.random() < it.loss:
            self._counters.lost += 1
            return
        copies = 1
        if chance.random() < it.duplicate:
            self._counters.doubled += 1
            copies = 2
        for _ in range(copies):
            if chance.random() < it.reorder:
                self._counters.held += 1
                asyncio.get_running_loop().call_later(chance.uniform(0, it.delay), deliver)
            else:
                deliver()


@dataclass
class _Exchange:
    """A request and its retransmissions: one peer, one message ID."""

    since: float
    token: bytes
    digest: int
    behaviour: Behaviour
    arrived: int = 0
    answered: int = 0
    is_admitted: bool = False
    reply: bytes | None = None  # the last ACK, which a duplicate gets again


@dataclass(frozen=True)
class Peer(interfaces.EndpointAddress):  # type: ignore[misc, unused-ignore]
    """A client's address in the form aiocoap wants."""

    address: Address

    scheme = "coap"
    is_multicast = False
    is_multicast_locally = False
    maximum_block_size_exp = 6
    hostinfo_local = "cloud"
    uri_base_local = "coap://cloud"

    @property
    def hostinfo(self) -> str:
        return f"{self.address[0]}:{self.address[1]}"

    @property
    def uri_base(self) -> str:
        return f"coap://{self.hostinfo}"

    @property
    def blockwise_key(self) -> Address:
        return self.address


class Border(asyncio.DatagramProtocol, interfaces.MessageInterface):  # type: ignore[misc, unused-ignore]
    """A UDP socket in front of aiocoap's message layer."""

    def __init__(
        self,
        choose: Callable[[tuple[str, ...]], Behaviour],
        clock: Callable[[], float],
        log: Kept[Datagram],
        counters: Counters,
        exchanges_kept: int,
    ) -> None:
        self._choose = choose
        self._clock = clock
        self._log = log
        self._counters = counters
        self._exchanges_kept = exchanges_kept
        self._manager: Any = None
        self._exchanges: dict[tuple[Address, int], _Exchange] = {}
        self._latest: dict[Address, Behaviour] = {}
        self._weather: _Weather | None = None
        self._transport: asyncio.DatagramTransport | None = None
        self._gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def attach(self, manager: Any) -> Border:
        """Take the message manager of an aiocoap context."""
        self._manager = manager
        return self

    def impair(self, impairment: Impairment | None) -> None:
        self._weather = _Weather(impairment, self._counters) if impairment else None

    def behaviour_of(self, message: Any) -> Behaviour:
        """The behaviour chosen when this request first arrived."""
        exchange = self._exchanges.get((message.remote.address, message.mid))
        if exchange is not None:
            return exchange.behaviour
        return self._latest.get(message.remote.address) or Behaviour()

    # from the network

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._gone.done():
            self._gone.set_result(None)

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        peer: Address = (addr[0], addr[1])
        if self._weather is None:
            self._enter(data, peer)
        else:
            self._weather.carry("in", lambda: self._enter(data, peer))

    def _enter(self, data: bytes, peer: Address) -> None:
        if self._is_closed:
            return  # held back until it was too late
        self._log.append(Datagram("in", time.monotonic(), data, peer))
        self._counters.received += 1
        message = self._decode(data, Peer(peer))
        if message is None or self._manager is None:
            return
        if message.code.is_request():
            if message.mtype in (ACK, RST):  # nonsense, to be ignored (RFC 7252, 4.2)
                self._counters.not_requests += 1
                return
            if not self._admit(message, data, peer):
                return
        else:
            self._counters.not_requests += 1
        try:
            self._manager.dispatch_message(message)
        except Exception:
            logger.exception("a datagram of %d bytes was not digested", len(data))

    def _decode(self, data: bytes, peer: Peer) -> Any:
        """The message, or None: what cannot be parsed is ignored (RFC 7252, section 4.2)."""
        try:
            if data and data[0] & 0x0F > _LONGEST_TOKEN:
                raise ValueError("the token is longer than 8 bytes")
            return aiocoap.Message.decode(data, peer)
        except (error.UnparsableMessage, ValueError, IndexError) as fault:
            self._counters.unreadable += 1
            logger.info("ignored %d bytes which are no CoAP: %s", len(data), type(fault).__name__)
            return None

    def _admit(self, message: Any, data: bytes, peer: Address) -> bool:
        """Whether this request goes on to the server."""
        exchange = self._exchange(message, data, peer)
        behaviour = exchange.behaviour
        exchange.arrived += 1
        if behaviour.silent or exchange.arrived <= behaviour.lose_requests:
            self._counters.spoiled += 1
            return False
        if behaviour.reset:
            self._counters.spoiled += 1
            self._leave(bytes([0x70, 0]) + message.mid.to_bytes(2), peer)
            return False
        if exchange.is_admitted:
            self._answer_again(exchange, message, data, peer)
            return False
        exchange.is_admitted = True
        message.transport_tuning = _SEPARATE if behaviour.separate else _PIGGYBACKED
        return True

    def _answer_again(self, exchange: _Exchange, message: Any, data: bytes, peer: Address) -> None:
        self._counters.duplicates += 1
        if exchange.digest != hash(data):
            self._counters.mid_reused += 1
        if message.mtype is CON and exchange.reply is not None:
            self._counters.answered_again += 1
            self._answer(exchange, exchange.reply, peer)

    def _exchange(self, message: Any, data: bytes, peer: Address) -> _Exchange:
        key, now = (peer, message.mid), self._clock()
        known = self._exchanges.get(key)
        is_known = known is not None and now - known.since < EXCHANGE_LIFETIME
        # another request may take the ID of one that the server never saw
        if known and is_known and (known.is_admitted or known.token == message.token):
            return known
        self._forget(now)
        exchange = _Exchange(now, message.token, hash(data), self._behaviour(message, peer))
        self._exchanges.pop(key, None)  # to the end, where the young ones are
        self._exchanges[key] = exchange
        return exchange

    def _forget(self, now: float) -> None:
        """Make room for one exchange.  They lie in the order of time."""
        while self._exchanges:
            oldest = next(iter(self._exchanges))
            is_old = now - self._exchanges[oldest].since >= EXCHANGE_LIFETIME
            if not is_old and len(self._exchanges) < self._exchanges_kept:
                return
            del self._exchanges[oldest]

    def _behaviour(self, message: Any, peer: Address) -> Behaviour:
        """A new one for each request, but that of the first block for the later ones."""
        known = self._latest.pop(peer, None)
        if known is None or not _is_later_block(message):
            known = self._choose(message.opt.uri_path)
        self._latest[peer] = known
        if len(self._latest) > _PEERS_KEPT:
            del self._latest[next(iter(self._latest))]
        return known

    # from the server; names and signatures are those of aiocoap's MessageInterface

    def send(self, message: Any) -> None:
        data, peer = message.encode(), message.remote.address
        mid = message.request.mid if message.request is not None else message.mid
        exchange = self._exchanges.get((peer, mid))
        if exchange is None:
            self._leave(data, peer)
            return
        if message.mtype is ACK:
            exchange.reply = data
        self._answer(exchange, data, peer)

    def _answer(self, exchange: _Exchange, data: bytes, peer: Address) -> None:
        exchange.answered += 1
        if exchange.answered <= exchange.behaviour.lose_answers:
            self._counters.spoiled += 1
            return
        copies = 2 if exchange.behaviour.duplicate and is_response(data) else 1
        for _ in range(copies):
            self._leave(spoil(data, exchange.behaviour), peer)

    def _leave(self, data: bytes, peer: Address) -> None:
        if self._weather is None:
            self._put(data, peer)
        else:
            self._weather.carry("out", lambda: self._put(data, peer))

    def _put(self, data: bytes, peer: Address) -> None:
        if self._is_closed or self._transport is None:
            return
        self._log.append(Datagram("out", time.monotonic(), data, peer))
        self._counters.sent += 1
        if data:
            self._transport.sendto(data, peer)
        else:
            _send_nothing(self._transport, peer)

    @property
    def _is_closed(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    async def shutdown(self) -> None:
        self.close()
        await self._gone

    async def recognize_remote(self, remote: Any) -> bool:
        return isinstance(remote, Peer)

    async def determine_remote(self, message: Any) -> None:
        """A server asks for nothing, so there is nobody to be found."""


def tuning(**constants: float) -> type[Any]:
    return type("Tuning", (TransportTuning,), constants)


# aiocoap's own memory of message IDs is switched off: it goes by another clock
_PIGGYBACKED = tuning(EXCHANGE_LIFETIME=0.0)()
_SEPARATE = tuning(EXCHANGE_LIFETIME=0.0, EMPTY_ACK_DELAY=0.0)()


def _send_nothing(transport: asyncio.DatagramTransport, peer: Address) -> None:
    """An empty datagram; before Python 3.13 asyncio keeps those back."""
    ours = transport.get_extra_info("socket")
    with socket.socket(ours.family, ours.type, fileno=os.dup(ours.fileno())) as same:
        same.sendto(b"", peer)


def _is_later_block(message: Any) -> bool:
    blocks = (message.opt.block1, message.opt.block2)
    return any(block is not None and block.block_number > 0 for block in blocks)
