"""``nbiot replay``: today's driver against a recorded dialogue."""

from __future__ import annotations

import asyncio
import json
import re
import selectors
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nbiot.cli.common import run
from nbiot.errors import NbiotError

if TYPE_CHECKING:
    from nbiot.at import Command, Dialect, Template
    from nbiot.modem import Modem
    from nbiot.profile import Profile
    from nbiot.trace import Record, Trace

DIFFERENT = 1  # exit code
REAL_PATIENCE = 5.0  # s for a thread, when no timer is left


@click.command("replay", short_help="Run today's driver against a recorded dialogue.")
@click.argument("trace", type=click.Path(path_type=Path))
@click.option("--modem", "model", default="auto", show_default=True, help="Profile, or auto.")
@click.option(
    "--speed",
    type=float,
    default=0.0,
    show_default=True,
    help="1: with the recorded times. 0: without waiting.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def command(trace: Path, model: str, speed: float, as_json: bool) -> None:
    """Run today's driver against a recorded dialogue (a file of --trace).

    First the recorded bytes go through the parser: lines that it takes for something else than it
    did then are listed. Then the driver does what it did (identify, info, attach, auth) with the
    trace as the modem, and must say the same. Exit code 0: no difference; 1: there are some.

    To run another command against the trace give it as the port: nbiot info --port replay:TRACE
    """
    from nbiot.cli.common import errors
    from nbiot.link.replay import check_speed

    with errors(as_json=as_json):
        check_speed(speed)
        report = examine(trace, model=model, speed=speed)
    if as_json:
        click.echo(json.dumps(report.as_dict()))
    else:
        click.echo("\n".join(report.lines()))
    if not report.same:
        raise SystemExit(DIFFERENT)


@dataclass(frozen=True, slots=True)
class Difference:
    """Bytes that are taken for something else today. ``line``: of the trace."""

    line: int
    raw: bytes
    then: str
    now: str

    def __str__(self) -> str:
        text = self.raw.decode("latin-1")
        return f"line {self.line}: {self.then} then, {self.now} now: {text!r}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the driver fared. ``what``: what it was told to do. ``result``: "ok", "end of trace" (it
    said all that was said then, and would go on) or the name of an error's class.
    """

    what: str
    result: str
    text: str = ""
    said: int = 0  # how many times the host spoke as it did then
    remaining: int = 0

    @property
    def as_expected(self) -> dict[str, Any]:
        """What a test compares."""
        return {"what": self.what, "result": self.result, "remaining": self.remaining}


@dataclass(frozen=True, slots=True)
class Examination:
    """All that ``nbiot replay`` finds out."""

    trace: Trace
    profile: str
    compared: int
    differences: list[Difference]
    outcome: Outcome | None

    @property
    def expected(self) -> dict[str, Any] | None:
        """The outcome that the trace's header asks for, if any."""
        expected: dict[str, Any] | None = self.trace.header.get("expect")
        return expected

    @property
    def same(self) -> bool:
        """No difference, and the outcome that was expected."""
        if self.differences:
            return False
        if self.outcome is None:
            return True
        if self.expected is not None:
            return self.outcome.as_expected == self.expected
        return self.outcome.result != "ReplayMismatch"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        outcome = self.outcome
        return {
            "ok": self.same,
            "records": len(self.trace.records),
            "broken": self.trace.broken,
            "profile": self.profile,
            "compared": self.compared,
            "differences": [
                {"line": d.line, "raw": d.raw.decode("latin-1"), "then": d.then, "now": d.now}
                for d in self.differences
            ],
            "outcome": outcome and outcome.as_expected | {"said": outcome.said},
            "expected": self.expected,
        }

    def lines(self) -> list[str]:
        """For people."""
        found = [self.trace.summary, f"profile     {self.profile}"]
        found.append(
            f"parser      {self.compared} events compared, {len(self.differences)} different"
        )
        found += [f"  {difference}" for difference in self.differences]
        if self.outcome is None:
            found.append("driver      not run: the trace does not show which command it was")
            return found
        outcome = self.outcome
        found.append(
            f"driver      {outcome.what}: {outcome.result}; it spoke {outcome.said} times as then,"
            f" {outcome.remaining} are left"
        )
        if outcome.text:
            found.append(f"  {outcome.text}")
        if self.expected is not None and outcome.as_expected != self.expected:
            found.append(f"  expected: {self.expected}")
        return found


