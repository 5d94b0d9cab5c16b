"""What goes into and comes out of the store: plain data."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from nbiot.signing import Secret
from nbiot.station.board import SlotView, StationView


class CredentialState(Enum):
    """Where an identity is in its life; docs/station-database.md draws it."""

    FREE = "free"
    CLAIMED = "claimed"
    """A run has it, for as long as its lease lasts. No board has seen it."""
    BOUND = "bound"
    """Given to an IMEI, for ever; the run has not ended, or was cut."""
    PROVEN = "proven"
    FAILED = "failed"
    """Given, and the last run did not prove it. The same board may try again."""
    RETURNED = "returned"
    """Taken out of use by a person. Never given out again."""


GIVEN = frozenset({CredentialState.BOUND, CredentialState.PROVEN, CredentialState.FAILED})


@dataclass(frozen=True)
class Claim:
    """An identity that a run holds. Who has a lower ``fence`` than the database holds nothing."""

    credential: int
    fence: int
    product_key: str
    device_key: str
    state: CredentialState
    secret: Secret
    imei: str | None
    retry: bool
    """This board was given the identity by an earlier run."""


@dataclass(frozen=True)
class Reservation:
    """As Claim, for an identity that EnOS may still have to register."""

    credential: int
    fence: int
    product_key: str
    device_key: str
    """The IMEI."""
    state: CredentialState
    secret: Secret | None
    """None: EnOS has not been asked, or its answer was not stored."""
    imei: str | None
    retry: bool


Held = Claim | Reservation


@dataclass(frozen=True)
class Unfinished:
    """An identity that was given in a run of this station which left no result yet."""

    credential: int
    fence: int
    product_key: str
    device_key: str
    imei: str
    run: str
    slot: str


class Delivery(Enum):
    """What became of a record."""

    APPLIED = "applied"
    """Stored, and the identity is proven or failed (or free again: it was not given)."""
    KEPT = "kept"
    """Stored; it changed no identity: it came too late, or its run had claimed none."""
    KNOWN = "known"
    """It was stored before."""


@dataclass(frozen=True)
class Identity:
    """One row of an import. ``line`` is its line in the file, 0 where there is none."""

    product_key: str
    device_key: str
    secret: Secret
    line: int = 0


@dataclass(frozen=True)
class Problem:
    """A row that cannot be imported, and why. Shows no secret."""

    line: int
    why: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.why}" if self.line else self.why


@dataclass(frozen=True)
class ImportReport:
    """What an import did. With problems it did nothing, unless bad rows were to be skipped."""

    added: int = 0
    unchanged: int = 0
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True)
class AuditEntry:
    """One line of the audit trail. ``at`` is in s since 1970, by the database's clock."""

    id: int
    at: float
    action: str
    who: str
    station: str
    slot: str
    run: str
    credential: int | None
    product_key: str
    device_key: str
    imei: str
    iccid: str
    from_state: str
    to_state: str
    fence: int | None
    firmware: str
    rsrp: float | None
    """dBm."""
    trace: str
    why: str


@dataclass(frozen=True)
class Counts:
    """Identities per state. A claim whose lease ran out counts as free: it is to be had."""

    free: int = 0
    """In the pool."""
    reserved: int = 0
    """Registered, or to be registered, for one IMEI, and held by no run."""
    claimed: int = 0
    bound: int = 0
    proven: int = 0
    failed: int = 0
    returned: int = 0


class Today(NamedTuple):
    """Runs of this station; ``seconds`` is the median time of those that passed."""

    passed: int
    failed: int
    seconds: float | None


@dataclass(frozen=True)
class StationRow:
    """A station of the line, as it last reported; ``age`` is how long ago that was, in s."""

    name: str
    host: str
    age: float
    view: StationView
    slots: tuple[SlotView, ...]
