"""``nbiot ports``: what is there, and what of it answers as a modem."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import click

from nbiot.cli.common import run
from nbiot.errors import NbiotError


@click.command("ports", short_help="List serial ports and which of them answer as modems.")
@click.option("--no-probe", is_flag=True, help="Only list; send nothing to any port.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def command(no_probe: bool, as_json: bool) -> None:
    """List serial ports and which of them answer as modems.

    Every free port is opened and asked AT at the usual rates; --no-probe leaves them alone.
    """
    run(_ports(probe=not no_probe, as_json=as_json), as_json=as_json)


async def _ports(*, probe: bool, as_json: bool) -> None:
    from nbiot.link.ports import list_ports

    ports = await list_ports()
    said = await asyncio.gather(*(_probe(port.path) for port in ports)) if probe else []
    if as_json:
        click.echo(json.dumps({"ok": True, "ports": [_record(p, probe, said) for p in _pairs(ports, said)]}))
        return
    if not ports:
        click.echo("No serial ports. Is the board plugged in? (`nbiot demo` needs none.)")
    for port, answer in _pairs(ports, said):
        click.echo(f"{port.by_id or port.path}")
        if port.by_id:
            click.echo(f"    path     {port.path}")
        click.echo(f"    device   {port.description or '-'}")
        if probe:
            click.echo(f"    answers  {answer}")


def _pairs(ports: list[Any], said: list[str]) -> list[tuple[Any, str | None]]:
    return list(zip(ports, said or [None] * len(ports), strict=True))


def _record(pair: tuple[Any, str | None], probe: bool, said: list[str]) -> dict[str, Any]:
    port, answer = pair
    return {
        "path": port.path,
        "by_id": port.by_id,
        "description": port.description,
        "serial_number": port.serial_number,
        "answers": answer,
    }


async def _probe(path: str) -> str:
    """What is at ``path``, in a few words."""
    from nbiot.modem import Modem

    try:
        async with Modem(path) as modem:
            return f"{modem.identity.model}, firmware {modem.identity.firmware}"
    except NbiotError as error:
        return f"no: {error.message}"
