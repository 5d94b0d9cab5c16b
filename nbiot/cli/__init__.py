"""The command ``nbiot``. Each subcommand is a module of its own, imported when it is used."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import click

# name: (module with a click command, which is ``command`` unless named behind a colon; one line
# for the list)
COMMANDS = {
    "auth": ("nbiot.cli.auth", "Authenticate a device to EnOS through a modem."),
    "activate": ("nbiot.cli.activate", "Fetch a device's secret by its product's (DTLS)."),
    "report": ("nbiot.cli.report", "Report measurepoints or an event to EnOS."),
    "raw": ("nbiot.cli.raw", "Send bytes to EnOS (products of data type Custom)."),
    "attributes": ("nbiot.cli.stored:attributes", "Read, set or delete a device's attributes."),
    "tags": ("nbiot.cli.stored:tags", "Read, set or delete a device's tags."),
    "commands": ("nbiot.cli.commands", "Stay online and carry out commands from EnOS."),
    "cost": ("nbiot.cli.cost", "Measure what authentications and reports cost, per modem."),
    "cloud": ("nbiot.cli.cloud", "Run a stand-in for EnOS, to try things without an account."),
    "info": ("nbiot.cli.info", "Show modem, SIM, signal and registration."),
    "doctor": ("nbiot.cli.doctor", "Walk from the port to the cloud and say where it ends."),
    "ports": ("nbiot.cli.ports", "List serial ports and which of them answer as modems."),
    "rig": ("nbiot.cli.rig", "Write and check the file of a test rig; switch its modems."),
    "hil": ("nbiot.cli.hil", "Run the test suite on modems in a rig, or on software modems."),
    "station": ("nbiot.cli.station", "Give boards their identities: the factory's station."),
    "at": ("nbiot.cli.at", "Send AT commands and print what comes back."),
    "profiles": ("nbiot.cli.profiles", "List the modems this driver knows, and on what evidence."),
    "capture": ("nbiot.cli.capture", "Record what a modem says, redacted, to share it."),
    "emulate": ("nbiot.cli.emulate", "Run software modems on pseudo-terminals or network ports."),
    "trace": ("nbiot.cli.trace", "Show, convert and redact files of --trace; make tests of them."),
    "replay": ("nbiot.cli.replay", "Run today's driver against a recorded dialogue."),
    "demo": ("nbiot.cli.demo", "Authenticate a device through an emulated BC95 and BC66."),
}


class LazyGroup(click.Group):
    """A group that imports a subcommand only when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[name][0].partition(":")
        command: click.Command = getattr(import_module(module), attribute or "command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list in --help, without importing a thing."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            raise click.UsageError(f"no command {args[0]!r}; there are {', '.join(COMMANDS)}", ctx)
        return super().resolve_command(ctx, args)


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from nbiot import __version__

        click.echo(f"nbiot {__version__}")
        ctx.exit()


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: docs/exit-codes.md. Completion in bash:"
    ' eval "$(_NBIOT_COMPLETE=bash_source nbiot)".',
)
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_version,
    help="Show the version and exit.",
)
def nbiot() -> None:
    """NB-IoT modems on a serial port: find them, attach them, authenticate devices to EnOS."""


def main(args: list[str] | None = None) -> Any:
    """Entry point. Exits with the code of the error's class."""
    from nbiot.errors import NbiotError

    try:
        return nbiot.main(args=args, prog_name="nbiot", standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo(err=True)
        sys.exit(130)
    except BrokenPipeError:  # `nbiot ... | head`
        sys.stderr.close()
        sys.exit(141)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except NbiotError as error:
        click.echo(f"nbiot: {error}", err=True)
        sys.exit(error.exit_code)
