"""From no power to an IP address."""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Address

import pytest

from hil.bench import Bench
from nbiot.at import Command
from nbiot.errors import CommandTimeout, ModemSilent

pytestmark = [pytest.mark.hil(within=60), pytest.mark.asyncio]


@pytest.mark.needs("power")
async def test_without_power_there_is_no_modem(bench: Bench) -> None:
    """A modem whose power is gone is told as silent, and is in use again when it is back"""
    power = await bench.power()
    async with bench.open(attach=False) as modem:
        await power.off()
        try:
            with pytest.raises((CommandTimeout, ModemSilent)) as caught:
                await modem.channel.run(Command(b"AT", seconds=0.2))
            assert caught.value.hint, "the error does not say what to try"
        finally:
            await power.on()
    async with bench.open():
        pass


@pytest.mark.needs("power")
async def test_from_power_on_to_an_address(bench: Bench) -> None:
    """From power-on to an IP address, the boot banner included"""
    power = await bench.power(attached=False)
    await power.off()
    await asyncio.sleep(0.05 if bench.emulated else 5.0)
    await power.on()
    async with bench.open() as modem:
        assert IPv4Address(await modem.profile.address() or "0.0.0.0") != IPv4Address(0)


@pytest.mark.needs("emulator")
@pytest.mark.parametrize(
    "junk", [b"\x00\xff\x00", b"AT+CSQ", b"\xfe" * 40], ids=["noise", "half a command", "a lot"]
)
async def test_junk_in_the_line_buffer(bench: Bench, junk: bytes) -> None:
    """Junk that a dead host left in the modem's line buffer does no harm"""
    async with bench.open(stale_input=junk) as modem:
        assert await modem.imei() == bench.pty.modem.options.imei


async def test_restart_by_command(bench: Bench) -> None:
    """The modem restarts by command and attaches again"""
    async with bench.open() as modem:
        before = modem.channel.reboots
        await modem.profile.reboot()
        assert modem.channel.reboots == before + 1, "the restart was not noticed"
        await modem.attach(bench.slot.apn, timeout=20.0 if bench.emulated else 300.0)
