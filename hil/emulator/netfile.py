"""Networks in TOML files. docs/emulator.md explains every key, with an example."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from .cells import Cell, Registration, Stat
from .network import Address, Air, Network, is_ipv4

LONG = 10**9
"""No time in a file is longer, s."""
Read = Callable[[Any], Any]
"""A value of the file to ours; ValueError when it is not allowed."""
Key = tuple[Read, str]
"""How to read it, and what is allowed in words."""

T3324_UNITS = {0: 2, 1: 60, 2: 360}
"""Unit bits of T3324 (3GPP TS 24.008, table 10.5.163), in s."""
T3412_UNITS = {3: 2, 4: 30, 5: 60, 0: 600, 1: 3600, 2: 36000, 6: 1152000}
"""Unit bits of T3412 extended (3GPP TS 24.008, table 10.5.163a), in s."""
EDRX_CYCLES = {
    20.48: "0010",
    40.96: "0011",
    81.92: "0101",
    163.84: "1001",
    327.68: "1010",
    655.36: "1011",
    1310.72: "1100",
    2621.44: "1101",
    5242.88: "1110",
    10485.76: "1111",
}
"""Cycles of NB-IoT (3GPP TS 24.008, table 10.5.5.32), s, with their bits."""
OUTCOMES: dict[str, Stat] = {"home": 1, "roaming": 5, "denied": "denied", "none": "none"}


class BadNetwork(ValueError):
    """A network file that cannot be used: the text names line, key, value and what is allowed."""


class _Place:
    """Finds the line of a key, for messages."""

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._lines = self._keys(text)

    @staticmethod
    def _keys(text: str) -> dict[str, int]:
        """`cell[1].signal` -> its line; tables of an array are counted from 0."""
        found: dict[str, int] = {}
        counts: dict[str, int] = {}
        table = ""
        for number, line in enumerate(text.splitlines(), 1):
            if match := re.match(r"\s*\[\[\s*([\w.-]+)\s*\]\]", line):
                index = counts.get(match[1], 0)
                counts[match[1]] = index + 1
                table = f"{match[1]}[{index}]"
                found[table] = number
            elif match := re.match(r"\s*\[\s*([\w.-]+)\s*\]", line):
                table = match[1]
                found[table] = number
            elif match := re.match(r"""\s*("[^"]*"|'[^']*'|[\w.-]+)\s*=""", line):
                key = match[1].strip("\"'")
                found.setdefault(f"{table}.{key}" if table else key, number)
        return found

    def error(self, key: str, value: object, allowed: str) -> BadNetwork:
        line = self._lines.get(key) or self._lines.get(key.rpartition(".")[0])
        where = f"{self._path}:{line}" if line else str(self._path)
        return BadNetwork(f"{where}: {key} = {_shown(value)}; allowed: {allowed}")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


# -------------------------------------------------------------------- values


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def number(low: float, high: float = LONG, unit: str = "") -> Key:
    def read(value: Any) -> float:
        if not _is_number(value) or not math.isfinite(value) or not low <= value <= high:
            raise ValueError
        return float(value)

    most = f"to {high:g}" if high != LONG else "or more"
    return read, f"a number, {low:g} {most}{unit and ' ' + unit}"


