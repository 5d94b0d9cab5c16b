"""The REST client against the stand-in, over HTTP on loopback."""

from __future__ import annotations

import asyncio
import logging
import time

import pytest

from hil.enos_rest import Fault, RestStandIn
from nbiot.errors import BadInput, RestError
from nbiot.signing import Secret
from nbiot.station.rest import TRIES, EnosRest, NewDevice
from tests.station.rest.conftest import client

PK, IMEI = "KV315idW", "866971030000017"


async def test_registers_a_device_and_gets_its_secret(cloud: RestStandIn) -> None:
    async with client(cloud) as rest:
        secret = await rest.register(PK, IMEI, "meter 17")
        found = await rest.device(PK, IMEI)
    device = cloud.devices[PK, IMEI]
    assert secret == Secret(device.secret) == found.secret
    assert (device.name, device.timezone) == ("meter 17", "+08:00")
    assert (found.status, found.active_time, found.name) == ("inactive", None, "meter 17")


async def test_what_exists_already_is_not_an_error(cloud: RestStandIn) -> None:
    async with client(cloud) as rest:
        first = await rest.register(PK, IMEI, "meter 17")
        assert await rest.register(PK, IMEI, "meter 17") == first
    assert cloud.done["create"] == 1


async def test_an_answer_that_was_lost_registers_nothing_twice(cloud: RestStandIn) -> None:
    cloud.faults.append(Fault("create", lost=True))
    async with client(cloud) as rest:
        secret = await rest.register(PK, IMEI, "meter 17")
    assert secret == Secret(cloud.devices[PK, IMEI].secret)
    assert cloud.requests["create"] == 2
    assert cloud.done["create"] == 1


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_tries_again_what_may_pass(cloud: RestStandIn, status: int) -> None:
    cloud.faults.append(Fault("create", status=status, times=TRIES - 1))
    async with client(cloud) as rest:
        await rest.register(PK, IMEI, "meter 17")
    assert cloud.requests["create"] == TRIES


async def test_gives_up_and_says_why(cloud: RestStandIn) -> None:
    cloud.faults.append(Fault("create", status=503, times=100))
    async with client(cloud) as rest:
        with pytest.raises(RestError, match="not available") as caught:
            await rest.register(PK, IMEI, "meter 17")
    assert caught.value.code == 503
    assert cloud.requests["create"] == TRIES


async def test_a_slow_cloud_is_not_waited_for_for_ever(cloud: RestStandIn) -> None:
    cloud.faults.append(Fault("create", delay=30.0, times=100))
    async with client(cloud, timeout=0.3) as rest:
        with pytest.raises(RestError, match=r"does not answer within 0\.3 s"):
            await rest.register(PK, IMEI, "meter 17")


async def test_what_is_refused_for_good_is_not_tried_again(cloud: RestStandIn) -> None:
    async with client(cloud) as rest:
        with pytest.raises(RestError, match="99400") as caught:
            await rest.register("unknownProduct", IMEI, "meter 17")
    assert caught.value.code == 99400
    assert "product key" in caught.value.hint
    assert cloud.requests["create"] == 1


async def test_a_full_product_is_said_so() -> None:
    async with RestStandIn(most_devices=0) as cloud, client(cloud) as rest:
        with pytest.raises(RestError, match="as many devices as it may") as caught:
            await rest.register(PK, IMEI, "meter 17")
    assert caught.value.code == 11739


async def test_a_disabled_device_is_not_given_out(cloud: RestStandIn) -> None:
    async with client(cloud) as rest:
        await rest.register(PK, IMEI, "meter 17")
        cloud.devices[PK, IMEI].status = "disabled"
        with pytest.raises(RestError, match="is disabled"):
            await rest.register(PK, IMEI, "meter 17")


# --- many ---------------------------------------------------------------------------------------


