"""The parser of the AT dialogue: commands begin and are given up at any moment, bytes come in any
pieces.

``bc66 echo small|bAT+CSQ|<\\r\\n+CSQ: 18,99\\r\\n|x3|a|p|g|e|s|cAT+CFUN?`` - profile (or ``any``),
``echo``: nothing counts before the echo, ``small``: a buffer of 64 bytes. Then: ``b`` begin the
command with this text, ``<`` the modem says, ``x`` says it again n times, ``a`` the caller gives
up, ``p`` begin the probe, ``g`` give up announced data, ``e`` stop waiting for the end of a banner,
``s`` write off all debts, ``c`` is ``a`` and ``b``.
"""

from __future__ import annotations

import re
import zlib

from nbiot.at import (
    Answer,
    BootLine,
    Command,
    Dialect,
    Early,
    Echo,
    Event,
    Final,
    Outcome,
    Overflow,
    Parser,
    Prompt,
    Shape,
    UrcReceived,
)

from .script import PROFILES, chosen, commands, fields, number, swift
from .typed import check_fields

MOST_FED = 1 << 14
MOST_COMPARED = 600
REFUSED = re.compile(rb"ERROR|\+CM[ES] ERROR:.*", re.DOTALL)

ANY = {
    command.line: command
    for command in (
        Command(b"AT"),
        Command(b"ATI", Shape("<text:line>"), 1, 12),
        Command(b"AT+X", Shape("+X: <a>[,<b:int>]"), 0, 3, failure=(b"NO",)),
    )
}
DIALECTS = {name: (profile.dialect, commands(profile) | ANY) for name, profile in PROFILES.items()}
DIALECTS[b"any"] = (Dialect.union(profile.dialect for profile in PROFILES.values()), ANY)

TOKENS = (
    *(b"|b%b|<" % line for _, table in DIALECTS.values() for line in table),
    *(b"\r\n%b" % line for _, table in DIALECTS.values() for line in table),
    *(
        urc.notation.encode().split(b"<")[0]
        for profile in PROFILES.values()
        for urc in profile.dialect.urcs
    ),
    *(b"|a", b"|p", b"|g", b"|e", b"|s", b"|c", b"|x9", b"|<", b" echo", b" small"),
    *(b"\r\nOK\r\n", b"\r\nERROR\r\n", b"\r\n+CME ERROR: 50\r\n", b"\r\n> ", b"\r\nSEND OK\r\n"),
    *(b"\r\nREBOOTING\r\n", b"REBOOT_CAUSE_APPLICATION_AT\r\nNeul \r\nOK\r\n", b"RDY\r\n"),
    *(b"\n\rF1: 0000 0000\n\r", b"Leaving the BROM\n\r", b'+QIURC: "recv",0,3\r\nabc'),
    *(b'+QIURC: "recv",0,3,abc', b"+CSQ:18,99", b"+CEREG:1", b"+CEREG:0,1", b"\x00", b"\xff"),
)


