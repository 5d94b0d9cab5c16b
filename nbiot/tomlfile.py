"""Reading a TOML file so that each mistake is told with file, line, key, and what is allowed.

The caller asks a table for each key that it knows; ``done`` then refuses the others. Blocks.
"""

from __future__ import annotations

import difflib
import math
import os
import re
import shlex
import stat
import tomllib
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any, TypeVar, cast

from nbiot.errors import BadInput
from nbiot.toml_lines import Path as Place
from nbiot.toml_lines import lines_of

T = TypeVar("T")
U = TypeVar("U")
Reader = Callable[[Any], T]

MOST_BYTES = 1_000_000


class BadFile(BadInput):
    """The file cannot be used: where in it, which key, what was given, what is allowed."""

    def __init__(
        self,
        path: Path,
        line: int,
        key: str,
        given: object,
        allowed: str,
        *,
        hint: str = "",
        problem: str = "",
    ) -> None:
        where = f"{path}:{line}" if line else str(path)
        super().__init__(f"{where}: {key}", given, allowed, hint=hint)
        if problem:
            self.message = f"{where}: {problem}"
            self.args = (self.message,)
        self.path = path
        self.line = line


class TomlFile:
    """A file that was read: its tables, its lines, who may touch it. Raises BadFile.

    what:  its name in messages, such as "recipe"
    hint:  the next thing to try when there is no such file
    error: the class of all that is said about it
    """

    def __init__(
        self, path: Path, what: str, *, hint: str = "", error: type[BadFile] = BadFile
    ) -> None:
        self.path = path
        self.what = what
        self.error = error
        self.found, self.text = self._read(hint)
        self.tables = self._parse()
        self.lines = lines_of(self.text)

    def root(self) -> Table:
        """The table that is the file."""
        return Table(self, (), self.tables, "the file")

    def _read(self, hint: str) -> tuple[os.stat_result, str]:
        try:  # non-blocking, so that a FIFO does not hold us before we can see what it is
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            allowed = f"a file that can be read ({reason})"
            raise self.bad((), self.what, str(self.path), allowed, hint=hint) from None
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                raise self.bad((), self.what, str(self.path), "a regular file", hint=hint)
            with open(fd, "rb", closefd=False) as file:
                data = file.read(MOST_BYTES + 1)
        finally:
            os.close(fd)
        if len(data) > MOST_BYTES:
            given = f"{len(data)} bytes or more"
            raise self.bad((), self.what, given, f"at most {MOST_BYTES}")
        try:
            return found, data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = data[: error.start].count(b"\n") + 1
            given = f"byte {data[error.start]:#04x}"
            raise self.error(self.path, line, self.what, given, "UTF-8") from None

    def _parse(self) -> dict[str, Any]:
        try:
            return tomllib.loads(self.text)
        except tomllib.TOMLDecodeError as error:
            problem = str(error)
            if place := re.search(r" \(at line (\d+), column (\d+)\)$", problem):
                line, problem = int(place[1]), f"{problem[: place.start()]} (column {place[2]})"
            else:  # "(at end of document)"
                line = self.text.count("\n", 0, len(self.text.rstrip())) + 1
            raise self.error(self.path, line, "TOML", problem, "TOML", problem=problem) from None
        except RecursionError:
            raise self.bad((), "TOML", "values inside values", "fewer levels") from None

    def line_of(self, place: Place) -> int:
        """The line of ``place``, or of what is around it; 0 when nothing is."""
        outwards = (place[:length] for length in range(len(place), 0, -1))
        return next((self.lines[p] for p in outwards if p in self.lines), 0)

    def bad(self, place: Place, what: str, given: object, allowed: str, **more: str) -> BadFile:
        """An error at ``place``; (): in the file as a whole."""
        return self.error(self.path, self.line_of(place), what, given, allowed, **more)

    def check_mode(self, forbidden: int, because: str, *, to: str) -> None:
        """Refuse a file with which others may do too much, or that is another user's.

        forbidden: what they may not: 0o022, to write it; 0o077, to read it neither
        because:   why: "it names programs to run"
        to:        what chmod must be told
        """
        mode = stat.S_IMODE(self.found.st_mode)
        foreign = bool(os.geteuid()) and self.found.st_uid not in (0, os.geteuid())
        if mode & forbidden:
            problem = f"others may {'use' if forbidden & 0o044 else 'write'} this file"
            problem += f" (mode {mode:04o})"
        elif foreign:
            problem = "this file is another user's"
        else:
            return
        name = shlex.quote(str(self.path))
        to_type = f"{f'sudo chown $USER {name} && ' if foreign else ''}chmod {to} {name}"
        given, allowed = f"mode {mode:04o}", f"at most {0o666 & ~forbidden:04o}"
        problem, hint = f"{problem}, and {because}", f"Type: {to_type}"
        raise self.bad((), self.what, given, allowed, problem=problem, hint=hint)


