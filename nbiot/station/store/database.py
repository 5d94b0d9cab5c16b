"""The connection to the database: URLs, transactions, and what to do when it is away.

Each piece of work is one transaction, and is written so that it may be done again: where the
database says "somebody was faster" (a unique index, a deadlock, SQLite's single writer) it is done
again here; where the database is away, the caller gets StoreUnavailable and may call again.
"""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, event, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    IntegrityError,
    SQLAlchemyError,
)
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from nbiot.errors import BadInput, StationError, StoreUnavailable
from nbiot.signing import Secret

T = TypeVar("T")
Work = Callable[[AsyncConnection], Awaitable[T]]

URL_VARIABLE = "NBIOT_STATION_DATABASE"
PASSWORD_VARIABLE = "NBIOT_STATION_DATABASE_PASSWORD"
SQLITE = "sqlite+aiosqlite"
POSTGRESQL = "postgresql+psycopg"
PATIENCE = 15.0
"""Seconds that an operation may take, waiting for other stations included."""
CONNECTIONS = 3
"""To PostgreSQL, of one station: its slots rarely want something at the same moment."""
_ALLOWED = f"{SQLITE}:///PATH or {POSTGRESQL}://USER@HOST/DATABASE"
_AGAIN = frozenset({"40001", "40P01"})  # PostgreSQL: serialization failure, deadlock
_RAISED = "P0001"  # PostgreSQL: by a trigger
_FASTER = 8  # times that somebody may be faster
_PAUSE = 0.004  # s, the longest between two looks whether SQLite's writer is done
_BUSY = 20  # ms that SQLite itself waits for a writer: its waiting is not fair, ours is nearly so
_NETWORK_FILESYSTEMS = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs"})
_SERVER_OPTIONS = (  # ms. A station that was cut off must not hold rows for long.
    "-c statement_timeout=10000 -c lock_timeout=8000 -c idle_in_transaction_session_timeout=12000 "
    "-c synchronous_commit=on"  # whatever the server's default: what is given is on its disk
)
_SOCKET_OPTIONS = {  # a server that vanished without a word is noticed within about 12 s
    "connect_timeout": 5,
    "keepalives": 1,
    "keepalives_idle": 4,
    "keepalives_interval": 2,
    "keepalives_count": 4,
    "tcp_user_timeout": 12000,
}


def database_url(text: str, *, password: Secret | None = None) -> URL:
    """The database's address, checked. Raises BadInput.

    text:     what the settings say; the environment variable NBIOT_STATION_DATABASE goes before it
    password: for PostgreSQL; the environment variable NBIOT_STATION_DATABASE_PASSWORD where None

    A password in the text works, too, and is never shown; but files are read by many.
    """
    text = os.environ.get(URL_VARIABLE) or text
    try:
        url = make_url(text)
        if url.drivername in ("sqlite", "postgresql"):
            url = url.set(drivername=SQLITE if url.drivername == "sqlite" else POSTGRESQL)
    except (ArgumentError, ValueError):
        raise _bad_url("a text that is no URL (not shown: it may hold a password)") from None
    if url.drivername == SQLITE:
        return _sqlite_url(url)
    if url.drivername != POSTGRESQL:
        raise _bad_url(f"{url.drivername}://…")
    if not url.database:
        raise _bad_url(shown(url))
    if password is None and PASSWORD_VARIABLE in os.environ:
        password = Secret(os.environ[PASSWORD_VARIABLE])
    return url if password is None else url.set(password=password.reveal())


def shown(url: URL) -> str:
    """The address without its password."""
    return url.render_as_string(hide_password=True)


def _bad_url(given: str) -> BadInput:
    return BadInput("database", given, _ALLOWED, hint=f"Set it in station.toml or {URL_VARIABLE}.")


def _sqlite_url(url: URL) -> URL:
    path = os.path.expanduser(url.database or "")
    if not path or ":memory:" in path or path.startswith("file:") or url.host:
        raise _bad_url(f"{shown(url)} (no file)")
    return url.set(database=os.path.abspath(path))


