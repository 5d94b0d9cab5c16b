"""Each fault does what its name says, by its seed alone, and the truth is not touched by it."""

from __future__ import annotations

import ast
import asyncio
import os
import sys
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest

import hil.faults
from hil.emulator import MODELS, Network, Options, PtyModem
from hil.faults import FAULTS, parse, usage, with_faults

OK = b"\r\nOK\r\n"
PEER = ("192.0.2.1", 7)
SEND = "AT+NSOST=0,192.0.2.1,7,3,010203"
OPEN66 = 'AT+QIOPEN=1,0,"UDP","192.0.2.1",7'

NAMES = [
    "byte-loss",
    "noise",
    "bit-flip",
    "split-chunks",
    "merged-chunks",
    "urc-anywhere",
    "echo-flips",
    "double-final",
    "missing-final",
    "late-final",
    "late-answer",
    "banner-mid-command",
    "reboot-mid-command",
    "stuck-peer",
    "hang-up",
    "baud-mismatch",
    "slow-attach",
    "denied-registration",
    "uplink-busy",
    "drop-datagrams",
    "duplicate-datagrams",
    "delay-datagrams",
    "reorder-datagrams",
    "truncated-hex",
    "wrong-length",
    "id-reuse",
    "full-line-buffer",
    "lost-prompt",
    "late-prompt",
    "send-ok-missing",
    "first-command-lost",
    "garbage-after-boot",
    "deaf-after-boot",
    "no-answer",
    "cut-answer",
    "flood",
    "lf-only",
    "refused-command",
]

Faulty = Callable[..., Any]


@pytest.fixture
def faulty(make_bench: Any) -> Faulty:
    """A bench with faults: `faulty("bc95", "late-final:at=1", cmee=1)`."""

    def make(model: str, text: str, network: Network | None = None, **options: Any) -> Any:
        options.setdefault("echo", False)
        make_faults = with_faults(text, model=model).faults
        return make_bench(model, network, faults=make_faults, **options)

    return make


def details(bench: Any) -> list[str]:
    return [entry.detail for entry in bench.modem.faults.log]


def urc_texts(bench: Any) -> list[str]:
    return [urc.text for urc in bench.modem.truth.urcs]


def open_bc95(bench: Any) -> None:
    bench.echo_peer()
    assert bench.ask("AT+NSOCR=DGRAM,17,0,1") == b"\r\n0\r\n" + OK


def open_bc66(bench: Any) -> None:
    bench.echo_peer()
    assert b"+QIOPEN: 0,0" in bench.ask(OPEN66, 1.0)


# ------------------------------------------------------------- table and texts


def test_the_table_has_every_fault_by_name() -> None:
    assert sorted(FAULTS) == sorted(NAMES)
    for name, kind in FAULTS.items():
        assert (kind.name, kind.effect.name) == (name, name)
        assert kind.about.endswith(".")
        assert kind.families
        for key, parameter in kind.parameters.items():
            assert parameter.read(str(parameter.default)) == parameter.default, (name, key)


def test_the_help_names_every_fault_and_parameter() -> None:
    text = usage()
    for kind in FAULTS.values():
        assert f"{kind.name}: {kind.about}" in text
    assert "    delay=3.0  so late, s (a number 0..3600)" in text


def test_faults_are_read_with_their_defaults() -> None:
    (late,) = parse("late-final:delay=4,seed=7")
    assert (late.name, late.values["delay"], late.values["seed"]) == ("late-final", 4.0, 7)
    assert (late.values["probability"], late.values["count"]) == (0.1, 0)
    assert parse(str(late)) == [late]


def test_faults_may_come_from_a_query_string() -> None:
    query = "attached=1&fault=late-final:on=NSOST=,at=1+noise:seed=2&fault=echo-flips"
    texts = [value for key, value in parse_qsl(query) if key == "fault"]
    assert [spec.name for spec in parse(texts)] == ["late-final", "noise", "echo-flips"]
    assert parse(texts)[0].values["on"] == "NSOST="


def test_at_makes_it_certain() -> None:
    assert parse("late-final:at=2")[0].values["probability"] == 1.0
    assert parse("late-final:at=2,probability=0.5")[0].values["probability"] == 0.5


@pytest.mark.parametrize(
    "texts",
    [
        "noise:seed=1+late-final:on=+NSOST=,delay=1+echo-flips",
        "noise:seed=1 late-final:on=+NSOST=,delay=1 echo-flips",
        ["noise:seed=1", "late-final:on=+NSOST=,delay=1 + echo-flips"],
    ],
)
def test_several_faults(texts: Any) -> None:
    specs = parse(texts)
    assert [spec.name for spec in specs] == ["noise", "late-final", "echo-flips"]
    assert specs[1].values["on"] == "+NSOST="


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("late-finl", ["'late-finl'", "unknown", "late-final"]),
        ("", ["''", "unknown"]),
        ("late-final:dela=3", ["late-final", "'dela=3'", "unknown", "delay=", "seed="]),
        ("late-final:delay", ["late-final", "'delay'", "delay="]),
        ("late-final:delay=soon", ["late-final", "delay", "'soon'", "a number 0..3600"]),
        ("late-final:delay=-1", ["delay", "'-1'", "0..3600"]),
        ("late-final:delay=nan", ["delay", "'nan'", "0..3600"]),
        ("noise:probability=1.5", ["noise", "probability", "'1.5'", "a number 0..1"]),
        ("noise:length=1.5", ["noise", "length", "'1.5'", "a whole number 1..4096"]),
        ("stuck-peer:input=eat", ["stuck-peer", "input", "'eat'", "keep or lose"]),
    ],
)
def test_what_is_wrong_is_said(text: str, parts: list[str]) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        parse(text)
    for part in ["fault", *parts]:
        assert part in str(caught.value)


