"""An hour of use."""

from __future__ import annotations

import asyncio

import pytest

from hil.bench import Bench
from nbiot.enos import Command

pytestmark = [pytest.mark.hil, pytest.mark.asyncio, pytest.mark.needs("enos")]

PAUSE = 10.0  # s between two reports of a real modem


async def test_soak(bench: Bench, request: pytest.FixtureRequest) -> None:
    """Reports and commands for an hour (--soak SECONDS); each counts once"""
    seconds = request.config.getoption("--soak")
    if seconds is None:
        pytest.skip(f"{bench.slot.name}: takes an hour; ask for it by --soak 3600")
    bench.record.allow(seconds * 1.2 + 60.0)
    runs: list[object] = []

    async def turn(command: Command) -> dict[str, object]:
        runs.append(command.params)
        return {"n": command.params["n"]}

    inside = bench.slot.server is None
    commands = []
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    done = 0
    async with bench.supervised() as keeper, await bench.session(keeper) as session:
        session.handle("service", turn)
        device = session.enos.device
        who = (device.product_key, device.device_key)
        while loop.time() < end or not done:
            if inside and done % 3 == 0:
                cloud = await bench.cloud()
                commands.append(cloud.send_command(*who, "thing/service/turn", {"n": done}))
            await session.report({"hilSoak": done})
            await session.settled()
            done += 1
            await asyncio.sleep(0.02 if bench.emulated else PAUSE)
        assert session.dropped.total() == 0, f"commands were dropped: {session.dropped}"
    if inside:
        assert cloud.counters.accepted == done
        states = {command.state.name for command in commands}
        assert states == {"SUCCESS"}, f"commands ended as {states}"
        assert len(runs) == len(commands)
