"""Commands: how they ride on answers, in which order, and what becomes of them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

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

from .conftest import Clock, Connect
from .wire import (
    AUTH,
    DK,
    DOWN_RAW_PATH,
    GET,
    PK,
    SECRET,
    UP_RAW,
    Answer,
    Talker,
    Udp,
    claim,
    connected,
    read,
    request,
    topic,
)

CREATED, CANCELLED, EXPIRED, SENT, SUCCESS, FAILED, TIMED_OUT = CommandState
SET, SERVICE = "thing/service/measurepoint/set", "thing/service/reboot"
BY_GET = Downlink(dialect="2100+get")


def raw(cloud: Cloud, payload: bytes = b"\x02", **settings: Any) -> Command:
    return cloud.send_command(PK, DK, "down_raw", raw=payload, **settings)


def service(cloud: Cloud, **settings: Any) -> Command:
    return cloud.send_command(PK, DK, SERVICE, {"n": 1}, **settings)


async def poll(device: Talker) -> Answer:
    return await device.ask(UP_RAW, b"\x01")


async def reply(device: Talker, name: str, body: Any) -> Answer:
    payload = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await device.ask(topic(f"{name}_reply"), payload)


# --- the four kinds


async def test_down_raw(cloud: Cloud, device: Talker) -> None:
    command = raw(cloud, b"\x02\x00\x00\x00\x14")
    assert command.state is CREATED
    answer = await poll(device)
    assert answer.commands == [(DOWN_RAW_PATH, b"\x02\x00\x00\x00\x14")]
    assert (command.state, command.deliveries) == (SENT, 1)
    assert (await poll(device)).commands == []
    answer = await reply(device, "thing/model/down_raw", b"\x02\x00")
    assert (answer.code, answer.payload, answer.commands) == ("2.04", b"", [])
    assert command.state is SUCCESS
    assert [r.payload for r in command.replies] == [b"\x02\x00"]
    assert (cloud.counters.deliveries, cloud.counters.replies) == (1, 1)


@pytest.mark.parametrize(
    ("name", "given", "path", "method", "params"),
    [
        ("set", {"temperature": 30.5}, SET, "thing.service.measurepoint.set", None),
        ("get", ["power"], f"{SET[:-3]}get", "thing.service.measurepoint.get", None),
        ("get", None, f"{SET[:-3]}get", "thing.service.measurepoint.get", []),
        (SERVICE, {"Power": "on"}, SERVICE, "thing.service.reboot", None),
        ("thing.service.reboot", None, SERVICE, "thing.service.reboot", {}),
        ("thing.service.a.b-c_d", {}, "thing/service/a.b-c_d", "thing.service.a.b-c_d", None),
        (f"/topic/sys/{PK}/{DK}/{SET}", {"x": 1}, SET, "thing.service.measurepoint.set", None),
        (f"/sys/{PK}/{DK}/{SERVICE}", {}, SERVICE, "thing.service.reboot", None),
    ],
)
async def test_json_commands(
    cloud: Cloud, device: Talker, name: str, given: Any, path: str, method: str, params: Any
) -> None:
    command = cloud.send_command(PK, DK, name, given)
    ((at, payload),) = (await poll(device)).commands
    assert at == f"/topic/sys/{PK}/{DK}/{path}"
    body = json.loads(payload)
    expected = given if params is None else params
    assert body == {"id": command.id, "version": "1.0", "method": method, "params": expected}
    good = {"id": command.id, "code": 200, "message": "ok", "data": {"y": 2}}
    assert (await reply(device, path, good)).code == "2.04"
    assert command.state is SUCCESS
    assert (command.replies[0].code, command.replies[0].data) == (200, {"y": 2})


@pytest.mark.parametrize("name", ["down", "thing/service/", "thing/service/a b", "up_raw", ""])
def test_other_topics_are_no_commands(name: str) -> None:
    with pytest.raises(ValueError, match="no topic or method"):
        Cloud({(PK, DK): "s"}).send_command(PK, DK, name)


def test_what_the_api_refuses() -> None:
    cloud = Cloud({(PK, DK): "s"}, model=ThingModel(services={"reboot": {}}))
    with pytest.raises(KeyError):
        cloud.send_command(PK, "other", "set")
    with pytest.raises(ValueError, match="raw"):
        cloud.send_command(PK, DK, "down_raw", {"x": 1})
    with pytest.raises(ValueError, match="no service 'fly'"):
        cloud.send_command(PK, DK, "thing/service/fly")
    for times in ({"timeout": 0.9}, {"timeout": 61}, {"pending": -1}, {"pending": 172801}):
        with pytest.raises(ValueError, match="outside"):
            cloud.send_command(PK, DK, "set", **times)
    assert cloud.commands(PK, DK) == []
    cloud.limits = Limits(command_times=False)
    assert cloud.send_command(PK, DK, "set", timeout=0.01).state is CREATED


# --- when and on what


async def test_the_answer_to_auth_carries_commands(cloud: Cloud, udp: Udp) -> None:
    command = raw(cloud)
    answer = await Talker(udp).ask()
    assert (answer.code, answer.commands) == ("2.04", [(DOWN_RAW_PATH, b"\x02")])
    assert command.state is SENT


async def test_unless_that_is_switched_off(cloud: Cloud, udp: Udp) -> None:
    cloud.downlink = Downlink(on_auth=False)
    command, device = raw(cloud), Talker(udp)
    assert (await device.ask()).commands == []
    assert command.state is CREATED
    assert (await poll(device)).commands != []


async def test_refusals_carry_none(cloud: Cloud, device: Talker, connect: Connect) -> None:
    command = raw(cloud)
    stranger = Talker(await connect())
    assert (await stranger.ask(UP_RAW, b"x")).code == "4.01"
    assert (await stranger.ask(AUTH, claim(sign="wrong"))).options == ()
    assert (await device.ask(topic("nothing"), b"x")).options == ()
    cloud.next(Behaviour(code="5.00"))
    assert (await device.ask(UP_RAW, b"x")).options == ()
    assert (command.state, command.deliveries) == (CREATED, 0)


async def test_a_refused_report_in_json_carries_them(cloud: Cloud, device: Talker) -> None:
    raw(cloud)
    answer = await device.report("thing/tag/update", "nonsense")
    assert (answer.json["code"], len(answer.commands)) == (1220, 1)


async def test_one_at_a_time_in_order(cloud: Cloud, device: Talker) -> None:
    first, second, third = service(cloud), raw(cloud), service(cloud)
    assert [json.loads(p)["id"] for _, p in (await poll(device)).commands] == [first.id]
    assert (await poll(device)).commands == []
    answer = await reply(device, SERVICE, {"id": first.id, "code": 200})
    assert answer.commands == [(DOWN_RAW_PATH, b"\x02")]
    answer = await reply(device, "thing/model/down_raw", b"")
    assert [json.loads(p)["id"] for _, p in answer.commands] == [third.id]
    answer = await reply(device, SERVICE, {"id": third.id, "code": 200})
    assert answer.commands == []
    assert [c.state for c in cloud.commands(PK, DK)] == [SUCCESS] * 3
    assert [c.deliveries for c in (first, second, third)] == [1, 1, 1]


async def test_a_retransmission_gets_the_same_command_again(cloud: Cloud, udp: Udp) -> None:
    await Talker(udp).ask()
    first, second = raw(cloud, b"1"), raw(cloud, b"2")
    answers = {await udp.ask(request(900, UP_RAW, b"x")) for _ in range(5)}
    assert len(answers) == 1
    assert read(answers.pop()).commands == [(DOWN_RAW_PATH, b"1")]
    assert (first.deliveries, second.deliveries, cloud.counters.accepted) == (1, 0, 1)
    assert (cloud.counters.duplicates, cloud.counters.answered_again) == (4, 4)


async def test_several_pairs_in_one_answer(cloud: Cloud, device: Talker) -> None:
    cloud.downlink = Downlink(at_once=3)
    sent = [raw(cloud, b"1"), service(cloud), raw(cloud, b"3"), raw(cloud, b"4")]
    answer = await poll(device)
    assert [n for n, _ in answer.options] == [2100] * 3 + [2102] * 3
    assert [path for path, _ in answer.commands] == [c.path for c in sent[:3]]
    assert [payload for _, payload in answer.commands] == [c.payload for c in sent[:3]]
    answer = await reply(device, SERVICE, {"id": sent[1].id, "code": 200})
    assert [payload for _, payload in answer.commands] == [b"4"]
    for _ in range(3):
        await reply(device, "thing/model/down_raw", b"")
    assert [c.state for c in sent] == [SUCCESS] * 4


async def test_fifty_are_cached(cloud: Cloud, device: Talker) -> None:
    commands = [raw(cloud) for _ in range(50)]
    with pytest.raises(QueueFull, match="11902"):
        raw(cloud)
    await poll(device)
    with pytest.raises(QueueFull):
        raw(cloud)
    await reply(device, "thing/model/down_raw", b"")
    raw(cloud)
    assert commands[0].state is SUCCESS


async def test_the_rate_holds_commands_back(cloud: Cloud, device: Talker, clock: Clock) -> None:
    cloud.limits = Limits(down_rate=100)
    cloud.downlink = Downlink(at_once=5)
    for _ in range(3):
        raw(cloud, bytes(60))
    assert len((await poll(device)).commands) == 1
    assert len((await poll(device)).commands) == 0
    clock.advance(0.5)
    assert len((await poll(device)).commands) == 1
    clock.advance(10)
    assert len((await poll(device)).commands) == 1


# --- by GET


async def test_by_get(cloud: Cloud, device: Talker, clock: Clock) -> None:
    cloud.downlink = BY_GET
    command = raw(cloud, b"\x05")
    for _ in range(2):  # announced until it is fetched
        answer = await poll(device)
        assert answer.options == ((2100, DOWN_RAW_PATH.encode()),)
        assert (command.state, command.deliveries) == (CREATED, 0)
    clock.advance(100)
    answer = await device.ask(topic("thing/model/down_raw"), b"", code=GET)
    assert (answer.code, answer.payload, answer.options) == ("2.05", b"\x05", ())
    assert (command.state, command.deliveries, command.announced) == (SENT, 1, 2)
    assert (await poll(device)).options == ()
    clock.advance(29)
    assert (await reply(device, "thing/model/down_raw", b"ok")).code == "2.04"
    assert command.state is SUCCESS
    answer = await device.ask(topic("thing/model/down_raw"), b"", code=GET)
    assert (answer.code, command.deliveries) == ("4.04", 1)


async def test_a_get_repeated_gets_the_payload_again(cloud: Cloud, device: Talker) -> None:
    cloud.downlink = BY_GET
    command = service(cloud)
    await poll(device)
    payloads = [(await device.ask(topic(SERVICE), b"", code=GET)).payload for _ in range(2)]
    assert payloads == [command.payload] * 2
    assert command.deliveries == 2


async def test_the_answer_to_a_get_may_announce_the_next(cloud: Cloud, device: Talker) -> None:
    cloud.downlink = Downlink(dialect="2100+get", at_once=2)
    first, second = raw(cloud, b"1"), raw(cloud, b"2")
    await poll(device)
    answer = await device.ask(topic("thing/model/down_raw"), b"", code=GET)
    assert (answer.payload, answer.options) == (b"1", ((2100, DOWN_RAW_PATH.encode()),))
    answer = await device.ask(topic("thing/model/down_raw"), b"", code=GET)
    assert (answer.payload, answer.options) == (b"2", ())
    assert [first.deliveries, second.deliveries] == [1, 1]


async def test_nothing_is_to_be_fetched_which_was_not_announced(
    cloud: Cloud, device: Talker
) -> None:
    raw(cloud)
    await poll(device)  # handed over in 2102
    assert (await device.ask(topic("thing/model/down_raw"), b"", code=GET)).code == "4.04"
    assert (await device.ask(topic("thing/model/down_raw"), b"x")).code == "4.05"
    assert (await device.ask(topic(SERVICE), b"", code=GET)).code == "4.04"


async def test_a_long_command_is_handed_over_by_get(cloud: Cloud, device: Talker) -> None:
    short, long = raw(cloud, bytes(255)), raw(cloud, bytes(range(250)) * 12)
    assert (await poll(device)).commands == [(DOWN_RAW_PATH, short.payload)]
    answer = await reply(device, "thing/model/down_raw", b"")
    assert answer.options == ((2100, DOWN_RAW_PATH.encode()),)
    payload = b""
    while len(payload) < 3000:  # three blocks
        number = len(payload) // 1024
        options = [(23, bytes([number << 4 | 6]))] if number else []
        part = await device.ask(topic("thing/model/down_raw"), b"", code=GET, options=options)
        assert part.code == "2.05"
        payload += part.payload
    assert payload == long.payload
    assert long.deliveries == 1
    cloud.downlink = Downlink(option_max=4000)
    await reply(device, "thing/model/down_raw", b"")
    raw(cloud, bytes(4000))
    assert (await poll(device)).commands == [(DOWN_RAW_PATH, bytes(4000))]


# --- times


async def test_pending(cloud: Cloud, device: Talker, clock: Clock) -> None:
    early, late = raw(cloud, pending=10), raw(cloud, pending=20)
    clock.advance(10)
    assert (early.state, late.state) == (EXPIRED, CREATED)
    assert early.history == [(1000.0, CREATED), (1010.0, EXPIRED)]
    assert len((await poll(device)).commands) == 1
    assert (early.deliveries, late.deliveries) == (0, 1)
    clock.advance(15)
    assert late.state is SENT  # what was sent does not expire


async def test_a_command_in_the_queue_expires_behind_one_that_waits(
    cloud: Cloud, device: Talker, clock: Clock
) -> None:
    first, second = raw(cloud, timeout=60), raw(cloud, pending=30)
    await poll(device)
    clock.advance(30)
    assert (await reply(device, "thing/model/down_raw", b"")).commands == []
    assert (first.state, second.state) == (SUCCESS, EXPIRED)


async def test_an_instant_command_needs_an_open_request(cloud: Cloud, device: Talker) -> None:
    assert raw(cloud, pending=0).state is EXPIRED
    cloud.next(Behaviour(slow=0.05))
    asking = asyncio.create_task(poll(device))
    while len(cloud.requests) < 2:
        await asyncio.sleep(0.005)
    instant, second = raw(cloud, b"now", pending=0), raw(cloud, pending=0)
    assert (instant.state, second.state) == (CREATED, CREATED)
    assert (await asking).commands == [(DOWN_RAW_PATH, b"now")]
    assert (instant.state, second.state) == (SENT, EXPIRED)


async def test_a_reply_may_take_its_time(cloud: Cloud, device: Talker, clock: Clock) -> None:
    command = raw(cloud, timeout=10)
    await poll(device)
    clock.advance(9.9)
    assert command.state is SENT
    clock.advance(0.1)
    assert command.state is TIMED_OUT
    assert command.history[-1] == (1010.0, TIMED_OUT)
    following = raw(cloud, b"next")
    answer = await reply(device, "thing/model/down_raw", b"late")
    assert answer.commands == [(DOWN_RAW_PATH, b"next")]
    assert (command.state, command.replies) == (TIMED_OUT, [])
    assert [r.payload for r in command.ignored] == [b"late"]
    assert (cloud.counters.stray_replies, following.state) == (1, SENT)


async def test_a_command_is_sent_again_before_the_next(
    cloud: Cloud, device: Talker, clock: Clock
) -> None:
    first, second = service(cloud, timeout=5, resend=2), raw(cloud)
    for deliveries in (1, 2, 3):
        assert [path for path, _ in (await poll(device)).commands] == [first.path]
        assert (first.deliveries, first.state) == (deliveries, SENT)
        clock.advance(5)
    assert (await poll(device)).commands == [(DOWN_RAW_PATH, b"\x02")]
    assert (first.state, second.state) == (TIMED_OUT, SENT)
    assert [state for _, state in first.history] == [CREATED, SENT, SENT, SENT, TIMED_OUT]


async def test_a_reply_before_it_is_sent_again_is_good(
    cloud: Cloud, device: Talker, clock: Clock
) -> None:
    command = service(cloud, timeout=5, resend=1)
    await poll(device)
    clock.advance(6)
    body = {"id": command.id, "code": 200}
    assert (await reply(device, SERVICE, body)).commands == []
    assert (command.state, command.deliveries, len(command.replies)) == (SUCCESS, 1, 1)


async def test_a_command_to_be_sent_again_expires_too(
    cloud: Cloud, device: Talker, clock: Clock
) -> None:
    command = raw(cloud, timeout=5, pending=20, resend=1)
    await poll(device)
    clock.advance(25)
    assert command.state is TIMED_OUT
    assert (await poll(device)).commands == []


async def test_by_get_it_is_announced_and_fetched_again(
    cloud: Cloud, device: Talker, clock: Clock
) -> None:
    cloud.downlink = BY_GET
    command = service(cloud, timeout=5, resend=1)
    for deliveries in (1, 2):
        assert (await poll(device)).options == ((2100, command.path.encode()),)
        await device.ask(topic(SERVICE), b"", code=GET)
        assert command.deliveries == deliveries
        clock.advance(5)
    assert command.state is TIMED_OUT


async def test_cancel(cloud: Cloud, device: Talker) -> None:
    first, second = raw(cloud), raw(cloud)
    assert second.cancel()
    assert not second.cancel()
    await poll(device)
    assert not first.cancel()
    assert (await reply(device, "thing/model/down_raw", b"")).commands == []
    assert (first.state, second.state) == (SUCCESS, CANCELLED)


async def test_done_waits_for_the_reply(cloud: Cloud, device: Talker) -> None:
    command = raw(cloud)
    waiting = asyncio.create_task(command.done(5))
    await poll(device)
    await reply(device, "thing/model/down_raw", b"")
    assert await waiting is SUCCESS
    assert await command.done() is SUCCESS


async def test_done_sees_the_clock(cloud: Cloud, clock: Clock) -> None:
    waiting = asyncio.create_task(raw(cloud, pending=60).done(5))
    await asyncio.sleep(0)
    clock.advance(60)
    assert await waiting is EXPIRED


async def test_done_gives_up(cloud: Cloud) -> None:
    command = raw(cloud)
    with pytest.raises(TimeoutError):
        await command.done(0.03)
    assert command.state is CREATED


# --- replies


@pytest.mark.parametrize("code", [0, 201, 400, 2000, -1])
async def test_another_code_means_failure(cloud: Cloud, device: Talker, code: int) -> None:
    command = service(cloud, resend=3)
    await poll(device)
    assert (await reply(device, SERVICE, {"id": command.id, "code": code})).code == "2.04"
    assert (command.state, command.replies[0].code) == (FAILED, code)
    assert (await poll(device)).commands == []  # only a time-out sends it again


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"ok",
        b"\xff",
        b"[]",
        b'{"code":200}',
        b'{"id":"1"}',
        b'{"id":null,"code":200}',
        b'{"id":true,"code":200}',
        b'{"id":1.5,"code":200}',
        b'{"id":"1","code":"200"}',
        b'{"id":"1","code":true}',
        b'{"id":"1","code":NaN}',
    ],
)
async def test_a_bad_reply_is_refused(cloud: Cloud, device: Talker, body: bytes) -> None:
    command = service(cloud)
    await poll(device)
    assert (await reply(device, SERVICE, body)).code == "4.00"
    assert (command.id, command.state) == ("1", SENT)


async def test_the_id_may_be_a_number(cloud: Cloud, device: Talker) -> None:
    command = service(cloud)
    await poll(device)
    await reply(device, SERVICE, {"id": 1, "code": 200})
    assert command.state is SUCCESS


async def test_a_second_reply_is_ignored(cloud: Cloud, device: Talker) -> None:
    command = service(cloud)
    await poll(device)
    for code in (200, 500):
        assert (await reply(device, SERVICE, {"id": command.id, "code": code})).code == "2.04"
    assert (command.state, len(command.replies), len(command.ignored)) == (SUCCESS, 1, 1)
    assert "finished" in cloud.requests[-1].verdict
    assert (cloud.counters.replies, cloud.counters.stray_replies) == (1, 1)


async def test_a_reply_to_nothing(cloud: Cloud, device: Talker) -> None:
    waiting = service(cloud, pending=100)
    cloud.downlink = Downlink(at_once=0)
    for body in ({"id": waiting.id, "code": 200}, {"id": "77", "code": 200}):
        assert (await reply(device, SERVICE, body)).code == "2.04"
        assert cloud.requests[-1].verdict == "a reply to no command that was sent"
    assert (await reply(device, "thing/model/down_raw", b"")).code == "2.04"
    assert (waiting.state, waiting.replies) == (CREATED, [])
    assert cloud.counters.stray_replies == 3


async def test_a_reply_on_the_topic_of_another_kind(cloud: Cloud, device: Talker) -> None:
    command = service(cloud)
    await poll(device)
    assert (await reply(device, SET, {"id": command.id, "code": 200})).code == "4.00"
    assert command.state is SENT


async def test_a_reply_needs_a_session(cloud: Cloud, device: Talker) -> None:
    command = service(cloud)
    await poll(device)
    cloud.forget_session(PK, DK)
    assert (await reply(device, SERVICE, {"id": command.id, "code": 200})).code == "4.01"
    await device.ask()
    assert (await reply(device, SERVICE, {"id": command.id, "code": 200})).code == "2.04"
    assert command.state is SUCCESS


async def test_devices_do_not_see_each_others_commands() -> None:
    other = "another"
    devices = {(PK, DK): SECRET, (PK, other): "x"}
    async with Cloud(devices) as cloud, connected(cloud.address) as udp:
        mine, theirs = raw(cloud), cloud.send_command(PK, other, "set", {})
        assert (await Talker(udp).ask()).commands == [(mine.path, b"\x02")]
        assert theirs.state is CREATED


async def test_options_of_a_behaviour_come_besides(cloud: Cloud, device: Talker) -> None:
    raw(cloud)
    cloud.next(Behaviour(options=[(2100, b"/topic/x"), (2102, b"\x09")]))
    answer = await poll(device)
    assert answer.commands == [("/topic/x", b"\x09"), (DOWN_RAW_PATH, b"\x02")]


async def test_a_slow_answer_carries_what_came_meanwhile(cloud: Cloud, device: Talker) -> None:
    cloud.next(Behaviour(separate=True, slow=0.05))
    asking = asyncio.create_task(poll(device))
    await asyncio.sleep(0.02)
    command = raw(cloud)
    answer = await asking
    assert (answer.kind, len(answer.commands), command.state) == (0, 1, SENT)


def test_a_command_shows_no_payload() -> None:
    cloud = Cloud({(PK, DK): "s"})
    assert "hidden" not in repr(cloud.send_command(PK, DK, "set", {"password": "hidden"}))