def test_a_fault_of_another_family_is_refused(make_bench: Any) -> None:
    with pytest.raises(ValueError, match="lost-prompt: not for hisilicon; allowed: mt2625"):
        with_faults("lost-prompt", model="bc95")
    with pytest.raises(ValueError, match="lost-prompt: not for hisilicon"):
        make_bench("bc95", faults=with_faults("lost-prompt").faults)
    assert [FAULTS["lost-prompt"].applies(model) for model in ("bc95", "bc66")] == [False, True]


def test_the_faults_share_nothing_with_the_driver() -> None:
    tree = ast.parse(Path(hil.faults.__file__).read_text())
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for name in names:
            top = name.partition(".")[0]
            assert name.startswith("hil.emulator") or top in sys.stdlib_module_names


# ------------------------------------------------------ every fault, both dialects

SESSION = {
    "bc95-g": [
        *("AT", "AT+CEREG=1", "AT+CEREG?", "AT+CSCON=1", "AT+NSOCR=DGRAM,17,0,1"),
        *("AT+NSOST=1,192.0.2.1,7,3,010203,9", "AT+NSORF=1,512", "AT+NSOCL=1"),
        *("AT+NSOCR=DGRAM,17,0,1", "AT+NRB", "AT", "AT+CGATT?"),
    ],
    "bc66": [
        *("AT", "AT+CEREG=1", "AT+CEREG?", OPEN66, "AT+QISENDEX=0,3,010203"),
        *("AT+QISEND=0,3", "abc", "AT+QICLOSE=0", "AT+QRST=1", "AT", "AT+CGATT?"),
    ],
}


def play(faulty: Faulty, model: str, text: str | None) -> tuple[list[bytes], Any]:
    """A session with pauses; what came after each command, and the bench."""
    bench = faulty(model, text) if text else faulty(model, "noise:probability=0")
    bench.echo_peer()
    outputs = [bench.ask(command, 7.0) for command in SESSION[model]]
    return [*outputs, bench.wait(100.0)], bench


CASES = [(m, name) for m in SESSION for name, kind in FAULTS.items() if kind.applies(m)]
HAPPENING = [case for case in CASES if case != ("bc66", "truncated-hex")]  # it has no hex there


@pytest.mark.parametrize(("model", "name"), CASES)
def test_without_probability_nothing_happens(
    make_bench: Any, faulty: Faulty, model: str, name: str
) -> None:
    plain = make_bench(model, echo=False)
    plain.echo_peer()
    expected = [plain.ask(command, 7.0) for command in SESSION[model]]
    output, bench = play(faulty, model, f"{name}:probability=0")
    assert output == [*expected, plain.wait(100.0)]
    assert bench.modem.faults.log == []
    assert bench.modem.truth == plain.modem.truth
    assert not any(command.damaged for command in bench.modem.truth.commands)


@pytest.mark.parametrize(("model", "name"), CASES)
def test_the_seed_decides(faulty: Faulty, model: str, name: str) -> None:
    one, first = play(faulty, model, f"{name}:probability=0.4,seed=5")
    two, second = play(faulty, model, f"{name}:probability=0.4,seed=5")
    assert one == two
    assert first.modem.faults.log == second.modem.faults.log
    assert first.modem.truth == second.modem.truth


@pytest.mark.parametrize(("model", "name"), HAPPENING)
def test_every_fault_happens_where_it_applies(faulty: Faulty, model: str, name: str) -> None:
    _, bench = play(faulty, model, f"{name}:probability=1,seed=5")
    assert {entry.fault for entry in bench.modem.faults.log} == {name}
    assert [entry.at for entry in bench.modem.faults.log] == sorted(
        entry.at for entry in bench.modem.faults.log
    )


@pytest.mark.parametrize(("model", "name"), CASES)
@pytest.mark.parametrize("seed", range(3))
def test_a_urc_is_true_only_when_it_really_came_whole(
    faulty: Faulty, model: str, name: str, seed: int
) -> None:
    output, bench = play(faulty, model, f"{name}:probability=0.1,seed={seed}+urc-anywhere")
    stream = b"".join(output)
    for urc in (*bench.modem.truth.urcs, *bench.modem.truth.trailers):
        body = urc.text.encode("latin-1")
        framed = (b"\r\n" + body + b"\r\n", b"\n" + body + b"\n")
        assert stream[: urc.end].endswith(framed) or name == "merged-chunks"


def test_other_seeds_do_other_things(faulty: Faulty) -> None:
    outputs = [play(faulty, "bc66", f"noise:probability=0.1,seed={n}")[0] for n in (1, 2)]
    assert outputs[0] != outputs[1]


def test_faults_of_two_modems_do_not_mix(faulty: Faulty) -> None:
    options = with_faults("missing-final:at=2")
    assert options.faults is not None
    assert options.faults() is not options.faults()


# ---------------------------------------------------------------- common rules


def test_at_count_and_on(faulty: Faulty) -> None:
    bench = faulty("bc95", "missing-final:at=2")
    assert [bench.ask("AT") for _ in range(4)] == [OK, b"", OK, OK]
    bench = faulty("bc95", "missing-final:probability=1,count=2")
    assert [bench.ask("AT") for _ in range(4)] == [b"", b"", OK, OK]
    bench = faulty("bc95", "missing-final:probability=1,on=CEREG?")
    assert bench.ask("AT+CEREG=1") == OK
    assert bench.ask("at+cereg?") == b"\r\n+CEREG:1,1\r\n"


