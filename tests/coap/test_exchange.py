"""One exchange: datagrams and times in, datagrams out."""

from __future__ import annotations

import math
import random
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbiot.coap.exchange import EXCHANGE_LIFETIME, Answered, Exchange, Timing
from nbiot.errors import BadInput, NoResponse, ResponseReset

from .wire import ACK, AUTH, CHANGED, CON, EMPTY, GET, NON, POST, RST, UNAUTHORIZED, message

MID, TOKEN = 0x1234, bytes.fromhex("a1b2c3d4")
THEIRS = 0x7777  # a message id of the server's own
STRANGE = b"\x00\x01\x02\x03"

PIGGYBACKED = message(ACK, CHANGED, MID, TOKEN)
EMPTY_ACK = message(ACK, EMPTY, MID)
SEPARATE = message(CON, CHANGED, THEIRS, TOKEN)
SEPARATE_NON = message(NON, CHANGED, THEIRS, TOKEN)
ACK_OF_THEIRS = message(ACK, EMPTY, THEIRS)
RST_OF_THEIRS = message(RST, EMPTY, THEIRS)


def begun(timing: Timing | None = None, **options: Any) -> Exchange:
    """An exchange whose request was sent at time 0."""
    timing = timing or Timing(random_factor=1.0)
    exchange = Exchange(AUTH, MID, TOKEN, timing, **options)
    exchange.sent(0.0)
    return exchange


# --- the response -------------------------------------------------------------------------------


def test_a_piggybacked_response_ends_it() -> None:
    exchange = begun()
    assert exchange.received(message(ACK, CHANGED, MID, TOKEN, payload=b"hi"), 1.0) == []
    assert exchange.response is not None
    assert (exchange.response.code, exchange.response.payload) == (CHANGED, b"hi")
    assert exchange.dropped.reasons == {}


def test_a_refusal_is_a_response_too() -> None:
    exchange = begun()
    exchange.received(message(ACK, UNAUTHORIZED, MID, TOKEN), 1.0)
    assert exchange.response is not None
    assert exchange.response.code == UNAUTHORIZED


def test_an_empty_ack_stops_the_repeating_and_starts_the_wait_for_the_response() -> None:
    exchange = begun()
    assert exchange.received(EMPTY_ACK, 5.0) == []
    assert (exchange.acknowledged, exchange.response) == (True, None)
    assert exchange.deadline == 5.0 + Timing().response_timeout
    assert exchange.timed_out(60.0) == []


@pytest.mark.parametrize("acknowledged", [True, False])
def test_a_confirmable_response_is_acknowledged(acknowledged: bool) -> None:
    exchange = begun()
    if acknowledged:
        exchange.received(EMPTY_ACK, 1.0)
    assert exchange.received(SEPARATE, 2.0) == [ACK_OF_THEIRS]
    assert exchange.response is not None
    assert exchange.response.mid == THEIRS


@pytest.mark.parametrize("acknowledged", [True, False])
def test_a_non_confirmable_response_is_taken_in_silence(acknowledged: bool) -> None:
    exchange = begun()
    if acknowledged:
        exchange.received(EMPTY_ACK, 1.0)
    assert exchange.received(SEPARATE_NON, 2.0) == []
    assert exchange.response is not None


def test_an_ack_that_comes_after_the_response_changes_nothing() -> None:
    exchange = begun()
    exchange.received(SEPARATE, 1.0)
    response = exchange.response
    assert exchange.received(EMPTY_ACK, 2.0) == []
    assert exchange.response is response
    assert not exchange.acknowledged


def test_a_second_ack_does_not_prolong_the_wait() -> None:
    exchange = begun()
    exchange.received(EMPTY_ACK, 1.0)
    exchange.received(EMPTY_ACK, 50.0)
    assert exchange.deadline == 1.0 + Timing().response_timeout


def test_a_request_that_was_acknowledged_while_it_went_out_again_is_not_repeated() -> None:
    exchange = begun()
    assert exchange.timed_out(15.0) == [AUTH]
    exchange.received(EMPTY_ACK, 15.5)
    exchange.sent(16.0)
    assert exchange.deadline == 15.5 + Timing().response_timeout


def test_a_repeated_separate_response_is_acknowledged_again() -> None:
    exchange = begun()
    assert [exchange.received(SEPARATE, t) for t in (1.0, 3.0, 7.0)] == [[ACK_OF_THEIRS]] * 3
    assert exchange.dropped.reasons == {}


def test_the_first_response_counts() -> None:
    exchange = begun()
    exchange.received(PIGGYBACKED, 1.0)
    assert exchange.received(message(ACK, UNAUTHORIZED, MID, TOKEN), 2.0) == []
    assert exchange.received(message(CON, UNAUTHORIZED, THEIRS, TOKEN), 2.0) == [ACK_OF_THEIRS]
    assert exchange.response is not None
    assert exchange.response.code == CHANGED


