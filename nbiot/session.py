"""A device that stays authenticated: one socket, one cloud, for minutes or for months.

The session authenticates on entry and again when it must: when the server says so, when the
lifetime has run out, and when the source address may have changed, because servers know a device by
its address, with DTLS and without. It never sends more authentications than the limit allows.

A cloud may authenticate by a request, or by the DTLS handshake (see ``Handshaking``). A handshake
always has a new socket: a new port is a new association, whatever the server kept of the old one.

What is repeated, and what is not: authentications and requests marked ``repeat`` go out again after
the modem was recovered. Others end in an error that says so, because the server may have them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Protocol, Self, TypeVar, runtime_checkable

from nbiot.cloud import Cloud, Downlink
from nbiot.coap.client import PROCESS_IDENTIFIERS, Identifiers, UdpClient
from nbiot.coap.dtls import DtlsError
from nbiot.coap.dtls_socket import DtlsSocket, Traffic
from nbiot.coap.message import Response, Stats
from nbiot.errors import (
    BadInput,
    ModemError,
    NbiotError,
    NoResponse,
    NotRegistered,
    PortError,
    RateLimited,
    SocketError,
)
from nbiot.modem import Modem
from nbiot.profile import Progress, Report, UdpSocket, registration, silent

if TYPE_CHECKING:
    from nbiot.at import UrcReceived
    from nbiot.channel import Counters
    from nbiot.coap.exchange import Timing
    from nbiot.coap.message import Request

T = TypeVar("T")

KEEP_ALIVE_AT = 0.75  # of the lifetime: leaves time for a modem that must be recovered first
RETRY = 5.0  # s until a keep-alive that failed is tried again; doubles up to the lifetime
BROKEN = (PortError, ModemError, SocketError, NotRegistered)  # after these the socket is gone
NAT_TIMEOUT = 120.0  # s of silence that a NAT bears at least (RFC 4787, REQ-5)
DEAD = (DtlsError, NoResponse)  # after these a DTLS association is gone, or may be


class SessionState(Enum):
    """Where the device stands with the cloud."""

    OFFLINE = "offline"
    AUTHENTICATING = "authenticating"
    WAITING = "waiting"  # because the limit of authentications is reached
    ONLINE = "online"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class StateChange:
    """``state`` has begun, and why."""

    state: SessionState
    reason: str


@dataclass(frozen=True, slots=True)
class Cost:
    """What a request took, an authentication before it included.

    up, down:       bytes of UDP payload on air each way; IP and UDP add 28 to each datagram. With
                    DTLS its records, the handshake's too
    round_trips:    CoAP exchanges; a block is one, a handshake none
    at_round_trips, serial_bytes: commands and bytes on the serial line, both ways
    connected:      seconds from the first command until the response was here. The network keeps
                    the radio for some 10 to 20 s more, unless ``released``
    released:       the last datagram carried the release-assistance flag
    """

    up: int
    down: int
    datagrams_up: int
    datagrams_down: int
    round_trips: int
    retransmissions: int
    at_round_trips: int
    serial_bytes: int
    connected: float
    released: bool


@dataclass(frozen=True, slots=True)
class Exchanged:
    """A response and what it took. Of a handshake, the response is empty and has no code."""

    response: Response
    cost: Cost


class Limit(Protocol):
    """Counts authentications; see nbiot/enos/limits.py."""

    def take(self, device: tuple[str, str, str]) -> None:
        """Count one. Raises RateLimited. May block for a moment."""


class Carrier(Protocol):
    """Lends a modem that is attached: a Supervisor does."""

    recoveries: int

    async def call(self, operation: Callable[[Modem], Awaitable[T]], *, repeat: bool = False) -> T:
        """Run ``operation`` with a modem."""


@runtime_checkable
class Handshaking(Protocol):
    """A Cloud with this method is authenticated to by it; ``auth_request`` is not used then.

    ``keep_alive`` should then name a message, since a handshake is dear.
    """

    async def handshake(
        self, socket: UdpSocket, timing: Timing | None, report: Report
    ) -> DtlsSocket:
        """``socket``, secured. Raises the cloud's refusal, NoResponse, DtlsError and what the modem
        raises; the session closes ``socket`` then.
        """
        ...


def carrier_of(carrier: Modem | Carrier) -> Carrier:
    """``carrier``, or one for a modem alone, which recovers nothing."""
    return _Bare(carrier) if isinstance(carrier, Modem) else carrier


class _Bare:
    """A modem without a supervisor: nothing is recovered."""

    recoveries = 0

    def __init__(self, modem: Modem) -> None:
        self._modem = modem

    async def call(self, operation: Callable[[Modem], Awaitable[T]], *, repeat: bool = False) -> T:
        await self._modem.profile.wake()
        return await operation(self._modem)


@dataclass(slots=True)
class _Line:
    """The socket in use, the modem it is in, and how often that one had been recovered."""

    modem: Modem
    recoveries: int
    socket: UdpSocket | DtlsSocket
    client: UdpClient
    stop_listening: Callable[[], None]

    @property
    def traffic(self) -> Traffic | None:
        """What DTLS has sent and received so far; None without DTLS."""
        return self.socket.traffic if isinstance(self.socket, DtlsSocket) else None


def _on_air(stats: Stats, line: _Line, before: Traffic | None) -> Stats:
    """``stats`` of an exchange; with DTLS, as it was on air since ``before``."""
    if before is None or line.traffic is None:
        return stats
    used = line.traffic - before
    return replace(
        stats,
        up=used.up,
        down=used.down,
        datagrams_up=used.datagrams_up,
        datagrams_down=used.datagrams_down,
    )


class _Meter:
    """Adds up what a request takes."""

    def __init__(self, modem: Modem, now: float) -> None:
        self._modem = modem
        self._before: Counters = modem.counters
        self._began = now
        self.stats: list[Stats] = []
        self.released = False

    def cost(self, now: float) -> Cost:
        stats = self.stats
        used = self._modem.counters.since(self._before)
        return Cost(
            up=sum(s.up or 0 for s in stats),
            down=sum(s.down or 0 for s in stats),
            datagrams_up=sum(s.datagrams_up for s in stats),
            datagrams_down=sum(s.datagrams_down for s in stats),
            round_trips=sum(s.exchanges for s in stats),
            retransmissions=sum(s.retransmissions for s in stats),
            at_round_trips=used.commands,
            serial_bytes=used.sent + used.received,
            connected=round(now - self._began, 4),
            released=self.released,
        )


class Session:
    """Use it with ``async with``: entering authenticates; leaving gives the socket back.

    carrier:     a Supervisor, or a Modem that is attached (then nothing is recovered)
    cloud:       whom to talk to, and how
    keep_online: send the cheapest message when the caller is silent for three quarters of the
                 lifetime. Leave it off for a device that sleeps
    limit:       counts authentications; None: no limit
    nat_timeout: with DTLS, a handshake comes first after so many seconds of silence: once the
                 network's NAT has forgotten the device, the server cannot tell it so, other than by
                 not answering. math.inf where there is no NAT (a private APN)
    on_state:    called with each StateChange
    on_downlink: called with each command that came along with a response

    Entering raises what the cloud's refusal is, RateLimited never (it waits), NoResponse,
    NameNotResolved, and what the modem raises.
    """

    def __init__(
        self,
        carrier: Modem | Carrier,
        cloud: Cloud,
        *,
        keep_online: bool = False,
        timing: Timing | None = None,
        limit: Limit | None = None,
        nat_timeout: float = NAT_TIMEOUT,
        identifiers: Identifiers | None = None,
        resolve_by: str = "auto",
        on_state: Callable[[StateChange], None] | None = None,
        on_downlink: Callable[[Downlink], None] | None = None,
        report: Report = silent,
    ) -> None:
        self.cloud = cloud
        self.state = SessionState.OFFLINE
        self.authentications = 0
        self.to_come = 0  # requests that others are about to make: the radio is not released yet
        self._carrier = carrier_of(carrier)
        self._handshake = cloud.handshake if isinstance(cloud, Handshaking) else None
        self._keep_online = keep_online
        self._timing = timing
        self._limit = limit
        self._nat_timeout = nat_timeout
        self._identifiers = identifiers or PROCESS_IDENTIFIERS
        self._resolve_by = resolve_by
        self._on_state = on_state or (lambda _: None)
        self._on_downlink = on_downlink or (lambda _: None)
        self._report = report
        self._turn = asyncio.Lock()
        self._queued = 0
        self._line: _Line | None = None
        self._alive_until = 0.0  # loop time at which the lifetime runs out
        self._online = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        try:
            await self.authenticate()
        except BaseException:
            await self.close()
            raise
        self._keeper = asyncio.create_task(self._keep(), name=f"session of {self.cloud.identity}")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Give the modem's socket back. Without DTLS the server is not told: the lifetime runs out
        there.
        """
        if self._keeper is not None:
            self._keeper.cancel()
            with suppress(asyncio.CancelledError):
                await self._keeper
        self._enter(SessionState.CLOSED, "closed")
        async with self._turn:
            await self._hang_up()

    # --- requests ---------------------------------------------------------------------------

    async def request(self, request: Request, *, repeat: bool = False) -> Exchanged:
        """Send ``request`` as an authenticated device. Any response is returned, refusals too.

        ``repeat``: after the modem was recovered, or a DTLS association was found dead, send it
        again; say so only where the server may get it twice. Raises NoResponse, ResponseReset,
        DtlsError, the cloud's refusal of an authentication that became necessary, and what the
        modem raises.
        """
        return await self._in_turn(partial(self._conversation, request, repeat), repeat)

    async def authenticate(self) -> Exchanged:
        """Authenticate now, whether that is necessary or not."""
        return await self._in_turn(self._authentication, repeat=True)

    async def _in_turn(
        self, conversation: Callable[[Modem], Awaitable[Exchanged]], repeat: bool
    ) -> Exchanged:
        self._queued += 1
        try:
            async with self._turn:
                if self.state is SessionState.CLOSED:
                    raise BadInput("session", "closed", "a session that is open")
                self._doubt()
                return await self._carrier.call(conversation, repeat=repeat)
        finally:
            self._queued -= 1

    async def _conversation(self, request: Request, repeat: bool, modem: Modem) -> Exchanged:
        meter = _Meter(modem, _now())
        try:
            line = await self._line_on(modem)
            fresh = not self.is_online
            if fresh:
                line, _ = await self._authenticate(line, meter)
            response = await self._send_unless_dead(line, request, meter, repeat and not fresh)
            if response is None:
                line = await self._line_on(modem)
            elif self.cloud.needs_auth(response) and not fresh:
                self._lost(f"the server does not know us ({response.code})")
                response = None
            if response is None:
                line, _ = await self._authenticate(line, meter)
                response = await self._send(line, request, meter)
        except BROKEN as error:
            await self._hang_up(error.message)
            raise
        return Exchanged(response, meter.cost(_now()))

    async def _authentication(self, modem: Modem) -> Exchanged:
        meter = _Meter(modem, _now())
        try:
            _, response = await self._authenticate(await self._line_on(modem), meter, last=True)
        except BROKEN as error:
            await self._hang_up(error.message)
            raise
        return Exchanged(response, meter.cost(_now()))

    async def _authenticate(
        self, line: _Line, meter: _Meter, *, last: bool = False
    ) -> tuple[_Line, Response]:
        """Authenticate over ``line``. The line to use from now on, and the response."""
        await self._allowed()
        self._enter(SessionState.AUTHENTICATING, "authenticating")
        try:
            if self._handshake is None:
                response = await self._ask_to_authenticate(line, meter, last)
                reason = f"authenticated ({response.code})"
            else:
                line, response = await self._shake_hands(line, meter)
                reason = "authenticated (DTLS handshake)"
        except BaseException as error:
            reason = error.message if isinstance(error, NbiotError) else "interrupted"
            self._enter(SessionState.OFFLINE, reason)
            raise
        self._enter(SessionState.ONLINE, reason)
        return line, response

    async def _ask_to_authenticate(self, line: _Line, meter: _Meter, last: bool) -> Response:
        request = await asyncio.to_thread(self.cloud.auth_request)
        self.authentications += 1
        response = await self._send(line, request, meter, last=last)
        if refusal := self.cloud.refusal(response):
            raise refusal
        return response

    async def _shake_hands(self, line: _Line, meter: _Meter) -> tuple[_Line, Response]:
        """Secure ``line``; where it was secured before, a new one instead."""
        assert self._handshake is not None
        if isinstance(line.socket, DtlsSocket):
            await self._let_go()
            line = await self._line_on(line.modem)
        assert not isinstance(line.socket, DtlsSocket)
        self.authentications += 1
        began = _now()
        try:
            secured = await self._handshake(line.socket, self._timing, self._report)
        except BaseException:  # half a handshake is of no use to the next one
            await self._let_go()
            raise
        line.socket, line.client = secured, self._client(secured)
        self._alive_until = secured.sent_at + self.cloud.lifetime
        nothing = Stats(0, 0, 0, 0, secured.retransmissions, _now() - began, exchanges=0)
        meter.stats.append(_on_air(nothing, line, Traffic()))
        return line, Response("", b"", (), meter.stats[-1])

    async def _allowed(self) -> None:
        """Wait until one more authentication is within the limit."""
        while self._limit is not None:
            try:
                await asyncio.to_thread(self._limit.take, self.cloud.identity)
                return
            except RateLimited as error:
                self._enter(SessionState.WAITING, error.message)
                self._report(Progress("waiting", error.message))
                await asyncio.sleep(error.wait)

    async def _send_unless_dead(
        self, line: _Line, request: Request, meter: _Meter, repeat: bool
    ) -> Response | None:
        """As ``_send``; None where the association turned out dead and ``repeat`` allows another
        try over a new one.
        """
        try:
            return await self._send(line, request, meter)
        except DEAD:
            if not repeat or line is self._line:  # without DTLS there is nothing to begin anew
                raise
            return None

    async def _send(
        self, line: _Line, request: Request, meter: _Meter, *, last: bool = True
    ) -> Response:
        """One exchange. The lifetime begins anew when the request went out, not when it came in."""
        began, before = _now(), line.traffic
        last = last and self._queued == 1 and not self.to_come
        try:
            response = await line.client.request(request, last=last)
        except DEAD as error:
            if before is not None:
                nothing = Stats(0, 0, 0, 0, 0, _now() - began)
                meter.stats.append(_on_air(nothing, line, before))
                await self._hang_up(f"the DTLS association may be lost: {error.message}")
            raise
        meter.stats.append(_on_air(response.stats, line, before))
        meter.released = last and line.modem.profile.has_release_assistance
        if response.ok:
            self._alive_until = began + self.cloud.lifetime
        for downlink in self.cloud.downlinks(response):
            self._on_downlink(downlink)
        return response

    # --- the socket -------------------------------------------------------------------------

    async def _line_on(self, modem: Modem) -> _Line:
        """The socket in ``modem``; a new one means a new source address."""
        line = self._line
        recoveries = self._carrier.recoveries
        reason = "another source address"
        if line and line.modem is modem and line.recoveries == recoveries and line.socket.usable:
            if isinstance(line.socket, DtlsSocket):
                await line.socket.look()
            if line.socket.usable:
                return line
            reason = "the server ended the DTLS association"
        await self._hang_up(reason)
        found = await modem.resolve(self.cloud.host, by=self._resolve_by)
        socket = await modem.udp(found.address, self.cloud.port)
        stop = modem.channel.listen(self._on_urc)
        self._line = _Line(modem, recoveries, socket, self._client(socket), stop)
        return self._line

    def _client(self, socket: UdpSocket | DtlsSocket) -> UdpClient:
        return UdpClient(socket, self._identifiers, self._timing, self._report)

    def _on_urc(self, urc: UrcReceived) -> None:
        """A new address, or a registration that was lost and may bring one when it is back."""
        if urc.name == "address":
            self._lost("the network gave an address anew")
        elif urc.name == "registration" and not registration(urc.fields["stat"], None).registered:
            self._lost("the network was lost")

    def _lost(self, reason: str) -> None:
        if self.state is SessionState.ONLINE:
            self._enter(SessionState.OFFLINE, reason)

    async def _hang_up(self, reason: str = "closed") -> None:
        """Let the socket go: the server knows us by its address, so we are offline."""
        if self._line is not None:
            self._enter(SessionState.OFFLINE, reason)
            await self._let_go()

    async def _let_go(self) -> None:
        """Close the socket, if there is one."""
        line, self._line = self._line, None
        if line is not None:
            line.stop_listening()
            await line.socket.close()

    def _doubt(self) -> None:
        """A modem that may have slept may have another address in front of the network's NAT; so
        may one that was silent, but without DTLS the server says 4.01 then.
        """
        if self._line is None:
            return
        profile, socket = self._line.modem.profile, self._line.socket
        if profile.may_sleep and profile.channel.idle >= profile.sleeps_after:
            self._lost("the modem may have slept")
        elif isinstance(socket, DtlsSocket) and _now() - socket.heard_at >= self._nat_timeout:
            self._lost("silent for so long that the network may have forgotten us")

    # --- states -----------------------------------------------------------------------------

    @property
    def is_online(self) -> bool:
        """Authenticated, and the lifetime has not run out."""
        return self.state is SessionState.ONLINE and _now() < self._alive_until

    @property
    def seconds_left(self) -> float:
        """Until the lifetime runs out; 0 when it has."""
        return max(0.0, self._alive_until - _now()) if self.state is SessionState.ONLINE else 0.0

    def _enter(self, state: SessionState, reason: str) -> None:
        if state is self.state or self.state is SessionState.CLOSED:
            return
        self.state = state
        if state is SessionState.ONLINE:
            self._online.set()
        else:
            self._online.clear()
        self._on_state(StateChange(state, reason))

    async def _keep(self) -> None:
        """Note when the lifetime runs out; or see to it that it does not. Idle, it sleeps."""
        pause = RETRY
        while True:
            await self._wanted()
            try:
                await self._stay()
                pause = RETRY
            except NbiotError as error:
                self._report(Progress("offline", f"not kept online: {error.message}"))
                await asyncio.sleep(pause)
                pause = min(2 * pause, self.cloud.lifetime)

    async def _wanted(self) -> None:
        """Wait until something has to be done for staying online."""
        lifetime = self.cloud.lifetime
        ahead = lifetime * (1 - KEEP_ALIVE_AT) if self._keep_online else 0.0
        while True:
            if not self._keep_online:
                await self._online.wait()
            wait = self._alive_until - ahead - _now()
            if wait <= 0 or (self._keep_online and self.state is not SessionState.ONLINE):
                return
            await asyncio.sleep(wait)

    async def _stay(self) -> None:
        if not self._keep_online:
            self._enter(SessionState.OFFLINE, "silent for the whole lifetime")
            return
        if self._handshake is not None:
            self._doubt()  # before the message, which would be one too many behind a handshake
        request = self.cloud.keep_alive() if self.is_online else None
        await (self.request(request, repeat=True) if request else self.authenticate())


def _now() -> float:
    return asyncio.get_running_loop().time()
