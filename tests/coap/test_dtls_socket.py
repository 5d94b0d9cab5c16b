"""DTLS over a socket such as a modem's: cancelled, flooded, closed from either side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from nbiot.coap.client import Identifiers, UdpClient
from nbiot.coap.dtls import DtlsClosed, DtlsError, DtlsSession, Suite
from nbiot.coap.dtls_socket import DtlsSocket, secure
from nbiot.coap.exchange import Timing
from nbiot.errors import ModemRebooted, ModemSilent, NoResponse
from nbiot.profile import CLOSE_SECONDS, Progress, Release
from tests.e2e.dtls_front import DtlsFront, enos_key

from .loopback import Loopback

SECRET = "M3yy874uGY8INjEGddTR"
IDENTITY = "KV315idW,tPbZGCdmaE,3,3600"
QUICK = Timing(ack_timeout=0.3)


class Modems(Loopback):
    """A modem's socket, which may fail."""

    usable = True
    port = 5684
    fails: Exception | None = None
    stuck = False

    async def send(self, data: bytes, release: Release = Release.NO) -> None:
        if self.fails:
            raise self.fails
        if self.stuck:
            await asyncio.sleep(3600)
        await super().send(data, release)


class Echo(DtlsFront):
    """Answers each plain text with the same."""

    def datagram_received(self, data: bytes, address: Any) -> None:
        super().datagram_received(data, address)
        if association := self.associations.get(address):
            association.activate = lambda _: None  # type: ignore[method-assign]
            association.from_device = association.to_device  # type: ignore[method-assign]


@asynccontextmanager
async def ends(limit: int = 512) -> AsyncIterator[tuple[Modems, Echo]]:
    async with Echo(("127.0.0.1", 9), {}, {"KV315idW": SECRET}) as front:
        loop = asyncio.get_running_loop()
        _, modems = await loop.create_datagram_endpoint(
            lambda: Modems(limit), remote_addr=(front.host, front.port)
        )
        modems.profile.title = "a modem"
        try:
            yield modems, front
        finally:
            modems._transport.close()
            await asyncio.sleep(0)


def secured(modems: Modems, **options: Any) -> Any:
    options = {"timing": QUICK} | options
    return secure(modems.as_socket, IDENTITY, lambda: enos_key(SECRET), **options)


def server_of(front: Echo) -> Any:
    (association,) = front.associations.values()
    return association


@pytest.mark.parametrize("suite", Suite)
async def test_a_client_learns_what_dtls_leaves(suite: Suite) -> None:
    async with ends(512) as (modems, front), await secured(modems, suites=[suite]) as line:
        most = line.profile.limits.datagram
        client = UdpClient(line, Identifiers())  # type: ignore[arg-type]
        assert client._most_sent == most
        await line.send(bytes(most), Release.AFTER_REPLY)
        assert len(modems.sent[-1]) in range(512 - 16, 513)
        assert modems.releases[-1] is Release.AFTER_REPLY
        assert set(modems.releases[:-1]) == {Release.NO}
        assert await line.receive(1.0) == bytes(most)
        assert (line.traffic.datagrams_up, line.traffic.up) == (
            len(modems.sent),
            sum(map(len, modems.sent)),
        )
        assert line.traffic.down == sum(map(len, modems.heard))
        assert len(front.passed) == line.traffic.datagrams_up + line.traffic.datagrams_down


async def test_it_tells_how_the_handshake_goes() -> None:
    steps: list[Progress] = []
    async with ends() as (modems, front):
        front.lose = lambda way, number: (way, number) == ("in", 1)
        async with await secured(modems, report=steps.append) as line:
            assert line.retransmissions == 1
    assert [step.step for step in steps] == ["sent", "retransmitted", "sent", "sent"]
    assert all(step.text.startswith("DTLS handshake") for step in steps)


