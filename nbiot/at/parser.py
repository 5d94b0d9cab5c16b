"""Bytes in, events out.

The rules, in the order in which a complete line is tried:

1. the exact echo of the command in flight;
2. a result code that the command in flight declared (``REBOOTING`` of ``AT+NRB``);
3. a line of the boot banner; while a banner runs, its last line (an ``OK`` on HiSilicon) is part of
   it and completes nothing;
4. a final result code: ``OK``, ``ERROR``, ``+CME ERROR: n``, ``+CMS ERROR: n``;
5. the second result that the command declared (``SEND OK``);
6. an information line of the declared shape. The shape decides: ``+CEREG: 1`` is a URC also while
   ``AT+CEREG?`` is in flight. Free text comes last and never begins with ``+``;
7. a URC of the dialect;
8. an unknown line.

A prompt is recognised only while the command in flight declares one, and only where a line would
begin. Data that a URC announces is read by length; nothing in it is looked at.
"""

from __future__ import annotations

import re

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

_LINE_BEGIN = re.compile(rb"[^\r\n \x00\xff]")
_LINE_END = re.compile(rb"[\r\n]")
_REFUSED = re.compile(rb"ERROR|\+CM[ES] ERROR: ?.*")
_ERROR_CODE = re.compile(rb"\+CM[ES] ERROR: ?(\d+)$")

# A line of a HiSilicon modem with 1358 bytes in hexadecimal has about 2,800 characters.
DEFAULT_LIMIT = 8192


def error_code(final: bytes) -> int | None:
    """The number in ``+CME ERROR: n``; None for a plain ERROR or a text (3GPP TS 27.007, 9.1)."""
    found = _ERROR_CODE.match(final)
    return int(found[1]) if found else None


