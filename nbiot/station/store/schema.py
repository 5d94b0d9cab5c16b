"""The tables, and the database's clock. The migrations make them; a test compares the two.

Times are seconds since 1970 (double precision) by the database's clock, but for those of a record,
which are by its station's.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Row,
    Table,
    Text,
    and_,
    text,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

REVISION = "0001"
"""The schema that this version of nbiot reads and writes."""

LEASE_MAX = 3600.0
"""Seconds. A lease that ends later than this from now was made while the clock was wrong."""
AnyRow: TypeAlias = Row[*tuple[Any, ...]]

metadata = MetaData()
_Id = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts up INTEGER PRIMARY KEYs only

credential = Table(
    "credential",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("product_key", Text, nullable=False),
    Column("device_key", Text, nullable=False, unique=True),
    Column("secret", LargeBinary),  # encrypted; NULL: reserved, EnOS has not told it yet
    Column("pooled", Boolean, nullable=False),  # False: registered for the IMEI = device key
    Column("state", Text, nullable=False),
    Column("fence", BigInteger, nullable=False, server_default=text("0")),
    Column("lease_until", Double),
    Column("station", Text),  # who holds it or held it last, as slot, incarnation and run do
    Column("slot", Text),
    Column("incarnation", Text),
    Column("run", Text),  # NULL once that run's result is in
    Column("imei", Text),  # from the claim on; fixed when bound
    Column("claim_iccid", Text),  # what the run that holds it saw
    Column("iccid", Text),  # the SIM it was bound with
    Column("module_serial", Text),
    Column("given_run", Text),  # the run that bound it first
    Column("retry_allowed", Boolean, nullable=False, server_default=text("false")),
    Column("added", Double, nullable=False),
    Column("changed", Double, nullable=False),
    Index("credential_pool", "state", "product_key", "id"),
    Index(
        "credential_imei",
        "imei",
        unique=True,
        sqlite_where=text("state <> 'returned'"),
        postgresql_where=text("state <> 'returned'"),
    ),
    Index("credential_run", "run", unique=True),
    Index("credential_station", "station"),
)

run = Table(
    "run",
    metadata,
    Column("id", Text, primary_key=True),
    Column("station", Text, nullable=False),
    Column("slot", Text, nullable=False),
    Column("started", Double, nullable=False),
    Column("ended", Double, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("serial_number", Text, nullable=False),
    Column("imei", Text),
    Column("product_key", Text),
    Column("device_key", Text),
    Column("credential", BigInteger),
    Column("fence", BigInteger),
    Column("firmware", Text),
    Column("rsrp", Double),
    Column("trace", Text),
    Column("applied", Boolean, nullable=False),
    Column("delivered", Double, nullable=False),
    Column("body", Text, nullable=False),  # the whole record, in JSON
    Index("run_ended", "ended", "id"),
    Index("run_station", "station", "ended"),
)

audit = Table(
    "audit",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("at", Double, nullable=False),
    Column("action", Text, nullable=False),
    Column("who", Text, nullable=False),
    *(
        Column(name, Text, nullable=False, server_default=text("''"))
        for name in ("station", "slot", "run")
    ),
    Column("credential", BigInteger),
    *(
        Column(name, Text, nullable=False, server_default=text("''"))
        for name in ("product_key", "device_key", "imei", "iccid", "from_state", "to_state")
    ),
    Column("fence", BigInteger),
    Column("firmware", Text, nullable=False, server_default=text("''")),
    Column("rsrp", Double),
    Column("trace", Text, nullable=False, server_default=text("''")),
    Column("why", Text, nullable=False, server_default=text("''")),
    Index("audit_device", "device_key", "id"),
)

station = Table(
    "station",
    metadata,
    Column("name", Text, primary_key=True),
    Column("incarnation", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("seen", Double, nullable=False),
    Column("view", Text, nullable=False),  # JSON
    Column("slots", Text, nullable=False),
)

vault = Table(
    "vault",
    metadata,
    Column("one", Integer, primary_key=True),  # always 1: a line has one key
    Column("key_id", Text, nullable=False),
    Column("check_value", LargeBinary, nullable=False),
)


class now(FunctionElement[float]):  # named as in SQL
    """The database's clock: one for all stations of a line. Not the time the transaction began."""

    inherit_cache = True
    type = Double()


@compiles(now, "sqlite")
def _sqlite_now(element: now, compiler: Any, **_: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(now, "postgresql")
def _postgresql_now(element: now, compiler: Any, **_: Any) -> str:
    return "CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS DOUBLE PRECISION)"


def live() -> ColumnElement[bool]:
    """SQL: a run holds the identity right now."""
    lease = credential.c.lease_until
    return and_(lease.is_not(None), lease > now(), lease <= now() + LEASE_MAX)
