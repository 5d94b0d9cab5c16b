"""``nbiot emulate``: a software modem for any AT program."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import click

from nbiot.cli.common import run
from nbiot.errors import BadInput


def _faults(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    """--list-faults"""
    if wanted and not ctx.resilient_parsing:
        from hil.faults import usage

        click.echo(usage())
        ctx.exit()


@click.command("emulate", short_help="Run a software modem on a pseudo-terminal.")
@click.argument("model")
@click.option(
    "--link",
    type=click.Path(path_type=Path),
    default=None,
    help="Also make this symbolic link to the pseudo-terminal.",
)
@click.option("--baud", type=int, default=None, help="Pace bytes as at this rate; 9600 or 115200.")
@click.option("--attached", is_flag=True, help="Joined to the network from the start.")
@click.option("--cold", is_flag=True, help="Power comes on now: print the boot banner first.")
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
@click.option("--show", is_flag=True, help="Print the commands that come in.")
def command(
    model: str,
    link: Path | None,
    baud: int | None,
    attached: bool,
    cold: bool,
    chunk_seed: int | None,
    urc_seed: int | None,
    speed: float,
    faults: tuple[str, ...],
    show: bool,
) -> None:
    """Run a software modem (bc95, bc95-g, bc66, ...) on a pseudo-terminal until Ctrl-C.

    Its path is the first line on standard output. UDP datagrams really go out, from this host;
    names are looked up by this host.
    """
    from hil.emulator import MODELS, Network, Options
    from hil.link import faulty

    if model not in MODELS:
        raise BadInput("model", model, ", ".join(MODELS))
    if baud is not None and not 300 <= baud <= 4_000_000:
        raise BadInput("baud", baud, "300 to 4000000")
    if speed <= 0:
        raise BadInput("speed", speed, "a number above 0")
    options = Options(
        baud=baud,
        attached=attached,
        boot="cold" if cold else "ready",
        chunk_seed=chunk_seed,
        urc_seed=urc_seed,
        speed=speed,
        on_bytes=_show if show else None,
    )
    options = faulty(faults, options, model)
    run(_emulate(model, options, Network(host_resolver=True), link))


async def _emulate(model: str, options: object, network: object, link: Path | None) -> None:
    from hil.emulator import PtyModem

    async with PtyModem(model, options, network) as pty:  # type: ignore[arg-type]
        if link is not None:
            await asyncio.to_thread(_make_link, link, pty.path)
        try:
            click.echo(pty.path)
            click.echo(f"{model} is ready; try: nbiot info --port {pty.path}", err=True)
            await asyncio.get_running_loop().create_future()
        finally:
            if link is not None:
                await asyncio.to_thread(link.unlink, missing_ok=True)


def _make_link(link: Path, target: str) -> None:
    if link.is_symlink():
        link.unlink()
    try:
        os.symlink(target, link)
    except OSError as error:
        raise BadInput("link", str(link), f"a path that can be made ({error.strerror})") from None


def _show(direction: str, data: bytes, _: float) -> None:
    if direction == "in":
        click.echo(f"> {data.decode('ascii', 'backslashreplace').strip()}", err=True)
