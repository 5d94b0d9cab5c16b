"""``nbiot auth``: the main job."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nbiot.cli.common import errors, modem_from, output_options, port_options, run
from nbiot.cli.enos import Target, enos_options, limit_of
from nbiot.errors import RateLimited

if TYPE_CHECKING:
    from nbiot.enos.auth import AuthResult
    from nbiot.modem import Modem


@click.command("auth", short_help="Authenticate a device to EnOS through a modem.")
@port_options
@enos_options(
    click.option(
        "--coap",
        type=click.Choice(["udp", "native"]),
        default="udp",
        show_default=True,
        help="CoAP by this host over the modem's UDP, or by the modem's own client.",
    )
)
@output_options
def command(**options: Any) -> None:
    """Authenticate a device to EnOS through a modem.

    The modem joins the network first if it has not yet. Example:

    \b
        export NBIOT_DEVICE_SECRET=...        # or --secret-from file:PATH
        nbiot auth --port /dev/ttyUSB0 --product-key KV315idW --enos abc.def.com
    """
    with errors(as_json=options["as_json"]):
        # All that can be wrong without a modem is found before it is touched. The secret is read
        # outside the event loop: a prompt must give way to Ctrl-C.
        target = Target.of(options)
    run(_auth(target, **options), as_json=options["as_json"])


async def _auth(
    target: Target,
    *,
    port: str,
    model: str,
    baud: int | None,
    trace: Path | None,
    coap: Any,
    as_json: bool,
    quiet: bool,
) -> None:
    with modem_from(port, model, baud, trace, quiet=quiet) as modem:
        async with modem:
            await modem.attach(target.apn, timeout=target.attach_timeout)
            result = await _authenticate(modem, target, coap)
    click.echo(json.dumps({"ok": True, **result.as_dict()}) if as_json else summary(result))


async def _authenticate(modem: Modem, target: Target, coap: Any) -> AuthResult:
    from nbiot.enos.auth import authenticate
    from nbiot.profile import Progress

    device = await target.device(modem)
    limit = limit_of(target.server)
    while True:
        try:
            return await authenticate(
                modem,
                device,
                target.server,
                path=coap,
                timing=target.timing,
                content_format=target.content_format,
                resolve_by=target.resolve,
                limit=limit,
            )
        except RateLimited as error:
            if target.no_wait:
                raise
            modem.report(Progress("waiting", error.message))
            await asyncio.sleep(error.wait)


def summary(result: AuthResult) -> str:
    """The result in plain words."""
    air = f"{result.bytes_up} bytes up"
    if result.bytes_down is not None:
        air += f", {result.bytes_down} down"
    repeats = f", sent again {result.retransmissions} times" if result.retransmissions else ""
    by = f" at {result.address} (resolved by the {result.resolved_by})"
    lines = [
        f"Authenticated: device {result.device_key} of product {result.product_key}",
        f"  server      {result.server}{'' if result.resolved_by == 'given' else by}",
        f"  answer      {result.code} after {result.round_trip:.3f} s{repeats}",
        f"  on air      {air} (CoAP over {result.path})",
        f"  serial line {result.at_round_trips} AT round trips, {result.serial_bytes} bytes",
        f"  online      as long as it is silent for no more than {result.lifetime} s",
    ]
    if result.commands_waiting:
        lines.append("  note        EnOS has a command for this device")
    return "\n".join(lines)
