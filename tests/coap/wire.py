"""Datagrams written by hand from RFC 7252, section 3: no codec of ours or of aiocoap's."""

from __future__ import annotations

from collections.abc import Sequence

CON, NON, ACK, RST = range(4)
EMPTY, GET, POST = 0, 1, 2
CREATED, CHANGED, CONTENT = 0x41, 0x44, 0x45
UNAUTHORIZED = 0x81

PK, DK, SECRET = "KV315idW", "tPbZGCdmaE", "M3yy874uGY8INjEGddTR"
SIGN_3600 = "51CC3D49A254DE334BBFFEC60E20DC897EC9697C954AA60CA9686B1EEF5B221C"
BODY = b'{"secureMode":2,"lifetime":3600,"sign":"' + SIGN_3600.encode() + b'"}'

AUTH = bytes.fromhex("44021234a1b2c3d4b461757468084b563331356964570a7450625a4743646d6145ff") + BODY
"""POST /auth/KV315idW/tPbZGCdmaE, mid 0x1234, token a1b2c3d4."""

COMMAND = bytes.fromhex(
    "64441235a1b2c3d5ed0727262f746f7069632f7379732f4b563331356964572f7450625a4743646d6145"
    "2f7468696e672f6d6f64656c2f646f776e5f726177250200000014"
)
"""ACK 2.04 with options 2100 (a topic of 51 characters) and 2102."""
TOPIC = b"/topic/sys/KV315idW/tPbZGCdmaE/thing/model/down_raw"


def message(
    kind: int,
    code: int,
    mid: int,
    token: bytes = b"",
    options: Sequence[tuple[int, bytes]] = (),
    payload: bytes = b"",
) -> bytes:
    """A message; ``options`` in ascending order of their numbers."""
    data = bytes([0x40 | kind << 4 | len(token), code]) + mid.to_bytes(2, "big") + token
    last = 0
    for number, value in options:
        delta, more_delta = _extended(number - last)
        length, more_length = _extended(len(value))
        data += bytes([delta << 4 | length]) + more_delta + more_length + value
        last = number
    return data + (b"\xff" + payload if payload else b"")


def _extended(value: int) -> tuple[int, bytes]:
    if value < 13:
        return value, b""
    if value < 269:
        return 13, bytes([value - 13])
    return 14, (value - 269).to_bytes(2, "big")