def check_filesystem(path: Path) -> None:
    """Refuse a folder on a network: SQLite's locks do not work there. Blocks. Raises BadInput."""
    kind = _filesystem_of(path)
    if kind in _NETWORK_FILESYSTEMS:
        raise BadInput(
            "database",
            str(path),
            f"a file on a local disk; this is on {kind}, where two stations would both write",
            hint="For many stations use PostgreSQL: see docs/station-database.md.",
        )


def _filesystem_of(path: Path) -> str:
    """Type of the file system that ``path`` is on; empty where the system does not tell."""
    try:
        mounts = Path("/proc/self/mounts").read_text(errors="replace").splitlines()
    except OSError:
        return ""
    best = ("", "")
    for line in mounts:
        _, where, kind, *_ = line.split(" ")
        where = where.encode().decode("unicode_escape")  # "\040" stands for a space
        if path.is_relative_to(where) and len(where) >= len(best[0]):
            best = where, kind
    return best[1]


# --- transactions -------------------------------------------------------------------------------


class Database:
    """Runs pieces of work as transactions. Belongs to one event loop."""

    def __init__(self, url: URL, name: str, *, patience: float = PATIENCE) -> None:
        self.url = url
        self.is_sqlite = url.drivername == SQLITE
        self._patience = patience
        self._engine = _engine(url, name)
        # SQLite has one writer. Within this process the writers stand in a queue, first come,
        # first served; SQLite's own waiting (sleep, look, sleep longer) lets the unlucky starve.
        self._queue = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def engine(self) -> AsyncEngine:
        """For tests."""
        return self._engine

    async def close(self) -> None:
        """Let what goes on come to its end, and close the connections."""
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._engine.dispose()

    async def read(self, work: Work[T], *, patience: float | None = None) -> T:
        """Do ``work`` in a transaction that writes nothing. Raises StoreUnavailable."""
        engine = self._engine.execution_options(nbiot_begin="BEGIN")
        return await self._done(work, engine, None, patience or self._patience)

    async def write(self, work: Work[T], *, patience: float | None = None) -> T:
        """Do ``work`` in a transaction; when this returns it is on the server's disk.

        Raises StoreUnavailable: it was done or it was not; do it again. The same holds when the
        call is cancelled.
        """
        queue = self._queue if self.is_sqlite else None
        return await self._done(work, self._engine, queue, patience or self._patience)

    async def _done(
        self, work: Work[T], engine: AsyncEngine, queue: asyncio.Lock | None, patience: float
    ) -> T:
        """Do it in a task that no cancellation reaches while it talks to the database.

        A transaction of aiosqlite that is cancelled may stay open for ever, and nobody else could
        write any more. So who is cancelled goes, and the transaction comes to its end.
        """
        begun = asyncio.Event()
        task = asyncio.create_task(self._repeated(work, engine, queue, patience, begun))
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        try:
            done, _ = await asyncio.wait({task}, timeout=patience + 1)
        except asyncio.CancelledError:
            if not begun.is_set():
                task.cancel()  # it still stood in the queue
            raise
        if not done:  # a disk that does not answer, a driver that cannot be stopped
            raise self._late(patience)
        return task.result()

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever wanted to know it has gone

    async def _repeated(
        self,
        work: Work[T],
        engine: AsyncEngine,
        queue: asyncio.Lock | None,
        patience: float,
        begun: asyncio.Event,
    ) -> T:
        deadline = asyncio.get_running_loop().time() + patience
        async with AsyncExitStack() as stack:
            with self._told(patience):
                if queue is not None:
                    async with asyncio.timeout_at(deadline):
                        await stack.enter_async_context(queue)
                begun.set()
                # psycopg can be stopped in the middle, aiosqlite cannot.
                async with asyncio.timeout_at(None if self.is_sqlite else deadline):
                    return await self._repeat(work, engine, deadline)

    async def _repeat(self, work: Work[T], engine: AsyncEngine, deadline: float) -> T:
        faster = 0
        while True:
            try:
                async with engine.begin() as connection:
                    return await work(connection)
            except DBAPIError as error:
                if _is_busy(error):
                    if asyncio.get_running_loop().time() > deadline:
                        raise TimeoutError from error
                    await asyncio.sleep(random.uniform(0, _PAUSE))
                    continue
                faster += 1
                if faster > _FASTER or not _somebody_was_faster(error):
                    raise

    @contextmanager
    def _told(self, patience: float) -> Iterator[None]:
        """Tell what the database says as an error of ours."""
        try:
            yield
        except TimeoutError as error:
            raise self._late(patience) from error
        except DBAPIError as error:
            if _is_refusal(error):
                raise StationError(
                    f"database {shown(self.url)} refuses: {_words(error.orig or error)}",
                    hint="This should not happen: please report it, with the log.",
                ) from error
            raise self._unavailable(_words(error.orig or error)) from error
        except (SQLAlchemyError, OSError) as error:  # no connection; what comes out of a driver
            raise self._unavailable(_words(error)) from error

    def _late(self, patience: float) -> StoreUnavailable:
        return self._unavailable(f"no answer within {patience:g} s")

    def _unavailable(self, why: str) -> StoreUnavailable:
        if self.is_sqlite:
            hint = "Check the disk (df, permissions), and that no other program holds the file."
        else:
            hint = "Check the network and the server (pg_isready); the station goes on by itself."
        return StoreUnavailable(f"database {shown(self.url)}: {why}", hint=hint)


