"""``nbiot trace``: what to do with a file of ``--trace``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nbiot.errors import BadInput

if TYPE_CHECKING:
    from nbiot.cli.replay import Examination
    from nbiot.trace import Record

_FILE = click.Path(path_type=Path)

_TEST = '''"""A recorded dialogue; its first line has the outcome that it must have."""

from pathlib import Path

from nbiot.cli.replay import examine


def test_{name}_has_the_outcome_it_must_have() -> None:
    found = examine(Path(__file__).with_name({jsonl}))
    assert found.differences == []
    assert found.outcome is None or found.outcome.as_expected == found.expected
'''


@click.group("trace", short_help="Show, convert and redact files of --trace; make tests of them.")
def command() -> None:
    """Show, convert and redact files of --trace; make tests of them."""


@command.command("show")
@click.argument("trace", type=_FILE)
def show(trace: Path) -> None:
    """Print the dialogue: time, direction, text and what it was taken for."""
    from nbiot.trace import read_trace

    found = read_trace(trace)
    for name, value in found.header.items():
        if value not in (None, "") and name not in ("format", "version"):
            click.echo(f"# {name}: {value}")
    for record in found.records:
        click.echo(_line(record))
    click.echo(f"# {found.summary}")


def _line(record: Record) -> str:
    if record.dir == "-":
        return f"{record.t:10.4f} - {_printable(record.note)}"
    text = _printable(record.raw.decode("latin-1").strip("\r\n"))
    event = f"  [{_printable(record.event)}]" if record.event else ""
    return f"{record.t:10.4f} {record.dir} {text}{event}"


def _printable(text: str) -> str:
    """``text`` without control characters: a trace must not drive a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


@command.command("to-pcapng")
@click.argument("trace", type=_FILE)
@click.argument("out", type=_FILE)
def to_pcapng(trace: Path, out: Path) -> None:
    """Write a capture for Wireshark: the AT dialogue as text, each datagram as UDP."""
    from nbiot.pcapng import write_capture
    from nbiot.trace import read_trace, unwritable

    _check_other(trace, out)
    found = read_trace(trace)
    try:
        with out.open("wb") as file:
            written = write_capture(found, file)
    except OSError as error:
        raise unwritable(out, error) from None
    click.echo(found.summary)
    click.echo(f"{out}: {written.records} AT packets, {written.datagrams} datagrams")
    if written.decode_as:
        click.echo(f"Wireshark expects CoAP at port 5683; open it with: {written.decode_as}")


@command.command("redact")
@click.argument("trace", type=_FILE)
@click.argument("out", type=_FILE)
@click.option(
    "--also", multiple=True, metavar="TEXT", help="Replace this, too: a product key, an APN ..."
)
def redact(trace: Path, out: Path, also: tuple[str, ...]) -> None:
    """Copy a trace without what names your device: for a bug report.

    IMEI, IMSI, ICCID, IP addresses and signatures become others of the same length, everywhere.
    Product key, APN, host names and cell identities stay; --also takes any text.
    """
    from nbiot.redact import Redaction
    from nbiot.trace import read_trace

    _check_other(trace, out)
    found = read_trace(trace)
    redaction = Redaction(also)
    redaction(found).write(out)
    click.echo(found.summary)
    click.echo(f"{out}: {redaction.count} things replaced. Look it over before you send it.")


@command.command("to-test")
@click.argument("trace", type=_FILE)
@click.argument("out", type=_FILE)
@click.option("--modem", "model", default="auto", show_default=True, help="Profile, or auto.")
@click.option("--as-is", is_flag=True, help="Do not redact it first.")
def to_test(trace: Path, out: Path, model: str, as_is: bool) -> None:
    """Make a test of a trace: what the parser and the driver do with it must stay so.

    OUT.jsonl is the redacted trace, with the outcome of today in its first line ("expect"; correct
    it where today's driver is wrong). In tests/trace/replays it runs with the other tests. OUT.py
    is a test for any other place, with its OUT.jsonl beside it.
    """
    from nbiot.redact import Redaction
    from nbiot.trace import read_trace, unwritable

    if out.suffix not in (".jsonl", ".py"):
        raise BadInput("out", str(out), "a name that ends in .jsonl or .py")
    record = out.with_suffix(".jsonl")
    _check_other(trace, record)
    found = read_trace(trace)
    copy = found if as_is else Redaction()(found)
    if model != "auto":
        copy.header["model"] = model
    copy.header.pop("expect", None)
    copy.write(record)
    examination = _with_outcome(record)
    if out.suffix == ".py":
        name = "".join(c if c.isalnum() else "_" for c in out.stem.removeprefix("test_").lower())
        try:
            out.write_text(_TEST.format(jsonl=json.dumps(record.name), name=name), encoding="utf-8")
        except OSError as error:
            raise unwritable(out, error) from None
    click.echo("\n".join(examination.lines()))
    click.echo(f"wrote {record}" + (f" and {out}" if out != record else ""))
    if examination.differences:
        click.echo("The test fails until those differences are gone.")


def _with_outcome(record: Path) -> Examination:
    """Replay ``record`` and write the outcome into its header."""
    from nbiot.cli.replay import examine
    from nbiot.trace import read_trace

    examination = examine(record)
    if examination.outcome is not None:
        trace = read_trace(record)
        trace.header["expect"] = examination.outcome.as_expected
        trace.write(record)
    return examination


def _check_other(trace: Path, out: Path) -> None:
    if out.exists() and trace.exists() and out.samefile(trace):
        raise BadInput("out", str(out), "another file than the trace itself")
