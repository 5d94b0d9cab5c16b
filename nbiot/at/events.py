"""What the parser says about the bytes it was fed.

Every byte leaves in the ``raw`` of exactly one event: the sum of all ``raw`` plus what is still in
the parser's buffer is the input. Line ends, and noise in front of a line, belong to the event that
follows them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nbiot.at.shape import Fields


@dataclass(frozen=True, slots=True)
class Event:
    """Root of the events."""

    raw: bytes

    @property
    def line(self) -> bytes:
        """The text without line ends and noise."""
        return self.raw.strip(b"\r\n \x00\xff")


@dataclass(frozen=True, slots=True)
class Echo(Event):
    """The modem repeated the command in flight."""


@dataclass(frozen=True, slots=True)
class Answer(Event):
    """An information line of the command in flight."""

    fields: Fields


@dataclass(frozen=True, slots=True)
class Final(Event):
    """The final result code of the command in flight. ``ok``: it means yes."""

    ok: bool


@dataclass(frozen=True, slots=True)
class Early(Event):
    """A positive final result code before the information line that the command must bring.

    Either the modem has nothing to say, or this is somebody else's OK: it does not complete the
    command.
    """


@dataclass(frozen=True, slots=True)
class Outcome(Event):
    """The second result of the command in flight, e.g. ``SEND OK``."""

    fields: Fields


@dataclass(frozen=True, slots=True)
class Prompt(Event):
    """The modem waits for the payload."""


@dataclass(frozen=True, slots=True)
class UrcReceived(Event):
    """An unsolicited result code, with the datagram it carries where it is of that kind."""

    name: str
    fields: Fields
    data: bytes | None = None


@dataclass(frozen=True, slots=True)
class BootLine(Event):
    """A line of the boot banner. ``done``: the last one; commands are taken from now on."""

    done: bool


@dataclass(frozen=True, slots=True)
class Orphan(Event):
    """A result that belongs to an abandoned command, or to none."""

    kind: Literal["answer", "final", "outcome", "prompt"]


@dataclass(frozen=True, slots=True)
class Unknown(Event):
    """A line that nothing declared: kept and reported, never taken for an answer."""


@dataclass(frozen=True, slots=True)
class Truncated(Event):
    """A line that announced data which never came in full."""


@dataclass(frozen=True, slots=True)
class Overflow(Event):
    """More bytes without a line end than any answer has; they are dropped from the buffer."""
