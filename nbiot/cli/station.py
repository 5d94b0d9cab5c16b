"""``nbiot station``: the factory provisioning station."""

from __future__ import annotations

import asyncio
import getpass
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import asdict
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from nbiot.cli.common import errors, output_options, run, stack
from nbiot.errors import BadInput, NbiotError, StationError

if TYPE_CHECKING:
    from rich.console import Console

    from nbiot.station.config import Config
    from nbiot.station.runner import Station
    from nbiot.station.store import Store
    from nbiot.station.web import Operated

T = TypeVar("T")

DEFAULT = "station.toml"
NEEDED = ("sqlalchemy", "aiosqlite", "alembic", "cryptography", "starlette", "uvicorn", "segno")
SPARE = 20  # identities in the demo's pool that nobody needs
NOT_ALL_PASSED = 1  # exit code of `demo --once`
CONTRADICTIONS = 1  # exit code of `check`
_FILE = click.Path(path_type=Path)
_CONFIG = click.option(
    "--config",
    "path",
    type=_FILE,
    default=Path(DEFAULT),
    show_default=True,
    envvar="NBIOT_STATION_CONFIG",
    show_envvar=True,
    help="The station file.",
)
_WHY = stack(
    (
        click.option("--why", required=True, help="The reason; it stays in the audit trail."),
        click.option("--who", default=None, help="Default: the user who types this."),
    )
)

_YES = click.option("--yes", "-y", is_flag=True, help="Do not ask.")


