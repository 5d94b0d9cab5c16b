"""Bytes in, events out.

The rules, in the order in which a complete line is tried:

1. the exact echo of the command in flight;
2. a result code that the command in flight declared (``REBOOTING`` of ``AT+NRB``);
3. a line of the boot banner; while a banner runs, its last line (an ``OK`` on HiSilicon) is part of
   it and completes nothing. The first line of a banner ends the command in flight: it owes nothing;
4. a final result code: ``OK``, ``ERROR``, ``+CME ERROR: n``, ``+CMS ERROR: n``;
5. the second result that the command declared (``SEND OK``);
6. an information line of the declared shape. The shape decides: ``+CEREG: 1`` is a URC also while
   ``AT+CEREG?`` is in flight. Free text comes last and never begins with ``+``;
7. an information line or a second result of a command that was abandoned earlier;
8. a URC of the dialect;
9. an unknown line.

A line with bytes beside printable ASCII is damaged: it is an unknown line, unless a boot banner
stands behind the damage. Noise right in front of a line damages an answer without a prefix, too:
its first digit may be what was lost.

A prompt is recognised only while a command declares one, and only where a line would begin. Data
that a URC announces is read by length; nothing in it is looked at.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from nbiot.at.command import Command
from nbiot.at.dialect import Dialect
from nbiot.at.events import (
    Answer,
    BootLine,
    Early,
    Echo,
    Event,
    Final,
    Orphan,
    Outcome,
    Overflow,
    Prompt,
    Truncated,
    Unknown,
    UrcReceived,
)
from nbiot.at.shape import Fields

_LINE = re.compile(rb"[\r\n \x00\xff]*+([^\r\n]*+)")  # behind the noise in front of it
_LINE_END = re.compile(rb"[\r\n]")
_OK_CHUNK = b"\r\nOK\r\n"  # the commonest chunk
_NOTHING_LEFT = (b"\n", b"")  # what mostly is in the buffer behind a line
_PRINTABLE = bytes([0x09, *range(0x20, 0x7F)])
_BEHIND_DAMAGE = re.compile(rb"[\t\x20-\x7e]*+$")
_REFUSALS = (b"ERROR", b"+CM")
_REFUSED = re.compile(rb"ERROR|\+CM[ES] ERROR: ?.*")
_ERROR_CODE = re.compile(rb"\+CM[ES] ERROR: ?(\d{1,9})$")
_NUL_OR_FF = (0x00, 0xFF)

# A line of a HiSilicon modem with 1358 bytes in hexadecimal has about 2,800 characters.
DEFAULT_LIMIT = 8192
MOST_DEBTS = 32  # no modem keeps more commands in its input


def error_code(final: bytes) -> int | None:
    """The number in ``+CME ERROR: n``; None for a plain ERROR or a text (3GPP TS 27.007, 9.1)."""
    found = _ERROR_CODE.match(final)
    return int(found[1]) if found else None


@dataclass(slots=True)
class _Debt:
    """An abandoned command whose results may still come."""

    command: Command
    lines: int  # information lines that may still come
    prompt: bool
    outcome: bool

    def answers_like(self, probe: Command) -> bool:
        """Could one of its information lines be taken for an answer to ``probe``?"""
        own, other = self.command.answer, probe.answer
        return own is not None and other is not None and own.prefix == other.prefix

    def may_say(self, line: bytes) -> bool:
        answer = self.command.answer
        return answer is not None and not answer.free and answer.match(line) is not None


class Parser:
    """The receiving half of an AT dialogue.

    Tell it which command is in flight (``begin``), feed it what the port gives (``feed``), and tell
    it when the caller no longer waits (``abandon``): what still comes for that command leaves as
    ``Orphan``. While it ``owes`` something, the next command must be its ``probe``. With
    ``require_echo`` nothing is an answer before the echo of its command.
    """

    def __init__(
        self, dialect: Dialect, *, limit: int = DEFAULT_LIMIT, require_echo: bool = False
    ) -> None:
        self.dialect = dialect
        self.require_echo = require_echo
        self._limit = limit
        self._buffer = b""
        self._noise = 0  # bytes at the buffer's beginning that are known to be noise
        self._in_line = False  # behind that noise a line has begun and not ended
        self._need = 0  # length that the buffer must have for the announced data to be complete
        self._data_given_up = False
        self._skipping = False  # in the rest of a line that was too long
        self._command: Command | None = None
        self._abandoned = False
        self._echoed = False
        self._prompted = False
        self._prompting = False  # a prompt may come, of the command in flight or an earlier one
        self._final_seen = False
        self._answers = 0
        self._last_answer: tuple[bytes, Fields] = (b"", {})
        self._doubtful = False
        self._outcome_seen = False
        self._booting = False
        self._debts: list[_Debt] = []
        self._stray = False  # a final result came that nobody was waiting for

    # --- the host's side --------------------------------------------------------------------

    def begin(self, command: Command) -> None:
        """``command`` goes out now."""
        if self._command is not None:
            self._remember_debt()
        self._command = command
        self._abandoned = False
        self._echoed = False
        self._prompted = False
        self._prompting = bool(command.prompt or self._debts)
        self._final_seen = False
        self._outcome_seen = command.outcome is None
        self._answers = 0
        self._doubtful = False

    def abandon(self) -> None:
        """Nobody waits for the command in flight any more; it still owes its results."""
        self._abandoned = True

    def settle(self) -> None:
        """All debts are written off."""
        self._command = None
        self._debts.clear()
        self._stray = False

    @property
    def in_flight(self) -> Command | None:
        """The command whose results are still to come, abandoned or not."""
        return self._command

    @property
    def owes(self) -> bool:
        """May a final result come that belongs to no command, or to an abandoned one?"""
        return bool(self._debts) or self._stray or (self._abandoned and self._final_due)

    @property
    def unsettled(self) -> bool:
        """May it owe something, or is the modem starting up? Quick, and rather yes than no."""
        return self._booting or self._stray or self._abandoned or bool(self._debts)

    @property
    def prompt_due(self) -> bool:
        """May the modem be about to ask for a payload?"""
        return self._prompter() is not None

    def probe(self) -> Command | None:
        """The query of the dialect whose answer says most about where the dialogue stands.

        It is one that no abandoned command answers alike, or else the one which only the latest
        do. When it is answered, all commands are done that precede the *first* which could have
        said the same. None when the dialect has no probes.
        """
        debts = [*self._debts, *self._open_debt()]

        def told(probe: Command) -> int:
            if probe.answer is not None and self.dialect.may_announce(probe.answer):
                return -1
            alike = (i for i, debt in enumerate(debts) if debt.answers_like(probe))
            return next(alike, len(debts))

        return max(self.dialect.probes, key=told, default=None)

    @property
    def booting(self) -> bool:
        """A boot banner has begun and not ended."""
        return self._booting

    @property
    def buffered(self) -> bytes:
        """What was received and is in no event yet."""
        return self._buffer

    def end_of_boot(self) -> None:
        """Stop waiting for the end of a banner (its last line was lost)."""
        self._booting = False

    # --- debts ------------------------------------------------------------------------------

    @property
    def _final_due(self) -> bool:
        return self._command is not None and not self._final_seen

    def _open_debt(self) -> list[_Debt]:
        """What the command in flight would owe if it were abandoned now."""
        command = self._command
        if command is None or (self._final_seen and self._outcome_seen):
            return []
        prompt = command.prompt != b"" and not self._prompted
        lines = max(command.most - self._answers, 0)
        return [_Debt(command, lines, prompt, not self._outcome_seen)]

    def _remember_debt(self) -> None:
        if self._final_due:
            self._debts = [*self._debts, *self._open_debt()][-MOST_DEBTS:]

    def _repay(self, command: Command) -> None:
        """``command`` was answered, so whatever went out before it is done.

        But the answer may be the late one of an abandoned command that says the same. The modem
        answers in order, so the first of those is meant at the least; ``command`` owes then.
        """
        line, _ = self._last_answer
        for i, debt in enumerate(self._debts):
            if debt.may_say(line):
                own = _Debt(command, command.most, prompt=False, outcome=False)
                self._debts = [*self._debts[i + 1 :], own]
                return
        self._debts.clear()
        self._stray = False

    # --- the modem's side -------------------------------------------------------------------

    def feed(self, data: bytes) -> list[Event]:
        """The events that ``data`` completes."""
        if data == _OK_CHUNK and self._ok_is_a_line:
            raw, self._buffer, self._noise = self._buffer + data[:-1], b"\n", 1
            return [self._classify(raw, b"OK")]
        events: list[Event] = []
        if self._skipping and data:
            data = self._skip(data, events)
        buffer = self._buffer = self._buffer + data
        size = len(buffer)
        begin = self._noise  # the first byte of the line
        marks = self._marks() if self._prompting else self.dialect.data_prefixes
        if self._need:
            if size < self._need:
                return events
        elif (
            self._in_line
            and b"\r" not in data
            and b"\n" not in data
            and size <= self._limit
            and not buffer.startswith(marks, begin)
        ):
            return events  # the middle of a line; a slow port brings most bytes one by one
        position = 0  # the first byte that is in no event yet
        while True:
            begin, end = _LINE.match(buffer, begin).span(1)  # type: ignore[union-attr]
            special = None
            if buffer.startswith(marks, begin):
                special = self._special(buffer, position, begin, end if end < size else -1)
            if special is not None:
                event, end = special
            elif end < size and not self._need:
                end += 1
                event = self._classify(buffer[position:end], buffer[begin : end - 1].rstrip(b" "))
            else:
                break
            events.append(event)
            position = begin = end
            if size - end < 2 and buffer[end:] in _NOTHING_LEFT:  # mostly a chunk ends with a line
                begin = size
                break
        if position:
            self._buffer = buffer[position:]
            if self._need:
                self._need = max(self._need - position, 0)
        self._noise = begin - position
        self._in_line = begin < size
        if size - position > self._limit and size - position > self._need:
            events.append(self._overflow())
        return events

    @property
    def _ok_is_a_line(self) -> bool:
        """Would ``_OK_CHUNK`` be a line of its own, as it mostly is?"""
        return (
            self._buffer in _NOTHING_LEFT
            and not (self._skipping or self._prompting)
            and not b"OK".startswith(self.dialect.data_prefixes)
        )

    def _overflow(self) -> Event:
        raw, self._buffer = self._buffer, b""
        self._data_given_up = False
        self._skipping = self._in_line
        self._noise = 0
        self._in_line = False
        return Overflow(raw)

    def _skip(self, data: bytes, events: list[Event]) -> bytes:
        """Drop the rest of a line that was too long; what comes behind it."""
        end = _LINE_END.search(data)
        self._skipping = end is None
        behind = len(data) if end is None else end.end()
        events.append(Overflow(data[:behind]))
        return data[behind:]

    def _marks(self) -> tuple[bytes, ...]:
        """What begins with one of these may be a prompt or counted data. No event adds to them."""
        prompts = [debt.command.prompt for debt in self._debts if debt.prompt]
        if self._command is not None and self._command.prompt:
            prompts.append(self._command.prompt)
        return (*self.dialect.data_prefixes, *prompts)

    def _special(
        self, buffer: bytes, position: int, begin: int, line_end: int
    ) -> tuple[Event, int] | None:
        """What begins at ``begin`` if it is not simply a line, with the end of its bytes."""
        prompter = self._prompter()
        if prompter is not None and buffer.startswith(prompter.prompt, begin):
            end = begin + len(prompter.prompt)
            return self._prompt(buffer[position:end], prompter), end
        if buffer.startswith(self.dialect.data_prefixes, begin):
            return self._counted(buffer, position, begin, line_end)
        return None

    # --- prompts ----------------------------------------------------------------------------

    def _prompter(self) -> Command | None:
        """The command whose prompt may come now."""
        command = self._command
        if command is not None and command.prompt and not self._prompted:
            return command
        if self._debts:
            return next((debt.command for debt in self._debts if debt.prompt), None)
        return None

    def _prompt(self, raw: bytes, prompter: Command) -> Event:
        if prompter is not self._command or self._prompted:  # the same command may go out twice
            next(debt for debt in self._debts if debt.prompt).prompt = False
            return Orphan(raw, "prompt", prompter)
        if self.require_echo and not self._echoed:
            return Orphan(raw, "prompt")
        self._prompted = True
        return Orphan(raw, "prompt", prompter) if self._abandoned else Prompt(raw)

    # --- counted data -----------------------------------------------------------------------

    @property
    def awaits_data(self) -> bool:
        """A URC announced data that has not come in full."""
        return self._need > 0

    def give_up_data(self) -> list[Event]:
        """The announced data does not come: take its header as truncated, the rest as lines."""
        self._data_given_up = self._need > 0
        self._need = 0
        self._in_line = False  # look at the buffer again
        return self.feed(b"")

    def _counted(
        self, buffer: bytes, position: int, begin: int, line_end: int
    ) -> tuple[Event, int] | None:
        """The URC with counted data whose header stands at ``begin``, once it is complete."""
        if self._data_given_up:
            if line_end < 0:
                return None
            self._data_given_up = False
            return Truncated(buffer[position : line_end + 1]), line_end + 1
        header_ended = line_end >= 0 or self._need > 0
        self._need = 0
        for rule in self.dialect.data_rules:
            if not rule.inline and not header_ended:
                continue
            header = rule.header.match(buffer, begin)
            fields = rule.shape.match(header["line"]) if header else None
            if header is None or fields is None or not 0 <= fields[rule.length] <= self._limit:
                continue
            end = header.end()
            if not rule.inline and buffer[end - 1 : end] == b"\r":
                if end == len(buffer):  # the LF is not there yet
                    self._need = end + 1
                    return None
                end += buffer[end] == 0x0A
            data = end + fields[rule.length]
            if data > len(buffer):
                self._need = data
                return None
            return UrcReceived(buffer[position:data], rule.name, fields, buffer[end:data]), data
        return None

    # --- lines ------------------------------------------------------------------------------

    def _classify(self, raw: bytes, line: bytes) -> Event:
        command = self._command
        if line == b"OK" and not self._booting:
            return self._final(raw, command, ok=True)
        if command is not None:
            if line == command.line and not self._echoed:
                self._echoed = True
                return Echo(raw)
            if line != b"OK" and (line in command.failure or line in command.success):
                return self._final(raw, command, ok=line in command.success)
        if line.translate(None, _PRINTABLE):
            behind = _BEHIND_DAMAGE.search(line)
            clean = behind[0].strip() if behind else b""
            return (self.dialect.is_boot(clean) and self._boot_line(raw, clean)) or Unknown(raw)
        if boot := self._boot_line(raw, line):
            return boot
        if line == b"OK" or (line.startswith(_REFUSALS) and _REFUSED.fullmatch(line)):
            return self._final(raw, command, ok=line == b"OK")
        if command is not None and (event := self._of_command(raw, line, command)):
            return event
        if self._debts and (event := self._of_debt(raw, line)):
            return event
        if urc := self.dialect.urc(line):
            return UrcReceived(raw, *urc)
        if command is not None and (event := self._free_text(raw, line, command)):
            return event
        return Unknown(raw)

    def _boot_line(self, raw: bytes, line: bytes) -> Event | None:
        last = line in self.dialect.boot_ends
        first = not self._booting
        if (first or not last) and not self.dialect.is_boot(line):
            return None
        if first:
            self.settle()
        self._booting = not last
        return BootLine(raw, done=last, first=first)

    def _final(self, raw: bytes, command: Command | None, *, ok: bool) -> Event:
        if command is None or self._final_seen:
            self._stray = self._stray or not self._debts
            return Orphan(raw, "final")
        if self.require_echo and not self._echoed:
            return Orphan(raw, "final")
        if ok and (self._answers < command.least or (command.prompt and not self._prompted)):
            return Orphan(raw, "final") if self._abandoned else Early(raw)
        certain = not self._debts and not self._stray
        if not certain:
            if ok and self._answers:
                self._repay(command)
            else:
                self._remember_debt()  # this may be a late result, and the command's still to come
        self._final_seen = True
        if self._outcome_seen or not ok:
            self._command = None
        if self._abandoned:
            return Orphan(raw, "final", command if certain else None)
        return Final(raw, ok, done=self._command is None, doubtful=self._doubtful)

    def _of_command(self, raw: bytes, line: bytes, command: Command) -> Event | None:
        """The second result, or an information line with a prefix, of the command in flight."""
        if self.require_echo and not self._echoed:
            return None
        if command.outcome and not self._outcome_seen:
            fields = command.outcome.match(line)
            if fields is not None:
                self._outcome_seen = True
                if self._final_seen:
                    self._command = None
                if self._abandoned:
                    return Orphan(raw, "outcome")
                return Outcome(raw, fields, done=self._final_seen)
        if command.answer is None or command.answer.free:
            return None
        return self._information(raw, line, command)

    def _free_text(self, raw: bytes, line: bytes, command: Command) -> Event | None:
        if command.answer is None or not command.answer.free or line.startswith(b"+"):
            return None
        if self.require_echo and not self._echoed:
            return None
        return self._information(raw, line, command)

    def _information(self, raw: bytes, line: bytes, command: Command) -> Event | None:
        if self._final_seen or command.answer is None:
            return None
        fields = command.answer.match(line)
        if fields is None or (not command.answer.prefix and _noise_adjoins(raw, line)):
            return None
        if self._answers >= command.most:
            # One of the two is a URC of the same shape; nobody can say which.
            if command.most and fields != self._last_answer[1] and self.dialect.urc(line):
                self._doubtful = True
            return None
        self._answers += 1
        self._last_answer = line, fields
        return Orphan(raw, "answer") if self._abandoned else Answer(raw, fields)

    def _of_debt(self, raw: bytes, line: bytes) -> Event | None:
        """An information line or a second result of a command that was abandoned earlier."""
        for debt in self._debts:
            if debt.lines and debt.may_say(line):
                debt.lines -= 1
                return Orphan(raw, "answer")
            if debt.outcome and debt.command.outcome and debt.command.outcome.match(line):
                debt.outcome = False
                return Orphan(raw, "outcome")
        return None


def _noise_adjoins(raw: bytes, line: bytes) -> bool:
    begin = raw.find(line)
    return begin > 0 and raw[begin - 1] in _NUL_OR_FF
