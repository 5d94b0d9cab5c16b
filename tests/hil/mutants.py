"""Break the driver on purpose, in one way after the other: does the suite of hil/suite notice?

    python -m tests.hil.mutants              # every mutant, the whole suite, every emulated slot
    python -m tests.hil.mutants --quick      # where it must be noticed, on one slot: for CI
    python -m tests.hil.mutants late-answers # one of them

A process for each: a mutant does not survive its own. Exit code 0: all were caught, and the
driver as it is passes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

import hil.bench  # once for all: children are forks
import hil.suite
import nbiot.coap.blockwise
import nbiot.enos.auth
import nbiot.enos.commands
import nbiot.enos.session
from hil.report import Collector, Run
from modems.bc66 import _Socket
from modems.bc95 import HiSiliconSocket
from nbiot.at.parser import Parser
from nbiot.channel import Channel
from nbiot.coap.exchange import Exchange
from nbiot.enos.session import EnosCloud, EnosSession
from nbiot.errors import NoResponse
from nbiot.profile import Profile, UdpSocket
from nbiot.session import Session, SessionState
from nbiot.signing import SecretSigner

SUITE = Path(hil.suite.__file__).parent
AT_ONCE = 3


@dataclass(frozen=True)
class Mutant:
    """``checks``: what of the suite must notice it (an expression of -k); ``slot``: where."""

    name: str
    breaks: Callable[[], None]
    checks: str
    slot: str = "bc66"


MUTANTS: dict[str, Mutant] = {}


def mutant(name: str, checks: str, slot: str = "bc66") -> Callable[[Callable[[], None]], None]:
    def keep(breaks: Callable[[], None]) -> None:
        MUTANTS[name] = Mutant(name, breaks, checks, slot)

    return keep


def wrap(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    """Replace ``owner.name`` by what ``make`` makes of it."""
    setattr(owner, name, make(getattr(owner, name)))


# --- the ten ------------------------------------------------------------------------------------


@mutant("signature-case", "test_authentication and test_good")
def _() -> None:
    """The signature goes out in lowercase."""
    wrap(SecretSigner, "sign", lambda plain: lambda *args, **kw: plain(*args, **kw).lower())


@mutant("wrong-socket-closed", "test_sockets")
def _() -> None:
    """Closing a socket names the one after it."""

    async def close(self: Any) -> None:
        await self.profile.ask("close", socket=self.number + 1)

    HiSiliconSocket._close = _Socket._close = close  # type: ignore[method-assign]


@mutant("restart-ignored", "test_restart_while")
def _() -> None:
    """A boot banner means nothing."""
    Channel._on_reboot = lambda self: None  # type: ignore[method-assign]


@mutant("late-answers", "test_a_late_answer", "bc95")
def _() -> None:
    """What a command still owes is forgotten with it."""

    def abandon(self: Any) -> None:
        plain(self)
        self._debts.clear()
        self._abandoned = self._stray = False
        self._command = None

    plain = Parser.abandon
    Parser.abandon = abandon  # type: ignore[method-assign]
    Channel._unsettled = property(lambda self: False)  # type: ignore[assignment]


@mutant("lost-urc", "test_every_byte")
def _() -> None:
    """URCs that tell of datagrams are not heard."""

    def heard(self: Any, urc: Any) -> None:
        if urc.name not in ("datagram", "announced"):
            plain(self, urc)

    plain = UdpSocket._heard
    UdpSocket._heard = heard  # type: ignore[method-assign]


@mutant("no-retransmission", "test_lost and authentication-up")
def _() -> None:
    """What is lost stays lost."""

    def timed_out(self: Any, now: float) -> list[bytes]:
        if now < self.deadline:
            return []
        raise NoResponse("no answer")

    Exchange.timed_out = timed_out  # type: ignore[method-assign]


@mutant("lifetime-in-minutes", "test_lifetime_bounds and 86400")
def _() -> None:
    """The lifetime goes out in minutes, and the signature is of that."""

    def in_minutes(device: Any) -> bytes:
        return plain(replace(device, lifetime=max(30, device.lifetime // 60)))

    plain = nbiot.enos.auth.auth_payload
    nbiot.enos.auth.auth_payload = nbiot.enos.session.auth_payload = in_minutes  # type: ignore[attr-defined]


@mutant("wrong-id", "test_every_kind_of_command")
def _() -> None:
    """The answer to a command has another id."""

    def read(*args: Any) -> Any:
        command = plain(*args)
        return command if command.id is None else replace(command, id=f"{command.id}1")

    plain = nbiot.enos.session.read_command
    nbiot.enos.session.read_command = read  # type: ignore[attr-defined]


@mutant("block-off-by-one", "test_a_long_report", "bc95")
def _() -> None:
    """Blocks behind the first have the number of the next one."""
    block = nbiot.coap.blockwise.Block

    def encode(self: Any) -> bytes:
        return plain(replace(self, number=self.number + 1) if self.number else self)

    plain = block.encode
    block.encode = encode  # type: ignore[method-assign]


@mutant("never-again", "test_enos_forgets")
def _() -> None:
    """It authenticates once, and never again."""
    EnosCloud.needs_auth = lambda self, response: False  # type: ignore[method-assign]


# --- and some more ------------------------------------------------------------------------------


@mutant("lifetime-unwatched", "test_the_lifetime_runs_out")
def _() -> None:
    """That the lifetime has run out is not noticed."""

    Session.is_online = property(  # type: ignore[assignment]
        lambda self: self.state is SessionState.ONLINE
    )

    async def wanted(self: Any) -> None:
        await asyncio.Event().wait()

    Session._wanted = wanted  # type: ignore[method-assign]


@mutant("commands-twice", "test_a_command_that_comes_again")
def _() -> None:
    """A command that comes again is carried out again."""
    nbiot.enos.commands.Record.find = lambda *_: None  # type: ignore[assignment,method-assign]


@mutant("report-twice", "test_report")
def _() -> None:
    """Each report goes out twice."""

    def twice(plain: Any) -> Any:
        async def report(self: Any, points: Any, **kw: Any) -> Any:
            await plain(self, points, **kw)
            return await plain(self, points, **kw)

        return report

    wrap(EnosSession, "report", twice)


@mutant("attached-too-soon", "test_no_coverage")
def _() -> None:
    """It believes to be attached without asking, and makes up an address."""

    async def nothing(*_: Any) -> None: ...

    async def address(*_: Any) -> str:
        return "10.0.0.7"

    Profile._registered = nothing  # type: ignore[method-assign]
    Profile._addressed = address  # type: ignore[method-assign]


@mutant("cut-datagram", "test_every_size", "bc95-g")
def _() -> None:
    """The last byte of a datagram of the greatest size is lost."""

    def cut(plain: Any) -> Any:
        async def send(self: Any, data: bytes, release: Any) -> None:
            await plain(self, data[: self.profile.limits.datagram - 1], release)

        return send

    for kind in (HiSiliconSocket, _Socket):
        wrap(kind, "_send", cut)


# --- running ------------------------------------------------------------------------------------


def run_suite(arguments: list[str]) -> dict[str, Any]:
    """In this process. What failed first, and how many passed."""
    run = Run()
    found = [str(SUITE), "-c", str(SUITE / "pytest.ini"), f"--rootdir={SUITE}"]
    found += [f"--confcutdir={SUITE}", "-p", "no:terminal", "-x", *arguments]
    pytest.main(found, plugins=[Collector(run)])
    failed = [check for check in run.checks if check.outcome == "failed"]
    caught = f"{failed[0].slot} {failed[0].group}: {failed[0].title}" if failed else ""
    words = failed[0].words if failed else "; ".join(run.problems)
    return {"caught": caught, "words": words, "passed": run.count()["passed"]}


def start(mutant: Mutant | None, arguments: list[str], folder: Path) -> int:
    """A child that runs the suite on ``mutant``, or on the driver as it is."""
    child = os.fork()
    if child:
        return child
    name = mutant.name if mutant else "none"
    try:
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 1)
        os.dup2(null, 2)
        if mutant is not None:
            mutant.breaks()
        traces = f"--at-traces={folder / name}"
        found = run_suite([*arguments, traces])
        (folder / f"{name}.json").write_text(json.dumps(found))
    finally:
        os._exit(0)


def check(names: list[str], *, quick: bool) -> list[str]:
    """Run them; print a line each. The names of those that were not caught."""
    wanted = [MUTANTS[name] for name in names]
    jobs: list[tuple[Mutant | None, list[str]]] = [
        (mutant, ["-k", mutant.checks, "--slot", mutant.slot] if quick else []) for mutant in wanted
    ]
    if not quick:  # test_suite.py has the driver as it is
        jobs.append((None, []))
    run_suite(["--collect-only"])  # what is imported now, no child imports again
    alive: list[str] = []
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        running: dict[int, tuple[Mutant | None, float]] = {}
        while jobs or running:
            while jobs and len(running) < AT_ONCE:
                mutant, arguments = jobs.pop(0)
                running[start(mutant, arguments, folder)] = (mutant, time.monotonic())
            child, _ = os.wait()
            mutant, began = running.pop(child)
            alive += judge(mutant, folder, time.monotonic() - began)
    return alive


def judge(mutant: Mutant | None, folder: Path, seconds: float) -> list[str]:
    name = mutant.name if mutant else "none"
    file = folder / f"{name}.json"
    found = json.loads(file.read_text()) if file.exists() else {}
    caught, passed = found.get("caught", ""), found.get("passed", 0)
    good = bool(caught) if mutant else bool(passed) and not caught
    if mutant is None:
        said = f"{passed} passed" if good else f"FALSE ALARM: {caught}: {found.get('words')}"
        name = "the driver as it is"
    else:
        said = f"{caught}: {found.get('words')}" if good else f"NOT CAUGHT: {found}"
    print(f"{name:20} {seconds:5.1f} s  {said}", flush=True)
    return [] if good else [name]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    alive = check(options.names or list(MUTANTS), quick=options.quick)
    print(f"{len(alive)} not as they should be: {', '.join(alive)}" if alive else "all caught")
    sys.exit(1 if alive else 0)


if __name__ == "__main__":
    main()