def test_the_log_says_when_who_and_what(faulty: Faulty) -> None:
    bench = faulty("bc95", "missing-final:at=2")
    bench.ask("AT", 4.0)
    bench.ask("AT+CSCON=1")
    (entry,) = bench.modem.faults.log
    assert (entry.at, entry.fault) == (4.0, "missing-final")
    assert entry.detail == r"b'\r\nOK\r\n' after AT+CSCON=1"


# ------------------------------------------------------------------------ bytes


def test_byte_loss(faulty: Faulty, make_bench: Any) -> None:
    plain = make_bench("bc95").ask("AT+CGMR")
    bench = faulty("bc95", "byte-loss:probability=0.05,length=3")
    got = bench.ask("AT+CGMR")
    assert 0 < len(plain) - len(got) <= 3 * len(plain) * 0.2
    assert "left as" in details(bench)[0]
    assert bench.modem.truth.commands[0].damaged
    assert bench.modem.truth.commands[0].answer[-1] == "RADIO,BC95HB-02-STD_900"


def test_byte_loss_on_the_way_in(faulty: Faulty) -> None:
    bench = faulty("bc95", "byte-loss:at=2,direction=in")
    assert bench.ask("AT+CSQ") == b"\r\nERROR\r\n"
    assert bench.modem.truth.commands[0].line == "A+CSQ"
    assert details(bench) == [r"input b'AT+CSQ\r' came as b'A+CSQ\r'"]


def test_byte_loss_of_one_kind_only(faulty: Faulty) -> None:
    bench = faulty("bc95", "byte-loss:probability=1,where=line")
    assert bench.ask("AT+CGMI") == OK


def test_noise_comes_between(faulty: Faulty) -> None:
    bench = faulty("bc95", "noise:probability=0.2,length=2")
    got = bench.ask("AT+CGMR")
    noise = {byte for byte in got if byte >= 0x80 or byte == 0}
    assert {0x00, 0xFF} <= noise
    plain = bytes(byte for byte in got if byte not in noise)
    assert plain.endswith(b"\r\nRADIO,BC95HB-02-STD_900\r\n" + OK)


def test_noise_before_a_urc_leaves_it_true(faulty: Faulty) -> None:
    bench = faulty("bc95", "noise:at=1")
    bench.modem.urc("+CSCON:1")
    assert bench.take()[1:] == b"\r\n+CSCON:1\r\n"
    (urc,) = bench.modem.truth.urcs
    assert (urc.text, urc.end, urc.since_damage) == ("+CSCON:1", 13, 12)


def test_noise_within_a_urc_does_not(faulty: Faulty) -> None:
    bench = faulty("bc95", "noise:at=5")
    bench.modem.urc("+CSCON:1")
    assert len(bench.take()) == 13
    assert bench.modem.truth.urcs == []
    bench.modem.urc("+CSCON:0")
    (urc,) = bench.modem.truth.urcs
    assert (urc.text, urc.since_damage) == ("+CSCON:0", 12)


def test_bit_flip_is_one_bit_and_not_for_tables(faulty: Faulty) -> None:
    bench = faulty("bc95", "bit-flip:at=3")
    (bits,) = (a ^ b for a, b in zip(bench.ask("AT"), OK, strict=True) if a != b)
    assert bits.bit_count() == 1
    assert [name for name in NAMES if not FAULTS[name].tellable] == ["byte-loss", "bit-flip"]


# ------------------------------------------------------------------------- wire


class Chunks:
    """Counts the writes of a bench's modem."""

    def __init__(self, bench: Any) -> None:
        self.seen: list[bytes] = []
        bench.modem._write = self.seen.append


def test_split_chunks(faulty: Faulty) -> None:
    bench = faulty("bc95", "split-chunks:probability=1,gap=1,parts=3")
    chunks = Chunks(bench)
    bench.modem.urc("+CSCON:1")
    assert b"".join(chunks.seen) != b"\r\n+CSCON:1\r\n"
    assert bench.modem.truth.urcs == []
    bench.clock.advance(3.0)
    assert b"".join(chunks.seen) == b"\r\n+CSCON:1\r\n"
    assert 2 <= len(chunks.seen) <= 3
    (urc,) = bench.modem.truth.urcs
    assert 0 < urc.at <= 2.0


def test_merged_chunks(faulty: Faulty) -> None:
    bench = faulty("bc95", "merged-chunks:probability=1,window=0.1")
    chunks = Chunks(bench)
    bench.ask("AT+CSCON?")
    bench.clock.advance(0.05)
    bench.modem.urc("+CSCON:1")
    assert chunks.seen == []
    bench.clock.advance(0.06)
    assert chunks.seen == [b"\r\n+CSCON:0,0\r\n" + OK + b"\r\n+CSCON:1\r\n"]
    assert urc_texts(bench) == ["+CSCON:1"]


def test_lf_only(faulty: Faulty) -> None:
    bench = faulty("bc95", "lf-only:probability=1")
    assert bench.ask("AT+CGMI") == b"\nQuectel\n\nOK\n"
    bench.modem.urc("+CSCON:1")
    assert urc_texts(bench) == ["+CSCON:1"]


# ------------------------------------------------------------------- URCs, echo


