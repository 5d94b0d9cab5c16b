"""The line editor, results, URC order and boot state, the same in every dialect."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import Any

import pytest

import hil.emulator
from hil.emulator import MODELS, ManualClock

OK = b"\r\nOK\r\n"
ERROR = b"\r\nERROR\r\n"


@pytest.mark.parametrize("model", sorted(MODELS))
def test_every_model_answers_at(make_bench: Any, model: str) -> None:
    assert make_bench(model, echo=False).ask("AT") == OK


@pytest.mark.parametrize("model", sorted(MODELS))
def test_cr_or_cr_lf_or_pieces_make_no_difference(make_bench: Any, model: str) -> None:
    bench = make_bench(model, echo=False)
    plain = bench.ask(b"AT+CGMI\r")
    assert bench.ask(b"AT+CGMI\r\n") == plain
    assert b"".join(bench.ask(bytes([byte])) for byte in b"at+cgmi\r\n") == plain


@pytest.mark.parametrize("model", sorted(MODELS))
def test_an_empty_line_has_no_answer(make_bench: Any, model: str) -> None:
    assert make_bench(model, echo=False).ask(b"\r\n\r\n") == b""


@pytest.mark.parametrize("model", sorted(MODELS))
@pytest.mark.parametrize("cmee", [0, 1])
def test_an_unknown_command_is_plain_error(make_bench: Any, model: str, cmee: int) -> None:
    bench = make_bench(model, echo=False, cmee=cmee)
    for command in ("AT+NOSUCH", "AT+NOSUCH?", "AT+NOSUCH=?", 'AT+NOSUCH="a;b",1', 'AT+NOSUCH=a"'):
        assert bench.ask(command) == ERROR


def test_a_form_that_does_not_exist_is_error_50_on_hisilicon(make_bench: Any) -> None:
    bench = make_bench("bc95-g", cmee=1)
    assert bench.ask("AT+CGMR?") == b"\r\n+CME ERROR: 50\r\n"
    assert bench.ask("AT+CMEE=0") == OK
    assert bench.ask("AT+CGMR?") == ERROR


def test_a_line_too_long_is_error_536_and_leaves_no_rest(make_bench: Any) -> None:
    bench = make_bench("bc95", cmee=1)
    assert bench.ask("AT+NSOST=" + "0" * 5000) == b"\r\n+CME ERROR: 536\r\n"
    assert bench.ask("AT") == OK


def test_the_longest_datagram_fits_the_line(make_bench: Any) -> None:
    for model, ident, size in (("bc95", 0, 512), ("bc95-g", 1, 1358)):
        bench = make_bench(model)
        bench.ask("AT+NSOCR=DGRAM,17,0,1")
        command = f"AT+NSOSTF={ident},255.255.255.254,65535,0x200,{size},{'00' * size}"
        assert bench.ask(command).startswith(f"\r\n{ident},{size}\r\n".encode())


def test_junk_in_the_line_buffer_spoils_the_first_command(make_bench: Any) -> None:
    bench = make_bench("bc95", stale_input=b"\xf0")
    assert bench.ask("AT") == ERROR
    assert bench.ask("AT") == OK


def test_hisilicon_answers_each_concatenated_command(make_bench: Any) -> None:
    assert make_bench("bc95").ask("AT+CMEE=1;+CSCON=1;+CEREG=1") == OK * 3


def test_concatenation_ends_at_the_first_error(make_bench: Any) -> None:
    bench = make_bench("bc95")
    assert bench.ask("AT+CMEE=1;+NOSUCH;+CSCON=1") == OK + ERROR
    assert bench.ask("AT+CSCON?").startswith(b"\r\n+CSCON:0,")


def test_bc66_answers_a_concatenation_once(make_bench: Any) -> None:
    bench = make_bench("bc66", echo=False)
    assert bench.ask("ATE0V1X4&C1;+CPIN?;+CFUN?") == (
        b"\r\n+CPIN: READY\r\n\r\n+CFUN: 1\r\n\r\nOK\r\n"
    )


def test_echo_is_the_command_with_its_cr(make_bench: Any) -> None:
    bench = make_bench("bc66")
    assert bench.ask(b"AT\r\n") == b"AT\r\r\nOK\r\n"
    assert bench.ask("ATE0") == b"ATE0\r\r\nOK\r\n"
    assert bench.ask("AT") == OK
    assert make_bench("bc95", echo=True).ask("AT") == b"AT\r\r\nOK\r\n"


def test_a_urc_waits_for_the_final_result(make_bench: Any) -> None:
    bench = make_bench("bc95", turnaround=1.0)
    bench.ask("AT+CSQ")
    bench.modem.urc("+CSCON:1")
    lines = bench.wait(2.0).split(b"\r\n")
    assert lines.index(b"OK") < lines.index(b"+CSCON:1")


def test_an_early_urc_comes_before_the_answer(make_bench: Any) -> None:
    bench = make_bench("bc95", turnaround=1.0, early_urcs=True)
    bench.ask("AT+CSQ")
    bench.modem.urc("+CSCON:1")
    assert bench.take() == b"\r\n+CSCON:1\r\n"
    assert bench.wait(2.0).endswith(OK)


def test_commands_sent_together_are_answered_in_order(make_bench: Any) -> None:
    bench = make_bench("bc66", echo=False, turnaround=0.02)
    answer = bench.ask(b"ATI\rAT+CPIN?\r", 1.0)
    assert answer.index(b"Revision") < answer.index(b"+CPIN: READY")
    assert answer.count(b"OK") == 2


def test_a_second_command_can_be_refused_with_51(make_bench: Any) -> None:
    bench = make_bench("bc95", turnaround=0.02, busy="error", cmee=1)
    bench.ask("AT+CGMI")
    assert bench.ask("AT") == b"\r\n+CME ERROR: 51\r\n"
    assert bench.wait(1.0) == b"\r\nQuectel\r\n\r\nOK\r\n"


def test_injected_urcs_stand_on_lines_of_their_own(make_bench: Any) -> None:
    bench = make_bench("bc95-g", urc_seed=1, urc_rate=1.0)
    lines = bench.lines("AT+NCONFIG?")
    injected = [urc.decode() for urc in bench.modem.injected_urcs]
    assert len(injected) == len([line for line in lines if line in set(injected)]) > 5
    plain = make_bench("bc95-g").lines("AT+NCONFIG?")
    assert [line for line in lines if line not in set(injected)] == plain


def test_injected_urcs_never_split_received_data(make_bench: Any) -> None:
    bench = make_bench("bc66", urc_seed=1, urc_rate=1.0, echo=False)
    bench.echo_peer()
    bench.ask('AT+QIOPEN=1,0,"UDP","192.0.2.1",7', 1.0)
    answer = bench.ask("AT+QISEND=0,2,hi", 1.0)
    assert b'\r\n+QIURC: "recv",0,2\r\nhi\r\n' in answer


def test_nothing_is_answered_while_booting(make_bench: Any) -> None:
    bench = make_bench("bc95", autoconnect=False)
    bench.ask("AT+NRB", 1.0)
    assert bench.ask("AT", 1.0) == b""
    assert bench.modem.counters.lost_lines == 1
    assert bench.wait(10.0).endswith(b"\r\nNeul \r\n\r\nOK\r\n")
    assert bench.ask("AT") == OK


def test_speed_shortens_the_boot(make_bench: Any) -> None:
    bench = make_bench("bc95", autoconnect=False, speed=1000.0)
    bench.ask("AT+NRB", 0.1)
    assert bench.ask("AT") == OK


def test_trace_and_counters_see_every_byte(make_bench: Any) -> None:
    seen: list[tuple[str, bytes]] = []
    bench = make_bench("bc95", on_bytes=lambda way, data, at: seen.append((way, data)))
    answer = bench.ask("AT")
    assert seen == [("in", b"AT\r"), ("out", answer)]
    assert (bench.modem.counters.bytes_in, bench.modem.counters.bytes_out) == (3, len(answer))
    assert bench.modem.counters.commands == ["AT"]


def test_manual_clock_runs_calls_in_time_order() -> None:
    clock, order = ManualClock(), []
    clock.call_later(2.0, lambda: order.append("b"))
    clock.call_later(1.0, lambda: order.append("a"))
    clock.call_later(1.5, lambda: order.append("never")).cancel()
    clock.advance(3.0)
    assert order == ["a", "b"]
    assert (clock.time(), clock.pending) == (3.0, 0)


def test_the_emulator_shares_nothing_with_the_driver() -> None:
    """Driver and emulator must not share a mistake: standard library and itself only."""
    for path in Path(hil.emulator.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            for name in names:
                assert name.partition(".")[0] in sys.stdlib_module_names, f"{path.name}: {name}"
