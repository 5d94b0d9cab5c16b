"""A trace without what names one user's device: for bug reports.

Replaced, each by something else of the same length and form, the same everywhere in the file: IMEI
(with a valid check digit), IMSI, ICCID, IP addresses, signatures; also inside datagrams, so that
these stay readable. Kept: what names a model or an operator (the first 8 digits of an IMEI, 5 of an
IMSI, 6 of an ICCID), private things that the user must judge (product key, device key that is no
IMEI, host names, APN); ``also`` takes texts of that kind. Cell identities and tracking areas, which
tell a place, are kept unless ``cells`` is asked for; phone and serial numbers go with them.
"""

from __future__ import annotations

import random
import re
import string
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from ipaddress import AddressValueError, IPv6Address
from typing import NamedTuple

from nbiot.errors import BadInput
from nbiot.trace import Record, Trace

Replacements = dict[bytes, bytes]

_IMEI = re.compile(rb"(?<![0-9A-Za-z])\d{15}(?![0-9A-Za-z])")
_SERIAL = re.compile(rb'\+CGSN: ?"?(\d{14,17})')
_IMSI = re.compile(rb"(?<![0-9A-Za-z])(\d{14,15})[\r\n]")
_ICCID = re.compile(rb'\+[NQ]?I?CC(?:ID)?: ?"?(89[0-9A-Fa-f]{16,20})')
_SIGN = re.compile(rb'"sign" ?: ?"([0-9A-Za-z+/=_-]{8,})')
_DOTTED = re.compile(rb"(?<![\w.])(?:\d{1,3}\.){3,31}\d{1,3}(?![\w.])")
_COLONS = re.compile(rb"(?<![\w:.])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?![\w:.])")
_DIGITS = re.compile(rb"(?<![0-9A-Za-z])(?:[0-9A-Fa-f]{2}){8,}(?![0-9A-Za-z])")
_SERIAL_TEXT = re.compile(rb'\+CGSN: ?"?([0-9A-Za-z]{8,})')
_PHONE = re.compile(rb'\+CNUM: ?[^,\r\n]*,"?\+?(\d{5,})')
_REGISTRATION = re.compile(
    rb'\+C(?:E|G|5G)?REG: ?(?:\d,)?\d,"?([0-9A-Fa-f]{1,6})"?,"?([0-9A-Fa-f]{1,8})(?![0-9A-Fa-f])'
)
_SERVING_CELL = re.compile(
    rb'\+QENG: ?0(?:,[^,\r\n]*){3},"?([0-9A-Fa-f]{1,8})"?(?:,[^,\r\n]*){5},"?([0-9A-Fa-f]{1,6})'
)
_CELL_ID = re.compile(rb"(?i)cell ?id ?: ?(\d{1,10})")
_NO_CELL = (0, 0xFFFFFFF, 0xFFFFFFFF)
_NO_AREA = (0, 0xFFFE, 0xFFFF)
_KEPT_ADDRESSES = re.compile(rb"127\..*|(?:0\.)+0|(?:255\.)+\d+")
# What the parser could not read may hold a damaged part of what is replaced elsewhere.
_DAMAGED = ("unknown", "overflow", "truncated", "orphan")
_FRAGMENT = 8
ALSO_LEAST = 4


