"""The UDP datagrams in a recorded AT dialogue: which bytes, from where, to where.

Read from the commands of the families that this project knows: NSOST, NSOSTF and NSORF with
hexadecimal digits (HiSilicon), QIOPEN, QISEND and +QIURC "recv" with raw bytes (MT2625). A modem's
own CoAP client (QCOAP...) shows no datagrams. Where a trace has notes ``datagram up PEER HEX`` or
``datagram down PEER HEX`` (PEER: address and port), those are taken instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Literal

from nbiot.trace import Record

Address = tuple[str, int]
UNKNOWN_ADDRESS = "10.0.0.1"
UNKNOWN_PORT = 49152  # plus the number of the socket

_IP = rb"(\d{1,3}(?:\.\d{1,3}){3})"
_NSOST = re.compile(rb"AT\+NSOST=(\d),%b,(\d+),(\d+),([0-9A-Fa-f]*)(?:,\d+)?\r" % _IP)
_NSOSTF = re.compile(rb"AT\+NSOSTF=(\d),%b,(\d+),\w+,(\d+),([0-9A-Fa-f]*)(?:,\d+)?\r" % _IP)
_NSORF = re.compile(rb"(?:\+NSORF: ?)?(\d),%b,(\d+),(\d+),([0-9A-Fa-f]+),(\d+)[\r\n]" % _IP)
_NSOCR = re.compile(rb"AT\+NSOCR=DGRAM,17,(\d+)", re.IGNORECASE)
_SOCKET = re.compile(rb"(?:\+NSOCR: ?)?(\d)[\r\n]")
_QIOPEN = re.compile(rb'AT\+QIOPEN=\d+,(\d+),"UDP[^"]*","%b",(\d+)(?:,(\d+))?' % _IP)
_QISEND = re.compile(rb"AT\+QISEND=(\d+),(\d+)\r")
_QIURC = re.compile(rb'\+QIURC: ?"recv",(\d+),(\d+)(?:\r\n|\n|\r)')
_OWN = re.compile(rb'\+(?:CGPADDR: ?\d+,"?|IP: ?)%b(?![.\d])' % _IP)
_NOTE = re.compile(r"datagram (up|down) ([\d.]+):(\d+) ([0-9A-Fa-f]*)")


@dataclass(frozen=True, slots=True)
class Datagram:
    """One datagram. ``whole``: the record that completes it; ``record``: the one in which it
    begins, from ``begin`` to ``end`` of its bytes, as digits where ``is_hex``.
    """

    whole: Record
    way: Literal["up", "down"]
    own: Address
    peer: Address
    data: bytes
    record: Record
    begin: int
    end: int
    is_hex: bool

    @property
    def source(self) -> Address:
        return self.own if self.way == "up" else self.peer

    @property
    def target(self) -> Address:
        return self.peer if self.way == "up" else self.own


def datagrams(records: Sequence[Record]) -> list[Datagram]:
    """All datagrams in the order in which they were whole."""
    noted = list(_noted(records))
    return noted or list(_Dialogue(records).datagrams())


def in_dialogue(records: Sequence[Record]) -> list[Datagram]:
    """Those that the dialogue shows, whatever the notes say."""
    return list(_Dialogue(records).datagrams())


def _noted(records: Sequence[Record]) -> Iterator[Datagram]:
    own = (_own_address(records) or UNKNOWN_ADDRESS, UNKNOWN_PORT)
    for record in records:
        found = _NOTE.fullmatch(record.note)
        if found and _valid(found[2].encode(), found[3].encode()) and len(found[4]) % 2 == 0:
            way: Literal["up", "down"] = "up" if found[1] == "up" else "down"
            peer = (found[2], int(found[3]))
            data = bytes.fromhex(found[4])
            yield Datagram(record, way, own, peer, data, record, 0, 0, True)


def _own_address(records: Sequence[Record]) -> str | None:
    for record in records:
        found = _OWN.search(record.raw) if record.dir == "<" else None
        if found and found[1] != b"0.0.0.0" and _valid(found[1]):
            return found[1].decode()
    return None


def _valid(address: bytes, port: bytes = b"1") -> bool:
    try:
        IPv4Address(address.decode())
    except ValueError:
        return False
    return len(port) <= 5 and int(port) <= 65535


@dataclass(slots=True)
class _Socket:
    peer: Address | None = None
    port: int = 0
    announced: int = 0  # bytes that AT+QISEND told and that are still to be sent
    pieces: bytes = b""  # what AT+NSORF has read of a datagram that is not whole
    first: tuple[Record, int, int] | None = None


@dataclass(slots=True)
class _Dialogue:
    records: Sequence[Record]
    address: str = UNKNOWN_ADDRESS
    asked: bytes = b""  # the last command
    sockets: dict[int, _Socket] = field(default_factory=dict)

    def datagrams(self) -> Iterator[Datagram]:
        self.address = _own_address(self.records) or UNKNOWN_ADDRESS
        for record in self.records:
            if record.dir == ">":
                found = self._sent(record)
            elif record.dir == "<":
                found = self._heard(record)
            else:
                continue
            if found is not None:
                yield found

    def _socket(self, number: bytes) -> _Socket:
        return self.sockets.setdefault(int(number), _Socket())

    def _own(self, number: bytes) -> Address:
        return self.address, self._socket(number).port or UNKNOWN_PORT + int(number)

    # --- the host's side

    def _sent(self, record: Record) -> Datagram | None:
        raw = record.raw
        if (begun := _QISEND.fullmatch(self.asked)) and self._socket(begun[1]).announced:
            socket = self._socket(begun[1])
            size, socket.announced = socket.announced, 0
            if len(raw) == size and socket.peer is not None:
                own = self._own(begun[1])
                return Datagram(record, "up", own, socket.peer, raw, record, 0, size, False)
        self.asked = raw
        if found := _NSOST.fullmatch(raw) or _NSOSTF.fullmatch(raw):
            return self._sent_digits(record, found)
        if (found := _QIOPEN.match(raw)) and _valid(found[2], found[3]):
            socket = self._socket(found[1])
            socket.peer = found[2].decode(), int(found[3])
            socket.port = _port(found[4])
        elif found := _QISEND.fullmatch(raw):
            self._socket(found[1]).announced = int(found[2])
        return None

    def _sent_digits(self, record: Record, found: re.Match[bytes]) -> Datagram | None:
        number, address, port, length, digits = found.groups()
        if not _valid(address, port) or len(digits) != 2 * int(length):
            return None
        peer = (address.decode(), int(port))
        begin, end = found.span(5)
        data = bytes.fromhex(digits.decode())
        return Datagram(record, "up", self._own(number), peer, data, record, begin, end, True)

    # --- the modem's side

    def _heard(self, record: Record) -> Datagram | None:
        raw = record.raw
        if self.asked.startswith(b"AT+NSORF") and (found := _NSORF.search(raw)):
            return self._read(record, found)
        if found := _QIURC.search(raw):
            return self._pushed(record, found)
        if (asked := _NSOCR.match(self.asked)) and (found := _SOCKET.fullmatch(raw.lstrip())):
            self.sockets[int(found[1])] = _Socket(port=_port(asked[1]))
        return None

    def _read(self, record: Record, found: re.Match[bytes]) -> Datagram | None:
        number, address, port, length, digits, remaining = found.groups()
        if not _valid(address, port) or len(digits) != 2 * int(length):
            return None
        socket = self._socket(number)
        socket.first = socket.first or (record, *found.span(5))
        socket.pieces += bytes.fromhex(digits.decode())
        if int(remaining):
            return None
        data, socket.pieces = socket.pieces, b""
        (first, begin, end), socket.first = socket.first, None
        peer = (address.decode(), int(port))
        return Datagram(record, "down", self._own(number), peer, data, first, begin, end, True)

    def _pushed(self, record: Record, found: re.Match[bytes]) -> Datagram | None:
        peer = self._socket(found[1]).peer
        begin = found.end()
        end = begin + int(found[2])
        if peer is None or end > len(record.raw):
            return None
        data = record.raw[begin:end]
        own = self._own(found[1])
        return Datagram(record, "down", own, peer, data, record, begin, end, False)


def _port(digits: bytes | None) -> int:
    number = int(digits or b"0")
    return number if number <= 65535 else 0
