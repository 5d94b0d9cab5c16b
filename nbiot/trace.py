"""A record of the AT dialogue: one JSON object a line, written as it happens.

The first line tells what made the trace:

``{"format": "nbiot trace", "version": 1, "nbiot": "0.1.0", "port": "/dev/ttyUSB0", ...}``

After it ``{"t": 1.234, "dir": ">", "raw": "AT+CSQ\\r"}`` is what the host sent, ``"<"`` what the
modem said with the name the parser gave it (``event``), ``"-"`` a remark of ours. ``t``: seconds
since the trace began. Bytes are Latin-1 text, so nothing is lost. A command that holds a secret is
shown as its ``shown`` text, and so is its echo.
"""

from __future__ import annotations

import json
import math
import platform
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, TextIO

from nbiot import __version__
from nbiot.errors import BadInput

FORMAT = "nbiot trace"
VERSION = 1
DIRECTIONS = ("<", ">", "-")
_HIDDEN = "***"


class Tracer(Protocol):
    """What the channel tells about the dialogue."""

    def sent(self, data: bytes) -> None:
        """The host wrote ``data``."""

    def heard(self, raw: bytes, kind: str) -> None:
        """The modem's ``raw`` bytes were taken as ``kind``."""

    def note(self, text: str) -> None:
        """Something that is in no byte: a time-out, a resynchronisation."""


# --- writing --------------------------------------------------------------------------------


