"""Telnet without a line: any bytes, in any pieces."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbiot.link.telnet import (
    BINARY,
    COM_PORT,
    DO,
    DONT,
    ECHO,
    IAC,
    LONGEST,
    SB,
    SE,
    WILL,
    WONT,
    Decoder,
    Negotiator,
    TelnetError,
    Told,
    command,
    escape,
)

# Bytes that mean something are frequent.
BYTES = st.lists(
    st.sampled_from([0, 10, 13, SE, SB, WILL, DO, IAC]) | st.integers(0, 255), max_size=40
).map(bytes)
VERBS = st.sampled_from([DO, DONT, WILL, WONT])
COMMANDS = st.builds(Told, VERBS, st.integers(0, 255), st.just(b"")) | st.builds(
    Told, st.just(SB), st.integers(0, 254), BYTES
)
PIECES = st.lists(BYTES.filter(bool) | COMMANDS, max_size=12)


def merged(pieces: list[bytes | Told]) -> list[bytes | Told]:
    """Neighbouring data as one piece."""
    whole: list[bytes | Told] = []
    for piece in pieces:
        if whole and isinstance(piece, bytes) and isinstance(whole[-1], bytes):
            whole[-1] += piece
        else:
            whole.append(piece)
    return whole


def on_the_wire(pieces: list[bytes | Told]) -> bytes:
    return b"".join(escape(p) if isinstance(p, bytes) else command(p) for p in pieces)


@given(pieces=PIECES, cuts=st.lists(st.integers(0, 1000), max_size=20))
def test_round_trip_in_any_pieces(pieces: list[bytes | Told], cuts: list[int]) -> None:
    wire = on_the_wire(pieces)
    bounds = sorted({0, len(wire), *(cut % (len(wire) + 1) for cut in cuts)})
    decoder = Decoder()
    heard = [part for a, b in pairwise(bounds) for part in decoder.feed(wire[a:b])]
    assert merged(heard) == merged(pieces)


@given(pieces=PIECES)
def test_round_trip_byte_by_byte(pieces: list[bytes | Told]) -> None:
    decoder = Decoder()
    heard = [part for byte in on_the_wire(pieces) for part in decoder.feed(bytes([byte]))]
    assert merged(heard) == merged(pieces)


@given(BYTES)
def test_anything_can_be_fed(junk: bytes) -> None:
    whole, bytewise = Decoder(), Decoder()
    assert merged(whole.feed(junk)) == merged(
        [part for byte in junk for part in bytewise.feed(bytes([byte]))]
    )


@given(BYTES)
def test_data_with_commands_that_mean_nothing_here(data: bytes) -> None:
    """No operation, go ahead, are you there: taken out."""
    wire = b"\xff\xf1".join(escape(bytes([byte])) for byte in data) + b"\xff\xf9"
    assert b"".join(Decoder().feed(wire)) == data  # type: ignore[arg-type]


def test_vectors() -> None:
    """From RFC 2217's own wire format, and ser2net's greeting as captured."""
    baud = Told(SB, COM_PORT, b"\x01\x00\x00\x25\x80")
    assert command(baud) == bytes.fromhex("fffa2c0100002580fff0")
    assert Decoder().feed(bytes.fromhex("fffb03fffd0341ffff42")) == [
        Told(WILL, 3),
        Told(DO, 3),
        b"A\xffB",
    ]
    # A value with 0xFF before 0xF0 is no end.
    tricky = Told(SB, COM_PORT, b"\x01\x00\x00\xff\xf0")
    assert command(tricky) == bytes.fromhex("fffa2c010000fffff0fff0")
    assert Decoder().feed(command(tricky)) == [tricky]


def test_endless_command_is_refused() -> None:
    decoder = Decoder()
    decoder.feed(bytes([IAC, SB, COM_PORT]))
    decoder.feed(bytes(LONGEST - 3))
    with pytest.raises(TelnetError, match="1024"):
        decoder.feed(b"x")


def negotiator() -> Negotiator:
    return Negotiator(us=frozenset({BINARY, COM_PORT}), them=frozenset({BINARY}))


def test_begin_asks_for_all() -> None:
    asked = Decoder().feed(negotiator().begin())
    assert set(asked) == {Told(WILL, BINARY), Told(WILL, COM_PORT), Told(DO, BINARY)}


def test_an_answer_is_not_answered() -> None:
    ours = negotiator()
    assert not ours.we_do(COM_PORT)
    assert ours.answer(Told(DO, COM_PORT)) == b""
    assert ours.answer(Told(WILL, BINARY)) == b""
    assert ours.we_do(COM_PORT)
    assert ours.they_do(BINARY)
    assert not ours.we_do(BINARY)


def test_what_is_not_wanted_is_refused() -> None:
    ours = negotiator()
    assert ours.answer(Told(WILL, ECHO)) == command(Told(DONT, ECHO))
    assert ours.answer(Told(DO, ECHO)) == command(Told(WONT, ECHO))
    assert ours.answer(Told(WONT, ECHO)) == b""
    assert not ours.they_do(ECHO)


def test_ended_and_begun_again() -> None:
    ours = negotiator()
    ours.answer(Told(DO, COM_PORT))
    assert ours.answer(Told(DONT, COM_PORT)) == command(Told(WONT, COM_PORT))
    assert not ours.we_do(COM_PORT)
    assert ours.answer(Told(DO, COM_PORT)) == command(Told(WILL, COM_PORT))
    assert ours.we_do(COM_PORT)


REQUESTS = st.builds(Told, VERBS, st.integers(1, 43), st.just(b""))


# Each option once: who takes a request back before it was answered argues for ever (RFC 1143).
@given(st.lists(REQUESTS, unique_by=lambda told: told.option))
def test_two_ends_never_argue_for_ever(opening: list[Told]) -> None:
    one, other = negotiator(), negotiator()
    to_other = one.begin() + b"".join(map(command, opening))
    to_one = other.begin()
    for _ in range(4):
        answers = [b"", b""]
        for side, (end, wire) in enumerate(((other, to_other), (one, to_one))):
            for told in Decoder().feed(wire):
                assert isinstance(told, Told)
                answers[side] += end.answer(told)
        to_one, to_other = answers
    assert to_one == to_other == b""
