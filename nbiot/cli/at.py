"""``nbiot at``: commands typed by a person, answers as they came."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nbiot.cli.common import output_options, port_options, run, tracing
from nbiot.errors import BadInput, CommandRefused

if TYPE_CHECKING:
    from nbiot.trace import Tracer

SHOWN = ("answer", "outcome", "unknown", "final", "urcreceived", "bootline", "orphan")


@click.command("at", short_help="Send AT commands and print what comes back.")
@port_options
@click.option("--timeout", type=float, default=10.0, show_default=True, help="Seconds a command.")
@output_options
@click.argument("commands", nargs=-1, required=True, metavar="COMMAND...")
def command(
    port: str,
    model: str,
    baud: int | None,
    trace: Path | None,
    timeout: float,
    as_json: bool,
    quiet: bool,
    commands: tuple[str, ...],
) -> None:
    """Send AT commands one after the other and print what comes back.

    Stops at the first one that the modem refuses. Lines that the modem sent on its own begin with
    "* ". Example: nbiot at --port /dev/ttyUSB0 AT+CSQ 'AT+CEREG?'
    """
    del quiet
    run(_at(port, model, baud, trace, timeout, as_json, commands), as_json=as_json)


@dataclass
class _Listener:
    """Keeps the lines of one command; passes all on to a trace."""

    tracer: Tracer | None
    lines: list[tuple[str, str]] = field(default_factory=list)

    def sent(self, data: bytes) -> None:
        if self.tracer:
            self.tracer.sent(data)

    def heard(self, raw: bytes, kind: str) -> None:
        if self.tracer:
            self.tracer.heard(raw, kind)
        if kind in SHOWN:
            text = raw.strip(b"\r\n \x00\xff").decode("ascii", "backslashreplace")
            self.lines.append((kind, text))

    def note(self, text: str) -> None:
        if self.tracer:
            self.tracer.note(text)


async def _at(
    port: str,
    model: str,
    baud: int | None,
    trace: Path | None,
    timeout: float,
    as_json: bool,
    commands: tuple[str, ...],
) -> None:
    from nbiot.at import Dialect
    from nbiot.channel import Channel
    from nbiot.link import open_link
    from nbiot.modem import chosen_profiles, find_rate, try_rates

    lines = [_checked(text) for text in commands]
    known = await asyncio.to_thread(chosen_profiles, model)
    with tracing(trace, port=port, model=model, baud=baud) as tracer:
        listener = _Listener(tracer)
        rates = try_rates(known, baud)
        link = await open_link(port, baudrate=rates[0])
        channel = Channel(link, Dialect.union(p.dialect for p in known.values()), tracer=listener)
        try:
            await find_rate(channel, rates, known)
            for line in lines:
                await _one(channel, line, timeout, listener, as_json)
        finally:
            await channel.close()


async def _one(channel: Any, line: str, timeout: float, listener: _Listener, as_json: bool) -> None:
    from nbiot.at import Command, Shape

    listener.lines.clear()
    refused: CommandRefused | None = None
    try:
        await channel.run(
            Command(line.encode("ascii"), Shape("<text:line>"), 0, 10_000, seconds=timeout)
        )
    except CommandRefused as error:
        refused = error
    finally:
        _print(line, listener, as_json)
    if refused is not None:
        raise refused


def _print(line: str, listener: _Listener, as_json: bool) -> None:
    """A known URC that begins like the command is its answer as far as a person is concerned."""
    name = line[2:].split("=")[0].rstrip("?").upper()
    own = [
        (k if not (k == "urcreceived" and t.startswith(name)) else "answer", t)
        for k, t in listener.lines
    ]
    if as_json:
        said = [text for kind, text in own if kind in ("answer", "unknown", "outcome")]
        urcs = [text for kind, text in own if kind == "urcreceived"]
        final = next((text for kind, text in own if kind == "final"), None)
        record = {"command": line, "lines": said, "final": final, "urcs": urcs}
        click.echo(json.dumps(record))
        return
    for kind, text in own:
        click.echo(f"* {text}" if kind in ("urcreceived", "bootline", "orphan") else text)


def _checked(text: str) -> str:
    with suppress(UnicodeEncodeError):
        text.encode("ascii")
        if text[:2].upper() == "AT" and text.isprintable():
            return text
    raise BadInput("command", text, "printable ASCII that begins with AT, such as AT+CSQ")
