from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbiot.at import Shape


@pytest.mark.parametrize(
    ("notation", "line", "fields"),
    [
        ("+X: <a>", b"+X:free text", {"a": "free text"}),
        ("+X: <a>", b'+X: "with, comma"', {"a": "with, comma"}),
        ("+X: <a>", b"+X: two,fields", None),
        ("+X: <a:int>", b"+X:-113", {"a": -113}),
        ("+X: <a:int>", b"+X:1.5", None),
        ("+X: <a:int>", b"+X:", None),
        ("+X: <a:int>", b"+X:" + b"9" * 18, {"a": 10**18 - 1}),
        ("+X: <a:int>", b"+X:" + b"9" * 5000, None),
        ("+X: <a:digit>", b"+X:7", {"a": 7}),
        ("+X: <a:digit>", b"+X:78", None),
        ("+X: <a:digits>", b"+X:007", {"a": "007"}),
        ("+X: <a:digits>", b"+X:0A7", None),
        ("+X: <a:alnum>", b'+X:"89F0"', {"a": "89F0"}),
        ("+X: <a:alnum>", b"+X:89-0", None),
        ("+X: <a:ip>", b"+X:10.0.0.7", {"a": "10.0.0.7"}),
        ("+X: <a:ip>", b'+X: "10.0.0.7"', {"a": "10.0.0.7"}),
        ("+X: <a:ip>", b"+X: 10.0.0", None),
        ("+X: <a:hex>", b"+X:00fF", {"a": b"\x00\xff"}),
        ("+X: <a:hex>", b"+X:", {"a": b""}),
        ("+X: <a:hex>", b"+X:0", None),
        ("+X: <a:hex>", b"+X:0G", None),
        ("<a:line>", b'a,"b":c', {"a": 'a,"b":c'}),
        ("+X: <a:int>[,<b:int>]", b"+X:1", {"a": 1, "b": None}),
        ("+X: <a:int>[,<b:int>]", b"+X:1,2", {"a": 1, "b": 2}),
        ("+X: <a:int>...", b"+X:1", {"a": 1}),
        ("+X: <a:int>...", b"+X:1,,x,2", {"a": 1}),
        ("+X: <a:int>...", b"+X:12x", None),
        ("+N[: <a:line>]", b"+N", {"a": None}),
        ("+X: <a:int>,<b:int>", b"+X : 1 , 2", {"a": 1, "b": 2}),
        ("+X: <a:int>", b"+Y: 1", None),
        ("+X: <a:int>", b"x+X: 1", None),
        ("CLOSE OK", b"CLOSE OK", {}),
        ("CLOSE OK", b"CLOSE OK.", None),
        ("1,<n:int>", b"1,48", {"n": 48}),
        ("1,<n:int>", b"11,48", None),
    ],
)
def test_a_notation_takes_its_fields_out_of_a_line_or_refuses_it(
    notation: str, line: bytes, fields: object
) -> None:
    assert Shape(notation).match(line) == fields


@pytest.mark.parametrize(
    ("notation", "prefix", "free"),
    [
        ("+CSQ: <a:int>", b"+CSQ", False),
        ("+N[: <a:line>]", b"+N", False),
        ("<a:line>", b"", True),
        ("<a>,<b:int>", b"", True),
        ("<a:digits>", b"", False),
        ("3,<a:int>", b"3,", False),
        ("SEND <a>", b"SEND", False),
    ],
)
def test_prefix_and_freedom_of_a_shape(notation: str, prefix: bytes, free: bool) -> None:
    shape = Shape(notation)
    assert (shape.prefix, shape.free) == (prefix, free)


def test_the_read_form_and_the_urc_of_cereg_are_different_shapes() -> None:
    read = Shape("+CEREG: <n:digit>,<stat:digit>[,<rest:line>]")
    assert read.match(b"+CEREG:1") is None
    assert read.match(b"+CEREG:1,7871,0D09F951,9") is None
    assert read.match(b'+CEREG: 5,"XXXX","XXXX",9,0,0') is None
    assert read.match(b"+CEREG: 2,,,,,0,15") is None
    assert read.match(b"+CEREG:2,1,7871,0D09F951,9") == {
        "n": 2,
        "stat": 1,
        "rest": "7871,0D09F951,9",
    }


def test_shapes_are_equal_by_notation() -> None:
    assert Shape("+X: <a>") == Shape("+X: <a>") != Shape("+X: <b>")
    assert len({Shape("+X: <a>"), Shape("+X: <a>")}) == 1
    assert repr(Shape("+X: <a>")) == "Shape('+X: <a>')"


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(KeyError):
        Shape("<a:float>")


ALL_KINDS = Shape("+X: <a:int>,<b:digit>,<c:digits>,<d:alnum>,<e:ip>,<f:hex>,<g>,<h:line>")


@given(st.binary(max_size=60))
def test_no_line_makes_a_shape_raise(junk: bytes) -> None:
    for shape in (ALL_KINDS, Shape("<a:line>"), Shape("<a>[,<b:hex>]..."), Shape("<a:digits>")):
        shape.match(junk)
        shape.match(b"+X: 1," + junk)


@given(
    st.integers(-(10**17), 10**17),
    st.binary(max_size=30),
    st.text("0123456789ABCDEFabcxyz", min_size=1),
)
def test_what_is_written_is_what_is_read(number: int, data: bytes, text: str) -> None:
    shape = Shape("+X: <number:int>,<data:hex>,<text:alnum>,<text2>")
    for line in (
        f"+X:{number},{data.hex()},{text},{text}",
        f'+X: {number},"{data.hex()}","{text}","{text}"',
    ):
        assert shape.match(line.encode()) == {
            "number": number,
            "data": data,
            "text": text,
            "text2": text,
        }
