"""A label as a picture, for the operator's page and for printers that do not speak ZPL."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from nbiot.station.labels.label import Label
from nbiot.station.labels.layout import DOTS_PER_MM, Code, Size, Text, layout

if TYPE_CHECKING:
    from PIL import Image

BLACK, WHITE = 0, 255


def png(label: Label, size: Size | None = None, dpi: int = 203, *, scale: int = 2) -> bytes:
    """The label's layout as PNG, ``scale`` pixels to a dot. Raises BadInput.

    Letters look otherwise than the printer's own; they stand in the same cells.
    """
    from PIL import Image

    placed = layout(label, size or Size(), dpi)
    image = Image.new("L", (placed.width * scale, placed.height * scale), WHITE)
    image.paste(*_code(placed.code, scale))
    for text in placed.texts:
        _text(image, text, scale)
    buffer = io.BytesIO()
    real_dpi = DOTS_PER_MM[dpi] * 25.4 * scale
    image.save(buffer, "PNG", dpi=(real_dpi, real_dpi))
    return buffer.getvalue()


def _code(code: Code, scale: int) -> tuple[Image.Image, tuple[int, int]]:
    from PIL import Image

    modules = len(code.rows)
    pixels = b"".join(row.translate(_TO_PIXELS) for row in code.rows)
    small = Image.frombytes("L", (modules, modules), pixels)
    side = code.side * scale
    picture = small.resize((side, side), Image.Resampling.NEAREST)
    return picture, (code.x * scale, code.y * scale)


_TO_PIXELS = bytes([WHITE]) + bytes([BLACK]) * 255


def _text(image: Image.Image, text: Text, scale: int) -> None:
    """Each letter in the middle of its cell, as the fixed-pitch font would have it."""
    from PIL import ImageDraw, ImageFont

    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(text.face.height * scale * 0.95)
    middle, pitch = text.face.width * scale / 2, text.face.pitch * scale
    # The cell's lowest 2 of 9 rows are for what hangs below the line.
    baseline = text.y * scale + text.face.height * scale * 7 / 9
    for number, char in enumerate(text.text):
        place = (text.x * scale + number * pitch + middle, baseline)
        draw.text(place, char, fill=BLACK, font=font, anchor="ms")
