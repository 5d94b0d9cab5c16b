"""Many rows at once: identities into the pool, and secrets under another key."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy import bindparam, select, text, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from nbiot.station.store.model import CredentialState, Identity, ImportReport, Problem
from nbiot.station.store.schema import AnyRow, credential, now, vault
from nbiot.station.vault import Vault

CHUNK = 500  # rows per statement: the loop breathes in between
_LOCK = 6_420_156  # PostgreSQL's advisory lock: imports that cross would wait for each other
T = TypeVar("T")


class Refused(Exception):
    """Ends the transaction of an import with problems: nothing of it stays."""

    def __init__(self, report: ImportReport) -> None:
        super().__init__()
        self.report = report


async def one_at_a_time(connection: AsyncConnection) -> None:
    """Take the place of the one transaction that imports or rotates."""
    if connection.dialect.name == "postgresql":
        await connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))


async def add_identities(
    connection: AsyncConnection, rows: Sequence[Identity], keys: Vault
) -> ImportReport:
    """See Store.add. Raises Refused."""
    added = unchanged = 0
    problems: list[Problem] = []
    for chunk in _chunks(rows):
        sealed = await asyncio.to_thread(_sealed, chunk, keys)
        await connection.execute(_insert(connection), sealed)
        found = await _found(connection, chunk)
        new, bad = await asyncio.to_thread(_compared, chunk, sealed, found, keys)
        added += new
        unchanged += len(chunk) - new - len(bad)
        problems += bad
    if problems:
        raise Refused(ImportReport(0, unchanged, tuple(problems)))
    return ImportReport(added, unchanged)


async def rotate_vault(connection: AsyncConnection, old: Vault, new: Vault) -> int:
    """See Store.rotate."""
    count = after = 0
    columns = [credential.c[name] for name in ("id", "product_key", "device_key", "secret")]
    query = select(*columns).where(credential.c.secret.is_not(None)).order_by(credential.c.id)
    change = (
        update(credential)
        .where(credential.c.id == bindparam("row"))
        .values(secret=bindparam("sealed"))
    )
    while True:
        page = query.where(credential.c.id > after).limit(CHUNK).with_for_update()
        rows = (await connection.execute(page)).all()
        if not rows:
            break
        await connection.execute(change, await asyncio.to_thread(_resealed, rows, old, new))
        count += len(rows)
        after = rows[-1].id
    check = {"key_id": new.key_id, "check_value": new.check_value()}
    await connection.execute(update(vault).values(check))
    return count


def _chunks(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(rows), CHUNK):
        yield rows[start : start + CHUNK]


def _sealed(chunk: Sequence[Identity], keys: Vault) -> list[dict[str, Any]]:
    return [
        {
            "product_key": identity.product_key,
            "device_key": identity.device_key,
            "secret": keys.encrypt(identity.secret, identity.product_key, identity.device_key),
        }
        for identity in chunk
    ]


def _resealed(rows: Sequence[AnyRow], old: Vault, new: Vault) -> list[dict[str, Any]]:
    return [
        {
            "row": row.id,
            "sealed": new.encrypt(
                old.decrypt(row.secret, row.product_key, row.device_key),
                row.product_key,
                row.device_key,
            ),
        }
        for row in rows
    ]


def _insert(connection: AsyncConnection) -> Any:
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    return (
        dialect.insert(credential)
        .values(
            product_key=bindparam("product_key"),
            device_key=bindparam("device_key"),
            secret=bindparam("secret"),
            pooled=True,
            state=CredentialState.FREE.value,
            added=now(),
            changed=now(),
        )
        .on_conflict_do_nothing(index_elements=["device_key"])
    )


async def _found(connection: AsyncConnection, chunk: Sequence[Identity]) -> dict[str, AnyRow]:
    query = select(credential.c.device_key, credential.c.product_key, credential.c.secret).where(
        credential.c.device_key.in_([identity.device_key for identity in chunk])
    )
    return {row.device_key: row for row in await connection.execute(query)}


def _compared(
    chunk: Sequence[Identity],
    sealed: Sequence[Mapping[str, Any]],
    found: Mapping[str, AnyRow],
    keys: Vault,
) -> tuple[int, list[Problem]]:
    """How many rows are new, and what is wrong with others.

    A row is new if the ciphertext there is ours: no other encryption gives the same.
    """
    new = 0
    problems = []
    for identity, mine in zip(chunk, sealed, strict=True):
        there = found[identity.device_key]
        if there.secret == mine["secret"]:
            new += 1
        elif why := _conflict(identity, there, keys):
            problems.append(Problem(identity.line, why))
    return new, problems


def _conflict(identity: Identity, there: AnyRow, keys: Vault) -> str:
    if there.product_key != identity.product_key:
        return (
            f"device key {identity.device_key} is of product {there.product_key} in the database, "
            f"of {identity.product_key} here"
        )
    if there.secret is None:
        return f"device key {identity.device_key} is being registered by a station"
    if keys.decrypt(there.secret, there.product_key, there.device_key) != identity.secret:
        return f"device key {identity.device_key} has another secret in the database"
    return ""