class Parser:
    """The receiving half of an AT dialogue.

    Tell it which command is in flight (``begin``), feed it what the port gives (``feed``), and tell
    it when the caller no longer waits (``abandon``): what still comes for that command leaves as
    ``Orphan``. With ``require_echo`` nothing is an answer before the echo of its command.
    """

    def __init__(
        self, dialect: Dialect, *, limit: int = DEFAULT_LIMIT, require_echo: bool = False
    ) -> None:
        self.dialect = dialect
        self.require_echo = require_echo
        self._limit = limit
        self._buffer = bytearray()
        self._searched = 0  # where the search for a line end goes on
        self._command: Command | None = None
        self._abandoned = False
        self._echoed = False
        self._prompted = False
        self._final_seen = False
        self._answers = 0
        self._outcome_seen = False
        self._booting = False
        self._ignore_data = False

    # --- the host's side --------------------------------------------------------------------

    def begin(self, command: Command) -> None:
        """``command`` goes out now."""
        self._command = command
        self._abandoned = False
        self._echoed = False
        self._prompted = False
        self._final_seen = False
        self._outcome_seen = command.outcome is None
        self._answers = 0

    def abandon(self) -> None:
        """Nobody waits for the command in flight any more; it still owes its results."""
        self._abandoned = True

    def settle(self) -> None:
        """The debts of the abandoned command are written off."""
        self._command = None

    @property
    def in_flight(self) -> Command | None:
        """The command whose results are still to come, abandoned or not."""
        return self._command

    @property
    def booting(self) -> bool:
        """A boot banner has begun and not ended."""
        return self._booting

    @property
    def buffered(self) -> bytes:
        """What was received and is in no event yet."""
        return bytes(self._buffer)

    def end_of_boot(self) -> None:
        """Stop waiting for the end of a banner (its last line was lost)."""
        self._booting = False

    # --- the modem's side -------------------------------------------------------------------

    def feed(self, data: bytes) -> list[Event]:
        """The events that ``data`` completes."""
        self._buffer += data
        events: list[Event] = []
        while (event := self._next()) is not None:
            events.append(event)
        return events

    @property
    def awaits_data(self) -> bool:
        """A URC announced data that has not come in full."""
        begin = self._begin_of_line(0)
        return begin is not None and not self._ignore_data and self._counted(begin) is not None

    def give_up_data(self) -> list[Event]:
        """The announced data does not come: take its header as truncated, the rest as lines."""
        self._ignore_data = True
        return self.feed(b"")

    def _next(self) -> Event | None:
        """The next event, or None until more bytes come."""
        begin = self._begin_of_line(0)
        if begin is None:
            return self._overflow() if len(self._buffer) > self._limit else None
        if self._at_prompt(begin):
            return self._prompt(begin)
        if not self._ignore_data and (counted := self._counted(begin)):
            return self._data(begin, *counted)
        return self._line(begin)

    def _begin_of_line(self, position: int) -> int | None:
        found = _LINE_BEGIN.search(self._buffer, position)
        return found.start() if found else None

    def _take(self, end: int) -> bytes:
        """Remove and return the first ``end`` bytes of the buffer."""
        raw = bytes(self._buffer[:end])
        del self._buffer[:end]
        self._searched = 0
        return raw

    def _overflow(self) -> Event | None:
        return Overflow(self._take(len(self._buffer)))

    def _at_prompt(self, begin: int) -> bool:
        command = self._command
        return (
            command is not None
            and command.prompt != b""
            and not self._prompted
            and self._buffer.startswith(command.prompt, begin)
        )

    def _prompt(self, begin: int) -> Event:
        assert self._command is not None
        raw = self._take(begin + len(self._command.prompt))
        if self._abandoned or (self.require_echo and not self._echoed):
            return Orphan(raw, "prompt")
        self._prompted = True
        return Prompt(raw)

    # --- counted data -----------------------------------------------------------------------

    def _counted(self, begin: int) -> tuple[int, str, dict[str, object]] | None:
        """Where the data that a header at ``begin`` announces ends, its URC's name and fields.

        The end is beyond the buffer while bytes are missing; it is -1 while the header is.
        """
        for rule in self.dialect.data_rules():
            if not self._buffer.startswith(rule.prefix, begin):
                continue
            found = rule.header.match(self._buffer, begin)
            if found is None:
                if not _LINE_END.search(self._buffer, begin, len(self._buffer) - 1):
                    return -1, rule.name, {}
                continue
            fields = rule.shape.match(found["line"])
            if fields is not None and 0 < fields[rule.length] <= self._limit:
                return found.end() + fields[rule.length], rule.name, fields
        return None

    def _data(self, begin: int, end: int, name: str, fields: dict[str, object]) -> Event | None:
        if end < 0 or end > len(self._buffer):
            return self._overflow() if len(self._buffer) > self._limit else None
        raw = self._take(end)
        length = next(r.length for r in self.dialect.data_rules() if r.name == name)
        size = fields[length]
        assert isinstance(size, int)
        return UrcReceived(raw, name, fields, raw[-size:])

    # --- lines ------------------------------------------------------------------------------

    def _line(self, begin: int) -> Event | None:
        found = _LINE_END.search(self._buffer, max(begin, self._searched))
        if found is None:
            self._searched = len(self._buffer)
            return self._overflow() if len(self._buffer) > self._limit else None
        line = bytes(self._buffer[begin : found.start()])
        raw = self._take(found.end())
        if self._ignore_data:
            self._ignore_data = False
            return Truncated(raw)
        return self._classify(raw, line.rstrip(b" "))

    def _classify(self, raw: bytes, line: bytes) -> Event:
        command = self._command
        if command is not None:
            if line == command.line and not self._echoed:
                self._echoed = True
                return Echo(raw)
            if line in command.failure or (line in command.success and line != b"OK"):
                return self._final(raw, command, ok=line in command.success)
        if self._booting or self.dialect.is_boot(line):
            boot = self._boot_line(raw, line)
            if boot is not None:
                return boot
        if line == b"OK" or _REFUSED.fullmatch(line):
            return self._final(raw, command, ok=line == b"OK")
        if command is not None and (event := self._of_command(raw, line, command)):
            return event
        if urc := self.dialect.urc(line):
            return UrcReceived(raw, *urc)
        if command is not None and (event := self._free_text(raw, line, command)):
            return event
        return Unknown(raw)

    def _boot_line(self, raw: bytes, line: bytes) -> Event | None:
        last = self.dialect.is_last_boot_line(line)
        if self._booting and last:
            self._booting = False
            return BootLine(raw, done=True)
        if self.dialect.is_boot(line):
            self._booting = not last
            return BootLine(raw, done=last)
        return None

    def _final(self, raw: bytes, command: Command | None, *, ok: bool) -> Event:
        if command is None or self._final_seen or (self.require_echo and not self._echoed):
            return Orphan(raw, "final")
        if self._abandoned:
            self._finish(ok=ok)
            return Orphan(raw, "final")
        if ok and self._answers < command.least:
            return Early(raw)
        self._finish(ok=ok)
        return Final(raw, ok)

    def _finish(self, *, ok: bool) -> None:
        self._final_seen = True
        if self._outcome_seen or not ok:
            self._command = None

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
                return Orphan(raw, "outcome") if self._abandoned else Outcome(raw, fields)
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
        if self._final_seen or self._answers >= command.most or command.answer is None:
            return None
        fields = command.answer.match(line)
        if fields is None:
            return None
        self._answers += 1
        return Orphan(raw, "answer") if self._abandoned else Answer(raw, fields)
