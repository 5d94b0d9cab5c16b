"""Are fields what their notation says? Written anew, not taken from nbiot/at/shape.py."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from ipaddress import IPv4Address
from typing import Any

_TOKEN = re.compile(r"<(\w+)(?::(\w+))?>|(\[)|(\])")


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value.isascii()


def _is_ip(value: object) -> bool:
    return isinstance(value, str) and str(IPv4Address(value)) == value


KINDS: dict[str, Callable[[Any], bool]] = {
    "": _is_text,
    "line": _is_text,
    "int": lambda value: type(value) is int and abs(value) < 10**18,
    "digit": lambda value: type(value) is int and 0 <= value <= 9,
    "digits": lambda value: _is_text(value) and value.isdigit(),
    "alnum": lambda value: _is_text(value) and value.isalnum(),
    "ip": _is_ip,
    "hex": lambda value: isinstance(value, bytes),
}


@cache
def declared(notation: str) -> Mapping[str, tuple[str, bool]]:
    """Name: kind, and whether it may be missing."""
    found, depth = {}, 0
    for name, kind, opened, closed in _TOKEN.findall(notation):
        depth += bool(opened) - bool(closed)
        if name:
            found[name] = (kind, depth > 0)
    return found


def fits(fields: Mapping[str, Any], notation: str) -> bool:
    """Has ``fields`` what ``notation`` declares, no more, each of its type?"""
    wanted = declared(notation)
    return fields.keys() == wanted.keys() and all(
        optional if fields[name] is None else KINDS[kind](fields[name])
        for name, (kind, optional) in wanted.items()
    )


def check_fields(fields: Mapping[str, Any], notations: Iterable[str]) -> None:
    """``fields`` fits one of ``notations``."""
    assert any(fits(fields, notation) for notation in notations), f"{fields} is not as declared"
