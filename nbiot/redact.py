"""A trace without what names one user's device: for bug reports.

Replaced, each by something else of the same length and form, the same everywhere in the file: IMEI
(with a valid check digit), IMSI, ICCID, IP addresses, signatures; also inside datagrams, so that
these stay readable. Kept: what names a model or an operator (the first 8 digits of an IMEI, 5 of an
IMSI, 6 of an ICCID), private things that the user must judge (product key, device key that is no
IMEI, host names, APN, cell identities); ``also`` takes texts of that kind.
"""

from __future__ import annotations

import random
import re
import string
from collections.abc import Callable, Iterable
from dataclasses import replace
from ipaddress import AddressValueError, IPv6Address

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
_KEPT_ADDRESSES = re.compile(rb"127\..*|(?:0\.)+0|(?:255\.)+\d+")
# What the parser could not read may hold a damaged part of what is replaced elsewhere.
_DAMAGED = ("unknown", "overflow", "truncated", "orphan")
_FRAGMENT = 8
ALSO_LEAST = 4


class Redaction:
    """Replacements that hold for one trace. ``rng`` draws them: unpredictable by default."""

    def __init__(self, also: Iterable[str] = (), *, rng: random.Random | None = None) -> None:
        self._rng = rng or random.SystemRandom()
        self.found: Replacements = {}
        self._addresses: Replacements = {}
        for text in also:
            if len(text) < ALSO_LEAST or not text.isascii():
                raise BadInput("also", text, f"{ALSO_LEAST} or more ASCII characters")
            self._replace(text.encode(), self._alike)

    def __call__(self, trace: Trace) -> Trace:
        """A copy of ``trace`` with everything replaced."""
        for record in trace.records:
            self._look(record)
        records = [self._redacted(record) for record in trace.records]
        header = {
            name: self._text(value) if isinstance(value, str) else value
            for name, value in trace.header.items()
        }
        return Trace(trace.name, header | {"redacted": True}, records, trace.broken)

    @property
    def count(self) -> int:
        """How many different things were replaced."""
        both = self.found | self._addresses
        return sum(old != new for old, new in both.items())

    # --- finding

    def _look(self, record: Record) -> None:
        raw = record.raw or record.note.encode()
        for view in (raw, *map(_decoded, _DIGITS.findall(raw))):
            for found in _SIGN.finditer(view):
                self._replace(found[1], self._alike)
            for found in _SERIAL.finditer(view):
                self._replace(found[1], self._imei)
            for found in _ICCID.finditer(view):
                self._replace(found[1], lambda old: old[:6] + self._alike(old[6:]))
            for found in _IMEI.finditer(view):
                if luhn(found[0][:14]) == found[0][14:]:
                    self._replace(found[0], self._imei)
            if record.dir == "<":
                for found in _IMSI.finditer(view):
                    self._replace(found[1], lambda old: old[:5] + self._alike(old[5:]))

    def _replace(self, old: bytes, make: Callable[[bytes], bytes]) -> None:
        if old not in self.found:
            new = next((new for _ in range(100) if (new := make(old)) != old), old)
            self.found[old] = new

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
        body = old[:8] + self._alike(old[8:14])
        return body + (luhn(body) if len(old) == 15 else self._alike(old[14:]))

    def _address(self, old: bytes) -> bytes:
        """Numbers of as many digits as they had."""
        if _KEPT_ADDRESSES.fullmatch(old):
            return old
        if old not in self._addresses:
            parts = old.split(b".")
            if all(int(part) <= 255 for part in parts):
                self._addresses[old] = b".".join(self._octet(len(part)) for part in parts)
            else:
                self._addresses[old] = old  # a version, not an address
        return self._addresses[old]

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
        new = self._plain(plain)
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


def luhn(digits: bytes) -> bytes:
    """The check digit of ``digits`` (ISO/IEC 7812, annex B), as in an IMEI."""
    total = 0
    for place, byte in enumerate(reversed(digits)):
        doubled = (byte - 48) * (2 if place % 2 == 0 else 1)
        total += doubled // 10 + doubled % 10
    return b"%d" % (-total % 10)
