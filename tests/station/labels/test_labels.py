"""What stands on a label, as picture and as ZPL."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import subprocess
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from PIL import Image

import tests.peers
from nbiot.errors import BadInput
from nbiot.station.labels import DOTS_PER_MM, Label, Size, png, read_code, zpl
from nbiot.station.labels.layout import layout
from nbiot.station.record import Outcome, Record
from tests.station.labels.samples import (
    ALL,
    LEAST,
    LONG,
    SHORT,
    SIZES,
    codes_in,
    each_label,
    each_size,
    needs_zbar,
)
from tests.station.labels.test_zpl_reader import Printed, parse


def words(printed: Printed) -> str:
    return "".join(text for *_, text in printed.texts)


@needs_zbar
@each_label
@each_size
def test_the_preview_can_be_scanned(name: str, size: Size, dpi: int, tmp_path: Path) -> None:
    label = ALL[name]
    assert codes_in(png(label, size, dpi), tmp_path) == [label.code]


@needs_zbar
@each_label
@each_size
def test_the_print_can_be_scanned(name: str, size: Size, dpi: int, tmp_path: Path) -> None:
    label = ALL[name]
    printed = parse(zpl(label, size, dpi))
    ((x, y, row, lines),) = printed.pictures
    paper = Image.new("1", (printed.width, printed.height), 1)
    picture = Image.frombytes(
        "1", (row * 8, len(lines)), bytes(int(line[i : i + 8], 2) ^ 255 for line in lines
                                          for i in range(0, row * 8, 8)),
    )  # fmt: skip
    paper.paste(picture, (x, y))
    file = io.BytesIO()
    paper.save(file, "PNG")
    assert codes_in(file.getvalue(), tmp_path) == [label.code]


@each_label
@each_size
def test_the_printed_code_is_that_of_the_preview(name: str, size: Size, dpi: int) -> None:
    ((x, y, row, lines),) = parse(zpl(ALL[name], size, dpi)).pictures
    code = layout(ALL[name], size, dpi).code
    assert (x, y) == (code.x, code.y)
    dots = ["".join(str(black) * code.module for black in modules) for modules in code.rows]
    assert lines == [line.ljust(row * 8, "0") for line in dots for _ in range(code.module)]


RENDERED = [SIZES[0], SIZES[1], SIZES[3]]
_MODULES = Path(
    os.environ.get("NBIOT_NODE_MODULES", Path(tests.peers.__file__).parent / "node_modules")
)


@needs_zbar
@pytest.mark.skipif(
    shutil.which("node") is None or not (_MODULES / "zpl-renderer-js").exists(),
    reason="zpl-renderer-js is missing: run `npm install` in tests/peers (Debian package npm)",
)
def test_an_independent_renderer_makes_the_same_label_of_it(tmp_path: Path) -> None:
    """Zebrash's fonts are not Zebra's: what is compared is where there is ink."""
    jobs = [
        {
            "zpl": zpl(label, size, dpi).decode(),
            "width": size.width,
            "height": size.height,
            "dots": DOTS_PER_MM[dpi],
        }
        for label in (SHORT, LONG)
        for size, dpi in RENDERED
    ]
    done = subprocess.run(
        ["node", str(Path(__file__).with_name("render.cjs")), str(_MODULES / "zpl-renderer-js")],
        input=json.dumps(jobs),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    pictures = [base64.b64decode(text) for text in json.loads(done.stdout)]
    for number, picture in enumerate(pictures):
        label, (size, dpi) = (SHORT, LONG)[number // 3], RENDERED[number % 3]
        assert codes_in(picture, tmp_path) == [label.code]
        image = Image.open(io.BytesIO(picture)).convert("L")
        placed = layout(label, size, dpi)
        assert image.size == (placed.width, placed.height)
        for text in placed.texts:  # ink in the cells of each line, none right of them
            end = text.x + len(text.text) * text.face.pitch
            box = (text.x, text.y, end, text.y + text.face.height)
            assert image.crop(box).getextrema()[0] < 128
            end += text.face.gap
            if end < placed.width:
                beyond = (end, text.y, placed.width, text.y + text.face.height)
                assert image.crop(beyond).getextrema()[0] > 128


# --- what stands there --------------------------------------------------------------------------


@each_size
def test_all_of_it_is_printed(size: Size, dpi: int) -> None:
    printed = parse(zpl(SHORT, size, dpi))
    for text in ("866971030000017", "SN-00017", "KV315idW", "BC66NBR01A07", "2026-11-22 15:30"):
        assert text in words(printed)
    assert (printed.width, printed.height) == (
        size.width * DOTS_PER_MM[dpi],
        size.height * DOTS_PER_MM[dpi],
    )


@each_label
@each_size
def test_an_imei_is_never_broken_where_it_has_room(name: str, size: Size, dpi: int) -> None:
    assert ALL[name].imei in [text for *_, text in parse(zpl(ALL[name], size, dpi)).texts]


@each_label
@each_size
def test_nothing_overlaps_or_leaves_the_label(name: str, size: Size, dpi: int) -> None:
    placed = layout(ALL[name], size, dpi)
    code, below = placed.code, 0
    quiet = 4 * code.module
    assert code.x >= quiet
    assert code.y >= quiet
    assert code.y + code.side + quiet <= placed.height
    for text in placed.texts:
        assert text.x >= code.x + code.side + quiet
        assert text.x + len(text.text) * text.face.pitch <= placed.width
        assert text.y >= below
        below = text.y + text.face.height
    assert below < placed.height


def test_on_a_small_label_the_least_important_goes_first() -> None:
    printed = words(parse(zpl(SHORT, Size(30, 15), 300)))
    assert "866971030000017" in printed
    assert "SN-00017" in printed
    assert "2026" not in printed


def test_a_label_too_small_is_refused_with_what_fits() -> None:
    with pytest.raises(BadInput, match="label size") as caught:
        zpl(LONG, Size(20, 12), 203)
    assert "50 x 30" in caught.value.hint


@pytest.mark.parametrize("copies", [0, 101])
def test_copies_have_bounds(copies: int) -> None:
    with pytest.raises(BadInput, match="copies"):
        zpl(LEAST, copies=copies)


def test_copies_are_printed_by_the_printer() -> None:
    assert parse(zpl(LEAST, copies=3)).copies == 3


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("IMEI", ("86697103", "key4")),
        ("IMEI", ("^XA971030000017", "key4")),
        ("IMEI", ("866971030000017\n", "key4")),
        ("deviceKey", ("866971030000017", "a;b;c")),
        ("productKey", ("866971030000017", "key4", "P K")),
    ],
)
def test_keys_that_are_none_are_refused(field: str, values: tuple[str, ...]) -> None:
    with pytest.raises(BadInput, match=field):
        Label(*values)


def test_a_resolution_that_no_printer_has() -> None:
    with pytest.raises(BadInput, match="152, 203, 300, 600"):
        png(LEAST, dpi=72)


@given(text=st.text(max_size=40))
@settings(max_examples=100, deadline=None)
def test_no_text_is_taken_for_a_command(text: str) -> None:
    label = Label("866971030000017", "key4", "", text, text, text)
    printed = parse(zpl(label, Size(110, 200)))
    shown = "".join(char if " " <= char <= "~" else "?" for char in text)
    assert words(printed) == ("IMEI866971030000017DEVICE KEYkey4") + (
        f"SERIAL NUMBER{shown}{shown}{shown}" if text else ""
    )


# --- record and scanner -------------------------------------------------------------------------


def record(**changes: object) -> Record:
    least = {"id": "r1", "station": "S1", "slot": "A", "started": 1e9, "ended": 1e9 + 60}
    return Record(**{**least, "outcome": Outcome.PASS, **changes})  # type: ignore[arg-type]


def test_a_record_has_a_label() -> None:
    made = Label.of(
        record(imei=SHORT.imei, device_key="key4", product_key="KV315idW", serial_number="SN-1")
    )
    assert (made.imei, made.device_key, made.serial_number) == (SHORT.imei, "key4", "SN-1")
    assert made.when is not None
    assert made.when.timestamp() == 1e9 + 60


def test_a_record_without_identity_has_none() -> None:
    with pytest.raises(BadInput, match="claimed a device key"):
        Label.of(record(imei=SHORT.imei))


@each_label
def test_a_scanned_code_is_read(name: str) -> None:
    label = ALL[name]
    assert read_code(label.code + "\r\n") == (label.imei, label.device_key)


@pytest.mark.parametrize("text", ["", "SN-00017", "866971030000017", "IMEI:1;DK:key4", "DK:key4"])
def test_other_codes_are_none_of_ours(text: str) -> None:
    assert read_code(text) is None
