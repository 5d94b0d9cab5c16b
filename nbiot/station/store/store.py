"""The store: who has which identity, and what became of every run.

What holds at any moment, whatever dies, is cut, or comes twice:

* An identity is *given* when ``bind`` commits. From then on it is that IMEI's.
* Whoever claims raises the row's fence. Every later word of a run counts only while the row has
  the fence that the run got; a row is changed only while it is locked.
* Every operation may be repeated: claims are known by their run, records by their id.
"""

from __future__ import annotations

import asyncio
import socket
import uuid
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

from sqlalchemy import URL, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from nbiot.errors import (
    BadInput,
    ImeiTaken,
    LeaseLost,
    PoolEmpty,
    StationError,
    StoreUnavailable,
)
from nbiot.signing import Secret, check_device_key
from nbiot.station.board import MOST_FREE, SlotView, StationView
from nbiot.station.record import Outcome, Record
from nbiot.station.store import queries, records, rules, views
from nbiot.station.store.database import Database, check_filesystem, database_url, shown
from nbiot.station.store.imports import (
    Refused,
    add_identities,
    one_at_a_time,
    rotate_vault,
)
from nbiot.station.store.model import (
    GIVEN,
    AuditEntry,
    Claim,
    Counts,
    CredentialState,
    Delivery,
    Held,
    Identity,
    ImportReport,
    Reservation,
    StationRow,
    Today,
    Unfinished,
)
from nbiot.station.store.rules import LEASE, Want
from nbiot.station.store.schema import (
    REVISION,
    AnyRow,
    audit,
    credential,
    now,
    vault,
)
from nbiot.station.store.schema import run as runs
from nbiot.station.vault import Vault, wrong_key

LONG = 600.0
"""Seconds that an import, a rotation or a search for contradictions may take."""

FREE, CLAIMED, BOUND = CredentialState.FREE, CredentialState.CLAIMED, CredentialState.BOUND
PROVEN, FAILED, RETURNED = (
    CredentialState.PROVEN,
    CredentialState.FAILED,
    CredentialState.RETURNED,
)
_NOBODY: dict[str, Any] = {"lease_until": None, "run": None, "imei": None, "claim_iccid": None}