def test_urc_anywhere_also_with_the_pending_prefix(faulty: Faulty) -> None:
    bench = faulty("bc95-g", "urc-anywhere:probability=1,own=1,gap=0.003")
    bench.ask("AT+CEREG=2")
    bench.wait(1.0)
    lines = bench.lines("AT+CEREG?", 1.0)
    true = "+CEREG:1,7871,0D09F951,9"
    assert lines[:4] == [true, "+CEREG:2,1,7871,0D09F951,9", true, "OK"]
    assert len(lines) == 5  # and one after the final result
    assert urc_texts(bench)[-3:] == [true, true, lines[4]]


def test_urc_anywhere_harms_no_data(faulty: Faulty) -> None:
    bench = faulty("bc66", "urc-anywhere:probability=1")
    open_bc66(bench)
    assert b'\r\n+QIURC: "recv",0,2\r\nhi\r\n' in bench.ask("AT+QISEND=0,2,hi", 1.0)


def test_echo_flips(faulty: Faulty) -> None:
    bench = faulty("bc66", "echo-flips:probability=1")
    assert [bench.ask("AT") for _ in range(3)] == [OK, b"AT\r" + OK, OK]
    assert details(bench)[:2] == ["echo on after AT", "echo off after AT"]


# -------------------------------------------------------------- results, answers


def test_double_final(faulty: Faulty) -> None:
    assert faulty("bc95", "double-final:at=1").ask("AT+CGMI") == b"\r\nQuectel\r\n" + OK + OK
    bench = faulty("bc95", "double-final:at=1,gap=2")
    assert bench.ask("AT") == OK
    assert bench.wait(2.0) == OK
    assert bench.modem.truth.commands[0].finals == ["OK"]


def test_missing_final_but_the_command_is_done(faulty: Faulty) -> None:
    bench = faulty("bc95", "missing-final:at=1")
    assert bench.ask("AT+CSCON=1", 100.0) == b""
    assert bench.ask("AT+CSCON?") == b"\r\n+CSCON:1,0\r\n" + OK
    executed = bench.modem.truth.commands[0]
    assert (executed.finals, executed.damaged) == (["OK"], True)


def test_late_final_keeps_the_order(faulty: Faulty) -> None:
    bench = faulty("bc95", "late-final:at=1,delay=3")
    assert bench.ask("AT+CGMI") == b"\r\nQuectel\r\n"
    assert bench.ask("AT+CSCON?", 2.9) == b""
    assert bench.wait(0.2) == OK + b"\r\n+CSCON:0,0\r\n" + OK


def test_a_reboot_ends_the_wait_for_a_late_final(faulty: Faulty) -> None:
    bench = faulty("bc95", "late-final:at=1,delay=3", autoconnect=False)
    bench.ask("AT")
    bench.modem.reboot()
    assert bench.wait(60.0).count(OK) == 1  # the banner's


def test_late_times_are_divided_by_speed(faulty: Faulty) -> None:
    bench = faulty("bc95", "late-final:at=1,delay=3", speed=10.0)
    assert bench.ask("AT", 0.29) == b""
    assert bench.wait(0.02) == OK


def test_late_answer(faulty: Faulty) -> None:
    bench = faulty("bc95", "late-answer:at=1,delay=3", echo=True)
    assert bench.ask("AT+CGMI") == b"AT+CGMI\r"
    assert bench.ask("AT", 2.9) == b""
    assert bench.wait(0.2) == b"\r\nQuectel\r\n" + OK + b"AT\r" + OK


def test_late_answer_with_echo_at_once(faulty: Faulty) -> None:
    bench = faulty("bc95", "late-answer:at=1,delay=3,echo=at-once", echo=True)
    assert bench.ask("AT+CGMI") == b"AT+CGMI\r"
    assert bench.ask("AT") == b"AT\r"
    assert bench.wait(3.0) == b"\r\nQuectel\r\n" + OK + OK


def test_no_answer(faulty: Faulty) -> None:
    bench = faulty("bc95", "no-answer:at=1")
    assert bench.ask("AT+CGMR", 9.0) == b""
    assert bench.ask("AT") == OK
    assert bench.modem.truth.commands[0].damaged


def test_cut_answer(faulty: Faulty) -> None:
    bench = faulty("bc95", "cut-answer:at=1")
    assert bench.ask("AT+CGMI", 9.0) == b"\r\nQue"
    assert bench.ask("AT") == OK


@pytest.mark.parametrize("lines", ["yes", "no"])
def test_flood(faulty: Faulty, lines: str) -> None:
    bench = faulty("bc95", f"flood:at=1,size=10000,lines={lines}")
    got = bench.ask("AT")
    assert len(got) == 10000 + len(OK)
    assert got.endswith(OK)
    assert (b"\r\n" in got[:10000]) == (lines == "yes")


def test_refused_command_is_not_done(faulty: Faulty) -> None:
    bench = faulty("bc95", "refused-command:at=1,code=50", cmee=1)
    assert bench.ask("AT+CSCON=1") == b"\r\n+CME ERROR: 50\r\n"
    assert bench.ask("AT+CSCON?") == b"\r\n+CSCON:0,0\r\n" + OK
    assert bench.modem.truth.commands[0].finals == ["+CME ERROR: 50"]


@pytest.mark.parametrize(
    ("model", "answer"), [("bc95", b"\r\n+CME ERROR: 536\r\n"), ("bc66", b"\r\nERROR\r\n")]
)
def test_full_line_buffer(faulty: Faulty, model: str, answer: bytes) -> None:
    bench = faulty(model, "full-line-buffer:at=1", cmee=1)
    assert bench.ask("AT+CSCON=1") == answer
    assert bench.ask("AT") == OK


# --------------------------------------------------------------- boot, line, life


