"""Conversations over a bad network, and a day of sleep and wake, in virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hil.cloud import Cloud
from nbiot.enos import AuthLimit, Device, EnosSession, Server, SessionState
from nbiot.signing import Secret, SecretSigner
from tests.virtualtime import run_virtual

from .conftest import MODELS
from .conversation import DK, PK, SECRET, converse, faults_of, memory_modem

MESSAGES = 150  # `python -m tests.e2e.conversation --messages 10000` for more


@pytest.mark.parametrize("model", MODELS)
def test_each_report_is_accepted_once_and_each_command_carried_out_once(model: str) -> None:
    told = run_virtual(converse(model, MESSAGES))
    assert faults_of(told, MESSAGES) == []
    assert told.counters.lost > MESSAGES / 4  # the network was as bad as it should be
    assert told.counters.duplicates > MESSAGES / 10
    assert len(told.executed) > MESSAGES / 5


HOUR = 3600.0


async def a_day(
    model: str, lifetime: int, *, sleeps: bool = False, hours: int = 24, **options: Any
) -> tuple[Any, Any, int]:
    """A report an hour; the network's NAT forgets the device every second hour."""
    loop = asyncio.get_running_loop()
    states: list[Any] = []
    async with (
        Cloud({(PK, DK): SECRET}, clock=loop.time) as cloud,
        memory_modem(model, sleep=sleeps, speed=1.0) as (modem, _),
    ):
        if sleeps:
            await modem.profile.allow_sleep()
        device = Device(PK, DK, SecretSigner(Secret(SECRET)), lifetime)
        server = Server(cloud.host, cloud.port)
        async with EnosSession(
            modem,
            device,
            server,
            limit=AuthLimit(clock=loop.time),
            on_state=states.append,
            **options,
        ) as enos:
            online = 0
            for hour in range(hours):
                await asyncio.sleep(HOUR)
                online += cloud.is_online(PK, DK)
                if hour % 2:
                    cloud.forget_address(PK, DK)
                await enos.report({"hour": hour})
    assert cloud.counters.accepted >= hours
    return cloud, states, online


def authentications(cloud: Any) -> int:
    return sum(request.path[0] == "auth" for request in cloud.requests)


def test_a_day_of_sleep_and_wake() -> None:
    cloud, states, _ = run_virtual(a_day("bc66", 86400, sleeps=True))
    assert cloud.counters.accepted == 24
    assert authentications(cloud) == 25  # one after each sleep: the address may be another one
    reasons = [change.reason for change in states if change.state is SessionState.OFFLINE]
    assert reasons == ["the modem may have slept"] * 24


@pytest.mark.parametrize("model", MODELS)
def test_a_day_awake_with_a_nat_that_forgets(model: str) -> None:
    cloud, _, online = run_virtual(a_day(model, 86400))
    assert cloud.counters.accepted == 24
    assert authentications(cloud) == 1 + 12  # only when the server says 4.01
    assert online == 24


def test_a_lifetime_shorter_than_the_pauses_is_no_surprise() -> None:
    cloud, states, online = run_virtual(a_day("bc66", 1800))
    assert cloud.counters.accepted == 24
    assert authentications(cloud) == 25
    assert online == 0
    assert "silent for the whole lifetime" in {change.reason for change in states}


@pytest.mark.parametrize(("lifetime", "hours"), [(30, 2), (1800, 24)])
def test_a_device_that_must_stay_online_does(lifetime: int, hours: int) -> None:
    cloud, states, online = run_virtual(a_day("bc95-g", lifetime, hours=hours, keep_online=True))
    assert online == hours
    assert [c for c in states if c.reason == "silent for the whole lifetime"] == []
    # Not more often than needed: once in three quarters of the lifetime, and the 4.01.
    assert len(cloud.requests) <= hours * HOUR / (0.75 * lifetime) + 2.5 * hours
