"""Capture files, read by Wireshark's own code and by a small reader of the block structure."""

from __future__ import annotations

import io
import re
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbiot.datagrams import datagrams
from nbiot.pcapng import LINKTYPE_RAW, Writer, checksum, ipv4, write_capture
from nbiot.trace import Trace, read_trace
from tests.peers.tshark import requires_tshark

from .samples import REPLAYS, trace_of

Blocks = list[tuple[int, bytes]]


def blocks(data: bytes) -> Blocks:
    """Type and body of each block; lengths stand at both ends (pcapng, 3.1)."""
    found = []
    while data:
        kind, length = struct.unpack_from("<II", data)
        assert length % 4 == 0
        assert len(data) >= length
        assert struct.unpack_from("<I", data, length - 4)[0] == length
        found.append((kind, data[8 : length - 4]))
        data = data[length:]
    return found


def options(data: bytes) -> list[tuple[int, bytes]]:
    """Options up to the one that ends them (pcapng, 3.5)."""
    found: list[tuple[int, bytes]] = []
    while True:
        code, length = struct.unpack_from("<HH", data)
        if code == 0:
            assert (length, len(data)) == (0, 4)
            return found
        found.append((code, data[4 : 4 + length]))
        data = data[4 + length + -length % 4 :]


@dataclass(frozen=True)
class Packet:
    interface: int
    micros: int
    data: bytes
    options: list[tuple[int, bytes]]


def packet(body: bytes) -> Packet:
    interface, high, low, captured, original = struct.unpack_from("<IIIII", body)
    assert captured == original
    end = 20 + captured
    assert body[end : end + -captured % 4].strip(b"\0") == b""
    return Packet(interface, high << 32 | low, body[20:end], options(body[end + -captured % 4 :]))


PACKETS = st.lists(
    st.tuples(
        st.binary(max_size=70),
        st.floats(0, 4e9),
        st.text(max_size=12),
        st.sampled_from([None, "in", "out"]),
    ),
    max_size=6,
)


@given(PACKETS, st.text(max_size=9))
def test_every_packet_is_read_as_it_was_written(packets: list[tuple], comment: str) -> None:  # type: ignore[type-arg]
    file = io.BytesIO()
    writer = Writer(file, comment=comment)
    assert writer.interface(LINKTYPE_RAW, "first") == 0
    assert writer.interface(252, "second", "some words") == 1
    for index, (data, seconds, words, way) in enumerate(packets):
        writer.packet(index % 2, seconds, data, comment=words, direction=way)
    section, first, second, *rest = blocks(file.getvalue())
    assert section[0] == 0x0A0D0D0A
    assert struct.unpack_from("<IHHq", section[1]) == (0x1A2B3C4D, 1, 0, -1)
    told = options(section[1][16:])
    assert [value.decode() for code, value in told if code == 1] == [comment] * bool(comment)
    assert [struct.unpack_from("<H", body)[0] for _, body in (first, second)] == [101, 252]
    assert options(second[1][8:]) == [(2, b"second"), (3, b"some words")]
    assert [kind for kind, _ in rest] == [6] * len(packets)
    for index, ((_, body), (data, seconds, words, way)) in enumerate(
        zip(rest, packets, strict=True)
    ):
        found = packet(body)
        assert (found.interface, found.data) == (index % 2, data)
        assert abs(found.micros - seconds * 1e6) <= 1
        flags = {"in": [(2, b"\1\0\0\0")], "out": [(2, b"\2\0\0\0")], None: []}[way]
        assert found.options == [(1, words.encode())] * bool(words) + flags


@given(st.binary(max_size=65))
def test_a_packet_with_its_checksum_sums_to_zero(data: bytes) -> None:
    whole = ipv4(("10.0.0.1", 49152), ("203.0.113.5", 5683), data)
    assert checksum(whole[:20]) == 0
    length = 8 + len(data)
    assert struct.unpack_from("!HH", whole, 2)[0] == len(whole)
    pseudo = whole[12:20] + struct.pack("!HH", 17, length)
    assert checksum(pseudo + whole[20:]) == 0
    assert whole[26:28] != b"\0\0"
    assert whole[28:] == data


def test_a_checksum_of_zero_is_written_as_all_ones() -> None:
    """Zero would say that there is none (RFC 768)."""
    ends = (("10.0.0.1", 49152), ("203.0.113.5", 5683))
    without = struct.unpack_from("!H", ipv4(*ends, b"\0\0"), 26)[0]
    assert ipv4(*ends, struct.pack("!H", without))[26:28] == b"\xff\xff"


# --- tshark ---------------------------------------------------------------------------------


