"""The seam around a modem, where something may stand between it and the world.

Everything a modem writes, hears, sends and receives passes its `Seam`. This one lets all of it
pass; `hil.faults` has one that does harm. `Truth` is what the modem really did, whatever the
seam made of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING, Literal, Protocol

from .cells import Stat
from .network import Address, Way
from .recent import Recent

if TYPE_CHECKING:
    from .engine import AtError, Modem, Result

KEPT = 1000
"""Entries that lists of what happened remember, unless `Options.keep` tells."""


class Kind(Enum):
    """What a piece of output is."""

    ECHO = "echo"
    LINE = "line"
    """Information line of an answer."""
    FINAL = "final"
    REFUSAL = "refusal"
    """What a line gets that came while another command ran (`Options.busy`)."""
    TRAILER = "trailer"
    """A second result after the final one: SEND OK, CLOSE OK."""
    URC = "urc"
    PROMPT = "prompt"
    DATA = "data"
    """Echo of what was typed after a prompt."""
    BANNER = "banner"
    NOISE = "noise"
    """Nothing the modem meant to say."""


@dataclass(slots=True)
class Executed:
    """A command line as the modem heard it, and its true answer."""

    at: float
    line: str
    answer: list[str] = field(default_factory=list)
    """Information lines, without line ends."""
    finals: list[str] = field(default_factory=list)
    """One; several for a concatenation on HiSilicon; none: not (yet) finished."""
    damaged: bool = False
    """Its answer did not leave as it was: changed, cut or kept back by a fault."""


@dataclass(frozen=True, slots=True)
class Urc:
    """A URC (or a trailer, `SEND OK`) that left the modem whole and undamaged."""

    at: float
    text: str
    end: int
    """Bytes that had left the modem when its last one had."""
    since_damage: int | None
    """Whole bytes between the last damaged ones and its end; None: nothing was damaged yet.
    After a damaged length a host may take what follows for data."""
    trailer: bool = False


@dataclass(frozen=True, slots=True)
class Traffic:
    """One datagram at one place.

    Up: `sent` left the modem's radio, `passed` (each copy) went on to the internet.
    Down: `came` from the internet, `received` (each copy) can be read by the host.
    """

    at: float
    event: Literal["sent", "passed", "came", "received"]
    peer: Address
    data: bytes


@dataclass(frozen=True, slots=True)
class Restart:
    """The modem restarted, or lost its power: sockets and volatile settings are gone."""

    at: float


@dataclass
class Truth:
    """What a modem really did, in order: the latest `Options.keep` events."""

    events: Recent[Executed | Urc | Traffic | Restart] = field(default_factory=lambda: Recent(KEPT))

    @property
    def commands(self) -> list[Executed]:
        return [event for event in self.events if isinstance(event, Executed)]

    @property
    def urcs(self) -> list[Urc]:
        """Without trailers."""
        return [event for event in self.events if isinstance(event, Urc) and not event.trailer]

    @property
    def trailers(self) -> list[Urc]:
        return [event for event in self.events if isinstance(event, Urc) and event.trailer]

    @property
    def restarts(self) -> list[Restart]:
        return [event for event in self.events if isinstance(event, Restart)]

    def traffic(self, event: str) -> list[bytes]:
        """The datagrams with this event (see `Traffic`)."""
        found = (e for e in self.events if isinstance(e, Traffic) and e.event == event)
        return [entry.data for entry in found]


@dataclass
class Piece:
    """Bytes on their way out that belong together."""

    kind: Kind
    data: bytes
    texts: tuple[tuple[Kind, str], ...] = ()
    """URCs and trailers the truth will hold as soon as this piece has left."""
    command: Executed | None = None
    """The command it answers."""
    delay: float = 0.0
    """Seconds to wait before it leaves, once everything before it has left."""
    damaged: bool = False

    def with_damage(self, data: bytes) -> Piece:
        """The same with other bytes; no longer true."""
        self.suppress()
        return replace(self, data=data, texts=(), damaged=True)

    def suppress(self) -> None:
        """It will not leave as it is."""
        if self.command is not None:
            self.command.damaged = True


@dataclass(frozen=True)
class Happening:
    """What a fault did."""

    at: float
    fault: str
    detail: str


class Port(Protocol):
    """What a seam may do to the port its modem is on."""

    def hang_up(self) -> None: ...

    def pause(self) -> None:
        """Stop reading."""

    def resume(self) -> None:
        """Read again."""


class Seam:
    """Lets everything pass."""

    modem: Modem
    port: Port | None = None

    def __init__(self) -> None:
        self.log: Recent[Happening] = Recent(KEPT)
        """What was done to the modem, in order: the latest entries."""

    def attach(self, modem: Modem) -> None:
        """Take a place around this modem; called once, when it is made."""
        self.modem = modem
        self.log.limit = modem.options.keep

    def started(self) -> None:
        """The modem was switched on."""

    def closed(self) -> None:
        """The modem is taken away."""

    def booting(self) -> None:
        """The modem forgets everything; its timers are about to be cancelled."""

    def booted(self) -> None:
        """The banner is out, the modem listens."""

    def output(self, piece: Piece) -> None:
        """The modem says something."""
        self.modem.put(piece)

    def input(self, data: bytes) -> bytes:
        """Bytes from the host; returns those the modem hears now."""
        return data

    def command(self, line: str) -> AtError | Result | None:
        """A command line is complete. None: run it; an error: answer that; SILENT: neither."""
        return None

    def datagram(self, way: Way, data: bytes, pass_on: Callable[[], None]) -> None:
        """A datagram is on the air."""
        pass_on()

    def uplink_busy(self) -> bool:
        """Does the radio refuse the next datagram?"""
        return False

    def attach_delay(self, seconds: float) -> float:
        """How long this registration takes, s."""
        return seconds

    def registration(self, stat: Stat, cause: int) -> tuple[Stat, int]:
        """What comes of this registration: outcome and reject cause."""
        return stat, cause
