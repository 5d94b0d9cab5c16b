"""``nbiot raw``: bytes for the product's parser script."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from nbiot.cli.common import errors, output_options, port_options
from nbiot.cli.enos import Target, enos_options, hex_bytes, read_file
from nbiot.errors import BadInput

if TYPE_CHECKING:
    from nbiot.cli.oneshot import Told

MOST = 1024  # bytes that EnOS takes in a message


@click.command("raw", short_help="Send bytes to EnOS (products of data type Custom).")
@click.argument("digits", nargs=-1, metavar="[HEX...]")
@click.option(
    "--file",
    "path",
    type=click.Path(allow_dash=True),
    default=None,
    help='Send what is in this file; "-" is standard input.',
)
@click.option("--text", default=None, help="Send this text, in UTF-8.")
@port_options
@enos_options()
@output_options
def command(digits: tuple[str, ...], path: str | None, text: str | None, **options: Any) -> None:
    """Send bytes as they are (up_raw), for products of data type Custom.

    EnOS hands them to the product's parser script; what the script answers is printed in
    hexadecimal digits. Example:

    \b
        nbiot raw --port /dev/ttyUSB0 --product-key KV315idW --enos abc.def.com 01 A2FF
    """
    with errors(as_json=options["as_json"]):
        payload = _payload(digits, path, text)
        target = Target.of(options)
    from nbiot.cli.oneshot import one_shot

    def show(told: Told, as_json: bool) -> None:
        answer = told.data or b""
        if as_json:
            click.echo(json.dumps(told.as_dict(accepted={"bytes": len(payload)}, hex=answer.hex())))
            return
        size = f"{len(payload)} byte{'' if len(payload) == 1 else 's'}"
        headline = f"Accepted: {size} of raw data of device {told.device_key}"
        words = f"{answer.hex()} ({len(answer)} bytes)" if answer else "none"
        click.echo(f"{told.words(headline)}\n  answer      {words}")

    one_shot(options, target, lambda enos: enos.raw(payload), show)


def _payload(digits: tuple[str, ...], path: str | None, text: str | None) -> bytes:
    from nbiot.enos.things import checked_size

    given = [bool(digits), path is not None, text is not None]
    if sum(given) != 1:
        said = "nothing" if not any(given) else "more than one of them"
        raise BadInput("payload", said, "one of HEX, --file FILE, --text TEXT")
    if path is not None:
        payload = read_file("file", path, MOST)
    elif text is not None:
        payload = text.encode("utf-8", "surrogateescape")
    else:
        payload = hex_bytes("payload", " ".join(digits))
    if not payload:
        raise BadInput("payload", "nothing", "one or more bytes")
    return checked_size(payload)
