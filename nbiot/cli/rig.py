"""``nbiot rig``: the modems of a test rig, where they are and how they are switched."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nbiot.cli.common import errors, output_options, progress, run
from nbiot.errors import BadInput, NbiotError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from hil.examine import Examined
    from hil.rig import Rig, Slot
    from nbiot.link.ports import PortInfo

DEFAULT = "rig.toml"
_FILE = click.Path(path_type=Path)


def _slots(ctx: click.Context, _: click.Parameter, begun: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    from hil.rig import load

    try:
        rig = load(Path(ctx.params.get("rig") or DEFAULT), ports=False)
    except NbiotError:
        return []
    return [CompletionItem(slot.name) for slot in rig.slots if slot.name.startswith(begun)]


_RIG = click.option(
    "--rig", type=_FILE, default=Path(DEFAULT), show_default=True, help="The rig file."
)


@click.group("rig", context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """The modems of a test rig: which there are, where they are plugged in, how they are switched.

    \b
        nbiot rig init            # writes rig.toml from what is plugged in
        nbiot rig check           # tries each slot
        nbiot rig power roof cycle

    docs/rig.md tells each key of the file.
    """


# --- init -------------------------------------------------------------------------------------


@command.command("init", short_help="Write a rig.toml from what is plugged in.")
@click.option("--out", type=_FILE, default=Path(DEFAULT), show_default=True)
@click.option("--probe", is_flag=True, help="Ask each port which modem is there.")
def init(out: Path, probe: bool) -> None:
    """Write a commented rig.toml from what is plugged in; never over a file that exists.

    Without any serial port, it gets the emulated modems.
    """
    if os.path.lexists(out):  # before anything is probed
        raise _exists(out)
    run(_init(out, probe))


async def _init(out: Path, probe: bool) -> None:
    from nbiot.link.ports import list_ports_async

    ports = await list_ports_async()
    said: list[Any] = [None] * len(ports)
    if probe:
        said = await asyncio.gather(*(_probe(port.by_id or port.path) for port in ports))
    await asyncio.to_thread(_write_new, out, _text_of(ports, said))
    if not ports:
        click.echo(f"No serial port is plugged in: {out} has the emulated modems.")
    else:
        silent = sum(isinstance(answer, NbiotError) for answer in said)
        hidden = f", {silent} of them as comments: no modem answered there" if silent else ""
        count = "1 port" if len(ports) == 1 else f"{len(ports)} ports"
        click.echo(f"{out} has {count}{hidden}.")
    to_type = "nbiot rig check" + ("" if out == Path(DEFAULT) else f" {out}")
    click.echo(f"Next: look it over, then type: {to_type}")


async def _probe(path: str) -> tuple[str, str] | NbiotError:
    """(profile, what the modem says it is), or why there is none."""
    from hil.lock import locked
    from nbiot.modem import Modem

    click.echo(f"asking {path}", err=True)
    try:
        with ExitStack() as stack:
            await asyncio.to_thread(stack.enter_context, locked(path))
            async with Modem(path) as modem:
                return modem.profile.name, f"{modem.identity.model} {modem.identity.firmware}"
    except NbiotError as error:
        return error


def _write_new(out: Path, text: str) -> None:
    try:
        fd = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise _exists(out) from None
    except OSError as error:
        raise BadInput("out", str(out), f"a file that can be made ({error.strerror})") from None
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.write(text)


def _exists(out: Path) -> BadInput:
    return BadInput("out", str(out), "a file that does not exist yet: nothing is overwritten")


_HEAD = """\
# The modems of this rig; docs/rig.md tells each key. Check it with: nbiot rig check
"""
_KEYS = """\
# apn = "..."                          # else the network's own
# server = "HOST[:PORT]"               # EnOS or another CoAP server
# product_key = "..."
# secret = "env:NBIOT_DEVICE_SECRET"   # or file:PATH, keyring:SERVICE/USER; never the secret itself
# power = { backend = "usb-hub", location = "1-1", port = 2 }
# reset = { backend = "gpio", pin = "GPIO17" }
"""


def _text_of(ports: list[PortInfo], said: list[Any]) -> str:
    if not ports:
        return _emulated_text()
    blocks, used = [_HEAD], set[str]()
    for number, (port, answer) in enumerate(zip(ports, said, strict=True), 1):
        profile, about = answer if isinstance(answer, tuple) else ("auto", "")
        stem = profile if about else f"slot{number}"
        name = next(n for n in (stem, *(f"{stem}-{i}" for i in range(2, 1000))) if n not in used)
        used.add(name)
        lines = [f"[slot.{name}]  # {_comment(about or port.description)}"]
        lines.append(f"port = {_quoted(port.by_id or port.path)}")
        if about:
            lines.append(f"modem = {_quoted(profile)}")
        lines += _KEYS.splitlines()
        if isinstance(answer, NbiotError):
            lines = [f"# no modem: {_comment(answer.message)}"] + [f"# {line}" for line in lines]
        blocks.append("\n".join(lines) + "\n")
    return "\n".join(blocks)


def _emulated_text() -> str:
    from hil.rig import emulated_rig

    blocks = [_HEAD + "# No serial port was plugged in when it was written: these are emulated.\n"]
    for slot in emulated_rig().slots:
        blocks.append(
            f"[slot.{slot.name}]\nport = {_quoted(slot.port)}\nmodem = {_quoted(slot.modem)}\n"
        )
    return "\n".join(blocks)


def _quoted(text: str) -> str:
    """A basic string of TOML; what JSON escapes, it escapes likewise."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _comment(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)


