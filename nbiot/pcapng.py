"""A capture file of a recorded dialogue, for Wireshark.

Two interfaces: ``AT``, each record as a packet that Wireshark's own dissector of AT commands shows
as text, with the direction, and the parser's event as comment; and ``UDP``, each datagram as an
IPv4 packet. Nothing has to be configured. Times are the trace's, in microseconds.

Format: IETF draft-ietf-opsawg-pcapng. AT text is in LINKTYPE_WIRESHARK_UPPER_PDU packets, whose
tags are in Wireshark's epan/exported_pdu.h.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import BinaryIO, Literal

from nbiot import __version__
from nbiot.datagrams import Address, Datagram, datagrams
from nbiot.trace import Record, Trace

COAP_PORT = 5683
LINKTYPE_RAW = 101  # an IP packet without anything around it
LINKTYPE_UPPER_PDU = 252
UDP = 17

_SECTION, _INTERFACE, _PACKET = 0x0A0D0D0A, 1, 6
_COMMENT = 1
_SECTION_APPLICATION = 4
_INTERFACE_NAME, _INTERFACE_DESCRIPTION = 2, 3
_PACKET_FLAGS = 2
_FLAGS = {"in": 1, "out": 2}
_DISSECTOR, _DIRECTION = 12, 35
_DIRECTIONS = {"out": 0, "in": 1}  # sent, received

Direction = Literal["in", "out"]
Option = tuple[int, bytes]


class Writer:
    """Writes one section of a pcapng file, little-endian."""

    def __init__(self, file: BinaryIO, *, comment: str = "") -> None:
        self._file = file
        options: list[Option] = [(_SECTION_APPLICATION, f"nbiot {__version__}".encode())]
        if comment:
            options.append((_COMMENT, comment.encode()))
        body = struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)  # byte order, 1.0, length not told
        self._block(_SECTION, body, options)
        self._interfaces = 0

    def interface(self, linktype: int, name: str, description: str = "") -> int:
        """Add an interface; its number."""
        options: list[Option] = [(_INTERFACE_NAME, name.encode())]
        if description:
            options.append((_INTERFACE_DESCRIPTION, description.encode()))
        self._block(_INTERFACE, struct.pack("<HHI", linktype, 0, 0), options)
        self._interfaces += 1
        return self._interfaces - 1

    def packet(
        self,
        interface: int,
        seconds: float,
        data: bytes,
        *,
        comment: str = "",
        direction: Direction | None = None,
    ) -> None:
        """Add a packet. ``seconds``: since 1970."""
        micros = max(round(seconds * 1_000_000), 0)
        head = struct.pack(
            "<IIIII", interface, micros >> 32, micros & 0xFFFFFFFF, len(data), len(data)
        )
        options: list[Option] = []
        if comment:
            options.append((_COMMENT, comment.encode()))
        if direction is not None:
            options.append((_PACKET_FLAGS, struct.pack("<I", _FLAGS[direction])))
        self._block(_PACKET, head + _padded(data), options)

    def _block(self, kind: int, body: bytes, options: list[Option]) -> None:
        for code, value in options:
            value = value[:0xFFFF]
            body += struct.pack("<HH", code, len(value)) + _padded(value)
        body += struct.pack("<HH", 0, 0)
        length = struct.pack("<I", len(body) + 12)
        self._file.write(struct.pack("<I", kind) + length + body + length)


@dataclass(frozen=True, slots=True)
class Written:
    """What a capture file got. ``ports``: of servers at which Wireshark does not expect CoAP."""

    records: int
    datagrams: int
    ports: tuple[int, ...]

    @property
    def decode_as(self) -> str:
        """Wireshark's options for those ports."""
        return " ".join(f"-d udp.port=={port},coap" for port in self.ports)


def write_capture(trace: Trace, file: BinaryIO) -> Written:
    """Write ``trace`` as a pcapng file."""
    about = ", ".join(f"{name} {value}" for name, value in trace.header.items() if value)
    writer = Writer(file, comment=f"{trace.name}: {about}")
    text = writer.interface(LINKTYPE_UPPER_PDU, "AT", "AT dialogue between host and modem")
    udp = writer.interface(LINKTYPE_RAW, "UDP", "datagrams that the dialogue carried")
    found = datagrams(trace.records)
    whole: defaultdict[int, list[Datagram]] = defaultdict(list)
    for datagram in found:
        whole[id(datagram.whole)].append(datagram)
    start = trace.started
    for record in trace.records:
        _write_record(writer, text, start, record)
        for datagram in whole[id(record)]:
            writer.packet(
                udp,
                start + record.t,
                ipv4(datagram.source, datagram.target, datagram.data),
                direction="out" if datagram.way == "up" else "in",
            )
    ports = sorted({datagram.peer[1] for datagram in found} - {COAP_PORT})
    return Written(len(trace.records), len(found), tuple(ports))


def _write_record(writer: Writer, interface: int, start: float, record: Record) -> None:
    seconds = start + record.t
    if record.dir == "-":
        words = record.note.replace("\n", " ").encode("utf-8", "backslashreplace")
        writer.packet(interface, seconds, _upper_pdu("syslog", words))
        return
    direction: Direction = "out" if record.dir == ">" else "in"
    data = _upper_pdu("at", record.raw, direction)
    writer.packet(interface, seconds, data, comment=record.event, direction=direction)


def _upper_pdu(dissector: str, data: bytes, direction: Direction | None = None) -> bytes:
    """``data`` with the tags that tell Wireshark what it is."""
    name = _padded(dissector.encode())
    tags = struct.pack("!HH", _DISSECTOR, len(name)) + name
    if direction is not None:
        tags += struct.pack("!HHI", _DIRECTION, 4, _DIRECTIONS[direction])
    return tags + struct.pack("!HH", 0, 0) + data


def ipv4(source: Address, target: Address, data: bytes) -> bytes:
    """An IPv4 packet with ``data`` as UDP payload (RFC 791, RFC 768), checksums included."""
    ends = IPv4Address(source[0]).packed + IPv4Address(target[0]).packed
    length = 8 + len(data)
    udp = struct.pack("!HHHH", source[1], target[1], length, 0) + data
    checked = checksum(ends + struct.pack("!HH", UDP, length) + udp) or 0xFFFF  # 0 says: none
    udp = udp[:6] + struct.pack("!H", checked) + udp[8:]
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, 0, 0, 64, UDP, 0) + ends
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + udp


def checksum(data: bytes) -> int:
    """The ones' complement sum of 16-bit words, complemented (RFC 1071)."""
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
