"""DTLS over a modem's UDP socket: a DtlsSession, driven by datagrams and the loop's clock.

Plain text in, plain text out: for :class:`nbiot.coap.client.UdpClient` it is a UdpSocket that takes
a little less in each datagram.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from nbiot.coap.dtls import MTU_MOST, DtlsSession, Suite
from nbiot.coap.exchange import Dropped, Timing
from nbiot.errors import CoapError, NbiotError
from nbiot.profile import CLOSE_SECONDS, Limits, Progress, Release, Report, UdpSocket, silent

MOST_WAITING = 32  # datagrams that are taken in at once
RECORD_TYPES = range(20, 24)  # RFC 6347, 4.1: ChangeCipherSpec, alert, handshake, data


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes and datagrams of UDP payload each way so far: the handshake, and all that DTLS adds."""

    up: int = 0
    down: int = 0
    datagrams_up: int = 0
    datagrams_down: int = 0

    def __sub__(self, other: Traffic) -> Traffic:
        return Traffic(
            self.up - other.up,
            self.down - other.down,
            self.datagrams_up - other.datagrams_up,
            self.datagrams_down - other.datagrams_down,
        )


@dataclass(frozen=True, slots=True)
class Narrowed:
    """As much of a profile as a client asks for. ``limits.datagram``: bytes of plain text."""

    title: str
    limits: Limits


async def secure(
    socket: UdpSocket,
    identity: str,
    key: Callable[[], bytes],
    *,
    suites: Sequence[Suite] = tuple(Suite),
    timing: Timing | None = None,
    report: Report = silent,
) -> DtlsSocket:
    """``socket`` with DTLS around it, the handshake done.

    identity: 1 to 128 bytes without NUL. key: gives 1 to 64 bytes; called in a thread, so that it
    may block, and so that no variable here holds them.

    Raises NoResponse, DtlsRefused, DtlsError, BadInput, Unsupported (pyOpenSSL is missing), what
    ``key`` raises and what the modem raises. Then ``socket`` is of no more use: close it.
    """
    mtu = min(socket.profile.limits.datagram, MTU_MOST)
    session = await asyncio.to_thread(  # pyOpenSSL takes some 0.1 s when it is loaded
        lambda: DtlsSession(identity, key(), suites=suites, mtu=mtu, timing=timing)
    )
    secured = DtlsSocket(socket, session, report)
    await secured.handshake()
    return secured