def whole(low: int, high: int) -> Key:
    def read(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ValueError
        return value

    return read, f"a whole number, {low} to {high}"


def flag() -> Key:
    def read(value: Any) -> bool:
        if not isinstance(value, bool):
            raise ValueError
        return value

    return read, "true or false"


def text(pattern: str, allowed: str) -> Key:
    def read(value: Any) -> str:
        if not isinstance(value, str) or not re.fullmatch(pattern, value, re.ASCII):
            raise ValueError
        return value

    return read, allowed


def one_of(values: Mapping[Any, Any]) -> Key:
    def read(value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError
        if value not in values:
            raise ValueError
        return values[value]

    return read, ", ".join(map(str, values))


def _span(value: Any) -> tuple[float, float]:
    """`3` or `[2, 6]`: at least, and how much more."""
    low, high = value if isinstance(value, list) and len(value) == 2 else (value, value)
    read = number(0)[0]
    if read(low) > read(high):
        raise ValueError
    return float(low), float(high) - float(low)


def _address(value: Any) -> str | IPv4Network:
    if not isinstance(value, str):
        raise ValueError
    if is_ipv4(value):
        return value
    if "/" not in value:
        raise ValueError
    return IPv4Network(value)


def _ipv4(value: Any) -> str:
    if not isinstance(value, str) or not is_ipv4(value):
        raise ValueError
    return value


def _peer(value: Any) -> Address:
    if not isinstance(value, str):
        raise ValueError
    host, _, port = value.rpartition(":")
    if not is_ipv4(host) or not re.fullmatch(r"\d{1,5}", port) or not 0 < int(port) < 65536:
        raise ValueError
    return host, int(port)


def _course(value: Any) -> list[tuple[float, float, float]]:
    if not isinstance(value, list) or not value:
        raise ValueError
    entries = []
    for entry in value:
        if not isinstance(entry, list) or len(entry) != 3:
            raise ValueError
        at, rsrp, snr = entry
        entries.append((SECONDS[0](at), RSRP[0](rsrp), SNR[0](snr)))
    if [entry[0] for entry in entries] != sorted({entry[0] for entry in entries}):
        raise ValueError
    return entries


def timer_bits(seconds: float, units: Mapping[int, int]) -> str:
    """A timer as 3GPP writes it: 3 bits of unit, 5 bits of count. ValueError: it cannot."""
    for unit, length in units.items():
        count = seconds / length
        if count == int(count) and 0 < count <= 31:
            return f"{unit:03b}{int(count):05b}"
    raise ValueError


def _timer(units: Mapping[int, int], named: str) -> Key:
    def read(value: Any) -> tuple[float, str]:
        if not _is_number(value):
            raise ValueError
        return float(value), timer_bits(value, units)

    steps = ", ".join(str(step) for step in sorted(units.values()))
    return read, f"{named}: 1 to 31 times {steps} s"


SECONDS, CHANCE = number(0, unit="s"), number(0, 1)
RSRP, SNR = number(-160, -30, "dBm"), number(-30, 50, "dB")
NETWORK: dict[str, Key] = {
    "seed": whole(0, 2**63 - 1),
    "plmn": text(r"\d{5,6}", "5 or 6 digits in quotes"),
    "apn": text(r"[\w.-]{0,100}", "letters, digits, dots and dashes"),
    "attach_delay": (_span, "seconds, or [least, most]"),
    "address": (_address, 'an IPv4 address, or a range as "10.0.0.0/24": one for each attach'),
    "nat_timeout": SECONDS,
    "latency": SECONDS,
    "uplink_queue": whole(1, 1000),
    "rrc_idle": SECONDS,
    "dns_delay": SECONDS,
    "host_resolver": flag(),
    "zone_quarters": whole(-48, 56),
    "repeat": number(0.001, unit="s"),
}
CELL: dict[str, Key] = {
    "earfcn": whole(0, 262143),
    "pci": whole(0, 503),
    "cell_id": whole(0, 2**28 - 1),
    "tac": whole(0, 65535),
    "band": whole(1, 85),
    "rsrp": RSRP,
    "snr": SNR,
    "rsrq": number(-35, 5, "dB"),
    "ecl": whole(0, 2),
    "signal": (_course, "[[seconds, dBm, dB], ...], later and later, from 0 on"),
}
NEEDED = ("earfcn", "pci", "cell_id", "tac", "band")
REGISTRATION: dict[str, Key] = {
    "at": SECONDS,
    "result": one_of(OUTCOMES),
    "cause": whole(1, 255),
}
AIR: dict[str, Key] = {
    "latency": SECONDS,
    "jitter": SECONDS,
    "loss": CHANCE,
    "duplicate": CHANCE,
    "reorder": CHANCE,
    "hold": SECONDS,
}
POWER: dict[str, Key] = {
    "t3324": _timer(T3324_UNITS, "T3324"),
    "t3412": _timer(T3412_UNITS, "T3412"),
    "edrx": one_of({cycle: (cycle, bits) for cycle, bits in EDRX_CYCLES.items()}),
    "paging_window": one_of({round(2.56 * n, 2): round(2.56 * n, 2) for n in range(1, 17)}),
    "buffer": whole(0, 1000),
}
HOST = text(r"[\w.-]{1,253}", "a host name")
IPV4: Key = (_ipv4, "an IPv4 address in quotes")
PEER: Key = (_peer, 'an IPv4 address and a port, "192.0.2.1:5683"')
PING: Key = (lambda value: None if value is False else whole(0, 60000)[0](value), "ms, or false")
TABLES = (
    "network",
    "cell",
    "registration",
    "uplink",
    "downlink",
    "power_saving",
    "dns",
    "ping",
    "routes",
)


# -------------------------------------------------------------------- tables


class _Reader:
    """One file."""

    def __init__(self, path: Path, source: str, place: _Place) -> None:
        self._path, self._place = path, place
        try:
            self.data = tomllib.loads(source)
        except tomllib.TOMLDecodeError as error:
            raise BadNetwork(f"{path}: not TOML: {error}") from None
        self._known("", self.data, TABLES)

    def _known(self, where: str, table: Mapping[str, Any], keys: Iterable[str]) -> None:
        for key, value in table.items():
            if key not in keys:
                name = f"{where}.{key}" if where else key
                raise self._place.error(name, value, f"the keys {', '.join(keys)}")

    def _table(self, name: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self._place.error(name, value, f"a table [{name}]")
        return value

    def values(self, where: str, keys: Mapping[str, Key], table: Any = None) -> dict[str, Any]:
        """The values of one table, read."""
        table = self._table(where, self.data.get(where, {}) if table is None else table)
        self._known(where, table, keys)
        return {key: self.value(f"{where}.{key}", keys[key], table[key]) for key in table}

    def value(self, name: str, key: Key, value: Any) -> Any:
        try:
            return key[0](value)
        except (ValueError, TypeError):
            raise self._place.error(name, value, key[1]) from None

    def each(
        self, where: str, keys: Mapping[str, Key], needed: tuple[str, ...]
    ) -> list[dict[str, Any]]:
        """The tables of an array."""
        entries = self.data.get(where, [])
        if not isinstance(entries, list):
            raise self._place.error(where, entries, f"tables [[{where}]]")
        read = []
        for index, entry in enumerate(entries):
            name = f"{where}[{index}]"
            read.append(self.values(name, keys, entry))
            for key in needed:
                if key not in entry:
                    raise self._place.error(f"{name}.{key}", "missing", keys[key][1])
        return read

    def pairs(self, where: str, left: Key, right: Key) -> dict[Any, Any]:
        """A table whose keys are the user's."""
        table = self._table(where, self.data.get(where, {}))
        return {
            self.value(f"{where}.{key}", left, key): self.value(f"{where}.{key}", right, entry)
            for key, entry in table.items()
        }


def read_network(path: Path) -> Network:
    """The network that a file describes. Raises BadNetwork."""
    try:
        source = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadNetwork(f"{path}: cannot be read: {error}") from None
    reader = _Reader(path, source, _Place(path, source))
    network = Network(**_general(reader.values("network", NETWORK)))
    network.cells = [_cell(values) for values in reader.each("cell", CELL, NEEDED)]
    network.registrations = _registrations(
        reader.each("registration", REGISTRATION, ("at", "result"))
    )
    network.up = Air(**reader.values("uplink", AIR))
    network.down = Air(**reader.values("downlink", AIR))
    _save_power(network, reader.values("power_saving", POWER))
    network.dns = reader.pairs("dns", HOST, IPV4)
    network.ping = reader.pairs("ping", IPV4, PING)
    network.routes = reader.pairs("routes", PEER, PEER)
    return network


def _general(values: dict[str, Any]) -> dict[str, Any]:
    if "attach_delay" in values:
        values["attach_delay"], values["attach_spread"] = values["attach_delay"]
    if isinstance(values.get("address"), IPv4Network):
        values["addresses"] = values.pop("address")
    return values


def _cell(values: dict[str, Any]) -> Cell:
    course = values.pop("signal", [])
    return Cell(**values, course=course)


def _registrations(tables: list[dict[str, Any]]) -> list[Registration]:
    entries = [Registration(stat=table.pop("result"), **table) for table in tables]
    return sorted(entries, key=lambda entry: entry.at)


def _save_power(network: Network, values: dict[str, Any]) -> None:
    if "t3324" in values:
        network.active_time, network.t3324 = values["t3324"]
    if "t3412" in values:
        network.tau, network.t3412 = values["t3412"]
    if "edrx" in values:
        network.edrx_cycle, network.edrx = values["edrx"]
    network.paging_window = values.get("paging_window", network.paging_window)
    network.buffer = values.get("buffer", network.buffer)
