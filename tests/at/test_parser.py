"""The parser on its own: conservation of bytes, kinds of lines, noise, floods."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modems.bc66 import BC66
from modems.bc95 import BC95
from modems.bc95g import BC95G
from nbiot.at import (
    Answer,
    BootLine,
    Command,
    Dialect,
    Early,
    Echo,
    Event,
    Final,
    Orphan,
    Outcome,
    Overflow,
    Parser,
    Prompt,
    Shape,
    Truncated,
    Unknown,
    Urc,
    UrcReceived,
)

from .feeding import answers, chunked, events_of, feed, framed, nasty_bytes, only, urcs

BOTH = Dialect.union([BC95.dialect, BC66.dialect])
AT = Command(b"AT")
CSQ = Command(b"AT+CSQ", Shape("+CSQ: <rssi:int>,<ber:int>"), 1, 1)
NUMBER = Command(b"AT+CIMI", Shape("<imsi:digits>"), 1, 1)
TEXT = Command(b"ATI", Shape("<text:line>"), 0, 20)
SEND = Command(b"AT+QISEND=0,4", outcome=Shape("SEND <result>"), prompt=b">", payload=b"a>\r\n")
COMMANDS = (None, AT, CSQ, NUMBER, TEXT, SEND)


def kinds(events: Sequence[Event]) -> list[str]:
    return [type(event).__name__ for event in events]


@given(st.sampled_from(COMMANDS), nasty_bytes, st.lists(st.integers(0, 10_000), max_size=8))
def test_every_byte_leaves_in_exactly_one_event(
    command: Command | None, data: bytes, cuts: list[int]
) -> None:
    parser = Parser(BOTH, limit=64)
    if command is not None:
        parser.begin(command)
    events = feed(parser, chunked(data, cuts))
    assert b"".join(event.raw for event in events) + parser.buffered == data
    assert len(parser.buffered) <= 64 + 64


@given(
    st.sampled_from(COMMANDS),
    nasty_bytes,
    st.lists(st.integers(0, 10_000), max_size=8),
    st.booleans(),
)
def test_chunks_do_not_matter(
    command: Command | None, data: bytes, cuts: list[int], abandoned: bool
) -> None:
    def run(cuts: list[int]) -> list[object]:
        parser = Parser(BOTH)
        if command is not None:
            parser.begin(command)
        if abandoned:
            parser.abandon()
        return [*feed(parser, chunked(data, cuts)), parser.buffered, parser.owes, parser.booting]

    assert run(cuts) == run([]) == run(list(range(len(data))))


@given(nasty_bytes, st.lists(st.integers(0, 10_000), max_size=8))
def test_giving_data_up_loses_no_byte(data: bytes, cuts: list[int]) -> None:
    header = b'\r\n+QIURC: "recv",0,500\r\n'
    parser = Parser(BC66.dialect)
    events = feed(parser, chunked(header + data, cuts))
    assert not events
    assert parser.awaits_data
    events = parser.give_up_data()
    assert isinstance(events[0], Truncated)
    assert b"".join(event.raw for event in events) + parser.buffered == header + data


def test_giving_up_data_that_is_not_awaited_does_nothing() -> None:
    parser = Parser(BC66.dialect)
    parser.feed(b'+QIURC: "recv",0')
    assert parser.give_up_data() == []
    assert urcs(parser.feed(b",2\r\nxy")) == [("datagram", {"socket": 0, "length": 2}, b"xy")]


@pytest.mark.parametrize("end", [b"\r\n", b"\n\r", b"\r", b"\n", b"\r\r\n", b"\r\n\r\n"])
def test_all_line_ends_are_line_ends(end: bytes) -> None:
    data = end + b"+CSQ:18,99" + end + b"OK" + end
    events = events_of(BC95.dialect, CSQ, data)
    assert answers(events) == [{"rssi": 18, "ber": 99}]
    assert only(Final, events)[0].ok


def test_a_result_counts_at_its_cr() -> None:
    assert kinds(events_of(BC95.dialect, AT, b"\r\nOK\r")) == ["Final"]


def test_the_echo_is_neither_an_answer_nor_unknown() -> None:
    data = b"ATI\r\r\nQuectel\r\nBC95-B5\r\n\r\nOK\r\n"
    events = events_of(BC95.dialect, TEXT, data)
    assert kinds(events) == ["Echo", "Answer", "Answer", "Final"]
    assert events[0].raw == b"ATI\r"


def test_a_second_echo_is_not_an_echo() -> None:
    assert kinds(events_of(BC95.dialect, AT, b"AT\rAT\r")) == ["Echo", "Unknown"]


def test_with_require_echo_nothing_is_an_answer_before_the_echo() -> None:
    parser = Parser(BC95.dialect, require_echo=True)
    parser.begin(CSQ)
    late = parser.feed(framed("+CSQ:1,1", "OK"))
    assert not only(Answer, late)
    assert not only(Final, late)
    own = parser.feed(b"AT+CSQ\r" + framed("+CSQ:2,2", "OK"))
    assert answers(own) == [{"rssi": 2, "ber": 2}]
    assert only(Final, own)[0].ok


def test_with_require_echo_a_prompt_before_the_echo_is_not_ours() -> None:
    parser = Parser(BC66.dialect, require_echo=True)
    parser.begin(SEND)
    assert kinds(parser.feed(b"\r\n> ")) == ["Orphan"]
    assert kinds(parser.feed(b"\r\nAT+QISEND=0,4\r\r\n> ")) == ["Echo", "Prompt"]


def test_ok_without_the_line_that_must_come_is_early_and_completes_nothing() -> None:
    events = events_of(BC95.dialect, CSQ, framed("OK", "+CSQ:2,3", "OK"))
    assert kinds(events) == ["Early", "Answer", "Final"]


def test_ok_before_the_prompt_is_early_and_completes_nothing() -> None:
    command = Command(b"AT+QCOAPSEND=0,2,1.2.3.4,5683", prompt=b">", payload=b"x\x1a")
    parser = Parser(BC66.dialect)
    parser.begin(command)
    assert kinds(parser.feed(framed("OK") + b"\r\n> ")) == ["Early", "Prompt"]
    assert kinds(parser.feed(framed("OK"))) == ["Final"]


def test_a_refusal_needs_neither_line_nor_prompt() -> None:
    for command in (CSQ, SEND):
        final = only(Final, events_of(BC66.dialect, command, framed("+CME ERROR: 50")))
        assert [(event.ok, event.done) for event in final] == [(False, True)]


def test_no_more_lines_than_declared_are_answers() -> None:
    events = events_of(BC95.dialect, CSQ, framed("+CSQ:1,1", "+CSQ:2,2", "OK"))
    assert answers(events) == [{"rssi": 1, "ber": 1}]
    assert kinds(events) == ["Answer", "Unknown", "Final"]


def test_a_line_after_the_final_result_is_no_answer() -> None:
    events = events_of(BC95.dialect, CSQ, framed("+CSQ:1,1", "OK", "+CSQ:2,2", "OK"))
    assert kinds(events) == ["Answer", "Final", "Unknown", "Orphan"]


def test_free_text_takes_no_line_with_a_plus() -> None:
    events = events_of(BC95.dialect, TEXT, framed("BC95", "+FOO: 1", "+CSCON:1", "OK"))
    assert kinds(events) == ["Answer", "Unknown", "UrcReceived", "Final"]


def test_a_line_between_ok_and_the_second_result_is_no_answer() -> None:
    command = Command(b"AT+X", Shape("+X: <n:int>"), 0, 2, outcome=Shape("DONE"))
    events = events_of(BC95.dialect, command, framed("+X: 1", "OK", "+X: 2", "DONE"))
    assert kinds(events) == ["Answer", "Final", "Unknown", "Outcome"]


def test_after_data_was_given_up_the_next_datagram_is_read() -> None:
    parser = Parser(BC66.dialect)
    parser.feed(b'\r\n+QIURC: "recv",0,500\r\nabc')
    parser.give_up_data()
    events = parser.feed(b'\r\n+QIURC: "recv",0,2\r\nxy')
    assert kinds(events) == ["Unknown", "UrcReceived"]


def test_results_that_a_command_declares_are_whole_lines() -> None:
    command = Command(b"AT+NRB", success=(b"REBOOTING", b"OK"), failure=(b"NO WAY",))
    assert only(Final, events_of(BC95.dialect, command, framed("REBOOTING")))[0].ok
    assert not only(Final, events_of(BC95.dialect, command, framed("NO WAY")))[0].ok
    assert not only(Final, events_of(BC95.dialect, command, framed("NO WAY OUT", "OK.")))


def test_the_second_result_may_come_in_the_same_chunk_or_before_ok() -> None:
    parser = Parser(BC66.dialect)
    parser.begin(SEND)
    events = parser.feed(b"\r\n>" + framed("OK", "SEND OK"))
    assert [event.done for event in only(Final, events)] == [False]
    assert [(event.fields, event.done) for event in only(Outcome, events)] == [
        ({"result": "OK"}, True)
    ]
    parser.begin(SEND)
    events = parser.feed(b"\r\n>" + framed("SEND FAIL", "OK"))
    assert [event.done for event in only(Outcome, events)] == [False]
    assert [event.done for event in only(Final, events)] == [True]


def test_a_prompt_is_seen_only_by_a_command_that_declares_one_and_once() -> None:
    assert kinds(events_of(BC66.dialect, AT, b"\r\n> \r\n")) == ["Unknown"]
    parser = Parser(BC66.dialect)
    parser.begin(SEND)
    assert kinds(parser.feed(b"\r\n> ")) == ["Prompt"]
    assert kinds(parser.feed(b"\r\n> \r\n")) == ["Unknown"]


def test_a_prompt_inside_a_line_is_no_prompt() -> None:
    events = events_of(BC66.dialect, SEND, b"\r\nnoise > noise\r\n\x80>\r\n")
    assert kinds(events) == ["Unknown", "Unknown"]


@pytest.mark.parametrize("data", [b"", b"\r\nOK\r\n", b">", b'"' * 5, b"\r\n+CSCON: 1\r\n" * 3])
def test_counted_data_is_not_looked_at(data: bytes) -> None:
    burst = b'\r\n+QIURC: "recv",2,%d\r\n%s' % (len(data), data)
    for command in (AT, CSQ, TEXT, SEND):
        for cuts in (range(0), range(len(burst) + 9)):
            events = events_of(BC66.dialect, command, burst + framed("+CSCON: 0"), cuts)
            assert urcs(events) == [
                ("datagram", {"socket": 2, "length": len(data)}, data),
                ("connection", {"mode": 0}, None),
            ]
            assert len(events) == 2


@given(st.binary(max_size=40) | nasty_bytes, st.lists(st.integers(0, 500), max_size=6))
def test_counted_data_may_stand_in_the_line(data: bytes, cuts: list[int]) -> None:
    inline = Urc("datagram", '+QIURC: "recv",<socket:int>,<length:int>,', "e", data="length")
    dialect = replace(BC66.dialect, urcs=(inline, *BC66.dialect.urcs))
    burst = b'\r\n+QIURC: "recv",2,%d,%s' % (len(data), data)
    events = events_of(dialect, AT, burst + framed("OK"), cuts)
    assert urcs(events) == [("datagram", {"socket": 2, "length": len(data)}, data)]
    assert kinds(events) == ["UrcReceived", "Final"]


def test_a_header_of_another_urc_with_the_same_beginning_waits_for_nothing() -> None:
    for line in (b'+QIURC: "closed",0\r', b'+QIURC: "recv",0\r', b'+QIURC: "dnsgip",0,1,60\r'):
        assert kinds(events_of(BC66.dialect, AT, line)) == ["UrcReceived"]


def test_a_length_beyond_all_reason_is_no_header() -> None:
    for length in (9_000, 10**17):
        data = b'+QIURC: "recv",0,%d\r\n\r\nOK\r\n' % length
        assert kinds(events_of(BC66.dialect, AT, data)) == ["Unknown", "Final"]


@pytest.mark.parametrize("junk", [b"\x80\x13", b"\xff0???\x00", b"0???\r\n", b"\x00" * 9, b""])
@pytest.mark.parametrize(
    "banner",
    [
        "REBOOTING|REBOOT_CAUSE_APPLICATION_AT|Neul |OK",
        "Boot: Unsigned|Security B.. Verified|Protocol A.. Verified|Apps A...... Verified||"
        "REBOOT_CAUSE_SECURITY_PMU_POWER_ON_RESET|Neul |OK",
        "REBOOT_CAUSE_APPLICATION_WATCHDOG|u-blox |OK",
        "REBOOT_CAUSE_PROTOCOL_RPC_TIMEOUT|Lierda|OK",
        "Neul|OK",
    ],
)
def test_the_ok_of_a_boot_banner_completes_nothing(banner: str, junk: bytes) -> None:
    lines = banner.split("|")
    for lost in range(len(lines) - 1):
        for command in (AT, TEXT, SEND, None):
            data = junk + framed(*lines[lost:])
            events = events_of(BC95G.dialect, command, data, list(range(len(data))))
            assert not only(Final, events)
            boot = only(BootLine, events)
            assert [event.first for event in boot] == [True] + [False] * (len(boot) - 1)
            assert [event.done for event in boot] == [False] * (len(boot) - 1) + [True]
            glued = events_of(
                BC95G.dialect, command, framed("x")[:-2] + junk + framed(*lines[lost:])
            )
            assert not only(Final, glued)


def test_junk_glued_to_the_first_line_of_a_banner_hides_nothing() -> None:
    data = b"\x01\x80junk\xfeNeul \r\n\r\nOK\r\n"
    assert kinds(events_of(BC95.dialect, AT, data)) == ["BootLine", "BootLine"]


def test_after_a_banner_all_is_forgotten_that_the_command_in_flight_declared() -> None:
    parser = Parser(BC95.dialect)
    parser.begin(TEXT)
    data = framed("BC95", "REBOOT_CAUSE_UNKNOWN", "Neul ", "OK", "text", "OK", "ERROR")
    assert kinds(parser.feed(data)) == [
        *["Answer", "BootLine", "BootLine", "BootLine"],
        *["Unknown", "Orphan", "Orphan"],
    ]


def test_the_boot_rom_ends_its_lines_the_other_way_round() -> None:
    brom = (
        b"\n\rF1: 0000 0000\n\rV0: 0000 0000 [0001]\n\r00: 0006 000C\n\r01: 0000 0000\n\r"
        b"U0: 0000 0001 [0000]\n\rT0: 0000 00B4\n\rLeaving the BROM\n\r\n\r"
    )
    events = events_of(BC66.dialect, AT, brom + framed("OK"))
    assert kinds(events) == ["BootLine"] * 7 + ["Orphan"]
    assert [event.done for event in only(BootLine, events)] == [False] * 6 + [True]


def test_a_urc_inside_a_banner_is_delivered() -> None:
    data = framed("REBOOTING", "+CEREG:0", "Neul ", "OK")
    assert kinds(events_of(BC95.dialect, AT, data)) == [
        *["BootLine", "UrcReceived", "BootLine", "BootLine"]
    ]


def test_a_banner_whose_end_was_lost_can_be_ended() -> None:
    parser = Parser(BC95.dialect)
    parser.feed(framed("Neul "))
    assert parser.booting
    parser.end_of_boot()
    parser.begin(AT)
    assert kinds(parser.feed(framed("OK"))) == ["Final"]


RIGHT: dict[Command, list[dict[str, object]]] = {
    AT: [],
    CSQ: [{"rssi": 18, "ber": 99}],
    NUMBER: [{"imsi": "460043193006443"}],
    TEXT: [{"text": "Quectel"}, {"text": "BC95-B5"}],
}
SAID = {
    AT: framed("OK"),
    CSQ: framed("+CSQ:18,99", "OK"),
    NUMBER: framed("460043193006443", "OK"),
    TEXT: b"\r\nQuectel\r\nBC95-B5\r\n\r\nOK\r\n",
}


@given(st.sampled_from(list(SAID)), st.data(), st.sampled_from([0, 255]), st.booleans())
def test_nul_and_ff_make_no_wrong_answer(
    command: Command, draw: st.DataObject, noise: int, replacing: bool
) -> None:
    said = bytearray(SAID[command])
    for place in draw.draw(st.lists(st.integers(0, len(said) - 1), min_size=1, max_size=4)):
        if replacing:
            said[place] = noise
        else:
            said.insert(place, noise)
    parser = Parser(BC95.dialect)
    parser.begin(command)
    events = parser.feed(bytes(said))
    for answer in answers(events):
        assert answer in RIGHT[command]
    parser.feed(b"\r\n")
    parser.begin(CSQ)
    assert answers(parser.feed(SAID[CSQ])) == RIGHT[CSQ]


def test_a_number_whose_first_digit_was_lost_to_noise_is_no_answer() -> None:
    assert not answers(events_of(BC95.dialect, NUMBER, b"\r\n\xff60043193006443\r\n"))
    assert answers(events_of(BC95.dialect, NUMBER, b"\xff\x00\r\n60043193006443\r\n"))


def test_a_text_with_a_damaged_byte_is_no_answer() -> None:
    assert not answers(events_of(BC95.dialect, TEXT, b"\r\nQuec\x80tel\r\n"))
    assert not answers(events_of(BC95.dialect, TEXT, b"\r\nQuectel\x00\r\n"))


def test_the_end_of_a_line_that_was_too_long_is_not_taken_for_a_line() -> None:
    parser = Parser(BC95.dialect, limit=100)
    parser.begin(AT)
    events = parser.feed(b"x" * 101)
    events += parser.feed(b"OK\r\n")
    assert kinds(events) == ["Overflow", "Overflow"]
    assert kinds(parser.feed(b"\r\nOK\r\n")) == ["Final"]


def test_a_line_that_begins_right_after_a_line_that_was_too_long_is_read() -> None:
    parser = Parser(BC95.dialect, limit=100)
    parser.begin(AT)
    parser.feed(b"x" * 101)
    assert kinds(parser.feed(b"\r\nOK\r\n")) == ["Overflow", "Final"]


def test_a_flood_of_noise_does_not_swallow_the_line_behind_it() -> None:
    parser = Parser(BC95.dialect, limit=100)
    parser.begin(AT)
    assert kinds(parser.feed(b"\x00" * 101)) == ["Overflow"]
    assert kinds(parser.feed(b"\r\nOK\r\n")) == ["Final"]


FLOODS = {
    "letters": b"x",
    "nul": b"\x00",
    "cr": b"\r",
    "blank": b" ",
    "headers": b'+QIURC: "recv",0,1000\r\n',
    "headers without line end": b'+QIURC: "recv",0,1000',
    "open header": b'+QIURC: "recv",',
    "prompts": b"> ",
    "nul in lines": b"a\x00",
}


@pytest.mark.parametrize("chunk", [1, 61])
@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_takes_bounded_memory_and_linear_time(flood: str, chunk: int) -> None:
    def cost(size: int) -> float:
        data = (FLOODS[flood] * size)[:size]
        parser = Parser(BC66.dialect)
        parser.begin(SEND)
        total = 0
        began = time.process_time()
        for i in range(0, size, chunk):
            total += sum(len(event.raw) for event in parser.feed(data[i : i + chunk]))
            if i % 4096 == 0:
                assert len(parser.buffered) <= 8192 + 128
        took = time.process_time() - began
        assert total + len(parser.buffered) == size
        return took

    small, large = cost(16 * 1024), cost(128 * 1024)
    assert large < 0.2 + 8 * 2 * small


def test_a_line_of_the_longest_answer_is_no_overflow() -> None:
    data = b"\r\n1,10.0.0.1,5683,1358," + b"AB" * 1358 + b",0\r\n"
    command = BC95.commands["read"](socket=1, length=1358)
    events = events_of(BC95G.dialect, command, data, range(0, len(data), 7))
    assert answers(events)[0]["data"] == b"\xab" * 1358
    assert not only(Overflow, events)


def test_a_second_line_of_a_urcs_shape_makes_the_answer_doubtful() -> None:
    command = BC66.commands["radio?"]()
    for lines, doubtful in (
        (("+CFUN: 1", "+CFUN: 0"), True),
        (("+CFUN: 0", "+CFUN: 0"), False),
        (("+CFUN: 0", "+CEREG: 1"), False),
    ):
        events = events_of(BC66.dialect, command, framed(*lines, "OK"))
        assert [event.doubtful for event in only(Final, events)] == [doubtful]
        assert len(urcs(events)) == 1


# --- abandoned commands ---------------------------------------------------------------------


def test_what_an_abandoned_command_still_brings_is_orphaned() -> None:
    parser = Parser(BC95.dialect)
    parser.begin(CSQ)
    parser.abandon()
    assert parser.owes
    events = parser.feed(framed("+CSQ:1,2", "OK"))
    assert [event.kind for event in only(Orphan, events)] == ["answer", "final"]
    assert not parser.owes


def test_late_lines_are_orphans_also_when_a_probe_is_in_flight() -> None:
    parser = Parser(BC95.dialect)
    parser.begin(BC95.commands["registration?"]())
    parser.abandon()
    parser.begin(CSQ)
    events = parser.feed(framed("+CEREG:0,2", "OK", "+CEREG:5", "+CSQ:1,2", "OK"))
    assert kinds(events) == ["Orphan", "Early", "UrcReceived", "Answer", "Final"]
    assert not parser.owes


def test_an_answer_that_an_earlier_command_could_have_given_proves_nothing() -> None:
    parser = Parser(BC95.dialect)
    for _ in range(2):
        parser.begin(CSQ)
        parser.abandon()
    probe = parser.probe()
    assert probe is not None
    assert probe.answer is not None
    assert probe.answer.prefix != b"+CSQ"
    parser.begin(CSQ)
    parser.feed(framed("+CSQ:1,1", "OK"))
    assert parser.owes
    parser.begin(probe)
    parser.feed(framed("+CSQ:2,2", "OK", "+CSQ:3,3", "OK"))
    parser.feed(framed("+CGATT:1", "OK"))
    assert not parser.owes


ANSWERS = {
    b"AT": framed("OK"),
    b"AT+CIMI": framed("460043193006443", "OK"),
    b"AT+CSQ": framed("+CSQ:18,99", "OK"),
    b"AT+CGATT?": framed("+CGATT:1", "OK"),
    b"AT+CFUN?": framed("+CFUN:1", "OK"),
}


@given(
    st.sampled_from([*BC95.dialect.probes, AT, NUMBER]),
    st.lists(st.tuples(st.booleans(), st.integers(0, 4)), min_size=1, max_size=14),
)
def test_debts_are_paid_only_when_nothing_more_can_come(
    first: Command, steps: list[tuple[bool, int]]
) -> None:
    """A modem that answers in order, loses some commands, and is late by any number of them."""
    parser = Parser(BC95.dialect)
    parser.begin(first)
    queue = [first.line]
    for arrives, answered in steps:
        parser.abandon()
        if not parser.owes:
            break
        probe = parser.probe()
        assert probe is not None
        parser.begin(probe)
        if arrives:
            queue.append(probe.line)
        for line in queue[:answered]:
            parser.feed(ANSWERS[line])
        del queue[:answered]
        if not parser.owes and parser.in_flight is None:
            assert not queue
            break


@given(st.sampled_from([*BC95.dialect.probes, AT, NUMBER]), st.integers(0, 8))
def test_two_answers_are_enough_after_any_number_of_lost_ones(first: Command, lost: int) -> None:
    parser = Parser(BC95.dialect)
    parser.begin(first)
    for _ in range(lost):
        parser.abandon()
        parser.begin(parser.probe() or first)
    parser.abandon()
    for _ in range(2):
        probe = parser.probe()
        assert probe is not None
        parser.begin(probe)
        parser.feed(ANSWERS[probe.line])
    assert not parser.owes


def test_a_result_that_nobody_waits_for_puts_the_dialogue_in_doubt() -> None:
    parser = Parser(BC95.dialect)
    parser.begin(AT)
    parser.feed(framed("OK"))
    assert not parser.owes
    assert kinds(parser.feed(framed("OK"))) == ["Orphan"]
    assert parser.owes
    parser.begin(CSQ)
    parser.feed(framed("+CSQ:1,1", "OK"))
    assert not parser.owes


def test_a_late_prompt_names_the_command_whose_payload_it_wants() -> None:
    parser = Parser(BC66.dialect)
    parser.begin(SEND)
    parser.abandon()
    assert [event.command for event in only(Orphan, parser.feed(b"\r\n> "))] == [SEND]
    parser.begin(SEND)
    parser.abandon()
    parser.begin(CSQ)
    events = parser.feed(b"\r\n> " + framed("OK", "+CSQ:1,1", "OK", "SEND OK"))
    assert kinds(events) == ["Orphan", "Early", "Answer", "Final", "Unknown"]
    assert only(Orphan, events)[0].command == SEND


def test_a_restart_pays_all_debts() -> None:
    parser = Parser(BC95.dialect)
    parser.begin(CSQ)
    parser.abandon()
    parser.begin(AT)
    parser.feed(framed("Neul ", "OK"))
    assert not parser.owes


def test_random_dialogues_are_parsed_alike_whole_and_in_pieces() -> None:
    rng = random.Random(1)
    pieces = [
        framed("+CSQ:18,99"),
        framed("OK"),
        framed("+CEREG:1"),
        b"\x00\xff",
        b"\r\n1\r\nOK\r\n",
    ]
    for _ in range(200):
        data = b"".join(rng.choice(pieces) for _ in range(20))
        whole = events_of(BC95.dialect, CSQ, data)
        assert whole == events_of(BC95.dialect, CSQ, data, rng.sample(range(len(data)), 9))
        assert isinstance(whole[0], UrcReceived | Answer | Unknown | Early | Orphan | Final | Echo)
        assert not only(Prompt, whole)