@pytest.mark.parametrize(
    ("model", "word"), [("bc95", b"Neul "), ("bc95-g", b"Neul "), ("bc66", b"Leaving the BROM")]
)
def test_banner_mid_command_is_no_reboot(faulty: Faulty, model: str, word: bytes) -> None:
    bench = faulty(model, "banner-mid-command:on=CSCON=,at=1")
    assert word in bench.ask("AT+CSCON=1")
    assert bench.lines("AT+CSCON?")[0].replace(" ", "") == "+CSCON:1,0"
    assert bench.modem.truth.restarts == []


def test_banner_with_the_final_result_after_it(faulty: Faulty) -> None:
    bench = faulty("bc66", "banner-mid-command:at=1,final=yes")
    got = bench.ask("AT+CGMI")
    assert got.startswith(b"\r\nQuectel_Ltd\r\n\n\rF1: 0000 0000\n\r")
    assert got.endswith(b"Leaving the BROM\n\r\n\r" + OK)


@pytest.mark.parametrize(("when", "done"), [("final", True), ("command", False)])
def test_reboot_mid_command_loses_everything(faulty: Faulty, when: str, done: bool) -> None:
    bench = faulty("bc95", f"reboot-mid-command:on=NSOST,at=1,when={when}", autoconnect=False)
    open_bc95(bench)
    banner = bench.ask(SEND, 10.0)
    assert (b"\r\n0,3\r\n" in banner) == done
    assert b"REBOOT_CAUSE_APPLICATION_WATCHDOG" in banner
    assert bench.modem.open_sockets() == []
    assert bench.wire.sent == []
    assert len(bench.modem.truth.restarts) == 1


def test_reboot_while_a_command_is_pending(faulty: Faulty) -> None:
    bench = faulty("bc95", "reboot-mid-command:at=1", autoconnect=False, attached=False)
    assert bench.ask("AT+CFUN=1", 20.0).count(OK) == 1  # the banner's
    assert bench.ask("AT+CFUN?") == b"\r\n+CFUN:0\r\n" + OK


def test_stuck_peer_for_a_time(faulty: Faulty) -> None:
    bench = faulty("bc95", "stuck-peer:at=2,duration=5")
    assert bench.ask("AT") == OK
    assert bench.ask("AT+CGMI", 4.9) == b""
    assert bench.ask("AT+CSCON?") == b""
    bench.modem.urc("+CSCON:1")
    assert bench.wait(0.2) == b"\r\nQuectel\r\n" + OK + b"\r\n+CSCON:1\r\n\r\n+CSCON:0,0\r\n" + OK
    assert [urc.at for urc in bench.modem.truth.urcs] == [5.0]


def test_stuck_peer_can_lose_its_input(faulty: Faulty) -> None:
    bench = faulty("bc95", "stuck-peer:at=1,duration=5,input=lose")
    bench.ask("AT+CGMI")
    bench.ask("AT+CSCON?")
    assert bench.wait(6.0) == b"\r\nQuectel\r\n" + OK
    assert details(bench) == ["stuck at AT+CGMI", r"input b'AT+CSCON?\r' lost", "goes on"]


def test_stuck_peer_for_ever_is_helped_by_a_restart_only(faulty: Faulty) -> None:
    bench = faulty("bc95", "stuck-peer:at=1", autoconnect=False)
    assert [bench.ask("AT", 1000.0) for _ in range(3)] == [b""] * 3
    bench.modem.power_off()
    bench.modem.power_on()
    assert bench.wait(10.0).endswith(OK)
    assert bench.ask("AT+CGMI") == b"\r\nQuectel\r\n" + OK


def test_hang_up(faulty: Faulty) -> None:
    bench = faulty("bc95", "hang-up:at=2")
    assert bench.ask("AT") == OK
    assert bench.ask("AT", 9.0) == bench.ask("AT", 9.0) == b""
    bench.modem.urc("+CSCON:1")
    assert (bench.take(), bench.modem.truth.urcs) == (b"", [])


def test_hang_up_within_an_answer(faulty: Faulty) -> None:
    bench = faulty("bc95", "hang-up:at=1,when=answer")
    assert bench.ask("AT+CGMI", 9.0) == b"\r\nQue"
    assert bench.ask("AT", 9.0) == b""


def test_baud_mismatch(faulty: Faulty) -> None:
    bench = faulty("bc95", "baud-mismatch:rate=4800")
    assert bench.modem.rate == 4800
    assert details(bench) == ["9600 -> 4800 bit/s"]
    assert with_faults("baud-mismatch").check_baud
    bench = faulty("bc95", "baud-mismatch:at=2")
    bench.ask("AT")
    assert bench.modem.rate == 9600
    bench.ask("AT")
    assert bench.modem.rate == 57600


def test_first_command_lost(faulty: Faulty) -> None:
    bench = faulty("bc66", "first-command-lost:idle=10", echo=True)
    assert [bench.ask("AT") for _ in range(2)] == [b"", b"AT\r" + OK]
    bench.wait(9.0)
    assert bench.ask("AT") == b"AT\r" + OK
    bench.wait(10.0)
    assert b"".join(bench.ask(bytes([byte])) for byte in b"AT\r\n") == b""
    assert bench.ask("AT") == b"AT\r" + OK
    assert len(bench.modem.truth.commands) == 3


@pytest.mark.parametrize("model", ["bc95", "bc66"])
def test_garbage_after_boot(faulty: Faulty, model: str) -> None:
    bench = faulty(model, "garbage-after-boot:length=5", autoconnect=False, boot="cold", sim="pin")
    banner = bench.wait(10.0)
    junk = banner[-5:]
    assert len(junk) == 5
    assert all(byte >= 0x80 or byte == 0 for byte in junk)


