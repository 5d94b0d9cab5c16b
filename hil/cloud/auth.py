"""The claim of POST /auth/{productKey}/{deviceKey} and its signature.

Documented in "CoAP-based Connection and Communication (Non-DTLS)", section "Authentication and
Connection".
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field

from hil.cloud.records import Refused

SECURE_MODE = 2
LIFETIMES = range(30, 86400 + 1)


@dataclass
class Device:
    """A registered device.  ``enabled`` may be changed while the cloud runs."""

    product_key: str
    device_key: str
    secret: str = field(repr=False)
    enabled: bool = True


@dataclass(frozen=True)
class Claim:
    """What the payload of /auth says."""

    secure_mode: int
    lifetime: int
    sign: str


def sign(
    product_key: str, device_key: str, secret: str, lifetime: int, secure_mode: int = SECURE_MODE
) -> str:
    """The signature a device has to send: SHA-256 over names and values, then the secret."""
    named = f"deviceKey{device_key}lifetime{lifetime}productKey{product_key}secureMode{secure_mode}"
    return hashlib.sha256((named + secret).encode()).hexdigest().upper()


def read_claim(payload: bytes) -> Claim:
    if not payload:
        raise Refused("4.00", "the payload is empty")
    try:
        body = json.loads(payload.decode())
    except (ValueError, RecursionError):
        raise Refused("4.00", "the payload is not JSON") from None
    if not isinstance(body, dict):
        raise Refused("4.00", "the payload is not a JSON object")
    for name, kind, words in (
        ("secureMode", int, "an integer"),
        ("lifetime", int, "an integer"),
        ("sign", str, "a string"),
    ):
        if name not in body:
            raise Refused("4.00", f"{name} is missing")
        if type(body[name]) is not kind:
            raise Refused("4.00", f"{name} is not {words}")
    if body["lifetime"] not in LIFETIMES:
        raise Refused(
            "4.00", f"lifetime {body['lifetime']} is outside {LIFETIMES[0]}..{LIFETIMES[-1]}"
        )
    return Claim(body["secureMode"], body["lifetime"], body["sign"])


def check_signature(claim: Claim, device: Device, strict_case: bool) -> None:
    if claim.secure_mode != SECURE_MODE:
        raise Refused("4.01", f"secureMode {claim.secure_mode} is not {SECURE_MODE}")
    wanted = sign(device.product_key, device.device_key, device.secret, claim.lifetime)
    if claim.sign.upper() != wanted:
        raise Refused("4.01", "signature differs")
    if strict_case and claim.sign != wanted:
        raise Refused("4.01", "signature is right, but not in uppercase")
