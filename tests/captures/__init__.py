"""Recorded dialogues with modems, each with its source.

A record has ``exchanges``: ``tx`` and what came back, or a ``urc``. ``rx_raw``, ``raw_rx`` and
``raw`` are exact bytes. Where a source gives lines only, the bytes are built: lines end with CR LF
and a CR LF stands in front (an empty line in ``rx`` is one that the source shows); the boot ROM of
MT2625 ends lines with LF CR; an echo ends with CR alone.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_BROM = re.compile(r"[0-9A-Z]{2}: [0-9A-F]{4} .*|Leaving the BROM")
_PLACEHOLDER = re.compile(r'<\w+( \w+)*>|\bIP,PORT\b|\.\.\."|,\.\.\.,')


@dataclass(frozen=True)
class Capture:
    """``dialogue``: what the host sent (None: nothing) and the bytes that came then."""

    id: str
    source: str
    note: str
    dialogue: tuple[tuple[str | None, bytes], ...]

    def answer(self, tx: str, number: int = 0) -> bytes:
        """What came to the ``number``-th ``tx``."""
        return [rx for sent, rx in self.dialogue if sent == tx][number]


def load(family: str) -> dict[str, Capture]:
    """The captures of ``bc95`` or ``bc66`` by identifier."""
    path = Path(__file__).with_name(f"{family}.jsonl")
    records = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return {record["id"]: _capture(record) for record in records}


def _capture(record: dict[str, Any]) -> Capture:
    usable = (e for e in record["exchanges"] if not _PLACEHOLDER.search(json.dumps(e)))
    dialogue = tuple((exchange.get("tx"), _bytes(exchange)) for exchange in usable)
    return Capture(record["id"], record["source"], record["note"], dialogue)


def _bytes(exchange: dict[str, Any]) -> bytes:
    for name in ("rx_raw", "raw_rx", "raw"):
        if name in exchange:
            return str(exchange[name]).encode("latin-1")
    lines = list(exchange["rx"]) if "tx" in exchange else [exchange["urc"]]
    echo = b""
    if lines and lines[0] == exchange.get("tx"):
        echo = lines.pop(0).encode() + b"\r"
    if lines and lines[0] == "":
        lines = lines[1:]
    garbage = str(exchange.get("garbage", "")).encode("latin-1")
    return echo + _framed(lines) + garbage


def _framed(lines: list[str]) -> bytes:
    if not lines:
        return b""
    if all(_BROM.fullmatch(line) for line in lines):
        return b"\n\r" + "".join(f"{line}\n\r" for line in lines).encode()
    if any(_BROM.fullmatch(line) for line in lines):  # OK, then the boot ROM
        return _framed(lines[:1]) + _framed(lines[1:])
    return ("\r\n" + "\r\n".join(lines) + "\r\n").encode()