class DtlsSocket:
    """``socket`` and ``session``, which must be new, joined. Use it as a UdpSocket.

    dropped:         datagrams that were no records of this association, by reason
    retransmissions: flights of the handshake that went out again
    sent_at:         the loop's time at which a datagram was handed to the modem last
    heard_at:        the loop's time at which the server was heard last, beyond doubt

    A call that is cancelled loses no plain text that came; a handshake that is cancelled cannot be
    taken up again.
    """

    def __init__(self, socket: UdpSocket, session: DtlsSession, report: Report = silent) -> None:
        self.address = socket.address
        self.port = socket.port
        self.dropped = Dropped()
        self.retransmissions = 0
        self.sent_at = 0.0
        self.heard_at = 0.0
        self.traffic = Traffic()
        self._socket = socket
        self._session = session
        self._report = report
        self._texts: deque[bytes] = deque()

    def __repr__(self) -> str:
        return f"<DtlsSocket to {self.address}:{self.port}, {self._session!r}>"

    @property
    def usable(self) -> bool:
        """Both socket and association are there, as far as is known."""
        return self._socket.usable and self._session.established and not self._session.closed

    @property
    def suite(self) -> Suite | None:
        """The cipher suite, once the handshake is done."""
        return self._session.suite

    @property
    def profile(self) -> Narrowed:
        """The modem's profile, with what DTLS adds taken off its datagrams. After the handshake."""
        profile = self._socket.profile
        limits = replace(profile.limits, datagram=self._session.max_plaintext)
        return Narrowed(profile.title, limits)

    async def handshake(self) -> None:
        """Raises NoResponse, DtlsRefused, DtlsError and what the modem raises."""
        session = self._session
        await self._put(session.start(_now()))
        while not session.established:
            data = b""
            with suppress(TimeoutError):
                data = await self._socket.receive(max(0.0, session.deadline - _now()))
            if data:
                await self._take(data)
            # Looked at after a datagram, too: a flood of strange ones must not stop the clock.
            if flight := session.timed_out(_now()):
                self.retransmissions += 1
                await self._put(flight)
        self.heard_at = _now()

    async def send(self, data: bytes, release: Release = Release.NO) -> None:
        """As of UdpSocket. Raises DatagramTooLong, DtlsError and what the modem raises."""
        await self._put(self._session.send(data), release)

    async def receive(self, seconds: float) -> bytes:
        """The next plain text. Raises TimeoutError after ``seconds``, DtlsClosed and DtlsRefused
        when the server has ended the association, and what the modem raises.
        """
        until = _now() + seconds
        while not self._texts:
            self._session.check_open()
            await self._take(await self._socket.receive(max(0.0, until - _now())))
            if not self._texts and _now() >= until:
                raise TimeoutError
        return self._texts.popleft()

    async def look(self) -> None:
        """Take in what has come meanwhile, so that ``usable`` knows of a server that said goodbye.

        Takes no time on air, and one question to a modem that must be asked. Raises what the modem
        raises.
        """
        with suppress(TimeoutError, CoapError):
            for _ in range(MOST_WAITING):
                if not self.usable:
                    return
                await self._take(await self._socket.receive(0.0))

    async def close(self) -> None:
        """Tell the server, if that is possible within a few seconds, and close the socket."""
        usable = self.usable
        try:
            goodbye = self._session.close()
            if usable:
                with suppress(TimeoutError, NbiotError):
                    async with asyncio.timeout(CLOSE_SECONDS / 2):
                        await self._put(goodbye, Release.AFTER_THIS)
        finally:
            await self._socket.close()

    async def __aenter__(self) -> DtlsSocket:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _take(self, data: bytes) -> None:
        """One datagram that came. What it made of us goes out before an error is raised."""
        self._count(down=len(data), datagrams_down=1)
        if not _looks_like_records(data):
            self.dropped.add("no DTLS record")
            return
        was_established = self._session.established
        try:
            texts = self._session.feed(data, _now())
        except CoapError:
            with suppress(NbiotError):  # our alert is a courtesy
                await self._put(self._session.outgoing())
            raise
        self._texts += texts  # before anything is awaited
        if texts:
            self.heard_at = _now()
        elif was_established:
            self.dropped.add("no record of this association")
        await self._put(self._session.outgoing())

    async def _put(self, datagrams: Sequence[bytes], release: Release = Release.NO) -> None:
        for datagram in datagrams:
            self._count(up=len(datagram), datagrams_up=1)
            await self._socket.send(datagram, release)
            self.sent_at = _now()
        if datagrams and not self._session.established:
            self._session.sent(_now())
            self._report(self._progress(sum(map(len, datagrams))))

    def _progress(self, size: int) -> Progress:
        if self._session.retransmissions:
            text = f"DTLS handshake: sent again ({size} bytes)"
            return Progress("retransmitted", text, {"bytes": size})
        return Progress("sent", f"DTLS handshake: sent {size} bytes", {"bytes": size})

    def _count(self, **more: int) -> None:
        now = self.traffic
        self.traffic = replace(now, **{name: getattr(now, name) + n for name, n in more.items()})


def _looks_like_records(data: bytes) -> bool:
    """Is ``data`` one or more whole records of DTLS 1.x (RFC 6347, 4.1)?"""
    position = 0
    while position < len(data):
        header = data[position : position + 13]
        if len(header) < 13 or header[0] not in RECORD_TYPES or header[1] != 0xFE:
            return False
        position += 13 + int.from_bytes(header[11:13], "big")
    return 0 < len(data) == position


def _now() -> float:
    return asyncio.get_running_loop().time()
