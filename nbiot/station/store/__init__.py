"""Identities, runs and the audit trail of a line, in SQLite or PostgreSQL.

How an identity lives, what leases and fences are for, and how to back the database up:
docs/station-database.md.
"""

from nbiot.station.store.database import PASSWORD_VARIABLE, URL_VARIABLE, database_url, shown
from nbiot.station.store.model import (
    AuditEntry,
    Claim,
    Counts,
    CredentialState,
    Delivery,
    Held,
    Identity,
    ImportReport,
    Problem,
    Reservation,
    StationRow,
    Today,
    Unfinished,
)
from nbiot.station.store.rules import LEASE
from nbiot.station.store.schema import LEASE_MAX
from nbiot.station.store.store import Store

__all__ = [
    "LEASE",
    "LEASE_MAX",
    "PASSWORD_VARIABLE",
    "URL_VARIABLE",
    "AuditEntry",
    "Claim",
    "Counts",
    "CredentialState",
    "Delivery",
    "Held",
    "Identity",
    "ImportReport",
    "Problem",
    "Reservation",
    "StationRow",
    "Store",
    "Today",
    "Unfinished",
    "database_url",
    "shown",
]
