from __future__ import annotations

import pytest

from nbiot.at import BootBanner, Command, Dialect, Shape, Template, Urc
from nbiot.at.parser import error_code
from nbiot.errors import BadInput


def test_a_template_fills_its_gaps_in_command_and_answer() -> None:
    send = Template("AT+S={socket},{length},{hex}", "from_manual: x", "{socket},<n:int>", seconds=9)
    command = send(socket=3, length=2, hex="07FF")
    assert command.line == b"AT+S=3,2,07FF"
    assert command.answer == Shape("3,<n:int>")
    assert (command.least, command.most, command.seconds) == (1, 1, 9)
    assert command.size == 100 + 2 * 2
    assert not command.repeatable


def test_a_template_without_an_answer_expects_no_lines() -> None:
    command = Template("AT+CFUN=1", "from_manual: x")()
    assert (command.answer, command.least, command.most) == (None, 0, 0)


def test_a_template_hands_its_outcome_prompt_and_payload_on() -> None:
    open_ = Template("AT+O={n}", "from_manual: x", outcome="+O: {n},<error:int>", prompt=b">")
    command = open_(n=4, payload=b"\x00OK")
    assert command.outcome == Shape("+O: 4,<error:int>")
    assert (command.prompt, command.payload) == (b">", b"\x00OK")


def test_a_query_is_repeatable_by_its_question_mark() -> None:
    assert Template("AT+CFUN?", "from_manual: x", "+CFUN: <f:int>")().repeatable
    assert not Template("AT+CFUN=1", "from_manual: x")().repeatable


def test_a_missing_gap_is_an_error() -> None:
    with pytest.raises(KeyError):
        Template("AT+S={socket}", "from_manual: x")()


@pytest.mark.parametrize(
    "line", [b"AT\rAT+CFUN=0", b"AT\n", b"AT+X=\x1a", b"AT+X=\xc3\xa4", b"A\0"]
)
def test_a_command_is_one_line_of_printable_ascii(line: bytes) -> None:
    with pytest.raises(BadInput):
        Command(line)


def test_a_gap_cannot_smuggle_a_second_command_in() -> None:
    with pytest.raises(BadInput):
        Template("AT+QDNS=0,{host}", "from_manual: x")(host="a\rAT+NRB")


def test_a_secret_is_in_no_text_form_of_its_command() -> None:
    command = Command(b"AT+PSK=s3cret", shown="AT+PSK=***")
    assert str(command) == "AT+PSK=***"
    assert "s3cret" not in repr(command)
    assert "s3cret" not in f"{command} {command!r} {[command]}"
    with pytest.raises(BadInput) as caught:
        Command(b"AT+PSK=s3cret\r", shown="AT+PSK=***")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"+CME ERROR: 50", 50),
        (b"+CME ERROR:50", 50),
        (b"+CMS ERROR: 302", 302),
        (b"+CME ERROR: SIM not inserted", None),
        (b"+CME ERROR: 5x", None),
        (b"ERROR", None),
        (b"+CME ERROR: " + b"9" * 5000, None),
    ],
)
def test_the_code_of_a_final_result(line: bytes, code: int | None) -> None:
    assert error_code(line) == code


FIRST = Dialect(
    urcs=(Urc("a", "+A: <x:int>", "e"), Urc("fw", "FIRMWARE <state:line>", "e")),
    banners=(BootBanner("Neul|REBOOT_CAUSE_\\w+", b"OK", "e", seconds=10),),
    errors={1: "one"},
    probes=(Command(b"AT+P"),),
    gap=0.02,
)
SECOND = Dialect(
    urcs=(
        Urc("a", "+A: <x:int>", "e"),
        Urc("b", "+B: <y:int>", "e"),
        Urc("d", "+D: <n:int>", "e", "n"),
    ),
    banners=(BootBanner("RDY", b"RDY", "e", seconds=3),),
    gap=0.01,
)


def test_a_union_knows_what_each_dialect_knows() -> None:
    both = Dialect.union([FIRST, SECOND])
    assert both.urc(b"+A:1") == ("a", {"x": 1})
    assert both.urc(b"+B:2") == ("b", {"y": 2})
    assert [rule.name for rule in both.data_rules] == ["d"]
    assert both.is_boot(b"Neul")
    assert both.is_boot(b"RDY")
    assert (both.gap, both.boot_seconds) == (0.02, 10)
    assert len(both.urcs) == 4


def test_nobody_knows_what_an_unknown_modem_answers_so_a_union_has_no_probes() -> None:
    assert Dialect.union([FIRST, SECOND]).probes == ()


def test_error_numbers_mean_different_things_so_a_union_has_none() -> None:
    assert Dialect.union([FIRST, SECOND]).errors == {}


def test_a_union_of_nothing_is_empty() -> None:
    nothing = Dialect.union([])
    assert (nothing.probes, nothing.gap, nothing.boot_seconds) == ((), 0.0, 0.0)
    assert not nothing.is_boot(b"RDY")


@pytest.mark.parametrize(
    ("line", "name"),
    [
        (b"+A:1", "a"),
        (b"+A : 1", "a"),
        (b"+A:x", None),
        (b"+AB:1", None),
        (b"FIRMWARE UPDATING", "fw"),
        (b"FIRMWARES", None),
        (b"", None),
    ],
)
def test_a_urc_is_known_by_its_whole_shape(line: bytes, name: str | None) -> None:
    found = FIRST.urc(line)
    assert (found and found[0]) == name


def test_a_boot_line_is_known_as_a_whole() -> None:
    assert FIRST.is_boot(b"REBOOT_CAUSE_APPLICATION_AT")
    assert not FIRST.is_boot(b"xNeul")
    assert not FIRST.is_boot(b"OK")
    assert FIRST.boot_ends == {b"OK"}
