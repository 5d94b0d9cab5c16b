"""``nbiot report``: measurepoints, or an event."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from nbiot.cli.common import errors, output_options, port_options
from nbiot.cli.enos import Target, assignments, enos_options, json_file, json_or_text
from nbiot.errors import BadInput

if TYPE_CHECKING:
    from nbiot.cli.oneshot import Told

LEAST_MS = 10**11  # 1973; a smaller number is one of seconds


@click.command("report", short_help="Report measurepoints or an event to EnOS.")
@click.argument("points", nargs=-1, metavar="[NAME=VALUE]...")
@click.option(
    "--json-file",
    type=click.Path(allow_dash=True),
    default=None,
    metavar="FILE",
    help='A JSON object {"NAME": VALUE, ...}; "-" is standard input. Added to NAME=VALUE.',
)
@click.option("--quality", type=int, default=None, help="Of all measurepoints: 0 to 9.")
@click.option(
    "--time",
    "when",
    default=None,
    metavar="MS|now|ISO",
    help="When it was measured: milliseconds since 1970, now (this host's clock), or"
    " 2026-01-31T12:00:00Z. Default: when EnOS gets it.",
)
@click.option("--event", default=None, metavar="ID", help="Report this event with these outputs.")
@port_options
@enos_options()
@output_options
def command(
    points: tuple[str, ...],
    json_file: str | None,
    quality: int | None,
    when: str | None,
    event: str | None,
    **options: Any,
) -> None:
    """Report measurepoints to EnOS, or an event with its outputs.

    VALUE is JSON if it is JSON: a number, true, false, "text in quotes", [..] or {..}. Anything
    else is text. Where one may mean either (NaN, .5, 007, null, True), quotes decide: 'id="007"'.
    Examples:

    \b
        nbiot report --port /dev/ttyUSB0 --product-key KV315idW --enos abc.def.com \\
            temperature=21.5 door=open
        nbiot report ... --event overheated temperature=91 limit=80

    Each call authenticates, which EnOS allows 4 times in 2 minutes; further ones wait. The device
    secret is asked for, or taken from NBIOT_DEVICE_SECRET.
    """
    from nbiot.enos import things

    with errors(as_json=options["as_json"]):
        moment = moment_of(when)
        values = _values(points, json_file, event)
        if event is None:
            values = with_quality(values, quality)
            message = things.measurepoints(values, moment)
        elif quality is not None:
            raise BadInput("quality", quality, "measurepoints only; events have none")
        else:
            message = things.event(event, values, moment)
        message.encode("1")  # its size
        target = Target.of(options)
    from nbiot.cli.oneshot import one_shot

    def show(told: Told, as_json: bool) -> None:
        _show(told, event, values, moment, as_json)

    one_shot(
        options,
        target,
        lambda enos: (
            enos.report(values, time=moment)
            if event is None
            else enos.event(event, values, time=moment)
        ),
        show,
    )


def _values(points: tuple[str, ...], path: str | None, event: str | None) -> dict[str, Any]:
    what = "measurepoint" if event is None else "output"
    values = assignments(points, json_or_text, what=what)
    for name, value in (json_file(path) if path is not None else {}).items():
        if name in values:
            raise BadInput(what, name, "each name once (it is on the command line and in the file)")
        values[name] = value
    if not values and event is None:
        raise BadInput(
            "points", "nothing", "one or more NAME=VALUE, or --json-file FILE", hint=_EXAMPLE
        )
    return values


_EXAMPLE = "For example: nbiot report ... temperature=21.5"


def with_quality(values: Mapping[str, Any], quality: int | None) -> dict[str, Any]:
    """``quality`` for every value that does not bring its own as {"value":..,"quality":..}."""
    from nbiot.enos.things import Measurepoint

    found: dict[str, Any] = {}
    for name, value in values.items():
        own = isinstance(value, dict) and "value" in value and value.keys() <= {"value", "quality"}
        if own:
            found[name] = Measurepoint(value["value"], value.get("quality", quality))
        else:
            found[name] = Measurepoint(value, quality)
    return found


def moment_of(text: str | None) -> int | None:
    """Milliseconds since 1970. Raises BadInput."""
    if text is None:
        return None
    if text == "now":
        return time.time_ns() // 1_000_000
    if re.fullmatch(r"[0-9]{1,17}", text):
        if int(text) < LEAST_MS:
            raise BadInput(
                "time",
                text,
                "milliseconds since 1970 (13 digits)",
                hint=f"If it is seconds: --time {text}000",
            )
        return int(text)
    allowed = "milliseconds since 1970, now, or ISO 8601 with a zone: 2026-01-31T12:00:00Z"
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise BadInput("time", text, allowed) from None
    if found.tzinfo is None:
        raise BadInput("time", text, allowed, hint=f"If it is UTC: --time {text}Z")
    return round(found.timestamp() * 1000)


def _show(
    told: Told, event: str | None, values: dict[str, Any], moment: int | None, as_json: bool
) -> None:
    from nbiot.enos.things import Measurepoint

    plain = {
        name: value.value if isinstance(value, Measurepoint) else value
        for name, value in values.items()
    }
    when = {} if moment is None else {"time": moment}
    if as_json:
        what = {"measurepoints": plain} if event is None else {"event": event, "outputs": plain}
        click.echo(json.dumps(told.as_dict(accepted={**what, **when}, data=told.data)))
        return
    if event is None:
        number = "1 measurepoint" if len(plain) == 1 else f"{len(plain)} measurepoints"
        headline = f"Accepted: {number} of device {told.device_key}"
    else:
        headline = f"Accepted: event {event} of device {told.device_key}"
    click.echo(told.words(headline, plain))
