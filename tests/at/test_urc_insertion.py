"""A URC may come between any two lines: it is delivered once, and is in no answer."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modems.bc66 import BC66
from modems.bc95g import BC95G
from nbiot.at import Answer, Command, Dialect, Echo, Event, Final, Outcome, Parser, Prompt

from .commands import command_for
from .feeding import framed, nasty_bytes, only, urcs

BC95_DIALOGUES = {
    "AT": framed("OK"),
    "AT+CSQ": framed("+CSQ:18,99", "OK"),
    "AT+CEREG?": framed("+CEREG:5,1,213D,0318886E,9,,,,", "OK"),
    "AT+CGATT?": framed("+CGATT:1", "OK"),
    "AT+CGPADDR": b"\r\n+CGPADDR:0,10.14.13.64\r\nOK\r\n",
    "AT+CIMI": framed("460043193006443", "OK"),
    "AT+CFUN=1": framed("OK"),
    "AT+NUESTATS": b"\r\nSignal power:-819\r\nTotal power:-761\r\nCURRENT BAND :8\r\n\r\nOK\r\n",
    "AT+CGDCONT?": b'\r\n+CGDCONT:0,"IP",,,0\r\n+CGDCONT:1,"IP","ctnb",,0\r\n\r\nOK\r\n',
    "AT+NSOCR=DGRAM,17,0": framed("1", "OK"),
    "AT+NSOST=1,1.2.3.4,5683,48,00": framed("1,48", "OK"),
    "AT+NSORF=1,12": framed("1,1.2.3.4,16666,2,4F4B,0", "OK"),
    "AT+NSOCL=1": framed("+CME ERROR: 50"),
    "AT+QDNS=0,www.baidu.com": framed("OK", "+QDNS:111.13.100.91"),
    "AT+NRB": framed("REBOOTING"),
    "ATI": b"ATI\r\r\nQuectel\r\nBC95-B5\r\nRevision:BC95B5HBR01A02W16\r\n\r\nOK\r\n",
}
BC95_URCS = [
    ("+CEREG:1", "registration"),
    ("+CEREG:1,7871,0D09F951,9", "registration"),
    ("+CEREG:2,0000,00000000,9", "registration"),
    ("+CEREG:1,213D,0318886E,9,,,,", "registration"),
    ("+CSCON:1", "connection"),
    ("+NPSMR:1", "psm"),
    ("+NSONMI:1,1024", "announced"),
    ("+NSOSTR:1,101,1", "sent"),
    ("+NPING:8.8.8.8,52,2867", "ping"),
    ("+NPINGERR:1", "ping failed"),
    ("+QLWEVTIND:3", "lwm2m"),
    ("FIRMWARE DOWNLOADING", "firmware"),
]
BC66_DIALOGUES = {
    "AT+CEREG?": framed('+CEREG: 4,5,"0001","0000ABCD",9', "OK"),
    "AT+CSQ": framed("+CSQ: 10,0", "OK"),
    "AT+CGPADDR=1": framed("+CGPADDR: 1,10.0.0.7", "OK"),
    "AT+QENG=0": framed('+QENG: 0,3547,2,127,"490A65",-91,-21,-70,1,8,"3AD6",0,230', "OK"),
    "AT+CIMI": b"AT+CIMI\r" + framed("001010000000001", "OK"),
    'AT+QIOPEN=1,0,"UDP","1.2.3.4",5683,0,1': framed("OK", "+QIOPEN: 0,0"),
    "AT+QISEND=0,4": b"\r\n> " + framed("OK", "SEND OK"),
    "AT+QICLOSE=0": framed("OK", "CLOSE OK"),
    "ATE0": b"ATE0\r" + framed("OK"),
}
BC66_URCS = [
    ("+CEREG: 5", "registration"),
    ('+CEREG: 5,"0216","0153803F",9,0,0,"00100011","00101010"', "registration"),
    ("+CEREG: 2,,,,,0,0", "registration"),
    ("+CSCON: 1", "connection"),
    ("+IP: 10.0.0.7", "address"),
    ('+QIURC: "closed",0', "socket closed"),
    ("+CPIN: SIM PIN", "sim"),
    ("+QLWURC: reg,0", "lwm2m"),
    ("+QATWAKEUP", "awake"),
    ("+QIOPEN: 3,0", "opened"),
]
DIALOGUES = [
    *((BC95G.dialect, command_for(tx, BC95G.commands), rx) for tx, rx in BC95_DIALOGUES.items()),
    *((BC66.dialect, command_for(tx, BC66.commands), rx) for tx, rx in BC66_DIALOGUES.items()),
]
RESULTS = (Answer, Echo, Final, Outcome, Prompt)


def samples(dialect: Dialect) -> list[tuple[str, str]]:
    return BC66_URCS if dialect is BC66.dialect else BC95_URCS


def places(rx: bytes) -> list[int]:
    """Where a line begins, or would."""
    return [0, *(found.end() for found in re.finditer(rb"\r\n|\r(?!\n)", rx))]


def results(events: list[Event]) -> list[object]:
    return [
        (type(event).__name__, event.line, getattr(event, "fields", None))
        for event in only(Event, events)
        if isinstance(event, RESULTS)
    ]


def parse(dialect: Dialect, command: Command, rx: bytes) -> list[Event]:
    parser = Parser(dialect)
    parser.begin(command)
    return parser.feed(rx)


@pytest.mark.parametrize(
    ("dialect", "command", "rx"), DIALOGUES, ids=[str(command) for _, command, _ in DIALOGUES]
)
def test_a_urc_between_any_two_lines_is_delivered_once_and_in_no_answer(
    dialect: Dialect, command: Command, rx: bytes
) -> None:
    undisturbed = results(parse(dialect, command, rx))
    assert undisturbed
    for place in places(rx):
        for line, name in samples(dialect):
            events = parse(dialect, command, rx[:place] + framed(line) + rx[place:])
            assert results(events) == undisturbed, (place, line)
            assert [found for found, _, _ in urcs(events)] == [name], (place, line)


@pytest.mark.parametrize(
    ("dialect", "command", "rx"), DIALOGUES, ids=[str(command) for _, command, _ in DIALOGUES]
)
@settings(max_examples=25)
@given(draw=st.data())
def test_bursts_of_urcs_at_several_places_are_delivered_in_order(
    dialect: Dialect, command: Command, rx: bytes, draw: st.DataObject
) -> None:
    undisturbed = results(parse(dialect, command, rx))
    burst = st.lists(st.sampled_from(samples(dialect)), max_size=3)
    marks = [0, *places(rx)[1:], len(rx)]
    said, names = b"", []
    for begin, end in pairwise(marks):
        for line, name in draw.draw(burst):
            said += framed(line)
            names.append(name)
        said += rx[begin:end]
    events = parse(dialect, command, said)
    assert results(events) == undisturbed
    assert [found for found, _, _ in urcs(events)] == names


@pytest.mark.parametrize("tx", BC66_DIALOGUES)
@settings(max_examples=25)
@given(data=nasty_bytes, place=st.integers(0, 20))
def test_a_datagram_between_two_lines_is_read_by_length(tx: str, data: bytes, place: int) -> None:
    command, rx = command_for(tx, BC66.commands), BC66_DIALOGUES[tx]
    where = places(rx)[place % len(places(rx))]
    datagram = b'\r\n+QIURC: "recv",1,%d\r\n%s\r\n' % (len(data), data)
    events = parse(BC66.dialect, command, rx[:where] + datagram + rx[where:])
    assert results(events) == results(parse(BC66.dialect, command, rx))
    assert urcs(events) == [("datagram", {"socket": 1, "length": len(data)}, data)]


@pytest.mark.parametrize(("tx", "answer", "other"), [("AT+CFUN?", "+CFUN: 1", "+CFUN: 0")])
def test_a_urc_of_the_very_shape_of_the_answer_is_never_silently_the_answer(
    tx: str, answer: str, other: str
) -> None:
    command = replace(command_for(tx, BC66.commands))
    for lines in ((answer, other), (other, answer)):
        events = parse(BC66.dialect, command, framed(*lines, "OK"))
        assert [event.doubtful for event in only(Final, events)] == [True]
        assert len(urcs(events)) == 1
