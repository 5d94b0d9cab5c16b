"""``nbiot doctor``: where does the way from the port to the cloud end?"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nbiot.cli.common import errors, output_options, port_options, progress, run, tracing
from nbiot.cli.enos import secret_of, server_of

if TYPE_CHECKING:
    from nbiot.doctor import Finding

MARKS = {"ok": "ok     ", "warning": "warning", "failed": "FAILED ", "skipped": "skipped"}


@click.command("doctor", short_help="Walk from the port to the cloud and say where it ends.")
@port_options
@click.option("--enos", default=None, metavar="HOSTNAME", help="EnOS environment: abc.def.com")
@click.option("--server", default=None, metavar="HOST[:PORT]", help="Any CoAP server instead.")
@click.option("--product-key", default=None, envvar="NBIOT_PRODUCT_KEY", show_envvar=True)
@click.option("--device-key", default=None, help="Default: the modem's IMEI.")
@click.option("--secret-from", default=None, metavar="SOURCE", help="As for nbiot auth.")
@click.option("--apn", default=None, help="Default: what modem and network have.")
@click.option("--attach-timeout", type=float, default=120.0, show_default=True, help="Seconds.")
@output_options
def command(**options: Any) -> None:
    """Walk from the port to the cloud: each step, what it saw, and what to try next.

    Without --enos or --server the walk ends at the IP address; without --product-key nothing is
    authenticated. The exit code is that of the first step that failed.
    """
    from nbiot.doctor import Cloud

    with errors(as_json=options["as_json"]):
        cloud = None
        if options["enos"] is not None or options["server"] is not None:
            cloud = Cloud(
                server_of(options["enos"], options["server"]),
                options["product_key"],
                options["device_key"],
                _signer(options),
            )
    code = run(_doctor(cloud, **options), as_json=options["as_json"])
    sys.exit(code)


def _signer(options: dict[str, Any]) -> Any:
    from nbiot.signing import SecretSigner

    if options["product_key"] is None:
        return None
    return SecretSigner(secret_of(options["secret_from"]))


async def _doctor(
    cloud: Any,
    *,
    port: str,
    model: str,
    baud: int | None,
    trace: Path | None,
    apn: str | None,
    attach_timeout: float,
    as_json: bool,
    quiet: bool,
    **_: Any,
) -> int:
    from nbiot.doctor import Doctor

    findings: list[Finding] = []
    with (
        tracing(trace, port=port, model=model, baud=baud) as tracer,
        progress(quiet=quiet or not sys.stderr.isatty()) as report,
    ):
        doctor = Doctor(
            port,
            model=model,
            baudrate=baud,
            apn=apn,
            cloud=cloud,
            attach_timeout=attach_timeout,
            report=report,
            tracer=tracer,
        )
        async for finding in doctor.examine():
            findings.append(finding)
            if not as_json:
                _print(finding)
    code = next((f.exit_code or 1 for f in findings if f.verdict.value == "failed"), 0)
    if as_json:
        steps = [finding.as_dict() for finding in findings]
        click.echo(json.dumps({"ok": code == 0, "exit_code": code, "steps": steps}))
    return code


def _print(finding: Finding) -> None:
    click.echo(f"{MARKS[finding.verdict.value]}  {finding.step:18}  {finding.saw}")
    if finding.next:
        click.echo(f"{'':29}-> {finding.next}")