def tshark(path: Path, *args: str) -> str:
    done = subprocess.run(
        ["tshark", "-n", "-r", str(path), *args], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def rows(path: Path, *fields: str, keep: str = "frame", options: tuple[str, ...] = ()) -> list[str]:
    columns = [word for field in fields for word in ("-e", field)]
    args = ("-Y", keep, "-T", "fields", "-E", "separator=|", "-E", "occurrence=f")
    return tshark(path, *options, *args, *columns).splitlines()


def captured(trace: Trace, folder: Path) -> Path:
    path = folder / "out.pcapng"
    with path.open("wb") as file:
        write_capture(trace, file)
    return path


def at_port(name: str, port: int) -> Trace:
    """A replay with the server at another port."""
    trace = read_trace(REPLAYS[name])
    (old,) = {datagram.peer[1] for datagram in datagrams(trace.records)}
    data = REPLAYS[name].read_text().replace(f",{old},", f",{port},")
    return _parsed(data)


def _parsed(text: str) -> Trace:
    from nbiot.trace import parse_trace

    return parse_trace(text.encode())


@requires_tshark
@pytest.mark.parametrize("name", ["bc95-g-sent-again", "bc66-attach-auth"])
def test_wireshark_shows_each_datagram_as_coap(name: str, tmp_path: Path) -> None:
    trace = at_port(name, 5683)
    path = captured(trace, tmp_path)
    found = rows(path, "ip.src", "ip.dst", "coap.code", "coap.opt.uri_path", keep="coap")
    sent = [f"{d.source[0]}|{d.target[0]}|" for d in datagrams(trace.records)]
    assert [row[: len(begin)] for row, begin in zip(found, sent, strict=True)] == sent
    assert all("|2|" in row and "auth" in row for row in found[: len(sent) // 2])
    assert found[-1].split("|")[2] == "68"  # 2.04
    checks = ("-o", "ip.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE")
    good = rows(path, "ip.checksum.status", "udp.checksum.status", keep="udp", options=checks)
    assert set(good) == {"1|1"}
    assert rows(path, "frame.number", keep="_ws.malformed") == []


@requires_tshark
@pytest.mark.parametrize("name", ["bc95-g-late-final", "bc66-attach-auth", "bc66-native-refused"])
def test_wireshark_shows_the_dialogue_as_text_out_of_the_box(name: str, tmp_path: Path) -> None:
    trace = read_trace(REPLAYS[name])
    path = captured(trace, tmp_path)
    found = [
        row.split("|")
        for row in rows(path, "_ws.col.Protocol", "frame.comment", "_ws.col.Info")
        if row.startswith(("AT|", "Syslog|"))
    ]
    assert len(found) == len(trace.records)
    for (protocol, event, words), record in zip(found, trace.records, strict=True):
        if record.dir == "-":
            assert (protocol, words.strip()) == ("Syslog", record.note.replace("\n", " "))
            continue
        assert (protocol, event) == ("AT", record.event)
        assert words.startswith("Sent" if record.dir == ">" else "Rcvd")
        text = record.raw.decode("latin-1").strip()
        if re.fullmatch(r"[ -{}~]+", text):
            assert text[:150] in words


@requires_tshark
def test_wireshark_shows_the_times_of_the_trace(tmp_path: Path) -> None:
    trace = read_trace(REPLAYS["bc66-no-sim"])
    times = [float(t) for t in rows(captured(trace, tmp_path), "frame.time_epoch")]
    assert times == pytest.approx([trace.started + r.t for r in trace.records], abs=2e-6)
    assert trace.started > 1_700_000_000


@requires_tshark
def test_coap_at_another_port_is_told_how_to_be_shown(tmp_path: Path) -> None:
    path = tmp_path / "out.pcapng"
    with path.open("wb") as file:
        written = write_capture(at_port("bc95-cold-auth", 7777), file)
    assert written.decode_as == "-d udp.port==7777,coap"
    assert rows(path, "coap.mid", keep="coap") == []
    shown = rows(path, "coap.mid", keep="coap", options=tuple(written.decode_as.split()))
    assert len(shown) == 2


@requires_tshark
@settings(max_examples=5, deadline=None)
@given(raws=st.lists(st.binary(min_size=1, max_size=200), min_size=20, max_size=40))
def test_wireshark_reads_a_dialogue_of_any_bytes(
    raws: list[bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    ways = (b"> ", b"< ")
    trace = trace_of(*(ways[index % 2] + raw for index, raw in enumerate(raws)))
    path = captured(trace, tmp_path_factory.mktemp("any"))
    found = rows(path, "exported_pdu.exported_pdu")
    assert [bytes.fromhex(row.replace(":", "")) for row in found] == raws
