"""The file of ``--trace``: written, read, cut, spoilt."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbiot import __version__
from nbiot.errors import BadInput
from nbiot.trace import FileTracer, Record, parse_trace, read_trace, shown_port
from tests import captures

from .samples import REPLAYS, trace_of

HEADER = b'{"format": "nbiot trace", "version": 1}\n'
LINE = b'{"t": 0, "dir": ">", "raw": "AT\\r"}\n'


def test_the_first_line_tells_what_made_the_trace(tmp_path: Path) -> None:
    FileTracer(
        tmp_path / "t",
        lambda: 5.0,
        port="/dev/ttyUSB0",
        baudrate=9600,
        about={"command": "auth"},
        wall=lambda: 1_700_000_000.25,
    ).close()
    found = json.loads((tmp_path / "t").read_text())
    assert found.pop("python").count(".") == 2
    assert found == {
        "format": "nbiot trace",
        "version": 1,
        "nbiot": __version__,
        "port": "/dev/ttyUSB0",
        "baudrate": 9600,
        "started": "2023-11-14T22:13:20.250Z",
        "command": "auth",
    }
    assert read_trace(tmp_path / "t").started == 1_700_000_000.25


@pytest.mark.parametrize(
    ("port", "shown"),
    [
        ("/dev/ttyUSB0", "/dev/ttyUSB0"),
        ("/dev/serial/by-id/usb-FTDI_FT232R_A50285BI-if00-port0", "/dev/serial/by-id/***"),
        ("rfc2217://user:password@10.1.2.3:4000", "rfc2217://***"),
        ("socket://rig.example.com:4000", "socket://***"),
        ("emulator:bc95?speed=2", "emulator:bc95?speed=2"),
        ("replay:/home/somebody/a.jsonl", "replay:a.jsonl"),
        ("/home/somebody/modem", "modem"),
        ("", ""),
    ],
)
def test_the_port_is_told_without_serial_number_host_and_folder(port: str, shown: str) -> None:
    assert shown_port(port) == shown


ANY_TEXT = st.text(st.characters(), min_size=1, max_size=20)  # lone surrogates, too
SPOKEN = st.tuples(st.sampled_from("<>-"), st.binary(max_size=40), ANY_TEXT)


@given(st.lists(SPOKEN, max_size=8))
def test_what_is_read_is_what_was_told(told: list[tuple[str, bytes, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t"
        now = [0.0]
        tracer = FileTracer(path, lambda: now[0])
        for way, raw, text in told:
            now[0] += 0.5
            if way == ">":
                tracer.sent(raw)
            elif way == "<":
                tracer.heard(raw, text)
            else:
                tracer.note(text)
        tracer.close()
        trace = read_trace(path)
        again = Path(folder) / "again"
        trace.write(again)
        assert again.read_bytes() == path.read_bytes()
    assert not trace.broken
    expected = [
        Record(number, 0.5 * (number - 1), way, note=text)
        if way == "-"
        else Record(number, 0.5 * (number - 1), way, raw, text if way == "<" else "")
        for number, (way, raw, text) in enumerate(told, start=2)
    ]
    assert trace.records == expected


@given(st.data())
def test_a_trace_cut_anywhere_keeps_all_whole_lines(data: st.DataObject) -> None:
    whole = REPLAYS["bc66-no-sim"].read_bytes()
    first = whole.index(b"\n") + 1
    cut = whole[: data.draw(st.integers(first, len(whole)))]
    trace = parse_trace(cut)
    rest = cut.rpartition(b"\n")[2]
    assert trace.records == parse_trace(whole).records[: len(trace.records)]
    # A line without its end is whole if nothing but the end is missing.
    lost = bool(rest) and not whole[len(cut) :].startswith(b"\n")
    assert trace.broken == lost
    assert len(trace.records) == cut.count(b"\n") - 1 + (bool(rest) and not lost)
    assert f"{len(trace.records)} records" in trace.summary
    assert ("not whole" in trace.summary) == lost


def test_a_power_cut_may_leave_nuls_at_the_end() -> None:
    trace = parse_trace(HEADER + LINE + b"\0" * 40)
    assert (len(trace.records), trace.broken) == (1, True)


@pytest.mark.parametrize(
    ("data", "where", "allowed"),
    [
        (b"", "trace", "empty"),
        (b"AT+CSQ\nOK\n", "line 1", "one JSON object a line"),
        (b"\x89PNG\r\n\x1a\n\0\0", "line 1", "one JSON object a line"),
        (b"[1]\n", "line 1", "one JSON object a line"),
        (b"[" * 100_000, "line 1", "one JSON object a line"),
        (b'{"a": 1}\n', "line 1", "header"),
        (LINE, "line 1", "header"),
        (HEADER.replace(b": 1}", b": 2}"), "line 1, version", "1"),
        (HEADER.replace(b": 1}", b": true}"), "line 1, version", "1"),
        (HEADER + b"nonsense\n" + LINE, "line 2", "one JSON object a line"),
        (HEADER + b"\xff\n" + LINE, "line 2", "UTF-8"),
        (HEADER + LINE + LINE.replace(b"0", b'"0"'), "line 3", "seconds"),
        (HEADER + LINE.replace(b"0", b"NaN"), "line 2", "seconds"),
        (HEADER + LINE.replace(b"0", b"-1"), "line 2", "seconds"),
        (HEADER + LINE.replace(b'">"', b'"x"'), "line 2", "<, > or -"),
        (HEADER + LINE.replace(b'">"', b"[]"), "line 2", "<, > or -"),
        (HEADER + LINE.replace(b'">"', b'"-"'), "line 2", "note"),
        (HEADER + LINE.replace(b"AT", "\u20ac".encode()), "line 2", "Latin-1"),
        (HEADER + LINE.replace(b'"AT\\r"', b"7"), "line 2", "text"),
    ],
)
def test_what_is_no_trace_is_refused_by_line(data: bytes, where: str, allowed: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse_trace(data, "name")
    assert where in caught.value.field
    assert allowed in caught.value.allowed
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("name", ["missing", "."])
def test_what_cannot_be_opened_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInput, match="a file that can be read"):
        read_trace(tmp_path / name)
    with pytest.raises(BadInput, match="a file that can be written"):
        trace_of().write(tmp_path / "no" / "folder")


@pytest.mark.parametrize("family", ["bc95", "bc66"])
def test_captures_are_read_as_their_own_reader_does(family: str) -> None:
    path = Path(captures.__file__).with_name(f"{family}.jsonl")
    compared = 0
    for name, capture in captures.load(family).items():
        spoken = [tx.encode() + b"\r" for tx, _ in capture.dialogue if tx is not None]
        said = b"".join(rx for _, rx in capture.dialogue)
        trace = read_trace(Path(f"{path}#{name}"))
        if len(spoken) != sum(record.dir == ">" for record in trace.records):
            continue  # that reader leaves out exchanges that are not verbatim
        compared += 1
        assert [r.raw for r in trace.records if r.dir == ">"] == spoken
        got = b"".join(r.raw for r in trace.records if r.dir == "<")
        assert got.split() == said.split()  # the boot ROM's line ends differ
    assert compared > 10


def test_a_capture_is_chosen_by_its_identifier(tmp_path: Path) -> None:
    path = Path(captures.__file__).with_name("bc95.jsonl")
    with pytest.raises(BadInput, match="bc95-b657sp1-reboot"):
        read_trace(path)
    with pytest.raises(BadInput, match="bc95-b657sp1-reboot"):
        read_trace(Path(f"{path}#nonsense"))
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"id": "x", "exchanges": [{"nonsense": 1}]}')
    with pytest.raises(BadInput, match="tx and rx"):
        read_trace(bad)
