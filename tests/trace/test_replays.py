"""The dialogues in ``replays``, each with the outcome that it must have.

``nbiot trace to-test TRACE tests/trace/replays/NAME.jsonl`` adds one.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nbiot.cli.replay import Examination, Plan, compare, examine
from nbiot.trace import Trace, read_trace
from tests import captures

from .samples import REPLAYS, trace_of


@pytest.mark.parametrize("name", REPLAYS)
def test_a_recorded_dialogue_has_the_outcome_it_must_have(name: str) -> None:
    found = examine(REPLAYS[name])
    assert found.differences == []
    assert found.compared > 20
    assert found.outcome is not None, "the trace does not show what the driver was told to do"
    assert found.outcome.as_expected == found.expected, found.outcome.text
    assert found.same


def changed(tmp_path: Path, name: str, then: str, now: str, *, keep: bool = False) -> Examination:
    """The replay ``name`` with the last ``then`` replaced."""
    text = REPLAYS[name].read_text()
    assert then in text
    before, _, after = text.rpartition(then)
    path = tmp_path / "changed.jsonl"
    path.write_text(f"{before}{now}{after}")
    if not keep:
        trace = read_trace(path)
        del trace.header["expect"]
        trace.write(path)
    return examine(path)


@pytest.mark.parametrize(
    ("then", "now", "told"),
    [
        ('"raw": "\\n\\r\\n+CGATT:', '"raw": "\\n\\r\\n+CGAXX:', "answer then, unknown now"),
        ('"event": "echo"', '"event": "unknown"', "unknown then, echo now"),
        ("+CGSN:", "\\r\\n+CGSN:", ""),
        ('"raw": "\\n\\r\\n+CGPADDR:', '"raw": "\\n\\r\\n+X\\r\\n+CGPADDR:', "part of unknown and"),
    ],
)
def test_a_line_that_is_taken_for_something_else_is_told(
    tmp_path: Path, then: str, now: str, told: str
) -> None:
    name = "bc95-cold-auth" if "echo" not in then else "bc66-attach-auth"
    found = changed(tmp_path, name, then, now)
    assert bool(found.differences) == bool(told)
    if told:
        assert not found.same
        assert any(told in line for line in found.lines())
        line = found.differences[0].line
        assert found.trace.records[line - 2].raw == found.differences[0].raw


def test_a_result_after_the_time_out_is_a_late_one() -> None:
    late = trace_of(
        "> AT+CFUN=1",
        "- no result of AT+CFUN=1 within 1 s",
        "< ERROR [orphan]",
        "> AT",
        "< OK [final]",
    )
    assert compare(late, None) == ([], 2)
    del late.records[1]
    found, _ = compare(late, None)
    assert [(d.line, d.then, d.now) for d in found] == [(4, "orphan", "final")]


def test_a_driver_that_says_something_else_is_told(tmp_path: Path) -> None:
    found = changed(tmp_path, "bc66-no-sim", "AT+CPIN?", "AT+CPIX?")
    assert found.outcome is not None
    assert found.outcome.result == "ReplayMismatch"
    assert "AT+CPIX?" in found.outcome.text
    assert not found.same


def test_another_outcome_than_expected_is_told(tmp_path: Path) -> None:
    found = changed(tmp_path, "bc66-no-sim", "+CME ERROR: 10", "+CME ERROR: 99", keep=True)
    assert found.same  # still no SIM
    found = changed(tmp_path, "bc66-no-sim", "\\n+CME ERROR: 10", "\\n+CPIN: READY", keep=True)
    assert not found.same
    assert any("expected" in line for line in found.lines())


def test_a_trace_that_a_crash_cut_is_replayed_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "cut.jsonl"
    path.write_bytes(REPLAYS["bc95-cold-auth"].read_bytes()[:-330])
    trace = read_trace(path)
    del trace.header["expect"]
    trace.write(path)
    path.write_text(path.read_text() + '{"t": 1, "dir": ">"')
    found = examine(path)
    assert found.trace.broken
    assert found.outcome is not None
    assert (found.outcome.remaining, found.same) == (0, True)
    assert found.outcome.result == "end of trace"


@pytest.mark.parametrize("name", ["bc95-b657sp3-exact-bytes", "bc28-mbed-cereg-urc-race"])
def test_a_capture_of_somebody_else_is_parsed_and_not_driven(name: str) -> None:
    path = Path(captures.__file__).with_name("bc95.jsonl")
    found = examine(Path(f"{path}#{name}"))
    assert (found.outcome, found.compared, found.differences) == (None, 0, [])
    assert json.loads(json.dumps(found.as_dict()))["ok"] is True


# --- what the driver was told to do ----------------------------------------------------------


def plan(name: str) -> Plan | None:
    return Plan.of(read_trace(REPLAYS[name]))


def test_an_authentication_is_told_by_its_request() -> None:
    for name, coap in (("bc95-cold-auth", "udp"), ("bc66-native-refused", "native")):
        found = plan(name)
        assert found is not None
        assert (found.what, found.coap, found.product_key) == ("auth", coap, "KV315idW")
        assert (found.server, found.lifetime) == ("127.0.0.1", 3600)
        assert len(found.device_key) == 15


def of(*lines: str, **header: object) -> Plan | None:
    trace: Trace = trace_of(*lines, **header)
    return Plan.of(trace)


IDENTIFIED = ("> AT", "> ATI", "> AT+CGMM", "> AT+CGMR", "> ATE0")


def test_other_runs_are_told_by_their_commands() -> None:
    assert of("> AT", "> AT") == Plan("identify")
    assert of(*IDENTIFIED) == Plan("identify")
    assert of(*IDENTIFIED, "> AT+CGSN=1", "> AT+NCCID") == Plan("info")
    assert of(*IDENTIFIED, "> AT+CFUN?") == Plan("attach", asks_imei=False)
    assert of("> AT", "> AT+CSQ") is None
    assert of(*IDENTIFIED, command="doctor") is None
    assert of() == Plan("identify")


@pytest.mark.parametrize(
    ("lines", "apn"),
    [
        (["> AT+CGDCONT?", '> AT+CGDCONT=1,"IP","set.apn"'], "set.apn"),
        (
            ["> AT+CGDCONT?", '< +CGDCONT:0,"IPV4V6","",,0', '< +CGDCONT:1,"IP","had.apn",,0'],
            "had.apn",
        ),
        (["> AT+QCGDEFCONT?", '< +QCGDEFCONT: "IP","old"', '> AT+QCGDEFCONT="IP","new"'], "new"),
        (["> AT+QCGDEFCONT?", '< +QCGDEFCONT: "IP","had"'], "had"),
        (["> AT+CGATT?"], None),
    ],
)
def test_the_apn_is_told_by_what_was_asked_and_set(lines: list[str], apn: str | None) -> None:
    found = of(*IDENTIFIED, "> AT+CFUN?", *lines)
    assert found is not None
    assert found.apn == apn
