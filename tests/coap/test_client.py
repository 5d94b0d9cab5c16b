"""The clients on sockets that do what a test wants."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from nbiot.coap.client import Identifiers, NativeClient, UdpClient
from nbiot.coap.exchange import Timing
from nbiot.coap.message import Method, Request
from nbiot.errors import (
    CommandRefused,
    DatagramTooLong,
    NoResponse,
    PortLost,
    ResponseReset,
    SocketError,
)
from nbiot.profile import (
    Limits,
    NativeRequest,
    NativeResponse,
    Profile,
    Progress,
    Release,
    UdpSocket,
)

from .wire import ACK, CHANGED, CON, EMPTY, RST, message

ASK = Request(Method.POST, ("auth", "pk", "dk"), b"{}")
QUICK = Timing(ack_timeout=0.05, random_factor=1.0, max_retransmit=2, response_timeout=0.1)
PATIENT = Timing(ack_timeout=5.0, response_timeout=5.0)

Answer = Callable[[bytes], list[bytes]]


class Scripted:
    """A socket whose far end is a function from a datagram sent to datagrams received."""

    profile = SimpleNamespace(limits=Limits(datagram=512, sockets=1))

    def __init__(self, answer: Answer) -> None:
        self.sent: list[tuple[bytes, Release]] = []
        self.inbox: asyncio.Queue[bytes] = asyncio.Queue()
        self._answer = answer

    async def send(self, data: bytes, release: Release = Release.NO) -> None:
        await asyncio.sleep(0)
        self.sent.append((data, release))
        for datagram in self._answer(data):
            self.inbox.put_nowait(datagram)

    async def receive(self, seconds: float) -> bytes:
        async with asyncio.timeout(seconds):
            return await self.inbox.get()


def client(socket: object, timing: Timing = PATIENT, **options: Any) -> UdpClient:
    return UdpClient(cast("UdpSocket", socket), Identifiers(), timing, **options)


def mid_of(request: bytes) -> int:
    return int.from_bytes(request[2:4], "big")


def token_of(request: bytes) -> bytes:
    return request[4 : 4 + (request[0] & 15)]


def is_request(data: bytes) -> bool:
    return data[1] == Method.POST


def piggybacked(data: bytes, **more: Any) -> bytes:
    return message(ACK, CHANGED, mid_of(data), token_of(data), **more)


def separate(data: bytes) -> bytes:
    return message(CON, CHANGED, 0x7777, token_of(data))


def silence(data: bytes) -> list[bytes]:
    return []


async def test_a_response_carries_code_payload_options_and_cost() -> None:
    answer = {"options": [(2100, b"/t"), (2102, b"\0")], "payload": b"hi"}
    socket = Scripted(lambda data: [b"noise", piggybacked(data, **answer)])
    found = await client(socket).request(ASK)
    assert (found.code, found.ok, found.payload) == ("2.04", True, b"hi")
    assert found.options == ((2100, b"/t"), (2102, b"\0"))
    (request, _), stats = socket.sent[0], found.stats
    assert (stats.up, stats.datagrams_up, stats.retransmissions) == (len(request), 1, 0)
    assert stats.down == 5 + len(piggybacked(request, **answer))
    assert stats.datagrams_down == 2
    assert 0 <= stats.round_trip < 5


async def test_the_request_asks_for_release_after_the_reply_and_the_ack_for_release_at_once() -> (
    None
):
    socket = Scripted(lambda data: [separate(data)] if is_request(data) else [])
    await client(socket).request(ASK)
    assert [release for _, release in socket.sent] == [Release.AFTER_REPLY, Release.AFTER_THIS]
    assert socket.sent[1][0] == message(ACK, EMPTY, 0x7777)


async def test_a_reset_in_the_middle_does_not_release_the_radio() -> None:
    ping = message(CON, EMPTY, 5)
    socket = Scripted(lambda data: [ping, piggybacked(data)] if is_request(data) else [])
    await client(socket).request(ASK)
    assert socket.sent[1] == (message(RST, EMPTY, 5), Release.AFTER_REPLY)


async def test_a_silent_server_gets_the_same_datagram_again_and_again() -> None:
    socket = Scripted(silence)
    told: list[Progress] = []
    with pytest.raises(NoResponse, match="3 transmissions"):
        await client(socket, QUICK, report=told.append).request(ASK)
    assert len(socket.sent) == 3
    assert len(set(socket.sent)) == 1
    assert [p.step for p in told] == ["sent", "retransmitted", "retransmitted"]


async def test_repetitions_are_counted() -> None:
    count = itertools.count()
    socket = Scripted(lambda data: [piggybacked(data)] if next(count) == 2 else [])
    stats = (await client(socket, QUICK).request(ASK)).stats
    assert (stats.retransmissions, stats.datagrams_up, stats.datagrams_down) == (2, 3, 1)
    assert stats.up == 3 * len(socket.sent[0][0])


async def test_an_acknowledged_request_is_not_repeated_while_the_server_works() -> None:
    told: list[Progress] = []
    socket = Scripted(lambda data: [message(ACK, EMPTY, mid_of(data))] * 2)
    with pytest.raises(NoResponse, match="acknowledged"):
        await client(socket, QUICK, report=told.append).request(ASK)
    assert len(socket.sent) == 1
    assert [p.step for p in told] == ["sent", "acknowledged"]


async def test_a_reset_by_the_server_is_told_at_once() -> None:
    socket = Scripted(lambda data: [message(RST, EMPTY, mid_of(data))])
    with pytest.raises(ResponseReset):
        await client(socket).request(ASK)
    assert len(socket.sent) == 1


async def test_cancellation_stops_the_sending() -> None:
    socket = Scripted(silence)
    timing = Timing(ack_timeout=0.3, random_factor=1.0)
    task = asyncio.create_task(client(socket, timing).request(ASK))
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0.4)
    assert len(socket.sent) == 1


@pytest.mark.unhygienic  # the flood itself keeps the loop busy
async def test_a_flood_of_strange_datagrams_does_not_stop_the_clock() -> None:
    class Flooded(Scripted):
        async def receive(self, seconds: float) -> bytes:
            await asyncio.sleep(0)
            return b"\x60\x44\x00\x00"

    socket = Flooded(silence)
    with pytest.raises(NoResponse, match="3 transmissions"):
        await asyncio.wait_for(client(socket, QUICK).request(ASK), 5)
    assert len(socket.sent) == 3


async def test_a_response_counts_although_its_ack_cannot_be_sent() -> None:
    class Failing(Scripted):
        async def send(self, data: bytes, release: Release = Release.NO) -> None:
            if not is_request(data):
                raise SocketError("the socket is gone")
            await super().send(data, release)

    found = await client(Failing(lambda data: [separate(data)])).request(ASK)
    assert found.code == "2.04"


async def test_the_round_trip_ends_with_the_response_not_with_its_ack() -> None:
    class Slow(Scripted):
        async def send(self, data: bytes, release: Release = Release.NO) -> None:
            await super().send(data, release)
            if not is_request(data):
                await asyncio.sleep(0.5)

    found = await client(Slow(lambda data: [separate(data)])).request(ASK)
    assert found.stats.round_trip < 0.4


@pytest.mark.parametrize("error", [CommandRefused("AT+NSOST", "ERROR"), PortLost("gone")])
async def test_what_the_modem_raises_goes_through(error: Exception) -> None:
    class Broken(Scripted):
        async def receive(self, seconds: float) -> bytes:
            raise error

    with pytest.raises(type(error)):
        await client(Broken(silence)).request(ASK)


async def test_requests_at_once_go_one_after_the_other() -> None:
    class Sluggish(Scripted):
        async def send(self, data: bytes, release: Release = Release.NO) -> None:
            self.sent.append((data, release))
            answer = piggybacked(data, payload=token_of(data))
            delay = 0.1 / len(self.sent)  # the later the quicker
            asyncio.get_running_loop().call_later(delay, self.inbox.put_nowait, answer)

    socket = Sluggish(silence)
    one = client(socket)
    answers = await asyncio.gather(*(one.request(ASK) for _ in range(4)))
    assert [a.payload for a in answers] == [token_of(data) for data, _ in socket.sent]
    assert all(a.stats.datagrams_down == 1 for a in answers)


async def test_a_late_repetition_of_the_last_response_is_acknowledged_in_the_next_exchange() -> (
    None
):
    first: list[bytes] = []

    def answer(data: bytes) -> list[bytes]:
        if not is_request(data):
            return []
        first.append(separate(data))
        return [first[0]] if len(first) == 1 else [first[0], piggybacked(data)]

    socket = Scripted(answer)
    one = client(socket)
    await one.request(ASK)
    await one.request(ASK)
    others = [data for data, _ in socket.sent if not is_request(data)]
    assert others == [message(ACK, EMPTY, 0x7777)] * 2


async def test_what_a_cancelled_exchange_left_behind_is_not_the_next_response() -> None:
    late: list[bytes] = []

    def answer(data: bytes) -> list[bytes]:
        if not late:
            late.append(piggybacked(data, payload=b"late"))
            return []
        return [*late, piggybacked(data, payload=b"mine")]

    one = client(Scripted(answer))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(one.request(ASK), 0.02)
    assert (await one.request(ASK)).payload == b"mine"


# --- identifiers --------------------------------------------------------------------------------


def test_no_identifier_returns_within_65536_requests() -> None:
    identifiers = Identifiers()
    found = [identifiers.next() for _ in range(65536)]
    assert len({mid for mid, _ in found}) == 65536
    assert len({token for _, token in found}) == 65536
    assert all(0 <= mid <= 0xFFFF and len(token) == 2 for mid, token in found)
    assert identifiers.next() == found[0]


def test_identifiers_begin_at_random() -> None:
    assert len({Identifiers().next() for _ in range(20)}) == 20


# --- the modem's own client ---------------------------------------------------------------------


class Native:
    """The part of a profile that a native client uses."""

    title = "Some modem"
    native_payload = 1000

    def __init__(self, answer: NativeResponse | Exception) -> None:
        self.asked: list[tuple[NativeRequest, float]] = []
        self._answer = answer

    async def native_coap(self, request: NativeRequest, seconds: float) -> NativeResponse:
        self.asked.append((request, seconds))
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


def native(profile: Native, **options: Any) -> NativeClient:
    return NativeClient(cast("Profile", profile), "192.0.2.1", 5683, Identifiers(), **options)


async def test_the_modem_gets_all_it_needs_for_its_own_exchange() -> None:
    profile = Native(NativeResponse("2.05", bytes(range(256))))
    one = native(profile, timing=Timing(response_timeout=30.0))
    ask = Request(Method.POST, ("auth", "a", "b"), b"\x00\xff", content_format=50)
    found = await one.request(ask)
    assert (found.code, found.payload, found.options) == ("2.05", bytes(range(256)), ())
    assert (found.stats.down, found.stats.datagrams_up) == (None, 1)
    ((request, seconds),) = profile.asked
    assert (request.address, request.port, request.method) == ("192.0.2.1", 5683, 2)
    assert (request.path, request.payload) == (("auth", "a", "b"), b"\x00\xff")
    assert (request.content_format, seconds) == (50, 30.0)


async def test_each_native_request_has_its_own_identifiers_and_port() -> None:
    profile = Native(NativeResponse("2.04", b""))
    one = native(profile)
    for _ in range(3):
        await one.request(ASK)
    requests = [request for request, _ in profile.asked]
    assert len({(r.mid, r.token, r.local_port) for r in requests}) == 3
    assert len({r.local_port for r in requests}) == 3
    assert all(49152 <= r.local_port <= 65535 for r in requests)


async def test_a_native_client_without_answer_says_how_long_it_waited() -> None:
    with pytest.raises(NoResponse, match="within 90 s"):
        await native(Native(TimeoutError())).request(ASK)


async def test_a_native_client_passes_on_what_the_modem_raises() -> None:
    with pytest.raises(SocketError):
        await native(Native(SocketError("no"))).request(ASK)


async def test_a_native_client_refuses_what_is_too_long_before_the_modem_hears_of_it() -> None:
    profile = Native(NativeResponse("2.04", b""))
    await native(profile).request(Request(Method.POST, ("a",), bytes(1000)))
    with pytest.raises(DatagramTooLong, match=r"1001 bytes.*takes 1000"):
        await native(profile).request(Request(Method.POST, ("a",), bytes(1001)))
    assert len(profile.asked) == 1


async def test_a_native_get_carries_no_payload() -> None:
    profile = Native(NativeResponse("2.05", b"hello"))
    found = await native(profile).request(Request(Method.GET, ("a", "b")), last=False)
    ((request, _),) = profile.asked
    assert (request.method, request.payload, found.payload) == (1, b"", b"hello")
