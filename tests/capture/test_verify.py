"""What counts as a difference in values, and what as one in form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hil.verify import Level, Verdict, alike, guess_model, lines_of, verify
from nbiot.capture import Capture, Exchange, read_captures
from nbiot.errors import BadInput

CAPTURES = Path(__file__).parents[1] / "captures"


def capture(*exchanges: tuple[str | None, str], modem: str = "BC66", firmware: str = "") -> Capture:
    found = [
        Exchange(number, None if tx is None else f"{tx}\r".encode(), rx.encode(), exact=True)
        for number, (tx, rx) in enumerate(exchanges, start=1)
    ]
    return Capture(1, "x-1", modem, firmware, tuple(found))


def levels(verdict: Verdict) -> list[str]:
    return [compared.level.name for compared in verdict.compared]


def whys(verdict: Verdict) -> set[str]:
    return {row.why for c in verdict.compared for row in c.rows if row.level is Level.FORM}


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("+CSQ: 18,99", "+CSQ: 9,99", True),
        ("+CSQ: 18,99", "+CSQ:18,99", False),
        ("+CSQ: 18,99", "+CSQ: 18, 99", False),
        ("+CSQ: 18,99", "+CSQ: 18", False),
        ("+CSQ: 18", "+CESQ: 18", False),
        ("Signal power:-819", "Signal power:45", True),
        ('+CEREG: 1,"7871","0D09F951"', '+CEREG: 5,"3AD6","00490A65"', True),
        ('+CEREG: 1,"7871"', "+CEREG: 1,7871", False),
        ("+CEREG:1,7871,0D09F951", "+CEREG:1,213D,318886E", False),
        ("+CGPADDR: 1,10.0.0.7", "+CGPADDR: 1,100.64.30.1", True),
        ('+CCLK: "18/07/28,10:24:37+32"', '+CCLK: "26/11/22,21:45:45+32"', True),
        ("+CCLK:18/07/28,10:24:37+32", "+CCLK:26/11/22,21:45:45+32", True),
        ("+CPIN: READY", "+CPIN: 1", False),
        ("+CEREG: 0,1,,,", "+CEREG: 0,1,,7,", False),
    ],
)
def test_values_and_forms(one: str, other: str, expected: bool) -> None:
    assert alike(one, other) is expected
    assert alike(other, one) is expected


@pytest.mark.parametrize(
    ("rx", "level", "why"),
    [
        ("AT+CSQ\r\r\n+CSQ: 24,0\r\n\r\nOK\r\n", "VALUES", set()),
        ("AT+CSQ\r\r\n+CSQ:24,0\r\n\r\nOK\r\n", "FORM", {"spacing"}),
        ("AT+CSQ\r\r\n+CSQ: 24,0\r\n\r\nERROR\r\n", "FORM", {"another result"}),
        ("AT+CSQ\r\r\n+CSQ: 24,0\r\nOK\r\n", "FORM", {"line ends"}),
        ("AT+CSQ\r\r\n+CSQ: 24,0\n\nOK\n", "FORM", {"line ends"}),
        ("AT+CSQ\r\r\n+CSQ: 24,0\r\n", "FORM", {"not in the capture"}),
        ("AT+CSQ\r\r\n+CSQ: 24,0,1\r\n\r\nOK\r\n", "FORM", {"3 fields against 2"}),
        ("AT+CSQ\r\r\nOK\r\n\r\n+CSQ: 24,0\r\n", "FORM", {"in another order"}),
        ("\r\n+CSQ: 24,0\r\n\r\nOK\r\n", "FORM", {"not in the capture"}),
    ],
)
def test_differences_in_form_are_named(rx: str, level: str, why: set[str]) -> None:
    verdict = verify(capture(("AT", "AT\r\r\nOK\r\n"), ("AT+CSQ", rx)))
    assert levels(verdict) == ["EQUAL", level]
    assert whys(verdict) <= why | {"line ends"} if "order" in str(why) else whys(verdict) == why
    assert verdict.same_form is (level != "FORM")


def test_the_modem_is_guessed_from_the_capture() -> None:
    for modem, firmware, expected in (
        ("Quectel BC95-G", "", "bc95-g"),
        ("Quectel BC28/BC35-G", "", "bc35-g"),
        ("Quectel BC95", "V150R100C20B300SP5", "bc95-g"),
        ("Quectel BC95 (BC95HB-02-STD_850, B5)", "V100R100C10B657SP1", "bc95"),
        ("BC66-NA", "", "bc66-na"),
        ("BC660K-GL", "", ""),
        ("SIMCom SIM7000", "", ""),
    ):
        assert guess_model(capture(modem=modem, firmware=firmware)) == expected
    assert verify(capture(modem="SIMCom")).model == ""
    with pytest.raises(BadInput, match="bc660k"):
        verify(capture(), "bc660k")


def test_options_come_from_the_capture_or_from_the_user() -> None:
    absent = capture(("AT+CIMI", "\r\n+CME ERROR: 10\r\n"))
    assert levels(verify(absent)) == ["EQUAL"]
    assert not verify(absent, "bc66?sim=ready").same_form


def test_urcs_that_only_the_network_knows_are_not_compared() -> None:
    verdict = verify(capture(("AT", "AT\r\r\nOK\r\n"), (None, "\r\n+QLWURC: ping,0\r\n")))
    assert levels(verdict) == ["EQUAL", "SKIPPED"]
    assert verdict.same_form


@pytest.mark.parametrize("file", sorted(CAPTURES.glob("*.jsonl")), ids=lambda p: str(p.stem))
def test_it_runs_on_every_capture(file: Path) -> None:
    verdicts = [verify(found) for found in read_captures(file)]
    assert all(verdict.model for verdict in verdicts)
    assert sum(verdict.same_form for verdict in verdicts) >= len(verdicts) / 2
    json.dumps([verdict.as_dict() for verdict in verdicts])


@given(st.text("\r\n A:1", max_size=40))
def test_lines_keep_every_byte(text: str) -> None:
    lines = lines_of(text.encode())
    whole = "".join(f"{line.lead}{line.text}{line.trail}" for line in lines)
    assert text.startswith(whole)
    assert not text[len(whole) :].strip("\r\n")


SHAPES = st.lists(
    st.tuples(
        st.sampled_from(["AT", "AT+CSQ", "AT+NRB", "\x00", "AT+QISEND=0,5"]), st.text(max_size=20)
    ),
    max_size=5,
)


@given(SHAPES, st.sampled_from(["bc95", "bc66"]))
def test_no_capture_is_too_strange(exchanges: list[tuple[str, str]], model: str) -> None:
    found = capture(
        *((tx, rx.encode("latin-1", "ignore").decode("latin-1")) for tx, rx in exchanges)
    )
    assert len(verify(found, model).compared) == len(exchanges)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("rubbish", "one JSON object"),
        ("[1]", "one JSON object"),
        ("\x00\xff", "one JSON object"),
        ('{"format": "nbiot trace"}', "nbiot trace"),
        ('{"id": 1, "exchanges": []}', "id and exchanges"),
        ('{"id": "a-b", "exchanges": {}}', "id and exchanges"),
        ('{"id": "a-b", "exchanges": [{"tx": "AT", "rx": ["OK"]}, 1]}', "exchange 2"),
        ('{"id": "a-b", "exchanges": [{"tx": "AT"}]}', "exchange 1"),
        ('{"id": "a-b", "exchanges": [{"tx": 1, "rx": []}]}', "exchange 1"),
        ('{"id": "a-b", "exchanges": [{"urc": null}]}', "exchange 1"),
        ('{"id": "a-b", "exchanges": [{"tx": "AT", "rx": ["\\u20ac"]}]}', "exchange 1"),
        ('{"id": "a-b", "exchanges": [{"tx": "AT", "rx": [], "rx_raw": 1}]}', "exchange 1"),
    ],
)
def test_rubbish_is_named_with_its_line(tmp_path: Path, line: str, words: str) -> None:
    file = tmp_path / "c.jsonl"
    good = '{"id": "a-a", "exchanges": []}\n\n'
    file.write_bytes((good + line + "\n").encode("latin-1"))
    with pytest.raises(BadInput, match=r"c\.jsonl, line 3") as caught:
        read_captures(file)
    assert words in str(caught.value)


def test_captures_by_identifier(tmp_path: Path) -> None:
    (found,) = read_captures(CAPTURES / "bc66.jsonl#bc66-05")
    assert found.id == "bc66-05"
    with pytest.raises(BadInput, match="bc66-05"):
        read_captures(CAPTURES / "bc66.jsonl#bc67-05")
    (tmp_path / "empty").touch()
    for path in (tmp_path / "none", tmp_path / "empty"):
        with pytest.raises(BadInput):
            read_captures(path)


def read(item: dict[str, Any], folder: Path) -> Exchange:
    file = folder / "c.jsonl"
    file.write_text(json.dumps({"id": "a-b", "exchanges": [item]}))
    (found,) = read_captures(file)
    return found.exchanges[0]


def test_every_way_to_write_an_exchange(tmp_path: Path) -> None:
    lines = read({"tx": "AT", "rx": ["", "OK"]}, tmp_path)
    assert (lines.tx, lines.rx, lines.exact) == (b"AT\r", b"\r\nOK\r\n", False)
    framed = read({"tx": "AT\r\n", "rx": ["\r\nOK\r\n"]}, tmp_path)
    assert (framed.tx, framed.rx, framed.exact) == (b"AT\r\n", b"\r\nOK\r\n", True)
    data = read({"tx": "hi", "tx_raw": "hi", "rx": ["OK"], "rx_raw": "OK", "t": 1}, tmp_path)
    assert (data.tx, data.rx, data.exact, data.t) == (b"hi", b"OK", True, 1)
    assert read({"urc": "RDY", "raw": "\r\nRDY\r\n"}, tmp_path).tx is None
    assert not read({"tx": "AT", "rx": []}, tmp_path).answered
    assert not read({"tx": "AT", "rx": ["x"], "timed_out": 3}, tmp_path).answered
