"""What /auth answers, asked by libcoap's client and by aiocoap's."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import aiocoap  # type: ignore[import-untyped, unused-ignore]
import pytest

from hil.cloud import Behaviour, Cloud, Device, Request, sign
from tests.peers.libcoap import coap_client, requires_libcoap

from .conftest import Ask, Clock
from .wire import AUTH, DK, PK, SECRET, UP_RAW, VECTORS, Udp, claim

REFUSED = [
    (b"", "4.00", "the payload is empty"),
    (b"not JSON", "4.00", "the payload is not JSON"),
    (b"\xff\xfe", "4.00", "the payload is not JSON"),
    (b"[" * 900, "4.00", "the payload is not JSON"),
    (b"[1, 2]", "4.00", "the payload is not a JSON object"),
    (claim(secureMode=None), "4.00", "secureMode is missing"),
    (b'{"secureMode":2,"sign":"x"}', "4.00", "lifetime is missing"),
    (b'{"secureMode":2,"lifetime":"30","sign":"x"}', "4.00", "lifetime is not an integer"),
    (b'{"secureMode":2,"lifetime":30.0,"sign":"x"}', "4.00", "lifetime is not an integer"),
    (claim(sign=None), "4.00", "sign is missing"),
    (claim(secureMode="2"), "4.00", "secureMode is not an integer"),
    (claim(secureMode=True), "4.00", "secureMode is not an integer"),
    (claim(sign=7), "4.00", "sign is not a string"),
    (claim(29), "4.00", "lifetime 29 is outside 30..86400"),
    (claim(86401), "4.00", "lifetime 86401 is outside 30..86400"),
    (claim(sign=VECTORS[30]), "4.01", "signature differs"),
    (claim(sign=""), "4.01", "signature differs"),
    (claim(secureMode=1), "4.01", "secureMode 1 is not 2"),
    (claim(sign=VECTORS[3600].lower()), "4.01", "signature is right, but not in uppercase"),
]


def uri(cloud: Cloud, path: tuple[str, ...] = AUTH) -> str:
    return f"coap://{cloud.host}:{cloud.port}/{'/'.join(path)}"


@pytest.mark.parametrize(("lifetime", "digest"), VECTORS.items())
def test_sign_gives_the_derived_vectors(lifetime: int, digest: str) -> None:
    assert sign(PK, DK, SECRET, lifetime) == digest


@requires_libcoap
@pytest.mark.parametrize("lifetime", VECTORS)
async def test_libcoap_authenticates(cloud: Cloud, lifetime: int) -> None:
    answer = await coap_client("post", uri(cloud), claim(lifetime))
    assert (answer.code, answer.payload) == ("2.04", b"")
    assert [(m.direction, m.type) for m in answer.messages] == [
        ("sent", "CON"),
        ("received", "ACK"),
    ]
    assert cloud.requests[-1].verdict == "signature ok"


@pytest.mark.parametrize("lifetime", VECTORS)
async def test_aiocoap_authenticates(cloud: Cloud, ask: Ask, lifetime: int) -> None:
    assert not cloud.is_activated(PK, DK)
    answer = await ask(payload=claim(lifetime))
    assert (answer.code, answer.payload) == (aiocoap.CHANGED, b"")
    assert cloud.is_activated(PK, DK)
    assert cloud.is_online(PK, DK)


async def test_the_derived_datagram_is_answered_to_the_byte(udp: Udp) -> None:
    head = "44021234a1b2c3d4b461757468084b563331356964570a7450625a4743646d6145ff"
    datagram = bytes.fromhex(head) + claim(3600)
    assert len(datagram) == 140
    assert (await udp.ask(datagram)).hex() == "64441234a1b2c3d4"


@requires_libcoap
@pytest.mark.parametrize(("payload", "code", "verdict"), REFUSED)
async def test_libcoap_is_refused(cloud: Cloud, payload: bytes, code: str, verdict: str) -> None:
    answer = await coap_client("post", uri(cloud), payload)
    assert (answer.code, answer.payload) == (code, b"")
    assert (cloud.requests[-1].code, cloud.requests[-1].verdict) == (code, verdict)
    assert not cloud.is_activated(PK, DK)


@pytest.mark.parametrize(("payload", "code", "verdict"), REFUSED)
async def test_aiocoap_is_refused(
    cloud: Cloud, ask: Ask, payload: bytes, code: str, verdict: str
) -> None:
    answer = await ask(payload=payload)
    assert (answer.code.dotted, answer.payload) == (code, b"")
    assert cloud.requests[-1].verdict == verdict
    assert not cloud.is_online(PK, DK)


async def test_a_signature_holds_for_its_device_only(cloud: Cloud, ask: Ask) -> None:
    cloud.devices[PK, "neighbour"] = Device(PK, "neighbour", SECRET)
    assert (await ask(("auth", PK, "neighbour"))).code == aiocoap.UNAUTHORIZED
    assert cloud.requests[-1].verdict == "signature differs"


async def test_an_unknown_device_is_unauthorized(cloud: Cloud, ask: Ask) -> None:
    assert (await ask(("auth", PK, "nobody"))).code == aiocoap.UNAUTHORIZED
    assert cloud.requests[-1].verdict == "unknown device"


async def test_a_disabled_device_is_forbidden_until_enabled(cloud: Cloud, ask: Ask) -> None:
    cloud.devices[PK, DK].enabled = False
    assert (await ask()).code == aiocoap.FORBIDDEN
    assert (await ask(payload=claim(sign="wrong"))).code == aiocoap.UNAUTHORIZED
    cloud.devices[PK, DK].enabled = True
    assert (await ask()).code == aiocoap.CHANGED


@pytest.mark.parametrize("path", [(), ("auth",), ("auth", PK), (*AUTH, "more"), UP_RAW[1:]])
async def test_another_path_is_not_found(cloud: Cloud, ask: Ask, path: tuple[str, ...]) -> None:
    assert (await ask(path)).code == aiocoap.NOT_FOUND
    assert cloud.requests[-1].verdict == "no such path"


@pytest.mark.parametrize("path", [AUTH, UP_RAW])
@pytest.mark.parametrize("method", [aiocoap.GET, aiocoap.PUT, aiocoap.DELETE, aiocoap.FETCH])
async def test_another_method_is_not_allowed(ask: Ask, path: tuple[str, ...], method: Any) -> None:
    assert (await ask(path, method=method)).code == aiocoap.METHOD_NOT_ALLOWED


async def test_an_internal_fault_is_5_00(
    cloud: Cloud, ask: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    cloud.next(Behaviour(fault=True))
    with caplog.at_level(logging.ERROR):
        assert (await ask()).code == aiocoap.INTERNAL_SERVER_ERROR
    assert "internal fault" in cloud.requests[-1].verdict
    assert "internal fault" in caplog.text
    assert (await ask()).code == aiocoap.CHANGED


async def test_lowercase_is_accepted_where_allowed(cloud: Cloud, ask: Ask) -> None:
    cloud.behaviour.strict_case = False
    answer = await ask(payload=claim(sign=VECTORS[3600].lower()))
    assert answer.code == aiocoap.CHANGED


async def test_the_success_code_is_configurable(cloud: Cloud, ask: Ask) -> None:
    cloud.behaviour.success_code = "2.05"
    assert (await ask()).code == aiocoap.CONTENT
    assert cloud.is_online(PK, DK)


async def test_a_request_is_recorded_without_secrets(
    cloud: Cloud, ask: Ask, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[Request] = []
    cloud.on_request = told.append
    with caplog.at_level(logging.DEBUG):
        await ask()
        await ask(payload=SECRET.encode())
    first, second = told
    assert told == cloud.requests
    assert (first.method, first.path, first.code, first.time) == ("POST", AUTH, "2.04", clock.now)
    assert [value for number, value in first.options if number == 11] == [
        segment.encode() for segment in AUTH
    ]
    assert first.payload == b'{"secureMode":2,"lifetime":3600,"sign":"51CC3D49..."}'
    assert second.payload == b"<secret>"
    for text in (repr(told), repr(cloud), repr(cloud.devices), caplog.text):
        assert SECRET not in text
        assert VECTORS[3600] not in text


async def test_devices_may_be_given_one_by_one() -> None:
    async with Cloud([Device(PK, DK, SECRET, enabled=False)]) as cloud:
        assert not cloud.devices[PK, DK].enabled
        assert cloud.port != 0
        assert repr(cloud) == f"<Cloud 127.0.0.1:{cloud.port}, 1 devices>"


async def test_serve_forever_ends_with_its_task(cloud: Cloud, ask: Ask) -> None:
    serving = asyncio.create_task(cloud.serve_forever())
    assert (await ask()).code == aiocoap.CHANGED
    assert not serving.done()
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