class Redaction:
    """Replacements that hold for one trace. ``rng`` draws them: unpredictable by default.

    ``counts``: how many different things of each kind were replaced.
    """

    def __init__(
        self, also: Iterable[str] = (), *, cells: bool = False, rng: random.Random | None = None
    ) -> None:
        self._rng = rng or random.SystemRandom()
        self.found: Replacements = {}
        self.counts: Counter[str] = Counter()
        self._addresses: Replacements = {}
        self._imeis: Replacements = {}  # their first 14 digits, which an IMEISV has, too
        self._with_cells = cells
        self._cells: dict[int, int] = {}
        self._areas: dict[int, int] = {}
        for text in also:
            if len(text) < ALSO_LEAST or not text.isascii():
                raise BadInput("also", text, f"{ALSO_LEAST} or more ASCII characters")
            self._replace("named by you", text.encode(), self._alike)

    def __call__(self, trace: Trace) -> Trace:
        """A copy of ``trace`` with everything replaced."""
        for record in trace.records:
            self._look(record)
        self._draw_cells()
        records = [self._redacted(record) for record in trace.records]
        header = {
            name: self._text(value) if isinstance(value, str) else value
            for name, value in trace.header.items()
        }
        return Trace(trace.name, header | {"redacted": True}, records, trace.broken)

    @property
    def count(self) -> int:
        """How many different things were replaced."""
        return self.counts.total()

    # --- finding

    def _look(self, record: Record) -> None:
        raw = record.raw or record.note.encode()
        for view in (raw, *map(_decoded, _DIGITS.findall(raw))):
            for found in _SIGN.finditer(view):
                self._replace("signature", found[1], self._alike)
            for found in _SERIAL.finditer(view):
                self._replace("IMEI", found[1], self._imei)
            for found in _ICCID.finditer(view):
                self._replace("ICCID", found[1], self._iccid)
            for found in _IMEI.finditer(view):
                if luhn(found[0][:14]) == found[0][14:]:
                    self._replace("IMEI", found[0], self._imei)
            if record.dir == "<":
                for found in _IMSI.finditer(view):
                    self._replace("IMSI", found[1], lambda old: old[:5] + self._alike(old[5:]))
            if self._with_cells:
                self._look_for_places(view)

    def _look_for_places(self, view: bytes) -> None:
        for found in _SERIAL_TEXT.finditer(view):
            self._replace("serial number", found[1], self._alike)
        for found in _PHONE.finditer(view):
            self._replace("phone number", found[1], self._alike)
        for place in _places(view):
            known = self._cells if place.is_cell else self._areas
            known.setdefault(place.number, place.number)

    def _draw_cells(self) -> None:
        """Once all of them are known, so that none becomes another one that is there, too."""
        for kind, known, none in (
            ("cell identity", self._cells, _NO_CELL),
            ("tracking area", self._areas, _NO_AREA),
        ):
            for number in [n for n, new in known.items() if n == new and n not in none]:
                known[number] = self._number_alike(number, {*known, *known.values()})
                self.counts[kind] += known[number] != number
        for number, new in self._cells.items():  # long enough to be known anywhere
            for form, least in (("X", 7), ("x", 7), ("d", 7)):
                if len(text := format(number, form)) >= least and number != new:
                    self.found.setdefault(text.encode(), format(new, form).encode())

    def _replace(self, kind: str, old: bytes, make: Callable[[bytes], bytes]) -> None:
        if old in self.found:
            return
        taken = {old, *self.found, *self.found.values()}
        new = next((new for _ in range(100) if (new := make(old)) not in taken), old)
        self.found[old] = new
        if kind == "IMEI":
            self.counts[kind] = len(self._imeis)
            self.found.setdefault(old[:14], new[:14])
        else:
            self.counts[kind] += old != new
        if kind in ("IMSI", "ICCID") and old.isdigit():  # as the SIM's files have them
            self.found.setdefault(_swapped(old), _swapped(new))

    # --- making

    def _alike(self, old: bytes) -> bytes:
        """Digits for digits, hexadecimal where all is, letters for letters."""
        if all(byte in b"0123456789ABCDEF" for byte in old) and not old.isdigit():
            return bytes(self._rng.choice(b"0123456789ABCDEF") for _ in old)
        if all(byte in b"0123456789abcdef" for byte in old) and not old.isdigit():
            return bytes(self._rng.choice(b"0123456789abcdef") for _ in old)
        return bytes(self._character(byte) for byte in old)

    def _character(self, byte: int) -> int:
        for kind in (string.digits, string.ascii_lowercase, string.ascii_uppercase):
            if chr(byte) in kind:
                return ord(self._rng.choice(kind))
        return byte

    def _imei(self, old: bytes) -> bytes:
        body = old[:14]
        while body not in self._imeis or self._imeis[body] == body:
            self._imeis[body] = old[:8] + self._alike(old[8:14])
        body = self._imeis[body]
        return body + (luhn(body) if len(old) == 15 else self._alike(old[14:]))

    def _iccid(self, old: bytes) -> bytes:
        new = old[:6] + self._alike(old[6:])
        if old.isdigit() and luhn(old[:-1]) == old[-1:]:
            return new[:-1] + luhn(new[:-1])
        return new

    def _number_alike(self, old: int, taken: set[int]) -> int:
        """A number with as many decimal and as many hexadecimal digits."""
        decimal, hexadecimal = len(f"{old:d}"), len(f"{old:x}")
        least = max(10 ** (decimal - 1), 16 ** (hexadecimal - 1))
        most = min(10**decimal, 16**hexadecimal) - 1
        drawn = (self._rng.randint(least, most) for _ in range(100))
        return next((new for new in drawn if new not in taken), old)

    def _address(self, old: bytes) -> bytes:
        """Numbers of as many digits as they had."""
        parts = old.split(b".")
        if len(parts) == 8:  # +CGCONTRDP: address and mask in one
            return b".".join(self._address(b".".join(half)) for half in (parts[:4], parts[4:]))
        if _KEPT_ADDRESSES.fullmatch(old):
            return old
        if old not in self._addresses:
            if all(int(part) <= 255 for part in parts):
                self._addresses[old] = self._other_address(old, parts)
                self.counts["IP address"] += 1
            else:
                self._addresses[old] = old  # a version, not an address
        return self._addresses[old]

    def _other_address(self, old: bytes, parts: list[bytes]) -> bytes:
        taken = {old, *self._addresses, *self._addresses.values()}
        drawn = (b".".join(self._octet(len(part)) for part in parts) for _ in range(100))
        return next((new for new in drawn if new not in taken), old)

    def _octet(self, digits: int) -> bytes:
        least, most = {1: (1, 9), 2: (10, 99), 3: (128, 223)}[digits]
        return b"%d" % self._rng.randint(least, most)

    def _address6(self, old: bytes) -> bytes:
        try:
            IPv6Address(old.decode())
        except (AddressValueError, ValueError):
            return old
        if old not in self._addresses:
            new = (self._rng.choice(b"123456789abcdef") if c in _HEX else c for c in old)
            self._addresses[old] = bytes(new) if old.strip(b":0") else old
            self.counts["IP address"] += self._addresses[old] != old
        return self._addresses[old]

    # --- replacing

    def _redacted(self, record: Record) -> Record:
        if record.dir == "-":
            return replace(record, note=self._text(record.note))
        raw = self._bytes(record.raw)
        if record.event in _DAMAGED:
            raw = self._without_fragments(raw)
        return replace(record, raw=raw)

    def _text(self, text: str) -> str:
        return self._bytes(text.encode()).decode("utf-8", "replace")

    def _bytes(self, raw: bytes) -> bytes:
        if not self._with_cells:
            return self._but_cells(raw)
        out, end = b"", 0
        for place in _places(raw):
            known = self._cells if place.is_cell else self._areas
            new = known.get(place.number, place.number)
            old = raw[place.begin : place.end]
            out += self._but_cells(raw[end : place.begin])
            out += b"%d" % new if place.decimal else _hexadecimal(new, old)
            end = place.end
        return out + self._but_cells(raw[end:])

    def _but_cells(self, raw: bytes) -> bytes:
        raw = self._plain(raw)
        raw = _DIGITS.sub(lambda found: self._digits(found[0]), raw)
        raw = _DOTTED.sub(lambda found: self._address(found[0]), raw)
        return _COLONS.sub(lambda found: self._address6(found[0]), raw)

    def _plain(self, raw: bytes) -> bytes:
        if not self.found:
            return raw
        longest_first = sorted(self.found, key=len, reverse=True)
        pattern = b"|".join(re.escape(old) for old in longest_first)
        return re.sub(pattern, lambda found: self.found[found[0]], raw)

    def _digits(self, digits: bytes) -> bytes:
        """The same inside hexadecimal digits."""
        plain = _decoded(digits)
        new = _DOTTED.sub(lambda found: self._address(found[0]), self._plain(plain))
        if new == plain:
            return digits
        return new.hex().encode() if digits == digits.lower() else new.hex().upper().encode()

    def _without_fragments(self, raw: bytes) -> bytes:
        """``raw`` without pieces of what is replaced, as text and as digits."""
        out = bytearray(raw)
        for old, new in self.found.items():
            for then, now in (
                (old, new),
                (old.hex().encode(), new.hex().encode()),
                (old.hex().upper().encode(), new.hex().upper().encode()),
            ):
                for begin in range(len(then) - _FRAGMENT + 1):
                    piece = then[begin : begin + _FRAGMENT]
                    at = raw.find(piece)
                    while at >= 0:
                        out[at : at + _FRAGMENT] = now[begin : begin + _FRAGMENT]
                        at = raw.find(piece, at + 1)
        return bytes(out)


