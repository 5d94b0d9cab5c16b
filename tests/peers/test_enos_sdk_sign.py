"""The stand-in's signature against Envision's own: SignUtil of their MQTT SDK for Python."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hil.cloud import sign

sdk = pytest.importorskip(
    "enos.core.util.SignUtil", reason="the PyPI package enos-mqtt-sdk-python 0.1.1 is missing"
)

keys = st.text("abcXYZ0189-_.:", min_size=1, max_size=64)


def signed_by_sdk(product_key: str, device_key: str, secret: str, lifetime: int) -> str:
    params = {
        "productKey": product_key,
        "deviceKey": device_key,
        "lifetime": lifetime,
        "secureMode": 2,
    }
    return str(sdk.SignUtil.sign(secret, params, sdk.SignUtil.SHA256)).upper()


@given(keys, keys, st.text(max_size=64), st.integers(30, 86400))
def test_the_sdk_signs_alike(product_key: str, device_key: str, secret: str, lifetime: int) -> None:
    expected = signed_by_sdk(product_key, device_key, secret, lifetime)
    assert sign(product_key, device_key, secret, lifetime) == expected


def test_the_sdk_agrees_with_the_derived_vector() -> None:
    expected = "51CC3D49A254DE334BBFFEC60E20DC897EC9697C954AA60CA9686B1EEF5B221C"
    assert signed_by_sdk("KV315idW", "tPbZGCdmaE", "M3yy874uGY8INjEGddTR", 3600) == expected
