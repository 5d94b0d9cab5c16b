"""A label in ZPL II, Zebra's printer language, which many other makes understand."""

from __future__ import annotations

import string

from nbiot.errors import BadInput
from nbiot.station.labels.label import Label
from nbiot.station.labels.layout import Code, Layout, Size, Text, layout

COPIES_MOST = 100
_PLAIN = frozenset(string.ascii_letters + string.digits + " .:;/-+()=")


def zpl(label: Label, size: Size | None = None, dpi: int = 203, *, copies: int = 1) -> bytes:
    """What to send to the printer, ASCII only. Raises BadInput."""
    if not 1 <= copies <= COPIES_MOST:
        raise BadInput("copies", copies, f"1 to {COPIES_MOST}")
    placed = layout(label, size or Size(), dpi)
    fields = [_code(placed.code), *map(_text, placed.texts)]
    return "\n".join([_head(placed), *fields, f"^PQ{copies},0,1,N", "^XZ", ""]).encode("ascii")


def _head(placed: Layout) -> str:
    """States all that an earlier label may have left otherwise; heat and speed stay the user's."""
    return f"^XA\n^MUD^CI28^LH0,0^LS0^LT0^FWN^PON^PMN^LRN^PW{placed.width}^LL{placed.height}"


def _text(text: Text) -> str:
    face = text.face
    place = f"^FO{text.x},{text.y}^A{face.name}N,{face.height},{face.width}"
    return f"{place}^FH_^FD{_escaped(text.text)}^FS"


def _escaped(text: str) -> str:
    """For a field with ^FH_: whatever could mean something else goes as its hexadecimal digits."""
    return "".join(char if char in _PLAIN else f"_{ord(char):02X}" for char in text)


def _code(code: Code) -> str:
    lines = [line for row in code.rows for line in [_dots(row, code.module)] * code.module]
    width = -(-code.side // 8)
    total = width * code.side
    return f"^FO{code.x},{code.y}^GFA,{total},{total},{width},{''.join(lines)}^FS"


def _dots(row: bytes, module: int) -> str:
    """One row of dots, as hexadecimal digits of whole bytes."""
    bits = "".join(("1" if black else "0") * module for black in row)
    digits = -(-len(bits) // 8) * 2
    return f"{int(bits.ljust(digits * 4, '0'), 2):0{digits}X}"
