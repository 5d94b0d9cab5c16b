"""``nbiot capture``: record what a modem says, to share it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from nbiot.cli.common import models, output_options, port_options, run, tracing
from nbiot.errors import BadInput

if TYPE_CHECKING:
    from nbiot.capture import Recording, Step
    from nbiot.redact import Redaction

_FILE = click.Path(dir_okay=False, path_type=Path)
# What redaction cannot judge: (pattern over a line, what to say about it).
_LOOK_AT = (
    (re.compile(r"\+CGDCONT:|\+QCGDEFCONT:|\+CGCONTRDP:"), "an APN"),
    (re.compile(r"\+COPS:"), "the operator"),
    (re.compile(r"\+CCLK:|\+CTZ"), "a time with its zone"),
    (re.compile(r"\+NCDP:|\+QIDNSCFG:|\+QLWSERV:|\+QMT"), "a server"),
    (re.compile(r"CELL,|\+QENG:|EARFCN:|PCI:"), "radio figures of a cell"),
    (re.compile(r"[0-9A-Fa-f]{12,}"), "a long number"),
    (re.compile(r"[\w-]+\.(?:[\w-]+\.)*[A-Za-z]{2,}\b"), "a name with dots"),
)


@click.command("capture", short_help="Record what a modem says, redacted, to share it.")
@port_options
@click.option(
    "--commands",
    "commands_file",
    type=_FILE,
    metavar="FILE",
    help="Commands, one a line; '> data' for the one above, 'wait SECONDS', '# remark'.",
)
@click.option(
    "--profile",
    default="",
    shell_complete=models,
    metavar="NAME",
    help="Without commands: ask what this profile asks. Default: the modem's own.",
)
@click.option("--out", type=_FILE, required=True, metavar="FILE", help="A file that is not there.")
@click.option("--id", "identifier", metavar="ID", help="Default: profile, firmware and date.")
@click.option("--also", multiple=True, metavar="TEXT", help="Redact this, too: an APN, a name ...")
@click.option(
    "--timeout",
    type=click.FloatRange(0.1, 3600),
    default=10.0,
    show_default=True,
    help="Seconds a command, at least.",
)
@click.option("--yes", is_flag=True, help="Also send what writes settings or restarts the modem.")
@output_options
@click.argument("commands", nargs=-1, metavar="[COMMAND]...")
def command(
    port: str,
    model: str,
    baud: int | None,
    trace: Path | None,
    commands_file: Path | None,
    profile: str,
    out: Path,
    identifier: str | None,
    also: tuple[str, ...],
    timeout: float,
    yes: bool,
    as_json: bool,
    quiet: bool,
    commands: tuple[str, ...],
) -> None:
    """Record a modem's answers, byte by byte, as a capture of this project's tests.

    \b
        nbiot capture --port /dev/ttyUSB0 --out bc66-mine.jsonl
        nbiot capture --port /dev/ttyUSB0 --out sockets.jsonl --commands sockets.txt

    Without commands, everything is asked that changes nothing. IMEI, IMSI, ICCID, IP addresses,
    cell identities and tracking areas are replaced, the same everywhere. Look the file over before
    you share it. See docs/captures.md.
    """
    from nbiot.capture import ID, Recording, check_commands, read_commands, steps_of

    def prepared() -> list[Step]:
        if commands and commands_file:
            raise BadInput("commands", str(commands_file), "commands here or in a file, not both")
        steps = read_commands(commands_file) if commands_file else steps_of(commands)
        check_commands(steps, sure=yes)
        if identifier is not None and not re.fullmatch(ID, identifier):
            raise BadInput("id", identifier, "words of letters and digits with - between them")
        return steps

    async def main() -> None:
        steps = prepared()
        redaction = _redaction(also)
        recording = Recording(port)
        started = time.time()
        with (
            _new_file(out, recording) as file,
            tracing(trace, port=port, model=model, baud=baud) as tracer,
        ):
            from nbiot.capture import record

            try:
                await record(
                    recording,
                    model=model,
                    baudrate=baud,
                    steps=steps,
                    defaults_of=profile,
                    timeout=timeout,
                    tracer=tracer,
                    report=(lambda _: None) if quiet else (lambda text: click.echo(text, err=True)),
                )
            finally:
                if recording.records:
                    _keep(recording, redaction, file, out, identifier, started, as_json)

    run(main(), as_json=as_json)


def _redaction(also: tuple[str, ...]) -> Redaction:
    from nbiot.redact import Redaction

    return Redaction(also, cells=True)


@contextmanager
def _new_file(out: Path, recording: Recording) -> Iterator[TextIO]:
    """A file that was not there; it goes again when nothing was recorded."""
    try:
        file = out.open("x", encoding="utf-8")
    except FileExistsError:
        raise BadInput("out", str(out), "a file that is not there yet") from None
    except OSError as error:
        allowed = f"a file that can be made ({error.strerror})"
        raise BadInput("out", str(out), allowed) from None
    try:
        with file:
            yield file
    finally:
        if not recording.records:
            out.unlink(missing_ok=True)


def _keep(
    recording: Recording,
    redaction: Redaction,
    file: TextIO,
    out: Path,
    identifier: str | None,
    started: float,
    as_json: bool,
) -> None:
    """Write what was recorded, and say what to do with it."""
    from nbiot.capture import capture_of
    from nbiot.trace import unwritable

    found = capture_of(
        recording, redaction, identifier=identifier or _name(recording, started), started=started
    )
    try:
        file.write(json.dumps(found, ensure_ascii=False) + "\n")
        file.flush()
    except OSError as error:
        raise unwritable(out, error) from None
    looks = _looks(found, redaction)
    if as_json:
        about = {key: found[key] for key in ("id", "modem", "firmware", "baud", "redacted")}
        about |= {
            "out": str(out),
            "commands": sum("tx" in e for e in found["exchanges"]),
            "timed_out": [e["tx"] for e in found["exchanges"] if "timed_out" in e],
            "look_at": looks,
        }
        click.echo(json.dumps({"ok": True} | about))
        return
    click.echo(_summary(found, out))
    if looks:
        click.echo("Look the file over before you share it. Still in it:")
        for what, lines in looks.items():
            click.echo(
                f"  {what}: {lines[0][:70]}" + (f" (and {len(lines) - 1} more)" * (len(lines) > 1))
            )
        click.echo("  (--also TEXT replaces a text on the next run)")
    else:
        click.echo("Look the file over before you share it.")
    if recording.emulated:
        click.echo("A software modem said this: it proves nothing about a real one.")


def _summary(found: dict[str, Any], out: Path) -> str:
    sent = [e for e in found["exchanges"] if "tx" in e]
    late = [e["tx"] for e in sent if "timed_out" in e]
    own = len(found["exchanges"]) - len(sent)
    lines = [f"{out}: {found['id']}: {len(sent)} commands, {own} lines that came by themselves"]
    if late:
        lines.append(f"No result in time: {', '.join(late)}")
    counts = ", ".join(f"{kind} {count}" for kind, count in found["redacted"].items() if count)
    lines.append(f"Replaced (different ones of a kind): {counts or 'nothing'}")
    return "\n".join(lines)


def _looks(found: dict[str, Any], redaction: Redaction) -> dict[str, list[str]]:
    """Lines that a person must judge, by what is in them."""
    looks: dict[str, dict[str, None]] = {}
    made = {new.decode("latin-1"): "" for old, new in redaction.found.items() if old != new}
    ours = re.compile("|".join(map(re.escape, sorted(made, key=len, reverse=True))) or "(?!)")
    for exchange in found["exchanges"]:
        for line in [exchange.get("tx", ""), exchange.get("urc", ""), *exchange.get("rx", [])]:
            for pattern, what in _LOOK_AT:
                if pattern.search(ours.sub("", line)):
                    looks.setdefault(what, {})[_printable(line)] = None
    return {what: list(lines) for what, lines in looks.items()}


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _name(recording: Recording, started: float) -> str:
    firmware = recording.identity.firmware if recording.identity else ""
    day = time.strftime("%Y%m%dt%H%M", time.gmtime(started))
    words = [recording.profile or "modem", firmware, day]
    return "-".join(re.sub(r"[^a-z0-9]+", "-", word.lower()).strip("-") for word in words if word)
