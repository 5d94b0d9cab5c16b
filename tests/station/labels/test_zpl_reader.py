"""A strict reader of the ZPL II that our labels use, from Zebra's programming guide alone.

Whatever the guide does not allow, or our labels have no use for, is a Refused. What it returns is
what a printer would make of it: each field with its text in plain letters, each picture in dots.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import pytest


class Refused(AssertionError):
    """This is no ZPL that the guide allows."""


@dataclass
class Printed:
    """One label format."""

    width: int = 0
    height: int = 0
    copies: int = 0
    texts: list[tuple[int, int, str, int, int, str]] = field(default_factory=list)
    """x, y, font, height and width of a letter, text."""
    pictures: list[tuple[int, int, int, list[str]]] = field(default_factory=list)
    """x, y, bytes in a row, rows of 0 and 1."""


# Commands without data, and what their parameters may be (guide: the command's table).
_SIMPLE = {
    "MU": r"[D]",
    "CI": r"28",
    "LH": r"0,0",
    "LS": r"0",
    "LT": r"0",
    "FW": r"N",
    "PO": r"N",
    "PM": r"N",
    "LR": r"N",
    "PW": r"\d{2,5}",
    "LL": r"\d{2,5}",
    "PQ": r"\d{1,8},0,1,N",
}
# Font: the matrix of one letter (guide, "Fonts and bar codes"); sizes are whole multiples of it.
_MATRIX = {"A": (9, 5), "D": (18, 10)}


def parse(data: bytes) -> Printed:
    """Raises Refused."""
    text = data.decode("ascii")
    if "~" in text:
        raise Refused("a tilde: an immediate command, or the end of a picture")
    parts = text.replace("\r", "").replace("\n", "").split("^")
    if parts[0] or parts[1] != "XA" or parts[-1] != "XZ" or "XA" in parts[2:]:
        raise Refused("not one format from ^XA to ^XZ")
    printed, place = Printed(), list[str]()
    for part in parts[2:-1]:
        name, rest = part[:2], part[2:]
        if name in _SIMPLE:
            if place or not re.fullmatch(_SIMPLE[name], rest):
                raise Refused(f"^{part}")
            _state(printed, name, rest)
        elif name == "FS":
            if rest:
                raise Refused(f"data after ^FS: {rest!r}")
            _field(printed, place)
            place = []
        else:
            place.append(part)
    if place:
        raise Refused(f"a field without ^FS: {place}")
    return printed


def _state(printed: Printed, name: str, rest: str) -> None:
    if name == "PW":
        printed.width = int(rest)
    elif name == "LL":
        printed.height = int(rest)
    elif name == "PQ":
        printed.copies = int(rest.partition(",")[0])


def _field(printed: Printed, parts: list[str]) -> None:
    origin = re.fullmatch(r"FO(\d{1,5}),(\d{1,5})", parts[0]) if parts else None
    if origin is None or int(origin[1]) > 32000 or int(origin[2]) > 32000:
        raise Refused(f"a field without ^FO: {parts}")
    x, y = int(origin[1]), int(origin[2])
    if len(parts) == 2 and parts[1].startswith("GF"):
        printed.pictures.append((x, y, *_picture(parts[1])))
    elif len(parts) == 4 and parts[2] == "FH_" and parts[3].startswith("FD"):
        font = re.fullmatch(r"A([AD])N,(\d+),(\d+)", parts[1])
        if font is None:
            raise Refused(f"^{parts[1]}")
        height, width = int(font[2]), int(font[3])
        own_height, own_width = _MATRIX[font[1]]
        factor = height // own_height
        if (height, width) != (own_height * factor, own_width * factor) or not 1 <= factor <= 10:
            raise Refused(f"font {font[1]} has no size {height} x {width}")
        printed.texts.append((x, y, font[1], height, width, _field_data(parts[3][2:])))
    else:
        raise Refused(f"a field of {parts}")


def _field_data(data: str) -> str:
    """^FH_: an underscore and two hexadecimal digits are one character."""
    if len(data) > 3072:
        raise Refused("field data is too long")
    if re.search(r"_(?![0-9A-F]{2})", data):
        raise Refused(f"an underscore without two digits: {data!r}")
    return re.sub(r"_([0-9A-F]{2})", lambda found: chr(int(found[1], 16)), data)


def _picture(part: str) -> tuple[int, list[str]]:
    found = re.fullmatch(r"GFA,(\d+),(\d+),(\d+),([0-9A-F]+)", part)
    if found is None:
        raise Refused(f"^{part[:40]}")
    sent, total, row = int(found[1]), int(found[2]), int(found[3])
    if not sent == total == len(found[4]) // 2 <= 99999 or total % row:
        raise Refused(f"^GF says {sent}, {total}, {row} and has {len(found[4]) // 2} bytes")
    digits = [found[4][start : start + 2 * row] for start in range(0, len(found[4]), 2 * row)]
    return row, [f"{int(line, 16):0{row * 8}b}" for line in digits]


@pytest.mark.parametrize(
    "bad",
    [
        b"^XA^XZ^XA^XZ",
        b"^XA^FO1,1^FDx^FS^XZ",
        b"^XA^FO1,1^ADN,18,10^FH_^FDx^XZ",
        b"^XA^FO1,1^ADN,18,10^FH_^FDx_^FS^XZ",
        b"^XA^FO1,1^ADN,20,10^FH_^FDx^FS^XZ",
        b"^XA^FO1,1^GFA,2,2,1,FF^FS^XZ",
        b"^XA~JR^XZ",
        b"^XA^JUF^XZ",
    ],
)
def test_the_reader_is_strict(bad: bytes) -> None:
    with pytest.raises(Refused):
        parse(bad)
