"""An hour of use."""

from __future__ import annotations

import asyncio
from collections import deque

import pytest

from hil.bench import Bench
from hil.cloud import Command as SentCommand
from nbiot.enos import Command

pytestmark = [pytest.mark.hil, pytest.mark.asyncio, pytest.mark.needs("enos")]

PAUSE = 10.0  # s between two reports of a real modem


async def test_soak(bench: Bench, request: pytest.FixtureRequest) -> None:
    """Reports and commands for an hour (--soak SECONDS); each counts once"""
    seconds = request.config.getoption("--soak")
    if seconds is None:
        pytest.skip(f"{bench.slot.name}: takes an hour; ask for it by --soak 3600")
    bench.record.allow(seconds * 1.2 + 60.0)
    ran = 0

    async def turn(command: Command) -> dict[str, object]:
        nonlocal ran
        ran += 1
        return {"n": command.params["n"]}

    inside = bench.slot.server is None
    waiting: deque[SentCommand] = deque()  # not done yet: an hour's commands are too many to keep
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    done = sent = 0
    async with bench.supervised() as keeper, await bench.session(keeper) as session:
        session.handle("service", turn)
        device = session.enos.device
        who = (device.product_key, device.device_key)
        while loop.time() < end or not done:
            if inside and done % 3 == 0:
                cloud = await bench.cloud()
                waiting.append(cloud.send_command(*who, "thing/service/turn", {"n": done}))
                sent += 1
            await session.report({"hilSoak": done})
            await session.settled()
            done += 1
            while waiting and waiting[0].state.name == "SUCCESS":
                waiting.popleft()
            await asyncio.sleep(0.02 if bench.emulated else PAUSE)
        assert session.dropped.total() == 0, f"commands were dropped: {session.dropped}"
    numbers = {"reports": done, "commands": ran}
    request.node.user_properties.extend(numbers.items())
    if inside:
        assert cloud.counters.accepted == done
        states = {command.state.name for command in waiting}
        assert states <= {"SUCCESS"}, f"commands ended as {states}"
        assert ran == sent
