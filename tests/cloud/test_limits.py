"""The documented limits, each with its switch; sessions that get lost."""

from __future__ import annotations

import pytest

from hil.cloud import Cloud, Limits

from .conftest import Clock, Connect
from .wire import AUTH, DK, PK, SIZE1, UP_RAW, Talker, Udp, claim, request, topic

MAX_AGE = 14


def test_the_defaults() -> None:
    limits = Limits()
    assert (limits.message_size, limits.up_rate, limits.connections) == (1024, 10240, False)


@pytest.mark.parametrize("path", [UP_RAW, AUTH, topic("thing/service/x_reply")])
async def test_a_message_has_one_kilobyte(
    cloud: Cloud, device: Talker, path: tuple[str, ...]
) -> None:
    answer = await device.ask(path, bytes(1025))
    assert (answer.code, answer.option(SIZE1)) == ("4.13", [b"\x04\x00"])
    assert (await device.ask(path, bytes(1024))).code in ("2.04", "4.00")
    cloud.limits = Limits(message_size=None)
    assert (await device.ask(path, bytes(1025))).code in ("2.04", "4.00")


async def test_json_of_more_than_that_is_1008(cloud: Cloud, device: Talker) -> None:
    for length, code in ((1024, 1220), (1025, 1008)):
        answer = await device.ask(topic("thing/tag/query"), b"x" * length)
        assert (answer.code, answer.json["code"]) == ("2.04", code)
    cloud.limits = Limits(message_size=None)
    assert (await device.ask(topic("thing/tag/query"), b"x" * 1025)).json["code"] == 1220


async def test_ten_kilobytes_per_second(cloud: Cloud, device: Talker, clock: Clock) -> None:
    codes = [(await device.ask(UP_RAW, bytes(1024))).code for _ in range(11)]
    assert codes == ["2.04"] * 10 + ["4.29"]
    assert cloud.requests[-1].verdict == "more than 10240 bytes per second"
    assert (cloud.counters.accepted, cloud.counters.rejected) == (10, 1)
    clock.advance(0.1)
    codes = [(await device.ask(UP_RAW, bytes(1024))).code for _ in range(2)]
    assert codes == ["2.04", "4.29"]
    clock.advance(600)
    codes = [(await device.ask(UP_RAW, bytes(1024))).code for _ in range(11)]
    assert codes == ["2.04"] * 10 + ["4.29"]
    cloud.limits = Limits(up_rate=None)
    assert (await device.ask(UP_RAW, bytes(1024))).code == "2.04"


async def test_the_code_of_a_limit_can_be_chosen(cloud: Cloud, device: Talker) -> None:
    cloud.limits = Limits(up_rate=1)
    await device.ask(UP_RAW, b"x")
    answer = await device.ask(UP_RAW, b"x")
    assert (answer.code, answer.option(MAX_AGE)) == ("4.29", [b"\x01"])
    cloud.limits = Limits(up_rate=1, limited_code="4.03")
    answer = await device.ask(UP_RAW, b"x")
    assert (answer.code, answer.options) == ("4.03", ())


async def test_one_connection_per_second(cloud: Cloud, udp: Udp, clock: Clock) -> None:
    device = Talker(udp)
    cloud.limits = Limits(connections=True)
    assert (await device.ask()).code == "2.04"
    clock.advance(0.75)
    answer = await device.ask()
    assert (answer.code, answer.option(MAX_AGE)) == ("4.29", [b"\x01"])
    assert cloud.requests[-1].verdict == "too many connection requests: wait 0.25 s"
    clock.advance(1)
    assert (await device.ask()).code == "2.04"
    assert cloud.is_online(PK, DK)


async def test_four_connections_in_two_minutes(cloud: Cloud, udp: Udp, clock: Clock) -> None:
    device = Talker(udp)
    cloud.limits = Limits(connections=True)
    for payload, code in ((claim(), "2.04"), (claim(sign="wrong"), "4.01")) * 2:
        assert (await device.ask(AUTH, payload)).code == code
        clock.advance(29)
    answer = await device.ask()  # 116 s after the first
    assert (answer.code, answer.option(MAX_AGE)) == ("4.29", [(300).to_bytes(2)])
    assert (await device.ask(UP_RAW, b"x")).code == "2.04"  # the session is not touched
    for _ in range(3):  # refused ones do not prolong it
        clock.advance(99)
        assert (await device.ask()).code == "4.29"
    clock.advance(3)
    for _ in range(4):
        assert (await device.ask()).code == "2.04"
        clock.advance(40)
    assert (await device.ask()).code == "2.04"  # 160 s after the first of them


async def test_retransmissions_are_no_connections(cloud: Cloud, udp: Udp) -> None:
    cloud.limits = Limits(connections=True)
    assert len({await udp.ask(request(7)) for _ in range(9)}) == 1


async def test_a_strangers_requests_limit_nobody(cloud: Cloud, udp: Udp) -> None:
    device = Talker(udp)
    cloud.limits = Limits(connections=True)
    for _ in range(9):
        assert (await device.ask(("auth", PK, "nobody"))).code == "4.01"
    assert (await device.ask()).code == "2.04"


async def test_a_lifetime_may_be_ignored(cloud: Cloud, device: Talker, clock: Clock) -> None:
    clock.advance(3600)
    assert (await device.ask(UP_RAW, b"x")).code == "4.01"
    cloud.limits = Limits(lifetime=False)
    assert (await device.ask(UP_RAW, b"x")).code == "2.04"


async def test_the_source_may_be_ignored(cloud: Cloud, device: Talker, connect: Connect) -> None:
    other = Talker(await connect())
    assert (await other.ask(UP_RAW, b"x")).code == "4.01"
    cloud.limits = Limits(source_address=False)
    assert (await other.ask(UP_RAW, b"x")).code == "2.04"


async def test_identifiers_may_be_anything(cloud: Cloud, device: Talker) -> None:
    cloud.limits = Limits(identifiers=False)
    answer = await device.report("thing/attribute/update", {"attributes": {"ä b": 1, "": 2}})
    assert answer.json["code"] == 200
    answer = await device.report("thing/tag/update", [{"tagKey": "ä", "tagValue": "x"}])
    assert answer.json["code"] == 200


async def test_a_forgotten_address(cloud: Cloud, device: Talker) -> None:
    cloud.forget_address(PK, DK)
    assert (await device.ask(UP_RAW, b"x")).code == "4.01"
    assert cloud.requests[-1].verdict == "the session belongs to another address"
    assert cloud.is_online(PK, DK)
    await device.ask()
    assert (await device.ask(UP_RAW, b"x")).code == "2.04"


async def test_a_forgotten_session(cloud: Cloud, device: Talker) -> None:
    cloud.forget_session(PK, DK)
    cloud.forget_session(PK, "nobody")
    cloud.forget_address(PK, DK)
    assert (await device.ask(UP_RAW, b"x")).code == "4.01"
    assert cloud.requests[-1].verdict == "the device is not online"
    assert not cloud.is_online(PK, DK)
    assert cloud.is_activated(PK, DK)


async def test_any_message_keeps_the_device_online(cloud: Cloud, udp: Udp, clock: Clock) -> None:
    device = Talker(udp)
    await device.ask(AUTH, claim(30))
    for params, code in (({}, 200), ([1], 1220), ({}, 200)):
        clock.advance(20)
        assert (await device.report("thing/tag/query", params)).json["code"] == code
    clock.advance(29)
    assert cloud.is_online(PK, DK)
    clock.advance(1)
    assert not cloud.is_online(PK, DK)
