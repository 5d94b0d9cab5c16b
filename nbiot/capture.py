"""Captures: a modem's own words for a list of commands, byte by byte, fit to be shared.

A capture is one JSON object a line: ``id``, ``modem``, ``firmware``, ``source`` and ``exchanges``,
as in tests/captures. Here are the recorder, the commands that it sends by itself, the ones that it
refuses, and the reader. docs/captures.md tells what captures are for.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbiot import __version__
from nbiot.at import Command, Dialect, Shape, Template
from nbiot.channel import Channel
from nbiot.errors import (
    BadInput,
    CommandRefused,
    CommandTimeout,
    ModemRebooted,
    UnexpectedAnswer,
)
from nbiot.link import Link, Receiver, open_link
from nbiot.modem import IDENTITY, chosen_profiles, find_rate, identity, try_rates
from nbiot.redact import Redaction
from nbiot.trace import FORMAT, VERSION, Record, Trace

if TYPE_CHECKING:
    from nbiot.errors import PortLost
    from nbiot.profile import Identity, Profile
    from nbiot.trace import Tracer

SOURCE = "captured by nbiot capture"
ID = r"\w+(?:-\w+)+"
"""What an identifier looks like: the evidence in profiles is searched for it."""
SETTLE = 0.15  # s after a result in which the modem may still say something
TIMEOUT = 10.0
BOOT_SECONDS = 20.0  # until the end of the boot banner
LONGEST_WAIT = 3600.0

# --- what is sent by itself -----------------------------------------------------------------

# 3GPP TS 27.007 and V.250; each only asks.
QUERIES = (
    *("AT", "ATI", "AT+CGMI", "AT+CGMM", "AT+CGMR", "AT+CGSN", "AT+CGSN=1", "AT+CIMI"),
    *("AT+CPIN?", "AT+CSQ", "AT+CESQ", "AT+CFUN?", "AT+CEREG?", "AT+CSCON?", "AT+COPS?"),
    *("AT+CGATT?", "AT+CGACT?", "AT+CGDCONT?", "AT+CGPADDR", "AT+CPSMS?", "AT+CEDRXS?"),
    *("AT+CCLK?", "AT+IPR?"),
)
# Rows of profiles that only ask, though no question mark ends them.
_ASKING = ("+NCCID", "+QCCID", "+NUESTATS", "+CGPADDR", "+CGPADDR=1", "+QENG=0")
# No "?" or "=?": a scan of minutes, or a command that must not be misunderstood.
_NO_QUESTION = ("+COPS", "+NRB", "+QRST", "+QCOAPDEL")


def default_commands(profile: type[Profile]) -> list[str]:
    """What asks a modem of ``profile`` for all that a profile relies on, and changes nothing."""
    found = list(QUERIES)
    tested = [_head(text) for text in QUERIES if text.endswith("?")]
    for row in profile.commands.values():
        body, head = row.text[2:], _head(row.text)
        if "{" not in body and (body.endswith("?") or body in _ASKING):
            found.append(row.text)
        if body.startswith("+") and "=" in body:
            tested.append(head)
            if not re.search('[{"]', body) and body not in _ASKING and head not in _NO_QUESTION:
                found.append(f"AT{head}?")
    found += [f"AT{head}=?" for head in tested if head not in _NO_QUESTION]
    return list(dict.fromkeys(found))


def _head(text: str) -> str:
    """``AT+CEREG=5`` -> ``+CEREG``."""
    return re.split(r"[=?{]", text[2:], maxsplit=1)[0].upper()


# --- what is not sent -----------------------------------------------------------------------

_RESTARTS = "restarts the modem"
_OFF = "switches the modem off"
_STORED = "writes a setting that stays over a restart"
_FACTORY = "puts settings back to what the factory or a stored profile had"
_FIRMWARE = "replaces the firmware"
_SIM = "may write to the SIM"
_IDENTITY = "writes the modem's identity"

_STORING = (
    *("+NCONFIG", "+NBAND", "+NCDP", "+NATSPEED", "+IPR", "+NPTWEDRXS", "+NCSEARFCN", "+NFPLMN"),
    *("+CGDCONT", "+QCGDEFCONT", "+QBAND", "+QCFG", "+CPSMS", "+CEDRXS", "+QREGSWT", "+ICF"),
    *("+QLWCFG", "+QLWCONFIG", "+QLWSERV", "+QIDNSCFG", "+QLEDMODE", "+NLOGLEVEL", "+CSAS"),
)
# Setting and execution forms that want a yes, by what they do. From the vendors' manuals.
_HARMFUL = {
    **dict.fromkeys(("+NRB", "+QRST", "+TRB", "+RESET", "^RESET", "+CRESET"), _RESTARTS),
    **dict.fromkeys(("+QPOWD", "+CPOWD", "+CPWROFF"), _OFF),
    **dict.fromkeys(_STORING, _STORED),
    **dict.fromkeys(("+NFWUPD", "+QFOTADL", "+QDFOTA", "+FOTA", "+FOTADL", "+NSETFOTA"), _FIRMWARE),
    **dict.fromkeys(("+CSIM", "+CGLA", "+CPBW", "+CMGW", "+CMGD", "+CSCA"), _SIM),
    **dict.fromkeys(("+EGMR", "+NTSETID", "+SIMEI"), _IDENTITY),
}
_BASIC = ((r"Z", _FACTORY), (r"&F", _FACTORY), (r"&[WY]", _STORED), (r"D", "dials"))
_PINS = ("+CPIN", "+NPIN", "+CLCK", "+CPWD")
_SECRETS = ("+CGAUTH", "+QSSLCFG", "+QSECSWT", "+QSETPSK", "+QICSGP", "+CNMPSD", "+COAPPSK")
_SECRET_WORD = re.compile(r"PSK|PASSW|PWD|SECRET|TOKEN|AUTH|CERT|(?<![A-Z])KEY|KEY(?![A-Z])")
_DATA_FORMS = re.compile(r"\+QISEND=\d+(?:,[1-9]\d*)?|\+(?:QCOAPSEND|CMGS|QMTPUB|QFUPL)=(?!\?$).*")


def check_commands(steps: Sequence[Step], *, sure: bool) -> None:
    """Raise BadInput for a command that must not be recorded, or not without a yes (``sure``)."""
    for step in steps:
        if step.is_wait:
            continue
        _check_text(step)
        parts = _parts(step.text)
        for name, tail in parts:
            _refuse_secret(step, name, tail)
        if not sure:
            why = [words for name, tail in parts if (words := _harm(name, tail))]
            if why:
                raise BadInput(
                    step.where,
                    step.text,
                    "what changes nothing for good",
                    hint=f"It {why[0]}. Give --yes if that is what you want.",
                )
        if _DATA_FORMS.fullmatch(_plain(step.text)[2:]) and step.payload is None:
            raise BadInput(
                step.where,
                step.text,
                "data for it: it makes the modem wait for some",
                hint="In a file of --commands, write the data on the next line, behind '> '.",
            )


def _check_text(step: Step) -> None:
    text = step.text
    if text[:2].upper() != "AT" or not text.isascii() or not text.isprintable():
        raise BadInput(step.where, text, "printable ASCII that begins with AT, such as AT+CSQ")
    if len(text) > 2000:
        raise BadInput(step.where, f"{text[:40]}...", "at most 2000 characters")


def _plain(text: str) -> str:
    """In capitals, without blanks outside quotes."""
    pieces = re.split(r'("[^"]*"?)', text)
    return "".join(p if p[:1] == '"' else re.sub(r"\s", "", p) for p in pieces).upper()


def _parts(text: str) -> list[tuple[str, str]]:
    """(name, the rest from = or ? on) of each command of a line; "" names the basic ones."""
    found = []
    for part in re.findall(r'(?:"[^"]*"?|[^";])+', _plain(text)[2:]):
        basic, extended = re.match(r"([^+^#$]*)(.*)", part, re.DOTALL).groups()  # type: ignore[union-attr]
        if basic:
            found.append(("", basic))
        if extended:
            name = re.split(r"[=?]", extended, maxsplit=1)[0]
            found.append((name, extended[len(name) :]))
    return found


def _harm(name: str, tail: str) -> str:
    """What a command does that wants a yes; empty: nothing known."""
    if not name:
        return next((why for text, why in _BASIC if re.search(text, tail)), "")
    if tail.startswith("?") or tail == "=?":
        return ""
    if name == "+CFUN" and re.fullmatch(r"=\d*,1|=1[56]", tail):
        return _RESTARTS
    if name == "+CRSM":
        return "" if re.match(r"=(?:176|178|192|242)\b", tail) else _SIM
    return _HARMFUL.get(name, "")


def _refuse_secret(step: Step, name: str, tail: str) -> None:
    if tail == "=?":
        return
    if name in _PINS and not tail.startswith("?"):
        raise BadInput(
            step.where,
            _shown(step.text),
            "no command with a PIN or a lock",
            hint="A few wrong ones lock the SIM for good, and a right one would stand in the file.",
        )
    if (
        name in _SECRETS
        or _SECRET_WORD.search(name + tail)
        or (name == "+QMTCONN" and tail.count(",") >= 2)
    ):
        raise BadInput(
            step.where,
            _shown(step.text),
            "no command that holds or shows a key or a password",
            hint="A capture is made to be shared. Leave this one out.",
        )


def _shown(text: str) -> str:
    """A refused command without what may be secret in it."""
    head, equals, _ = text.partition("=")
    return f"{head}=..." if equals else head


# --- what to do -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Step:
    """A command with its data, or a wait. ``where`` it stands, for messages."""

    text: str
    where: str = "command"
    payload: bytes | None = None
    wait: float = 0.0

    @property
    def is_wait(self) -> bool:
        """Nothing is sent."""
        return self.wait > 0


def steps_of(commands: Iterable[str]) -> list[Step]:
    """Steps of commands as they stand on the command line."""
    return [Step(text) for text in commands]


def read_commands(path: Path) -> list[Step]:
    """Steps of a file: a command a line, ``> data`` for the one above, ``wait SECONDS``, ``# ...``.

    Raises BadInput, naming the line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise BadInput(
            "commands", str(path), f"a file that can be read ({error.strerror})"
        ) from None
    except UnicodeDecodeError:
        raise BadInput("commands", str(path), "a text file in UTF-8") from None
    steps: list[Step] = []
    for number, line in enumerate(map(str.strip, lines), start=1):
        where = f"{path.name}, line {number}"
        if not line or line.startswith("#"):
            continue
        if line.startswith(">"):
            if not steps or steps[-1].is_wait or steps[-1].payload is not None:
                raise BadInput(where, line, "data right behind the command that wants it")
            last = steps.pop()
            steps.append(Step(last.text, last.where, _payload(line[1:].lstrip(), where)))
        elif line.split()[0].lower() == "wait":
            steps.append(Step("", where, wait=_seconds(line, where)))
        else:
            step = Step(line, where)
            _check_text(step)
            steps.append(step)
    if not any(not step.is_wait for step in steps):
        raise BadInput("commands", str(path), "a file with a command a line")
    return steps