# --- check ------------------------------------------------------------------------------------


@command.command("check", short_help="Try each slot: port, modem, SIM, supply.")
@click.argument("rig", type=_FILE, required=False)
@output_options
def check(rig: Path | None, as_json: bool, quiet: bool) -> None:
    """Try each slot of RIG (rig.toml): is its port there and free, does the modem that is stated
    answer, has it a SIM, can its supply be switched. Nothing is switched but radios on.

    Without a rig.toml here, the emulated modems are tried. The exit code is that of the first
    thing that failed.
    """
    with errors(as_json=as_json):
        found = _rig_or_emulated(rig)
    if found.path is None and not as_json:
        click.echo(f"There is no {DEFAULT} here: these are emulated modems.", err=True)
    sys.exit(run(_check(found, as_json, quiet), as_json=as_json))


def _rig_or_emulated(path: Path | None) -> Rig:
    from hil.rig import emulated_rig, load

    if path is None and not os.path.lexists(DEFAULT):
        return emulated_rig()
    return load(path or Path(DEFAULT), ports=False)


async def _check(rig: Rig, as_json: bool, quiet: bool) -> int:
    from hil.examine import examine
    from nbiot.profile import Progress

    with progress(quiet=quiet) as report:

        def told(slot: Slot, text: str, error: NbiotError | None) -> None:
            report(Progress("failed" if error else "slot", f"{slot.name}: {text}"))

        slots = await examine(rig, told)
    code = next((slot.exit_code for slot in slots if slot.exit_code), 0)
    if as_json:
        path = None if rig.path is None else str(rig.path)
        records = [slot.as_dict() for slot in slots]
        click.echo(json.dumps({"ok": not code, "exit_code": code, "rig": path, "slots": records}))
    else:
        click.echo(_table(slots))
    return code


def _table(slots: list[Examined]) -> str:
    from hil.examine import COLUMNS

    rows = [["slot", *COLUMNS]]
    for found in slots:
        cells = ["FAILED" if c in found.errors else found.saw.get(c, "?") for c in COLUMNS]
        rows.append([found.slot.name, *cells])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    for found in slots:
        for column, error in found.errors.items():
            lines.append(f"\n{found.slot.name}, {column}: {error.message}")
            lines += [f"    {line}" for line in error.hint.splitlines()]
    return "\n".join(lines)


# --- power and reset --------------------------------------------------------------------------


@command.command("power", short_help="Switch the supply of a slot's modem.")
@click.argument("slot", shell_complete=_slots)
@click.argument("action", type=click.Choice(["on", "off", "cycle"]))
@_RIG
@click.option(
    "--seconds", type=float, default=5.0, show_default=True, help="How long a cycle keeps it off."
)
def power(slot: str, action: str, rig: Path, seconds: float) -> None:
    """Switch the supply of a slot's modem on or off, or off and on again."""
    run(_power(rig, slot, action, seconds))


async def _power(rig: Path, name: str, action: str, seconds: float) -> None:
    from hil.power import cycle, is_lasting, positive, power_of

    positive("seconds", seconds, 3600)
    slot = await _loaded(rig, name)
    _want(slot, "power")
    async with _ours(slot), power_of(slot) as switch:
        assert switch is not None
        if action == "cycle":
            await cycle(switch, seconds)
        elif action == "on":
            await switch.on()
        else:
            await switch.off()
        click.echo(f"{name}: {'off and on again' if action == 'cycle' else action}")
        if action == "off" and not is_lasting(slot):
            click.echo("It stays so until Ctrl-C: the pins go back when this program ends.")
            await asyncio.get_running_loop().create_future()


@command.command("reset", short_help="Pull the reset line of a slot's modem.")
@click.argument("slot", shell_complete=_slots)
@_RIG
def reset(slot: str, rig: Path) -> None:
    """Pull the reset line of a slot's modem for as long as it needs, and let go."""
    run(_reset(rig, slot))


async def _reset(rig: Path, name: str) -> None:
    from hil.power import reset_of

    slot = await _loaded(rig, name)
    _want(slot, "reset")
    async with _ours(slot), reset_of(slot) as line:
        assert line is not None
        await line.pulse()
    click.echo(f"{name}: was reset")


@asynccontextmanager
async def _ours(slot: Slot) -> AsyncIterator[None]:
    """No other run uses this slot meanwhile. A terminal program may: a person watches."""
    from hil.hosting import hosted
    from hil.lock import locked

    with ExitStack() as stack:
        await asyncio.to_thread(stack.enter_context, locked(slot.port, unused=False))
        async with hosted(slot):
            yield


async def _loaded(path: Path, name: str) -> Slot:
    from hil.rig import load

    rig = await asyncio.to_thread(load, path, ports=False)
    return rig.slot(name)


def _want(slot: Slot, key: str) -> None:
    table = getattr(slot, key)
    if slot.emulated and (table is None or table["backend"] == "emulator"):
        raise BadInput(
            "slot",
            slot.name,
            "a slot with a real modem",
            hint="An emulated modem lives in the run that uses it; none is running now.",
        )
    if table is None:
        raise BadInput(
            "slot",
            slot.name,
            f"a slot with a table {key} in the rig file",
            hint=f'For example: {key} = {{ backend = "usb-hub", location = "1-1", port = 2 }}',
        )
