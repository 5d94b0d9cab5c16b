"""The rules, without the database: what a run may ask for, and which board may have which row."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from nbiot.errors import AlreadyProven, BadInput, ImeiTaken
from nbiot.signing import check_product_key
from nbiot.station.store.model import GIVEN, CredentialState, Unfinished
from nbiot.station.store.schema import LEASE_MAX, AnyRow

LEASE = 300.0
"""Seconds; a run renews it long before."""
TEXT_MAX = 200
"""Characters of the names of runs and slots."""


class Want:
    """What a run asks for, checked."""

    def __init__(
        self,
        run: str,
        slot: str,
        imei: str,
        product_key: str | None,
        iccid: str | None,
        lease: float,
    ) -> None:
        self.run = check_text("run", run)
        self.slot = check_text("slot", slot)
        self.imei = check_imei(imei)
        self.product_key = None if product_key is None else check_product_key(product_key)
        self.iccid = iccid or None
        self.lease = check_lease(lease)


def is_live(row: AnyRow) -> bool:
    """Whether a lease lasts, as of when the row was read."""
    return row.lease_until is not None and row.now < row.lease_until <= row.now + LEASE_MAX


def check_retry(row: AnyRow, want: Want) -> None:
    """Whether this board may have the identity that was given to its IMEI. Raises."""
    if row.retry_allowed:
        return
    if CredentialState(row.state) is CredentialState.PROVEN:
        raise AlreadyProven(
            f"the board with IMEI {want.imei} has its identity already: device {row.device_key}, "
            f"proven in slot {row.slot} of station {row.station}",
            hint="Nothing is to be done; its label can be printed from the history. To do it "
            f"again: nbiot station allow-retry {row.device_key}",
        )
    if want.product_key not in (None, row.product_key):
        raise ImeiTaken(
            f"IMEI {want.imei} was given an identity of product {row.product_key}, not of "
            f"{want.product_key}",
            hint=f"Give that one back first: nbiot station give-back {row.device_key}",
        )
    check_same("ICCID", row.iccid, want.iccid, row)


def check_same(what: str, known: str | None, seen: str | None, row: AnyRow) -> None:
    if known is not None and seen is not None and known != seen:
        raise ImeiTaken(
            f"IMEI {row.imei} was given identity {row.device_key} with {what} {known}; this board "
            f"shows {seen}: two boards carry this IMEI, or the SIM was changed",
            hint="Two boards: set this one aside. The same board, changed: "
            f"nbiot station allow-retry {row.device_key}",
        )


def binding(row: AnyRow, imei: str, seen: Mapping[str, str | None]) -> dict[str, Any]:
    """The columns that bind sets. Raises ImeiTaken where it is another board."""
    if row.imei != imei:
        raise ImeiTaken(
            f"identity {row.device_key} was claimed for IMEI {row.imei}; the board now says {imei}",
            hint="Was the board changed during the run? Start the slot again.",
        )
    iccid = seen["iccid"] or row.claim_iccid
    if row.claim_iccid is not None and iccid != row.claim_iccid:
        raise ImeiTaken(
            f"the board with IMEI {imei} had SIM {row.claim_iccid} when the run began and has "
            f"{iccid} now",
            hint="Was the board or its SIM changed during the run? Start the slot again.",
        )
    found = {"iccid": iccid, "module_serial": seen["module_serial"] or None}
    if CredentialState(row.state) in GIVEN and not row.retry_allowed:
        if row.iccid is not None and iccid is None:
            raise ImeiTaken(
                f"IMEI {imei} was given identity {row.device_key} with ICCID {row.iccid}; the "
                "SIM of this board could not be read",
                hint=f"Check the SIM. To go on without: nbiot station allow-retry {row.device_key}",
            )
        check_same("ICCID", row.iccid, found["iccid"], row)
        check_same("module serial", row.module_serial, found["module_serial"], row)
    keep = {name: value or row._mapping[name] for name, value in found.items()}
    return {**keep, "given_run": row.given_run or row.run, "retry_allowed": False}


def holder(row: AnyRow) -> str:
    if row.run is None:
        return f"it is {row.state}"
    held = "in" if is_live(row) else "last in"
    return f"{held} slot {row.slot} of station {row.station} (run {row.run}, {row.state})"


def held_fields(row: AnyRow) -> dict[str, Any]:
    return {
        "credential": row.id,
        "fence": row.fence,
        "product_key": row.product_key,
        "device_key": row.device_key,
        "state": CredentialState(row.state),
        "imei": row.imei,
        "retry": row.given_run not in (None, row.run),
    }


def unfinished(row: AnyRow) -> Unfinished:
    return Unfinished(
        row.id, row.fence, row.product_key, row.device_key, row.imei, row.run, row.slot
    )


def why_kept(row: AnyRow | None) -> str:
    if row is None:
        return "the run had claimed no identity, or another run has it now"
    return f"the identity is not that run's any more: {holder(row)}"


def check_imei(imei: object) -> str:
    """Return ``imei`` if it is 14 to 16 digits, else raise BadInput. (Luhn is the recipe's.)"""
    if isinstance(imei, str) and re.fullmatch("[0-9]{14,16}", imei):
        return imei
    raise BadInput("IMEI", imei, "15 digits (14 and 16 are taken, too)")


def check_text(field: str, value: object) -> str:
    if isinstance(value, str) and 0 < len(value) <= TEXT_MAX and value.isprintable():
        return value
    raise BadInput(field, value, f"1 to {TEXT_MAX} printable characters")


def check_lease(lease: float) -> float:
    if not 0 < lease <= LEASE_MAX:
        raise BadInput("lease", lease, f"more than 0 and at most {LEASE_MAX:g} s")
    return lease


def check_reason(who: str, why: str) -> None:
    check_text("who", who)
    check_text("why", why)