@click.group("station", context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """The factory provisioning station: boards in slots get an identity each, and prove it.

    \b
        nbiot station demo             # eight emulated slots, the operator's page included
        nbiot station init             # writes station.toml and recipe.toml, makes the database
        nbiot station import ids.csv   # identities into the pool
        nbiot station run

    docs/station.md tells each key of both files.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise StationError(
            f"the station needs packages that are not installed: {', '.join(missing)}",
            hint="Type: pip install 'nbiot-driver[station]'",
        )


# --- init -------------------------------------------------------------------------------------


@command.command("init", short_help="Write station.toml and recipe.toml; make key and database.")
@_CONFIG
@click.option("--name", default=None, help="The station's name. Default: this machine's.")
def init(path: Path, name: str | None) -> None:
    """Write station.toml and recipe.toml, and make the key of the vault and the tables.

    Never over a file that exists: with a station.toml that you wrote, it makes what is missing.
    """
    from nbiot.station.store import migrate  # noqa: F401  # takes a while: not in the event loop

    run(_init(path, name))


async def _init(path: Path, name: str | None) -> None:
    from nbiot.station import setup

    made = await setup.write_files(path, name)
    for file in made:
        click.echo(f"{file} is written; look it over.")
    config = await asyncio.to_thread(_config, path)
    for words in await setup.make_parts(config):
        click.echo(words)
    click.echo("Next: nbiot station import FILE.csv, nbiot station doctor, nbiot station run")


# --- identities -------------------------------------------------------------------------------


@command.command("import", short_help="Put identities from a CSV file into the pool.")
@_CONFIG
@click.argument("file", type=_FILE)
@click.option("--skip-bad", is_flag=True, help="Import the good rows although others are bad.")
@output_options
def import_(path: Path, file: Path, skip_bad: bool, as_json: bool, quiet: bool) -> None:
    """Put identities into the pool: a CSV with the header product_key,device_key,device_secret.

    Every bad row is told with its line, and then nothing is imported. The same file again changes
    nothing.
    """
    del quiet
    with errors(as_json=as_json):
        config = _config(path)
    sys.exit(run(_import(config, file, skip_bad, as_json), as_json=as_json))


async def _import(config: Config, file: Path, skip_bad: bool, as_json: bool) -> int:
    from nbiot.station.identities import import_csv

    async with _store(config) as store:
        report = await import_csv(store, file, skip_bad=skip_bad, who=_who(None))
    problems, added, unchanged = report.problems, report.added, report.unchanged
    if as_json:
        bad = [{"line": problem.line, "why": problem.why} for problem in problems]
        counts = {"added": added, "unchanged": unchanged, "problems": bad}
        click.echo(json.dumps({"ok": not problems, **counts}))
    else:
        for problem in problems:
            click.echo(f"{file}: {problem}", err=True)
        click.echo(f"{added} added, {unchanged} were there, {len(problems)} bad rows")
        if problems and not added:
            click.echo("Nothing is imported. Mend the rows, or give --skip-bad.", err=True)
    return BadInput.exit_code if problems and not (skip_bad and added + unchanged) else 0


@command.command("register", short_help="Register devices at EnOS, into the pool.")
@_CONFIG
@click.argument("device_keys", metavar="DEVICE_KEY...", nargs=-1, required=True)
@output_options
def register(path: Path, device_keys: tuple[str, ...], as_json: bool, quiet: bool) -> None:
    """Register devices at EnOS by its REST interface, and put their identities into the pool.

    A device that EnOS has already is fetched. The table [identities] of the station file says how
    EnOS is reached. With from = "register" there, `run` registers each board by its IMEI itself.
    """
    del quiet
    with errors(as_json=as_json):
        config = _config(path)
    run(_register(config, device_keys, as_json), as_json=as_json)


async def _register(config: Config, device_keys: tuple[str, ...], as_json: bool) -> None:
    from nbiot.station.runner import registrar_of
    from nbiot.station.store import Identity

    if config.rest is None or config.product_key is None:
        raise BadInput(
            "identities", "a pool", 'from = "register" and what belongs to it', hint=_EXAMPLE_REST
        )
    registrar = await asyncio.to_thread(registrar_of, config.rest)
    done = []
    async with registrar as rest, _store(config) as store:
        for key in device_keys:
            found = await rest.register(config.product_key, key, key)
            await store.add([Identity(config.product_key, key, found)], who=_who(None))
            done.append(key)
            if not as_json:
                click.echo(f"{key} is registered")
    if as_json:
        click.echo(json.dumps({"ok": True, "registered": done}))


_EXAMPLE_REST = 'See docs/station.md, "Registering at EnOS".'


@command.command("give-back", short_help="Take an identity out of use for ever.")
@_CONFIG
@click.argument("device_key")
@_WHY
def give_back(path: Path, device_key: str, why: str, who: str | None) -> None:
    """Take an identity out of use for ever; the board that had it may get another one."""
    _with_store(path, lambda store: store.give_back(device_key, who=_who(who), why=why))
    click.echo(f"{device_key} is out of use.")


@command.command("allow-retry", short_help="Let a board run again with another SIM.")
@_CONFIG
@click.argument("device_key")
@_WHY
def allow_retry(path: Path, device_key: str, why: str, who: str | None) -> None:
    """Let the next board with this identity's IMEI have it, whatever SIM it shows, proven or not.

    A station refuses that by itself: two boards may carry one IMEI.
    """
    _with_store(path, lambda store: store.allow_retry(device_key, who=_who(who), why=why))
    click.echo(f"The next run of the board of {device_key} gets it.")


@command.command("retire-pool", short_help="Take the whole pool out of use: after a restore.")
@_CONFIG
@_WHY
@_YES
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def retire_pool(path: Path, why: str, who: str | None, yes: bool, as_json: bool) -> None:
    """Take every identity out of use, for ever, that no board has as this database knows it.

    For a database that was restored from a backup: what was given out after the backup was made
    looks free in it, and would be given out a second time. Then import fresh identities.
    """
    if not yes:
        counts = _with_store(path, lambda store: store.counts(), as_json)
        found = counts.free + counts.claimed + counts.reserved
        with errors(as_json=as_json):
            _confirmed(f"{found} identities are never given out again. Retire them?")
    count = _with_store(path, lambda store: store.retire_pool(who=_who(who), why=why), as_json)
    if as_json:
        click.echo(json.dumps({"ok": True, "retired": count}))
        return
    click.echo(f"{count} identities are out of use.")
    click.echo("Next: nbiot station import FILE.csv, with identities that were never in use.")


@command.command("audit", short_help="Who did what with which identity.")
@_CONFIG
@click.argument("device_key", required=False)
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def audit(path: Path, device_key: str | None, limit: int, as_json: bool) -> None:
    """The audit trail, newest first: of one identity, or of all."""
    entries = _with_store(path, lambda store: store.audit(device_key, limit=limit), as_json)
    for entry in entries:
        if as_json:
            click.echo(json.dumps(asdict(entry)))
            continue
        parts = (_when(entry.at), entry.action, f"{entry.from_state}>{entry.to_state}")
        where = "/".join(filter(None, (entry.station, entry.slot)))
        who = (entry.device_key, entry.imei, where, entry.who, entry.why)
        click.echo("  ".join(part for part in (*parts, *who) if part and part != ">"))


@command.command("export", short_help="All identities, or all results; never a secret.")
@_CONFIG
@click.option(
    "--format",
    "kind",
    type=click.Choice(["csv", "json", "records", "openhtf"]),
    default="csv",
    show_default=True,
    help="Identities as CSV or JSON lines; results as our JSON lines, or as OpenHTF's.",
)
@click.option("--out", type=_FILE, default=None, help="Default: standard output.")
def export(path: Path, kind: str, out: Path | None) -> None:
    """Write all identities with state and board, or the results of all runs. Never a secret."""
    config = _config(path)
    run(_export(config, kind, out))


async def _export(config: Config, kind: str, out: Path | None) -> None:
    from nbiot.station import setup

    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(_store(config))
        if out is None:
            await setup.export(store, kind, sys.stdout)
            return
        with await asyncio.to_thread(_new_file, out) as file:
            await setup.export(store, kind, file)


def _new_file(path: Path) -> Any:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    except OSError as error:
        allowed = f"a file that can be written ({error.strerror})"
        raise BadInput("out", str(path), allowed) from None
    return open(fd, "w", encoding="utf-8", newline="")


# --- upkeep -----------------------------------------------------------------------------------


@command.command("rotate-key", short_help="Encrypt all secrets with a new key.")
@_CONFIG
@click.option("--out", type=_FILE, default=None, help="The new key file. Default: beside the old.")
@click.option("--who", default=None, help="Default: the user who types this.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def rotate_key(path: Path, out: Path | None, who: str | None, as_json: bool) -> None:
    """Make a new key, and encrypt all secrets of the database with it, in one transaction.

    Stop the stations before. The old key file stays: backups that were made before need it.
    """
    with errors(as_json=as_json):
        config = _config(path)
    run(_rotate_key(config, out, _who(who), as_json), as_json=as_json)


async def _rotate_key(config: Config, out: Path | None, who: str, as_json: bool) -> None:
    from nbiot.station.upkeep import rotate_key

    done = await rotate_key(config, out, who=who)
    if as_json:
        click.echo(json.dumps({"ok": True, **asdict(done)}))
        return
    click.echo(f"{done.secrets} secrets are encrypted with the new key {done.key_id}.")
    click.echo(f"Put this into {config.path}, before the first [table]:")
    click.echo(f"  vault = {json.dumps(done.vault)}")
    click.echo("All stations of the line need this file and this line; until then they claim none.")
    if done.stations:
        click.echo(f"Those that reported within a day: {', '.join(done.stations)}")
    click.echo(f"Keep {done.old_vault} (key {done.old_key_id}): older backups need it.")


@command.command("outbox", short_help="Results that wait for the database, and why.")
@_CONFIG
@click.option("--readmit", is_flag=True, help="Try again what was set aside.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def outbox(path: Path, readmit: bool, as_json: bool) -> None:
    """Results of this station that the database has not got yet; the station may run meanwhile.

    What the database would not take is set aside, with its error, so that it holds up nothing.
    Once the cause is gone, --readmit has it tried again.
    """
    from nbiot.station import outbox as outboxes

    with errors(as_json=as_json):
        file = _config(path).state / "outbox.db"
        readmitted = outboxes.readmit(file) if readmit else 0
        records, running = outboxes.look(file)
    if as_json:
        found = {
            "readmitted": readmitted,
            "waiting": [asdict(record) for record in records if record.error is None],
            "set_aside": [asdict(record) for record in records if record.error is not None],
            "not_ended": running,
        }
        click.echo(json.dumps({"ok": True, **found}))
        return
    if readmit:
        click.echo(
            f"{readmitted} results are tried again: with the next result, or when the station is "
            "started."
        )
    for record in records:
        known = (record.outcome, record.imei, record.device_key, f"run {record.id}")
        click.echo("  ".join((_when(record.put), *filter(None, known))))
        if record.error is not None:
            click.echo(f"{'':21}set aside: {record.error}")
    aside = sum(record.error is not None for record in records)
    click.echo(
        f"{len(records) - aside} results wait, {aside} were set aside,"
        f" {len(running)} runs have not ended"
    )


@command.command("check", short_help="Look for what must never be.")
@_CONFIG
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def check(path: Path, as_json: bool) -> None:
    """Look for contradictions: an identity that two boards had, a proven one without a run.

    It reads the whole database. Exit code 1 if there is one.
    """
    found = _with_store(path, lambda store: store.contradictions(), as_json)
    if as_json:
        click.echo(json.dumps({"ok": not found, "contradictions": found}))
    else:
        for words in found:
            click.echo(words)
        click.echo(f"{len(found)} contradictions")
    sys.exit(CONTRADICTIONS if found else 0)


# --- running ----------------------------------------------------------------------------------


@command.command("run", short_help="Run the station.")
@_CONFIG
@click.option("--recipe", type=_FILE, default=None, help="Default: as the station file says.")
@click.option("--no-ui", is_flag=True, help="No page: draw the slots on this terminal.")
@click.option("--host", default=None, help="Where the page listens. Default: the station file's.")
@click.option("--port", type=click.IntRange(0, 65535), default=None, help="Likewise; 0: any.")
@click.option("--operator", default="", help="Who works here; it stands in the records.")
@click.option("--quiet", "-q", is_flag=True, help="Nothing on the terminal.")
def run_(
    path: Path,
    recipe: Path | None,
    no_ui: bool,
    host: str | None,
    port: int | None,
    operator: str,
    quiet: bool,
) -> None:
    """Run the station until Ctrl-C: boards that are in it are let go then.

    The operator's page is at http://127.0.0.1:8642 unless the station file says otherwise.
    """
    config = _config(path)
    logging_on(results=quiet)
    run(_run(config, recipe, no_ui, host, port, operator, quiet))


async def _run(
    config: Config,
    recipe: Path | None,
    no_ui: bool,
    host: str | None,
    port: int | None,
    operator: str,
    quiet: bool,
) -> None:
    from nbiot.station import recipe as recipes
    from nbiot.station.deploy import watched
    from nbiot.station.runner import Station

    found = await asyncio.to_thread(recipes.load, recipe or config.recipe)
    async with Station(config, found, operator=operator) as station:
        parts = [station.run(), watched()]
        console = _console()
        if not quiet:
            from nbiot.station.console import draw

            parts.append(draw(station.board, console=console))
        if not no_ui:
            parts.append(_page(station, host, port, console))
        await _together(parts)


def _console() -> Console:
    """Standard error, for all who write there: while a table is drawn, lines go above it."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


async def _page(station: Station, host: str | None, port: int | None, console: Console) -> None:
    """The operator's page, until cancelled."""
    from nbiot.signing import secret_from

    web = await asyncio.to_thread(import_module, "nbiot.station.web")  # it takes a while
    operated: Operated = station
    screen = station.config.screen
    pin = None
    if screen.pin is not None:
        pin = await asyncio.to_thread(secret_from, screen.pin)
    await web.serve(
        operated,
        host=host or screen.host,
        port=screen.port if port is None else port,
        token=pin,
        on_ready=lambda address: console.print(f"The operator's page: {address}"),
    )


async def _together(parts: list[Coroutine[Any, Any, None]]) -> None:
    """All of them, until one fails or this is cancelled."""
    try:
        async with asyncio.TaskGroup() as tasks:
            for part in parts:
                tasks.create_task(part)
    except BaseExceptionGroup as group:
        found: BaseException | None = group.subgroup(NbiotError)
        while isinstance(found, BaseExceptionGroup):
            found = found.exceptions[0]
        raise found or group from None


def logging_on(*, results: bool = False) -> None:
    """What goes wrong inside is told on standard error; systemd's journal keeps it.

    results: of each run, too, for where no terminal shows the slots
    """
    import logging

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    if results:
        logging.getLogger("nbiot.station").setLevel(logging.INFO)


@command.command("status", short_help="Identities, and all stations of the line.")
@_CONFIG
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def status(path: Path, as_json: bool) -> None:
    """How many identities are in which state, and how each station of the line last was."""

    async def ask(store: Store) -> tuple[Any, Any]:
        return await store.counts(), await store.stations()

    counts, stations = _with_store(path, ask, as_json)
    if as_json:
        rows = [
            {
                "name": row.name,
                "host": row.host,
                "age": row.age,
                "view": asdict(row.view),
                "slots": {slot.name: slot.state.value for slot in row.slots},
            }
            for row in stations
        ]
        click.echo(json.dumps({"ok": True, "identities": asdict(counts), "stations": rows}))
        return
    click.echo("identities: " + ", ".join(f"{n} {name}" for name, n in asdict(counts).items() if n))
    for row in stations:
        view = row.view
        click.echo(
            f"station {row.name} on {row.host}, {row.age:.0f} s ago: {view.passed} passed,"
            f" {view.failed} failed today, {view.undelivered} results wait"
        )
        click.echo("  " + ", ".join(f"{slot.name} {slot.state.value}" for slot in row.slots))


@command.command("label", short_help="Print a board's label again, or look at it.")
@_CONFIG
@click.argument("board", metavar="IMEI|RECORD")
@click.option("--png", type=_FILE, default=None, help="Write a picture of it instead.")
@click.option("--copies", type=click.IntRange(1, 20), default=1, show_default=True)
def label(path: Path, board: str, png: Path | None, copies: int) -> None:
    """Print the label of a board again: by its IMEI (its last run), or by the id of a run."""
    config = _config(path)
    run(_label(config, board, png, copies))


async def _label(config: Config, board: str, png: Path | None, copies: int) -> None:
    from nbiot.station.labels import Label, Size
    from nbiot.station.labels import png as drawn
    from nbiot.station.runner import printer_of

    async with _store(config) as store:
        found = await store.record(board) if len(board) == 36 else None
        if found is None:
            runs = await store.records(search=board, limit=20)
            found = next((r for r in runs if r.imei == board and r.device_key), None)
    if found is None:
        raise BadInput("board", board, "the IMEI of a board that has an identity, or a run's id")
    made = Label.of(found)
    if png is not None:
        paper = config.paper
        picture = await asyncio.to_thread(drawn, made, Size(paper.width, paper.height), paper.dpi)
        await asyncio.to_thread(png.write_bytes, picture)
        click.echo(f"{png} is written.")
        return
    printer = await asyncio.to_thread(printer_of, config)
    if printer is None:
        raise BadInput(
            "printer", "none in the station file", "zpl://HOST, cups://QUEUE or file:FOLDER"
        )
    await printer.print(made, copies)
    click.echo(f"The label of {found.imei} ({found.device_key}) is printed.")


@command.command("doctor", short_help="Is everything ready for a run?")
@_CONFIG
@output_options
def doctor(path: Path, as_json: bool, quiet: bool) -> None:
    """Walk over everything that a run needs: files, key, database, ports, printer, EnOS.

    The exit code is that of the first thing that failed.
    """
    del quiet
    with errors(as_json=as_json):
        config = _config(path)
    sys.exit(run(_doctor(config, as_json), as_json=as_json))


async def _doctor(config: Config, as_json: bool) -> int:
    from nbiot.cli.doctor import MARKS
    from nbiot.station.doctor import examine

    findings = []
    async for finding in examine(config):
        findings.append(finding)
        if not as_json:
            click.echo(f"{MARKS[finding.verdict.value]}  {finding.step:18}  {finding.saw}")
            if finding.next:
                click.echo(f"{'':29}-> {finding.next}")
    code = next((f.exit_code or 1 for f in findings if f.verdict.value == "failed"), 0)
    if as_json:
        steps = [finding.as_dict() for finding in findings]
        click.echo(json.dumps({"ok": code == 0, "exit_code": code, "steps": steps}))
    return code


# --- demo -------------------------------------------------------------------------------------


def _failures(*_: Any) -> list[str]:
    return ["signal", "sim", "firmware", "imei", "twin", "silent"]


@command.command("demo", short_help="Eight emulated slots, the operator's page included.")
@click.option("--slots", type=click.IntRange(1, 64), default=8, show_default=True)
@click.option("--boards", type=click.IntRange(1, 1000), default=1, show_default=True,
              help="How many boards go through each slot.")  # fmt: skip
@click.option("--fail", type=click.Choice(_failures()), multiple=True,
              help="Something is wrong with a board; may be given several times.")  # fmt: skip
@click.option("--once", is_flag=True, help="End when all boards are through: 0 if all passed.")
@click.option("--no-ui", is_flag=True, help="No page, only the terminal.")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(0, 65535), default=8642, show_default=True)
@click.option("--speed", type=click.FloatRange(0.1, 1000), default=4.0, show_default=True,
              help="So many times as fast as real modems.")  # fmt: skip