def examine(path: Path, *, model: str = "auto", speed: float = 0.0) -> Examination:
    """Replay ``path`` to the parser and to the driver. Raises BadInput."""
    from nbiot.trace import read_trace

    trace = read_trace(path)
    if model == "auto":  # as the user of then said
        model = str(trace.header.get("model", model))
    profile = profile_of(trace, model)
    differences, compared = compare(trace, profile, model)
    outcome = None
    if (plan := Plan.of(trace)) is not None:
        outcome = drive(path, trace, plan, model, speed)
    return Examination(
        trace, profile.name if profile else "unknown", compared, differences, outcome
    )


# --- who was it? ----------------------------------------------------------------------------


def profile_of(trace: Trace, model: str = "auto") -> type[Profile] | None:
    """The profile that the driver chose then, from what the modem said about itself."""
    from nbiot.modem import chosen_profiles

    known = chosen_profiles(model)
    if model != "auto":
        return known[model]
    text = _identity_text(trace) or str(trace.header.get("modem", ""))
    return next((p for p in known.values() if text and re.search(p.models, text)), None)


def _identity_text(trace: Trace) -> str:
    from nbiot.modem import IDENTITY

    questions = {command.line for command in IDENTITY}
    asked = b""
    said = []
    for record in trace.records:
        if record.dir == ">":
            asked = record.raw.rstrip(b"\r")
        elif record.dir == "<" and asked in questions:
            said.append(record.raw.decode("latin-1").strip())
    return "\n".join(said)


# --- the parser -----------------------------------------------------------------------------


def compare(
    trace: Trace, profile: type[Profile] | None, model: str = "auto"
) -> tuple[list[Difference], int]:
    """What today's parser takes for something else than was recorded; how much was compared.

    Records without an event (a capture of somebody else) are not compared.
    """
    return _Comparison(trace, profile, model).differences()


class _Comparison:
    def __init__(self, trace: Trace, profile: type[Profile] | None, model: str) -> None:
        from nbiot.at import Dialect, Parser
        from nbiot.modem import chosen_profiles

        self._trace = trace
        self._profile = profile
        self._union = Dialect.union(p.dialect for p in chosen_profiles(model).values())
        self._parser = Parser(self._union)
        self._prompted = False
        self._lines: list[bytes] = []  # the commands so far
        self._then: list[tuple[int, int, str, Record]] = []  # from byte, to byte, event
        self._now: dict[tuple[int, int], str] = {}
        self._told = 0  # bytes in events

    def differences(self) -> tuple[list[Difference], int]:
        began = 0
        for record in self._trace.records:
            if record.dir == ">":
                self._said(record)
            elif record.dir == "-":
                self._noted(record.note)
            elif not record.raw.startswith(b"(") or not record.raw.endswith(b"of a secret)"):
                end = began + len(record.raw)
                self._then.append((began, end, record.event, record))
                began = end
                self._heard(record)
        compared = [row for row in self._then if row[2]]
        found = []
        for begin, end, then, record in compared:
            now = self._now.get((begin, end)) or self._overlapping(begin, end)
            if now != then:
                found.append(Difference(record.number, record.raw, then, now))
        return found, len(compared)

    def _overlapping(self, begin: int, end: int) -> str:
        kinds = [kind for (b, e), kind in self._now.items() if b < end and e > begin]
        return f"part of {' and '.join(kinds)}" if kinds else "nothing yet"

    def _said(self, record: Record) -> None:
        if self._prompted:  # this is the payload
            self._prompted = False
            return
        line = record.raw.rstrip(b"\r")
        table: Mapping[str, Template] = {}
        if self._profile is not None and self._identified:
            self._parser.dialect = self._profile.dialect
            table = self._profile.commands
        self._lines.append(line)
        self._parser.begin(command_for(line, table, self._parser.dialect))

    @property
    def _identified(self) -> bool:
        """The driver uses the tables of all profiles until it knows the modem."""
        from nbiot.modem import IDENTITY

        if self._parser.dialect is not self._union:
            return True
        return self._lines[-len(IDENTITY) :] == [command.line for command in IDENTITY]

    def _noted(self, note: str) -> None:
        if note.startswith(("no result of ", "the modem said OK to ", "gave up ")):
            self._parser.abandon()
        elif note == "resynchronising" and self._parser.probe() is None:
            self._parser.settle()

    def _heard(self, record: Record) -> None:
        from nbiot.at import Orphan, Prompt

        events = self._parser.feed(record.raw)
        if not events and record.event == "truncated":
            events = self._parser.give_up_data()
        for event in events:
            begin = self._told
            self._told += len(event.raw)
            self._now[begin, self._told] = type(event).__name__.lower()
            if isinstance(event, Prompt) or (isinstance(event, Orphan) and event.kind == "prompt"):
                self._prompted = True


