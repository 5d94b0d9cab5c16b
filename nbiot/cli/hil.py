"""``nbiot hil run``: the test suite on the modems of a rig, or on software modems."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nbiot.cli.common import errors
from nbiot.cli.verify import command as verify_emulator
from nbiot.errors import BadInput

if TYPE_CHECKING:
    from hil.report import Check, Run

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.group("hil", short_help="Test modems in a rig, or software modems.")
def command() -> None:
    """Test modems in a rig, or software modems. See docs/hil.md."""


command.add_command(verify_emulator)


@command.command("run", short_help="Run the suite on each slot of the rig.")
@click.option(
    "--rig",
    type=_FILE,
    envvar="NBIOT_RIG",
    show_envvar=True,
    metavar="FILE",
    help="Rig file (docs/rig.md). Without one, a software modem of each family.",
)
@click.option("--slot", multiple=True, metavar="NAME", help="Only this slot; several times.")
@click.option(
    "-k",
    "expression",
    metavar="EXPR",
    help="Only checks whose names match, as in pytest: -k 'udp and not size'.",
)
@click.option(
    "--repeat",
    type=click.IntRange(1, 10_000),
    default=1,
    show_default=True,
    help="Run each check so many times on each slot.",
)
@click.option(
    "--soak",
    type=click.FloatRange(0, 30 * 86400, min_open=True),
    metavar="SECONDS",
    help="Run the soak test, too; it is meant for 3600.",
)
@click.option("--echo", metavar="HOST:PORT", help="A UDP echo server that real modems reach.")
@click.option(
    "--jobs",
    "-j",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Test so many slots at the same time (needs pytest-xdist).",
)
@click.option("--junit", type=_FILE, metavar="FILE", help="JUnit XML for a CI server.")
@click.option("--json", "json_file", type=_FILE, metavar="FILE", help="Everything as JSON.")
@click.option("--html", "html_file", type=_FILE, metavar="FILE", help="A page for people.")
@click.option(
    "--traces",
    default="at-traces",
    show_default=True,
    metavar="FOLDER",
    help="Where AT traces of failed checks go.",
)
@click.option("--verbose", "-v", is_flag=True, help="Show each check in the table.")
@click.option("--quiet", "-q", is_flag=True, help="No progress on standard error.")
def run_command(**options: Any) -> None:
    """Run the suite on each slot of the rig, and show what came of it.

    \b
        nbiot hil run                        # software modems, a minute
        nbiot hil run --rig rig.toml --slot roof --html report.html
        nbiot hil run -k 'authentication and secret' --repeat 20

    What a slot cannot do is skipped by name. Exit code 0: all passed; 1: something failed, or
    nothing was checked; 2: an option cannot be used; 130: Ctrl-C (reports are written all the
    same).
    """
    with errors():
        sys.exit(_run(options))


def _run(options: dict[str, Any]) -> int:
    try:
        import pytest
        import pytest_asyncio  # noqa: F401
    except ImportError as error:
        raise BadInput(
            "nbiot hil run",
            f"no {error.name}",
            "pytest and pytest-asyncio",
            hint="Type: pip install 'nbiot-driver[hil]'",
        ) from None
    from hil.report import Collector, Run, table

    for name in ("junit", "json_file", "html_file"):
        _check_writable(name.removesuffix("_file"), options[name])
    run = Run(rig=str(options["rig"] or ""))
    with _teller(quiet=options["quiet"], run=run) as tell, _sigterm() as terminated:
        code = pytest.main(_arguments(options), plugins=[Collector(run, tell=tell)])
    if code == pytest.ExitCode.USAGE_ERROR and not run.problems:
        return 2  # pytest has said what it is
    if code == pytest.ExitCode.NO_TESTS_COLLECTED:
        raise BadInput("-k", options["expression"], "an expression that some check matches")
    _write(run, options)
    click.echo(table(run, every_check=options["verbose"]))
    if run.interrupted:
        return 143 if terminated else 130
    return 0 if run.good else 1


def _arguments(options: dict[str, Any]) -> list[str]:
    """For pytest: the suite alone, whatever project the working folder belongs to."""
    import hil.suite

    folder = Path(hil.suite.__file__).parent
    found = [str(folder), "-c", str(folder / "pytest.ini"), f"--rootdir={folder}"]
    found += [f"--confcutdir={folder}", "-p", "no:terminal", f"--at-traces={options['traces']}"]
    found += [f"--slot={name}" for name in options["slot"]]
    found += [f"--slot-repeat={options['repeat']}"]
    for name, value in (
        ("--rig", options["rig"]),
        ("--soak", options["soak"]),
        ("--echo", options["echo"]),
        ("-k", options["expression"]),
        ("--junitxml", options["junit"] and Path(options["junit"]).absolute()),
    ):
        if value is not None:
            found += [name, str(value)]
    if options["jobs"] > 1:
        _check_xdist()
        found += ["-n", str(options["jobs"]), "--dist", "loadgroup"]
    return found


def _check_xdist() -> None:
    from importlib.util import find_spec

    if find_spec("xdist") is None:
        raise BadInput(
            "jobs", "more than 1", "1 without pytest-xdist", hint="Type: pip install pytest-xdist"
        )


def _check_writable(name: str, path: Path | None) -> None:
    """Before hours of tests, not after them."""
    if path is not None and not path.absolute().parent.is_dir():
        raise BadInput(name, str(path), "a file in a folder that exists")


def _write(run: Run, options: dict[str, Any]) -> None:
    from hil.report import write_html, write_json

    for name, path, write in (
        ("json", options["json_file"], write_json),
        ("html", options["html_file"], write_html),
    ):
        if path is not None:
            try:
                write(run, path)
            except OSError as error:
                allowed = f"a file that can be written ({error.strerror})"
                raise BadInput(name, str(path), allowed) from None


@contextmanager
def _sigterm() -> Iterator[list[int]]:
    """SIGTERM ends the run as Ctrl-C does; the list says whether it came."""
    came: list[int] = []

    def end(number: int, _: object) -> None:
        came.append(number)
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield came
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _teller(*, quiet: bool, run: Run) -> Iterator[Any]:
    """Shows what is going on: a line that changes in a terminal, failures as they come."""
    live = sys.stderr.isatty() and not quiet

    def tell(check: Check) -> None:
        if check.outcome == "failed" and not quiet:
            end = "\r\x1b[K" if live else ""
            words = f"{end}FAILED {check.slot} {check.group}: {check.title}: {check.words}"
            click.echo(words, err=True)
        if live:
            done = f"{len(run.checks)}/{run.expected or '?'}"
            line = f"{done} {check.slot} {check.group}: {check.title}"
            click.echo(f"\r\x1b[K{line[:100]}", err=True, nl=False)

    try:
        yield tell
    finally:
        if live:
            click.echo("\r\x1b[K", err=True, nl=False)
