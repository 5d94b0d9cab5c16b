"""A datagram is lost, at each step."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from hil.bench import Bench, until
from hil.cloud import Impairment
from nbiot.coap.exchange import Timing
from nbiot.enos import Command
from nbiot.errors import NoResponse

pytestmark = [pytest.mark.hil, pytest.mark.asyncio, pytest.mark.needs("cloud")]

STEPS = ("authentication", "report", "answer to a command")


class Loser:
    """Loses datagram ``number`` of one direction."""

    def __init__(self, way: Literal["up", "down"], number: int) -> None:
        self.way, self.number = way, number
        self.seen = 0

    def __call__(self, way: str, _: bytes) -> bool:
        if way != self.way:
            return False
        self.seen += 1
        return self.seen == self.number


@pytest.mark.parametrize("way", ["up", "down"])
@pytest.mark.parametrize("step", [1, 2, 3], ids=STEPS)
async def test_lost(bench: Bench, step: int, way: Any) -> None:
    """A datagram that is lost is sent again; everything counts once"""
    runs = 0

    async def turn(_: Command) -> dict[str, bool]:
        nonlocal runs
        runs += 1
        return {"done": True}

    loser = Loser(way, step)
    async with bench.open(lose=loser) as modem, await bench.session(modem) as session:
        cloud = await bench.cloud()
        session.handle("service", turn)
        device = session.enos.device
        command = cloud.send_command(
            device.product_key, device.device_key, "thing/service/turn", {}
        )
        await session.report({"n": step})
        await session.settled()
        assert loser.seen > step, "nothing was sent again"
        assert cloud.counters.accepted == 1, "the report does not count once"
        assert command.state.name == "SUCCESS"
        assert runs == 1, f"the command was carried out {runs} times"
        assert cloud.counters.mid_reused == 0


async def test_a_bad_network(bench: Bench) -> None:
    """With a fifth of all datagrams lost, doubled or overtaken, each report counts once"""
    async with bench.open() as modem:
        patient = Timing(ack_timeout=0.1, max_retransmit=12, backoff=1.2, response_timeout=5.0)
        async with await bench.session(modem, timing=patient) as session:
            cloud = await bench.cloud()
            cloud.impair = Impairment(loss=0.2, duplicate=0.2, reorder=0.2, delay=0.05, seed=7)
            for n in range(8):
                await session.report({"n": n})
            counted = [report.params for report in cloud.reports]
            values = [found["measurepoints"]["n"] for found in counted]
            assert values == list(range(8)), f"the reports counted are {values}"


async def test_a_silent_server(bench: Bench) -> None:
    """A report without any answer ends in an error, which says that EnOS may have it"""
    async with bench.open() as modem:
        quick = Timing(ack_timeout=0.2, max_retransmit=1)
        async with await bench.session(modem, timing=quick) as session:
            cloud = await bench.cloud()
            modem_side = bench.pty.modem.network
            modem_side.lose = lambda way, _: way == "down"
            with pytest.raises(NoResponse):
                await session.report({"t": 1})
            modem_side.lose = None
            assert await until(5.0, lambda: cloud.counters.accepted == 1)
            await session.report({"t": 2})
            assert cloud.counters.accepted == 2
