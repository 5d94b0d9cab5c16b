"""What an error makes of a run: a reason for people, and whether the board is bad or the station
could not tell.
"""

from __future__ import annotations

from nbiot.errors import (
    AlreadyProven,
    AuthRefused,
    CommandRefused,
    CommandTimeout,
    ImeiTaken,
    ModemRebooted,
    ModemSilent,
    ModemUnknown,
    NbiotError,
    NotRegistered,
    RequestRefused,
    ServerFault,
    SimError,
    StationError,
    UnexpectedAnswer,
)
from nbiot.station.record import Measurement, Outcome, Reason, Value
from nbiot.station.words import code_of

BOARD_FAULTS = (
    ModemSilent,
    ModemUnknown,
    ModemRebooted,
    CommandTimeout,
    CommandRefused,
    UnexpectedAnswer,
    SimError,
    NotRegistered,
    AuthRefused,
    RequestRefused,
    AlreadyProven,
    ImeiTaken,
)
"""Errors that are the board's, or its identity's. After any other the station cannot tell."""


class NotGood(StationError):
    """A phase that ends without a class of error of its own: ``code`` is the reason's."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        hint: str = "",
        outcome: Outcome = Outcome.FAIL,
        **detail: Value,
    ) -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.outcome = outcome
        self.detail = detail


def outcome_of(error: NbiotError) -> Outcome:
    """Whether ``error`` means that the board is bad, or that the station could not tell."""
    if isinstance(error, NotGood):
        return error.outcome
    if isinstance(error, BOARD_FAULTS) and not isinstance(error, ServerFault):
        return Outcome.FAIL
    return Outcome.ERROR


def reason_of(error: NbiotError) -> Reason:
    """``error`` for people. The code is its class's name in snake case."""
    detail: dict[str, Value] = {"message": error.message, "hint": error.hint}
    if isinstance(error, NotGood):
        return Reason(error.code, {**detail, **error.detail})
    code = getattr(error, "code", None)
    if isinstance(code, (str, int)):
        detail["code"] = code
    return Reason(code_of(error), detail)


def reason(code: str, message: str, hint: str = "", **detail: Value) -> Reason:
    """A reason that is no error's."""
    return Reason(code, {"message": message, "hint": hint, **detail})


def limit_reason(measured: Measurement) -> Reason:
    """Why a measurement is out of its limits; ``nbiot.station.words`` makes a sentence of it."""
    allowed = " or ".join(map(str, measured.allowed)) if measured.allowed else None
    return Reason(
        "limit",
        {
            "name": measured.name,
            "value": measured.value,
            "unit": measured.unit,
            "low": measured.low,
            "high": measured.high,
            "allowed": allowed,
        },
    )


def pulled(phase: str) -> Reason:
    """The board was taken out in the middle."""
    return reason(
        "board_pulled",
        f"the board was taken out during {phase or 'the run'}",
        "Put it back in: it begins again.",
        phase=phase,
    )
