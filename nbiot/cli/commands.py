"""``nbiot commands``: a device that waits for commands from EnOS."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nbiot.cli.common import errors, output_options_as, port_options, progress, run, tracing
from nbiot.cli.enos import (
    SECRET_VARIABLE,
    Target,
    enos_options,
    hex_bytes,
    in_range,
    limit_of,
)
from nbiot.errors import (
    AuthRefused,
    BadInput,
    NbiotError,
    PortNotPermitted,
    ServerFault,
    SimError,
)
from nbiot.profile import Progress

if TYPE_CHECKING:
    from nbiot.cli.programs import Outcome, Program
    from nbiot.coap.message import Request
    from nbiot.enos import Command, Device, EnosSession
    from nbiot.enos.session import CommandStream
    from nbiot.profile import Report
    from nbiot.session import StateChange

MOST_SECONDS = 60.0  # EnOS waits no longer for an answer
NOTHING_CAME = 55  # exit code, see docs/exit-codes.md


@click.command(
    "commands",
    short_help="Stay online and carry out commands from EnOS.",
    context_settings={"allow_interspersed_args": False},
)
@click.option(
    "--exec",
    "has_program",
    is_flag=True,
    help="All that follows is a program with its arguments, to be run for each command. Give it"
    " last.",
)
@click.option("--ack", is_flag=True, help="Without --exec: answer 200 to every command.")
@click.option(
    "--once",
    is_flag=True,
    help="Stop after the first command, and those that EnOS hands over with the answer to it.",
)
@click.option("--seconds", type=float, default=None, help="Stop after that time. Default: never.")
@click.option(
    "--poll",
    type=float,
    default=60.0,
    show_default=True,
    help="Seconds between two small messages that give EnOS an occasion to hand over a command;"
    " 0 for none.",
)
@click.option(
    "--poll-raw",
    default=None,
    metavar="HEX",
    help="The small message for products of data type Custom: bytes that the parser script takes.",
)
@click.option(
    "--keep-online", is_flag=True, help="Send something before the lifetime runs out, too."
)
@click.option(
    "--timeout",
    type=float,
    default=30.0,
    show_default=True,
    help="Seconds that the program may take, 60 at most.",
)
@port_options
@enos_options(no_wait=False)
@output_options_as("Errors as a JSON object, too. Commands are JSON lines anyway.")
@click.argument("line", nargs=-1, type=click.UNPROCESSED, metavar="[PROGRAM [ARG]...]")
def command(has_program: bool, line: tuple[str, ...], **options: Any) -> None:
    """Stay online, and carry out commands from EnOS until Ctrl-C. Example:

    \b
        nbiot commands --port /dev/ttyUSB0 --product-key KV315idW --enos abc.def.com \\
            --exec ./handler --verbose

    Each command is one JSON line on standard output: kind (set, get, service, raw), service, id,
    params (of raw: hex), the answer, and confirmed: whether EnOS has it.

    With --exec the program gets that object, without the answer, on standard input. Exit code 0
    means success (200), and the JSON on its standard output is the answer's data (of raw:
    {"hex": "0102"}); nothing is fine, too. Another exit code N is answered by code 2000+N, a signal
    N by 2128+N, a time-out or output that is no JSON by 1102; what it says on standard error is
    never sent. A raw command has no codes: its answer to a failure is empty. The program does not
    see the device secret, and is ended with its process group when its time is up or on Ctrl-C.

    Without --exec nothing is carried out: commands are answered by 1101 (not handled), so that
    whoever sent them need not wait, or by 200 with --ack.

    EnOS hands over a command only with its answer to something, so this sends a small message every
    --poll seconds: 230 bytes on the air both ways with IP and UDP, at the default pace 10 MB a
    month. Commands arrive that much later. A modem that is unplugged or restarts is found, attached
    and authenticated again.
    """
    with errors(as_json=options["as_json"]):
        wanted = _wanted(has_program, line, options)
        target = Target.of(options)
        hidden = [SECRET_VARIABLE]
        if target.secret_from and target.secret_from.startswith("env:"):
            hidden.append(target.secret_from.removeprefix("env:"))
        program = _program(line, wanted.timeout, hidden) if has_program else None
    came = run(_serve(target, wanted, program, **options), as_json=options["as_json"])
    if wanted.once and not came:
        click.echo("nbiot: no command came", err=True)
        sys.exit(NOTHING_CAME)


@dataclass(frozen=True, slots=True)
class _Wanted:
    ack: bool
    once: bool
    seconds: float | None
    poll: float
    poll_raw: bytes | None
    keep_online: bool
    timeout: float


def _wanted(has_program: bool, line: tuple[str, ...], options: dict[str, Any]) -> _Wanted:
    if has_program and not line:
        raise BadInput("exec", "nothing", "a program and its arguments, as the last option")
    if line and not has_program:
        raise BadInput("argument", line[0], "options only; a program goes behind --exec")
    if has_program and options["ack"]:
        raise BadInput("ack", "with --exec", "one of them: with --exec the program decides")
    in_range("timeout", options["timeout"], 0.1, MOST_SECONDS)
    if options["poll"] != 0:
        in_range("poll", options["poll"], 1, 86400)
    if options["seconds"] is not None:
        in_range("seconds", options["seconds"], 0, 10**9)
    given = options.pop("poll_raw")
    raw = hex_bytes("poll-raw", given) if given is not None else None
    if raw == b"":
        raise BadInput("poll-raw", given, "one or more bytes in hexadecimal digits")
    names = ("ack", "once", "seconds", "poll", "keep_online", "timeout")
    return _Wanted(poll_raw=raw, **{name: options.pop(name) for name in names})


def _program(line: tuple[str, ...], seconds: float, hidden: list[str]) -> Program:
    from nbiot.cli.programs import Program

    return Program(line, seconds, hidden)


async def _serve(
    target: Target,
    wanted: _Wanted,
    program: Program | None,
    *,
    port: str,
    model: str,
    baud: int | None,
    trace: Path | None,
    quiet: bool,
    as_json: bool,
) -> int:
    """How many commands came."""
    from nbiot.enos.session import EnosSession
    from nbiot.modem import Modem
    from nbiot.session import SessionState
    from nbiot.supervisor import Policy, Supervisor

    del as_json  # commands are JSON in any case
    with (
        progress(quiet=quiet, live=False) as show,
        tracing(trace, port=port, model=model, baud=baud) as tracer,
    ):
        report = _terse(show)
        report(Progress("port", f"looking for the modem on {port}"))
        # A supervisor waits for a modem for ever. One that was never there is an error, though.
        async with Modem(port, model=model, baudrate=baud, tracer=tracer) as modem:
            device: Device = await target.device(modem)

        def changed(change: StateChange) -> None:
            if change.state in (SessionState.ONLINE, SessionState.OFFLINE):
                report(Progress(change.state.value, change.reason))

        async with Supervisor(
            port,
            apn=target.apn,
            model=model,
            baudrate=baud,
            policy=Policy(attach=target.attach_timeout),
            report=report,
            tracer=tracer,
        ) as keeper:
            limit: Any = limit_of(target.server)
            session = EnosSession(
                keeper,
                device,
                target.server,
                content_format=target.content_format,
                raw_keep_alive=wanted.poll_raw,
                keep_online=wanted.keep_online,
                timing=target.timing,
                resolve_by=target.resolve,
                limit=limit,
                on_state=changed,
                report=report,
            )
            stream = session.commands()
            async with session:
                return await _Waiter(session, stream, wanted, program, report).run()


def _terse(show: Report) -> Report:
    """Without the polls that go well: they would fill a log."""

    def report(step: Progress) -> None:
        if step.step != "sent":
            show(step)

    return report


class _Waiter:
    """Polls, and carries commands out one by one, as EnOS sends them."""

    def __init__(
        self,
        session: EnosSession,
        stream: CommandStream,
        wanted: _Wanted,
        program: Program | None,
        report: Report,
    ) -> None:
        self._session = session
        self._stream = stream
        self._wanted = wanted
        self._program = program
        self._report = report
        self._busy = False

    async def run(self) -> int:
        """How many commands came. Raises what ends the session for good."""
        pace = f", asking every {self._wanted.poll:g} s" if self._wanted.poll else ""
        self._report(Progress("listening", f"waiting for commands{pace}"))
        tasks = [asyncio.create_task(self._carry_out())]
        if self._wanted.poll:
            tasks.append(asyncio.create_task(self._poll()))
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return next(iter(done)).result() or 0
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _poll(self) -> int:
        # No authentication: those are limited, and it is nowhere written that commands come along
        # with their answers.
        request = self._session.enos.shortest()
        while True:
            if not self._busy:
                await self._ask(request)
            await asyncio.sleep(self._wanted.poll)

    async def _ask(self, request: Request) -> None:
        from nbiot.enos import things

        try:
            done = await self._session.request(request, repeat=True)
            things.check_code(done.response.code)
        except ServerFault as error:
            self._report(Progress("failed", f"{error.message}; asking again"))
        except (BadInput, PortNotPermitted, SimError, AuthRefused):
            raise  # no waiting mends these
        except NbiotError as error:
            self._report(Progress("failed", f"{error.message}; asking again"))

    async def _carry_out(self) -> int:
        loop = asyncio.get_running_loop()
        end = None if self._wanted.seconds is None else loop.time() + self._wanted.seconds
        came = 0
        while True:
            # With an answer to ours EnOS may have handed over the next one: it is carried out, too.
            await self._session.settled()
            self._busy = False
            until = loop.time() if self._wanted.once and came else end
            with suppress(TimeoutError, StopAsyncIteration):
                async with asyncio.timeout_at(until):
                    command = await anext(self._stream)
                    self._busy = True
            if not self._busy:
                break
            came += 1
            await self._one(command)
        self._report(Progress("done", f"{came} command{'' if came == 1 else 's'} came"))
        return came

    async def _one(self, command: Command) -> None:
        from nbiot.cli.oneshot import command_dict

        about = command_dict(command)
        outcome = await self._outcome(about)
        confirmed, outcome = await self._answer(command, outcome)
        record = {**about, **_answered(command, outcome), "confirmed": confirmed}
        click.echo(json.dumps(record))
        sys.stdout.flush()
        if outcome.said:
            self._report(Progress("failed", f"{_name(command)}: {outcome.said}"))

    async def _outcome(self, about: dict[str, Any]) -> Outcome:
        from nbiot.cli.programs import NOT_HANDLED, Outcome

        if self._program is not None:
            return await self._program.run(about)
        if self._wanted.ack:
            return Outcome(200)
        return Outcome(NOT_HANDLED, message="not handled")

    async def _answer(self, command: Command, outcome: Outcome) -> tuple[bool, Outcome]:
        """Whether EnOS has the answer, and what it was."""
        from nbiot.cli.programs import FAILED, Outcome

        try:
            await command.reply(outcome.data, code=outcome.code, message=outcome.message)
        except BadInput as error:  # too long, or what JSON cannot say
            failed = Outcome(
                FAILED,
                message="no valid output",
                said=error.message,
                exit=outcome.exit,
                seconds=outcome.seconds,
            )
            return (await self._answer(command, failed))[0], failed
        except NbiotError as error:
            self._report(Progress("failed", f"{_name(command)}: not answered: {error.message}"))
            return False, outcome
        return True, outcome


def _answered(command: Command, outcome: Outcome) -> dict[str, Any]:
    """What was answered, for JSON. An answer to a raw command is bytes and nothing else."""
    if command.kind == "raw":
        return {"answer": {"hex": (outcome.data or b"").hex()}, **_run(outcome)}
    data = {} if outcome.data is None else outcome.data
    return {"answer": {"code": outcome.code, "data": data}, **_run(outcome)}


def _run(outcome: Outcome) -> dict[str, Any]:
    """How the program ended, if there was one."""
    return {} if outcome.exit is None else {"exit": outcome.exit, "seconds": outcome.seconds}


def _name(command: Command) -> str:
    number = f" (id {command.id})" if command.id is not None else ""
    return f"{command.kind} {command.service}".strip() + number