def test_garbage_in_the_line_buffer_after_boot(faulty: Faulty) -> None:
    bench = faulty(
        "bc95", "garbage-after-boot:direction=in", autoconnect=False, boot="cold", sim="pin"
    )
    bench.wait(10.0)
    assert [bench.ask("AT") for _ in range(2)] == [b"\r\nERROR\r\n", OK]


def test_deaf_after_boot(faulty: Faulty) -> None:
    bench = faulty("bc95", "deaf-after-boot:duration=5", autoconnect=False, boot="cold", sim="pin")
    bench.wait(4.6)
    assert bench.ask("AT", 4.8) == b""
    assert bench.ask("AT", 0.2) == b""
    assert bench.ask("AT") == OK


# ----------------------------------------------------------------------- network


def test_slow_attach(faulty: Faulty) -> None:
    bench = faulty("bc95", "slow-attach:delay=60", attached=False)
    bench.ask("AT+CFUN=1", 1.0)
    bench.wait(60.0)
    assert not bench.modem.radio.attached
    bench.wait(3.0)
    assert bench.modem.radio.attached


def test_denied_registration_twice(faulty: Faulty) -> None:
    network = Network(attach_delay=1.0)
    bench = faulty("bc95", "denied-registration:cause=7,count=2", network, attached=False)
    bench.ask("AT+CFUN=1", 3.0)
    bench.ask("AT+CEREG=3")
    assert bench.lines("AT+CEREG?")[0] == "+CEREG:3,3,7871,0D09F951,9,0,7"
    bench.ask("AT+CGATT=1", 3.0)
    assert not bench.modem.radio.attached
    bench.ask("AT+CGATT=1", 3.0)
    assert bench.modem.radio.attached
    assert details(bench) == ["cause 7", "cause 7"]


def test_uplink_busy(faulty: Faulty) -> None:
    bench = faulty("bc95", "uplink-busy:at=1", cmee=1)
    open_bc95(bench)
    assert bench.ask(SEND) == b"\r\n+CME ERROR: 159\r\n"
    assert bench.modem.truth.traffic("sent") == []
    assert bench.ask(SEND) == b"\r\n0,3\r\n" + OK
    bench = faulty("bc66", "uplink-busy:at=1")
    open_bc66(bench)
    assert bench.ask("AT+QISENDEX=0,1,AA", 1.0) == OK + b"\r\nSEND FAIL\r\n"


def heard(bench: Any) -> list[bytes]:
    """What comes back of three datagrams 01, 02, 03 sent at once, and what the peer got."""
    for number in (1, 2, 3):
        assert OK in bench.ask(f"AT+NSOST=0,192.0.2.1,7,1,0{number}")
    bench.wait(30.0)
    return [data for _, data in bench.wire.sent]


def test_drop_datagrams(faulty: Faulty) -> None:
    bench = faulty("bc95", "drop-datagrams:at=2,direction=up")
    open_bc95(bench)
    assert heard(bench) == [b"\1", b"\3"]
    truth = bench.modem.truth
    assert truth.traffic("sent") == [b"\1", b"\2", b"\3"]
    assert truth.traffic("passed") == truth.traffic("came") == [b"\1", b"\3"]
    assert details(bench) == ["up 02"]


def test_duplicate_datagrams(faulty: Faulty) -> None:
    bench = faulty("bc95", "duplicate-datagrams:at=2,direction=down")
    open_bc95(bench)
    assert heard(bench) == [b"\1", b"\2", b"\3"]
    assert bench.modem.truth.traffic("came") == [b"\1", b"\2", b"\3"]
    assert bench.modem.truth.traffic("received") == [b"\1", b"\2", b"\3", b"\2"]


def test_delay_datagrams(faulty: Faulty) -> None:
    bench = faulty("bc95", "delay-datagrams:at=2,direction=up,delay=4")
    open_bc95(bench)
    assert heard(bench) == [b"\1", b"\3", b"\2"]
    passed = [e for e in bench.modem.truth.events if getattr(e, "event", "") == "passed"]
    assert [event.at for event in passed] == [0.0, 0.0, 4.0]


def test_reorder_datagrams(faulty: Faulty) -> None:
    bench = faulty("bc95", "reorder-datagrams:at=1,direction=up")
    open_bc95(bench)
    bench.ask("AT+NSOST=0,192.0.2.1,7,1,01", 1.0)
    assert bench.wire.sent == []
    assert heard(bench) == [b"\1", b"\1", b"\2", b"\3"]
    bench = faulty("bc95", "reorder-datagrams:at=2,direction=down")
    open_bc95(bench)
    heard(bench)
    assert bench.modem.truth.traffic("received") == [b"\1", b"\3", b"\2"]


def test_a_datagram_to_reorder_does_not_wait_for_ever(faulty: Faulty) -> None:
    bench = faulty("bc95", "reorder-datagrams:at=3,direction=up,wait=5")
    open_bc95(bench)
    assert heard(bench) == [b"\1", b"\2", b"\3"]


# -------------------------------------------------------------- data and sockets


def test_truncated_hex(faulty: Faulty) -> None:
    bench = faulty("bc95", "truncated-hex:at=1,digits=3")
    open_bc95(bench)
    bench.ask(SEND, 1.0)
    assert bench.ask("AT+NSORF=0,512") == b"\r\n0,192.0.2.1,7,3,010,0\r\n" + OK
    executed = bench.modem.truth.commands[-1]
    assert (executed.answer, executed.damaged) == (["0,192.0.2.1,7,3,010203,0"], True)


