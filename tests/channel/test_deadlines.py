"""One timer serves the commands one after another, and each still has exactly its own time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from nbiot.channel import Channel
from nbiot.errors import CommandTimeout
from nbiot.link.memory import MemoryLink
from tests.virtualtime import run_virtual

from .modem import DIALECT, Modem, Plan, num, opened, put


def waited(done: Sequence[float], last: float) -> float:
    """How long a silent command of ``last`` s is waited for, after others that are answered."""

    async def main() -> float:
        modem = Modem(lambda line: Plan(delay=0.2, lost=line == "AT+NUM=99"))
        channel, _ = opened(modem)
        loop = asyncio.get_running_loop()
        with modem.running():
            for k, seconds in enumerate(done):
                await channel.run(num(k, seconds))
            began = loop.time()
            with pytest.raises(CommandTimeout):
                await channel.run(num(99, last))
            took = loop.time() - began
        await channel.close()
        return took

    return run_virtual(main())


@pytest.mark.parametrize(
    "done", [[], [110.0], [1.0], [0.3], [110.0, 0.3], [0.3, 110.0], [0.3] * 7, [1.0, 110.0, 2.0]]
)
@pytest.mark.parametrize("last", [0.5, 1.0, 100.0])
def test_a_silent_command_has_exactly_its_time(done: list[float], last: float) -> None:
    assert waited(done, last) == pytest.approx(last, abs=1e-6)


def test_the_timer_of_a_command_that_is_done_harms_nobody() -> None:
    async def main() -> None:
        modem = Modem(lambda _: Plan(delay=0.4))
        channel, _ = opened(modem)
        with modem.running():
            await channel.run(put(2, 1.0))
            await asyncio.sleep(0.5)
            assert (await channel.run(num(3, 1.0)))["n"] == 3  # over the end of the first timer
            await asyncio.sleep(10)  # the last timer goes off with nothing in flight
            assert (await channel.run(num(4, 1.0)))["n"] == 4
        await channel.close()

    run_virtual(main(), strict=True)


def test_after_the_last_timer_nothing_wakes_the_loop() -> None:
    async def main() -> None:
        modem = Modem()
        channel, _ = opened(modem)
        with modem.running():
            await channel.run(num(1, 1.0))
        await asyncio.sleep(2)
        timers = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]
        assert not [timer for timer in timers if not timer.cancelled()]
        await channel.close()

    run_virtual(main())


def test_closing_ends_the_timer() -> None:
    async def main() -> None:
        channel = Channel(MemoryLink(), DIALECT)
        running = asyncio.ensure_future(channel.run(num(1, 60.0)))
        await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait([running])
        await channel.close()
        timers = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]
        assert not [timer for timer in timers if not timer.cancelled()]

    run_virtual(main())
