"""What a UART makes of characters sent at another rate: always the same garbage."""

from __future__ import annotations

FRAME = 10
"""Bits of a character: a start bit (0), 8 data bits from the lowest on, a stop bit (1)."""
TOLERANCE = 0.04
"""Rates that differ less are understood: 10 bits drift by less than half a bit."""
MOST = 4096
"""Garbage from one piece of data, at most."""


def same_rate(one: int, other: int) -> bool:
    """Do UARTs at these rates understand each other?"""
    return abs(one - other) <= TOLERANCE * min(one, other)


def garbled(data: bytes, sent_at: int, heard_at: int) -> bytes:
    """`data`, sent without pauses at one rate (bit/s), as a UART at another rate samples it."""
    if same_rate(sent_at, heard_at):
        return data
    bits = _bits(data)
    step = sent_at / heard_at
    """Sent bits in one heard bit."""
    out = bytearray()
    place = 0.0
    while place < len(bits) and len(out) < MOST:
        if bits[int(place)]:
            place = int(place) + 1.0  # the line is idle: look for the next start bit
            continue
        byte = 0
        for number in range(8):
            sample = int(place + step * (1.5 + number))
            byte |= (bits[sample] if sample < len(bits) else 1) << number
        out.append(byte)
        place += step * (FRAME - 0.5)
    return bytes(out)


def _bits(data: bytes) -> list[int]:
    return [bit for byte in data for bit in (0, *(byte >> n & 1 for n in range(8)), 1)]
