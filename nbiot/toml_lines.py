"""On which line of a TOML text each table and key stands; tomllib does not tell.

The text must be one that tomllib took: this only walks over it and notes places.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect
from collections.abc import Iterator

Path = tuple[str | int, ...]
"""Keys from the root; elements of arrays by their number."""

_BLANK = re.compile(r"[ \t]*")
_GAP = re.compile(r"(?:[ \t\n]|#[^\n]*)*")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_STRINGS = (
    re.compile(r'"""(?:[^"\\]|\\.|"{1,2}(?!"))*"{3,5}', re.S),
    re.compile(r"'''(?:[^']|'{1,2}(?!'))*'{3,5}", re.S),
    re.compile(r'"(?:[^"\\\n]|\\.)*"'),
    re.compile(r"'[^'\n]*'"),
)
_SCALAR = re.compile(r"[^,\]}\n#]+")  # numbers, booleans, dates: may have a blank inside


def lines_of(text: str) -> dict[Path, int]:
    """The line (from 1) of each table, key and element; of a table, that of its header."""
    return _Walk(text.replace("\r\n", "\n")).run()


class _Walk:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._ends = [found.start() for found in re.finditer("\n", text)]
        self._lines: dict[Path, int] = {}
        self._counts: dict[Path, int] = {}  # elements of arrays of tables so far

    def run(self) -> dict[Path, int]:
        table: Path = ()
        self._skip(_GAP)
        while self._at < len(self._text):
            table = self._statement(table)
            self._skip(_GAP)
        return self._lines

    def _statement(self, table: Path) -> Path:
        if self._next() != "[":
            self._pair(table)
            return table
        line = self._line()
        array = self._text.startswith("[[", self._at)
        self._at += 1 + array
        keys = list(self._keys())
        self._at += 1 + array
        for number, key in enumerate(keys, 1):
            table = (*table, key) if number > 1 else (key,)
            last = number == len(keys)
            if last and array:
                self._lines.setdefault(table, line)
                self._counts[table] = self._counts.get(table, 0) + 1
            if table in self._counts:
                self._lines.setdefault(table, line)
                table = (*table, self._counts[table] - 1)
            if last:
                self._lines[table] = line
            else:
                self._lines.setdefault(table, line)
        return table

    def _pair(self, table: Path) -> None:
        line = self._line()
        for key in self._keys():
            table = (*table, key)
            self._lines.setdefault(table, line)
        self._at += 1  # =
        self._skip(_BLANK)
        self._value(table)

    def _keys(self) -> Iterator[str]:
        """The parts of a dotted key; ends in front of what follows it."""
        while True:
            self._skip(_BLANK)
            if self._next() in "\"'":
                raw = self._string()
                yield tomllib.loads(f"key = {raw}")["key"]
            else:
                found = _BARE.match(self._text, self._at)
                assert found is not None, "not a text that tomllib takes"
                self._at = found.end()
                yield found[0]
            self._skip(_BLANK)
            if self._next() != ".":
                return
            self._at += 1

    def _value(self, path: Path) -> None:
        match self._next():
            case "[":
                self._array(path)
            case "{":
                self._inline_table(path)
            case '"' | "'":
                self._string()
            case _:
                self._skip(_SCALAR)

    def _array(self, path: Path) -> None:
        self._at += 1
        number = 0
        while self._more("]"):
            element: Path = (*path, number)
            self._lines[element] = self._line()
            self._value(element)
            number += 1

    def _inline_table(self, path: Path) -> None:
        self._at += 1
        while self._more("}"):
            self._pair(path)

    def _more(self, end: str) -> bool:
        """Skip what separates elements; past ``end`` there are none."""
        self._skip(_GAP)
        if self._next() == ",":
            self._at += 1
            self._skip(_GAP)
        if self._next() != end:
            return True
        self._at += 1
        return False

    def _string(self) -> str:
        found = next(filter(None, (kind.match(self._text, self._at) for kind in _STRINGS)))
        self._at = found.end()
        return found[0]

    def _next(self) -> str:
        return self._text[self._at : self._at + 1]

    def _skip(self, what: re.Pattern[str]) -> None:
        if found := what.match(self._text, self._at):
            self._at = found.end()

    def _line(self) -> int:
        return bisect(self._ends, self._at - 1) + 1
