"""The datagrams in a dialogue."""

from __future__ import annotations

import pytest

from nbiot.datagrams import datagrams, in_dialogue
from nbiot.trace import read_trace

from .samples import REPLAYS, trace_of

SERVER = ("203.0.113.5", 5683)


def test_nsost_and_nsorf_carry_datagrams_as_digits() -> None:
    trace = trace_of(
        "> AT+CGPADDR",
        "< +CGPADDR:0,10.3.2.1 [answer]",
        "> AT+NSOCR=DGRAM,17,4000",
        "< 2 [answer]",
        "< OK [final]",
        "> AT+NSOST=2,203.0.113.5,5683,3,A1b2C3",
        "> AT+NSOSTF=2,203.0.113.5,5683,0x400,2,D4E5",
        "> AT+NSOST=2,203.0.113.5,5683,2,F6F7,101",
        "> AT+NSORF=2,512",
        "< 2,203.0.113.5,5683,2,0102,0 [answer]",
        "> AT+NSORF=2,512",
        "< +NSORF: 2,203.0.113.5,5683,2,0304,0 [answer]",
    )
    own = ("10.3.2.1", 4000)
    assert [(d.source, d.target, d.data.hex()) for d in datagrams(trace.records)] == [
        (own, SERVER, "a1b2c3"),
        (own, SERVER, "d4e5"),
        (own, SERVER, "f6f7"),
        (SERVER, own, "0102"),
        (SERVER, own, "0304"),
    ]


def test_a_datagram_read_in_pieces_is_one() -> None:
    trace = trace_of(
        "> AT+NSORF=0,2",
        "< 0,203.0.113.5,5683,2,0102,1 [answer]",
        "< OK [final]",
        "> AT+NSORF=0,2",
        "< 0,203.0.113.5,5683,1,03,0 [answer]",
    )
    (found,) = datagrams(trace.records)
    assert found.data == b"\1\2\3"
    assert (found.record, found.whole) == (trace.records[1], trace.records[4])
    assert found.own == ("10.0.0.1", 49152)


def test_qisend_and_qiurc_carry_datagrams_as_bytes() -> None:
    trace = trace_of(
        '> AT+QIOPEN=1,3,"UDP","203.0.113.5",5683,0,1',
        "< +QIOPEN: 3,0 [outcome]",
        "> AT+QISEND=3,6",
        b"< \r\n>",
        b"> AT\r\n\x00\xff",
        b'< \r\n+QIURC: "recv",3,4\r\n\r\n>\x80',
    )
    up, down = datagrams(trace.records)
    assert (up.way, up.peer, up.data) == ("up", SERVER, b"AT\r\n\x00\xff")
    assert (down.way, down.peer, down.data) == ("down", SERVER, b"\r\n>\x80")
    assert up.own == ("10.0.0.1", 49155)


@pytest.mark.parametrize(
    "lines",
    [
        ["> AT+NSOST=0,203.0.113.5,5683,3,0102"],  # another length than announced
        ["> AT+NSOST=0,203.0.113.5,5683,1,0g"],
        ["> AT+NSOST=0,203.0.113.999,5683,1,01"],
        ["> AT+NSOST=0,203.0.113.5,70000,1,01"],
        ["> AT+NSORF=0,512", "< 0,203.0.113.5,5683,2,01,0 [answer]"],
        ["> AT+CSQ", "< 0,203.0.113.5,5683,1,01,0 [unknown]"],
        ["> AT+QISEND=0,2", b"> ab"],  # to whom?
        [
            '> AT+QIOPEN=1,0,"UDP","203.0.113.5",5683,0,1',
            "> AT+QISEND=0,2",
            "> AT+CSQ",  # the prompt never came
        ],
        ['> AT+QIOPEN=1,0,"TCP","203.0.113.5",5683,0,1', "> AT+QISEND=0,2", b"> ab"],
        [b'< \r\n+QIURC: "recv",0,4\r\nabcd'],
    ],
)
def test_what_is_not_surely_a_datagram_is_none(lines: list[str | bytes]) -> None:
    assert datagrams(trace_of(*lines).records) == []


def test_noted_datagrams_are_taken_instead_of_guessing() -> None:
    trace = trace_of(
        "- datagram up 203.0.113.5:5683 0102",
        "> AT+NSOST=0,203.0.113.5,5683,2,0102",
        "- datagram down 203.0.113.5:5683 0304",
        "- datagram down 203.0.113.999:5683 0304",
    )
    found = [(d.way, d.peer, d.data.hex()) for d in datagrams(trace.records)]
    assert found == [("up", SERVER, "0102"), ("down", SERVER, "0304")]
    assert len(in_dialogue(trace.records)) == 1


@pytest.mark.parametrize("name", [n for n in REPLAYS if "native" not in n and "sim" not in n])
def test_an_authentication_has_its_request_and_its_answer(name: str) -> None:
    trace = read_trace(REPLAYS[name])
    found = datagrams(trace.records)
    expect = trace.header["expect"]
    if expect["what"] == "auth":
        assert found[0].way == "up"
        assert b"\xb4auth\x08KV315idW" in found[0].data
        assert {d.way for d in found} == ({"up", "down"} if expect["result"] == "ok" else {"up"})
