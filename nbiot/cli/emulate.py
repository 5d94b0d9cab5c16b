"""``nbiot emulate``: software modems for any AT program."""

from __future__ import annotations

import asyncio
import errno
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nbiot.cli.common import errors, run
from nbiot.errors import BadInput, NbiotError, PortBusy, PortNotPermitted

if TYPE_CHECKING:
    from hil.emulator import Emulators, Network, Options
    from hil.emulator.many import PortKind

LOOPBACK = "127.0.0.1"
ANYWHERE = ("0.0.0.0", "::")
ENDS = b"\r\n\x1a\x1b"
"""What ends a line for --show; Ctrl-Z and ESC end data after a prompt."""
LONGEST_SHOWN = 2000
"""Bytes without a line end after which --show prints what there is."""


def _faults(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    """--list-faults"""
    if wanted and not ctx.resilient_parsing:
        from hil.faults import usage

        click.echo(usage())
        ctx.exit()


@dataclass(frozen=True)
class Place:
    """Where the modems are to be had."""

    kind: PortKind
    host: str
    first: int
    count: int
    link: Path | None


_FILE = click.Path(path_type=Path)


@click.command("emulate", short_help="Run software modems on pseudo-terminals or TCP ports.")
@click.argument("model")
@click.option("--tcp", type=int, default=None, metavar="PORT", help="On this TCP port; 0: any.")
@click.option(
    "--rfc2217",
    type=int,
    default=None,
    metavar="PORT",
    help="On this TCP port, with baud rate, DTR and RTS; 0: any.",
)
@click.option(
    "--host",
    default=None,
    metavar="ADDRESS",
    help=f"Address of the TCP port.  [default: {LOOPBACK}, this machine only]",
)
@click.option(
    "--count",
    type=int,
    default=1,
    show_default=True,
    help="So many modems; TCP ports count on from PORT.",
)
@click.option(
    "--link", type=_FILE, default=None, help="Also make this symbolic link to the pseudo-terminal."
)
@click.option("--baud", type=int, default=None, help="Pace bytes as at this rate; 9600 or 115200.")
@click.option(
    "--wiring",
    "wires",
    multiple=True,
    metavar="LINE=PIN",
    help="With --rfc2217: dtr=reset, rts=psm_eint, dtr=!power, ...: docs/emulator.md.",
)
@click.option("--network", type=_FILE, default=None, help="Network to live in, a TOML file.")
@click.option("--script", type=_FILE, default=None, help="Commands of your own, a Python file.")
@click.option(
    "--nv", type=_FILE, default=None, help="Keep settings in this file, as a power cycle does."
)
@click.option("--attached", is_flag=True, help="Joined to the network from the start.")
@click.option("--cold", is_flag=True, help="Power comes on now: print the boot banner first.")
@click.option("--off", is_flag=True, help="Switched off until a wired pin changes that.")
@click.option("--chunk-seed", type=int, default=None, help="Output in random pieces.")
@click.option("--urc-seed", type=int, default=None, help="URCs at random line boundaries.")
@click.option(
    "--speed",
    type=float,
    default=1.0,
    show_default=True,
    help="Divides the modem's own waiting times.",
)
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="NAME[:KEY=VALUE,...]",
    help="A fault by name, such as late-final:probability=0.2; --list-faults tells them all.",
)
@click.option("--list-faults", is_flag=True, is_eager=True, expose_value=False, callback=_faults)
@click.option("--show", is_flag=True, help="Print the command lines that come in.")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="One JSON object on standard output as soon as all are ready, or the error.",
)
def command(
    model: str,
    tcp: int | None,
    rfc2217: int | None,
    host: str | None,
    count: int,
    link: Path | None,
    baud: int | None,
    wires: tuple[str, ...],
    network: Path | None,
    script: Path | None,
    nv: Path | None,
    attached: bool,
    cold: bool,
    off: bool,
    chunk_seed: int | None,
    urc_seed: int | None,
    speed: float,
    faults: tuple[str, ...],
    show: bool,
    as_json: bool,
) -> None:
    """Run software modems (bc95, bc95-g, bc66, ...) until Ctrl-C: on a pseudo-terminal, or on TCP.

    The port of each is a line on standard output. UDP datagrams really go out, from this host;
    names are looked up by this host.
    """
    from hil.emulator import MODELS, Network, Options
    from hil.link import faulty, network_in, script_in, stored_in

    with errors(as_json=as_json):
        if model not in MODELS:
            raise BadInput("model", model, ", ".join(MODELS))
        if baud is not None and not 300 <= baud <= 4_000_000:
            raise BadInput("baud", baud, "300 to 4000000")
        if not (math.isfinite(speed) and speed > 0):
            raise BadInput("speed", speed, "a number above 0")
        if cold and off:
            raise BadInput("off", "with --cold", "one of the two")
        place = _place(tcp, rfc2217, host, count, link)
        options = Options(
            baud=baud,
            wiring=_wiring(wires, place),
            nv=None if nv is None else stored_in(nv),
            script=None if script is None else script_in(script),
            attached=attached,
            boot="off" if off else "cold" if cold else "ready",
            chunk_seed=chunk_seed,
            urc_seed=urc_seed,
            speed=speed,
        )
        options = faulty(faults, options, model)
        surroundings = Network() if network is None else network_in(network)
        surroundings.host_resolver = True
    run(_emulate(model, options, surroundings, place, show, as_json), as_json=as_json)


