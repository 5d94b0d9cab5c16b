"""The shape of a line, written as the vendors' manuals print it.

``Shape("+CEREG: <n:digit>,<stat:digit>[,<tac>,<ci>...]")`` recognises a line and takes its fields
out. The shape decides what a line is, not its prefix alone: ``+CEREG:`` begins the answer to
``AT+CEREG?`` (two digits) and the URC (one digit) alike.

===============  =================================================  ==============
notation         what it takes                                      value
===============  =================================================  ==============
``<x>``          text without comma, or a quoted string             ``str``
``<x:int>``      a whole number of up to 18 digits                  ``int``
``<x:digit>``    one digit                                          ``int``
``<x:digits>``   one or more digits (IMEI, IMSI)                    ``str``
``<x:alnum>``    letters and digits, quoted or not (ICCID)          ``str``
``<x:ip>``       an IPv4 address, quoted or not                     ``str``
``<x:hex>``      pairs of hexadecimal digits, quoted or not         ``bytes``
``<x:line>``     all the rest of the line                           ``str``
``[...]``        may be missing                                     ``None``
``...``          anything may follow (after a comma)                ``-``
===============  =================================================  ==============

The blank after the colon, and blanks around commas, may be there or not: firmware differs
(``+CSQ:18,99`` on BC95, ``+CSQ: 18,99`` on BC66).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

Fields = dict[str, Any]


def _line(value: bytes) -> str:
    return value.decode("ascii", "backslashreplace")


def _text(value: bytes) -> str:
    return _line(value.strip(b'"'))


def _hex(value: bytes) -> bytes:
    return bytes.fromhex(value.strip(b'"').decode("ascii"))


def _ip(value: bytes) -> str:
    """Without the leading zeros that some firmware prints and Python refuses."""
    return ".".join(str(int(octet)) for octet in value.strip(b'"').split(b"."))


_OCTET = rb"(?:25[0-5]|2[0-4]\d|[01]?\d?\d)"
_IP = _OCTET + rb"(?:\.%b){3}" % _OCTET

_KINDS: dict[str, tuple[bytes, Callable[[bytes], Any]]] = {
    "": (rb'"[^"]*"|[^",]*', _text),
    "int": (rb"-?\d{1,18}", int),
    "digit": (rb"\d(?!\d)", int),
    "digits": (rb"\d+", _text),
    "alnum": (rb'"[0-9A-Za-z]+"|[0-9A-Za-z]+', _text),
    "ip": (rb'"%b"|%b' % (_IP, _IP), _ip),
    "hex": (rb'"(?:[0-9A-Fa-f]{2})*"|(?:[0-9A-Fa-f]{2})*', _hex),
    "line": (rb".*", _line),
}

_TOKEN = re.compile(r"<(?P<name>\w+)(?::(?P<kind>\w+))?>|(?P<rest>\.\.\.)|(?P<char>.)", re.DOTALL)


class Shape:
    """A compiled line shape. ``match(line)`` gives its fields, or None.

    ``prefix`` is the literal beginning. A shape without one that begins with free text is ``free``:
    it would fit any line, so the parser lets it take only what nothing else claims.
    """

    __slots__ = ("_casts", "_match", "free", "notation", "prefix")

    def __init__(self, notation: str) -> None:
        self.notation = notation
        self._casts: list[tuple[str, Callable[[bytes], Any]]] = []
        pattern = b"".join(self._compile(token) for token in _TOKEN.finditer(notation))
        self._match = re.compile(pattern, re.DOTALL).fullmatch
        self.prefix = _prefix(notation)
        first = _TOKEN.match(notation)
        self.free = bool(first and first["name"] and first["kind"] in (None, "line"))

    def _compile(self, token: re.Match[str]) -> bytes:
        if token["name"]:
            regex, cast = _KINDS[token["kind"] or ""]
            self._casts.append((token["name"], cast))
            return b"(?P<%s>%s)" % (token["name"].encode(), regex)
        if token["rest"]:
            return rb"(?:,.*)?"
        char = token["char"]
        special = {":": rb" ?:", " ": rb" *", ",": rb" ?, ?", "[": rb"(?:", "]": rb")?"}
        return special.get(char) or re.escape(char.encode())

    def match(self, line: bytes | bytearray) -> Fields | None:
        """The fields of ``line`` (without line end), or None when it is another shape."""
        if self.prefix and not line.startswith(self.prefix):
            return None
        found = self._match(line)
        if found is None:
            return None
        return {
            name: None if (value := found[name]) is None else cast(value)
            for name, cast in self._casts
        }

    def __repr__(self) -> str:
        return f"Shape({self.notation!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Shape) and other.notation == self.notation

    def __hash__(self) -> int:
        return hash(self.notation)


def _prefix(notation: str) -> bytes:
    """The literal text that every line of this shape begins with, up to a blank or colon."""
    literal = re.match(r"[^<\[: ]*", notation)
    return literal[0].replace("...", "").encode() if literal else b""
