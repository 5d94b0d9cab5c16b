"""``nbiot activate``: a device's first contact, with nothing but its product's secret."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from nbiot.cli.common import errors, modem_from, output_options, port_options, run
from nbiot.cli.enos import Target, enos_options, limit_of

if TYPE_CHECKING:
    from nbiot.enos.dtls import DtlsServer, Store


@click.command("activate", short_help="Fetch a device's secret by its product's (DTLS).")
@click.option(
    "--store",
    "path",
    required=True,
    metavar="FILE",
    help="Where the device's secret goes: a new file that only you can read.",
)
@port_options
@enos_options(no_wait=False)
@output_options
def command(path: str, **options: Any) -> None:
    """Fetch the device's own secret from EnOS (dynamic activation, over DTLS).

    The product must allow it, and --secret-from names the product's secret here. Afterwards the
    device connects with its own. Example:

    \b
        nbiot activate --port /dev/ttyUSB0 --product-key KV315idW --enos abc.def.com \\
            --secret-from file:product-secret --store device-secret
        nbiot report --port /dev/ttyUSB0 --product-key KV315idW \\
            --server coaps://coap-abc.def.com --secret-from file:device-secret temperature=21.5
    """
    with errors(as_json=options["as_json"]):
        from nbiot.enos.dtls import DtlsServer, store_in_file

        target = Target.of(options)
        plain = target.server
        server = plain if isinstance(plain, DtlsServer) else DtlsServer(plain.host)
        store = store_in_file(path)
    key = run(_activate(target, server, store, **options), as_json=options["as_json"])
    if options["as_json"]:
        click.echo(json.dumps({"ok": True, "device_key": key, "stored": path}))
    else:
        click.echo(f"Activated: the secret of device {key} is in {path}")


async def _activate(
    target: Target,
    server: DtlsServer,
    store: Store,
    *,
    port: str,
    model: str,
    baud: int | None,
    trace: Any,
    quiet: bool,
    as_json: bool,
) -> str:
    from nbiot.enos.dtls import activate

    del as_json
    with modem_from(port, model, baud, trace, quiet=quiet) as modem:
        async with modem:
            await modem.attach(target.apn, timeout=target.attach_timeout)
            key = target.device_key or await modem.imei()
            await activate(
                modem,
                target.product_key,
                key,
                target.secret,
                server,
                store=store,
                lifetime=target.lifetime,
                timing=target.timing,
                limit=limit_of(server),
                resolve_by=target.resolve,
                report=modem.report,
            )
            return key