def command_for(line: bytes, table: Mapping[str, Template], dialect: Dialect) -> Command:
    """The command that the driver made for ``line``: from a row of ``table``, else free text."""
    from nbiot.at import Command, Shape
    from nbiot.modem import AT, IDENTITY

    for fixed in (AT, *IDENTITY):
        if line == fixed.line:
            return fixed
    text = line.decode("latin-1")
    for template in table.values():
        if found := re.fullmatch(_pattern(template.text), text):
            gaps: dict[str, Any] = {
                k: int(v) if v.isdecimal() else v for k, v in found.groupdict().items()
            }
            return replace(template(**gaps), line=line)
    for probe in dialect.probes:
        if line == probe.line:
            return probe
    return Command(line, Shape("<text:line>"), 0, 10_000)


def _pattern(text: str) -> str:
    """The regular expression of a template's text: its gaps are groups."""
    parts = re.split(r"\{(\w+)\}", text)
    known: set[str] = set()
    pattern = ""
    for place, part in enumerate(parts):
        if place % 2 == 0:
            pattern += re.escape(part)
        else:
            pattern += f"(?P={part})" if part in known else f"(?P<{part}>.*?)"
            known.add(part)
    return pattern


# --- the driver -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Plan:
    """What the driver was told to do then, as far as the trace shows it."""

    what: str  # identify, info, attach or auth
    apn: str | None = None
    asks_imei: bool = True
    server: str = ""
    port: int = 0
    product_key: str = ""
    device_key: str = ""
    lifetime: int = 0
    content_format: int | None = None
    coap: str = "udp"
    resolve: str = "host"
    retransmissions: int = 3

    @classmethod
    def of(cls, trace: Trace) -> Plan | None:
        """None: these are not commands that the driver gives by itself."""
        lines = [record.raw.rstrip(b"\r") for record in trace.records if record.dir == ">"]
        if trace.header.get("command") not in (None, "auth", "info"):
            return None
        if b"ATI" not in lines:  # a modem that said nothing, or commands of a person
            return None if any(line not in (b"", b"AT") for line in lines) else cls("identify")
        own = lines[lines.index(b"ATI") :]
        if b"AT+CFUN?" not in own:
            info = any(line in (b"AT+NCCID", b"AT+QCCID") for line in own)
            return cls("info" if info else "identify")
        plan = cls("attach", apn=_apn(trace, own), asks_imei=b"AT+CGSN=1" in own)
        return replace(plan, **(_request(trace, own) or {}))


def _apn(trace: Trace, lines: list[bytes]) -> str | None:
    """The APN that was asked for: the one that was set, or else that the modem had already."""
    if not {b"AT+CGDCONT?", b"AT+QCGDEFCONT?"} & set(lines):
        return None
    said = [record.raw for record in trace.records if record.dir == "<"]
    for text in [*lines, *said]:
        if found := re.search(rb'\+Q?CGDE?F?CONT[:=][^\r]*?"IP\w*","([^"]+)"', text):
            return found[1].decode("latin-1")
    return None


