"""Sleeping and waking up."""

from __future__ import annotations

from typing import Any

import pytest

from hil.bench import Bench
from nbiot.errors import Unsupported

# Not faster than that, or it sleeps before the driver expects it to.
SLEEPER: dict[str, Any] = {"sleep": True, "speed": 10.0, "attached": True}

pytestmark = [pytest.mark.hil(within=60), pytest.mark.asyncio]


async def test_sleep_and_wake(bench: Bench) -> None:
    """A modem that was allowed to sleep is woken before the next command"""
    conditions = SLEEPER if bench.emulated else {}
    async with bench.open(**conditions) as modem:
        try:
            await modem.profile.allow_sleep()
        except Unsupported as error:
            pytest.skip(f"{bench.slot.name}: {error.message}")
        await bench.later(15.0)
        await modem.profile.wake()
        assert len(await modem.imei()) == 15
        if bench.emulated:
            assert bench.pty.modem.counters.lost_lines, "it did not sleep: nothing was checked"


@pytest.mark.needs("enos")
async def test_a_report_after_a_sleep(bench: Bench) -> None:
    """A report after a sleep arrives; the device authenticates first, its address may be new"""
    conditions = SLEEPER if bench.emulated else {}
    async with bench.open(**conditions) as modem, await bench.session(modem) as session:
        try:
            await modem.profile.allow_sleep()
        except Unsupported as error:
            pytest.skip(f"{bench.slot.name}: {error.message}")
        await session.report({"n": 1})
        await bench.later(15.0)
        await session.report({"n": 2})
        assert session.authentications == 2
