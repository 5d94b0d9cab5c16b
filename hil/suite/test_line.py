"""The serial line: late answers, results that never come, lines in between."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hil.bench import Bench
from nbiot.at import Command, Shape
from nbiot.errors import CommandTimeout
from nbiot.modem import Modem

pytestmark = [pytest.mark.hil, pytest.mark.asyncio]

CSQ = Command(b"AT+CSQ", Shape("+CSQ: <rssi:int>,<ber:int>"), 1, 1, seconds=0.2)
emulator = pytest.mark.needs("emulator")


@emulator
@pytest.mark.parametrize("what", ["late-answer", "late-final"])
async def test_a_late_answer(bench: Bench, what: str) -> None:
    """An answer that comes too late is never taken for the next command's"""
    fault = f"{what}:delay={0.5 * bench.speed:g},on=CSQ,at=1,count=1"
    async with bench.open(attach=False, fault=fault, attached=True) as modem:
        network = bench.pty.modem.network
        with pytest.raises(CommandTimeout):
            await modem.channel.run(CSQ)
        network.signal = replace(network.signal, total=network.signal.total - 200)
        later = await modem.channel.run(replace(CSQ, seconds=2.0))
        truth = await modem.channel.run(replace(CSQ, seconds=2.0))
        assert later["rssi"] == truth["rssi"], "the late answer was taken for the next command's"
        assert bench.pty.modem.faults.log, "the emulator did no harm: this check checked nothing"


@emulator
async def test_an_answer_that_never_comes(bench: Bench) -> None:
    """An answer that never comes ends in an error in time, and the next command works"""
    fault = "no-answer:on=CSQ,at=1,count=1"
    async with bench.open(attach=False, fault=fault, attached=True) as modem:
        with pytest.raises(CommandTimeout):
            await modem.channel.run(CSQ)
        assert await modem.imei() == bench.pty.modem.options.imei
        assert (await modem.signal()).rssi is not None


@emulator
@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_urcs_and_ragged_reads(bench: Bench, seed: int) -> None:
    """URCs between any two lines, and reads of a few bytes, change no answer"""
    async with bench.open(chunk_seed=seed, urc_seed=seed, urc_rate=0.5) as modem:
        for _ in range(5):
            assert await modem.imei() == bench.pty.modem.options.imei
        assert bench.pty.modem.injected_urcs


async def test_many_commands(modem: Modem) -> None:
    """A hundred commands in a row have the right answers"""
    imei = await modem.imei()
    for _ in range(50):
        assert await modem.imei() == imei
        assert await modem.profile.connected()