def _request(trace: Trace, lines: list[bytes]) -> dict[str, Any] | None:
    """What was asked of EnOS: from the first datagram, or from the modem's CoAP client."""
    from nbiot.datagrams import datagrams

    found: dict[str, Any] = {}
    options: list[tuple[int, bytes]] = []
    payload = b""
    up = [d for d in datagrams(trace.records) if d.way == "up"]
    if up:
        found["server"], found["port"] = up[0].peer
        message = _decoded(up[0].data)
        if message is None:
            return None
        options, payload = message
        repeated = sum(d.data == up[0].data for d in up) - 1
        gave_up = all(d.way == "up" for d in datagrams(trace.records))
        found["retransmissions"] = repeated if gave_up else max(repeated, 3)
    for line, following in zip(lines, [*lines[1:], b""], strict=True):
        if match := re.match(rb"AT\+QCOAPSEND=\d,\d,([\d.]+),(\d+)", line):
            found |= {"server": match[1].decode(), "port": int(match[2]), "coap": "native"}
            payload = following.rstrip(b"\x1a")
        elif line.startswith(b"AT+QCOAPOPTION="):
            options = [(11, path) for path in re.findall(rb'11,"([^"]*)"', line)]
            options += [(12, int(n).to_bytes(2)) for n in re.findall(rb",12,(\d+)", line)]
        elif match := re.match(rb'AT\+(?:QDNS=0,|QIDNSGIP=1,)"?([\w.-]+)', line):
            found |= {"host": match[1].decode(), "resolve": "modem"}
    if "server" not in found:
        return None
    found["server"] = found.pop("host", found["server"])
    path = [value.decode("utf-8", "replace") for number, value in options if number == 11]
    try:
        lifetime = json.loads(payload)["lifetime"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if len(path) != 3 or path[0] != "auth":
        return None
    formats = [int.from_bytes(value, "big") for number, value in options if number == 12]
    return found | {
        "what": "auth",
        "product_key": path[1],
        "device_key": path[2],
        "lifetime": lifetime,
        "content_format": formats[0] if formats else None,
    }


def _decoded(data: bytes) -> tuple[list[tuple[int, bytes]], bytes] | None:
    from nbiot.coap.message import decode

    try:
        message = decode(data)
    except NbiotError:
        return None
    return list(message.options), message.payload


def drive(path: Path, trace: Trace, plan: Plan, model: str = "auto", speed: float = 0.0) -> Outcome:
    """Let the driver do ``plan`` with the trace as its modem."""
    if speed:
        found: Outcome = run(_drive(path, trace, plan, model, speed))
        return found
    with asyncio.Runner(loop_factory=_UnhurriedLoop) as runner:
        return runner.run(_drive(path, trace, plan, model, speed))


async def _drive(path: Path, trace: Trace, plan: Plan, model: str, speed: float) -> Outcome:
    from nbiot.link.replay import ReplayMismatch
    from nbiot.modem import Modem

    baudrate = trace.header.get("baudrate")
    modem = Modem(
        f"replay:{path}?speed={speed}",
        model=model,
        baudrate=baudrate if isinstance(baudrate, int) and baudrate > 0 else None,
    )
    spoken = sum(record.dir == ">" for record in trace.records)
    result, text = "ok", ""
    try:
        async with modem:
            await _act(modem, plan)
    except ReplayMismatch as error:
        result = "end of trace" if error.expected is None else "ReplayMismatch"
        text = error.message
    except NbiotError as error:
        result, text = type(error).__name__, error.message
    channel = getattr(modem, "channel", None)
    remaining = channel.link.remaining if channel is not None else spoken
    return Outcome(plan.what, result, text, spoken - remaining, remaining)


async def _act(modem: Modem, plan: Plan) -> None:
    from nbiot.cli.info import _gather
    from nbiot.coap.exchange import Timing
    from nbiot.enos import AuthLimit, Device, Server, authenticate
    from nbiot.signing import Secret, SecretSigner

    if plan.what == "identify":
        return
    if plan.what == "info":
        await _gather(modem)
        return
    await modem.attach(plan.apn)
    if plan.asks_imei:
        key = await modem.imei()
    if plan.what != "auth":
        return
    if not plan.asks_imei:
        key = plan.device_key
    # The secret is not in a trace. A signature has the same length whatever the secret is.
    device = Device(plan.product_key, key, SecretSigner(Secret("not-in-the-trace")), plan.lifetime)
    await authenticate(
        modem,
        device,
        Server(plan.server, plan.port),
        path=plan.coap,  # type: ignore[arg-type]
        timing=Timing(max_retransmit=plan.retransmissions),
        content_format=plan.content_format,
        resolve_by=plan.resolve,
        limit=AuthLimit(),
    )


class _Unhurried(selectors.DefaultSelector):
    """Never waits for a time to come: the loop's clock moves on instead."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:  # only a thread can go on
            ready = super().select(REAL_PATIENCE)
            if not ready:
                raise NbiotError("the driver waits for something that is not in the trace")
            return ready
        self.now += max(timeout, 0.0)
        return ready


class _UnhurriedLoop(asyncio.SelectorEventLoop):
    """An event loop in which waiting takes no time: a replay waits for nobody."""

    def __init__(self) -> None:
        self._unhurried = _Unhurried()
        super().__init__(self._unhurried)

    def time(self) -> float:
        return self._unhurried.now
