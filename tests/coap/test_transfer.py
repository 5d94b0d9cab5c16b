"""Transfers in blocks by the UDP client: over bad networks, through the emulated modems."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hil.emulator import Network, Options, ScriptedWire, create
from nbiot.coap.client import Identifiers, UdpClient
from nbiot.coap.exchange import Timing
from nbiot.coap.message import Method, Request, Response
from nbiot.errors import BadDatagram, NoResponse
from nbiot.link import Link
from nbiot.link.memory import MemoryLink
from nbiot.modem import Modem
from nbiot.profile import Limits, Progress, Release, UdpSocket
from tests.virtualtime import run_virtual

from .blockserver import BLOCK1, BLOCK2, BlockServer, Manners, block, taken_apart
from .wire import ACK, CON, EMPTY, message

PATH = ("topic", "sys", "KV315idW", "867726030047601")
COMMAND = ((2100, b"/topic"), (2102, b"down"))


def body(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def post(size: int) -> Request:
    return Request(Method.POST, PATH, body(size))


class Far:
    """A socket with a block server at its far end. ``separate``: these responses come as CON."""

    def __init__(self, manners: Manners, limit: int = 512) -> None:
        self.profile = SimpleNamespace(limits=Limits(datagram=limit, sockets=1))
        self.server = BlockServer(manners)
        self.separate: tuple[int, ...] = ()
        self.sent: list[tuple[bytes, Release]] = []
        self.came: list[bytes] = []
        self.inbox: asyncio.Queue[bytes] = asyncio.Queue()

    def client(self, **options: Any) -> UdpClient:
        return UdpClient(cast("UdpSocket", self), Identifiers(), **options)

    async def send(self, data: bytes, release: Release = Release.NO) -> None:
        await asyncio.sleep(0.1)
        assert len(data) <= self.profile.limits.datagram
        self.sent.append((data, release))
        if data[1] != EMPTY:
            self.deliver(data, self.server.answer(data))

    def deliver(self, data: bytes, answer: bytes) -> None:
        if len(self.server.asked) in self.separate:
            mid = 0x7000 + len(self.server.asked)
            self.arrive(message(ACK, EMPTY, int.from_bytes(data[2:4], "big")))
            answer = (
                bytes([answer[0] & 0xCF | CON << 4, answer[1]])
                + mid.to_bytes(2, "big")
                + (answer[4:])
            )
        self.arrive(answer)

    def arrive(self, data: bytes) -> None:
        self.came.append(data)
        self.inbox.put_nowait(data)

    async def receive(self, seconds: float) -> bytes:
        async with asyncio.timeout(seconds):
            return await self.inbox.get()

    @property
    def releases(self) -> list[Release]:
        return [release for _, release in self.sent]


def asked_once(far: Far, request: Request, **options: Any) -> Response:
    last = options.pop("last", True)
    return run_virtual(far_request(far, request, last, options))


async def far_request(far: Far, request: Request, last: bool, options: Any) -> Response:
    return await far.client(**options).request(request, last=last)


NO, AFTER_REPLY, AFTER_THIS = Release.NO, Release.AFTER_REPLY, Release.AFTER_THIS


def test_a_long_request_and_its_long_response() -> None:
    told: list[Progress] = []
    far = Far(Manners(payload=body(700), down=(512,), commands={2: COMMAND}))
    found = asked_once(far, post(1024), report=told.append)
    assert (found.code, found.payload, found.options) == ("2.04", body(700), COMMAND)
    assert far.server.bodies == [body(1024)]
    stats = found.stats
    assert (stats.exchanges, stats.datagrams_up, stats.datagrams_down) == (5, 5, 5)
    assert stats.up == sum(len(data) for data, _ in far.sent)
    assert stats.down == sum(map(len, far.came))
    assert stats.round_trip == pytest.approx(0.5)
    sizes = [len(data) for data, _ in far.sent]
    assert [(p.step, p.text) for p in told] == [
        ("block", f"block 1 of 4 sent ({sizes[0]} bytes)"),
        ("block", f"block 2 of 4 sent ({sizes[1]} bytes)"),
        ("block", f"block 3 of 4 sent ({sizes[2]} bytes)"),
        ("block", f"block 4 of 4 sent ({sizes[3]} bytes)"),
        ("block", "block 2 asked for"),
    ]
    assert told[3].data == {"way": "up", "block": 4, "blocks": 4, "bytes": sizes[3]}


def test_each_block_has_a_message_id_and_a_token_of_its_own() -> None:
    far = Far(Manners(payload=body(700), down=(64,)))
    asked_once(far, post(1024))
    asked = far.server.asked
    assert len({a.mid for a in asked}) == len({a.token for a in asked}) == len(asked) == 14


def test_the_last_block_asks_for_release_and_the_others_do_not() -> None:
    far = Far(Manners())
    asked_once(far, post(1024))
    assert far.releases == [NO, NO, NO, AFTER_REPLY]


def test_a_response_of_known_size_releases_the_radio_after_its_last_block() -> None:
    far = Far(Manners(payload=body(100), down=(32,), estimates=True))
    asked_once(far, post(400))
    # The request itself looked like the last exchange.
    assert far.releases == [AFTER_REPLY, NO, NO, AFTER_REPLY]


def test_acks_between_blocks_do_not_release_the_radio() -> None:
    far = Far(Manners(payload=body(100), down=(64,)))
    far.separate = (1, 2, 3, 4, 5)
    found = asked_once(far, post(1024))
    assert found.payload == body(100)
    assert far.releases == [NO, NO, NO, NO, NO, NO, AFTER_REPLY, NO, NO, AFTER_THIS]
    assert found.stats.datagrams_up == found.stats.datagrams_down == 10


@pytest.mark.parametrize("size", [10, 1024])
def test_nothing_is_released_when_more_requests_follow(size: int) -> None:
    far = Far(Manners())
    far.separate = (1, 4)
    asked_once(far, post(size), last=False)
    assert set(far.releases) == {NO}


def test_the_modems_limit_is_the_limit_but_never_beyond_1152() -> None:
    for limit, most in ((256, 256), (1024, 1024), (1358, 1152)):
        far = Far(Manners(), limit)
        asked_once(far, post(1120))
        assert most - 600 < max(len(data) for data, _ in far.sent) <= most
        assert far.server.bodies == [body(1120)]


def test_a_limit_of_the_caller_goes_before_that_of_the_modem() -> None:
    far = Far(Manners(), 1024)
    asked_once(far, post(500), most_sent=300)
    assert max(len(data) for data, _ in far.sent) <= 300


def test_the_caller_may_ask_for_small_blocks() -> None:
    far = Far(Manners(payload=body(700)))
    found = asked_once(far, post(10), most_received=512)
    assert found.payload == body(700)
    assert max(map(len, far.came)) <= 512
    assert far.server.asked[0].block(BLOCK2) == (0, False, 256)


def test_a_get_has_no_payload() -> None:
    far = Far(Manners(payload=body(3000)))
    found = asked_once(far, Request(Method.GET, PATH))
    assert found.payload == body(3000)
    assert {(asked.method, asked.payload) for asked in far.server.asked} == {(1, b"")}


def test_a_server_that_falls_silent_is_told_with_the_block() -> None:
    class Silent(Far):
        def deliver(self, data: bytes, answer: bytes) -> None:
            if len(self.server.asked) < 3:
                super().deliver(data, answer)

    with pytest.raises(NoResponse, match=r"4 transmissions \(block 3 of 4\)"):
        asked_once(Silent(Manners()), post(1024))


def test_a_late_acknowledgement_of_one_block_is_not_that_of_another() -> None:
    """The response to block 1 comes again while that to block 2 is waited for."""

    class Repeating(Far):
        def deliver(self, data: bytes, answer: bytes) -> None:
            for old in [*self.came[-1:], answer]:
                self.arrive(old)

    far = Repeating(Manners(payload=b"ok"))
    assert asked_once(far, post(1024)).payload == b"ok"
    assert far.server.bodies == [body(1024)]


def test_a_response_that_makes_no_sense_is_acknowledged_and_told() -> None:
    class Strange(Far):
        def deliver(self, data: bytes, answer: bytes) -> None:
            options = [(BLOCK1, block(7, True, 16))]
            self.arrive(message(CON, 0x5F, 9, taken_apart(data).token, options))

    far = Strange(Manners())
    with pytest.raises(BadDatagram, match="acknowledges block 7"):
        asked_once(far, post(1024))
    assert [data for data, _ in far.sent[1:]] == [message(ACK, EMPTY, 9)]


# --- a network that loses, doubles and delays ---------------------------------------------------


class Weather(Far):
    """A Far whose datagrams get lost, come twice, late, in another order; the server repeats
    itself as RFC 7252, 4.5 asks for.
    """

    def __init__(self, manners: Manners, seed: int, loss: float, twice: float, late: float) -> None:
        super().__init__(manners)
        self.rng = random.Random(seed)
        self.loss, self.twice, self.late = loss, twice, late
        self.known: dict[bytes, bytes] = {}

    async def send(self, data: bytes, release: Release = Release.NO) -> None:
        await asyncio.sleep(0.1)
        self.sent.append((data, release))
        if data[1] != EMPTY:
            self.carry(lambda: self.serve(data))

    def serve(self, data: bytes) -> None:
        if data not in self.known:
            self.known[data] = self.server.answer(data)
        self.carry(lambda: self.arrive(self.known[data]))

    def carry(self, what: Callable[[], None]) -> None:
        for _ in range(1 + (self.rng.random() < self.twice)):
            if self.rng.random() >= self.loss:
                delay = self.rng.uniform(0, self.late)
                asyncio.get_running_loop().call_later(delay, what)


chance = st.floats(0, 0.5)


@settings(max_examples=150, deadline=None)
@given(
    *(st.integers(0, 2000), st.integers(0, 2000), st.integers(0, 2**32)),
    *(chance, chance, st.floats(0, 60), st.sampled_from([None, 512])),
)
def test_a_transfer_ends_whole_or_in_an_error(
    up: int,
    down: int,
    seed: int,
    loss: float,
    twice: float,
    late: float,
    most_received: int | None,
) -> None:
    far = Weather(Manners(payload=body(down), etag=b"e"), seed, loss, twice, late)
    try:
        found = asked_once(far, post(up), rng=random.Random(seed), most_received=most_received)
    except NoResponse:
        assert loss or late > 7
        assert all(whole == body(up) for whole in far.server.bodies)
        return
    assert found.payload == body(down) or found.code == "4.08"
    if found.code == "2.04":
        assert far.server.bodies == [body(up)]
        assert found.stats.retransmissions == found.stats.datagrams_up - found.stats.exchanges


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2000), st.integers(0, 2000), st.integers(0, 2**32), chance)
def test_a_network_that_only_doubles_and_delays_a_little_changes_nothing(
    up: int, down: int, seed: int, twice: float
) -> None:
    far = Weather(Manners(payload=body(down)), seed, 0.0, twice, 7.0)
    found = asked_once(far, post(up))
    assert (found.code, found.payload) == ("2.04", body(down))
    assert far.server.bodies == [body(up)]
    assert found.stats.retransmissions == 0
    assert found.stats.exchanges == len(far.server.asked) == len(far.sent)


# --- through the emulated modems ----------------------------------------------------------------

SERVER = ("47.96.1.2", 5683)


async def through(model: str, manners: Manners, request: Request, monkeypatch: Any) -> Any:
    """The response, and the server that gave it."""
    server, wire = BlockServer(manners), ScriptedWire()
    wire.peers[SERVER] = lambda datagram: [server.answer(datagram)]
    loop: Any = asyncio.get_running_loop()
    link = MemoryLink("line", baudrate=9600, on_write=lambda data: modem_model.receive(data))
    options = Options(attached=True, rate=9600, speed=100.0)
    modem_model = create(model, options, Network(wire=wire), send=link.feed, clock=loop)

    async def open_memory(_: str, *, baudrate: int) -> Link:
        return link

    monkeypatch.setattr("nbiot.modem.open_link", open_memory)
    async with Modem("line", model=model, baudrate=9600) as modem:
        await modem.attach()
        async with await modem.udp(*SERVER) as socket:
            client = UdpClient(socket, Identifiers(), Timing(), most_received=512)
            return await client.request(request), server


@pytest.mark.parametrize(
    ("model", "exchanges"), [("bc95", 4 + 2), ("bc95-g", 1 + 2), ("bc66", 2 + 2)]
)
def test_a_kilobyte_each_way_through_a_modem(model: str, exchanges: int, monkeypatch: Any) -> None:
    manners = Manners(payload=body(700), commands={1: COMMAND})
    found, server = run_virtual(through(model, manners, post(1024), monkeypatch))
    assert (found.code, found.payload, found.options) == ("2.04", body(700), COMMAND)
    assert server.bodies == [body(1024)]
    assert (found.stats.exchanges, found.stats.retransmissions) == (exchanges, 0)


@pytest.mark.parametrize("model", ["bc95", "bc95-g", "bc66"])
def test_a_get_through_a_modem(model: str, monkeypatch: Any) -> None:
    request = Request(Method.GET, PATH)
    found, _ = run_virtual(through(model, Manners(payload=body(600)), request, monkeypatch))
    assert (found.code, found.payload) == ("2.04", body(600))
