"""The parts of an authentication: device, payload, refusals, result."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hil.cloud import sign
from nbiot.enos import AuthResult, Device
from nbiot.enos.auth import auth_payload, refusal
from nbiot.errors import AuthRefused, BadInput, ServerFault
from nbiot.signing import Secret, SecretSigner
from tests.coap.wire import DK, PK, SECRET

SIGNER = SecretSigner(Secret(SECRET))

keys = st.text("abcXYZ019", min_size=4, max_size=64)
device_keys = st.text("abcXYZ019-_.:", min_size=4, max_size=64)
lifetimes = st.integers(30, 86400)


# --- Device -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "field"),
    [
        *[({"product_key": v}, "productKey") for v in ("", "abc", "x" * 65, "ab-cd", "abc d")],
        *[({"product_key": v}, "productKey") for v in ("abc\u0660", "abcd\n", None, 12345)],
        *[({"device_key": v}, "deviceKey") for v in ("", "abc", "x" * 65, "ab/cd", "ab,cd")],
        *[({"device_key": v}, "deviceKey") for v in ("abc\u00e4", "abcd\n", 867723030000000)],
        *[({"lifetime": v}, "lifetime") for v in (29, 0, -1, 86401, 3600.0, "3600", True, None)],
    ],
)
def test_a_device_says_which_field_is_wrong(values: dict[str, Any], field: str) -> None:
    good: dict[str, Any] = {"product_key": PK, "device_key": DK, "lifetime": 3600}
    with pytest.raises(BadInput) as caught:
        Device(signer=SIGNER, **(good | values))
    assert caught.value.field == field
    assert caught.value.exit_code == 2


def test_a_device_is_silent_for_an_hour_unless_told_otherwise() -> None:
    assert Device(PK, DK, SIGNER).lifetime == 3600


@dataclass
class CarelessSigner:
    """One whose repr shows what it should not."""

    secret: str

    def sign(self, product_key: str, device_key: str, lifetime: int, secure_mode: int = 2) -> str:
        return sign(product_key, device_key, self.secret, lifetime, secure_mode)


@pytest.mark.parametrize("signer", [SIGNER, CarelessSigner(SECRET)])
def test_a_device_does_not_show_its_secret(signer: Any) -> None:
    device = Device(PK, DK, signer)
    assert SECRET not in repr(device)
    assert SECRET not in f"{device}"
    assert DK in repr(device)


# --- the payload --------------------------------------------------------------------------------


@given(keys, device_keys, lifetimes, st.text("abcXYZ09", min_size=1, max_size=64))
def test_the_payload_is_compact_json_with_numbers(
    product_key: str, device_key: str, lifetime: int, secret: str
) -> None:
    payload = auth_payload(Device(product_key, device_key, SecretSigner(Secret(secret)), lifetime))
    body = json.loads(payload)
    assert list(body) == ["secureMode", "lifetime", "sign"]
    assert (type(body["secureMode"]), type(body["lifetime"])) == (int, int)
    assert (body["secureMode"], body["lifetime"]) == (2, lifetime)
    assert body["sign"] == sign(product_key, device_key, secret, lifetime)  # the stand-in's own
    assert b" " not in payload
    assert len(payload) == len(b'{"secureMode":2,"lifetime":,"sign":""}') + len(str(lifetime)) + 64


@given(keys, device_keys, lifetimes, st.text("abcXYZ09", min_size=1, max_size=64))
def test_the_sdk_of_enos_makes_the_same_signature(
    product_key: str, device_key: str, lifetime: int, secret: str
) -> None:
    sdk = pytest.importorskip(
        "enos.core.util.SignUtil", reason="the PyPI package enos-mqtt-sdk-python 0.1.1 is missing"
    )
    params = {
        "productKey": product_key,
        "deviceKey": device_key,
        "lifetime": lifetime,
        "secureMode": 2,
    }
    expected = sdk.SignUtil.sign(secret, params, sdk.SignUtil.SHA256).upper()
    device = Device(product_key, device_key, SecretSigner(Secret(secret)), lifetime)
    assert json.loads(auth_payload(device))["sign"] == expected


# --- refusals -----------------------------------------------------------------------------------

DEVICE = Device(PK, DK, SIGNER)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("4.00", ["could not read", "30 to 86400", "--content-format 50"]),
        ("4.01", ["signature", "product key", "device key", "device secret", "not registered"]),
        ("4.01", ["no clock, so time is not the cause"]),
        ("4.03", ["disabled", "console"]),
        ("4.04", ["no such path", "coap-<hostname>", "5683"]),
        ("4.05", ["method"]),
        ("4.29", ["refused", "RFC 7252"]),
    ],
)
def test_a_refusal_says_what_to_check(code: str, words: list[str]) -> None:
    error = refusal(code, DEVICE)
    assert type(error) is AuthRefused
    assert (error.code, error.exit_code) == (code, 50)
    assert all(word in str(error) for word in [*words, code, PK, DK])
    assert SECRET not in str(error)


@pytest.mark.parametrize("code", ["5.00", "5.03", "5.31"])
def test_a_fault_of_the_server_is_told_apart(code: str) -> None:
    error = refusal(code, DEVICE)
    assert isinstance(error, ServerFault)
    assert (error.code, error.exit_code) == (code, 51)
    assert "try again" in error.hint


# --- the result ---------------------------------------------------------------------------------


def test_a_result_is_plain_data() -> None:
    result = AuthResult(
        code="2.04",
        product_key=PK,
        device_key=DK,
        lifetime=3600,
        server="coap-abc.def.com:5683",
        address="192.0.2.1:5683",
        resolved_by="modem",
        path="udp",
        round_trip=0.5,
        bytes_up=145,
        bytes_down=6,
        retransmissions=0,
        at_round_trips=4,
        serial_bytes=400,
        commands_waiting=False,
    )
    assert json.loads(json.dumps(result.as_dict()))["device_key"] == DK
    assert AuthResult(**result.as_dict()) == result
