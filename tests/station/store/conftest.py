"""Every test of the store runs on a SQLite file and on a PostgreSQL server."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from nbiot.station.store import Store
from nbiot.station.vault import Vault
from tests.station.postgres import Server, postgresql
from tests.station.store.line import PLENTY, Line, identities

__all__ = ["postgresql"]


@pytest.fixture(scope="session")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Vault:
    """A key."""
    return Vault.create(tmp_path_factory.mktemp("vault") / "key")


def filled(url: str, vault: Vault) -> None:
    """Make a database with identities in its pool."""

    async def fill() -> None:
        async with Store(url, vault, station="office", create=True) as store:
            await store.add(identities(PLENTY))

    asyncio.run(fill())


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory, vault: Vault) -> Path:
    """A database with identities in its pool, to be copied."""
    path = tmp_path_factory.mktemp("template") / "station.db"
    filled(f"sqlite+aiosqlite:///{path}", vault)
    return path


RESET = """
    SET session_replication_role = replica;  -- no triggers
    TRUNCATE credential, run, audit, station RESTART IDENTITY;
    INSERT INTO credential SELECT * FROM plenty;
    SELECT setval('credential_id_seq', max(id)) FROM credential
"""


@pytest.fixture(scope="session")
def postgresql_database(postgresql: Server, vault: Vault) -> str:
    """The name of a database with identities in its pool. To copy one for each test takes long."""
    name = postgresql.new_database()
    filled(postgresql.url(name), vault)
    postgresql.sql("CREATE TABLE plenty AS SELECT * FROM credential", database=name)
    return name


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database with identities in its pool, as if it were the test's own."""
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("sqlite_template"), tmp_path / "station.db")
        return f"sqlite+aiosqlite:///{tmp_path / 'station.db'}"
    server: Server = request.getfixturevalue("postgresql")
    name: str = request.getfixturevalue("postgresql_database")
    server.sql(RESET, database=name)
    return server.url(name)


@pytest.fixture
async def station(url: str, vault: Vault) -> AsyncIterator[Callable[[str], Awaitable[Store]]]:
    """Opens stores for stations of one line: ``await station("S1")``."""
    async with AsyncExitStack() as stack:

        async def opened(name: str) -> Store:
            return await stack.enter_async_context(Store(url, vault, station=name))

        yield opened


@pytest.fixture
async def store(station: Callable[[str], Awaitable[Store]]) -> Store:
    """The store of station S1."""
    return await station("S1")


@pytest.fixture
def line(store: Store) -> Line:
    """Shorthands."""
    return Line(store)
