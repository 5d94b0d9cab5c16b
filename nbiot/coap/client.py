"""Sending a request through a modem: over its UDP socket, or by its own CoAP client."""

from __future__ import annotations

import asyncio
import random
import secrets
from contextlib import suppress
from typing import Protocol

from nbiot.coap.exchange import Answered, Exchange, Timing
from nbiot.coap.message import Datagram, Request, Response, Stats, code_text, encode_request
from nbiot.errors import NbiotError, NoResponse
from nbiot.profile import (
    NativeRequest,
    Profile,
    Progress,
    Release,
    Report,
    UdpSocket,
    silent,
)

# Each byte saved is two on a BC95's serial line. An off-path sender must guess 32 bits (token and
# message id) for a piggybacked response, as RFC 7252, 5.3.1 asks for without DTLS, but only the
# token's 16 for a separate one: what protects there is the port, hidden behind the operator's NAT.
TOKEN_BYTES = 2


class Identifiers:
    """Message ids and tokens. EnOS remembers both, so each request gets new ones.

    They count up from random beginnings: none returns before 65,536 requests.
    """

    def __init__(self) -> None:
        self._mid = secrets.randbits(16)
        self._token = secrets.randbits(8 * TOKEN_BYTES)

    def next(self) -> tuple[int, bytes]:
        """A message id and a token."""
        self._mid = (self._mid + 1) % 2**16
        self._token = (self._token + 1) % 2 ** (8 * TOKEN_BYTES)
        return self._mid, self._token.to_bytes(TOKEN_BYTES, "big")


PROCESS_IDENTIFIERS = Identifiers()
"""The identifiers of this process, used where no others are given."""


class Client(Protocol):
    """Something that carries a CoAP request to one server."""

    async def request(self, request: Request) -> Response:
        """The response. Raises NoResponse, ResponseReset and what the modem raises."""


class UdpClient:
    """Host-built CoAP over a modem's UDP socket."""

    def __init__(
        self,
        socket: UdpSocket,
        identifiers: Identifiers,
        timing: Timing | None = None,
        report: Report = silent,
        *,
        rng: random.Random | None = None,
    ) -> None:
        self._socket = socket
        self._identifiers = identifiers
        self._timing = timing or Timing()
        self._report = report
        self._rng = rng
        self._answered = Answered(maxlen=8)
        self._turn = asyncio.Lock()

    async def request(self, request: Request) -> Response:
        """One exchange at a time (NSTART 1, RFC 7252, 4.7); a second one waits for its turn."""
        async with self._turn:
            mid, token = self._identifiers.next()
            datagram = encode_request(request, mid, token)
            exchange = Exchange(
                datagram, mid, token, self._timing, answered=self._answered, rng=self._rng
            )
            return await _Run(self._socket, exchange, self._report).finish()


class _Run:
    """An exchange on a socket."""

    def __init__(self, socket: UdpSocket, exchange: Exchange, report: Report) -> None:
        self._socket = socket
        self._exchange = exchange
        self._report = report
        self._loop = asyncio.get_running_loop()
        self._sent: list[int] = []
        self._received: list[int] = []
        self._heard = 0.0  # when the last datagram came

    async def finish(self) -> Response:
        begin = self._loop.time()
        exchange = self._exchange
        await self._send_request("sent")
        while exchange.response is None:
            await self._step()
        return self._response(exchange.response, self._heard - begin)

    def _response(self, message: Datagram, round_trip: float) -> Response:
        return Response(
            code_text(message.code),
            message.payload,
            message.options,
            Stats(
                up=sum(self._sent),
                down=sum(self._received),
                datagrams_up=len(self._sent),
                datagrams_down=len(self._received),
                retransmissions=self._exchange.retransmissions,
                round_trip=round_trip,
            ),
        )

    async def _step(self) -> None:
        """Wait for one datagram, or for the time to repeat the request."""
        exchange = self._exchange
        try:
            data = await self._socket.receive(max(0.0, exchange.deadline - self._loop.time()))
        except TimeoutError:
            pass
        else:
            await self._take(data)
        # Looked at after a datagram, too: a flood of strange ones must not stop the clock.
        if exchange.response is None and exchange.timed_out(self._loop.time()):
            await self._send_request("retransmitted")

    async def _take(self, data: bytes) -> None:
        exchange = self._exchange
        acknowledged = exchange.acknowledged
        self._heard = self._loop.time()
        self._received.append(len(data))
        for answer in exchange.received(data, self._heard):
            if exchange.response is None:  # a reset of something strange: the wait goes on
                await self._send(answer, Release.AFTER_REPLY)
                continue
            with suppress(NbiotError):  # the response in hand is worth more than its ACK
                await self._send(answer, Release.AFTER_THIS)
        if exchange.acknowledged and not acknowledged:
            self._report(Progress("acknowledged", "the server has the request and works on it"))

    async def _send_request(self, step: str) -> None:
        exchange = self._exchange
        size = len(exchange.datagram)
        await self._send(exchange.datagram, Release.AFTER_REPLY)
        exchange.sent(self._loop.time())
        words = f"sent {size} bytes" if step == "sent" else f"sent again ({size} bytes)"
        self._report(Progress(step, words, {"bytes": size}))

    async def _send(self, data: bytes, release: Release) -> None:
        self._sent.append(len(data))
        await self._socket.send(data, release)


class NativeClient:
    """The modem's own CoAP client. See the profile's notes for what it cannot do."""

    def __init__(
        self,
        profile: Profile,
        address: str,
        port: int,
        identifiers: Identifiers,
        timing: Timing | None = None,
        report: Report = silent,
    ) -> None:
        self._profile = profile
        self._address = address
        self._port = port
        self._identifiers = identifiers
        self._timing = timing or Timing()
        self._report = report

    async def request(self, request: Request) -> Response:
        """One exchange; how often the request is repeated is the modem's own affair."""
        mid, token = self._identifiers.next()
        native = NativeRequest(
            self._address,
            self._port,
            int(request.method),
            request.path,
            request.payload,
            mid,
            token,
            local_port=49152 + mid % 16384,  # the dynamic ports, another one each time
            content_format=request.content_format,
        )
        loop = asyncio.get_running_loop()
        begin = loop.time()
        self._report(Progress("sent", "handed to the modem's CoAP client"))
        try:
            answer = await self._profile.native_coap(native, self._timing.response_timeout)
        except TimeoutError:
            raise NoResponse(
                f"no answer within {self._timing.response_timeout:g} s",
                hint="Check the server's name and port, and whether this SIM's APN reaches it.",
            ) from None
        stats = Stats(
            up=len(encode_request(request, mid, token)),
            down=None,
            datagrams_up=1,
            datagrams_down=1,
            retransmissions=0,
            round_trip=loop.time() - begin,
        )
        return Response(answer.code, answer.payload, (), stats)