class Store:
    """Use it with ``async with``. Belongs to one event loop; any number of tasks may call it."""

    def __init__(
        self,
        url: str | URL,
        vault: Vault,
        *,
        station: str,
        create: bool = False,
        password: Secret | None = None,
    ) -> None:
        """Nothing happens before ``async with``.

        url:    see ``database_url``; a URL is taken as it is
        create: make the tables, or bring them to this version's schema
        """
        self.url = url if isinstance(url, URL) else database_url(url, password=password)
        self.station = station
        self.incarnation = str(uuid.uuid4())
        """This process, among those that ever had the station's name."""
        self._vault = vault
        self._create = create
        self._opened: Database | None = None

    @classmethod
    async def open(
        cls, url: str | URL, vault: Vault, *, station: str, create: bool = False
    ) -> Store:
        """A store that is open; ``close`` it. Raises as ``async with`` does."""
        return await cls(url, vault, station=station, create=create).__aenter__()

    async def __aenter__(self) -> Self:
        """Connect and check schema and key.

        Raises StoreUnavailable (away, no tables, another version's tables), VaultError (the
        secrets there are encrypted with another key).
        """
        if self._create:
            await asyncio.to_thread(_migrated, self.url)
        # In a thread: it imports the driver, and looks at the disk.
        self._opened = await asyncio.to_thread(_connected, self.url, self.station)
        try:
            await self._check_schema()
            await self._db.write(self._check_key) if self._create else await self._db.read(
                self._check_key
            )
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections. What is claimed stays claimed until its lease ends."""
        if self._opened is not None:
            opened, self._opened = self._opened, None
            await asyncio.shield(opened.close())

    @property
    def _db(self) -> Database:
        if self._opened is None:
            raise StoreUnavailable("the store is not open", hint="Use it inside `async with`.")
        return self._opened

    # --- the run's part -------------------------------------------------------------------------

    async def claim(
        self,
        run: str,
        slot: str,
        imei: str,
        *,
        product_key: str | None = None,
        iccid: str | None = None,
        lease: float = LEASE,
    ) -> Claim:
        """An identity for this board: the one it has, or the next of the pool.

        run:   the run's UUID; the same run gets the same identity, however often it asks
        lease: seconds, up to LEASE_MAX, in which nobody else gets it

        Raises PoolEmpty, AlreadyProven, ImeiTaken (another run has this board; or it is another
        board with the same IMEI), LeaseLost (this run has ended), BadInput, VaultError,
        StoreUnavailable.
        """
        want = Want(run, slot, imei, product_key, iccid, lease)

        async def work(connection: AsyncConnection) -> Claim:
            row = await self._row_of_board(connection, want)
            if row is None or row.secret is None:
                # A row without secret belongs to a registration that was cut.
                if row is not None:
                    await self._free(connection, row, "the registration was given up")
                try:
                    row = await queries.next_of_pool(connection, want)
                except PoolEmpty:  # because somebody just gave this board the last one?
                    row = await self._row_of_board(connection, want)
                    if row is None:
                        raise
            return self._claim_of(await self._take(connection, row, want))

        return await self._db.write(work)

    async def reserve(
        self,
        run: str,
        slot: str,
        imei: str,
        product_key: str,
        *,
        iccid: str | None = None,
        lease: float = LEASE,
    ) -> Reservation:
        """As ``claim``, for identities that EnOS registers one by one: the device key is the IMEI.

        The row is there before EnOS is asked, so that two stations never register one board.
        ``secret`` tells whether EnOS need be asked; then come ``registered`` and ``bind``.
        """
        want = Want(run, slot, imei, product_key, iccid, lease)
        check_device_key(imei)

        async def work(connection: AsyncConnection) -> Reservation:
            row = await self._row_of_board(connection, want)
            if row is not None and row.device_key != imei and CredentialState(row.state) is CLAIMED:
                await self._free(connection, row, "the IMEI is the device key from now on")
                row = None
            if row is None:
                row = await queries.row_to_reserve(connection, want) or await queries.new_row(
                    connection, want
                )
            return self._reservation_of(await self._take(connection, row, want))

        return await self._db.write(work)

    async def registered(self, reservation: Held, secret: Secret) -> Claim:
        """Store the secret that EnOS told. Raises LeaseLost, StationError, StoreUnavailable."""
        sealed = self._vault.encrypt(secret, reservation.product_key, reservation.device_key)

        async def work(connection: AsyncConnection) -> Claim:
            row = await self._held(connection, reservation)
            known = self._secret_of(row)
            if known is not None and known != secret and CredentialState(row.state) in GIVEN:
                raise StationError(
                    f"EnOS now has another secret for device {row.device_key} than the one that "
                    "its board was given",
                    hint="Was the device deleted and made again in EnOS? Give its identity back "
                    f"(nbiot station give-back {row.device_key}), and delete it there.",
                )
            if known is None or known != secret:
                await self._check_key(connection)
                row = await self._set(connection, row, "registered", {"secret": sealed})
            return self._claim_of(row)

        return await self._db.write(work)

    async def bind(
        self,
        claim: Held,
        imei: str,
        *,
        iccid: str | None = None,
        module_serial: str | None = None,
    ) -> Claim:
        """Give the identity to the board; from here on it is that IMEI's for ever.

        Call it before the board uses the identity or is told it. iccid: of its SIM, where
        ``claim`` was not told; a later run must see the same. module_serial: likewise.

        Raises LeaseLost, ImeiTaken (another board is in the slot than the one it was claimed for),
        StoreUnavailable: then it may be given or not; ask again before you use it.
        """
        seen = {"iccid": iccid, "module_serial": module_serial}

        async def work(connection: AsyncConnection) -> Claim:
            row = await self._held(connection, claim)
            changes = rules.binding(row, imei, seen)
            same = all(row._mapping[name] == value for name, value in changes.items())
            if not same or CredentialState(row.state) is not BOUND:
                row = await self._set(connection, row, "bind", {**changes, "state": BOUND.value})
            return self._claim_of(row)

        return await self._db.write(work)

    async def renew(self, claim: Held, lease: float = LEASE) -> None:
        """The lease ends ``lease`` seconds from now. Raises LeaseLost, StoreUnavailable."""
        rules.check_lease(lease)

        async def work(connection: AsyncConnection) -> None:
            row = await self._held(connection, claim)
            await connection.execute(
                update(credential)
                .where(credential.c.id == row.id)
                .values(lease_until=now() + lease, incarnation=self.incarnation)
            )

        await self._db.write(work)

    async def release(self, claim: Held) -> None:
        """Let go: an identity that was not given is free again, one that was may be retried.

        Does nothing where the claim is not this run's any more. Raises StoreUnavailable.
        """

        async def work(connection: AsyncConnection) -> None:
            try:
                row = await self._held(connection, claim)
            except LeaseLost:
                return
            if CredentialState(row.state) is CLAIMED:
                await self._free(connection, row, "released")
            elif row.lease_until is not None:
                await self._set(connection, row, "release", {"lease_until": None})

        await self._db.write(work)

    async def deliver(self, record: Record) -> Delivery:
        """Store the record of a run and draw the consequence, in one transaction.

        PASS makes the identity proven, anything else failed, or free where it was not given yet.
        Raises BadInput (another record with this id is there), StoreUnavailable.
        """

        async def work(connection: AsyncConnection) -> Delivery:
            if not await records.is_new(connection, record):
                return Delivery.KNOWN
            row = await queries.row_of_record(connection, record)
            applied = row is not None and await self._conclude(connection, row, record)
            await records.insert(connection, record, applied=applied)
            if not applied:
                await self._note(connection, "result kept", record=record, why=rules.why_kept(row))
            return Delivery.APPLIED if applied else Delivery.KEPT

        return await self._db.write(work)

    async def start(self) -> list[Unfinished]:
        """Recover what an earlier process of this station left: call it once, before any claim.

        Identities that it had claimed and not given are free again; those that it had given may be
        retried at once. Returns the given ones without a result: their records may be in the
        outbox. The caller makes sure that the earlier process is dead (the lock of the outbox).
        """

        async def work(connection: AsyncConnection) -> list[Unfinished]:
            await views.take_name(connection, self.station, self.incarnation, _host())
            mine = queries.locked(credential.c.station == self.station).where(
                credential.c.state.in_([CLAIMED.value, BOUND.value, FAILED.value, PROVEN.value]),
                credential.c.incarnation != self.incarnation,
                credential.c.run.is_not(None),
            )
            unfinished = []
            for row in (await connection.execute(mine.order_by(credential.c.id))).all():
                if CredentialState(row.state) is CLAIMED:
                    await self._free(connection, row, "the station started again")
                    continue
                await self._set(connection, row, "lease ended", {"lease_until": None}, raw=True)
                if CredentialState(row.state) is BOUND:
                    unfinished.append(rules.unfinished(row))
            return unfinished

        return await self._db.write(work)

    # --- people's part --------------------------------------------------------------------------

    async def give_back(self, device_key: str, *, who: str, why: str) -> None:
        """Take an identity out of use for ever; its board may get another one.

        Raises BadInput (no such identity, no reason), StationError (a run has it right now).
        """
        rules.check_reason(who, why)

        async def work(connection: AsyncConnection) -> None:
            row = await queries.known_device(connection, device_key)
            if CredentialState(row.state) is RETURNED:
                return
            if rules.is_live(row):
                raise StationError(
                    f"identity {device_key} is in use right now: {rules.holder(row)}",
                    hint="Stop that run first.",
                )
            changes = {"state": RETURNED.value, "fence": row.fence + 1, "retry_allowed": False}
            if CredentialState(row.state) not in GIVEN:
                changes["imei"] = None  # it was nobody's
            gone = {"lease_until": None, "run": None, "claim_iccid": None}
            await self._set(connection, row, "give back", {**gone, **changes}, who=who, why=why)

        await self._db.write(work)

    async def allow_retry(self, device_key: str, *, who: str, why: str) -> None:
        """The next run with this IMEI gets the identity, whatever SIM it shows, proven or not.

        Raises BadInput (no such identity, no reason, not given to a board).
        """
        rules.check_reason(who, why)

        async def work(connection: AsyncConnection) -> None:
            row = await queries.known_device(connection, device_key)
            if CredentialState(row.state) not in GIVEN:
                raise BadInput(
                    "device key", device_key, f"an identity that a board has; it is {row.state}"
                )
            if not row.retry_allowed:
                await self._set(
                    connection, row, "allow retry", {"retry_allowed": True}, who=who, why=why
                )

        await self._db.write(work)

    async def retire_pool(self, *, who: str, why: str) -> int:
        """Take every identity out of use that no board has, as this database knows it.

        For a database that was restored from a copy: what was given out after the copy was made
        looks free in it. Returns how many there were. Raises BadInput, StoreUnavailable.
        """
        rules.check_reason(who, why)

        async def work(connection: AsyncConnection) -> int:
            changes = {**_NOBODY, "changed": now()}
            done = await connection.execute(
                update(credential)
                .where(credential.c.state.in_([FREE.value, CLAIMED.value]))
                .values(state=RETURNED.value, fence=credential.c.fence + 1, **changes)
            )
            words = f"{why} ({done.rowcount} identities)"
            await self._note(connection, "retire pool", who=who, why=words)
            return done.rowcount

        return await self._db.write(work, patience=LONG)

    async def add(self, identities: Iterable[Identity], *, who: str = "") -> ImportReport:
        """Put identities into the pool: all of them or, where there are problems, none.

        A row that is there already counts as unchanged. One transaction; hundreds of thousands of
        rows do not hold up the loop. Raises VaultError, StoreUnavailable.
        """
        rows = await asyncio.to_thread(list, identities)

        async def work(connection: AsyncConnection) -> ImportReport:
            await one_at_a_time(connection)
            await self._check_key(connection)
            report = await add_identities(connection, rows, self._vault)
            if report.added:
                why = f"{report.added} identities added, {report.unchanged} were there"
                await self._note(connection, "import", who=who, why=why)
            return report

        try:
            return await self._db.write(work, patience=LONG)
        except Refused as refused:
            return refused.report

    async def rotate(self, new: Vault, *, who: str) -> int:
        """Encrypt every secret with another key. Returns how many there were.

        One transaction. Stations that run with the old key are told so at their next claim.
        """

        async def work(connection: AsyncConnection) -> int:
            await one_at_a_time(connection)
            await self._check_key(connection)
            count = await rotate_vault(connection, self._vault, new)
            why = f"key {self._vault.key_id} replaced by {new.key_id}; {count} secrets"
            await self._note(connection, "rotate", who=who, why=why)
            return count

        count = await self._db.write(work, patience=LONG)
        self._vault = new
        return count

    # --- looking --------------------------------------------------------------------------------

    async def export(self) -> AsyncIterator[dict[str, Any]]:
        """Every identity, with state and board, without secret; in the order of their import."""
        after = 0
        while page := await self._db.read(partial(views.export_page, after=after)):
            for _, row in page:
                yield row
            after = page[-1][0]

    async def records(
        self, *, search: str = "", limit: int = 50, before: str | None = None
    ) -> list[Record]:
        """Runs, newest first. Raises StoreUnavailable.

        search: part of an IMEI, device key, serial number, station or slot
        before: id of the last record of the page before
        """
        return await self._db.read(lambda c: records.page(c, search, limit, before))

    async def record(self, id: str) -> Record | None:
        """The record of one run. Raises StoreUnavailable."""
        return await self._db.read(lambda c: records.one(c, id))

    async def audit(self, device_key: str | None = None, *, limit: int = 100) -> list[AuditEntry]:
        """The audit trail, newest first; of one identity or of all."""
        return await self._db.read(lambda c: views.audit_trail(c, device_key, limit))

    async def counts(self) -> Counts:
        """Identities per state. Reads all of them: not for what happens every few seconds."""
        return await self._db.read(views.counts)

    async def free(self, *, product_key: str | None = None, at_most: int = MOST_FREE) -> int:
        """Free identities in the pool, counted up to ``at_most``: a look that stays cheap when
        many stations look often, however many identities there are. Raises StoreUnavailable.
        """
        return await self._db.read(lambda c: views.free(c, product_key, at_most))

    async def today(self, since: float) -> Today:
        """Runs of this station that ended after ``since``, s since 1970. ABORTED counts nowhere."""
        return await self._db.read(lambda c: records.today(c, self.station, since))

    async def report_in(self, view: StationView, slots: Sequence[SlotView]) -> None:
        """Tell the line how this station is.

        Raises StationError where another process took its name since ``start``.
        """
        await self._db.write(
            lambda c: views.report_in(c, self.station, self.incarnation, _host(), view, slots)
        )

    async def stations(self) -> list[StationRow]:
        """All stations of the line, as they last reported, by name."""
        return await self._db.read(views.stations)

    async def contradictions(self) -> list[str]:
        """What must never be, in words: an identity that two boards had, and its like. Slow."""
        return await self._db.read(views.contradictions, patience=LONG)

    # --- checks at opening ----------------------------------------------------------------------

    async def _check_schema(self) -> None:
        found = await self._db.read(views.revision)
        if found == REVISION:
            return
        where = f"database {shown(self.url)}"
        if not found:
            what, hint = "has no tables of nbiot", "Type: nbiot station init"
        elif found < REVISION:
            what = f"has schema {found}; this nbiot needs {REVISION}"
            hint = "Stop the stations, make a backup, and type: nbiot station init"
        else:
            what = f"has schema {found}, which is newer than this nbiot ({REVISION})"
            hint = "Update nbiot: pip install --upgrade 'nbiot-driver[station]'"
        raise StoreUnavailable(f"{where} {what}", hint=hint)

    async def _check_key(self, connection: AsyncConnection) -> None:
        """That this vault's key is the one of the secrets, inside a transaction."""
        query = select(vault.c.key_id, vault.c.check_value)
        if not self._db.is_sqlite:
            query = query.with_for_update(read=True)  # no rotation until we are done
        row = (await connection.execute(query)).first()
        if row is None:
            if not self._create:
                raise StoreUnavailable(
                    f"database {shown(self.url)} was not set up to its end",
                    hint="Type: nbiot station init",
                )
            await connection.execute(
                insert(vault).values(
                    one=1, key_id=self._vault.key_id, check_value=self._vault.check_value()
                )
            )
        elif row.key_id != self._vault.key_id or not self._vault.fits(row.check_value):
            raise wrong_key(self._vault.key_id, row.key_id, f"database {shown(self.url)}")

    # --- rows -----------------------------------------------------------------------------------

    async def _row_of_board(self, connection: AsyncConnection, want: Want) -> AnyRow | None:
        """The row that this board is to get, locked; None: any. Raises where it may get none."""
        ended = select(runs.c.outcome).where(runs.c.id == want.run)
        if (outcome := await connection.scalar(ended)) is not None:
            raise LeaseLost(
                f"run {want.run} has ended ({outcome}) and can claim nothing",
                hint="Start the slot again: that is a new run.",
            )
        mine = or_(
            credential.c.run == want.run,
            (credential.c.imei == want.imei) & (credential.c.state != RETURNED.value),
        )
        rows = (await connection.execute(queries.locked(mine).order_by(credential.c.id))).all()
        for row in rows:
            if row.run == want.run and row.imei != want.imei:
                raise BadInput("run", want.run, f"a run of its own: this one is for {row.imei}")
        if not rows:
            return None
        row = rows[0]
        if row.run == want.run:
            return row
        state = CredentialState(row.state)
        if rules.is_live(row) and not (row.station == self.station and row.slot == want.slot):
            raise ImeiTaken(
                f"a board with IMEI {want.imei} is being worked on: {rules.holder(row)}",
                hint="Is it the same board? Finish or stop it there. If not, two boards carry "
                "this IMEI: set this one aside.",
            )
        if state is CLAIMED:
            if want.product_key in (None, row.product_key):
                return row
            await self._free(connection, row, "another product was asked for")
            return None
        rules.check_retry(row, want)
        return row

    async def _take(self, connection: AsyncConnection, row: AnyRow, want: Want) -> AnyRow:
        """Claim the row; for the run that has it already, just renew the lease."""
        again = row.run == want.run
        if row.state == CLAIMED.value and not again:
            await self._note(connection, "lease ran out", row=row, to=FREE)
        changes: dict[str, Any] = {
            "lease_until": now() + want.lease,
            "station": self.station,
            "slot": want.slot,
            "incarnation": self.incarnation,
            "claim_iccid": want.iccid or (row.claim_iccid if again else None),
        }
        if again:
            return await self._set(connection, row, "claim again", changes, raw=True, quiet=True)
        changes.update(run=want.run, fence=row.fence + 1)
        if CredentialState(row.state) in GIVEN:
            return await self._set(connection, row, "retry", changes)
        changes.update(imei=want.imei, state=CLAIMED.value)
        return await self._set(connection, row, "claim", changes)

    async def _held(self, connection: AsyncConnection, claim: Held) -> AnyRow:
        """The claim's row, locked. Raises LeaseLost where another run, or none, has it."""
        query = queries.locked(credential.c.id == claim.credential)
        row = (await connection.execute(query)).first()
        if row is None or row.fence != claim.fence or row.run is None:
            now_with = "it is gone" if row is None else rules.holder(row)
            raise LeaseLost(
                f"identity {claim.device_key} is not this run's any more (fence {claim.fence}): "
                f"{now_with}",
                hint="The run took too long, or the database was away. Start the slot again.",
            )
        return row

    async def _conclude(self, connection: AsyncConnection, row: AnyRow, record: Record) -> bool:
        """Draw the consequence of a result; False where it is too late for that."""
        fence = row.fence if record.fence is None else record.fence
        if row.fence != fence or row.run is None or record.imei not in (None, row.imei):
            return False
        if row.run != record.id:
            return False
        state = CredentialState(row.state)
        if record.outcome is not Outcome.PASS and state is CLAIMED:
            await self._free(connection, row, "the run ended before it was given", record=record)
            return True
        # A pass without bind breaks the rules, but the board has the identity: it stays its own.
        after = PROVEN if record.outcome is Outcome.PASS or state is PROVEN else FAILED
        changes = {
            "state": after.value,
            "lease_until": None,
            "run": None,
            "claim_iccid": None,
            "given_run": row.given_run or row.run,
            "iccid": row.iccid or row.claim_iccid,
        }
        await self._set(connection, row, "result", changes, record=record)
        return True

    async def _free(
        self, connection: AsyncConnection, row: AnyRow, why: str, record: Record | None = None
    ) -> None:
        changes = {**_NOBODY, "state": FREE.value}
        await self._set(connection, row, "free", changes, why=why, record=record)

    async def _set(
        self,
        connection: AsyncConnection,
        row: AnyRow,
        action: str,
        changes: Mapping[str, Any],
        *,
        who: str = "",
        why: str = "",
        record: Record | None = None,
        raw: bool = False,
        quiet: bool = False,
    ) -> AnyRow:
        """Change a locked row, and note it in the audit trail unless ``quiet``.

        raw: it does not count as a change of the identity
        """
        stamp = {} if raw else {"changed": now()}
        statement = (
            update(credential)
            .where(credential.c.id == row.id, credential.c.fence == row.fence)
            .values(**changes, **stamp)
            .returning(*credential.c, now().label("now"))
        )
        after = (await connection.execute(statement)).one()
        if not quiet:
            await self._note(
                connection, action, row=row, after=after, who=who, why=why, record=record
            )
        return after

    async def _note(
        self,
        connection: AsyncConnection,
        action: str,
        *,
        row: AnyRow | None = None,
        after: AnyRow | None = None,
        to: CredentialState | None = None,
        who: str = "",
        why: str = "",
        record: Record | None = None,
    ) -> None:
        entry: dict[str, Any] = {"action": action, "who": who or f"station {self.station}"}
        if row is not None:
            last = row if after is None else after
            # Who held it: when it is freed, what the row said before.
            held = row if last.run is None else last
            entry |= {
                "credential": row.id,
                "product_key": row.product_key,
                "device_key": row.device_key,
                "imei": last.imei or row.imei or "",
                "iccid": held.claim_iccid or held.iccid or "",
                "from_state": row.state,
                "to_state": to.value if to else last.state,
                "fence": last.fence,
                "station": held.station or "",
                "slot": held.slot or "",
                "run": held.run or "",
            }
        if record is not None:
            entry |= {k: v for k, v in records.audit_columns(record).items() if v not in ("", None)}
        await connection.execute(
            insert(audit).values(at=now(), **{"station": self.station, **entry, "why": why})
        )

    def _secret_of(self, row: AnyRow) -> Secret | None:
        if row.secret is None:
            return None
        return self._vault.decrypt(row.secret, row.product_key, row.device_key)

    def _claim_of(self, row: AnyRow) -> Claim:
        secret = self._secret_of(row)
        if secret is None:
            raise StationError(
                f"EnOS has not told the secret of device {row.device_key} yet",
                hint="Call registered() before: the station's source of identities is register.",
            )
        return Claim(**rules.held_fields(row), secret=secret)

    def _reservation_of(self, row: AnyRow) -> Reservation:
        return Reservation(**rules.held_fields(row), secret=self._secret_of(row))


def _migrated(url: URL) -> None:
    from nbiot.station.store.migrate import migrate  # it brings Alembic

    migrate(url)


def _connected(url: URL, name: str) -> Database:
    if url.drivername.startswith("sqlite"):
        path = Path(url.database or "")
        check_filesystem(path.parent)
        if not path.exists():  # SQLite would make it, empty
            raise StoreUnavailable(
                f"database {path}: there is no such file", hint="Type: nbiot station init"
            )
    return Database(url, name)


def _host() -> str:
    return socket.gethostname()
