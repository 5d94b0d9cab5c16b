"""``nbiot hil verify-emulator``: does a software modem say what a real one said?"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nbiot.cli.common import errors
from nbiot.errors import BadInput

if TYPE_CHECKING:
    from hil.verify import Compared, Verdict

_COLOURS = {"-": "red", "+": "green", "~-": "yellow", "~+": "yellow"}


@click.command("verify-emulator", short_help="Compare a software modem with a capture.")
@click.argument("capture", type=click.Path(path_type=Path), metavar="FILE[#ID]")
@click.option(
    "--model",
    default="",
    metavar="MODEL[?OPTIONS]",
    help="Such as bc66 or 'bc66?sim=absent'. Default: what the capture names.",
)
@click.option("--all", "every", is_flag=True, help="Also show what is equal.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def command(capture: Path, model: str, every: bool, as_json: bool) -> None:
    r"""Play the host's side of captures to a software modem, and compare byte by byte.

    Lines with - are the capture's, with + the software modem's; ~ where only values differ (an
    IMEI, a signal, an address, a time). What the real network brought about by itself is not
    compared.

    Exit code 0: the same form everywhere, 1: another form (spacing, line ends, order, a missing
    OK) somewhere, 2: a file or model that cannot be used.
    """
    with errors(as_json=as_json):
        from hil.verify import verify
        from nbiot.capture import read_captures

        verdicts = [verify(found, model) for found in read_captures(capture)]
        if not any(verdict.model for verdict in verdicts):
            named = ", ".join(sorted({v.capture.modem or "no modem" for v in verdicts})[:5])
            raise BadInput("capture", named, "modems that are emulated, or --model MODEL")
    same = all(verdict.same_form for verdict in verdicts)
    if as_json:
        found = {"ok": same, "captures": [verdict.as_dict() for verdict in verdicts]}
        click.echo(json.dumps(found))
    else:
        for verdict in verdicts:
            _show(verdict, every=every)
        if len(verdicts) > 1:
            _total(verdicts)
    sys.exit(0 if same else 1)


def _show(verdict: Verdict, *, every: bool) -> None:
    from hil.verify import Level

    name = click.style(verdict.capture.id, bold=True)
    if not verdict.model:
        click.echo(f"{name}: not compared: no software modem for {verdict.capture.modem!r}")
        return
    for compared in verdict.compared:
        if compared.level in (Level.VALUES, Level.FORM) or every:
            _diff(verdict, compared)
    if every:
        for line in verdict.more:
            click.echo(click.style(f"  only the software modem: {line.shown}", dim=True))
    words = "the same form" if verdict.same_form else "ANOTHER FORM"
    colour = "green" if verdict.same_form else "red"
    click.echo(
        f"{name} against {verdict.model}: {click.style(words, fg=colour)}: {_counts(verdict)}"
    )


def _counts(verdict: Verdict) -> str:
    from hil.verify import Level

    return (
        f"{verdict.count(Level.EQUAL)} equal, {verdict.count(Level.VALUES)} differ in values,"
        f" {verdict.count(Level.FORM)} in form, {verdict.count(Level.SKIPPED)} not compared"
    )


def _diff(verdict: Verdict, compared: Compared) -> None:
    from hil.verify import unified

    place = f"@@ {verdict.capture.id} {compared.exchange.number} @@"
    click.echo(f"{click.style(place, fg='cyan')} {compared.title}")
    if compared.why:
        click.echo(click.style(f"   ({compared.why})", dim=True))
    for sign, text in unified(compared):
        click.echo(click.style(f"{sign:>2} {text}", fg=_COLOURS.get(sign), dim=sign == " "))


def _total(verdicts: list[Verdict]) -> None:
    played = [verdict for verdict in verdicts if verdict.model]
    same = sum(verdict.same_form for verdict in played)
    left = len(verdicts) - len(played)
    words = f"{same} of {len(played)} captures have the same form"
    click.echo(words + (f"; {left} not compared" if left else ""))
