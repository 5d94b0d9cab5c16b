"""The parser's shortcuts, for the commonest chunk and the middle of a line, change nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modems.bc66 import BC66
from modems.bc95g import BC95G
from nbiot.at import (
    Command,
    Dialect,
    Event,
    Final,
    Overflow,
    Parser,
    Prompt,
    Shape,
    Urc,
    UrcReceived,
)

from .feeding import NASTY, only, urcs

OK = b"\r\nOK\r\n"
COMMANDS = (
    Command(b"AT"),
    Command(b"AT+CSQ", Shape("+CSQ: <rssi:int>,<ber:int>"), 1, 1),
    Command(b"ATI", Shape("<text:line>"), 0, 20),
    Command(b"AT+QISEND=0,4", outcome=Shape("SEND <result>"), prompt=b">", payload=b"a>\r\n"),
    Command(b"AT+ODD", prompt=b"O", payload=b"x"),
    Command(b"AT+LONG", prompt=b"CONNECT", payload=b"x"),
    Command(b"AT+NRB", success=(b"REBOOTING",)),
)
SAID = (
    OK,
    b"CONNECT",
    b"\r\n+CSQ:18,99\r\n\r\nOK\r\n",
    b"O",
    b"\r\n>",
    b"long middle of a line",
    *NASTY,
)
# What happens, in any order: a command begins or is given up, debts are written off, bytes come.
steps = st.lists(
    st.sampled_from(COMMANDS)
    | st.sampled_from(["abandon", "settle", "end of boot", "give up"])
    # OK is what the shortcut is for, so it comes often.
    | st.just(OK)
    | st.sampled_from(SAID),
    max_size=20,
)


def play(
    dialect: Dialect, todo: list[Command | str | bytes], *, piece: int, **options: bool
) -> list[object]:
    """The events, what is left and what is owed when bytes come in pieces of ``piece``."""
    parser = Parser(dialect, **options)
    events: list[Event] = []
    owed = []
    for step in todo:
        if isinstance(step, Command):
            parser.begin(step)
        elif isinstance(step, bytes):
            for at in range(0, len(step), piece):
                events += parser.feed(step[at : at + piece])
        elif step == "abandon":
            parser.abandon()
        elif step == "settle":
            parser.settle()
        elif step == "end of boot":
            parser.end_of_boot()
        else:
            events += parser.give_up_data()
        owed.append((parser.owes, parser.booting, parser.prompt_due, parser.awaits_data))
        assert parser.unsettled or not (parser.owes or parser.booting)
    fed = b"".join(step for step in todo if isinstance(step, bytes))
    assert b"".join(event.raw for event in events) + parser.buffered == fed
    return [*events, parser.buffered, owed]


@given(st.sampled_from([BC66.dialect, BC95G.dialect]), steps, st.booleans())
def test_pieces_do_not_matter_whatever_happens_between_them(
    dialect: Dialect, todo: list[Command | str | bytes], require_echo: bool
) -> None:
    whole, *cut = (
        play(dialect, todo, piece=piece, require_echo=require_echo) for piece in (9999, 5, 1)
    )
    assert cut == [whole, whole]


def test_the_lf_that_is_left_goes_in_front_of_the_next_ok() -> None:
    parser = Parser(BC95G.dialect)
    for raw in (b"\r\nOK\r", b"\n\r\nOK\r", b"\n\r\nOK\r"):
        parser.begin(COMMANDS[0])
        assert parser.feed(OK) == [Final(raw, ok=True, done=True)]
        assert parser.buffered == b"\n"


@pytest.mark.parametrize("left", [b"\r", b"\xff", b"+CSQ:1", b"\n\n"])
def test_an_ok_behind_something_else_is_read_like_any_line(left: bytes) -> None:
    whole, pieces = (play(BC95G.dialect, [COMMANDS[0], left, OK], piece=piece) for piece in (99, 1))
    assert whole == pieces


def test_data_that_is_announced_by_a_line_like_ok_is_data() -> None:
    odd = Urc("odd", "OKAY <length:int>", "test", data="length")
    short = replace(odd, notation="O<length:int>")
    for urc, said in ((odd, b"OKAY 2\r\nab"), (short, b"O2\r\nab")):
        parser = Parser(replace(BC66.dialect, urcs=(urc,)))
        parser.begin(COMMANDS[0])
        assert len(only(Final, parser.feed(OK))) == 1
        assert urcs(parser.feed(said)) == [("odd", {"length": 2}, b"ab")]


def test_an_ok_ends_a_line_that_was_too_long() -> None:
    parser = Parser(BC95G.dialect, limit=8)
    parser.begin(COMMANDS[0])
    assert parser.feed(b"x" * 9) == [Overflow(b"x" * 9)]
    assert parser.feed(OK) == [Overflow(b"\r"), Final(b"\n" + OK[2:-1], ok=True, done=True)]


def test_a_datagram_that_holds_only_an_ok_completes_nothing() -> None:
    parser = Parser(BC66.dialect)
    parser.begin(COMMANDS[0])
    events = parser.feed(b'\r\n+QIURC: "recv",0,6\r\n') + parser.feed(OK)
    assert [(type(event), event.raw[-6:]) for event in events] == [(UrcReceived, OK)]


def test_a_prompt_of_several_bytes_may_come_in_pieces() -> None:
    parser = Parser(BC66.dialect)
    parser.begin(Command(b"AT+LONG", prompt=b"CONNECT", payload=b"x"))
    assert not [event for i in b"\r\nCONNEC" for event in parser.feed(bytes([i]))]
    assert parser.feed(b"T") == [Prompt(b"\r\nCONNECT")]
