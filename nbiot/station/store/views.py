"""Queries for people: counts, audit trail, stations, export; and the stations' own row."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from typing import Any

from sqlalchemy import and_, case, func, inspect, select, text, update
from sqlalchemy import insert as insert_into
from sqlalchemy.ext.asyncio import AsyncConnection

from nbiot.errors import StationError
from nbiot.station.board import SlotState, SlotView, StationView
from nbiot.station.record import Reason
from nbiot.station.store.model import AuditEntry, Counts, StationRow
from nbiot.station.store.schema import audit, credential, live, now, station

PAGE = 1000  # rows of an export at a time
_EXPORTED = (
    *("product_key", "device_key", "state", "imei", "iccid", "module_serial"),
    *("station", "slot", "fence", "added", "changed"),
)


async def revision(connection: AsyncConnection) -> str:
    """The schema's version; empty where there are no tables of ours."""
    if not await connection.run_sync(lambda c: inspect(c).has_table("alembic_version")):
        return ""
    return await connection.scalar(text("SELECT version_num FROM alembic_version")) or ""


async def export_page(connection: AsyncConnection, after: int) -> list[tuple[int, dict[str, Any]]]:
    """Rows with ids above ``after``."""
    columns = [credential.c[name] for name in _EXPORTED]
    query = select(credential.c.id, *columns).where(credential.c.id > after)
    rows = await connection.execute(query.order_by(credential.c.id).limit(PAGE))
    return [(row[0], dict(zip(_EXPORTED, row[1:], strict=True))) for row in rows]


async def audit_trail(
    connection: AsyncConnection, device_key: str | None, limit: int
) -> list[AuditEntry]:
    """See Store.audit."""
    query = select(*(audit.c[field.name] for field in fields(AuditEntry)))
    if device_key is not None:
        query = query.where(audit.c.device_key == device_key)
    rows = await connection.execute(query.order_by(audit.c.id.desc()).limit(limit))
    return [AuditEntry(*row) for row in rows]


async def counts(connection: AsyncConnection) -> Counts:
    """See Store.counts."""
    ran_out = and_(credential.c.state == "claimed", ~live())
    state = case((ran_out, "free"), else_=credential.c.state)
    query = select(state, credential.c.pooled, func.count()).group_by(state, credential.c.pooled)
    found: dict[str, int] = {}
    for name, pooled, count in await connection.execute(query):
        if name == "free" and not pooled:
            name = "reserved"
        found[name] = found.get(name, 0) + count
    return Counts(**found)


async def free(connection: AsyncConnection, product_key: str | None, at_most: int) -> int:
    """See Store.free."""
    found = select(credential.c.id).where(credential.c.state == "free", credential.c.pooled)
    if product_key is not None:
        found = found.where(credential.c.product_key == product_key)
    query = select(func.count()).select_from(found.limit(at_most).subquery())
    return await connection.scalar(query) or 0


# --- stations -----------------------------------------------------------------------------------


async def take_name(connection: AsyncConnection, name: str, incarnation: str, host: str) -> None:
    """This process is the station of that name from now on."""
    values = {"incarnation": incarnation, "host": host, "seen": now()}
    done = await connection.execute(update(station).where(station.c.name == name).values(values))
    if not done.rowcount:
        empty = {"view": _view_json(StationView(name)), "slots": "[]"}
        await connection.execute(insert_into(station).values(name=name, **values, **empty))


async def report_in(
    connection: AsyncConnection,
    name: str,
    incarnation: str,
    host: str,
    view: StationView,
    slots: Sequence[SlotView],
) -> None:
    """See Store.report_in."""
    found = (
        await connection.execute(
            select(station.c.incarnation, station.c.host).where(station.c.name == name)
        )
    ).first()
    if found is None:
        await take_name(connection, name, incarnation, host)
    elif found.incarnation != incarnation:
        raise StationError(
            f"another process calls itself station {name}, on host {found.host}",
            hint="Give each station a name of its own in station.toml (a copied SD card has the "
            "old one's), and start this one again.",
        )
    await connection.execute(
        update(station)
        .where(station.c.name == name, station.c.incarnation == incarnation)
        .values(
            host=host,
            seen=now(),
            view=_view_json(view),
            slots=json.dumps([_slot_dict(slot) for slot in slots]),
        )
    )


async def stations(connection: AsyncConnection) -> list[StationRow]:
    """See Store.stations."""
    query = select(station, (now() - station.c.seen).label("age")).order_by(station.c.name)
    return [
        StationRow(
            name=row.name,
            host=row.host,
            age=max(0.0, row.age),
            view=StationView(**_known(StationView, json.loads(row.view))),
            slots=tuple(_slot(found) for found in json.loads(row.slots)),
        )
        for row in await connection.execute(query)
    ]


def _view_json(view: StationView) -> str:
    return json.dumps(asdict(view))


def _slot_dict(slot: SlotView) -> dict[str, Any]:
    reason = slot.reason.as_dict() if slot.reason else None
    return {**asdict(replace(slot, reason=None)), "state": slot.state.value, "reason": reason}


def _slot(found: Mapping[str, Any]) -> SlotView:
    known = _known(SlotView, found)
    known |= {"state": SlotState(found["state"]), "reason": Reason.from_dict(found["reason"])}
    return SlotView(**known)


def _known(kind: type[Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that this version has: the stations of a line are not updated all at once."""
    names = {field.name for field in fields(kind)}
    return {name: value for name, value in found.items() if name in names}


# --- what must never be -------------------------------------------------------------------------

_NEVER = {
    "identity {0} was given to {1} boards": """
        SELECT device_key, COUNT(DISTINCT imei) FROM audit
        WHERE to_state IN ('bound', 'proven', 'failed') GROUP BY device_key
        HAVING COUNT(DISTINCT imei) > 1""",
    "IMEI {0} has {1} identities": """
        SELECT imei, COUNT(*) FROM credential WHERE imei IS NOT NULL AND state <> 'returned'
        GROUP BY imei HAVING COUNT(*) > 1""",
    "identity {0} is {1}, but no run made it so": """
        SELECT device_key, state FROM credential WHERE state IN ('proven', 'failed')
        EXCEPT SELECT c.device_key, c.state FROM credential c
            JOIN audit a ON a.credential = c.id AND a.action = 'result'
            JOIN run r ON r.id = a.run""",
    "run {0} passed and counts, but proved no identity": """
        SELECT id FROM run WHERE applied AND outcome = 'pass'
        EXCEPT SELECT run FROM audit WHERE to_state = 'proven'""",
    "identity {0} is of IMEI {1}, whose board it was not given to": """
        SELECT device_key, imei FROM credential WHERE state IN ('bound', 'proven', 'failed')
        EXCEPT SELECT device_key, imei FROM audit WHERE to_state IN ('bound', 'proven')""",
}


async def contradictions(connection: AsyncConnection) -> list[str]:
    """See Store.contradictions."""
    if connection.dialect.name == "postgresql":
        await connection.execute(text("SET LOCAL statement_timeout = 0"))  # each reads it all
    return [
        words.format(*row)
        for words, query in _NEVER.items()
        for row in await connection.execute(text(query))
    ]
