"""Who the modem says it is."""

from __future__ import annotations

import pytest

from hil.bench import Bench
from nbiot.errors import CommandRefused
from nbiot.modem import Modem

pytestmark = [pytest.mark.hil, pytest.mark.asyncio]


async def test_the_modem_says_who_it_is(bench: Bench) -> None:
    """Model and firmware are told"""
    async with bench.open(attach=False) as modem:
        assert modem.identity.model not in ("", "unknown"), "the modem tells no model"
        assert modem.identity.firmware not in ("", "unknown"), "the modem tells no firmware"
        wanted = bench.slot.modem
        assert wanted in ("auto", modem.profile.name), f"the rig file says {wanted}"


async def test_the_imei_is_one(bench: Bench) -> None:
    """The IMEI has 15 digits, and is the same each time"""
    async with bench.open(attach=False) as modem:
        imei = await modem.imei()
        assert len(imei) == 15, f"{imei} is no IMEI"
        assert imei.isdecimal(), f"{imei} is no IMEI"
        assert await modem.imei() == imei
        if bench.emulated:
            assert imei == bench.pty.modem.options.imei


async def test_the_sim_says_who_it_is(modem: Modem) -> None:
    """IMSI and ICCID are told"""
    assert 14 <= len(await modem.profile.imsi()) <= 15
    assert 18 <= len(await modem.profile.iccid()) <= 20


async def test_the_signal_is_plausible(modem: Modem) -> None:
    """The signal's figures are plausible"""
    signal = await modem.signal()
    assert signal.rssi is not None or signal.rsrp is not None, "an attached modem hears no cell"
    for dbm in (signal.rssi, signal.rsrp):
        assert dbm is None or -150 <= dbm <= -20, f"{dbm} dBm"
    assert signal.ecl in (None, 0, 1, 2)


async def test_what_does_not_exist_is_refused(modem: Modem) -> None:
    """A command that does not exist is refused, and the next one is not hurt"""
    from nbiot.at import Command

    with pytest.raises(CommandRefused):
        await modem.channel.run(Command(b"AT+NONSENSE=1"))
    assert len(await modem.imei()) == 15
