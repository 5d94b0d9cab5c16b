"""What a run of one board leaves behind: phases, measurements with limits, and an outcome.

The model is that of OpenHTF (``openhtf.core.test_record``), so that records can be exported to it.
Nothing in a record is secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from typing import Any

Value = str | int | float | bool | None


class Outcome(Enum):
    """How a run, or a phase of it, ended."""

    PASS = "pass"
    FAIL = "fail"
    """The board is not good: a limit, a refusal."""
    ERROR = "error"
    """The station could not tell: a cable, the network, the database."""
    ABORTED = "aborted"
    """Somebody stopped it, or the station died."""
    SKIPPED = "skipped"
    """Phases only: somebody said so, with a reason, or an earlier phase failed."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why, for people: ``code`` finds the words in ``nbiot.station.words``, ``detail`` fills them.

    detail: texts and numbers for the words; ``message`` and ``hint``, in English, stand where a
            code has no words of its own
    """

    code: str
    detail: Mapping[str, Value] = field(default_factory=dict, hash=False)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"code": self.code, "detail": dict(self.detail)}

    @classmethod
    def from_dict(cls, found: Mapping[str, Any] | None) -> Reason | None:
        """The opposite of ``as_dict``."""
        return None if found is None else cls(found["code"], found["detail"])


@dataclass(frozen=True, slots=True)
class Measurement:
    """A value and what it had to be: within ``low`` and ``high``, or one of ``allowed``.

    None: no such limit. ``unit`` is empty where there is none.
    """

    name: str
    value: Value
    unit: str = ""
    low: float | None = None
    high: float | None = None
    allowed: tuple[Value, ...] | None = None

    @property
    def passed(self) -> bool:
        """Is it within its limits? A value that is missing is within none."""
        if self.allowed is not None and self.value not in self.allowed:
            return False
        if self.low is None and self.high is None:
            return True
        if not isinstance(self.value, int | float):
            return False
        above = self.low is None or self.value >= self.low
        return above and (self.high is None or self.value <= self.high)


@dataclass(frozen=True, slots=True)
class PhaseRecord:
    """One phase: when (s since 1970), how it ended, what it measured."""

    name: str
    started: float
    ended: float
    outcome: Outcome
    measurements: tuple[Measurement, ...] = ()
    reason: Reason | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """One run of one board in one slot. ``id`` is a UUID, made when the run begins.

    Times are seconds since 1970 by the station's clock. ``credential`` and ``fence`` are those of
    the claim, None when the run made none. ``trace`` is the SHA-256 of the AT dialogue's trace
    file, in hexadecimal digits.
    """

    id: str
    station: str
    slot: str
    started: float
    ended: float
    outcome: Outcome
    recipe: str = ""
    operator: str = ""
    serial_number: str = ""
    """As scanned from the board's label; empty: none was."""
    imei: str | None = None
    iccid: str | None = None
    model: str | None = None
    firmware: str | None = None
    rsrp: float | None = None
    """dBm."""
    product_key: str | None = None
    device_key: str | None = None
    credential: int | None = None
    fence: int | None = None
    trace: str | None = None
    phases: tuple[PhaseRecord, ...] = ()
    reason: Reason | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON; ``from_dict`` reads it."""
        return {
            **asdict(replace(self, phases=(), reason=None)),
            "outcome": self.outcome.value,
            "phases": [
                {
                    **asdict(replace(phase, reason=None)),
                    "outcome": phase.outcome.value,
                    "reason": phase.reason.as_dict() if phase.reason else None,
                }
                for phase in self.phases
            ],
            "reason": self.reason.as_dict() if self.reason else None,
        }

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Record:
        """The opposite of ``as_dict``."""
        phases = tuple(
            PhaseRecord(
                **{
                    **phase,
                    "outcome": Outcome(phase["outcome"]),
                    "measurements": tuple(_measurement(m) for m in phase["measurements"]),
                    "reason": Reason.from_dict(phase["reason"]),
                }
            )
            for phase in found["phases"]
        )
        reason = Reason.from_dict(found["reason"])
        return cls(
            **{**found, "outcome": Outcome(found["outcome"]), "phases": phases, "reason": reason}
        )


def _measurement(found: Mapping[str, Any]) -> Measurement:
    allowed = found["allowed"]
    return Measurement(**{**found, "allowed": None if allowed is None else tuple(allowed)})
