"""The outbox: results wait on this station's disk until the store has them, each exactly once.

It is one SQLite file, which one process at a time may have. What ``put`` wrote is on the disk when
it returns, and leaves the outbox only after the store said that it has it; the store knows each
record by its id, so one that is delivered twice counts once.

Before a run touches its board it says so (``begin``: an intent); its record ends the intent in the
same transaction. What still is an intent when the outbox is opened was cut by a crash or a power
cut: an ABORTED record is put for it. So each run that began leaves exactly one record.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, Self, TypeVar

from nbiot.errors import BadInput, NbiotError, StationError, StoreUnavailable
from nbiot.station.record import Outcome, Reason, Record, Value

if TYPE_CHECKING:
    from nbiot.station.board import Board

T = TypeVar("T")
CUT = "station_died"
"""Reason code of the records of runs that were cut."""
PAUSE_FIRST, PAUSE_LAST = 1.0, 30.0  # s between two attempts while the store is away
_SCHEMA = """
CREATE TABLE IF NOT EXISTS record (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    put REAL NOT NULL,
    body TEXT NOT NULL,
    error TEXT  -- why it was set aside
);
CREATE TABLE IF NOT EXISTS intent (
    run TEXT PRIMARY KEY,
    slot TEXT NOT NULL,
    begun REAL NOT NULL,
    known TEXT NOT NULL
);
"""
_KNOWABLE = {field.name for field in fields(Record)} - {
    *("id", "station", "slot", "started", "ended", "outcome", "phases", "reason"),
}
_log = logging.getLogger(__name__)


class Receiver(Protocol):
    """What results are delivered to: the Store."""

    async def deliver(self, record: Record) -> Any:
        """Raises StoreUnavailable: later; anything else: never."""
        ...


@dataclass(frozen=True)
class Intent:
    """A run that began. ``known``: fields of its record, as far as they were known."""

    run: str
    slot: str
    begun: float
    known: dict[str, Value]


@dataclass(frozen=True)
class SetAside:
    """A record that the store will not take, and why. It stays here until somebody looks."""

    id: str
    put: float
    error: str


@dataclass(frozen=True)
class Waiting:
    """A record that waits, and what of it can be read. ``error``: why it was set aside."""

    id: str
    put: float
    error: str | None
    slot: str | None
    imei: str | None
    device_key: str | None
    outcome: str | None


class Outbox:
    """Use it with ``async with``. Belongs to one event loop."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        station: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """path: of the file; its folder is made, and ``path.lock`` stands beside it"""
        self.path = Path(path)
        self.station = station
        self.cut: list[Record] = []
        """The runs that were found cut when the outbox was opened."""
        self._clock = clock
        self._some = asyncio.Event()
        self._lock = -1
        self._db: sqlite3.Connection | None = None
        # One thread: SQLite's connection is not for several, and order is kept.
        self._thread: ThreadPoolExecutor | None = None

    async def __aenter__(self) -> Self:
        """Take the file, and put a record for each run that was cut.

        Raises StationError: another process has it, or it cannot be written.
        """
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="outbox")
        try:
            await self._in_thread(self._open)
            await self._recover()
        except BaseException:
            await self._close()
            raise
        self._some.set()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._close()

    # --- records --------------------------------------------------------------------------------

    async def put(self, record: Record) -> None:
        """Keep a record, and end its run's intent; when this returns it is on the disk.

        May be repeated. A cancelled call is carried out all the same. Raises StationError (disk
        full, ...): the caller still has the record, and must try again; BadInput: another record
        with this id waits here.
        """
        body = json.dumps(record.as_dict())
        await self._in_thread(lambda: self._put(record.id, body))
        self._some.set()

    async def find(self, id: str) -> Record | None:
        """A record that waits here. None: it is delivered, or never was."""
        query = "SELECT body FROM record WHERE id = ?"
        rows = await self._in_thread(lambda: self._rows(query, id))
        return Record.from_dict(json.loads(rows[0][0])) if rows else None

    async def holds(self, imei: str) -> bool:
        """Does a result of the board with this IMEI wait here? Those set aside do not count."""
        query = (
            "SELECT COUNT(*) FROM record WHERE error IS NULL AND json_extract(body, '$.imei') = ?"
        )
        return await self._in_thread(lambda: self._count(query, imei)) > 0

    async def undelivered(self) -> int:
        """Records that wait here, those that were set aside included."""
        return await self._in_thread(lambda: self._count("SELECT COUNT(*) FROM record"))

    async def set_aside(self) -> list[SetAside]:
        """Records that the store would not take, oldest first."""
        query = "SELECT id, put, error FROM record WHERE error IS NOT NULL ORDER BY number"
        return [SetAside(*row) for row in await self._in_thread(lambda: self._rows(query))]

    async def readmit(self) -> int:
        """Try the records that were set aside once more. Returns how many."""
        change = "UPDATE record SET error = NULL WHERE error IS NOT NULL"
        count = await self._in_thread(lambda: self._change(change))
        self._some.set()
        return count

    async def run(self, store: Receiver, board: Board | None = None) -> NoReturn:
        """Deliver, oldest first, for ever; tell the board how many wait and whether the store is.

        While the store is away it waits longer and longer, up to PAUSE_LAST seconds.
        """
        pause = PAUSE_FIRST
        while True:
            await self._some.wait()
            self._some.clear()
            away = not await self._deliver_all(store, board)
            await self._tell(board)
            if away:
                await asyncio.sleep(random.uniform(pause / 2, pause))
                pause = min(2 * pause, PAUSE_LAST)
                self._some.set()
            else:
                pause = PAUSE_FIRST

    async def flush(self, store: Receiver, board: Board | None = None) -> bool:
        """Deliver what is there now. False: the store went away before the end."""
        done = await self._deliver_all(store, board)
        await self._tell(board)
        return done

    async def _deliver_all(self, store: Receiver, board: Board | None) -> bool:
        query = "SELECT number, id, body FROM record WHERE error IS NULL ORDER BY number LIMIT 1"
        while rows := await self._in_thread(lambda: self._rows(query)):
            number, id, body = rows[0]
            try:
                await store.deliver(Record.from_dict(json.loads(body)))
            except StoreUnavailable:
                if board is not None:
                    board.update_station(database=False)
                return False
            except Exception as error:  # of whatever kind: it must not hold up the others
                _log.error("record %s was set aside: %s", id, _first_line(error))
                await self._set_aside(number, error)
            else:
                await self._forget(number)
                if board is not None:
                    board.update_station(database=True)
        return True

    async def _forget(self, number: int) -> None:
        await self._in_thread(lambda: self._change("DELETE FROM record WHERE number = ?", number))

    async def _set_aside(self, number: int, error: Exception) -> None:
        why = _first_line(error)
        await self._in_thread(
            lambda: self._change("UPDATE record SET error = ? WHERE number = ?", why, number)
        )

    async def _tell(self, board: Board | None) -> None:
        if board is not None:
            board.update_station(undelivered=await self.undelivered())

    # --- intents --------------------------------------------------------------------------------

    async def begin(self, run: str, slot: str, imei: str | None = None, **known: Value) -> None:
        """A run begins; on disk when this returns. Call it again when more is known.

        known: fields of its Record (``credential``, ``fence``, ``device_key``, ``recipe``, ...),
               for the record that is made should the station die
        """
        if unknown := set(known) - _KNOWABLE:
            raise BadInput("known", ", ".join(sorted(unknown)), "fields of Record")
        if imei is not None:
            known["imei"] = imei
        await self._in_thread(lambda: self._begin(run, slot, known))

    async def end(self, run: str) -> None:
        """The run ended and leaves no record. (``put`` ends the intent of its record's run.)"""
        await self._in_thread(lambda: self._change("DELETE FROM intent WHERE run = ?", run))

    async def intents(self) -> list[Intent]:
        """Runs that began and have not ended."""
        query = "SELECT run, slot, begun, known FROM intent ORDER BY begun"
        rows = await self._in_thread(lambda: self._rows(query))
        return [Intent(run, slot, begun, json.loads(known)) for run, slot, begun, known in rows]

    async def _recover(self) -> None:
        """Dying in the middle of it does no harm: what is left is recovered the next time."""
        for intent in await self.intents():
            record = _cut_record(intent, self.station, self._clock())
            await self.put(record)
            self.cut.append(record)

    # --- in the thread --------------------------------------------------------------------------

    async def _in_thread(self, work: Callable[[], T]) -> T:
        if self._thread is None:
            raise StationError("the outbox is not open", hint="Use it inside `async with`.")
        future = asyncio.wrap_future(self._thread.submit(work))
        try:
            return await asyncio.shield(future)  # cancelled or not, what was asked is written
        except sqlite3.Error as error:
            raise StationError(
                f"the outbox {self.path} cannot be used: {error}",
                hint="Check the disk (df, permissions). Results are not safe until this works.",
            ) from error

    def _open(self) -> None:
        folder = self.path.parent
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = _locked(self.path.with_name(f"{self.path.name}.lock"))
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise StationError(
                f"the outbox {self.path} cannot be opened: {error.strerror}",
                hint="Give the station a state folder of its own that this user may write to.",
            ) from error
        self._db = sqlite3.connect(self.path, isolation_level=None)
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "busy_timeout = 5000"):
            self._db.execute(f"PRAGMA {pragma}")
        self._db.executescript(_SCHEMA)
        _sync_folder(folder)

    async def _close(self) -> None:
        if self._thread is not None:
            thread, self._thread = self._thread, None
            thread.submit(self._shut)
            await asyncio.shield(asyncio.to_thread(thread.shutdown))

    def _shut(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    @property
    def _connection(self) -> sqlite3.Connection:
        assert self._db is not None
        return self._db

    def _put(self, id: str, body: str) -> None:
        with _transaction(self._connection) as db:
            there = db.execute("SELECT body FROM record WHERE id = ?", (id,)).fetchone()
            if there is not None and there[0] != body:
                raise BadInput("record id", id, "an id of its own: another record with it waits")
            if there is None:
                db.execute(
                    "INSERT INTO record (id, put, body) VALUES (?, ?, ?)", (id, self._clock(), body)
                )
            db.execute("DELETE FROM intent WHERE run = ?", (id,))

    def _begin(self, run: str, slot: str, known: dict[str, Value]) -> None:
        with _transaction(self._connection) as db:
            found = db.execute("SELECT known FROM intent WHERE run = ?", (run,)).fetchone()
            known = {**json.loads(found[0]), **known} if found else known
            db.execute(
                "INSERT INTO intent (run, slot, begun, known) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (run) DO UPDATE SET known = excluded.known",
                (run, slot, self._clock(), json.dumps(known)),
            )

    def _change(self, statement: str, *values: object) -> int:
        return self._connection.execute(statement, values).rowcount

    def _rows(self, query: str, *values: object) -> list[Any]:
        return self._connection.execute(query, values).fetchall()

    def _count(self, query: str, *values: object) -> int:
        count: int = self._connection.execute(query, values).fetchone()[0]
        return count


# --- beside a running station -------------------------------------------------------------------


def look(path: Path) -> tuple[list[Waiting], list[str]]:
    """The records that wait in an outbox, oldest first; the slots of runs that have not ended.

    Changes nothing: opening an outbox as its station does would end that one's runs. No file: it
    is empty. Blocks. Raises StationError.
    """
    if not path.exists():
        return [], []
    with _beside(path, "ro") as db:
        found = db.execute("SELECT id, put, error, body FROM record ORDER BY number").fetchall()
        slots = db.execute("SELECT slot FROM intent ORDER BY begun").fetchall()
    return [_waiting(*row) for row in found], [slot for (slot,) in slots]


def readmit(path: Path) -> int:
    """As ``Outbox.readmit``. A station that runs tries them with its next result, or when it is
    started again. Blocks. Raises StationError.
    """
    if not path.exists():
        return 0
    with _beside(path, "rw") as db:
        return db.execute("UPDATE record SET error = NULL WHERE error IS NOT NULL").rowcount


@contextmanager
def _beside(path: Path, mode: str) -> Iterator[sqlite3.Connection]:
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    try:
        with closing(sqlite3.connect(uri, uri=True, timeout=5, isolation_level=None)) as db:
            db.execute("PRAGMA synchronous = FULL")
            yield db
    except sqlite3.Error as error:
        raise StationError(
            f"the outbox {path} cannot be used: {error}",
            hint="Keep the file: results are in it. Are you the user that the station runs as?",
        ) from error


def _waiting(id: str, put: float, error: str | None, body: str) -> Waiting:
    try:
        known = json.loads(body)
    except ValueError:
        known = None
    if not isinstance(known, dict):
        known = {}
    names = ("slot", "imei", "device_key", "outcome")
    found = {name: None if known.get(name) is None else str(known[name]) for name in names}
    return Waiting(id, put, error, **found)


class _transaction:
    """``with``: all of it, or nothing."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> sqlite3.Connection:
        self._db.execute("BEGIN IMMEDIATE")
        return self._db

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self._db.execute("COMMIT")
        finally:
            if self._db.in_transaction:  # SQLite itself may have rolled back: disk full
                self._db.execute("ROLLBACK")


def _cut_record(intent: Intent, station: str, now: float) -> Record:
    return Record(
        id=intent.run,
        station=station,
        slot=intent.slot,
        started=intent.begun,
        ended=max(now, intent.begun),
        outcome=Outcome.ABORTED,
        reason=Reason(
            CUT,
            {
                "message": "the station was stopped or lost power during this run",
                "hint": "Put the board in again: the run starts anew, with the same identity if "
                "it had been given one.",
            },
        ),
        **intent.known,  # type: ignore[arg-type]  # begin() checked the names
    )


def _locked(path: Path) -> int:
    """The outbox's lock. It ends with this process, however that ends."""
    fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.truncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode())
    except BlockingIOError:
        holder = os.pread(fd, 20, 0).decode(errors="replace").strip()
        os.close(fd)
        raise StationError(
            f"another process has the outbox {path.with_suffix('')} (pid {holder or 'unknown'})",
            hint="Stop that one, or give this station a state folder of its own.",
        ) from None
    except BaseException:
        os.close(fd)
        raise
    return fd


def _sync_folder(folder: Path) -> None:
    """The names of the files in it survive a power cut."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _first_line(error: Exception) -> str:
    text = error.message if isinstance(error, NbiotError) else str(error)
    return f"{type(error).__name__}: {text.splitlines()[0] if text else ''}"
