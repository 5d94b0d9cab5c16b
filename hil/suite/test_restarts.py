"""The modem restarts by itself, at each step."""

from __future__ import annotations

import asyncio

import pytest

from hil.bench import Bench
from nbiot.errors import ModemRebooted
from nbiot.profile import Progress

pytestmark = [pytest.mark.hil(within=60), pytest.mark.asyncio, pytest.mark.needs("reset")]

STEPS = ("modem", "radio", "sim", "registered", "address", "sent", "authenticated")


@pytest.mark.needs("emulator", "cloud")
@pytest.mark.parametrize("at", STEPS)
async def test_restart_at_a_step(bench: Bench, at: str) -> None:
    """A restart on the way to EnOS is noticed, and the device gets there all the same"""
    restarted: list[str] = []
    tell = bench.record.report

    def watch(step: Progress) -> None:
        tell(step)
        if step.step == at and not restarted:
            restarted.append(at)
            asyncio.get_running_loop().call_soon(bench.pty.modem.reboot)

    bench.record.report = watch
    async with bench.supervised() as keeper, await bench.session(keeper) as session:
        if not restarted:  # a session tells of "authenticated" by its state
            restarted.append(at)
            bench.pty.modem.reboot()
        await session.attributes()  # repeated, because it does no harm
        await session.report({"step": 1})
        assert restarted, f"there was no step {at!r}"
        cloud = await bench.cloud()
        assert cloud.counters.accepted >= 2
        device = session.enos.device
        assert cloud.is_online(device.product_key, device.device_key)


async def test_restart_while_a_command_runs(bench: Bench) -> None:
    """A restart during a dialogue is told as that, never as success"""
    async with bench.open() as modem, await modem.udp("127.0.0.1", 9) as socket:
        waiting = asyncio.create_task(socket.receive(5.0 if bench.emulated else 60.0))
        await asyncio.sleep(0.05)
        await bench.restart()
        with pytest.raises(ModemRebooted):
            await waiting


@pytest.mark.needs("emulator", "cloud")
async def test_restart_between_reports(bench: Bench) -> None:
    """After a restart between two reports the device authenticates anew before the next one"""
    async with bench.supervised() as keeper, await bench.session(keeper) as session:
        cloud = await bench.cloud()
        await session.report({"n": 1})
        await bench.restart()
        await asyncio.sleep(0.05)
        await session.attributes()
        await session.report({"n": 2})
        values = [r.params["measurepoints"]["n"] for r in cloud.reports if "measure" in r.topic]
        assert values == [1, 2]
        assert session.authentications == 2
        assert cloud.counters.rejected <= 1


@pytest.mark.needs("power", "emulator")
async def test_power_fails(bench: Bench) -> None:
    """A modem that loses its power and gets it back is in use again"""
    power = await bench.power()
    async with bench.supervised() as keeper:
        await keeper.call(lambda modem: modem.imei())
        await power.off()
        await asyncio.sleep(0.1)
        await power.on()
        assert len(await keeper.call(lambda modem: modem.imei(), repeat=True)) == 15