def test_truncated_hex_of_a_push_urc(faulty: Faulty) -> None:
    bench = faulty("bc66", "truncated-hex:at=1,digits=1")
    open_bc66(bench)
    bench.ask('AT+QICFG="dataformat",1,1')
    bench.ask('AT+QICFG="viewmode",1')
    assert b'+QIURC: "recv",0,3,01020\r\n' in bench.ask("AT+QISENDEX=0,3,010203", 1.0)
    assert '+QIURC: "recv",0,3,010203' not in urc_texts(bench)


def test_wrong_length(faulty: Faulty) -> None:
    bench = faulty("bc95", "wrong-length:at=1,by=-2")
    open_bc95(bench)
    bench.ask(SEND, 1.0)
    assert bench.ask("AT+NSORF=0,512") == b"\r\n0,192.0.2.1,7,1,010203,0\r\n" + OK
    bench = faulty("bc95", "wrong-length:at=1,by=-1,of=sent")
    open_bc95(bench)
    assert bench.ask(SEND) == b"\r\n0,2\r\n" + OK
    assert bench.modem.truth.traffic("sent") == []
    bench.wait(1.0)
    assert bench.modem.truth.traffic("sent") == [b"\1\2\3"]


def test_wrong_length_of_raw_data(faulty: Faulty) -> None:
    bench = faulty("bc66", "wrong-length:at=1,by=40")
    open_bc66(bench)
    assert b'+QIURC: "recv",0,42\r\nhi\r\n' in bench.ask("AT+QISEND=0,2,hi", 1.0)


def test_id_reuse(faulty: Faulty) -> None:
    bench = faulty("bc95", "id-reuse:at=1")
    open_bc95(bench)
    assert bench.ask("AT+NSOCR=DGRAM,17,0,1") == b"\r\n0\r\n" + OK
    assert details(bench) == ["socket 0 closed"]
    bench = faulty("bc95", "id-reuse:at=1,mode=give")
    open_bc95(bench)
    assert bench.ask("AT+NSOCR=DGRAM,17,0,1") == b"\r\n0\r\n" + OK
    assert bench.modem.open_sockets() == [0, 1]
    assert bench.modem.truth.commands[-1].answer == ["1"]


def test_id_reuse_on_bc66(faulty: Faulty) -> None:
    bench = faulty("bc66", "id-reuse:at=1")
    open_bc66(bench)
    assert bench.ask("AT") == b'\r\n+QIURC: "closed",0\r\n' + OK
    assert bench.ask("AT+QISEND=0,2,hi") == b"\r\nERROR\r\n"
    bench = faulty("bc66", "id-reuse:at=1,mode=give")
    assert bench.ask(OPEN66) == b"\r\nERROR\r\n"
    assert bench.lines("AT+QIGETERROR")[0] == "+QIGETERROR: 563,socket identity has been used"


def test_lost_prompt(faulty: Faulty) -> None:
    bench = faulty("bc66", "lost-prompt:at=1")
    open_bc66(bench)
    assert bench.ask("AT+QISEND=0,2", 9.0) == b""
    assert bench.ask(b"hi", 1.0).endswith(b"\r\nSEND OK\r\n")


def test_late_prompt(faulty: Faulty) -> None:
    bench = faulty("bc66", "late-prompt:at=1,delay=3")
    open_bc66(bench)
    assert bench.ask("AT+QISEND=0,2", 2.9) == b""
    assert bench.wait(0.2) == b"\r\n>"


def test_send_ok_missing(faulty: Faulty) -> None:
    bench = faulty("bc66", "send-ok-missing:at=1")
    open_bc66(bench)
    bench.network.lose = lambda way, data: way == "down"
    assert bench.ask("AT+QISEND=0,2,hi", 9.0) == OK
    assert bench.ask("AT+QISEND=0,2,hi", 9.0) == OK + b"\r\nSEND OK\r\n"
    assert [trailer.text for trailer in bench.modem.truth.trailers] == ["SEND OK"]
    assert bench.modem.truth.traffic("sent") == [b"hi", b"hi"]
    bench = faulty("bc95-g", "send-ok-missing:at=1")
    bench.ask("AT+NSOCR=DGRAM,17,0,1")
    assert bench.ask("AT+NSOST=1,192.0.2.1,7,1,AA,5", 9.0) == b"\r\n1,1\r\n" + OK


# ------------------------------------------------------------------ ground truth


def test_the_truth_of_an_honest_modem(make_bench: Any) -> None:
    bench = make_bench("bc95-g", cmee=1, autoconnect=False)
    open_lines = bench.lines("AT+NSOCR=DGRAM,17,0,1")
    bench.echo_peer()
    bench.ask("AT+NSOST=1,192.0.2.1,7,1,AA,5", 1.0)
    bench.ask("AT+NSORF=9,1")
    bench.ask("AT+CSCON=1;+CSCON?;+NOSUCH")
    bench.ask("AT+NRB", 20.0)
    truth = bench.modem.truth
    assert open_lines == ["1", "OK"]
    told = [(command.line, command.answer, command.finals) for command in truth.commands]
    assert told == [
        ("AT+NSOCR=DGRAM,17,0,1", ["1"], ["OK"]),
        ("AT+NSOST=1,192.0.2.1,7,1,AA,5", ["1,1"], ["OK"]),
        ("AT+NSORF=9,1", [], ["+CME ERROR: 530"]),
        ("AT+CSCON=1;+CSCON?;+NOSUCH", ["+CSCON:1,1"], ["OK", "OK", "ERROR"]),
        ("AT+NRB", ["REBOOTING"], []),
    ]
    assert urc_texts(bench) == ["+NSOSTR:1,5,1", "+NSONMI:1,1"]
    assert [event.event for event in truth.events if hasattr(event, "event")] == [
        *("sent", "passed", "came", "received")
    ]
    assert len(truth.restarts) == 1