def _payload(text: str, where: str) -> bytes:
    r"""``\r``, ``\n``, ``\x1a`` and so on become bytes."""
    try:
        return text.encode("latin-1").decode("unicode_escape").encode("latin-1")
    except UnicodeError:
        raise BadInput(where, text, r"Latin-1 text, other bytes as \x00") from None


def _seconds(line: str, where: str) -> float:
    with suppress(ValueError):
        _, text = line.split()
        if 0 < (seconds := float(text)) <= LONGEST_WAIT:
            return seconds
    raise BadInput(where, line, f"wait and 0 to {LONGEST_WAIT:g} seconds, such as: wait 5")


# --- recording ------------------------------------------------------------------------------


@dataclass(slots=True)
class _Mark:
    """Up to byte ``end`` of what came, all belongs to events; the last one was a ``kind``."""

    end: int
    t: float
    kind: str


class Recorder:
    """Stands between a channel and its link, and keeps every byte with its time.

    It is the channel's tracer, too, and tells ``tracer`` what it hears: where an answer ends is the
    parser's to say, which bytes there were is the link's.
    """

    def __init__(self, link: Link, clock: Callable[[], float], tracer: Tracer | None) -> None:
        self.name = link.name
        self._link = link
        self._clock = clock
        self._tracer = tracer
        self._receiver: Receiver | None = None
        self._came = bytearray()
        self._marked = 0
        self._begin, self._begun = 0, clock()
        self._log: list[_Mark | tuple[float, bytes]] = []

    def begin(self) -> None:
        """Forget what was so far."""
        self._log.clear()
        self._begin, self._begun = len(self._came), self._clock()

    # --- between channel and link

    @property
    def baudrate(self) -> int:
        """bit/s; 0 where there is no such thing."""
        return self._link.baudrate

    def start(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._link.start(self)

    def write(self, data: bytes) -> None:
        self._link.write(data)
        self._log.append((self._now, data))

    async def set_baudrate(self, baudrate: int) -> None:
        await self._link.set_baudrate(baudrate)

    async def set_lines(self, *, dtr: bool | None = None, rts: bool | None = None) -> None:
        await self._link.set_lines(dtr=dtr, rts=rts)

    async def close(self) -> None:
        await self._link.close()

    def received(self, data: bytes) -> None:
        self._came += data
        assert self._receiver is not None
        self._receiver.received(data)

    def lost(self, error: PortLost) -> None:
        assert self._receiver is not None
        self._receiver.lost(error)

    # --- what the channel tells

    def sent(self, data: bytes) -> None:
        if self._tracer:
            self._tracer.sent(data)

    def heard(self, raw: bytes, kind: str) -> None:
        self._marked += len(raw)
        self._log.append(_Mark(self._marked, self._now, kind))
        if self._tracer:
            self._tracer.heard(raw, kind)

    def note(self, text: str) -> None:
        if self._tracer:
            self._tracer.note(text)

    # --- what came of it

    def records(self) -> list[Record]:
        """All since ``begin``: what was sent and what came, each event with its own line end."""
        found: list[Record] = []
        done = self._begin
        for number, entry in enumerate(self._log, start=1):
            if isinstance(entry, _Mark):
                end = self._line_end(entry.end)
                if end > done:
                    raw = bytes(self._came[done:end])
                    found.append(Record(number, entry.t, "<", raw, entry.kind))
                    done = end
            else:
                found.append(Record(number, entry[0], ">", entry[1]))
        if rest := bytes(self._came[done:]):
            found.append(Record(len(self._log) + 1, self._now, "<", rest, "rest"))
        return found

    def _line_end(self, end: int) -> int:
        """The parser ends a line at its first CR or LF; a second one that differs belongs to it."""
        pair = bytes(self._came[end - 1 : end + 1]) if end else b""
        return end + 1 if pair in (b"\r\n", b"\n\r") else end

    @property
    def _now(self) -> float:
        return round(self._clock() - self._begun, 4)


@dataclass(slots=True)
class Recording:
    """What is known of a modem, and the dialogue so far."""

    port: str
    identity: Identity | None = None
    profile: str = ""
    baudrate: int = 0
    timed_out: dict[int, float] = field(default_factory=dict)
    """Commands without a result, by their number: seconds waited."""
    commands: int = 0
    recorder: Recorder | None = None

    @property
    def emulated(self) -> bool:
        """No modem's own words: proof of nothing."""
        return self.port.partition(":")[0] in ("emulator", "replay")

    @property
    def records(self) -> list[Record]:
        return self.recorder.records() if self.recorder else []


async def record(
    recording: Recording,
    *,
    model: str = "auto",
    baudrate: int | None = None,
    steps: Sequence[Step] = (),
    defaults_of: str = "",
    timeout: float = TIMEOUT,
    settle: float = SETTLE,
    tracer: Tracer | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> None:
    """Run ``steps`` on the modem at ``recording.port``, or the default commands without any.

    Who the modem is comes first, and is recorded, too. ``settle``: seconds after a result in which
    the modem may still say something. ``recording`` has all that came when this raises or is
    cancelled. Raises what opening a port raises, ModemSilent, PortLost.
    """
    known = await asyncio.to_thread(chosen_profiles, model)
    if defaults_of:
        await asyncio.to_thread(chosen_profiles, defaults_of)
    rates = try_rates(known, baudrate)
    link = await open_link(recording.port, baudrate=rates[0])
    recorder = Recorder(link, asyncio.get_running_loop().time, tracer)
    dialect = Dialect.union(profile.dialect for profile in known.values())
    channel = Channel(recorder, dialect, tracer=recorder)
    try:
        await find_rate(channel, rates, known)
        recording.baudrate = link.baudrate
        await asyncio.sleep(settle)
        recorder.begin()
        recording.recorder = recorder
        said: dict[bytes, list[str]] = {}
        for command in IDENTITY:
            with suppress(CommandRefused, UnexpectedAnswer, CommandTimeout):
                reply = await channel.run(command)
                said[command.line] = [line["text"] for line in reply.lines]
            await asyncio.sleep(settle)
        recording.identity = identity(said)
        text = "\n".join(line for lines in said.values() for line in lines)
        profile = _profile_for(text, known, model)
        recording.profile = profile.name if profile else ""
        if profile is not None:
            channel.dialect = profile.dialect
        report(f"{recording.identity.model}, firmware {recording.identity.firmware}")
        if not steps:
            asked = (await asyncio.to_thread(chosen_profiles, defaults_of or "auto")).get(
                defaults_of or recording.profile
            )
            steps = _default_steps(asked)
        rows = tuple(profile.commands.values()) if profile else ()
        for step in steps:
            await _take(step, channel, rows, recording, timeout, report)
            await asyncio.sleep(0 if step.is_wait else settle)
    finally:
        await channel.close()


def _profile_for(text: str, known: dict[str, type[Profile]], model: str) -> type[Profile] | None:
    matching = (profile for profile in known.values() if re.search(profile.models, text))
    return next(matching, next(iter(known.values())) if model != "auto" else None)


def _default_steps(profile: type[Profile] | None) -> list[Step]:
    asked = {command.line.decode() for command in IDENTITY}
    commands = default_commands(profile) if profile else list(QUERIES)
    return steps_of(text for text in commands if text not in asked)


async def _take(
    step: Step,
    channel: Channel,
    rows: Iterable[Template],
    recording: Recording,
    timeout: float,
    report: Callable[[str], None],
) -> None:
    """One step. A refusal is an answer; a time-out and a restart are part of the record."""
    if step.is_wait:
        report(f"waiting {step.wait:g} s")
        await asyncio.sleep(step.wait)
        return
    recording.commands += 1
    command = _command(step, rows, timeout)
    before = channel.reboots
    try:
        await channel.run(command)
        report(step.text)
        if any(_harm(*part) == _RESTARTS for part in _parts(step.text)):
            await channel.booted(before, BOOT_SECONDS)
    except CommandRefused as error:
        report(f"{step.text}: {error.result}")
    except UnexpectedAnswer:
        report(step.text)
    except CommandTimeout:
        recording.timed_out[_last_sent(recording, step)] = command.seconds
        report(f"{step.text}: no result")
    except ModemRebooted:
        report(f"{step.text}: the modem restarts")
        await channel.booted(before, BOOT_SECONDS)


def _last_sent(recording: Recording, step: Step) -> int:
    """The number of the record with ``step``, the latest one."""
    line = step.text.encode() + b"\r"
    sent = (r for r in reversed(recording.records) if r.dir == ">" and r.raw == line)
    return next((r.number for r in sent), 0)


def _command(step: Step, rows: Iterable[Template], timeout: float) -> Command:
    """``step`` with what the profile knows of such a command: its time, its second result."""
    head, form = _head(step.text), step.text.endswith("?")
    row = next((r for r in rows if _head(r.text) == head and r.text.endswith("?") == form), None)
    outcome = re.sub(r"\{(\w+)\}", r"<\1>", row.outcome) if row else ""
    return Command(
        step.text.encode("ascii"),
        Shape("<text:line>"),
        0,
        10_000,
        success=row.success if row else (b"OK",),
        outcome=Shape(outcome) if outcome else None,
        prompt=b">" if step.payload is not None else b"",
        payload=step.payload or b"",
        seconds=max(timeout, row.seconds if row else 0.0),
    )


# --- writing --------------------------------------------------------------------------------


def capture_of(
    recording: Recording, redaction: Redaction, *, identifier: str, started: float
) -> dict[str, Any]:
    """The recording as an object of tests/captures, redacted."""
    found = recording.identity
    records = redaction(
        Trace("", {"format": FORMAT, "version": VERSION}, recording.records)
    ).records
    emulated = recording.emulated
    moment = datetime.fromtimestamp(started, UTC).isoformat(timespec="seconds")
    return {
        "id": identifier,
        "modem": f"{found.manufacturer.removesuffix('_Ltd')} {found.model}" if found else "unknown",
        "firmware": found.firmware if found else "unknown",
        "source": f"{SOURCE} {__version__}" + (" (a software modem)" if emulated else ""),
        "topic": "",
        "evidence": "emulated" if emulated else "recorded",
        "date": moment.replace("+00:00", "Z"),
        "baud": recording.baudrate,
        "profile": recording.profile,
        "redacted": dict(sorted(redaction.counts.items())),
        "exchanges": _exchanges(records, recording.timed_out),
        "note": "",
    }


def _exchanges(records: Sequence[Record], timed_out: dict[int, float]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    answered = True  # nobody waits for a result
    for item in records:
        text = item.raw.decode("latin-1")
        if item.dir == ">":
            found.append({"tx": text.rstrip("\r"), "tx_raw": text, "t": item.t, "rx": []})
            found[-1] |= {"rx_raw": "", "rx_at": []}
            answered = False
            if item.number in timed_out:
                found[-1]["timed_out"] = timed_out[item.number]
        elif not answered:
            last = found[-1]
            last["rx"] += _lines(text)
            last["rx_raw"] += text
            last["rx_at"] += [round(item.t - last["t"], 4)] * len(_lines(text))
            answered = item.event in ("final", "bootline") and "timed_out" not in last
        elif _lines(text):
            found.append({"urc": "\n".join(_lines(text)), "raw": text, "t": item.t})
        elif found:
            found[-1]["rx_raw" if "tx" in found[-1] else "raw"] += text
    return found


def _lines(text: str) -> list[str]:
    return [line for line in re.split(r"[\r\n]+", text) if line]


# --- reading --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Exchange:
    """What the host sent (None: nothing) and what came. ``number`` counts from 1.

    ``exact``: ``rx`` is what went over the line; otherwise lines with line ends of our own.
    ``answered`` is False where no result came in time, or the source shows none.
    """

    number: int
    tx: bytes | None
    rx: bytes
    exact: bool
    t: float | None = None
    answered: bool = True


@dataclass(frozen=True, slots=True)
class Capture:
    """A capture that was read. ``line``: where in the file it stands."""

    line: int
    id: str
    modem: str
    firmware: str
    exchanges: tuple[Exchange, ...]


def read_captures(path: Path) -> list[Capture]:
    """The captures in ``path``, or the one that ``path`` names behind a ``#``.

    Raises BadInput, naming the line.
    """
    file, _, wanted = str(path).partition("#")
    try:
        data = Path(file).read_bytes()
    except OSError as error:
        raise BadInput("capture", file, f"a file that can be read ({error.strerror})") from None
    name = Path(file).name
    lines = enumerate(data.split(b"\n"), start=1)
    captures = [_read(line, name, number) for number, line in lines if line.strip()]
    if not captures:
        raise BadInput("capture", name, "a file with a capture a line; this one is empty")
    if wanted:
        chosen = [capture for capture in captures if capture.id == wanted]
        if not chosen:
            known = ", ".join(capture.id for capture in captures)
            raise BadInput("capture", wanted, f"{name}#ID with one of {known}")
        return chosen
    return captures


def _read(line: bytes, name: str, number: int) -> Capture:
    where = f"{name}, line {number}"
    try:
        fields = json.loads(line.decode())
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        shown = line[:40].decode("latin-1")
        raise BadInput(where, shown, "one JSON object a line, in UTF-8")
    identifier, exchanges = fields.get("id"), fields.get("exchanges")
    if not isinstance(identifier, str) or not isinstance(exchanges, list):
        hint = "A trace of --trace is something else: `nbiot trace` reads it."
        raise BadInput(
            where,
            sorted(fields)[:6],
            "a capture: id and exchanges",
            hint=hint if fields.get("format") == FORMAT else "",
        )
    found = []
    for place, item in enumerate(exchanges, start=1):
        try:
            found.append(_read_exchange(item, place))
        except (KeyError, TypeError, AttributeError, ValueError):
            shown = json.dumps(item)[:60]
            allowed = "tx (text) and rx (a list of lines), or urc (text), in Latin-1"
            raise BadInput(f"{where}, exchange {place}", shown, allowed) from None
    modem, firmware = (str(fields.get(key) or "") for key in ("modem", "firmware"))
    return Capture(number, identifier, modem, firmware, tuple(found))


def _read_exchange(item: dict[str, Any], number: int) -> Exchange:
    tx: bytes | None = None
    lines = [item["urc"]] if "tx" not in item else item["rx"]
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        raise TypeError
    if "tx" in item:
        text = item.get("tx_raw", item["tx"])
        ended = "tx_raw" in item or text.endswith(("\r", "\n"))
        tx = (text if ended else f"{text}\r").encode("latin-1")
    raw = next((item[key] for key in ("rx_raw", "raw_rx", "raw") if key in item), None)
    if raw is None and any("\r" in line or "\n" in line for line in lines):
        raw = "".join(lines)
    exact = raw is not None
    rx = raw if raw is not None else "".join(f"\r\n{line}\r\n" for line in lines if line)
    t = item.get("t")
    answered = "timed_out" not in item and (tx is None or bool(rx))
    return Exchange(
        number, tx, rx.encode("latin-1"), exact, t if type(t) in (int, float) else None, answered
    )