def _words(error: BaseException) -> str:
    """The first line of what the database says."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _is_busy(error: DBAPIError) -> bool:
    """SQLite: another process writes. The work was rolled back, and waits its turn."""
    code = getattr(error.orig, "sqlite_errorcode", None)
    return code is not None and code & 0xFF == sqlite3.SQLITE_BUSY


def _somebody_was_faster(error: DBAPIError) -> bool:
    return isinstance(error, IntegrityError) or getattr(error.orig, "sqlstate", None) in _AGAIN


def _is_refusal(error: DBAPIError) -> bool:
    """The database is there and says no: a rule of its triggers, a value that it cannot hold."""
    raised = getattr(error.orig, "sqlstate", None) == _RAISED
    return raised or isinstance(error, IntegrityError | DataError)


def _engine(url: URL, name: str) -> AsyncEngine:
    if url.drivername == SQLITE:
        return _sqlite_engine(url)
    return create_async_engine(
        url,
        hide_parameters=True,
        # Few, and never more: to open one costs the server more than a claim, and where a slow
        # server made each station open more of them, it never came back (docs/scale.md).
        pool_size=CONNECTIONS,
        max_overflow=0,
        pool_timeout=PATIENCE,
        pool_pre_ping=True,  # a server that was restarted costs no failed operation
        connect_args={
            **_SOCKET_OPTIONS,
            "options": _SERVER_OPTIONS,
            "application_name": f"nbiot station {name}"[:63],
        },
    )


def _sqlite_engine(url: URL) -> AsyncEngine:
    engine = create_async_engine(url, hide_parameters=True, pool_size=5, max_overflow=15)
    event.listen(engine.sync_engine, "connect", set_up_sqlite)
    event.listen(engine.sync_engine, "begin", begin_sqlite)
    return engine


def set_up_sqlite(connection: Any, _: Any) -> None:
    """For each new connection: no transactions of Python's own, and safe against a power cut."""
    connection.isolation_level = None
    cursor = connection.cursor()
    try:
        for pragma in (
            "busy_timeout = 10000",  # ms: another process may be making the file
            "journal_mode = WAL",
            "synchronous = FULL",  # a commit is on the disk
            "trusted_schema = OFF",
            f"busy_timeout = {_BUSY}",
        ):
            cursor.execute(f"PRAGMA {pragma}")
    finally:
        cursor.close()


def begin_sqlite(connection: Any) -> None:
    """A writer takes its turn at once: a reader that becomes a writer would be refused."""
    how = connection.get_execution_options().get("nbiot_begin", "BEGIN IMMEDIATE")
    connection.exec_driver_sql(how)
