"""Whatever JSON comes back: a value, or a RestError that says so."""

from __future__ import annotations

from typing import Any

import httpx
import hypothesis.strategies as st
import pytest
from hypothesis import given

from nbiot.errors import RestError
from nbiot.signing import Secret
from nbiot.station import rest

KEYS = ["code", "status", "msg", "data", "deviceSecret", "sessionKey"]
KEYS += ["deviceName", "defaultValue", "activeTime", "accessToken"]
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10)
JSON = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=6)
    ),
    max_leaves=12,
)


@given(JSON)
def test_every_answer_is_understood_or_refused(found: Any) -> None:
    for read in (rest._data_of, rest._secret_in, rest._device_in, rest._code_in):
        try:
            read(found)
        except RestError as error:
            assert error.message  # noqa: PT017  # both ends are fine


@given(JSON, st.sampled_from([302, 400, 401, 404, 418, 500, 599]))
def test_every_status_is_put_into_words(found: Any, status: int) -> None:
    error = rest._status(httpx.Response(status), found)
    assert error.code
    assert error.message


@pytest.mark.parametrize("text", ["", " padded ", "line\nbreak", "\x00"])
def test_a_secret_that_is_none_is_not_shown(text: str) -> None:
    with pytest.raises(RestError) as caught:
        rest._secret_in({"deviceSecret": text or None})
    assert not text.strip() or text not in str(caught.value)


def test_a_secret_is_hidden_at_once() -> None:
    assert rest._secret_in({"deviceSecret": "abc"}) == Secret("abc")
