"""Where things stand on a label, in dots: the one source of print and preview.

Text is in the printer's fixed-pitch fonts A and D, whose cells are known to the dot ("Fonts and bar
codes" in Zebra's ZPL II manual), so that what fits is known without the printer. The QR code is a
picture of ours: printers place their own (^BQ) lower by whatever ^BY an earlier label left behind.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from nbiot.errors import BadInput
from nbiot.station.labels.label import Label

DOTS_PER_MM = {152: 6, 203: 8, 300: 12, 600: 24}
"""By the dpi in the printers' data sheets."""
MARGIN = 1.5  # mm that stay white at each edge
QUIET = 4  # modules around a QR code that stay white (ISO/IEC 18004)
_MODULE_LEAST, _MODULE_MOST = 0.25, 0.8  # mm; scanners want no smaller ones
_TEXT_LEAST, _TEXT_MOST = 1.1, 3.2  # mm of height
_CODE_SHARE = 0.45  # of the label's width, at most


@dataclass(frozen=True, slots=True)
class Size:
    """Of a label, in mm. Raises BadInput."""

    width: float = 50.0
    height: float = 30.0

    def __post_init__(self) -> None:
        for name, value, most in (("width", self.width, 110), ("height", self.height, 200)):
            if not 12 <= value <= most:
                raise BadInput(f"label {name}", value, f"12 to {most} mm")


@dataclass(frozen=True, slots=True)
class Face:
    """A printer font: one character's width and height, and the gap to the next, in dots."""

    name: str
    width: int
    height: int
    gap: int

    def times(self, factor: int) -> Face:
        """The font magnified."""
        return Face(self.name, self.width * factor, self.height * factor, self.gap * factor)

    @property
    def pitch(self) -> int:
        """From one character to the next."""
        return self.width + self.gap


FACES = (Face("A", 5, 9, 1), Face("D", 10, 18, 2))


@dataclass(frozen=True, slots=True)
class Text:
    """A line; ``x`` and ``y`` are its upper left corner."""

    x: int
    y: int
    face: Face
    text: str


@dataclass(frozen=True, slots=True)
class Code:
    """A QR code without its quiet zone. ``rows`` have a byte for each module, 1 is black."""

    x: int
    y: int
    module: int
    """Dots along one module's side."""
    rows: tuple[bytes, ...]

    @property
    def side(self) -> int:
        """In dots."""
        return len(self.rows) * self.module


@dataclass(frozen=True, slots=True)
class Layout:
    """A label in dots."""

    width: int
    height: int
    texts: tuple[Text, ...]
    code: Code


def layout(label: Label, size: Size, dpi: int) -> Layout:
    """Place everything. Raises BadInput when the label is too small for it."""
    if dpi not in DOTS_PER_MM:
        raise BadInput("dpi", dpi, ", ".join(map(str, DOTS_PER_MM)))
    per_mm = DOTS_PER_MM[dpi]
    width, height = round(size.width * per_mm), round(size.height * per_mm)
    margin = round(MARGIN * per_mm)
    code = _code(label, width, height, per_mm, margin)
    x = code.x + code.side + QUIET * code.module
    faces = _faces(per_mm)
    for chosen in _shorter_and_shorter(_entries(label)):
        for largest in range(len(faces)):
            texts = _texts(chosen, faces[largest:], x, width - margin - x)
            room = height - 2 * margin - texts[-1].y - texts[-1].face.height
            if room >= 0:
                y = margin + room // 2
                return Layout(width, height, tuple(replace(t, y=t.y + y) for t in texts), code)
    raise _too_small(size)


def _too_small(size: Size) -> BadInput:
    return BadInput(
        "label size",
        f"{size.width:g} x {size.height:g} mm",
        "room for the QR code, the IMEI and the device key",
        hint="Use larger labels (50 x 30 mm hold the longest keys), a printer with more dpi, "
        "or shorter device keys.",
    )


def _code(label: Label, width: int, height: int, per_mm: int, margin: int) -> Code:
    rows = _modules(label.code)
    room = min(height, round(width * _CODE_SHARE))
    module = min(room // (len(rows) + 2 * QUIET), round(_MODULE_MOST * per_mm))
    if module < _MODULE_LEAST * per_mm:
        raise _too_small(Size(width / per_mm, height / per_mm))
    side = len(rows) * module
    return Code(max(margin, QUIET * module), (height - side) // 2, module, rows)


@lru_cache(maxsize=64)  # a preview and a print of the same label, and its copies
def _modules(text: str) -> tuple[bytes, ...]:
    """A QR code, a byte for each module. Takes some 10 ms."""
    import segno

    return tuple(bytes(row) for row in segno.make_qr(text, error="m").matrix)


# --- the text ---------------------------------------------------------------------------------

Entry = tuple[str, str]  # caption, value


def _entries(label: Label) -> list[Entry]:
    """What to print, the most important first. The first two are never left out."""
    if label.device_key == label.imei:
        keys = [("IMEI=DEVICE KEY", label.imei)]
    else:
        keys = [("IMEI", label.imei), ("DEVICE KEY", label.device_key)]
    when = f"{label.when:%Y-%m-%d %H:%M}" if label.when else ""
    found = [
        *keys,
        ("SERIAL NUMBER", label.serial_number),
        ("PRODUCT KEY", label.product_key),
        ("", label.model),
        ("", label.firmware),
        ("", when),
    ]
    return [(caption, _printable(value)) for caption, value in found if value]


def _printable(text: str) -> str:
    """The printer's own fonts have no more than ASCII for certain."""
    return "".join(char if " " <= char <= "~" else "?" for char in text)


def _shorter_and_shorter(entries: list[Entry]) -> Iterator[list[Entry]]:
    """All entries, then without the last, and so on: the keys stay."""
    keys = 1 if entries[0][0] != "IMEI" else 2
    for count in range(len(entries), keys - 1, -1):
        yield entries[:count]


def _faces(per_mm: int) -> list[Face]:
    """The readable ones, the largest first; of two alike, the one with the finer letters."""
    all_of = [face.times(factor) for face in FACES for factor in range(1, 11)]
    fit = [face for face in all_of if _TEXT_LEAST <= face.height / per_mm <= _TEXT_MOST]
    return sorted(fit, key=lambda face: (face.height, face.name), reverse=True)


def _texts(entries: list[Entry], faces: list[Face], x: int, width: int) -> list[Text]:
    """Lines from y = 0 downwards: each value as large as it may be without breaking."""
    texts = []
    y = 0
    small = faces[-1]
    for caption, value in entries:
        own = small
        if caption:
            texts.append(Text(x, y, small, caption[: width // small.pitch]))
            y += small.height + small.height // 6
            own = next((face for face in faces if len(value) * face.pitch <= width), small)
        for line in _lines(value, width // own.pitch):
            texts.append(Text(x, y, own, line))
            y += own.height + own.height // 6
        y += small.height // 2 if caption else small.height // 6
    return texts


def _lines(text: str, columns: int) -> list[str]:
    """Keys have no place to be broken at: a line is full, then comes the next."""
    columns = max(columns, 1)
    return [text[start : start + columns] for start in range(0, len(text), columns)]
