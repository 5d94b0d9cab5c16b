"""The doctor finds where the way ends."""

from __future__ import annotations

import asyncio
import os

import pytest

from hil.cloud import Behaviour, Cloud
from hil.emulator import Network, Options, PtyModem
from nbiot import doctor
from nbiot.doctor import Doctor, Finding, Verdict
from nbiot.enos import Server
from nbiot.signing import Secret, SecretSigner

from .conftest import IMEI, MODELS, PRODUCT_KEY, SECRET


@pytest.fixture(autouse=True)
def quick_pings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PING_SECONDS", 0.2)


async def examine(
    model: str, *, cloud: Cloud | None = None, secret: str = SECRET, **options: object
) -> dict[str, Finding]:
    network = options.pop("network", None) or Network()
    settings = {"imei": IMEI, "speed": 100.0} | options
    target = None
    if cloud is not None:
        server = Server(cloud.host, cloud.port)
        signer = SecretSigner(Secret(secret))
        target = doctor.Cloud(server, PRODUCT_KEY, None, signer)
    async with PtyModem(model, Options(**settings), network) as pty:  # type: ignore[arg-type]
        walk = Doctor(pty.path, cloud=target, attach_timeout=2.0)
        found = {finding.step: finding async for finding in walk.examine()}
        assert not [s for s in pty.modem.sockets.values() if s is not None]
    return found


def verdicts(found: dict[str, Finding]) -> set[Verdict]:
    return {finding.verdict for finding in found.values()}


@pytest.mark.parametrize("model", MODELS)
async def test_a_healthy_way_is_walked_to_its_end(model: str) -> None:
    async with Cloud({(PRODUCT_KEY, IMEI): SECRET}) as cloud:
        found = await examine(model, cloud=cloud)
    assert verdicts(found) == {Verdict.OK}
    assert next(iter(found)) == "port"
    assert "2.04" in found["CoAP and signature"].saw


@pytest.mark.parametrize(
    ("options", "step", "code"),
    [
        ({"sim": "absent"}, "SIM", 30),
        ({"network": Network(stat="denied", reject_cause=11)}, "registration", 32),
        ({"network": Network(stat="none")}, "registration", 32),
    ],
)
async def test_the_first_failure_is_named_and_the_rest_skipped(
    options: dict[str, object], step: str, code: int
) -> None:
    found = await examine("bc95", **options)
    failed = found[step]
    assert failed.verdict is Verdict.FAILED
    assert failed.exit_code == code
    assert failed.next
    after = list(found.values())[list(found).index(step) + 1 :]
    assert {finding.verdict for finding in after} == {Verdict.SKIPPED}


async def test_a_refused_registration_tells_the_cause() -> None:
    found = await examine("bc66", network=Network(stat="denied", reject_cause=11))
    assert "EMM cause 11" in found["registration"].saw


async def test_a_wrong_secret_is_found_at_the_last_step() -> None:
    async with Cloud({(PRODUCT_KEY, IMEI): SECRET}) as cloud:
        found = await examine("bc95", cloud=cloud, secret="another-one")
    assert found["UDP round trip"].verdict is Verdict.OK
    assert found["CoAP and signature"].verdict is Verdict.FAILED
    assert found["CoAP and signature"].exit_code == 50


async def test_a_server_that_does_not_answer_pings_is_only_a_warning() -> None:
    async with Cloud({(PRODUCT_KEY, IMEI): SECRET}, Behaviour(silent=True)) as cloud:
        network = Network(lose=lambda way, data: len(data) == 4)  # the pings
        cloud.behaviour = Behaviour()
        found = await examine("bc95", cloud=cloud, network=network)
    assert found["UDP round trip"].verdict is Verdict.WARNING
    assert found["CoAP and signature"].verdict is Verdict.OK


async def test_a_silent_port_ends_the_walk_at_the_modem() -> None:
    master, slave = os.openpty()
    try:
        walk = Doctor(os.ttyname(slave), baudrate=9600)
        found = {finding.step: finding async for finding in walk.examine()}
    finally:
        os.close(master)
        os.close(slave)
    assert found["port"].verdict is Verdict.OK
    assert found["baud"].verdict is Verdict.FAILED
    assert found["baud"].exit_code == 20
    assert found["CoAP and signature"].verdict is Verdict.SKIPPED


async def test_a_port_that_does_not_exist_is_told_at_the_first_step() -> None:
    found = [finding async for finding in Doctor("/dev/no-such-port").examine()]
    assert (found[0].step, found[0].verdict, found[0].exit_code) == ("port", Verdict.FAILED, 10)
    assert {finding.verdict for finding in found[1:]} == {Verdict.SKIPPED}


async def test_rate_echo_and_firmware_are_steps_of_their_own() -> None:
    found = await examine("bc95")
    assert found["echo"].saw == "off"
    assert "firmware" in found["firmware"].saw


async def test_an_echo_that_cannot_be_switched_off_is_told() -> None:
    async with PtyModem("bc66", Options(imei=IMEI, attached=True)) as pty:
        walk = Doctor(pty.path)
        found = {}
        async for finding in walk.examine():
            found[finding.step] = finding
            if finding.step == "baud":
                pty.modem.receive(b"ATE1\r")
                await asyncio.sleep(0.2)
    assert found["echo"].verdict is Verdict.WARNING
