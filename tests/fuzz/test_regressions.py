"""Every finding of the fuzz targets: the input that showed it, and what is right."""

from __future__ import annotations

import pytest

from fuzz.run import load
from hil.link import emulator_settings
from modems.bc95 import statistics
from nbiot.at import Shape
from nbiot.errors import BadInput

# target, input, what went wrong
FINDINGS = [
    (
        "session",
        b"bc95-g|mresolve|<\r\nOK\r\n\r\n+QDNS:192.0auto\r\n",
        "an answer that only began with a digit was taken for an address",
    ),
    (
        "session",
        b'bc66|mresolve|<\r\nOK\r\n|+\n+QIURC: "dnsgip",0,1,60\n+QIURC: "dnsgip",999.0.0.1\n',
        "999.0.0.1 was taken for an address",
    ),
    (
        "answers",
        b"bc95|statistics|0\x1d",
        "a figure was what str.strip and str.isdigit take, and int does not",
    ),
    (
        "at_parser",
        b"bc66|bAT+QISEND=1,2|cAT+QISEND=1,2|<AT\r\n> \r\n> \r\n",
        "one command object sent twice got two prompts, and would have sent its payload twice",
    ),
    ("answers", b"bc95|statistics|SNR:--5", "two minus signs"),
    ("answers", b"bc95|statistics|SNR:" + b"5" * 4301, "more digits than Python reads"),
    (
        "session",
        b"bc95|msignal|<\n+CSQ:18,99\nOK\n|<\nSignal power:" + b"5" * 400 + b"\nOK\n",
        "an integer too large for a float",
    ),
]


@pytest.mark.parametrize(("target", "data", "what"), FINDINGS, ids=[f[2] for f in FINDINGS])
def test_finding(target: str, data: bytes, what: str) -> None:
    load(target).one(data)


@pytest.mark.parametrize("option", ["speed=0", "speed=nan", "imei=x", "boot=x", "latency=-1"])
def test_an_emulator_option_that_no_modem_can_have_is_bad_input(option: str) -> None:
    with pytest.raises(BadInput):
        emulator_settings(f"bc66?{option}")


def test_an_address_is_four_numbers_up_to_255() -> None:
    shape = Shape("+CGPADDR: <cid:int>[,<address:ip>]")
    assert shape.match(b"+CGPADDR:0,010.064.000.007") == {"cid": 0, "address": "10.64.0.7"}
    assert shape.match(b'+CGPADDR: 1,"255.255.255.255"') == {"cid": 1, "address": "255.255.255.255"}
    for wrong in (b"256.0.0.1", b"1.2.3", b"1.2.3.4.5", b"1.2.3.1000", b'"1.2.3.4'):
        assert shape.match(b"+CGPADDR:0," + wrong) is None


def test_statistics_are_whole_numbers_behind_a_colon() -> None:
    lines = ["Signal power:-819", "CURRENT BAND :8", "SNR: 5 ", "ECL:", "--5", "A:--5", "B:1.5"]
    assert statistics(lines) == {"Signal power": -819, "CURRENT BAND": 8, "SNR": 5}
