"""Queries of the table ``run``: one row for each record, whole in JSON beside what is searched."""

from __future__ import annotations

import json
import statistics
from typing import Any

from sqlalchemy import and_, or_, select
from sqlalchemy import insert as insert_into
from sqlalchemy.ext.asyncio import AsyncConnection

from nbiot.errors import BadInput
from nbiot.station.record import Outcome, Record
from nbiot.station.store.model import Today
from nbiot.station.store.schema import now, run

PAGE_MAX = 1000
_SEARCHED = ("imei", "device_key", "serial_number", "station", "slot")


def body_of(record: Record) -> str:
    """The record as it is stored: the same record gives the same text."""
    return json.dumps(record.as_dict(), sort_keys=True, separators=(",", ":"))


async def is_new(connection: AsyncConnection, record: Record) -> bool:
    """Whether no record has this id. Raises BadInput where another one has it."""
    query = select(run.c.body, run.c.station).where(run.c.id == record.id)
    row = (await connection.execute(query)).first()
    if row is not None and row.body != body_of(record):
        raise BadInput(
            "record id",
            record.id,
            f"an id of its own: station {row.station} delivered another record with it",
            hint="Do two stations share a name or a copy of one state folder?",
        )
    return row is None


async def insert(connection: AsyncConnection, record: Record, *, applied: bool) -> None:
    """Store it."""
    await connection.execute(
        insert_into(run).values(
            id=record.id,
            station=_text(record.station),
            slot=_text(record.slot),
            started=record.started,
            ended=record.ended,
            outcome=record.outcome.value,
            serial_number=_text(record.serial_number),
            imei=_text(record.imei),
            product_key=_text(record.product_key),
            device_key=_text(record.device_key),
            credential=record.credential,
            fence=record.fence,
            firmware=_text(record.firmware),
            rsrp=record.rsrp,
            trace=_text(record.trace),
            applied=applied,
            delivered=now(),
            body=body_of(record),
        )
    )


def audit_columns(record: Record) -> dict[str, Any]:
    """What the audit trail says of a result."""
    return {
        "station": _text(record.station),
        "slot": _text(record.slot),
        "run": record.id,
        "imei": _text(record.imei) or "",
        "iccid": _text(record.iccid) or "",
        "firmware": _text(record.firmware) or "",
        "rsrp": record.rsrp,
        "trace": _text(record.trace) or "",
    }


async def page(
    connection: AsyncConnection, search: str, limit: int, before: str | None
) -> list[Record]:
    """See Store.records."""
    query = select(run.c.body).order_by(run.c.ended.desc(), run.c.id.desc())
    if search := search.replace("\0", "").strip():
        query = query.where(
            or_(*(run.c[name].icontains(search, autoescape=True) for name in _SEARCHED))
        )
    if before is not None:
        ended = select(run.c.ended).where(run.c.id == before).scalar_subquery()
        query = query.where(or_(run.c.ended < ended, and_(run.c.ended == ended, run.c.id < before)))
    rows = await connection.scalars(query.limit(max(1, min(limit, PAGE_MAX))))
    return [_record(body) for body in rows]


async def one(connection: AsyncConnection, id: str) -> Record | None:
    """See Store.record."""
    body = await connection.scalar(select(run.c.body).where(run.c.id == id.replace("\0", "")))
    return None if body is None else _record(body)


async def today(connection: AsyncConnection, station: str, since: float) -> Today:
    """See Store.today."""
    query = select(run.c.outcome, run.c.ended - run.c.started).where(
        run.c.station == station, run.c.ended >= since
    )
    rows = (await connection.execute(query)).all()
    seconds = [taken for outcome, taken in rows if outcome == Outcome.PASS.value]
    bad = {Outcome.FAIL.value, Outcome.ERROR.value}
    failed = sum(outcome in bad for outcome, _ in rows)
    return Today(len(seconds), failed, statistics.median(seconds) if seconds else None)


def _record(body: str) -> Record:
    return Record.from_dict(json.loads(body))


def _text(value: str | None) -> str | None:
    """As a database can hold it: PostgreSQL has no NUL, UTF-8 no halves of characters.

    The whole text is in the record's JSON.
    """
    if value is None:
        return None
    return value.replace("\0", "�").encode("utf-8", "replace").decode()