class Table:
    """A table of the file. ``of`` names it in messages."""

    def __init__(self, file: TomlFile, place: Place, values: Any, of: str) -> None:
        self.file = file
        self.place = place
        self.of = of
        self._asked: dict[str, None] = {}
        if not isinstance(values, dict):
            raise self.bad(None, of, values, "a table")
        self._values: dict[str, Any] = values

    @property
    def line(self) -> int:
        """Where it begins."""
        return self.file.line_of(self.place)

    def __contains__(self, key: str) -> bool:
        self._asked[key] = None
        return key in self._values

    def need(self, key: str, read: Reader[T], *, hint: str = "") -> T:
        """The value of ``key``, which must be there; ``hint``: what to try when it is not."""
        if key not in self._values:
            self._asked[key] = None
            problem = f"{self.of}: the key {key} is missing"
            raise self.bad(None, key, None, "a value", problem=problem, hint=hint)
        return self.get(key, read, cast("T", None))

    def get(self, key: str, read: Reader[T], default: U) -> T | U:
        """The value of ``key``, or ``default`` when there is none."""
        self._asked[key] = None
        if key not in self._values:
            return default
        try:
            return read(self._values[key])
        except BadFile:
            raise
        except BadInput as error:
            what = f"key {key}"
            raise self.bad(key, what, error.given, error.allowed, hint=error.hint) from None

    def table(self, key: str) -> Table | None:
        """The table ``key``; None when there is none."""
        self._asked[key] = None
        if key not in self._values:
            return None
        of = f"{self.of}, {key}" if self.place else f"table {key}"
        return Table(self.file, (*self.place, key), self._values[key], of)

    def array(self, key: str) -> list[Table]:
        """The tables [[key]]."""
        self._asked[key] = None
        found = self._values.get(key, [])
        if not isinstance(found, list):
            raise self.bad(key, key, found, f"tables: [[{key}]]")
        return [
            Table(self.file, (*self.place, key, number), values, f"{key} {number + 1}")
            for number, values in enumerate(found)
        ]

    def raw(self, key: str) -> Any:
        """The value of ``key`` as it stands; None when there is none."""
        self._asked[key] = None
        return self._values.get(key)

    def done(self, *more: str) -> None:
        """Refuse keys that nobody asked for; ``more``: those that somebody will ask for."""
        self._asked |= dict.fromkeys(more)
        for key in self._values:
            if key not in self._asked:
                known = ", ".join(self._asked)
                problem = f"{self.of} has no key {key!r}; there are {known}"
                hint = nearest(key, self._asked)
                raise self.bad(key, f"key of {self.of}", key, known, problem=problem, hint=hint)

    def bad(self, key: str | None, what: str, given: object, allowed: str, **more: str) -> BadFile:
        """An error at ``key``; None: at the table itself."""
        place = self.place if key is None else (*self.place, key)
        where = "" if not self.place or what == self.of else f"{self.of}, "
        return self.file.bad(place, f"{where}{what}", given, allowed, **more)


def nearest(given: str, known: Iterable[str]) -> str:
    """ "Did you mean ...?", or nothing."""
    close = difflib.get_close_matches(given.lower(), list(known), 1)
    return f"Did you mean {close[0]}?" if close else ""


# --- values -----------------------------------------------------------------------------------


def text(allowed: str, pattern: str = r"[^\x00-\x1f\x7f]{1,500}") -> Reader[str]:
    """A text that matches ``pattern`` as a whole."""

    def read(value: object) -> str:
        if isinstance(value, str) and re.fullmatch(pattern, value):
            return value
        raise BadInput("text", value, allowed)

    return read


def one_of(*allowed: str) -> Reader[str]:
    """One of these texts."""

    def read(value: object) -> str:
        if value in allowed:
            return str(value)
        hint = nearest(value, allowed) if isinstance(value, str) else ""
        raise BadInput("text", value, ", ".join(allowed), hint=hint)

    return read


def number(least: float, most: float, unit: str = "") -> Reader[float]:
    """A number from ``least`` to ``most``."""

    def read(value: object) -> float:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if is_number and math.isfinite(cast("float", value)):
            found = cast("float", value)
            if least <= found <= most:
                return found
        raise BadInput("number", value, f"a number from {least:g} to {most:g}{unit and ' '}{unit}")

    return read


def seconds(most: float = 86400.0) -> Reader[float]:
    """Seconds from 0.1 to ``most``."""
    return number(0.1, most, "(seconds)")


def whole(least: int, most: int) -> Reader[int]:
    """An integer from ``least`` to ``most``."""

    def read(value: object) -> int:
        if type(value) is int and least <= value <= most:
            return value
        raise BadInput("number", value, f"a whole number from {least} to {most}")

    return read


def flag(value: object) -> bool:
    """true or false."""
    if isinstance(value, bool):
        return value
    raise BadInput("flag", value, "true or false")


def texts(allowed: str, pattern: str = r"[^\x00-\x1f\x7f]{1,500}") -> Reader[tuple[str, ...]]:
    """One or more texts, each of which matches ``pattern``."""
    one = text(allowed, pattern)

    def read(value: object) -> tuple[str, ...]:
        if isinstance(value, list) and value:
            return tuple(one(item) for item in value)
        raise BadInput("texts", value, f'a list of {allowed}: ["one", "two"]')

    return read


def keys_only(table: dict[str, Any], known: Collection[str], of: str) -> None:
    """Raises BadInput for a key of ``table`` that is not known."""
    for key in table:
        if key not in known:
            raise BadInput(of, key, f"the keys {', '.join(known)}", hint=nearest(key, known))
