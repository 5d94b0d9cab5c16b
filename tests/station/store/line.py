"""What the tests of the store share: boards, records, and time that passes at once."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from typing import Any

from sqlalchemy import text

from nbiot.signing import Secret
from nbiot.station.record import Measurement, Outcome, PhaseRecord, Reason, Record
from nbiot.station.store import Claim, Identity, Store

PLENTY = 5  # identities in the pool of each test
PRODUCT = "pk12"


def identities(count: int, *, start: int = 0, product: str = PRODUCT) -> Iterator[Identity]:
    """``dev0000``, ``dev0001``, ... with the secrets ``secret-0000``, ..."""
    for number in range(start, start + count):
        yield Identity(product, f"dev{number:04}", Secret(f"secret-{number:04}"), number + 2)


def imei(number: int) -> str:
    """A board's."""
    return f"8675840{number:08}"


def iccid(number: int) -> str:
    """A SIM's."""
    return f"89860000000{number:09}"


def new_run() -> str:
    """An id."""
    return str(uuid.uuid4())


def record(
    run: str,
    outcome: Outcome = Outcome.PASS,
    claim: Claim | None = None,
    *,
    station: str = "S1",
    slot: str = "1",
    ended: float | None = None,
    **more: Any,
) -> Record:
    """What the run leaves."""
    ended = time.time() if ended is None else ended
    if claim is not None:
        known = {
            "imei": claim.imei,
            "product_key": claim.product_key,
            "device_key": claim.device_key,
            "credential": claim.credential,
            "fence": claim.fence,
        }
        more = {**known, **more}
    phase = PhaseRecord(
        "radio", ended - 2, ended, Outcome.PASS, (Measurement("rsrp", -95.5, "dBm", low=-110.0),)
    )
    return Record(
        id=run,
        station=station,
        slot=slot,
        started=ended - 12.0,
        ended=ended,
        outcome=outcome,
        phases=(phase,),
        reason=None if outcome is Outcome.PASS else Reason("too_weak", {"rsrp": -120.0}),
        **more,
    )


async def pass_time(store: Store, seconds: float) -> None:
    """As if so much time had passed: every lease ends so much earlier."""
    await sql(store, f"UPDATE credential SET lease_until = lease_until - {seconds}")


async def sql(store: Store, statement: str) -> list[Any]:
    """Say something to the database directly."""
    assert store._opened is not None

    async def work(connection: Any) -> list[Any]:
        result = await connection.execute(text(statement))
        return list(result) if result.returns_rows else []

    return await store._opened.write(work)


class Line:
    """Shorthands for a store."""

    def __init__(self, store: Store) -> None:
        self.store = store

    async def bound(self, board: int, *, slot: str = "1", run: str | None = None) -> Claim:
        """A claim of that board that was bound."""
        run = run or new_run()
        claim = await self.store.claim(run, slot, imei(board), iccid=iccid(board))
        return await self.store.bind(claim, imei(board))

    async def ended(self, board: int, outcome: Outcome, *, slot: str = "1") -> Claim:
        """A whole run of that board."""
        run = new_run()
        claim = await self.bound(board, slot=slot, run=run)
        await self.store.deliver(record(run, outcome, claim, slot=slot))
        return claim
