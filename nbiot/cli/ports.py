"""``nbiot ports``: what is there, and what of it answers as a modem."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from nbiot.cli.common import run
from nbiot.errors import NbiotError

if TYPE_CHECKING:
    from nbiot.link.ports import PortInfo


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

    ports = await asyncio.to_thread(list_ports)
    said: Sequence[str | None] = [None] * len(ports)
    if probe:
        said = await asyncio.gather(*(_probe(port.path) for port in ports))
    if as_json:
        records = [_record(port, answer) for port, answer in zip(ports, said, strict=True)]
        click.echo(json.dumps({"ok": True, "ports": records}))
        return
    if not ports:
        click.echo("No serial ports. Is the board plugged in? (`nbiot demo` needs none.)")
    for port, answer in zip(ports, said, strict=True):
        _print(port, answer)


def _print(port: PortInfo, answer: str | None) -> None:
    click.echo(port.by_id or port.path)
    if port.by_id:
        click.echo(f"    path     {port.path}")
    click.echo(f"    device   {port.description or '-'}")
    if answer is not None:
        click.echo(f"    answers  {answer}")


def _record(port: PortInfo, answer: str | None) -> dict[str, Any]:
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