async def test_registers_many_with_the_failure_of_one_its_own(
    cloud: RestStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nbiot.station.rest.BATCH_MOST", 100)
    devices = [NewDevice(PK, f"{866971030000000 + n}", f"meter {n}") for n in range(150)]
    devices[3] = NewDevice("unknownProduct", "866971030000003", "meter 3")
    async with client(cloud) as rest:
        await rest.register(PK, devices[7].device_key, "meter 7")
        done = await rest.register_all(devices)
    assert cloud.requests["batchCreate"] == 2
    assert [result.device for result in done] == devices
    assert [n for n, result in enumerate(done) if result.secret is None] == [3]
    assert "productKey is unknown" in str(done[3].error)
    for result in done:
        if result.secret is not None:
            key = result.device.product_key, result.device.device_key
            assert result.secret == Secret(cloud.devices[key].secret)


async def test_finds_all_devices_of_a_product_page_by_page(cloud: RestStandIn) -> None:
    async with client(cloud) as rest:
        await rest.register_all([NewDevice(PK, f"key-{n}", f"meter {n}") for n in range(5)])
        found = [device.device_key async for device in rest.search(f"productKey='{PK}'", page=2)]
    assert found == [f"key-{n}" for n in range(5)]
    assert cloud.requests["search"] == 3


async def test_knows_a_product(cloud: RestStandIn) -> None:
    async with client(cloud) as rest:
        product = await rest.product(PK)
    assert (product.name, product.data_format, product.dynamic_activation) == (
        "meter",
        "Json",
        False,
    )


# --- tokens -------------------------------------------------------------------------------------


async def test_one_token_serves_all_calls_at_the_same_time(cloud: RestStandIn) -> None:
    async with client(cloud) as rest:
        await asyncio.gather(*(rest.register(PK, f"key-{n}", "meter") for n in range(8)))
    assert cloud.requests["token"] == 1


async def test_a_token_that_was_revoked_is_replaced(cloud: RestStandIn) -> None:
    async with client(cloud) as rest:
        await rest.register(PK, IMEI, "meter 17")
        cloud.forget_tokens()
        await rest.device(PK, IMEI)
    assert cloud.requests["token"] == 2


async def test_a_token_is_refreshed_before_it_ends() -> None:
    async with RestStandIn(token_seconds=30) as cloud, client(cloud) as rest:
        await rest.register(PK, IMEI, "meter 17")
        await rest.device(PK, IMEI)  # refreshes: less than a minute is left
        await rest.device(PK, IMEI)
        assert cloud.requests["token"] == 2


async def test_two_stations_with_one_key_in_the_same_millisecond(cloud: RestStandIn) -> None:
    at = time.time()
    async with client(cloud, clock=lambda: at) as one, client(cloud, clock=lambda: at) as other:
        await one.register(PK, "key-1", "meter")
        await other.register(PK, "key-2", "meter")
    assert cloud.requests["token"] > 2  # 1001: repeated encryption


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"access_key": "5c1d0000-0000-0000-0000-000000000000"}, 1002, "access key is unknown"),
        ({"secret_key": Secret("wrong")}, 1003, "signature is wrong"),
        ({"org_id": "o1"}, 403, "may not do this"),
        ({"version": "v9.9"}, 404, "no such interface"),
    ],
)
async def test_wrong_settings_are_named(
    cloud: RestStandIn, changes: dict[str, object], code: int, words: str
) -> None:
    async with client(cloud, **changes) as rest:
        with pytest.raises(RestError, match=words) as caught:
            await rest.register(PK, IMEI, "meter 17")
    assert caught.value.code == code
    assert caught.value.hint


async def test_a_wrong_clock_is_named() -> None:
    async with RestStandIn(clock_off=3600) as cloud, client(cloud) as rest:
        with pytest.raises(RestError, match=r"clock is 3(600|599|601) s behind") as caught:
            await rest.check()
    assert "timedatectl" in caught.value.hint


async def test_encrypted_secrets_are_refused_with_the_way_out(cloud: RestStandIn) -> None:
    async with client(cloud, version="v2.4") as rest:
        with pytest.raises(RestError, match=r"encrypted") as caught:
            await rest.register(PK, IMEI, "meter 17")
    assert "v2.1" in caught.value.hint


async def test_nobody_there() -> None:
    async with RestStandIn() as cloud:
        pass
    async with client(cloud) as rest:
        with pytest.raises(RestError, match="cannot be asked") as caught:
            await rest.check()
    assert caught.value.code == 0


# --- secrets and input ----------------------------------------------------------------------------


async def test_no_secret_in_logs_or_errors(
    cloud: RestStandIn, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with client(cloud) as rest:
        secret = await rest.register(PK, IMEI, "meter 17")
        cloud.forget_tokens()
        cloud.faults.append(Fault("get", status=500, times=100))
        with pytest.raises(RestError) as caught:
            await rest.device(PK, IMEI)
    seen = caplog.text + repr(caught.value) + repr(rest.__dict__)
    assert secret.reveal() not in seen
    assert cloud.secret_key not in seen


@pytest.mark.parametrize(
    "address",
    [
        "http://apim.example",  # the secret of each device would go in plain text
        "https://user:pass@apim.example",
        "https://apim.example/path",
        "https://apim.example:99999",
        "apim.example",
        "",
    ],
)
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(BadInput, match="REST address") as caught:
        EnosRest(address, "o1", "ak", Secret("sk"))
    assert "pass" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "device"),
    [
        ("productKey", ("!", IMEI, "n")),
        ("deviceKey", (PK, "a b", "n")),
        ("device name", (PK, IMEI, " ")),
        ("timezone", (PK, IMEI, "n", "08:00")),
    ],
)
async def test_bad_input_is_refused_before_enos_is_asked(
    cloud: RestStandIn, field: str, device: tuple[str, ...]
) -> None:
    async with client(cloud) as rest:
        with pytest.raises(BadInput, match=field):
            await rest.register(*device)
    assert not cloud.requests


async def test_a_cancelled_call_leaves_the_client_usable(cloud: RestStandIn) -> None:
    cloud.faults.append(Fault("token", delay=0.5))
    async with client(cloud) as rest:
        call = asyncio.create_task(rest.register(PK, IMEI, "meter 17"))
        while not cloud.requests["token"]:
            await asyncio.sleep(0.01)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await rest.register(PK, IMEI, "meter 17")
