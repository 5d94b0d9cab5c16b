"""Make the tables, or bring them to this version's schema. Blocks: call it in a thread."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import URL, Connection, create_engine, event, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from nbiot.errors import StoreUnavailable
from nbiot.station.store.database import (
    SQLITE,
    begin_sqlite,
    check_filesystem,
    set_up_sqlite,
    shown,
)

_LOCK = 6_420_155  # PostgreSQL's advisory lock: two stations may start at the same time
_PATIENCE = 30  # s


def migrate(url: URL) -> None:
    """Bring the database to the newest schema, in one transaction. Raises StoreUnavailable."""
    is_sqlite = url.drivername == SQLITE
    if is_sqlite:
        _new_file(Path(url.database or ""))
        url = url.set(drivername="sqlite")
    engine = create_engine(url, hide_parameters=True, poolclass=NullPool)
    if is_sqlite:
        event.listen(engine, "connect", _to_wal)
        event.listen(engine, "connect", set_up_sqlite)
        event.listen(engine, "connect", _patient)
        event.listen(engine, "begin", begin_sqlite)
    try:
        with engine.begin() as connection:
            if not is_sqlite:
                connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
            command.upgrade(config(connection), "head")
    except (SQLAlchemyError, OSError) as error:
        raise StoreUnavailable(
            f"database {shown(url)}: {str(error).splitlines()[0]}",
            hint="Check the address, and that this user may create tables there.",
        ) from error
    finally:
        engine.dispose()


def config(connection: Connection) -> Config:
    """Alembic's settings, on an open connection."""
    found = Config()
    found.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    found.set_main_option("path_separator", "os")
    found.attributes["connection"] = connection
    return found


def _to_wal(connection: sqlite3.Connection, _: object) -> None:
    """SQLite itself does not wait here for another process that does the same."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        time.sleep(0.01)


def _patient(connection: Any, _: Any) -> None:
    # Another process may do the same.
    connection.execute(f"PRAGMA busy_timeout = {_PATIENCE * 1000}")


def _new_file(path: Path) -> None:
    """Make the file that only its owner may read; SQLite gives its other files the same mode."""
    check_filesystem(path.parent)
    try:
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise StoreUnavailable(
            f"database {path}: {error.strerror}", hint="Choose a folder that you may write to."
        ) from error