def test_a_datagram_the_modem_has_no_room_for_was_not_received(make_bench: Any) -> None:
    bench = make_bench("bc95")
    bench.ask("AT+NSOCR=DGRAM,17,0,1")
    bench.wire.inject(b"x" * 600, PEER)
    bench.wait(1.0)
    assert bench.modem.truth.traffic("came") == [b"x" * 600]
    assert bench.modem.truth.traffic("received") == []


def test_a_datagram_in_the_queue_of_a_rebooting_modem_was_never_sent(make_bench: Any) -> None:
    bench = make_bench("bc95", Network(latency=1.0), autoconnect=False)
    bench.ask("AT+NSOCR=DGRAM,17,0,1")
    bench.ask(SEND, 0.5)
    bench.modem.reboot()
    bench.wait(20.0)
    assert bench.modem.truth.traffic("sent") == []


def test_cme_51_of_a_refused_command_is_nobodys_final(make_bench: Any) -> None:
    bench = make_bench("bc95", turnaround=0.02, busy="error", cmee=1)
    bench.ask("AT+CGMI")
    assert bench.ask("AT") == b"\r\n+CME ERROR: 51\r\n"
    bench.wait(1.0)
    assert [command.finals for command in bench.modem.truth.commands] == [["OK"]]


# --------------------------------------------------------------------------- pty


async def read_until(fd: int, end: bytes) -> bytes:
    loop, data = asyncio.get_running_loop(), b""
    async with asyncio.timeout(5.0):
        while end not in data:
            ready = asyncio.Event()
            loop.add_reader(fd, ready.set)
            try:
                await ready.wait()
            finally:
                loop.remove_reader(fd)
            piece = os.read(fd, 4096)
            if not piece:
                raise EOFError
            data += piece
    return data


async def test_two_faults_on_a_pty() -> None:
    texts = ["late-final:at=1,delay=5", "urc-anywhere:at=1,on=CSCON"]
    options = with_faults(texts, Options(attached=True, speed=100), model="bc95")
    async with PtyModem("bc95", options) as pty:
        fd = os.open(pty.path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        try:
            start = asyncio.get_running_loop().time()
            os.write(fd, b"AT+CGMI\r")
            assert await read_until(fd, OK) == b"\r\nQuectel\r\n" + OK
            assert asyncio.get_running_loop().time() - start >= 0.05
            os.write(fd, b"AT+CSCON?\r")
            got = await read_until(fd, OK)
            (urc,) = pty.modem.truth.urcs
            assert got.startswith(f"\r\n{urc.text}\r\n".encode())
            assert pty.written == pty.modem.counters.bytes_out
            names = [entry.fault for entry in pty.modem.faults.log]
            assert names == ["late-final", "urc-anywhere"]
        finally:
            os.close(fd)


@pytest.mark.parametrize("when", ["command", "answer"])
async def test_hang_up_on_a_pty(when: str) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    options = with_faults(f"hang-up:at=1,when={when}", Options(baud=115200))
    async with PtyModem("bc95", options) as pty:
        fd = os.open(pty.path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        try:
            os.write(fd, b"AT+CGMI\rAT\rAT\r")
            with pytest.raises((EOFError, OSError)) as caught:
                await read_until(fd, OK)
            assert not isinstance(caught.value, TimeoutError)
        finally:
            os.close(fd)
    assert sorted(os.listdir("/proc/self/fd")) == before


async def test_a_stuck_peer_does_not_read_its_pty() -> None:
    options = with_faults("stuck-peer:at=1,duration=10", Options(speed=100))
    async with PtyModem("bc95", options) as pty:
        fd = os.open(pty.path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        try:
            os.write(fd, b"AT+CGMI\r")
            while not pty.modem.faults.log:
                await asyncio.sleep(0)
            before = pty.modem.counters.bytes_in
            os.write(fd, b"AT+CSCON?\r")
            await asyncio.sleep(0.02)
            assert pty.modem.counters.bytes_in == before
            got = await read_until(fd, b"+CSCON:0,0\r\n" + OK)
            assert got == b"\r\nQuectel\r\n" + OK + b"\r\n+CSCON:0,0\r\n" + OK
        finally:
            os.close(fd)


async def test_baud_mismatch_on_a_pty() -> None:
    async with PtyModem("bc95", with_faults("baud-mismatch:rate=57600")) as pty:
        fd = os.open(pty.path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        try:
            for code, heard in ((termios.B9600, False), (termios.B57600, True)):
                settings = termios.tcgetattr(fd)
                settings[4] = settings[5] = code
                termios.tcsetattr(fd, termios.TCSANOW, settings)
                os.write(fd, b"\rAT\r")
                if heard:
                    assert (await read_until(fd, OK)).endswith(OK)
                else:
                    await asyncio.sleep(0.02)
                    assert "AT" not in pty.modem.counters.commands
        finally:
            os.close(fd)


def test_every_model_takes_every_fault_of_its_family(faulty: Faulty) -> None:
    for model in MODELS:
        text = "+".join(
            f"{name}:probability=0" for name, kind in FAULTS.items() if kind.applies(model)
        )
        assert faulty(model, text).ask("AT") == OK
