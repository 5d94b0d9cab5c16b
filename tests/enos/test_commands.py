"""Commands as EnOS hands them over, what is answered, and what is remembered."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbiot.cloud import Downlink
from nbiot.coap.message import Response, Stats
from nbiot.enos.auth import Device, Server
from nbiot.enos.commands import RECORD_SECONDS, Command, Kind, Record, answer, read_command
from nbiot.enos.session import EnosCloud
from nbiot.errors import BadInput, BadReply
from nbiot.signing import Secret, SecretSigner

PK, DK = "KV315idW", "tPbZGCdmaE"
SYS = ("topic", "sys", PK, DK, "thing")


async def nowhere(_: Command, __: bytes) -> None:
    raise AssertionError("not to be answered")


def command(path: tuple[str, ...], payload: bytes) -> Command:
    return read_command(Downlink((*SYS, *path), payload), PK, DK, 60.0, nowhere)


def json_of(**body: Any) -> bytes:
    return json.dumps(body).encode()


# EnOS, "Invoking Services and Setting Measurement Points".
DOCUMENTED = [
    (("model", "down_raw"), b"\x02\x00\x00\x00\x14", Kind.RAW, "", None, None, "down_raw_reply"),
    (
        ("service", "measurepoint", "set"),
        json_of(id="1", version="1.0", params={"t": 30.5}, method="thing.service.measurepoint.set"),
        Kind.SET,
        "",
        "1",
        {"t": 30.5},
        "set_reply",
    ),
    (
        ("service", "measurepoint", "get"),
        json_of(id=2, params=["power"]),
        Kind.GET,
        "",
        "2",
        ["power"],
        "get_reply",
    ),
    (
        ("service", "turn"),
        json_of(id="3", params={"Power": "on"}, method="thing.service.turn"),
        Kind.SERVICE,
        "turn",
        "3",
        {"Power": "on"},
        "turn_reply",
    ),
]


@pytest.mark.parametrize(
    ("path", "payload", "kind", "service", "number", "params", "reply"), DOCUMENTED
)
def test_commands_are_read_as_documented(
    path: tuple[str, ...],
    payload: bytes,
    kind: Kind,
    service: str,
    number: str | None,
    params: Any,
    reply: str,
) -> None:
    found = command(path, payload)
    assert (found.kind, found.service, found.id, found.params) == (kind, service, number, params)
    assert found.reply_path == (*SYS, *path[:-1], reply)


@pytest.mark.parametrize(
    ("path", "payload"),
    [
        (("service", "turn"), b""),
        (("service", "turn"), b"{"),
        (("service", "turn"), b"[]"),
        (("service", "turn"), b'{"params":{}}'),
        (("service", "turn"), b'{"id":true,"params":{}}'),
        (("service", "turn"), b'{"id":"1","params":[]}'),
        (("service", "measurepoint", "get"), b'{"id":"1","params":{}}'),
        (("service", "measurepoint", "set"), b'{"id":"1","params":{"a":NaN}}'),
        (("service", "measurepoint", "set"), b'{"id":"1","params":{"a":1,"a":2}}'),
        (("service", "measurepoint", "other", "x"), b"{}"),
        (("ota", "upgrade"), b"{}"),
        ((), b"{}"),
    ],
)
def test_what_is_no_command_is_said_to_be_none(path: tuple[str, ...], payload: bytes) -> None:
    with pytest.raises(BadReply):
        command(path, payload)


def test_a_command_for_another_device_is_not_ours() -> None:
    path = ("topic", "sys", PK, "another", "thing", "model", "down_raw")
    with pytest.raises(BadReply, match="another"):
        read_command(Downlink(path, b"x"), PK, DK, 60.0, nowhere)


@given(st.lists(st.text(max_size=10), max_size=9).map(tuple), st.binary(max_size=100))
def test_nothing_from_the_server_crashes(path: tuple[str, ...], payload: bytes) -> None:
    for whole in (path, (*SYS, *path)):
        with suppress(BadReply):
            read_command(Downlink(whole, payload), PK, DK, 60.0, nowhere)


def test_answers_have_the_id_of_their_command() -> None:
    asked = command(("service", "turn"), b'{"id":17,"params":{}}')
    assert json.loads(answer(asked, {"a": 1})) == {"id": "17", "code": 200, "data": {"a": 1}}
    refused = json.loads(answer(asked, None, 2001, "too hot"))
    assert refused == {"id": "17", "code": 2001, "message": "too hot", "data": {}}
    assert answer(command(("model", "down_raw"), b"\x01"), b"\x02") == b"\x02"


@pytest.mark.parametrize("data", [float("nan"), object(), {"a": b"x"}, "x" * 2000])
def test_answers_that_cannot_be_sent_are_refused(data: Any) -> None:
    with pytest.raises(BadInput):
        answer(command(("service", "turn"), b'{"id":1,"params":{}}'), data)


# --- the record ---------------------------------------------------------------------------------


def test_a_command_that_comes_again_is_known_and_another_is_not() -> None:
    record = Record()
    first = command(("service", "turn"), b'{"id":"1","params":{"a":1}}')
    record.add(first, 0.0)
    again = command(("service", "turn"), b'{"params":{"a":1},"id":"1"}')
    known = record.find(again, 30.0)
    assert known is not None
    assert known.answer is None  # it is being carried out
    record.answered(first, b"done")
    assert record.find(again, 31.0).answer == b"done"  # type: ignore[union-attr]
    assert record.find(command(("service", "turn"), b'{"id":"2","params":{"a":1}}'), 31.0) is None
    assert record.find(command(("service", "turn"), b'{"id":"1","params":{"a":2}}'), 31.0) is None
    assert record.find(again, RECORD_SECONDS + 1) is None


def test_equal_raw_commands_are_one_until_the_answer_is_confirmed() -> None:
    record = Record()
    raw = command(("model", "down_raw"), b"\x01")
    record.add(raw, 0.0)
    record.answered(raw, b"ok")
    assert record.find(command(("model", "down_raw"), b"\x01"), 1.0) is not None
    record.confirmed(raw)
    assert record.find(command(("model", "down_raw"), b"\x01"), 1.0) is None


def test_the_record_is_bounded() -> None:
    record = Record()
    many = [command(("service", "turn"), json_of(id=n, params={})) for n in range(1000)]
    for one in many:
        record.add(one, 0.0)
    assert record.find(many[0], 0.0) is None
    assert record.find(many[-1], 0.0) is not None
    assert len(record._known) == 128


# --- options ------------------------------------------------------------------------------------


def downlinks(*options: tuple[int, bytes]) -> list[Downlink]:
    cloud = EnosCloud(Device(PK, DK, SecretSigner(Secret("s" * 20))), Server("127.0.0.1"))
    stats = Stats(0, 0, 1, 1, 0, 0.0)
    return cloud.downlinks(Response("2.04", b"", options, stats))


def test_options_2100_and_2102_are_paired_in_order() -> None:
    assert downlinks() == []
    assert downlinks((2100, b"/topic/a"), (2102, b"1")) == [Downlink(("topic", "a"), b"1")]
    assert downlinks((2100, b"/topic/a")) == [Downlink(("topic", "a"), None)]
    assert downlinks(
        (2100, b"/topic/a"), (2100, b"/topic/b"), (2102, b"1"), (2102, b""), (12, b"2")
    ) == [Downlink(("topic", "a"), b"1"), Downlink(("topic", "b"), b"")]
    assert downlinks((2102, b"1")) == [Downlink((), b"1")]


@given(st.lists(st.tuples(st.sampled_from([2100, 2101, 2102]), st.binary(max_size=40)), max_size=6))
def test_no_options_crash(options: list[tuple[int, bytes]]) -> None:
    for downlink in downlinks(*options):
        with suppress(BadReply):
            read_command(downlink, PK, DK, 60.0, nowhere)
