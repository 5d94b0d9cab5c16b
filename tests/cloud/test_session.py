"""Who is online, for how long, and what an uplink is told."""

from __future__ import annotations

import aiocoap  # type: ignore[import-untyped, unused-ignore]
import pytest

from hil.cloud import Behaviour, Cloud

from .conftest import Ask, Clock, Connect
from .wire import ACK, AUTH, CHANGED, DK, PK, UP_RAW, Udp, claim, header, request

UNAUTHORIZED = 4 << 5 | 1


@pytest.mark.parametrize("lifetime", [30, 3600, 86400])
async def test_online_lasts_as_long_as_asked_for(
    cloud: Cloud, ask: Ask, clock: Clock, lifetime: int
) -> None:
    await ask(payload=claim(lifetime))
    clock.advance(lifetime - 0.1)
    assert cloud.is_online(PK, DK)
    clock.advance(0.1)
    assert not cloud.is_online(PK, DK)
    assert cloud.is_activated(PK, DK)


async def test_an_uplink_needs_a_session(cloud: Cloud, ask: Ask) -> None:
    assert (await ask(UP_RAW, b"\x01")).code == aiocoap.UNAUTHORIZED
    assert cloud.requests[-1].verdict == "the device is not online"
    await ask()
    assert (await ask(UP_RAW, b"\x01")).code == aiocoap.CHANGED
    assert cloud.requests[-1].payload == b"\x01"


async def test_an_uplink_prolongs_the_session(cloud: Cloud, ask: Ask, clock: Clock) -> None:
    await ask(payload=claim(30))
    for _ in range(3):
        clock.advance(29)
        assert (await ask(UP_RAW, b"\x01")).code == aiocoap.CHANGED
    clock.advance(30)
    assert (await ask(UP_RAW, b"\x01")).code == aiocoap.UNAUTHORIZED
    assert (await ask(payload=claim(30))).code == aiocoap.CHANGED
    assert (await ask(UP_RAW, b"\x01")).code == aiocoap.CHANGED


async def test_a_refused_request_neither_ends_nor_prolongs_it(
    cloud: Cloud, ask: Ask, clock: Clock
) -> None:
    await ask(payload=claim(30))
    clock.advance(20)
    await ask(payload=claim(sign="wrong"))
    await ask(("nowhere",))
    cloud.next(Behaviour(code="5.00"))
    await ask(UP_RAW, b"\x01")
    assert cloud.is_online(PK, DK)
    clock.advance(10)
    assert not cloud.is_online(PK, DK)


async def test_a_session_belongs_to_its_source_address(cloud: Cloud, connect: Connect) -> None:
    here, elsewhere = await connect(), await connect()
    await here.ask(request(1))
    answer = await elsewhere.ask(request(2, UP_RAW, b"\x01"))
    assert answer == header(ACK, UNAUTHORIZED, 2, b"\xa1\xb2")
    assert cloud.requests[-1].verdict == "the session belongs to another address"
    assert (await here.ask(request(3, UP_RAW, b"\x01")))[1] == CHANGED
    await elsewhere.ask(request(4))
    assert (await elsewhere.ask(request(5, UP_RAW, b"\x01")))[1] == CHANGED
    assert (await here.ask(request(6, UP_RAW, b"\x01")))[1] == UNAUTHORIZED


async def test_a_disabled_device_goes_offline(cloud: Cloud, ask: Ask) -> None:
    await ask()
    cloud.devices[PK, DK].enabled = False
    assert not cloud.is_online(PK, DK)
    assert (await ask(UP_RAW, b"\x01")).code == aiocoap.FORBIDDEN


async def test_an_unknown_device_has_no_uplink(cloud: Cloud, ask: Ask) -> None:
    path = tuple("nobody" if segment == DK else segment for segment in UP_RAW)
    assert (await ask(path, b"\x01")).code == aiocoap.UNAUTHORIZED
    assert not cloud.is_online(PK, "nobody")


async def test_a_retransmitted_auth_is_handled_once(cloud: Cloud, udp: Udp, clock: Clock) -> None:
    first = await udp.ask(request(7, AUTH, claim(30)))
    clock.advance(10)
    assert await udp.ask(request(7, AUTH, claim(30))) == first
    assert len(cloud.requests) == 1
    clock.advance(20)
    assert not cloud.is_online(PK, DK)