_HEX = b"0123456789ABCDEFabcdef"


def _decoded(digits: bytes) -> bytes:
    return bytes.fromhex(digits.decode())


class _Place(NamedTuple):
    """A number in some bytes that tells a place."""

    begin: int
    end: int
    number: int
    is_cell: bool
    decimal: bool


def _places(raw: bytes) -> list[_Place]:
    """From left to right."""
    found = []
    for pattern, cell, area in ((_REGISTRATION, 2, 1), (_SERVING_CELL, 1, 2)):
        for match in pattern.finditer(raw):
            for group in (cell, area):
                number = int(match[group], 16)
                found.append(_Place(*match.span(group), number, group == cell, decimal=False))
    for match in _CELL_ID.finditer(raw):
        found.append(_Place(*match.span(1), int(match[1]), is_cell=True, decimal=True))
    return sorted(found)


def _hexadecimal(number: int, like: bytes) -> bytes:
    """``number`` in as many digits and in the same case as ``like`` has."""
    text = b"%0*X" % (len(like), number)
    return text if like == like.upper() else text.lower()


def _swapped(digits: bytes) -> bytes:
    """As a SIM stores an IMSI (EF_IMSI) or an ICCID: pairs of digits turned round."""
    padded = b"9" + digits if len(digits) % 2 else digits
    return b"".join(padded[at : at + 2][::-1] for at in range(0, len(padded), 2))


def luhn(digits: bytes) -> bytes:
    """The check digit of ``digits`` (ISO/IEC 7812, annex B), as in an IMEI."""
    total = 0
    for place, byte in enumerate(reversed(digits)):
        doubled = (byte - 48) * (2 if place % 2 == 0 else 1)
        total += doubled // 10 + doubled % 10
    return b"%d" % (-total % 10)