def demo(**options: Any) -> None:
    """Eight emulated boards get an identity each, and prove it, while you look on.

    Software modems on pseudo-terminals, a stand-in for EnOS that checks each signature, a database
    in a temporary folder, and the operator's page. No board, no account, no root.
    """
    import nbiot.station.demo  # noqa: F401
    from nbiot.station.store import migrate  # noqa: F401  # takes a while: not in the event loop

    logging_on()
    sys.exit(run(_demo(**options)))


async def _demo(
    slots: int,
    boards: int,
    fail: tuple[str, ...],
    once: bool,
    no_ui: bool,
    host: str,
    port: int,
    speed: float,
) -> int:
    from nbiot.station.console import draw
    from nbiot.station.demo import Feeder, Line, Through, demo_recipe, temporary
    from nbiot.station.runner import Station

    async with AsyncExitStack() as stack:
        folder = await asyncio.to_thread(temporary, stack)
        recipe = await asyncio.to_thread(demo_recipe, folder)
        line = await stack.enter_async_context(
            Line(folder, slots=slots, boards=slots * boards + SPARE, speed=speed)
        )
        station = await stack.enter_async_context(
            Station(line.config, recipe, places=line.places, poll=0.2, health=1.0)
        )
        console = _console()
        parts = [station.run(), draw(station.board, console=console)]
        if not no_ui:
            parts.append(_page(station, host, port, console))
        feeder = Feeder(line, station.board, list(fail))
        with suppress(Through):
            await _together([*parts, feeder.feed(boards, once=once)])
    click.echo(f"{slots * boards - feeder.failed} of {slots * boards} boards passed.", err=True)
    return NOT_ALL_PASSED if feeder.failed else 0