class FileTracer:
    """Writes the dialogue to a file, each line flushed, so that a crash loses nothing.

    A disk that is full ends the trace, not the dialogue: ``error`` says so then. ``clock`` gives
    seconds from any beginning, ``wall`` seconds since 1970; ``about`` goes into the header.
    """

    def __init__(
        self,
        path: Path,
        clock: Callable[[], float],
        *,
        port: str = "",
        baudrate: int | None = None,
        about: dict[str, Any] | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._begin = clock()
        # What is not Unicode leaves as \udcXX, which JSON knows.
        self._file: TextIO = path.open("w", encoding="utf-8", errors="backslashreplace")
        self.error: OSError | None = None
        self._line(header(port=port, baudrate=baudrate, started=wall(), **(about or {})))

    def sent(self, data: bytes) -> None:
        self._write(dir=">", raw=data.decode("latin-1"))

    def heard(self, raw: bytes, kind: str) -> None:
        self._write(dir="<", raw=raw.decode("latin-1"), event=kind)

    def note(self, text: str) -> None:
        self._write(dir="-", note=text)

    def close(self) -> None:
        """Close the file; what is told after that is dropped."""
        with suppress(OSError):
            self._file.close()

    def _write(self, **fields: str) -> None:
        self._line({"t": round(self._clock() - self._begin, 4), **fields})

    def _line(self, record: dict[str, Any]) -> None:
        if self._file.closed or self.error is not None:
            return
        try:
            self._file.write(_json(record))
            self._file.flush()
        except OSError as error:
            self.error = error


def header(*, port: str, baudrate: int | None, started: float, **about: Any) -> dict[str, Any]:
    """The first line of a trace. ``started``: seconds since 1970."""
    moment = datetime.fromtimestamp(started, UTC)
    return {
        "format": FORMAT,
        "version": VERSION,
        "nbiot": __version__,
        "python": platform.python_version(),
        "port": shown_port(port),
        "baudrate": baudrate,
        "started": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        **about,
    }


def shown_port(port: str) -> str:
    """``port`` without what is only this user's: serial numbers, hosts, passwords, folders."""
    if port.startswith("/dev/serial/by-id/"):
        return f"/dev/serial/by-id/{_HIDDEN}"
    if port.startswith("/dev/"):
        return port
    scheme, colon, rest = port.partition(":")
    if rest.startswith("//"):
        return f"{scheme}://{_HIDDEN}"
    if colon and "/" not in scheme:
        return f"{scheme}:{rest.rpartition('/')[2]}"
    return port.rpartition("/")[2]


def _json(record: dict[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


# --- reading --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Record:
    """One line of a trace. ``number``: of the line, from 1. ``raw`` or ``note`` is empty."""

    number: int
    t: float
    dir: str
    raw: bytes = b""
    event: str = ""
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """As it stands in the file."""
        found: dict[str, Any] = {"t": self.t, "dir": self.dir}
        if self.dir == "-":
            return found | {"note": self.note}
        found["raw"] = self.raw.decode("latin-1")
        return found | ({"event": self.event} if self.event else {})


@dataclass(slots=True)
class Trace:
    """A trace that was read. ``broken``: its last line was not whole, as after a crash."""

    name: str
    header: dict[str, Any]
    records: list[Record] = field(default_factory=list)
    broken: bool = False

    @property
    def started(self) -> float:
        """Seconds since 1970 at the beginning; 0 when the header does not tell."""
        try:
            moment = datetime.fromisoformat(self.header["started"])
            return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()
        except (KeyError, TypeError, ValueError, OverflowError):
            return 0.0

    @property
    def summary(self) -> str:
        """How much was read, in words."""
        words = f"{self.name}: {len(self.records)} records"
        return f"{words}; the last line is not whole and was left out" if self.broken else words

    def write(self, path: Path) -> None:
        """Write the trace as a file of its own. Raises BadInput."""
        lines = [_json(self.header), *(_json(record.as_dict()) for record in self.records)]
        try:
            path.write_text("".join(lines), encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise unwritable(path, error) from None


def unwritable(path: Path, error: OSError) -> BadInput:
    """The error for an output file."""
    return BadInput("output", str(path), f"a file that can be written ({error.strerror})")


def read_trace(path: Path) -> Trace:
    """The trace in ``path``, or a capture of this project's tests (``path`` may end in ``#ID``).

    A last line that a crash cut is left out. Raises BadInput, naming the line.
    """
    file, _, wanted = str(path).partition("#")
    try:
        data = Path(file).read_bytes()
    except OSError as error:
        raise BadInput("trace", file, f"a file that can be read ({error.strerror})") from None
    return parse_trace(data, Path(file).name, wanted)


def parse_trace(data: bytes, name: str = "trace", wanted: str = "") -> Trace:
    """The same for the contents of a file. ``wanted``: the identifier of a capture."""
    lines = data.split(b"\n")
    if not lines[-1]:
        lines.pop()
    if not lines:
        raise BadInput("trace", name, "a file of `--trace`, which this is not: it is empty")
    first = _object(lines[0], name, 1)
    if "exchanges" in first:
        return _capture(lines, name, wanted)
    _check_header(first, name)
    trace = Trace(name, first)
    for number, line in enumerate(lines[1:], start=2):
        try:
            fields = _object(line, name, number)
        except BadInput:
            if number < len(lines):
                raise
            trace.broken = True
            break
        trace.records.append(_record(fields, name, number))
    return trace


def _object(line: bytes, name: str, number: int) -> dict[str, Any]:
    try:
        found = json.loads(line.decode())
    except (ValueError, RecursionError):  # UnicodeDecodeError is a ValueError
        found = None
    if not isinstance(found, dict):
        raise _bad(name, number, line.decode("latin-1"), "one JSON object a line, in UTF-8")
    return found


def _check_header(fields: dict[str, Any], name: str) -> None:
    if fields.get("format") != FORMAT:
        raise _bad(name, 1, fields, f'a header with "format": "{FORMAT}" in the first line')
    if fields.get("version") != VERSION or type(fields["version"]) is not int:
        raise BadInput(
            f"{name}, line 1, version",
            fields.get("version"),
            f"{VERSION}",
            hint="Another release of nbiot made this trace; read it with that one.",
        )


def _record(fields: dict[str, Any], name: str, number: int) -> Record:
    t, way = fields.get("t"), fields.get("dir")
    if type(t) not in (int, float) or not math.isfinite(t) or t < 0:  # type: ignore[operator, arg-type]
        raise _bad(name, number, t, "a number of seconds, 0 or more, as t")
    if way not in DIRECTIONS:
        raise _bad(name, number, way, "<, > or - as dir")
    text = fields.get("note" if way == "-" else "raw")
    event = fields.get("event", "")
    if not isinstance(text, str) or not isinstance(event, str):
        raise _bad(name, number, fields, "text as raw and event, or as note where dir is -")
    if way == "-":
        return Record(number, float(t), way, note=text)  # type: ignore[arg-type]
    try:
        raw = text.encode("latin-1")
    except UnicodeEncodeError:
        raise _bad(name, number, text, "bytes as Latin-1 text in raw") from None
    return Record(number, float(t), str(way), raw, event)  # type: ignore[arg-type]


def _bad(name: str, number: int, given: object, allowed: str) -> BadInput:
    shown = given if not isinstance(given, str | dict) else str(given)[:60]
    return BadInput(f"{name}, line {number}", shown, allowed)


# --- captures of tests/captures -------------------------------------------------------------


def _capture(lines: list[bytes], name: str, wanted: str) -> Trace:
    """A dialogue that somebody else recorded, as a trace without times and events."""
    found = {}
    for number, line in enumerate(lines, start=1):
        fields = _object(line, name, number)
        if not isinstance(fields.get("exchanges"), list) or not isinstance(fields.get("id"), str):
            raise _bad(name, number, fields, "a capture: id and exchanges")
        found[fields["id"]] = (number, fields)
    if wanted not in found and (wanted or len(found) > 1):
        raise BadInput("capture", wanted, f"{name}#ID with one of {', '.join(found)}")
    number, fields = found[wanted] if wanted else next(iter(found.values()))
    trace = Trace(f"{name}#{fields['id']}", {"format": FORMAT, "version": VERSION})
    for key in ("id", "modem", "firmware", "source"):
        trace.header[key] = fields.get(key)
    for exchange in fields["exchanges"]:
        try:
            host, modem = _exchange(exchange)
        except (KeyError, TypeError, AttributeError, UnicodeEncodeError):
            raise _bad(name, number, exchange, "exchanges with tx and rx, or with urc") from None
        if host:
            trace.records.append(Record(number, 0.0, ">", host))
        if modem:
            trace.records.append(Record(number, 0.0, "<", modem))
    return trace


def _exchange(exchange: dict[str, Any]) -> tuple[bytes, bytes]:
    """What the host sent and what came; lines without their bytes are framed as usual."""
    host = b""
    if "tx" in exchange:
        host = exchange.get("tx_raw", f"{exchange['tx']}\r").encode("latin-1")
    for name in ("rx_raw", "raw_rx", "raw"):
        if name in exchange:
            return host, exchange[name].encode("latin-1")
    lines = list(exchange["rx"]) if host else [exchange["urc"]]
    said = b""
    if lines and lines[0] == exchange.get("tx"):
        said = f"{lines.pop(0)}\r".encode("latin-1")
    if lines:
        said += ("\r\n" + "\r\n".join(lines).lstrip("\r\n") + "\r\n").encode("latin-1")
    return host, said + exchange.get("garbage", "").encode("latin-1")
