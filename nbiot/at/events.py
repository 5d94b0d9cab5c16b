"""What the parser says about the bytes it was fed.

Every byte leaves in the ``raw`` of exactly one event: the sum of all ``raw`` plus what is still in
the parser's buffer is the input. Line ends, and noise in front of a line, belong to the event that
follows them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nbiot.at.command import Command
from nbiot.at.shape import Fields


@dataclass(slots=True)
class Event:
    """Root of the events."""

    raw: bytes

    @property
    def line(self) -> bytes:
        """The text without line ends and noise."""
        return self.raw.strip(b"\r\n \x00\xff")


@dataclass(slots=True)
class Echo(Event):
    """The modem repeated the command in flight."""


@dataclass(slots=True)
class Answer(Event):
    """An information line of the command in flight."""

    fields: Fields


@dataclass(slots=True)
class Final(Event):
    """The final result code of the command in flight. ``ok``: it means yes.

    ``done``: no second result is to come. ``doubtful``: more information lines came than the
    command brings, of different content; one of them was a URC of the same shape.
    """

    ok: bool
    done: bool
    doubtful: bool = False


@dataclass(slots=True)
class Early(Event):
    """A positive final result code before the information line or prompt that must come first.

    Either the modem has nothing to say, or this is somebody else's OK: it does not complete the
    command.
    """


@dataclass(slots=True)
class Outcome(Event):
    """The second result of the command in flight, e.g. ``SEND OK``. ``done``: OK came before."""

    fields: Fields
    done: bool


@dataclass(slots=True)
class Prompt(Event):
    """The modem waits for the payload."""


@dataclass(slots=True)
class UrcReceived(Event):
    """An unsolicited result code, with the datagram it carries where it is of that kind."""

    name: str
    fields: Fields
    data: bytes | None = None


@dataclass(slots=True)
class BootLine(Event):
    """A line of the boot banner. ``done``: the last one; commands are taken from now on."""

    done: bool
    first: bool


@dataclass(slots=True)
class Orphan(Event):
    """A result that belongs to an abandoned command, or to none.

    ``command``: the abandoned command that is meant, where that is certain.
    """

    kind: Literal["answer", "final", "outcome", "prompt"]
    command: Command | None = None


@dataclass(slots=True)
class Unknown(Event):
    """A line that nothing declared: kept and reported, never taken for an answer."""


@dataclass(slots=True)
class Truncated(Event):
    """A line that announced data which never came in full."""


@dataclass(slots=True)
class Overflow(Event):
    """More bytes without a line end than any answer has; they are dropped from the buffer."""
