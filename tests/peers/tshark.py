"""Wireshark's CoAP dissector as an independent judge of datagrams (no capture, no root)."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any

import pytest

requires_tshark = pytest.mark.skipif(
    shutil.which("tshark") is None, reason="tshark is missing: Debian package tshark"
)

Address = tuple[str, int]
Sent = tuple[Address, Address, bytes]
"""Source, destination, payload of one UDP datagram."""

_TYPES = ("CON", "NON", "ACK", "RST")
_LINKTYPE_RAW = 101
_UDP = 17
_URI_PATH = 11
_ELECTIVE = re.compile(r"Unknown Option Number \d*[02468]")


@dataclass(frozen=True)
class Dissected:
    """What tshark reads in one datagram; None where it found nothing to read.

    ``complaints`` are the messages of its expert infos, such as "Malformed Packet (...)" and
    "Retransmitted"; not among them are elective options it has no name for (2100, 2102).
    """

    type: str | None
    code: str | None
    mid: int | None
    token: bytes
    path: tuple[str, ...]
    options: tuple[tuple[int, bytes], ...]
    payload: bytes
    complaints: tuple[str, ...]


async def dissect(datagrams: Sequence[Sent]) -> list[Dissected]:
    """Let tshark read these datagrams as CoAP, whatever their ports are."""
    ports = {end[1] for source, target, _ in datagrams for end in (source, target)}
    as_coap = [word for port in sorted(ports) for word in ("-d", f"udp.port=={port},coap")]
    process = await asyncio.create_subprocess_exec(
        *("tshark", "-n", "-r", "-", *as_coap, "-T", "json", "--no-duplicate-keys", "-x"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, errors = await process.communicate(pcap(datagrams))
    if process.returncode:
        raise RuntimeError(f"tshark: {errors.decode(errors='replace')}")
    return [_dissected(packet["_source"]["layers"]) for packet in json.loads(out)]


def pcap(datagrams: Iterable[Sent]) -> bytes:
    """A pcap file of raw IPv4 packets, a millisecond apart."""
    header = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 0xFFFF, _LINKTYPE_RAW)
    records = []
    for index, (source, target, data) in enumerate(datagrams):
        packet = _ipv4(source, target, data)
        seconds, millis = divmod(index, 1000)
        records.append(struct.pack("<IIII", seconds, millis * 1000, len(packet), len(packet)))
        records.append(packet)
    return header + b"".join(records)


def _ipv4(source: Address, target: Address, data: bytes) -> bytes:
    ends = IPv4Address(source[0]).packed + IPv4Address(target[0]).packed
    length = 8 + len(data)
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, 0, 0, 64, _UDP, 0)
    head = head[:10] + _checksum(head + ends) + ends
    udp = struct.pack("!HHHH", source[1], target[1], length, 0)  # 0: no checksum computed
    return head + udp + data


def _checksum(head: bytes) -> bytes:
    total = sum(struct.unpack(f"!{len(head) // 2}H", head))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", ~total & 0xFFFF)


def _dissected(layers: dict[str, Any]) -> Dissected:
    coap = layers.get("coap", {})
    found = list(_complaints(layers)) if coap else ["No CoAP"]
    options = tuple(_option(tree) for tree in _many(coap.get("coap.opt.name_tree")))
    return Dissected(
        type=_TYPES[int(coap["coap.type"])] if "coap.type" in coap else None,
        code="{}.{:02}".format(*divmod(int(coap["coap.code"]), 32))
        if "coap.code" in coap
        else None,
        mid=int(coap["coap.mid"]) if "coap.mid" in coap else None,
        token=_raw(coap, "coap.token"),
        path=tuple(value.decode() for number, value in options if number == _URI_PATH),
        options=options,
        payload=_raw(coap, "coap.payload"),
        complaints=tuple(text for text in found if not _ELECTIVE.fullmatch(text)),
    )


def _option(tree: dict[str, Any]) -> tuple[int, bytes]:
    """Number and value; the value is what follows the option's header."""
    number = int(tree["coap.opt.desc"].split()[1].rstrip(","))
    header = 1 + len(_raw(tree, "coap.opt.delta_ext")) + len(_raw(tree, "coap.opt.length_ext"))
    return number, _raw(tree, "coap.opt.desc")[header:]


def _raw(layer: dict[str, Any], name: str) -> bytes:
    """The bytes of a field: of [hex, position, length, bitmask, type] the first."""
    found = layer.get(f"{name}_raw")
    return bytes.fromhex(found[0]) if found else b""


def _many(value: Any) -> list[Any]:
    """tshark writes a repeated key as a list, a single one bare."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _complaints(node: Any) -> Iterator[str]:
    """The messages of all expert infos below this node."""
    if isinstance(node, list):
        for item in node:
            yield from _complaints(item)
    elif isinstance(node, dict):
        for name, value in node.items():
            if name == "_ws.expert":
                yield from (str(info["_ws.expert.message"]) for info in _many(value))
            else:
                yield from _complaints(value)