async def test_a_cancelled_wait_loses_no_text() -> None:
    async with ends() as (modems, front), await secured(modems) as line:
        waiting = asyncio.create_task(line.receive(5.0))
        await asyncio.sleep(0)
        server_of(front).to_device(b"first")
        server_of(front).to_device(b"second")
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert [await line.receive(1.0), await line.receive(1.0)] == [b"first", b"second"]


async def test_a_flood_does_not_stop_the_clock() -> None:
    async with ends() as (modems, _):
        line = await secured(modems)

        async def flood() -> None:
            while True:
                modems._inbox.put_nowait(b"rubbish")
                await asyncio.sleep(0)

        flooding = asyncio.create_task(flood())
        try:
            async with asyncio.timeout(2.0):
                with pytest.raises(TimeoutError):
                    await line.receive(0.1)
                await line.look()
                await line.close()
        finally:
            flooding.cancel()
        assert line.dropped.reasons["no DTLS record"] > 10


async def test_a_flood_does_not_stop_the_clock_of_the_handshake() -> None:
    async with ends() as (modems, front):
        front.lose = lambda way, number: True

        async def flood() -> None:
            while True:
                modems._inbox.put_nowait(b"\x16\xfe\xfd" + bytes(10))
                await asyncio.sleep(0)

        flooding = asyncio.create_task(flood())
        try:
            with pytest.raises(NoResponse, match="in 1 transmission"):
                await secured(modems, timing=Timing(ack_timeout=0.2, max_retransmit=0))
        finally:
            flooding.cancel()


async def test_what_the_server_said_before_its_goodbye_is_heard_first() -> None:
    async with ends() as (modems, front):
        line = await secured(modems)
        server_of(front).to_device(b"last words")
        front.restart(goodbye=True)
        await asyncio.sleep(0.05)
        await line.look()
        assert not line.usable
        assert await line.receive(0.1) == b"last words"
        for _ in range(2):
            with pytest.raises(DtlsClosed, match="the server closed"):
                await line.receive(0.1)
        with pytest.raises(DtlsClosed):
            await line.send(b"too late")
        sent = len(modems.sent)
        await line.close()
        assert (len(modems.sent), modems.closed) == (sent, 1)  # nobody to say goodbye to


async def test_a_socket_that_is_gone_is_not_written_to() -> None:
    async with ends() as (modems, _):
        line = await secured(modems)
        modems.usable, modems.fails = False, ModemRebooted("gone")
        assert not line.usable
        await line.close()
        assert modems.closed == 1


async def test_closing_never_raises_what_the_modem_says() -> None:
    async with ends() as (modems, front):
        line = await secured(modems)
        modems.fails = ModemSilent("no answer")
        await line.close()
        await line.close()
        assert (modems.closed, front.goodbyes) == (2, 0)


async def test_closing_takes_no_longer_than_a_modem_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert CLOSE_SECONDS < 10
    monkeypatch.setattr("nbiot.coap.dtls_socket.CLOSE_SECONDS", 0.1)
    async with ends() as (modems, _):
        line = await secured(modems)
        modems.stuck = True
        async with asyncio.timeout(1.0):
            await line.close()
        assert modems.closed == 1


async def test_closing_that_is_cancelled_closes_the_socket() -> None:
    async with ends() as (modems, _):
        line = await secured(modems)
        modems.stuck = True
        closing = asyncio.create_task(line.close())
        await asyncio.sleep(0.01)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert modems.closed == 1


async def test_nothing_is_sent_before_the_handshake() -> None:
    async with ends() as (modems, _):
        session = DtlsSession(IDENTITY, enos_key(SECRET))
        line = DtlsSocket(modems.as_socket, session)
        assert not line.usable
        with pytest.raises(DtlsError, match="not finished"):
            await line.send(b"early")
        await line.close()
        assert (modems.sent, modems.closed) == ([], 1)


async def test_it_shows_neither_key_nor_identity() -> None:
    async with ends() as (modems, _), await secured(modems) as line:
        assert repr(line) == f"<DtlsSocket to {line.address}:5684, <DtlsSession established>>"
