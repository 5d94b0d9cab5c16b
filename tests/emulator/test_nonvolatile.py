"""What a power cycle keeps, what it does not, and what the next modem finds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hil.emulator import BadMemory, State


def test_stored_settings_survive_the_power_and_volatile_ones_do_not(make_bench: Any) -> None:
    bench = make_bench("bc95-g", attached=False, autoconnect=False)
    for command in ("AT+NBAND=5,8", "AT+NCONFIG=CELL_RESELECTION,FALSE", "AT+CMEE=1", "AT+CEREG=2"):
        assert bench.lines(command) == ["OK"]
    bench.modem.power_off()
    assert bench.ask("AT", 10) == b""
    bench.modem.power_on()
    bench.wait(10)
    assert bench.lines("AT+NBAND?")[0] == "+NBAND:5,8"
    assert "+NCONFIG:CELL_RESELECTION,FALSE" in bench.lines("AT+NCONFIG?")
    assert bench.lines("AT+CMEE?")[0] == "+CMEE:0"
    assert bench.lines("AT+CEREG?")[0].startswith("+CEREG:0,")


@pytest.mark.parametrize("model", ["bc95", "bc66"])
def test_a_power_cycle_ends_with_the_banner(make_bench: Any, model: str) -> None:
    bench = make_bench(model)
    bench.modem.power_cycle(3.0)
    assert (bench.wait(2.9), bench.modem.state) == (b"", State.OFF)
    banner = bench.wait(10)
    assert (b"Neul" if model == "bc95" else b"BROM") in banner
    assert "OK" in bench.lines("AT")


@pytest.mark.parametrize("kind", ["file", "dict"])
def test_the_next_modem_finds_the_settings(make_bench: Any, tmp_path: Path, kind: str) -> None:
    place: Any = tmp_path / "bc95.json" if kind == "file" else {}
    first = make_bench("bc95-g", attached=False, autoconnect=False, nv=place)
    for command in ("AT+NBAND=20", "AT+NCDP=192.0.2.7,5683", "AT+QREGSWT=2"):
        first.ask(command)
    second = make_bench("bc95-g", attached=False, nv=place)
    assert second.lines("AT+NBAND?")[0] == "+NBAND:20"
    assert second.lines("AT+NCDP?")[0] == "+NCDP:192.0.2.7,5683"
    assert second.lines("AT+QREGSWT?")[0] == "+QREGSWT:2"
    assert "+NCONFIG:AUTOCONNECT,FALSE" in second.lines("AT+NCONFIG?")


def test_a_rate_is_kept_only_when_it_was_stored(make_bench: Any) -> None:
    place: dict[str, Any] = {}
    first = make_bench("bc95", nv=place)
    first.ask("AT+NATSPEED=57600,3,0,2,1")
    first.ask("AT", 5)
    assert first.modem.rate == 57600
    assert make_bench("bc95", nv=dict(place)).modem.rate == 9600
    first.ask("AT+NATSPEED=115200,3,1,2,1")
    first.ask("AT", 5)
    first.ask("AT")
    assert make_bench("bc95", nv=dict(place)).modem.rate == 115200


def test_at_and_w_stores_echo_and_error_texts(make_bench: Any) -> None:
    place: dict[str, Any] = {}
    first = make_bench("bc66", nv=place)
    for command in ("ATE0", "AT+CMEE=2", 'AT+QCGDEFCONT="IP","iot"', "AT+IPR=9600"):
        first.ask(command)
    second = make_bench("bc66", nv=dict(place))
    assert second.ask("AT") == b"AT\r\r\nOK\r\n"  # echo: not stored without AT&W
    assert '+QCGDEFCONT: "IP","iot"' in second.lines("AT+QCGDEFCONT?")
    assert second.modem.rate == 9600
    first.ask("AT&W")
    third = make_bench("bc66", nv=dict(place))
    assert third.ask("AT") == b"\r\nOK\r\n"
    assert third.lines("AT+CMEE?")[0] == "+CMEE: 2"


def test_a_file_is_written_whole_and_only_when_something_changed(
    make_bench: Any, tmp_path: Path
) -> None:
    path = tmp_path / "nv.json"
    bench = make_bench("bc95", nv=path)
    bench.ask("AT+CSQ")
    assert not path.exists()
    bench.ask("AT+NCDP=192.0.2.7")
    written = path.stat().st_mtime_ns
    assert json.loads(path.read_text())["nv"]["cdp"] == ["192.0.2.7", 5683]
    bench.ask("AT+CSQ")
    assert path.stat().st_mtime_ns == written
    assert [entry.name for entry in tmp_path.iterdir()] == ["nv.json"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "not JSON"),
        ("[1]", "not a JSON object"),
        ('{"model": "bc66"}', "model = 'bc66'; allowed: bc95"),
        ('{"model": "bc95", "nv": 1}', "nv = 1; allowed: an object"),
        ('{"model": "bc95", "nv": {"bands": "8"}}', "nv.bands = '8'; allowed: like (8,)"),
        ('{"model": "bc95", "nv": {"volume": 11}}', "nv.volume = 11; allowed: the keys config"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(
    make_bench: Any, tmp_path: Path, text: str, told: str
) -> None:
    path = tmp_path / "nv.json"
    path.write_text(text)
    with pytest.raises(BadMemory) as caught:
        make_bench("bc95", nv=path)
    assert "nv.json" in str(caught.value)
    assert told in str(caught.value)
