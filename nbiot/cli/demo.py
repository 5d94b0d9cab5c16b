"""``nbiot demo``: the main job without a board."""

from __future__ import annotations

import sys
from typing import Any

import click

from nbiot.cli.common import progress, run
from nbiot.errors import AuthRefused, NbiotError

PRODUCT_KEY = "KV315idW"
DEVICE_SECRET = "M3yy874uGY8INjEGddTR"  # a sample from the EnOS documents; opens nothing
IMEI = "867726030047601"
RUNS = (("bc95", "udp"), ("bc66", "udp"), ("bc66", "native"))


@click.command("demo", short_help="Authenticate a device through an emulated BC95 and BC66.")
@click.option("--real-time", is_flag=True, help="Let the modems boot and attach as slowly as real.")
def command(real_time: bool) -> None:
    """Authenticate a device through an emulated BC95 and BC66.

    Software modems on real pseudo-terminals, real UDP on loopback, and a stand-in for EnOS that
    checks the signature with code of its own. No board, no account, no root.
    """
    run(_demo(speed=1.0 if real_time else 8.0))


async def _demo(speed: float) -> None:
    from hil.cloud import Cloud

    async with Cloud({(PRODUCT_KEY, IMEI): DEVICE_SECRET}) as cloud:
        click.echo(f"EnOS stand-in: coap://{cloud.host}:{cloud.port}")
        for model, path in RUNS:
            await _run(cloud, model, path, speed)
        await _wrong_secret(cloud, speed)
    click.echo(
        "\nWith a board the command is the same, e.g.:\n"
        "  nbiot auth --port /dev/ttyUSB0 --product-key YOUR_KEY --enos YOUR.ENOS.HOST\n"
        "The device secret is asked for, or taken from NBIOT_DEVICE_SECRET."
    )


async def _run(cloud: Any, model: str, path: str, speed: float) -> None:
    from nbiot.cli.auth import summary

    result = await _authenticate(cloud, model, path, speed, DEVICE_SECRET)
    verdict = cloud.requests[-1].verdict
    click.echo(f"{summary(result)}\n  stand-in    {verdict}")


async def _wrong_secret(cloud: Any, speed: float) -> None:
    click.echo("\nAnd when the secret is wrong:")
    try:
        await _authenticate(cloud, "bc95", "udp", speed, "not-the-secret")
    except AuthRefused as error:
        click.echo(f"{error}")
        return
    raise NbiotError("the stand-in took a wrong signature")


async def _authenticate(cloud: Any, model: str, path: Any, speed: float, secret: str) -> Any:
    from hil.emulator import Network, Options, PtyModem
    from nbiot.enos.auth import Device, Server, authenticate
    from nbiot.modem import Modem
    from nbiot.signing import Secret, SecretSigner

    options = Options(imei=IMEI, speed=speed)
    async with PtyModem(model, options, Network(latency=0.8)) as pty:
        click.echo(
            f"\n$ nbiot auth --port {pty.path} --product-key {PRODUCT_KEY}"
            f" --server {cloud.host}:{cloud.port}" + (" --coap native" if path == "native" else "")
        )
        sys.stdout.flush()
        with progress(quiet=False) as report:
            async with Modem(pty.path, report=report) as modem:
                await modem.attach(timeout=60)
                device = Device(PRODUCT_KEY, await modem.imei(), SecretSigner(Secret(secret)))
                server = Server(cloud.host, cloud.port)
                return await authenticate(modem, device, server, path=path)
