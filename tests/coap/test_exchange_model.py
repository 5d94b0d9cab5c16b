"""Exchanges over a network that loses, doubles and delays, against a model of a server.

Time is simulated. The server answers each request once, with a payload that names it, and
repeats itself as RFC 7252 asks for; strangers' datagrams are mixed in.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from nbiot.coap.exchange import Answered, Exchange, Timing
from nbiot.coap.message import Method, Request, encode_request
from nbiot.errors import NoResponse

from .wire import ACK, CHANGED, CON, EMPTY, GET, NON, RST, message

SERVER_TIMEOUT, SERVER_REPEATS = 3.0, 4
GIVES_UP_AFTER = 15 * 1.5 * (1 + 2 + 4 + 8) + 90


@dataclass
class Conditions:
    """Probabilities, and seconds at most."""

    loss: float
    duplication: float
    delay: float
    noise: float
    work: float  # time the server takes for a separate response
    kinds: tuple[str, ...] = ("piggybacked", "separate", "non", "separate non")


@dataclass
class World:
    """The clock, the network and the server."""

    conditions: Conditions
    rng: random.Random
    now: float = 0.0
    events: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    inbox: list[bytes] = field(default_factory=list)
    order: itertools.count[int] = field(default_factory=itertools.count)
    known: dict[bytes, tuple[str, int]] = field(default_factory=dict)
    finished: set[int] = field(default_factory=set)  # message ids of the server that were answered
    resets: list[int] = field(default_factory=list)

    def at(self, when: float, what: Callable[[], None]) -> None:
        heapq.heappush(self.events, (when, next(self.order), what))

    def carry(self, what: Callable[[], None]) -> None:
        """One datagram over the network."""
        copies = 1 + (self.rng.random() < self.conditions.duplication)
        for _ in range(copies):
            if self.rng.random() >= self.conditions.loss:
                self.at(self.now + self.rng.uniform(0.01, self.conditions.delay), what)

    def to_server(self, data: bytes) -> None:
        self.carry(lambda: self._serve(data))

    def to_client(self, data: bytes) -> None:
        self.carry(lambda: self.inbox.append(data))
        if self.rng.random() < self.conditions.noise:
            self.carry(lambda: self.inbox.append(self._strange(data)))

    def _serve(self, data: bytes) -> None:
        kind, mid, code = data[0] >> 4 & 3, int.from_bytes(data[2:4], "big"), data[1]
        if code == EMPTY:
            self.finished.add(mid)
            if kind == RST:
                self.resets.append(mid)
            return
        token = data[4 : 4 + (data[0] & 15)]
        first = data not in self.known
        if first:
            style = self.rng.choice(self.conditions.kinds)
            self.known[data] = style, 0x8000 + len(self.known)
        style, own = self.known[data]
        if style == "piggybacked":
            self.to_client(message(ACK, CHANGED, mid, token, payload=answer_to(token)))
            return
        if style.startswith("separate"):
            self.to_client(message(ACK, EMPTY, mid))
        if first:
            kind = NON if style.endswith("non") else CON
            response = message(kind, CHANGED, own, token, payload=answer_to(token))
            repeats = SERVER_REPEATS if kind == CON else 0
            delay = self.rng.uniform(0, self.conditions.work)
            self.at(self.now + delay, lambda: self._respond(response, own, repeats, SERVER_TIMEOUT))

    def _respond(self, response: bytes, mid: int, repeats: int, timeout: float) -> None:
        if mid in self.finished:
            return
        self.to_client(response)
        if repeats:
            self.at(
                self.now + timeout,
                lambda: self._respond(response, mid, repeats - 1, 2 * timeout),
            )

    def _strange(self, data: bytes) -> bytes:
        """Something like ``data`` that is not for this exchange, or garbage."""
        mid, token = int.from_bytes(data[2:4], "big"), bytes([data[4] ^ 1 if len(data) > 4 else 1])
        return self.rng.choice(
            [
                message(ACK, CHANGED, mid ^ 1, data[4:6], payload=b"wrong"),
                message(ACK, CHANGED, mid, token, payload=b"wrong"),
                message(CON, CHANGED, mid ^ 0x4000, token, payload=b"wrong"),
                message(NON, CHANGED, mid, token, payload=b"wrong"),
                message(CON, EMPTY, mid ^ 0x4000),
                message(CON, GET, mid ^ 0x4000, data[4:6]),
                message(RST, EMPTY, mid ^ 0x4000),
                message(ACK, CHANGED, mid, data[4:6], [(9, b"")], b"wrong"),
                data[: self.rng.randrange(6)] + b"\xff",
                self.rng.randbytes(self.rng.randrange(12)),
            ]
        )


def answer_to(token: bytes) -> bytes:
    return b"answer to " + token.hex().encode()


@dataclass
class Outcome:
    payload: bytes | None
    began: float
    ended: float
    requests: list[tuple[float, bytes]]


def run(world: World, exchange: Exchange) -> Outcome:
    """Drive one exchange to its end, as a client with a socket would."""
    began = world.now
    requests: list[tuple[float, bytes]] = []

    def send(data: bytes) -> None:
        requests.append((world.now, data))
        world.to_server(data)
        exchange.sent(world.now)

    send(exchange.datagram)
    while exchange.response is None:
        if world.inbox:
            for reply in exchange.received(world.inbox.pop(0), world.now):
                world.to_server(reply)
        elif world.events and world.events[0][0] < exchange.deadline:
            world.now, _, happen = heapq.heappop(world.events)
            happen()
        else:
            world.now = max(world.now, exchange.deadline)
            try:
                for data in exchange.timed_out(world.now):
                    send(data)
            except NoResponse:
                return Outcome(None, began, world.now, requests)
    return Outcome(exchange.response.payload, began, world.now, requests)


def exchanges(world: World, count: int) -> list[Outcome]:
    """Several exchanges one after another; late datagrams of one fall into the next."""
    answered = Answered(maxlen=8)
    outcomes = []
    for n in range(count):
        token = bytes([0x50 + 4 * n, n])
        request = encode_request(Request(Method.POST, ("auth", "a", "b"), b"x"), n, token)
        exchange = Exchange(request, n, token, Timing(), answered=answered, rng=world.rng)
        outcome = run(world, exchange)
        assert outcome.payload in (None, answer_to(token))
        assert {data for _, data in outcome.requests} == {request}
        outcomes.append(outcome)
    return outcomes


chance = st.floats(0, 0.7)
conditions = st.builds(
    Conditions, chance, chance, st.floats(0.02, 40), st.floats(0, 1), st.floats(0, 120)
)


@settings(max_examples=300, deadline=None)
@given(conditions, st.integers(0, 2**32), st.integers(1, 4))
def test_an_exchange_ends_with_its_own_response_or_none(
    conditions: Conditions, seed: int, count: int
) -> None:
    world = World(conditions, random.Random(seed))
    for outcome in exchanges(world, count):
        assert outcome.ended - outcome.began <= GIVES_UP_AFTER
        times = [when for when, _ in outcome.requests]
        assert len(times) <= 4
        gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
        assert all(gap >= 15.0 * 2**n for n, gap in enumerate(gaps))
        if outcome.payload is None:
            assert outcome.ended - times[-1] >= 15.0


@settings(max_examples=150, deadline=None)
@given(
    st.builds(Conditions, st.just(0.0), chance, st.floats(0.02, 7), chance, st.floats(0, 80)),
    st.integers(0, 2**32),
)
def test_without_loss_one_transmission_and_one_answer_are_enough(
    conditions: Conditions, seed: int
) -> None:
    conditions.kinds = ("piggybacked", "separate", "separate non")
    world = World(conditions, random.Random(seed))
    for outcome in exchanges(world, 3):
        assert outcome.payload is not None
        assert len(outcome.requests) == 1


@settings(max_examples=150, deadline=None)
@given(
    st.builds(Conditions, st.floats(0, 0.4), chance, st.floats(0.02, 5), st.just(0.0), chance),
    st.integers(0, 2**32),
)
def test_no_response_to_us_is_ever_reset(conditions: Conditions, seed: int) -> None:
    """Those to requests that were given up apart: nobody knows them any more."""
    world = World(conditions, random.Random(seed))
    outcomes = exchanges(world, 4)
    if all(outcome.payload is not None for outcome in outcomes):
        assert world.resets == []


def test_a_network_that_carries_nothing_costs_four_transmissions() -> None:
    world = World(Conditions(1.0, 0.0, 1.0, 0.0, 0.0), random.Random(1))
    (outcome,) = exchanges(world, 1)
    assert (outcome.payload, len(outcome.requests)) == (None, 4)