def test_a_late_repetition_of_the_response_before_is_acknowledged_not_reset() -> None:
    answered = Answered(maxlen=8)
    Exchange(AUTH, MID, TOKEN, Timing(), answered=answered).received(SEPARATE, 1.0)
    exchange = Exchange(AUTH, MID + 1, b"other", Timing(), answered=answered)
    assert exchange.received(SEPARATE, 2.0) == [ACK_OF_THEIRS]
    assert exchange.response is None
    assert sum(exchange.dropped.reasons.values()) == 1


def test_a_reset_ends_it() -> None:
    with pytest.raises(ResponseReset, match="RST") as caught:
        begun().received(message(RST, EMPTY, MID), 1.0)
    assert caught.value.exit_code == 41


# --- what is not the response -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        pytest.param(message(ACK, CHANGED, MID + 1, TOKEN), [], id="ack of another message"),
        pytest.param(message(ACK, EMPTY, MID - 1), [], id="empty ack of another message"),
        pytest.param(message(ACK, CHANGED, MID, STRANGE), [], id="ack with another token"),
        pytest.param(message(ACK, CHANGED, MID), [], id="ack without token"),
        pytest.param(message(ACK, CHANGED, MID, TOKEN[:3]), [], id="ack with a part of the token"),
        pytest.param(message(ACK, CHANGED, MID, TOKEN + b"\0"), [], id="ack with a longer token"),
        pytest.param(message(ACK, POST, MID, TOKEN), [], id="request in an ack"),
        pytest.param(message(ACK, 0x61, MID, TOKEN), [], id="reserved class in an ack"),
        pytest.param(message(ACK, CHANGED, MID, TOKEN, [(9, b"")]), [], id="critical option"),
        pytest.param(
            message(CON, CHANGED, THEIRS, TOKEN, [(9, b"")]), [RST_OF_THEIRS], id="critical, CON"
        ),
        pytest.param(message(NON, CHANGED, THEIRS, TOKEN, [(9, b"")]), [], id="critical, NON"),
        pytest.param(message(CON, CHANGED, THEIRS, STRANGE), [RST_OF_THEIRS], id="another's, CON"),
        pytest.param(message(NON, CHANGED, THEIRS, STRANGE), [], id="another's, NON"),
        pytest.param(message(CON, CHANGED, MID, STRANGE), [message(RST, 0, MID)], id="our mid"),
        pytest.param(message(CON, EMPTY, THEIRS), [RST_OF_THEIRS], id="ping"),
        pytest.param(message(NON, EMPTY, THEIRS), [], id="empty NON"),
        pytest.param(message(CON, GET, THEIRS, TOKEN), [RST_OF_THEIRS], id="request"),
        pytest.param(message(NON, GET, THEIRS, TOKEN), [], id="NON request"),
        pytest.param(message(CON, 0x61, THEIRS, TOKEN), [RST_OF_THEIRS], id="reserved class, CON"),
        pytest.param(message(RST, EMPTY, MID + 1), [], id="reset of another message"),
        pytest.param(message(RST, CHANGED, MID, TOKEN), [], id="reset with a response"),
        pytest.param(b"", [], id="nothing"),
        pytest.param(PIGGYBACKED[:3], [], id="cut in its header"),
        pytest.param(PIGGYBACKED[:6], [], id="cut in its token"),
        pytest.param(PIGGYBACKED + b"\xff", [], id="marker without payload"),
        pytest.param(PIGGYBACKED + b"\xef\x00", [], id="broken option"),
        pytest.param(SEPARATE + b"\xff", [RST_OF_THEIRS], id="malformed CON"),
        pytest.param(SEPARATE_NON + b"\xff", [], id="malformed NON"),
        pytest.param(b"\x80" + SEPARATE[1:], [], id="another version"),
    ],
)
def test_what_is_not_the_response_is_dropped_and_counted(data: bytes, answer: list[bytes]) -> None:
    exchange = begun()
    assert exchange.received(data, 1.0) == answer
    assert (exchange.response, exchange.acknowledged) == (None, False)
    assert sum(exchange.dropped.reasons.values()) == 1
    assert exchange.deadline == 15.0
    exchange.received(PIGGYBACKED, 2.0)  # and the true one is still taken
    assert exchange.response is not None


@given(st.binary(max_size=40) | st.binary(max_size=20).map(lambda tail: PIGGYBACKED + tail))
def test_nothing_random_is_a_response_with_another_token_or_breaks_it(data: bytes) -> None:
    exchange = begun()
    if data == message(RST, EMPTY, MID):
        return
    exchange.received(data, 1.0)
    if exchange.response is not None:
        assert data[4:8] == TOKEN
        assert data[0] & 0x0F == len(TOKEN)


def test_the_error_tells_what_was_dropped() -> None:
    exchange = begun(Timing(max_retransmit=0))
    for _ in range(2):
        exchange.received(message(ACK, CHANGED, MID, STRANGE), 1.0)
    exchange.received(b"?", 1.0)
    with pytest.raises(NoResponse, match=r"2 response with another token, 1 malformed"):
        exchange.timed_out(1000.0)


# --- times --------------------------------------------------------------------------------------


