"""``nbiot info``: who is there, and how well it hears the network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from nbiot.cli.common import modem_from, output_options, port_options, run
from nbiot.errors import NbiotError


@click.command("info", short_help="Show modem, SIM, signal and registration.")
@port_options
@output_options
def command(
    port: str, model: str, baud: int | None, trace: Path | None, as_json: bool, quiet: bool
) -> None:
    """Show modem, SIM, signal and registration. Does not switch the radio on."""
    run(_info(port, model, baud, trace, as_json, quiet), as_json=as_json)


async def _info(
    port: str, model: str, baud: int | None, trace: Path | None, as_json: bool, quiet: bool
) -> None:
    with modem_from(port, model, baud, trace, quiet=quiet) as modem:
        async with modem:
            found = await _gather(modem)
    if as_json:
        click.echo(json.dumps({"ok": True, **found}))
        return
    for name, value in found.items():
        click.echo(f"{name:13} {'-' if value is None else value}")


async def _gather(modem: Any) -> dict[str, Any]:
    profile = modem.profile
    found: dict[str, Any] = {
        "modem": modem.identity.model,
        "manufacturer": modem.identity.manufacturer,
        "firmware": modem.identity.firmware,
        "profile": profile.name,
    }
    for name, ask in {
        "imei": profile.imei,
        "iccid": profile.iccid,
        "imsi": profile.imsi,
        "signal": profile.signal,
        "registration": profile.registration,
        "address": profile.address,
    }.items():
        try:
            value = await ask()
        except NbiotError:  # this one the modem cannot tell now; the others it may
            value = None
        found[name] = _plain(value)
    return found


def _plain(value: Any) -> Any:
    state = getattr(value, "state", None)
    if state is not None:
        return str(state.name).lower()
    return value if value is None or isinstance(value, str) else str(value)
