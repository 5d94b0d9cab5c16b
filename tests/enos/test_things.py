"""What is sent to EnOS's JSON topics, what is refused before that, and how answers are read."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbiot.enos import things
from nbiot.enos.things import Measurepoint
from nbiot.errors import BadInput, BadReply, RequestRefused, Unsupported

# The rows of the table of JSON topics in EnOS's documents (Reporting Device Data over MQTT), whose
# topics CoAP takes over.
DOCUMENTED = [
    (
        things.measurepoints({"Power": Measurepoint(1.0, 9), "temp": 1.02, "curr": ["1", "2"]}),
        "thing/measurepoint/post",
        "thing.measurepoint.post",
        {
            "measurepoints": {
                "Power": {"value": 1.0, "quality": 9},
                "temp": 1.02,
                "curr": ["1", "2"],
            }
        },
    ),
    (
        things.measurepoints({"temp": 1}, time=1700000000000),
        "thing/measurepoint/post",
        "thing.measurepoint.post",
        {"measurepoints": {"temp": 1}, "time": 1700000000000},
    ),
    (
        things.event("power", {"value": 1}),
        "thing/event/power/post",
        "thing.event.power.post",
        {"events": {"value": 1}},
    ),
    (
        things.update_attributes({"attr1": {"value": 1.0}, "attr2": 1.02}),
        "thing/attribute/update",
        "thing.attribute.update",
        {"attributes": {"attr1": {"value": 1.0}, "attr2": 1.02}},
    ),
    (
        things.query_attributes(["attr1"]),
        "thing/attribute/query",
        "thing.attribute.query",
        {"attributes": ["attr1"]},
    ),
    (
        things.delete_attributes(["attr1"]),
        "thing/attribute/delete",
        "thing.attribute.delete",
        {"attributes": ["attr1"]},
    ),
    (
        things.update_tags({"T": "36.8"}),
        "thing/tag/update",
        "thing.tag.update",
        [{"tagKey": "T", "tagValue": "36.8"}],
    ),
    (things.query_tags(), "thing/tag/query", "thing.tag.query", {"tags": []}),
    (things.delete_tags(["T"]), "thing/tag/delete", "thing.tag.delete", {"tags": ["T"]}),
]


@pytest.mark.parametrize(("message", "topic", "method", "params"), DOCUMENTED)
def test_messages_are_as_documented(
    message: things.Message, topic: str, method: str, params: Any
) -> None:
    assert message.topic == topic
    body = json.loads(message.encode("7"))
    assert body == {"id": "7", "version": "1.0", "method": method, "params": params}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, [1, {"x": math.nan}]])
def test_numbers_that_json_does_not_have_are_refused_by_name(value: Any) -> None:
    with pytest.raises(BadInput, match=r"temp.*finite number"):
        things.measurepoints({"temp": value})


BAD = [
    (lambda: things.measurepoints({}), "points"),
    (lambda: things.measurepoints({"a b": 1}), "measurepoint"),
    (lambda: things.measurepoints({"x" * 129: 1}), "measurepoint"),
    (lambda: things.measurepoints({"t": Measurepoint(1, 10)}), "quality"),
    (lambda: things.measurepoints({"t": Measurepoint(1, True)}), "quality"),
    (lambda: things.measurepoints({"t": 1}, time=1.5), "time"),
    (lambda: things.measurepoints({"t": object()}), "t"),
    (lambda: things.measurepoints({"t": b"bytes"}), "t"),
    (lambda: things.measurepoints({"t": "x" * 4001}), "characters"),
    (lambda: things.event("", {}), "event"),
    (lambda: things.update_attributes({f"a{n}": n for n in range(201)}), "201"),
    (lambda: things.query_attributes(["a", "b", "a"]), "each name once"),
    (lambda: things.delete_attributes([]), "0 names"),
    (lambda: things.update_tags({"t": 1}), "text"),
    (lambda: things.update_tags({"a!": "x"}), "tag"),
    (lambda: things.measurepoints({"t": "\ud800"}).encode("1"), "UTF-8"),
    (lambda: things.measurepoints({"t": "x" * 1000}).encode("1"), "1024"),
    (lambda: things.other("thing/../x y", {}), "topic"),
]


@pytest.mark.parametrize(("build", "named"), BAD)
def test_bad_input_is_refused_before_it_is_sent(build: Any, named: str) -> None:
    with pytest.raises(BadInput, match=named):
        build()


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def test_endless_nesting_is_an_error_in_words() -> None:
    with pytest.raises(BadInput, match="deep"):
        things.measurepoints({"t": nested(100_000)})


@pytest.mark.parametrize(
    "topic",
    [
        "thing/measurepoint/post/batch",
        "thing/measurepoint/resume",
        "thing/measurepoint/resume/batch",
        "ota/device/inform",
        "ext/file/upload",
        "thing/topo/add",
    ],
)
def test_what_enos_does_not_take_over_coap_is_refused_with_that_reason(topic: str) -> None:
    with pytest.raises(Unsupported, match="over CoAP"):
        things.other(topic, {})


def test_topics_that_are_not_excluded_pass() -> None:
    assert things.other("/thing/tsltemplate/get/", {}).topic == "thing/tsltemplate/get"


# --- answers ------------------------------------------------------------------------------------


def test_data_of_a_good_answer() -> None:
    assert things.read_answer(b'{"id":"7","code":200,"data":{"a":1}}', "7") == {"a": 1}
    assert things.read_answer(b'{"id":7,"code":200}', "7") is None
    assert things.read_answer(b"", "7") is None


@pytest.mark.parametrize("code", [1204, 1220, 1251, 1260, 1008, 2001])
def test_body_codes_become_errors_with_their_meaning(code: int) -> None:
    payload = json.dumps({"id": "7", "code": code, "message": "no"}).encode()
    with pytest.raises(RequestRefused, match=f"{code}, .*no") as caught:
        things.read_answer(payload, "7")
    assert caught.value.code == str(code)


@pytest.mark.parametrize(
    "payload",
    [
        b"\xff\xfe",
        b"{",
        b"[]",
        b'"text"',
        b'{"id":"8","code":200}',
        b'{"id":"7"}',
        b'{"id":"7","code":"200"}',
        b'{"id":"7","code":true}',
        b'{"id":"7","code":200,"code":1220}',
        b'{"id":"7","code":200,"data":NaN}',
        b"[" * 100_000,
        b"\xa2bid\x617",  # CBOR
    ],
)
def test_answers_that_say_nothing_are_errors(payload: bytes) -> None:
    with pytest.raises(BadReply):
        things.read_answer(payload, "7")


@given(st.binary(max_size=200))
def test_no_answer_crashes(payload: bytes) -> None:
    with suppress(BadReply, RequestRefused):
        things.read_answer(payload, "7")


@given(
    st.dictionaries(
        st.from_regex(r"[A-Za-z0-9_.-]{1,20}", fullmatch=True),
        st.one_of(
            st.integers(),
            st.floats(allow_nan=False, allow_infinity=False),
            st.text(st.characters(codec="utf-8"), max_size=20),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_what_is_taken_is_sent_unchanged(points: dict[str, Any]) -> None:
    payload = things.measurepoints(points).encode("1")
    assert len(payload) <= things.MOST_PAYLOAD
    assert json.loads(payload)["params"]["measurepoints"] == points


@pytest.mark.parametrize("code", ["4.00", "4.01", "4.03", "4.04", "4.05", "4.99", "5.00"])
def test_coap_codes_become_errors(code: str) -> None:
    with pytest.raises(RequestRefused) as caught:
        things.check_code(code)
    assert caught.value.code == code
    assert code in str(caught.value)


@pytest.mark.parametrize("code", ["2.01", "2.04", "2.05"])
def test_any_success_passes(code: str) -> None:
    things.check_code(code)
