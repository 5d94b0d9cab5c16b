"""The lifetime runs out, or EnOS forgets the device."""

from __future__ import annotations

import asyncio

import pytest

from hil.bench import Bench
from hil.cloud import Cloud
from nbiot.enos import EnosSession, SessionState
from nbiot.errors import AuthRefused
from nbiot.modem import Modem

pytestmark = [pytest.mark.hil(within=60), pytest.mark.asyncio, pytest.mark.needs("enos")]


async def test_the_lifetime_runs_out(modem: Modem, bench: Bench) -> None:
    """After the lifetime the device counts as offline, and authenticates before the next report"""
    async with await bench.session(modem, device={"lifetime": 30}) as session:
        await session.report({"n": 1})
        await bench.later(31.0)
        assert not session.is_online, "the lifetime ran out, and the session has not noticed"
        await session.report({"n": 2})
        assert session.authentications == 2
        if bench.slot.server is None:
            assert (await bench.cloud()).counters.rejected == 0, "a report came before it"


async def test_the_lifetime_begins_anew(modem: Modem, bench: Bench) -> None:
    """Each report makes the lifetime begin anew"""
    async with await bench.session(modem, device={"lifetime": 30}) as session:
        for n in range(3):
            await bench.later(20.0)
            await session.report({"n": n})
        assert session.authentications == 1


async def test_kept_online(modem: Modem, bench: Bench) -> None:
    """A session that is to stay online sends something within each lifetime"""
    async with await bench.session(modem, device={"lifetime": 60}, keep_online=True) as session:
        for _ in range(6):
            await bench.later(20.0)
            for _ in range(10 if bench.emulated else 0):  # what is sent takes its time
                await asyncio.sleep(0.01)
            assert session.is_online, "the lifetime ran out"


@pytest.mark.needs("cloud")
@pytest.mark.parametrize("forget", ["forget_session", "forget_address"])
async def test_enos_forgets(session: EnosSession, cloud: Cloud, forget: str) -> None:
    """When EnOS does not know the device any more, it authenticates; the report counts once"""
    device = session.enos.device
    getattr(cloud, forget)(device.product_key, device.device_key)
    await session.report({"n": 1})
    assert cloud.counters.accepted == 1
    assert session.authentications == 2


@pytest.mark.needs("cloud")
async def test_refused_anew(session: EnosSession, cloud: Cloud) -> None:
    """A device that is refused anew is told so, once, and comes back when it is allowed again"""
    device = session.enos.device
    who = (device.product_key, device.device_key)
    right = cloud.devices[who].secret
    cloud.devices[who].secret = "another-secret-than-before"
    cloud.forget_session(*who)
    with pytest.raises(AuthRefused):
        await session.report({"n": 1})
    assert session.authentications == 2
    assert session.state is SessionState.OFFLINE
    cloud.devices[who].secret = right
    await session.report({"n": 2})
    assert cloud.counters.accepted == 1
