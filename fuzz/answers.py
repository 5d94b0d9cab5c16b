"""Every row of every profile: a line that a shape lets through has the declared fields, and what
digests those fields takes all of them.

``bc66|registration?|+CEREG: 0,3,"0001","0000ABCD",9,0,15|...`` - profile, row of its command table
(or ``urc NAME``), lines.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from modems import bc66, bc95
from nbiot.at import Fields, Shape, UrcReceived
from nbiot.modem import identity
from nbiot.profile import (
    NativeRequest,
    Registration,
    Signal,
    csq_dbm,
    not_registered,
    registration,
)

from .script import PROFILES, chosen, filled, swift
from .typed import check_fields


def _shapes() -> dict[bytes, dict[bytes, Shape]]:
    tables: dict[bytes, dict[bytes, Shape]] = {}
    for name, profile in PROFILES.items():
        table = tables[name] = {}
        for row, template in profile.commands.items():
            command = filled(template)
            if command.answer is not None:
                table[row.encode()] = command.answer
            if command.outcome is not None:
                table[row.encode() + b" outcome"] = command.outcome
        for urc in profile.dialect.urcs:
            notation = urc.notation.removesuffix(",")
            key = f"urc {urc.name}".encode()
            table[notation.encode() if key in table else key] = Shape(notation)
        for probe in profile.dialect.probes:
            assert probe.answer is not None
            table[b"probe " + probe.line] = probe.answer
    return tables


TABLES = _shapes()
TOKENS = (
    *(b"|%b|" % row for table in TABLES.values() for row in table),
    *(shape.prefix for table in TABLES.values() for shape in table.values()),
    *(b",", b'"', b"|", b": ", b"10.0.0.7", b"255", b"-32768", b"4294967295", b"Signal power:"),
    *(b"SNR:", b"ECL:", b"EARFCN:", b"PCI:", b"Revision:", b"READY", b"OK", b"4F4B", b"99"),
)
REQUEST = NativeRequest("192.0.2.1", 5683, 2, ("auth",), b"{}", 7, b"ab", 9)


def _registration(fields: Fields) -> None:
    found = registration(fields["stat"], fields["rest"])
    assert isinstance(found, Registration)
    str(not_registered(found, Signal(), 1.0))


def _response(fields: Fields) -> None:
    ours = bc66._answers(UrcReceived(b"", "coap response", fields), REQUEST)
    assert ours or fields["mid"] != REQUEST.mid


DIGESTS: dict[str, Callable[[Any], object]] = {
    "registration?": _registration,
    "urc registration": _registration,
    "signal": lambda fields: f"{Signal(rssi=csq_dbm(fields))}",
    "urc coap response": _response,
}


def one(data: bytes) -> None:
    """See the top of this file."""
    name, row, *lines = [*data.split(b"|"), b""][:20]
    table = chosen(TABLES, name)
    row = row if row in table else sorted(table)[len(row) % len(table)]
    shape = table[row]
    digest = DIGESTS.get(row.decode())
    with swift(len(data)):
        for line in lines:
            found = shape.match(line)
            assert found == shape.match(bytearray(line))
            if found is None:
                continue
            assert line.startswith(shape.prefix)
            check_fields(found, [shape.notation])
            if digest is not None:
                digest(found)
        said = [line.decode("ascii", "backslashreplace") for line in lines]
        figures = bc95.statistics(said)
        assert all(type(value) is int for value in figures.values())
        identity({b"ATI": said, b"AT+CGMM": said[:1], b"AT+CGMR": said[1:]})
        identity({b"ATI": said})
        for profile in PROFILES.values():
            re.search(profile.models, "\n".join(said))
