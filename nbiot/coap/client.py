"""Sending a request through a modem: over its UDP socket, or by its own CoAP client."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

from nbiot.coap.blockwise import Part, Transfer
from nbiot.coap.exchange import Answered, Exchange, Timing
from nbiot.coap.message import (
    TOKEN_BYTES,
    Datagram,
    Request,
    Response,
    Stats,
    encode_request,
)
from nbiot.errors import DatagramTooLong, NbiotError, NoResponse
from nbiot.profile import (
    Limits,
    NativeRequest,
    Profile,
    Progress,
    Release,
    Report,
    silent,
)

MESSAGE_SIZE = 1152  # bytes that any server takes in a datagram (RFC 7252, 4.6)


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

    async def request(self, request: Request, *, last: bool = True) -> Response:
        """The response. Raises NoResponse, ResponseReset, DatagramTooLong and what the modem
        raises; of responses in blocks BadDatagram and CoapError.

        ``last``: no other request follows soon. It lets the modem tell the network to release the
        radio after the response, where the modem can do that.
        """


class Limited(Protocol):
    """As much of a profile as a client asks for."""

    @property
    def limits(self) -> Limits:
        """``datagram``: what fits into one."""


class DatagramSocket(Protocol):
    """As much of a UdpSocket as a client asks for; a DtlsSocket has it, too."""

    @property
    def profile(self) -> Limited:
        """Whose limits hold."""

    async def send(self, data: bytes, release: Release = ...) -> None:
        """As of UdpSocket."""

    async def receive(self, seconds: float) -> bytes:
        """As of UdpSocket."""


class UdpClient:
    """Host-built CoAP over a modem's UDP socket.

    What does not fit into one datagram goes and comes in blocks (RFC 7959). ``most_sent``: bytes of
    the longest datagram; None is the modem's limit, but 1152 at most (a server whose path is not
    known takes that, RFC 7252, 4.6). ``most_received``: ask the server for blocks that fit into
    datagrams of that many bytes, 144 at least; None leaves their size to the server.
    """

    def __init__(
        self,
        socket: DatagramSocket,
        identifiers: Identifiers,
        timing: Timing | None = None,
        report: Report = silent,
        *,
        rng: random.Random | None = None,
        most_sent: int | None = None,
        most_received: int | None = None,
    ) -> None:
        self._socket = socket
        self._identifiers = identifiers
        self._timing = timing or Timing()
        self._report = report
        self._rng = rng
        self._most_sent = most_sent or min(socket.profile.limits.datagram, MESSAGE_SIZE)
        self._most_received = most_received
        self._answered = Answered(maxlen=8)
        self._turn = asyncio.Lock()

    async def request(self, request: Request, *, last: bool = True) -> Response:
        """One exchange at a time (NSTART 1, RFC 7252, 4.7); a second one waits for its turn."""
        async with self._turn:
            transfer = Transfer(request, self._most_sent, most_received=self._most_received)
            runs: list[_Run] = []
            while transfer.next is not None:
                runs.append(self._run(transfer.next, last))
                await self._one_exchange(transfer, runs[-1], last)
        assert transfer.outcome is not None
        outcome = transfer.outcome
        return Response(outcome.code, outcome.payload, outcome.options, _stats(runs))

    def _run(self, part: Part, last: bool) -> _Run:
        mid, token = self._identifiers.next()
        datagram = encode_request(part.request, mid, token, part.options)
        exchange = Exchange(
            datagram, mid, token, self._timing, answered=self._answered, rng=self._rng
        )
        release = Release.AFTER_REPLY if last and part.final else Release.NO
        return _Run(self._socket, exchange, self._report, part, release)

    async def _one_exchange(self, transfer: Transfer, run: _Run, last: bool) -> None:
        response = await run.response()
        try:
            transfer.received(response)
        finally:
            over = last and transfer.next is None
            await run.acknowledge(Release.AFTER_THIS if over else Release.NO)


def _stats(runs: Sequence[_Run]) -> Stats:
    sent = [size for run in runs for size in run.sent]
    received = [size for run in runs for size in run.received]
    return Stats(
        up=sum(sent),
        down=sum(received),
        datagrams_up=len(sent),
        datagrams_down=len(received),
        retransmissions=sum(run.exchange.retransmissions for run in runs),
        round_trip=runs[-1].heard - runs[0].began,
        exchanges=len(runs),
    )


class _Run:
    """An exchange on a socket. ``release`` goes with what is sent before the response."""

    def __init__(
        self,
        socket: DatagramSocket,
        exchange: Exchange,
        report: Report = silent,
        part: Part | None = None,
        release: Release = Release.AFTER_REPLY,
    ) -> None:
        self.exchange = exchange
        self.sent: list[int] = []  # sizes of the datagrams
        self.received: list[int] = []
        self.began = 0.0
        self.heard = 0.0  # when the last datagram came
        self._socket = socket
        self._report = report
        self._part = part
        self._release = release
        self._ack: list[bytes] = []  # what the response is to be answered with
        self._loop = asyncio.get_running_loop()

    async def response(self) -> Datagram:
        self.began = self._loop.time()
        exchange = self.exchange
        await self._send_request()
        while exchange.response is None:
            await self._step()
        return exchange.response

    async def acknowledge(self, release: Release) -> None:
        """Once the response is there. It is worth more than its ACK, so this does not fail."""
        for ack in self._ack:
            with suppress(NbiotError):
                await self._send(ack, release)

    async def _step(self) -> None:
        """Wait for one datagram, or for the time to repeat the request."""
        exchange = self.exchange
        try:
            data = await self._socket.receive(max(0.0, exchange.deadline - self._loop.time()))
        except TimeoutError:
            pass
        else:
            await self._take(data)
        # Looked at after a datagram, too: a flood of strange ones must not stop the clock.
        if exchange.response is None and self._timed_out():
            await self._send_request()

    def _timed_out(self) -> bool:
        try:
            return bool(self.exchange.timed_out(self._loop.time()))
        except NoResponse as error:
            name = self._part.name if self._part else ""
            if not name:
                raise
            raise NoResponse(f"{error.message} ({name})", hint=error.hint) from None

    async def _take(self, data: bytes) -> None:
        exchange = self.exchange
        acknowledged = exchange.acknowledged
        self.heard = self._loop.time()
        self.received.append(len(data))
        answers = exchange.received(data, self.heard)
        if exchange.response is not None:
            self._ack = answers
            return
        for answer in answers:  # a reset of something strange: the wait goes on
            await self._send(answer, self._release)
        if exchange.acknowledged and not acknowledged:
            self._report(Progress("acknowledged", "the server has the request and works on it"))

    async def _send_request(self) -> None:
        exchange = self.exchange
        await self._send(exchange.datagram, self._release)
        exchange.sent(self._loop.time())
        self._report(self._progress())

    def _progress(self) -> Progress:
        size, part = len(self.exchange.datagram), self._part
        if self.exchange.retransmissions:
            return Progress("retransmitted", f"sent again ({size} bytes)", {"bytes": size})
        if part is None or not part.way:
            return Progress("sent", f"sent {size} bytes", {"bytes": size})
        done = f"sent ({size} bytes)" if part.way == "up" else "asked for"
        data = {"way": part.way, "block": part.block, "blocks": part.blocks, "bytes": size}
        return Progress("block", f"{part.name} {done}", data)

    async def _send(self, data: bytes, release: Release) -> None:
        self.sent.append(len(data))
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

    async def request(self, request: Request, *, last: bool = True) -> Response:
        """One exchange; how often the request is repeated is the modem's own affair, and so is the
        release of the radio. No blocks: raises DatagramTooLong for more payload than the modem's
        client takes.
        """
        most = self._profile.native_payload
        if len(request.payload) > most:
            raise DatagramTooLong(
                f"a payload of {len(request.payload)} bytes; the CoAP client of"
                f" {self._profile.title} takes {most}, and sends no blocks",
                hint="Use --coap udp.",
            )
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