class Watched:
    """A parser, and what must be true of its events."""

    def __init__(self, dialect: Dialect, *, limit: int, require_echo: bool) -> None:
        self.parser = Parser(dialect, limit=limit, require_echo=require_echo)
        self.limit = limit
        self.require_echo = require_echo
        self.events: list[Event] = []
        self.fed: list[bytes] = []
        self.booting = False
        self._forget()

    def _forget(self) -> None:
        self.current: Command | None = None
        self.waiting: Command | None = None
        self.answers = 0
        self.echoed = self.prompted = self.final = self.outcome = False

    def begin(self, command: Command) -> None:
        self._forget()
        self.parser.begin(command)
        self.current = self.waiting = command
        assert self.parser.in_flight is command

    def abandon(self) -> None:
        self.parser.abandon()
        self.waiting = None

    def settle(self) -> None:
        self.parser.settle()
        self._forget()
        assert not self.parser.owes

    def probe(self) -> None:
        probe = self.parser.probe()
        assert probe is None or probe in self.parser.dialect.probes
        if probe is not None:
            self.begin(probe)

    def end_of_boot(self) -> None:
        self.parser.end_of_boot()
        self.booting = False

    def give_up_data(self) -> None:
        self._take(self.parser.give_up_data())
        assert not (self.parser.awaits_data and not self.parser.buffered)

    def feed(self, data: bytes) -> None:
        self.fed.append(data)
        self._take(self.parser.feed(data))
        # A header of up to the limit, its CR LF, and data of up to the limit.
        assert len(self.parser.buffered) <= 2 * self.limit + 2, "the buffer grows"

    def _take(self, events: list[Event]) -> None:
        for event in events:
            assert event.raw, f"{event!r} has no bytes"
            self._check(event)
        self.events += events

    def _check(self, event: Event) -> None:
        match event:
            case Answer() | Final() | Outcome() | Prompt() | Early():
                assert self.waiting, f"{event!r} without a command in flight"
                assert self.echoed or not self.require_echo, f"{event!r} before the echo"
                self._check_result(event, self.waiting)
            case Echo():
                assert self.current, "an echo of nothing"
                assert event.line == self.current.line
                self.echoed = True
            case UrcReceived():
                urcs = [urc for urc in self.parser.dialect.urcs if urc.name == event.name]
                check_fields(event.fields, [urc.notation.rstrip(",") for urc in urcs])
                if event.data is not None:
                    assert len(event.data) == event.fields["length"]
                    assert event.raw.endswith(event.data)
                else:
                    assert any(not urc.data for urc in urcs), "data that did not come"
            case BootLine():
                assert event.first is not self.booting
                if event.first:
                    self._forget()
                self.booting = not event.done

    def _check_result(self, event: Event, command: Command) -> None:
        match event:
            case Answer():
                assert command.answer is not None
                assert not self.final
                self.answers += 1
                assert self.answers <= command.most
                check_fields(event.fields, [command.answer.notation])
            case Final():
                assert not self.final, "a second final result"
                line = event.line
                assert not (self.booting and line == b"OK" in self.parser.dialect.boot_ends)
                if event.ok:
                    assert line in command.success or line == b"OK"
                    assert self.answers >= command.least
                    assert self.prompted or not command.prompt
                else:
                    assert line in command.failure or REFUSED.fullmatch(line)
                self.final = True
                assert event.done == (not event.ok or command.outcome is None or self.outcome)
                if event.done:
                    self._forget()
            case Outcome():
                assert command.outcome is not None
                assert not self.outcome
                self.outcome = True
                check_fields(event.fields, [command.outcome.notation])
                assert event.done == self.final
                if event.done:
                    self._forget()
            case Prompt():
                assert command.prompt
                assert not self.prompted
                self.prompted = True


def play(data: bytes, *, piece: int = 0) -> Watched:
    """Run a script. ``piece``: all that the modem says comes in pieces of so many bytes."""
    setting, todo = fields(data)
    name, *words = setting.split(b" ")
    dialect, table = chosen(DIALECTS, name)
    small = b"small" in words
    watched = Watched(dialect, limit=64 if small else 8192, require_echo=b"echo" in words)
    said, left = b"", MOST_FED
    for letter, argument in todo:
        match letter:
            case b"b":
                watched.begin(chosen(table, argument))
            case b"c":
                watched.abandon()
                watched.begin(chosen(table, argument))
            case b"a":
                watched.abandon()
            case b"p":
                watched.probe()
            case b"s":
                watched.settle()
            case b"e":
                watched.end_of_boot()
            case b"g":
                watched.give_up_data()
            case b"<" | b"x":
                times = number(argument, 99) if letter == b"x" else 1
                said = said if letter == b"x" else argument
                for _ in range(times):
                    if len(said) > left:
                        break
                    left -= len(said)
                    step = piece or len(said) or 1
                    for at in range(0, len(said), step):
                        watched.feed(said[at : at + step])
    return watched


def one(data: bytes) -> None:
    """See the top of this file."""
    size = len(data)
    with swift(min(size * 99, MOST_FED)):
        watched = play(data)
    whole = b"".join(event.raw for event in watched.events) + watched.parser.buffered
    assert whole == b"".join(watched.fed), "bytes were lost or made up"
    if len(whole) > MOST_COMPARED or any(isinstance(event, Overflow) for event in watched.events):
        return
    other = play(data, piece=1 + zlib.crc32(data) % 8)
    if not any(isinstance(event, Overflow) for event in other.events):
        assert other.events == watched.events, "chunks matter"
        assert other.parser.buffered == watched.parser.buffered
        assert other.parser.owes == watched.parser.owes
        assert other.parser.booting == watched.parser.booting
