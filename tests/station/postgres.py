"""A PostgreSQL server of the tests' own, from Debian's package; one per test process.

It listens on a Unix socket only, so that no port can be taken, and runs as the user ``postgres``
where the tests run as root (the server refuses root).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

USER = "postgres"
_SETTINGS = "-c listen_addresses='' -c log_min_messages=fatal"


def programs() -> Path | None:
    """The folder of initdb and pg_ctl; None: PostgreSQL is not installed."""
    for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        if (folder / "pg_ctl").exists():
            return folder
    found = shutil.which("pg_ctl")
    return Path(found).resolve().parent if found else None


class Server:
    """A server that can be killed and started again."""

    def __init__(
        self, folder: Path, bin: Path, *, durable: bool = False, connections: int = 60
    ) -> None:
        """durable: a commit is on the disk, as in a factory; the tests need not wait for that"""
        self.folder = folder
        self._bin = bin
        fsync = "on" if durable else "off"
        self._settings = (
            f"{_SETTINGS} -c max_connections={connections} -c fsync={fsync} -k {folder}"
        )

    def create(self) -> None:
        """Make its files and start it."""
        if os.geteuid() == 0:
            shutil.chown(self.folder, USER, USER)
        self._run(
            "initdb", "-D", f"{self.folder}/data", "-U", USER, "-A", "trust", "-N", "-E", "UTF8"
        )
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        where = ("-D", f"{self.folder}/data", "-l", "log")
        self._run("pg_ctl", "-w", *where, "-o", self._settings, "start")

    def kill(self) -> None:
        """As kill -9 would: no goodbye to its clients."""
        self._run("pg_ctl", "-w", "-D", f"{self.folder}/data", "-m", "immediate", "stop")

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return self.folder / ".s.PGSQL.5432"

    def url(self, database: str) -> str:
        """For SQLAlchemy."""
        return f"postgresql+psycopg://{USER}@/{database}?host={self.folder}"

    def sql(self, statement: str, *, database: str = "postgres") -> list[Any]:
        """Run one statement; its rows."""
        where = f"host={self.folder} user={USER} dbname={database}"
        with psycopg.connect(where, autocommit=True) as connection:
            cursor = connection.execute(statement)  # type: ignore[call-overload]  # not a literal
            return cursor.fetchall() if cursor.description else []

    def new_database(self) -> str:
        """The name of a new, empty one."""
        name = f"t{uuid.uuid4().hex[:12]}"
        self.sql(f"CREATE DATABASE {name}")
        return name

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._bin / program), *arguments]
        if os.geteuid() == 0:
            who = ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups")
            command = [*who, *command]
        with open(self.folder / "said", "w+") as said:  # not a pipe: the server would keep it open
            done = subprocess.run(
                command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=said, stderr=said
            )
            said.seek(0)
            assert done.returncode == 0, f"{program} failed: {said.read()}{self._log()}"

    def _log(self) -> str:
        log = self.folder / "log"
        return log.read_text() if log.exists() else ""


@contextmanager
def a_server(**options: Any) -> Iterator[Server]:
    """A server that runs; ``options`` as of Server. Raises FileNotFoundError: not installed."""
    bin = programs()
    if bin is None:
        raise FileNotFoundError("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    # Not tmp_path: its parents are closed to the user postgres.
    folder = Path(tempfile.mkdtemp(prefix="nbiot-postgresql-"))
    server = Server(folder, bin, **options)
    try:
        server.create()
        yield server
        server.kill()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    """A server that runs."""
    if programs() is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    with a_server() as server:
        yield server
