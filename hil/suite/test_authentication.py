"""Authentication to EnOS: what is right is taken, what is wrong is told as what it is."""

from __future__ import annotations

import pytest

from hil.bench import Bench
from hil.cloud import Behaviour, Cloud
from nbiot.coap.exchange import Timing
from nbiot.errors import AuthRefused, BadInput, NoResponse, ServerFault
from nbiot.modem import Modem

pytestmark = [pytest.mark.hil, pytest.mark.asyncio, pytest.mark.needs("enos")]


async def test_good(modem: Modem, bench: Bench) -> None:
    """A device with its secret is authenticated"""
    result = await bench.authenticate(modem)
    assert result.code.startswith("2.")
    if bench.slot.server is None:
        cloud = await bench.cloud()
        assert [request.verdict for request in cloud.requests] == ["signature ok"]
        assert cloud.is_online(result.product_key, result.device_key)


async def test_native(modem: Modem, bench: Bench) -> None:
    """The modem's own CoAP client authenticates, too"""
    if not modem.profile.has_native_coap:
        pytest.skip(f"{bench.slot.name}: {modem.profile.title} has no CoAP client of its own")
    assert (await bench.authenticate(modem, path="native")).code.startswith("2.")


async def test_wrong_secret(modem: Modem, bench: Bench) -> None:
    """A wrong secret is refused, told in plain words, and not shown"""
    with pytest.raises(AuthRefused) as caught:
        await bench.authenticate(modem, secret="not-the-secret-of-this-device")
    assert caught.value.code.startswith("4.")
    assert "secret" in caught.value.hint
    assert "not-the-secret" not in str(caught.value)


async def test_wrong_product(modem: Modem, bench: Bench) -> None:
    """A product that EnOS does not know is refused"""
    with pytest.raises(AuthRefused) as caught:
        await bench.authenticate(modem, product_key="NoSuchProduct00")
    assert caught.value.code.startswith("4.")
    assert "NoSuchProduct00" in str(caught.value)


@pytest.mark.parametrize("lifetime", [30, 86400])
async def test_lifetime_bounds(modem: Modem, bench: Bench, lifetime: int) -> None:
    """The shortest and the longest lifetime are accepted, in seconds"""
    result = await bench.authenticate(modem, lifetime=lifetime)
    assert result.lifetime == lifetime
    if bench.slot.server is None:
        cloud = await bench.cloud()
        device = (result.product_key, result.device_key)
        await bench.later(lifetime - 5)
        assert cloud.is_online(*device), "EnOS takes the device for offline too early"
        await bench.later(10)
        assert not cloud.is_online(*device), "EnOS still takes the device for online"


@pytest.mark.parametrize("lifetime", [29, 86401, 0, -1])
async def test_beyond_the_bounds(modem: Modem, bench: Bench, lifetime: int) -> None:
    """A lifetime that EnOS does not allow is refused before anything is sent"""
    before = modem.counters.commands
    with pytest.raises(BadInput, match="lifetime"):
        await bench.device(modem, lifetime=lifetime)
    assert modem.counters.commands <= before + 1, "more than the IMEI was asked for"


async def test_nobody_answers(modem: Modem, bench: Bench) -> None:
    """A server that does not answer is told as that"""
    if not bench.emulated:
        pytest.skip(f"{bench.slot.name}: would take minutes with a real network")
    nobody, quick = await bench.dead_server(), Timing(ack_timeout=0.05, max_retransmit=2)
    with pytest.raises(NoResponse) as caught:
        await bench.authenticate(modem, server=nobody, timing=quick)
    assert caught.value.hint


@pytest.mark.needs("cloud")
async def test_a_server_in_trouble(modem: Modem, bench: Bench, cloud: Cloud) -> None:
    """A server that fails inside is told as that, and the next try works"""
    cloud.next(Behaviour(fault=True))
    with pytest.raises(ServerFault):
        await bench.authenticate(modem)
    await bench.authenticate(modem)


@pytest.mark.needs("cloud")
@pytest.mark.parametrize(
    "behaviour",
    [Behaviour(separate=True, slow=0.05), Behaviour(duplicate=True), Behaviour(slow=0.3)],
    ids=["separate answer", "answer twice", "slow answer"],
)
async def test_a_difficult_server(
    modem: Modem, bench: Bench, cloud: Cloud, behaviour: Behaviour
) -> None:
    """An answer that comes separately, twice, or slowly is understood"""
    cloud.next(behaviour)
    patient = Timing(ack_timeout=3.0, response_timeout=10.0)  # a host that stands still is not late
    assert (await bench.authenticate(modem, timing=patient)).retransmissions == 0
