"""A record of the AT dialogue: one JSON object a line.

``{"t": 1.234, "dir": ">", "raw": "AT+CSQ\\r"}`` is what the host sent, ``"<"`` what the modem said
with the name the parser gave it, ``"-"`` a remark of ours. ``t``: seconds since the trace began.
Bytes are Latin-1 text, so nothing is lost. A command that holds a secret is shown as its
``shown`` text, and so is its echo.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol, TextIO


class Tracer(Protocol):
    """What the channel tells about the dialogue."""

    def sent(self, data: bytes) -> None:
        """The host wrote ``data``."""

    def heard(self, raw: bytes, kind: str) -> None:
        """The modem's ``raw`` bytes were taken as ``kind``."""

    def note(self, text: str) -> None:
        """Something that is in no byte: a time-out, a resynchronisation."""


class FileTracer:
    """Writes the dialogue to a file, each line flushed, so that a crash loses nothing.

    A disk that is full ends the trace, not the dialogue: ``error`` says so then.
    """

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._begin = clock()
        self._file: TextIO = path.open("w", encoding="utf-8")
        self.error: OSError | None = None

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
        if self._file.closed or self.error is not None:
            return
        record = {"t": round(self._clock() - self._begin, 4), **fields}
        try:
            self._file.write(json.dumps(record, ensure_ascii=False) + "\n")
            self._file.flush()
        except OSError as error:
            self.error = error