# --- deployment -------------------------------------------------------------------------------


@command.command("install", short_help="Write the systemd unit and what belongs to it.")
@click.option("--root", type=_FILE, default=Path("/"), show_default=True, help="Write below it.")
@click.option("--user", default="nbiot", show_default=True, help="Who the station runs as.")
@click.option("--config", default="/etc/nbiot/station.toml", show_default=True)
@click.option("--slot", "slots", multiple=True, metavar="NAME=ID_PATH",
              help="A socket of a USB hub becomes /dev/nbiot/NAME; several times.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Only show what would be written.")
def install(root: Path, user: str, config: str, slots: tuple[str, ...], dry_run: bool) -> None:
    """Write the systemd unit, udev rules and folders for a station on this machine.

    docs/station-raspberry-pi.md tells the whole way.
    """
    from nbiot.station.deploy import Settings
    from nbiot.station.deploy import install as write

    for slot in slots:
        if "=" not in slot:
            raise BadInput("slot", slot, "NAME=ID_PATH")
    sockets = dict(slot.split("=", 1) for slot in slots)
    for words in write(root, Settings(user=user, config=config, slots=sockets), dry_run=dry_run):
        click.echo(words)


# --- what they share --------------------------------------------------------------------------


def _config(path: Path) -> Config:
    import nbiot.station.runner  # noqa: F401  # takes a while: not in the event loop
    from nbiot.station.config import load

    return load(path)


@asynccontextmanager
async def _store(config: Config) -> AsyncIterator[Store]:
    from nbiot.station.runner import store_of

    async with await asyncio.to_thread(store_of, config) as store:
        yield store


def _with_store(path: Path, work: Callable[[Store], Awaitable[T]], as_json: bool = False) -> T:
    """The result of ``work``; errors end the process."""
    with errors(as_json=as_json):
        config = _config(path)

    async def main() -> T:
        async with _store(config) as store:
            return await work(store)

    result: T = run(main(), as_json=as_json)
    return result


def _confirmed(question: str) -> None:
    """Ask on standard error; a no ends the process. Raises BadInput where nobody can answer."""
    try:
        click.confirm(question, abort=True, err=True)
    except click.Abort:
        if sys.stdin.isatty():
            raise
        raise BadInput("answer", "none", "y; or give --yes") from None


def _who(given: str | None) -> str:
    try:
        return given or getpass.getuser()
    except (OSError, KeyError):
        return f"uid {os.getuid()}"


def _when(seconds: float) -> str:
    import time

    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
