"""Joining the network, and being refused."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from hil.bench import Bench
from nbiot.errors import NotRegistered

pytestmark = [pytest.mark.hil, pytest.mark.asyncio]


async def test_attach(bench: Bench) -> None:
    """The network gives an IP address; steps are told in order"""
    async with bench.open(attach=False, attached=False) as modem:
        wait = 20.0 if bench.emulated else 300.0
        address = await modem.attach(bench.slot.apn, timeout=wait)
        assert IPv4Address(address) != IPv4Address(0)
        registration = await modem.profile.registration()
        assert registration.registered
        told = [step.step for step in bench.record.steps]
        order = [told.index(step) for step in ("radio", "sim", "registered", "address")]
        assert order == sorted(order), f"steps came in the order {told}"
        if bench.emulated:
            assert address == bench.pty.modem.radio.address


async def test_attach_again(bench: Bench) -> None:
    """A second attach changes nothing"""
    async with bench.open() as modem:
        first = await modem.profile.address()
        assert await modem.attach(bench.slot.apn, timeout=20.0) == first
        assert modem.channel.reboots == 0


@pytest.mark.needs("emulator")
async def test_rejected(bench: Bench) -> None:
    """A network that refuses the SIM is told with its cause"""
    async with bench.open(attach=False, attached=False, stat="denied", reject_cause=11) as modem:
        with pytest.raises(NotRegistered, match=r"EMM cause 11"):
            await modem.attach(timeout=1.2)


@pytest.mark.needs("emulator")
async def test_no_coverage(bench: Bench) -> None:
    """No coverage is told as that, and not as an address"""
    async with bench.open(attach=False, attached=False, stat="none") as modem:
        with pytest.raises(NotRegistered):
            await modem.attach(timeout=0.3)


@pytest.mark.needs("emulator")
async def test_slow_attach(bench: Bench) -> None:
    """An attach that takes its time is waited for"""
    async with bench.open(attached=False, attach_delay=30.0) as modem:
        assert await modem.profile.connected()


@pytest.mark.needs("emulator")
async def test_the_network_is_lost_and_comes_back(bench: Bench) -> None:
    """A lost network is joined again"""
    async with bench.supervised() as keeper:
        await keeper.call(lambda modem: modem.imei())
        network = bench.pty.modem.network
        network.change("none")
        assert await until_not_ready(keeper), "the loss was not noticed"
        network.change(1)
        assert await keeper.call(lambda modem: modem.profile.connected(), repeat=True)


async def until_not_ready(keeper: object) -> bool:
    from hil.bench import until
    from nbiot.supervisor import State

    return await until(10.0, lambda: getattr(keeper, "state", None) is not State.READY)
