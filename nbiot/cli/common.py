"""What the subcommands share: options, progress, errors, Ctrl-C."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nbiot.errors import BadInput, NbiotError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from nbiot.modem import Modem
    from nbiot.profile import Progress
    from nbiot.trace import FileTracer

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def models(_: click.Context, __: click.Parameter, begun: str) -> list[CompletionItem]:
    """Completes the name of a profile."""
    from click.shell_completion import CompletionItem

    from nbiot.modem import profiles

    return [CompletionItem(name) for name in ("auto", *profiles()) if name.startswith(begun)]


_PORT_OPTIONS = (
    click.option(
        "--port",
        required=True,
        envvar="NBIOT_PORT",
        show_envvar=True,
        metavar="PORT",
        help="Serial port such as /dev/ttyUSB0 or /dev/serial/by-id/..., socket://HOST:PORT,"
        " rfc2217://HOST:PORT, emulator:bc95 or replay:FILE.",
    ),
    click.option(
        "--modem",
        "model",
        default="auto",
        show_default=True,
        shell_complete=models,
        help="Profile, or auto.",
    ),
    click.option(
        "--baud", type=int, default=None, help="bit/s. Default: what the profiles name, in turn."
    ),
    click.option(
        "--trace",
        type=click.Path(dir_okay=False, path_type=Path),
        default=None,
        help="Write the AT dialogue to this file, one JSON object a line.",
    ),
)

_QUIET = click.option("--quiet", "-q", is_flag=True, help="No progress on standard error.")


def stack(options: tuple[Decorator, ...]) -> Decorator:
    """Several decorators as one; the first comes first in --help."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


port_options = stack(_PORT_OPTIONS)


def output_options_as(json_help: str) -> Decorator:
    """--json, in the words of a command that prints something else than one object; --quiet."""
    return stack((click.option("--json", "as_json", is_flag=True, help=json_help), _QUIET))


output_options = output_options_as("One JSON object on standard output.")


@contextmanager
def errors(*, as_json: bool = False) -> Iterator[None]:
    """Errors inside the block end the process: in words, or as one JSON object."""
    try:
        yield
    except NbiotError as error:
        if as_json:
            click.echo(json.dumps(error_dict(error)))
        else:
            click.echo(f"nbiot: {error}", err=True)
        sys.exit(error.exit_code)


def run(main: Coroutine[Any, Any, Any], *, as_json: bool = False) -> Any:
    """Run ``main``; on Ctrl-C or SIGTERM let it clean up first. Errors end the process."""
    with errors(as_json=as_json):
        try:
            return asyncio.run(_with_sigterm(main))
        except KeyboardInterrupt:
            click.echo("nbiot: interrupted; sockets are closed and the port is released", err=True)
            sys.exit(130)
        except asyncio.CancelledError:
            click.echo("nbiot: terminated; sockets are closed and the port is released", err=True)
            sys.exit(143)


async def _with_sigterm(main: Coroutine[Any, Any, Any]) -> Any:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await main


def error_dict(error: NbiotError) -> dict[str, Any]:
    """An error for JSON."""
    found: dict[str, Any] = {
        "ok": False,
        "error": type(error).__name__,
        "message": error.message,
        "hint": error.hint,
        "exit_code": error.exit_code,
    }
    code = getattr(error, "code", None)
    return found | ({"code": code} if code is not None else {})


# --- progress -------------------------------------------------------------------------------


@contextmanager
def progress(*, quiet: bool, live: bool = True) -> Iterator[Callable[[Progress], None]]:
    """A listener that shows each step on standard error: live in a terminal, else plain lines.

    While it is live, nothing must be written to standard output: rich would take it.
    """
    if quiet:
        yield lambda _: None
    elif live and sys.stderr.isatty():
        with _live() as report:
            yield report
    else:
        yield lambda step: click.echo(f"{step.step}: {step.text}", err=True)


_WAITING = {
    "port": "looking for the modem",
    "modem": "preparing the modem",
    "radio": "waiting for the SIM",
    "sim": "joining the network",
    "searching": "joining the network",
    "denied": "the modem tries on",
    "restarting": "waiting for the modem",
    "waiting": "waiting, because EnOS would refuse",
    "registered": "waiting for an address",
    "address": "connecting",
    "resolved": "connecting",
    "sent": "waiting for the server",
    "retransmitted": "waiting for the server",
    "acknowledged": "waiting for the response",
}
_MARKS = {
    "denied": "[red]✗[/]",
    "failed": "[red]✗[/]",
    "searching": "[yellow]…[/]",
    "waiting": "[yellow]…[/]",
    "restarting": "[yellow]…[/]",
    "retransmitted": "[yellow]…[/]",
    "signal": "[dim]·[/]",
}


@contextmanager
def _live() -> Iterator[Callable[[Progress], None]]:
    from rich.console import Console
    from rich.markup import escape

    console = Console(stderr=True, highlight=False)
    with console.status("opening the port") as status:

        def report(step: Progress) -> None:
            console.print(f"{_MARKS.get(step.step, '[green]✓[/]')} {escape(step.text)}")
            if step.step in _WAITING:
                status.update(_WAITING[step.step])

        yield report


# --- a modem for a subcommand ---------------------------------------------------------------


@contextmanager
def tracing(
    path: Path | None, *, port: str, model: str, baud: int | None
) -> Iterator[FileTracer | None]:
    """A trace of the AT dialogue in ``path``, if one is given."""
    if path is None:
        yield None
        return
    import time

    from nbiot.trace import FileTracer

    try:
        about = {"command": click.get_current_context().info_name or "", "model": model}
        tracer = FileTracer(path, time.monotonic, port=port, baudrate=baud, about=about)
    except OSError as error:
        raise BadInput(
            "trace", str(path), f"a file that can be written ({error.strerror})"
        ) from None
    try:
        yield tracer
    finally:
        tracer.close()


@contextmanager
def modem_from(
    port: str, model: str, baud: int | None, trace: Path | None, *, quiet: bool
) -> Iterator[Modem]:
    """The modem that the options name, still closed."""
    from nbiot.modem import Modem

    with (
        progress(quiet=quiet) as report,
        tracing(trace, port=port, model=model, baud=baud) as tracer,
    ):
        yield Modem(port, model=model, baudrate=baud, report=report, tracer=tracer)
