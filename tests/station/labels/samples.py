"""Labels of all lengths, and an independent program that reads QR codes."""

from __future__ import annotations

import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from nbiot.station.labels import Label, Size

WHEN = datetime(2026, 11, 22, 15, 30, tzinfo=UTC)
SHORT = Label(
    "866971030000017", "866971030000017", "KV315idW", "SN-00017", "BC66", "BC66NBR01A07", WHEN
)
LONG = Label(
    "8669710300000178",
    "Dev.Key:abcdefghij-KLMNOPQRST_0123456789.abcdefghij-KLMNOPQRST_0",
    "ProductKey" * 6 + "1234",
    "^XA~JR^FD_5E Zürich 上海",
    "Quectel_BC95-G",
    "BC95GJBR01A07_01.002.01.002",
    WHEN,
)
LEAST = Label("86697103000001", "key4")
ALL = {"short": SHORT, "long": LONG, "least": LEAST}
SIZES = [
    (Size(50, 30), 203),
    (Size(50, 30), 300),
    (Size(50, 30), 600),
    (Size(100, 50), 203),
    (Size(40, 40), 300),
]
ids = [f"{size.width:g}x{size.height:g}-{dpi}" for size, dpi in SIZES]
each_size = pytest.mark.parametrize(("size", "dpi"), SIZES, ids=ids)
each_label = pytest.mark.parametrize("name", ALL)

needs_zbar = pytest.mark.skipif(
    shutil.which("zbarimg") is None, reason="zbarimg is missing: Debian package zbar-tools"
)


def codes_in(picture: bytes, folder: Path) -> list[str]:
    """The texts of all QR codes in a PNG, as zbar reads them."""
    path = folder / "picture.png"
    path.write_bytes(picture)
    command = ["zbarimg", "--quiet", "--raw", str(path)]
    return subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
