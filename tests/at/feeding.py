"""Helpers that feed a parser and look at what comes out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TypeVar

from hypothesis import strategies as st

from nbiot.at import Answer, Command, Dialect, Event, Fields, Outcome, Parser, UrcReceived

E = TypeVar("E", bound=Event)

NASTY = (
    b"\r\nOK\r\n",
    b"ERROR\r",
    b'+QIURC: "recv",0,3\r\nabc',
    b'\r\n+QIURC: "closed",1\r\n',
    b'\r\n+QIURC: "recv",1,20\r\n',
    b"> ",
    b'"',
    b"\r\nREBOOT_CAUSE_APPLICATION_AT\r\nNeul \r\nOK\r\n",
    b"\n\rF1: 0000 0000\n\rLeaving the BROM\n\r",
    b"\r\n+CEREG:1,1\r\n",
    b"AT+CEREG?\r",
    b"\x00",
    b"\xff",
    b"\r",
    b"\n",
    b"1,48",
    b"SEND OK\r\n",
)
nasty_bytes = st.lists(st.sampled_from(NASTY) | st.binary(max_size=8), max_size=12).map(b"".join)


def chunked(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """``data`` cut at ``cuts``."""
    marks = [0, *sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]
    return [data[a:b] for a, b in pairwise(marks)]


def feed(parser: Parser, chunks: Iterable[bytes]) -> list[Event]:
    return [event for chunk in chunks for event in parser.feed(chunk)]


def events_of(
    dialect: Dialect, command: Command | None, data: bytes, cuts: Sequence[int] = ()
) -> list[Event]:
    parser = Parser(dialect)
    if command is not None:
        parser.begin(command)
    return feed(parser, chunked(data, cuts))


def only(kind: type[E], events: Iterable[Event]) -> list[E]:
    return [event for event in events if isinstance(event, kind)]


def answers(events: Iterable[Event]) -> list[Fields]:
    return [event.fields for event in only(Answer, events)]


def outcomes(events: Iterable[Event]) -> list[Fields]:
    return [event.fields for event in only(Outcome, events)]


def urcs(events: Iterable[Event]) -> list[tuple[str, Fields, bytes | None]]:
    return [(event.name, event.fields, event.data) for event in only(UrcReceived, events)]


def framed(*lines: str) -> bytes:
    """Each line as the modems frame it."""
    return b"".join(b"\r\n" + line.encode() + b"\r\n" for line in lines)