def transmissions(exchange: Exchange) -> list[float]:
    """When the request goes out to a server that never answers."""
    times = [0.0]
    while True:
        now = exchange.deadline
        try:
            datagrams = exchange.timed_out(now)
        except NoResponse:
            return [*times, now]
        assert datagrams == [AUTH]  # byte for byte: the same message id and token
        exchange.sent(now)
        times.append(now)


def test_the_times_double() -> None:
    assert transmissions(begun()) == [0.0, 15.0, 45.0, 105.0, 225.0]


def test_the_number_of_repetitions_is_kept() -> None:
    assert transmissions(begun(Timing(1.0, 1.0, 0))) == [0.0, 1.0]
    assert transmissions(begun(Timing(1.0, 1.0, 2))) == [0.0, 1.0, 3.0, 7.0]


@given(st.integers())
def test_the_first_repetition_comes_after_15_to_22_5_seconds(seed: int) -> None:
    exchange = begun(Timing(), rng=random.Random(seed))
    assert 15.0 <= exchange.deadline <= 22.5


def test_the_first_timeout_is_spread() -> None:
    found = {begun(Timing(), rng=random.Random(seed)).deadline for seed in range(20)}
    assert len(found) == 20
    assert max(found) - min(found) > 3.0


def test_the_spread_is_drawn_once() -> None:
    times = transmissions(begun(Timing(), rng=random.Random(7)))
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert gaps == pytest.approx([gaps[0] * 2**n for n in range(4)])


def test_the_time_begins_when_the_modem_has_taken_the_datagram() -> None:
    exchange = Exchange(AUTH, MID, TOKEN, Timing(random_factor=1.0))
    assert exchange.deadline == math.inf
    assert exchange.timed_out(1e9) == []
    exchange.sent(100.0)
    assert exchange.deadline == 115.0


def test_nothing_is_repeated_before_its_time() -> None:
    exchange = begun()
    assert exchange.timed_out(14.999) == []
    assert exchange.retransmissions == 0


@pytest.mark.parametrize(
    ("retransmit", "words"), [(0, "to 1 transmission"), (3, "to 4 transmissions")]
)
def test_giving_up_says_how_often_it_was_tried(retransmit: int, words: str) -> None:
    exchange = begun(Timing(max_retransmit=retransmit))
    for _ in range(retransmit):
        exchange.timed_out(exchange.deadline)
        exchange.sent(exchange.deadline)
    with pytest.raises(NoResponse) as caught:
        exchange.timed_out(exchange.deadline)
    assert caught.value.exit_code == 40
    assert caught.value.message.endswith(words)
    assert "APN" in caught.value.hint


def test_an_acknowledged_request_without_response_is_given_up() -> None:
    exchange = begun(Timing(response_timeout=20.0))
    exchange.received(EMPTY_ACK, 3.0)
    assert exchange.timed_out(22.9) == []
    with pytest.raises(NoResponse, match=r"acknowledged the request, but .* within 20 s"):
        exchange.timed_out(23.0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("ack_timeout", v) for v in (0.0, 0.049, -1.0, 601.0, math.inf, math.nan)],
        *[("random_factor", v) for v in (0.99, -1.0, 10.1, math.inf, math.nan)],
        *[("max_retransmit", v) for v in (-1, 21, 1.5, math.nan, True)],
        *[("backoff", v) for v in (0.9, 3.1, math.nan)],
        *[("response_timeout", v) for v in (0.0, -1.0, 3601.0, math.inf, math.nan)],
    ],
)
def test_times_out_of_bounds_are_named(field: str, value: Any) -> None:
    with pytest.raises(BadInput) as caught:
        Timing(**{field: value})
    assert caught.value.field == field


def test_times_at_the_bounds_are_taken() -> None:
    Timing(0.05, 1, 0, 0.05)
    Timing(600, 10, 0, 3600)
    Timing(0.05, 1, 20, backoff=1)


def test_waits_grow_by_the_given_factor() -> None:
    assert transmissions(begun(Timing(10.0, 1.0, 2, backoff=1.5))) == [0.0, 10.0, 25.0, 47.5]


def test_no_repetition_may_come_when_the_server_has_forgotten_the_message_id() -> None:
    assert Timing().span == pytest.approx(15 * 1.5 * 7)
    assert Timing(15.0, 1.0, 4).span == 225.0
    with pytest.raises(BadInput, match="takes it twice"):
        Timing(max_retransmit=4)


@given(st.floats(0.05, 600), st.floats(1, 10), st.integers(0, 20), st.floats(1, 3), st.integers())
def test_the_last_repetition_comes_within_the_span(
    timeout: float, factor: float, retransmit: int, backoff: float, seed: int
) -> None:
    try:
        timing = Timing(timeout, factor, retransmit, backoff=backoff)
    except BadInput:
        return
    *repetitions, _ = transmissions(begun(timing, rng=random.Random(seed)))
    assert repetitions[-1] <= timing.span * (1 + 1e-9) <= EXCHANGE_LIFETIME * (1 + 1e-9)
