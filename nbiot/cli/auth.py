"""``nbiot auth``: the main job."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nbiot.cli.common import errors, modem_from, output_options, port_options, run
from nbiot.errors import BadInput, RateLimited

if TYPE_CHECKING:
    from nbiot.coap.exchange import Timing
    from nbiot.enos.auth import AuthResult, Server
    from nbiot.enos.limits import AuthLimit
    from nbiot.modem import Modem
    from nbiot.signing import Secret

SECRET_VARIABLE = "NBIOT_DEVICE_SECRET"


@click.command("auth", short_help="Authenticate a device to EnOS through a modem.")
@port_options
@click.option(
    "--product-key", required=True, envvar="NBIOT_PRODUCT_KEY", show_envvar=True, help="From EnOS."
)
@click.option("--device-key", default=None, help="Default: the modem's IMEI.")
@click.option(
    "--secret-from",
    default=None,
    metavar="SOURCE",
    help=f"env:NAME, file:PATH, keyring:SERVICE/USER or prompt. Default: env:{SECRET_VARIABLE} if"
    " set, else prompt.",
)
@click.option("--enos", default=None, metavar="HOSTNAME", help="EnOS environment: abc.def.com")
@click.option("--server", default=None, metavar="HOST[:PORT]", help="Any CoAP server instead.")
@click.option(
    "--coap",
    type=click.Choice(["udp", "native"]),
    default="udp",
    show_default=True,
    help="CoAP by this host over the modem's UDP, or by the modem's own client.",
)
@click.option(
    "--lifetime",
    type=int,
    default=3600,
    show_default=True,
    help="Seconds of silence until EnOS calls the device offline: 30 to 86400.",
)
@click.option("--apn", default=None, help="Default: what modem and network have.")
@click.option("--attach-timeout", type=float, default=300.0, show_default=True, help="Seconds.")
@click.option(
    "--ack-timeout",
    type=float,
    default=15.0,
    show_default=True,
    help="Seconds until the request is sent again for the first time.",
)
@click.option("--retransmissions", type=int, default=3, show_default=True)
@click.option("--content-format", type=int, default=None, help="50 is JSON. Default: none is sent.")
@click.option(
    "--resolve",
    type=click.Choice(["auto", "modem", "host"]),
    default="auto",
    show_default=True,
    help="Who looks the server's name up.",
)
@click.option(
    "--no-wait",
    is_flag=True,
    help="Fail at once when EnOS's limit of 4 authentications in 2 minutes is reached.",
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
        server = server_of(options.pop("enos"), options.pop("server"))
        timing = _timing(options)
        _check(options)
        secret = secret_of(options.pop("secret_from"))
    run(_auth(server, secret, timing, **options), as_json=options["as_json"])


def _check(options: dict[str, Any]) -> None:
    from nbiot.signing import check_device_key, check_lifetime, check_product_key

    check_product_key(options["product_key"])
    check_lifetime(options["lifetime"])
    if options["device_key"] is not None:
        check_device_key(options["device_key"])


def _timing(options: dict[str, Any]) -> Timing:
    from nbiot.coap.exchange import Timing

    return Timing(
        ack_timeout=options.pop("ack_timeout"), max_retransmit=options.pop("retransmissions")
    )


async def _auth(
    server: Server,
    secret: Secret,
    timing: Timing,
    *,
    port: str,
    model: str,
    baud: int | None,
    trace: Path | None,
    as_json: bool,
    quiet: bool,
    **wanted: Any,
) -> None:
    with modem_from(port, model, baud, trace, quiet=quiet) as modem:
        async with modem:
            await modem.attach(wanted["apn"], timeout=wanted["attach_timeout"])
            result = await _authenticate(modem, server, secret, timing, wanted)
    click.echo(json.dumps({"ok": True, **result.as_dict()}) if as_json else summary(result))


async def _authenticate(
    modem: Modem, server: Server, secret: Secret, timing: Timing, wanted: dict[str, Any]
) -> AuthResult:
    from nbiot.enos.auth import Device, authenticate
    from nbiot.profile import Progress
    from nbiot.signing import SecretSigner

    key = wanted["device_key"] or await modem.imei()
    device = Device(wanted["product_key"], key, SecretSigner(secret), wanted["lifetime"])
    limit = _limit(server)
    while True:
        try:
            return await authenticate(
                modem,
                device,
                server,
                path=wanted["coap"],
                timing=timing,
                content_format=wanted["content_format"],
                resolve_by=wanted["resolve"],
                limit=limit,
            )
        except RateLimited as error:
            if wanted["no_wait"]:
                raise
            modem.report(Progress("waiting", error.message))
            await asyncio.sleep(error.wait)


def server_of(enos: str | None, server: str | None) -> Server:
    from nbiot.enos.auth import Server

    if (enos is None) == (server is None):
        raise BadInput("server", None, "either --enos HOSTNAME or --server HOST[:PORT]")
    return Server.of_enos(enos) if enos is not None else Server.parse(str(server))


def secret_of(source: str | None) -> Secret:
    from nbiot.signing import secret_from

    if source is None:
        source = f"env:{SECRET_VARIABLE}" if SECRET_VARIABLE in os.environ else "prompt"
    return secret_from(source)


def _limit(server: Server) -> AuthLimit:
    """EnOS counts across processes, and so do we; a stand-in on this host has no such limit."""
    from nbiot.enos.limits import PROCESS_LIMIT, AuthLimit, state_folder

    if server.host == "localhost" or server.host.startswith("127."):
        return PROCESS_LIMIT
    return AuthLimit(state_folder())


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
