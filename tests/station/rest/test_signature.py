"""The published signature, and two independent ways to make one."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from hil.enos_rest import signature_of
from nbiot.signing import Secret
from nbiot.station.rest import sign

TOKEN, PARAMS, STAMP, SECRET = "xxxxaaaxxxx", "k1v1k2v2k3v3", 1572574909697, "xxxappSecretxxx"
PAIRS = [("k1", "v1"), ("k2", "v2"), ("k3", "v3")]
VECTORS = {  # EnOS's documentation; the English page prints the first digest beside another body
    "描述": "59828328f6c1f9771015dc74e4929ae30f518a35a3d2353972c2ea46556fc981",
    "description": "ad6dc6fc97f4290f3724e94eab38168d8613c41c3a4569b4b8b0efbce96a816c",
}


def body(text: str) -> str:
    return f'{{\n  "count": 20,\n  "page": 1,\n  "desc": "{text}"\n}}'


@pytest.mark.parametrize("text", VECTORS)
def test_the_published_signature(text: str) -> None:
    assert sign(TOKEN, PARAMS, body(text), STAMP, Secret(SECRET)) == VECTORS[text]


@pytest.mark.parametrize("text", VECTORS)
def test_the_stand_in_has_the_published_signature(text: str) -> None:
    made = signature_of(TOKEN, PAIRS, body(text).encode(), str(STAMP), SECRET)
    assert made == VECTORS[text]


@given(
    st.dictionaries(st.text("abcXYZ", min_size=1), st.text("abc:.-'= ")),
    st.text(),
    st.integers(10**12, 10**13 - 1),
)
def test_both_sign_alike(query: dict[str, str], text: str, stamp: int) -> None:
    params = "".join(name + query[name] for name in sorted(query))
    raw = text.encode("utf-8", "replace")
    ours = sign(TOKEN, params, raw.decode(), stamp, Secret(SECRET))
    assert ours == signature_of(TOKEN, sorted(query.items()), raw, str(stamp), SECRET)
