"""The rows that a run or a person asks for, locked until the transaction ends."""

from __future__ import annotations

import itertools
from typing import Any

from sqlalchemy import ColumnElement, Select, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from nbiot.errors import BadInput, ImeiTaken, PoolEmpty
from nbiot.station.record import Record
from nbiot.station.store.model import GIVEN, CredentialState
from nbiot.station.store.rules import Want, is_live
from nbiot.station.store.schema import AnyRow, credential, live, now


def locked(condition: Any) -> Select[*tuple[Any, ...]]:
    """Rows of identities, locked where the database locks rows (SQLite locks all)."""
    return select(credential, now().label("now")).where(condition).with_for_update()


async def next_of_pool(connection: AsyncConnection, want: Want) -> AnyRow:
    """The next free identity, or one whose claim ran out. Raises PoolEmpty.

    Rows that others are about to take are passed by; but if there are only such, they are waited
    for: they may be let go again.
    """
    wanted: list[ColumnElement[bool]] = [credential.c.pooled]
    if want.product_key is not None:
        wanted.append(credential.c.product_key == want.product_key)
    free = credential.c.state == CredentialState.FREE.value
    ran_out = (credential.c.state == CredentialState.CLAIMED.value) & ~live()
    for skip, condition in itertools.product((True, False), (free, ran_out)):
        query = (
            select(credential, now().label("now"))
            .where(condition, *wanted)
            .order_by(credential.c.product_key, credential.c.id)
            .limit(1)
            .with_for_update(skip_locked=skip)
        )
        if (row := (await connection.execute(query)).first()) is not None:
            return row
    of = "" if want.product_key is None else f" of product {want.product_key}"
    raise PoolEmpty(
        f"no free identity{of} is left in the pool",
        hint="Import more: nbiot station import FILE.csv",
    )


async def row_of_device(connection: AsyncConnection, device_key: str) -> AnyRow | None:
    query = locked(credential.c.device_key == device_key)
    return (await connection.execute(query)).first()


async def row_to_reserve(connection: AsyncConnection, want: Want) -> AnyRow | None:
    """The row whose device key is the IMEI and that no board has. Raises ImeiTaken."""
    row = await row_of_device(connection, want.imei)
    if row is None:
        return None
    state = CredentialState(row.state)
    if state is CredentialState.RETURNED:
        raise ImeiTaken(
            f"identity {row.device_key} was returned, and is never given out again",
            hint=f"Who did that, and why: nbiot station audit {row.device_key}",
        )
    if state in GIVEN or (is_live(row) and row.run != want.run):
        raise ImeiTaken(
            f"the identity with device key {row.device_key} is the board's with IMEI {row.imei}",
            hint="Were identities from a pool and from registration mixed up?",
        )
    if row.product_key != want.product_key:
        raise ImeiTaken(
            f"the identity with device key {row.device_key} is of product {row.product_key}, not "
            f"of {want.product_key}",
            hint=f"Take it out of the pool: nbiot station give-back {row.device_key}",
        )
    return row


async def known_device(connection: AsyncConnection, device_key: str) -> AnyRow:
    row = await row_of_device(connection, device_key)
    if row is None:
        raise BadInput(
            "device key", device_key, "a device key of this database", hint="nbiot station export"
        )
    return row


async def new_row(connection: AsyncConnection, want: Want) -> AnyRow:
    statement = (
        insert(credential)
        .values(
            product_key=want.product_key,
            device_key=want.imei,
            pooled=False,
            state=CredentialState.FREE.value,
            added=now(),
            changed=now(),
        )
        .returning(*credential.c, now().label("now"))
    )
    return (await connection.execute(statement)).one()


async def row_of_record(connection: AsyncConnection, record: Record) -> AnyRow | None:
    """By the run: a station that died may not have known what it had claimed."""
    if record.credential is not None:
        query = locked(credential.c.id == record.credential)
    else:
        query = locked(credential.c.run == record.id)
    return (await connection.execute(query)).first()
