"""Where tables and keys stand, against documents whose lines are known."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbiot.toml_lines import Path, lines_of

GAPS = st.lists(
    st.sampled_from(["", "  ", "# [slot.x]", "# port = 'no'", '\t# "quote', "#"]), max_size=3
)
KEYS = st.text("abz-_09", min_size=1, max_size=6) | st.text(
    "a.b ='#[]{},\"é😀", min_size=0, max_size=5
)
# (TOML, value): texts that look like something else
VALUES = st.sampled_from(
    [
        ('"a # b"', "a # b"),
        ("'[slot.x]'", "[slot.x]"),
        ('"\\"\\\\"', '"\\'),
        ('"""\n[slot.x]\nport = 1\n"""', "[slot.x]\nport = 1\n"),
        ('""""q""""', '"q"'),
        ('""""""', ""),
        ('"""\\""""', '"'),
        ("'''\n#'' = 1\n'''", "#'' = 1\n"),
        ("''''''", ""),
        ("1979-05-27 07:32:00", None),
        ("-1_000.5e3", None),
        ("true", True),
        ("[]", []),
        ("[ # ]\n 1, [2, '],'],\n # ]\n]", [1, [2, "],"]]),
        ("[{a = 1}, {b = [\n2]}]", [{"a": 1}, {"b": [2]}]),
        ("{}", {}),
        ('{ a.b = 1, "c d" = { e = "}" } }', {"a": {"b": 1}, "c d": {"e": "}"}}),
    ]
)


def quoted(key: str, style: int) -> str:
    if key and all(c.isascii() and (c.isalnum() or c in "-_") for c in key) and style:
        return key
    if "'" not in key and style == 2:
        return f"'{key}'"
    return '"' + key.replace("\\", "\\\\").replace('"', '\\"') + '"'


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, dict[Path, int]]:
    """A text, and the line of each table and top key in it."""
    lines: list[str] = []
    expected: dict[Path, int] = {}
    style = st.integers(0, 2)

    def pairs(table: Path) -> None:
        for key in draw(st.lists(KEYS, max_size=3, unique=True)):
            lines.extend(draw(GAPS))
            expected[(*table, key)] = len(lines) + 1
            text, _ = draw(VALUES)
            spaces = draw(st.sampled_from(["", " ", "\t"]))
            comment = draw(st.sampled_from(["", " # x", "#]"]))
            entry = f"{spaces}{quoted(key, draw(style))}{spaces}={spaces}{text}{comment}"
            lines.extend(entry.split("\n"))

    for name in draw(st.lists(KEYS, max_size=4, unique=True)):
        lines.extend(draw(GAPS))
        kind = draw(st.sampled_from(["table", "sub", "array"]))
        head = quoted(name, draw(style))
        if kind == "table":
            expected[("T" + name,)] = len(lines) + 1
            lines.append(f"[ {quoted('T' + name, draw(style))} ]  # ]")
            pairs(("T" + name,))
        elif kind == "sub":
            for sub in draw(st.lists(KEYS, min_size=1, max_size=3, unique=True)):
                expected[("slot", name, sub)] = len(lines) + 1
                lines.append(f"[slot . {head}.{quoted(sub, draw(style))}]")
                pairs(("slot", name, sub))
        else:
            for number in range(draw(st.integers(1, 3))):
                expected[("A" + name, number)] = len(lines) + 1
                lines.append(f"[[{quoted('A' + name, draw(style))}]]")
                pairs(("A" + name, number))
    return "\n".join(lines), expected


@settings(deadline=None)
@given(documents(), st.booleans())
def test_every_table_and_key_is_found_on_its_line(
    document: tuple[str, dict[Path, int]], crlf: bool
) -> None:
    text, expected = document
    text = text.replace("\n", "\r\n") if crlf else text
    tables = tomllib.loads(text)
    found = lines_of(text)
    assert {path: found.get(path) for path in expected} == expected
    assert set(found) == set(paths(tables))


def paths(value: Any, at: Path = ()) -> list[Path]:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    found: list[Path] = []
    for key, inner in items:
        found.append((*at, key))
        if isinstance(inner, (dict, list)):
            found += paths(inner, (*at, key))
    return found


@pytest.mark.parametrize(
    ("text", "path", "line"),
    [
        ("[a.b]\n[a]\n", ("a",), 2),  # the header counts, not what implies it
        ("a.b = 1\na.c = 2", ("a", "c"), 2),
        ("x = [\n 1,\n 2]", ("x", 1), 3),
        ("[[a]]\n[[a.b]]\n[[a.b]]\nc=1\n[[a]]\n[[a.b]]\nc=1", ("a", 0, "b", 1, "c"), 4),
        ("[[a]]\n[[a.b]]\n[[a.b]]\nc=1\n[[a]]\n[[a.b]]\nc=1", ("a", 1, "b", 0, "c"), 7),
        ("[slot.x]\npower = { backend = 'http', on_url = 1 }", ("slot", "x", "power", "on_url"), 2),
    ],
)
def test_places(text: str, path: Path, line: int) -> None:
    assert lines_of(text)[path] == line
    assert set(lines_of(text)) == set(paths(tomllib.loads(text)))
