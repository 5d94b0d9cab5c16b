"""Nonsense of every kind: there is always an answer or a counted drop, never a fault."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hil.cloud import (
    Behaviour,
    Cloud,
    Command,
    CommandState,
    Downlink,
    Limits,
    QueueFull,
    ThingModel,
)
from hil.cloud.records import Answer, Asked

from .wire import (
    ACK,
    CON,
    DK,
    NON,
    PK,
    SECRET,
    claim,
    connected,
    encode_options,
    header,
    read,
    topic,
)

HERE = ("127.0.0.1", 9)
TOPICS = [
    "thing/model/up_raw",
    "thing/measurepoint/post",
    "thing/event/e/post",
    "thing/attribute/update",
    "thing/attribute/query",
    "thing/attribute/delete",
    "thing/tag/update",
    "thing/tag/query",
    "thing/tag/delete",
    "thing/model/down_raw_reply",
    "thing/service/measurepoint/set_reply",
    "thing/service/x_reply",
]
MODEL = ThingModel(
    measurepoints={"a": "int", "b": "struct", "c": "enum", "d": "array"},
    attributes={"a": "string", "b": "bool", "c": "timestamp"},
    events={"e": {"a": "date"}},
)


@pytest.fixture(autouse=True)
def no_errors(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR] == []


def ask(cloud: Cloud, path: tuple[str, ...], payload: bytes, method: str = "POST") -> Answer:
    return cloud.judge(Asked(0.0, HERE, method, path, (), payload), Behaviour())


def online(**settings: Any) -> Cloud:
    cloud = Cloud({(PK, DK): SECRET}, clock=lambda: 0.0, **settings)
    assert ask(cloud, ("auth", PK, DK), claim()).code == "2.04"
    return cloud


# --- JSON

names = st.sampled_from(["a", "b", "c", "d", "value", "quality", "tagKey", "tagValue"]) | st.text()
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**600), 10**600)
    | st.floats()
    | st.text()
)
values = st.recursive(
    scalars, lambda v: st.lists(v, max_size=5) | st.dictionaries(names, v, max_size=5)
)
fields = ["attributes", "measurepoints", "events", "tags", "time", "id", "code", "params", "data"]
params = st.dictionaries(st.sampled_from(fields), values, max_size=4) | st.lists(
    st.dictionaries(names, values, max_size=3), max_size=4
)


def is_fine(answer: Answer) -> bool:
    return answer.code in ("2.04", "4.00", "4.01", "4.04", "4.13")


@given(st.sampled_from(TOPICS), params | values, st.sampled_from([None, MODEL]), scalars)
@settings(max_examples=400)
def test_json_by_chance(name: str, given: Any, model: ThingModel | None, identity: Any) -> None:
    cloud = online(model=model, limits=Limits(message_size=None))
    method = name.replace("/", ".")
    body = {"id": identity, "version": "1.0", "method": method, "params": given}
    if name.endswith("_reply"):
        body["code"] = given
    answer = ask(cloud, topic(name), json.dumps(body).encode())
    assert is_fine(answer)
    if answer.body_code is not None:
        assert json.loads(answer.payload)["code"] == answer.body_code
        if answer.body_code != 1220:
            assert json.loads(answer.payload)["id"] == identity
    assert cloud.counters.accepted == len(cloud.reports)


@given(st.sampled_from(TOPICS), st.binary(max_size=80))
def test_bytes_by_chance(name: str, payload: bytes) -> None:
    assert is_fine(ask(online(), topic(name), payload))


@given(
    st.sampled_from(TOPICS),
    st.sampled_from([b"[", b'{"a":', b'[{"a":', b'{"id":"1","params":[']),
    st.integers(1, 200_000),
)
@settings(max_examples=40, deadline=None)
def test_deep_nesting(name: str, opening: bytes, depth: int) -> None:
    cloud = online(limits=Limits(message_size=None, up_rate=None))
    assert is_fine(ask(cloud, topic(name), opening * depth))
    closed = b'{"id":"1","version":"1.0","params":' + b"[" * depth + b"]" * depth + b"}"
    assert is_fine(ask(cloud, topic(name), closed))


@given(st.sampled_from(TOPICS), st.text(alphabet="0123456789eE+-.", max_size=30))
def test_numbers_by_chance(name: str, number: str) -> None:
    method = name.replace("/", ".")
    body = f'{{"id":{number},"version":"1.0","method":"{method}","code":{number}}}'
    assert is_fine(ask(online(), topic(name), body.encode()))
    huge = f'{{"id":{"9" * 5000},"version":"1.0","method":"{method}","code":1}}'
    cloud = online(limits=Limits(message_size=None))
    assert is_fine(ask(cloud, topic(name), huge.encode()))


@given(st.lists(st.text() | st.sampled_from(["topic", "sys", PK, DK, "thing"]), max_size=9))
def test_paths_by_chance(path: list[str]) -> None:
    cloud = online()
    for method in ("GET", "POST", "PUT", "(unknown)"):
        assert ask(cloud, tuple(path), b"{}", method).code in ("4.00", "4.01", "4.04", "4.05")


# --- datagrams

options = st.lists(
    st.tuples(
        st.sampled_from([1, 3, 4, 6, 7, 11, 12, 15, 17, 23, 27, 28, 35, 60, 258, 2100, 2101])
        | st.integers(0, 65000),
        st.binary(max_size=20),
    ),
    max_size=6,
)
paths = st.sampled_from([("auth", PK, DK), *(topic(name) for name in TOPICS)])
requests = st.tuples(
    st.sampled_from([CON, 1]),
    st.integers(1, 31),
    st.binary(max_size=8),
    options,
    paths,
    st.binary(),
)


@given(st.lists(requests, max_size=12))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_requests_by_chance(given: list[tuple[Any, ...]]) -> None:
    asyncio.run(_all_are_answered(given))


async def _all_are_answered(given: list[tuple[Any, ...]]) -> None:
    async with Cloud({(PK, DK): SECRET}) as cloud, connected(cloud.address) as udp:
        for mid, (kind, code, token, extra, path, payload) in enumerate(given):
            encoded = encode_options([*((11, s.encode()) for s in path), *extra])
            body = b"\xff" + payload if payload else b""
            before = cloud.counters.unreadable
            udp.send(header(kind, code, mid, token) + encoded + body)
            udp.send(header(CON, 0, 0x8000 | mid))  # a ping: its RST comes behind the answer
            answer = read(await udp.receive())
            if answer.mid == 0x8000 | mid and answer.code == "0.00":
                if cloud.counters.unreadable == before:  # the answer was made after the RST
                    answer = read(await udp.receive())
                else:
                    continue
            else:
                await udp.receive()
            assert (answer.token, answer.kind) == (token, ACK if kind == CON else NON)
            assert answer.code != "5.00"
    faults = [r.verdict for r in cloud.requests if r.code == "5.00"]
    assert (faults, cloud.counters.received) == ([], 2 * len(given))


# --- the command queue


class Queue(RuleBasedStateMachine):
    """One device and its commands, by chance; the device is honest but forgetful."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.cloud = Cloud(
            {(PK, DK): SECRET}, clock=lambda: self.now, limits=Limits(lifetime=False)
        )
        ask(self.cloud, ("auth", PK, DK), claim())
        self.with_device: list[Command] = []
        self.commands: list[Command] = []
        self.taken: list[str] = []

    @rule(
        name=st.sampled_from(["down_raw", "set", "thing/service/x"]),
        length=st.sampled_from([1, 300]),
        pending=st.sampled_from([0.0, 50.0, 1000.0]),
        timeout=st.sampled_from([1.0, 30.0]),
        resend=st.integers(0, 2),
    )
    def send(self, name: str, length: int, pending: float, timeout: float, resend: int) -> None:
        raw, given = (bytes(length), None) if name == "down_raw" else (None, {"x": "y" * length})
        try:
            self.commands.append(
                self.cloud.send_command(
                    PK, DK, name, given, raw=raw, pending=pending, timeout=timeout, resend=resend
                )
            )
        except QueueFull:
            assert sum(not c.state.is_final for c in self.commands) == 50

    @rule(at_once=st.sampled_from([1, 1, 1, 3]), dialect=st.sampled_from(["2100+2102", "2100+get"]))
    def settings(self, at_once: int, dialect: Any) -> None:
        self.cloud.downlink = Downlink(dialect, at_once=at_once)

    @rule()
    def poll(self) -> None:
        before = [c.deliveries for c in self.commands]
        options = self.cloud.hand_over((PK, DK))
        pairs = [number for number, _ in options]
        assert pairs in ([], [2100]) or pairs == [2100, 2102] * (len(pairs) // 2)
        delivered = sum(c.deliveries for c in self.commands) - sum(before)
        assert delivered == pairs.count(2102) <= self.cloud.downlink.at_once

    @rule(name=st.sampled_from(["model/down_raw", "service/measurepoint/set", "service/x"]))
    def fetch(self, name: str) -> None:
        answer = ask(self.cloud, topic(f"thing/{name}"), b"", "GET")
        assert answer.code in ("2.05", "4.04")

    @precondition(lambda self: self.commands)
    @rule(data=st.data(), code=st.sampled_from([200, 200, 500]))
    def reply(self, data: st.DataObject, code: int) -> None:
        command = data.draw(st.sampled_from(self.commands[-5:]))
        body = json.dumps({"id": command.id, "code": code}).encode()
        answer = ask(self.cloud, topic(f"{command.topic}_reply"), body)
        assert answer.code == "2.04"

    @precondition(lambda self: self.commands)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        command = data.draw(st.sampled_from(self.commands[-5:]))
        state = command.state
        assert command.cancel() == (state is CommandState.CREATED)

    @rule(seconds=st.sampled_from([0.5, 5.0, 100.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def replies_are_taken_once(self) -> None:
        for command in self.commands:
            state = command.state
            ended = state in (CommandState.SUCCESS, CommandState.FAILED)
            assert len(command.replies) == ended
            finals = [s for _, s in command.history if s.is_final]
            assert finals == ([state] if state.is_final else [])
            times = [time for time, _ in command.history]
            assert times == sorted(times)
            assert command.deliveries or not (ended or state is CommandState.SENT)


Queue.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestQueue = Queue.TestCase