def _place(
    tcp: int | None, rfc2217: int | None, host: str | None, count: int, link: Path | None
) -> Place:
    if tcp is not None and rfc2217 is not None:
        raise BadInput("rfc2217", rfc2217, "one of --tcp and --rfc2217")
    if not 1 <= count <= 10_000:
        raise BadInput("count", count, "1 to 10000")
    kind: PortKind = "tcp" if tcp is not None else "rfc2217" if rfc2217 is not None else "pty"
    first = tcp if tcp is not None else rfc2217 or 0
    if not 0 <= first <= 65536 - count:
        allowed = f"0 (any free one) to {65536 - count}, so that {count} fit"
        raise BadInput(kind, first, "0 (any free one) to 65535" if count == 1 else allowed)
    if host is not None and kind == "pty":
        raise BadInput("host", host, "with --tcp or --rfc2217")
    if link is not None and (kind != "pty" or count > 1):
        raise BadInput("link", str(link), "one modem on a pseudo-terminal")
    return Place(kind, host or LOOPBACK, first, count, link)


def _wiring(wires: tuple[str, ...], place: Place) -> dict[str, str]:
    wiring = {}
    for wire in wires:
        line, equals, pin = wire.partition("=")
        if not (line and equals and pin):
            raise BadInput("wiring", wire, "LINE=PIN, such as dtr=reset")
        if place.kind != "rfc2217":
            raise BadInput("wiring", wire, "with --rfc2217: only such a port has DTR and RTS")
        if line.lower() in wiring:
            raise BadInput("wiring", wire, f"one pin for {line}")
        wiring[line.lower()] = pin
    return wiring


async def _emulate(
    model: str, options: Options, network: Network, place: Place, show: bool, as_json: bool
) -> None:
    from hil.emulator import Emulators
    from hil.link import settings_checked

    many = Emulators(
        model,
        place.count,
        options,
        network,
        port=place.kind,
        host=place.host,
        first_port=place.first,
    )
    try:
        with settings_checked(options):
            await many.__aenter__()
    except OSError as error:
        raise _not_opened(error, place, len(many)) from None
    try:
        if show:
            for port in many:
                prefix = f"{port.url} > " if place.count > 1 else "> "
                port.modem.options.on_bytes = Shown(prefix)
        if place.link is not None:
            await asyncio.to_thread(_make_link, place.link, many.urls[0])
        _tell(model, many, place, as_json=as_json)
        await asyncio.get_running_loop().create_future()
    finally:
        if place.link is not None:
            await asyncio.to_thread(_remove_link, place.link, many.urls[0])
        await many.__aexit__(None, None, None)


def _tell(model: str, many: Emulators, place: Place, *, as_json: bool) -> None:
    if as_json:
        modems = [{"port": port.url, "imei": port.modem.options.imei} for port in many]
        click.echo(json.dumps({"ok": True, "model": model, "modems": modems}))
        return
    click.echo("\n".join(many.urls))
    ready = f"{model} is ready" if place.count == 1 else f"{place.count} {model} are ready"
    click.echo(f"{ready}; try: nbiot info --port {many.urls[0]}", err=True)
    if place.host in ANYWHERE:
        click.echo(
            "Whoever reaches this machine's address can use them; others write that address"
            f" instead of {place.host}.",
            err=True,
        )


def _not_opened(error: OSError, place: Place, opened: int) -> NbiotError:
    """The modem after the first ``opened`` ones got no port."""
    number = place.first + opened if place.first else 0
    where = f"TCP port {number} of {place.host}"
    if error.errno == errno.EADDRINUSE:
        return PortBusy(
            f"{where} is in use by another program",
            hint=f"`ss -tlnp` names it. --{place.kind} 0 takes any free port.",
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return PortNotPermitted(
            f"{where}: this user may not open it", hint="Ports from 1024 on are for everybody."
        )
    if place.kind == "pty" or error.errno in (errno.EMFILE, errno.ENFILE):
        why = f"as many as this machine has room for ({error.strerror} after {opened})"
        return BadInput("count", place.count, why, hint="`ulimit -n` limits the open files.")
    why = f"an address of this machine ({error.strerror or error})"
    return BadInput("host", place.host, why)


def _make_link(link: Path, target: str) -> None:
    if link.is_symlink():
        link.unlink()
    try:
        os.symlink(target, link)
    except OSError as error:
        raise BadInput("link", str(link), f"a path that can be made ({error.strerror})") from None


def _remove_link(link: Path, target: str) -> None:
    if link.is_symlink() and os.readlink(link) == target:
        link.unlink(missing_ok=True)


class Shown:
    """--show for one modem: a line for each command line, in whatever pieces it comes."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._line = bytearray()

    def __call__(self, direction: str, data: bytes, _: float) -> None:
        if direction != "in":
            return
        for byte in data:
            if byte not in b"\r\n":
                self._line.append(byte)
            if byte in ENDS or len(self._line) == LONGEST_SHOWN:
                self._print()

    def _print(self) -> None:
        if self._line:
            text = self._line.decode("latin-1")
            self._line.clear()
            plain = (c if " " <= c <= "~" else f"\\x{ord(c):02x}" for c in text)
            click.echo(self._prefix + "".join(plain), err=True)
