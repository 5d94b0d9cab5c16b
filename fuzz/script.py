"""What the targets share: inputs are scripts that a person can read.

A script is a line of fields separated by ``|``. The first one is the setting, each other one begins
with a letter that says what to do: ``bc95|bAT+CSQ|<\\r\\n+CSQ:18,99\\r\\n\\r\\nOK\\r\\n``. Bytes
are bytes: a mutated script is a script.
"""

from __future__ import annotations

import string
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from modems.bc66 import BC66
from modems.bc95 import BC95
from modems.bc95g import BC95G
from nbiot.at import Command, Template
from nbiot.profile import Profile

T = TypeVar("T")

PROFILES: dict[bytes, type[Profile]] = {
    profile.name.encode(): profile for profile in (BC95, BC95G, BC66)
}
GAPS = {
    "socket": 1,
    "address": "192.0.2.1",
    "port": 5683,
    "length": 2,
    "hex": "4F4B",
    "flag": "0x200",
    "apn": "iot.example",
    "host": "coap.example",
    "token": "6162",
    "options": '1,11,"auth"',
}


class Target(Protocol):
    """What a target module has."""

    TOKENS: Sequence[bytes]
    """Words that a mutation may put in."""

    def one(self, data: bytes) -> None:
        """Run one input; whatever it raises is a finding."""


def fields(data: bytes) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """The setting, and what to do: a letter and its argument each."""
    setting, *rest = data.split(b"|")
    return setting, [(field[:1], field[1:]) for field in rest]


def chosen(table: Mapping[bytes, T], name: bytes) -> T:
    """The entry called ``name``; any other name stands for some entry, always the same."""
    if name in table:
        return table[name]
    return list(table.values())[zlib.crc32(name) % len(table)]


def number(text: bytes, most: int) -> int:
    """The number in ``text``, from 0 to ``most``."""
    digits = text[:6]
    return min(int(digits), most) if digits.isdigit() else 1


def filled(template: Template, payload: bytes = b"") -> Command:
    """The command of ``template`` with something in every gap."""
    names = (name for _, name, _, _ in string.Formatter().parse(template.text) if name)
    gaps: dict[str, Any] = {name: GAPS.get(name, 1) for name in names}
    return template(payload=payload, **gaps)


def commands(profile: type[Profile]) -> dict[bytes, Command]:
    """All commands of ``profile`` by their text."""
    rows = [filled(row, b"OK" if row.prompt else b"") for row in profile.commands.values()]
    return {command.line: command for command in (*rows, *profile.dialect.probes)}


@contextmanager
def swift(size: int) -> Iterator[None]:
    """What is done inside may take a second and 0.2 ms a byte of this thread's time; far more than
    it needs, and far less than work that grows with the square of the input.
    """
    began = time.thread_time()
    yield
    took = time.thread_time() - began
    assert took < 1.0 + size * 2e-4, f"{size} bytes took {took:.1f} s"
