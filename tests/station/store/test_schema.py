"""Addresses, schema versions, the migrations, and what people look at."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from nbiot.errors import BadInput, StationError, StoreUnavailable, VaultError
from nbiot.signing import Secret
from nbiot.station.board import SlotState, SlotView, StationView
from nbiot.station.record import Outcome, Reason
from nbiot.station.store import Store, database_url, shown
from nbiot.station.store.database import check_filesystem
from nbiot.station.store.migrate import config, migrate
from nbiot.station.store.schema import REVISION, metadata
from nbiot.station.vault import Vault
from tests.station.postgres import Server
from tests.station.store.line import (
    PLENTY,
    Line,
    identities,
    imei,
    new_run,
    pass_time,
    record,
    sql,
)

Stations = Callable[[str], Awaitable[Store]]

# --- addresses ------------------------------------------------------------------------------------


def test_short_names_of_the_databases() -> None:
    assert shown(database_url("sqlite:////tmp/x.db")) == "sqlite+aiosqlite:////tmp/x.db"
    assert shown(database_url("postgresql://me@host/line")) == "postgresql+psycopg://me@host/line"


def test_a_path_is_made_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert database_url("sqlite:///x.db").database == str(tmp_path / "x.db")
    monkeypatch.setenv("HOME", "/home/line")
    assert database_url("sqlite:///~/x.db").database == "/home/line/x.db"


@pytest.mark.parametrize(
    "wrong",
    [
        "", "x.db", "mysql://me:hidden@host/line", "sqlite://", "sqlite:///:memory:",
        "postgresql://me:hidden@host", "postgresql://me:hidden@host:port/line", "://hidden@",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused_without_its_password(wrong: str) -> None:
    with pytest.raises(BadInput, match=r"(?s)database.*sqlite\+aiosqlite.*station.toml") as raised:
        database_url(wrong)
    assert "hidden" not in str(raised.value)


def test_the_environment_has_the_last_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NBIOT_STATION_DATABASE", "postgresql://me@host/line")
    monkeypatch.setenv("NBIOT_STATION_DATABASE_PASSWORD", "hid@den/")
    url = database_url("sqlite:///x.db")
    assert (url.host, url.password) == ("host", "hid@den/")
    assert "hid" not in shown(url) + repr(url)
    assert database_url("", password=Secret("other")).password == "other"


def test_a_file_on_a_network_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    check_filesystem(tmp_path)
    monkeypatch.setattr("nbiot.station.store.database._filesystem_of", lambda path: "nfs4")
    with pytest.raises(BadInput, match=r"(?s)nfs4.*PostgreSQL"):
        check_filesystem(tmp_path)


# --- schema ---------------------------------------------------------------------------------------


async def test_the_migrations_make_what_the_code_expects(store: Store) -> None:
    def differences(connection: Connection) -> list[object]:
        assert ScriptDirectory.from_config(config(connection)).get_current_head() == REVISION
        found = compare_metadata(MigrationContext.configure(connection), metadata)
        return [one for one in found if "plenty" not in str(one)]  # the tests' own

    assert store._opened is not None
    async with store._opened.engine.connect() as connection:
        assert await connection.run_sync(differences) == []


async def test_making_the_tables_twice_changes_nothing(url: str, vault: Vault) -> None:
    async with Store(url, vault, station="S1", create=True) as store:
        assert (await store.counts()).free == PLENTY


async def test_two_stations_make_the_tables_of_a_new_database_at_once(
    postgresql: Server, vault: Vault, tmp_path: Path
) -> None:
    for url in (
        postgresql.url(postgresql.new_database()),
        f"sqlite+aiosqlite:///{tmp_path / 'new.db'}",
    ):
        await asyncio.gather(*(asyncio.to_thread(migrate, database_url(url)) for _ in range(3)))
        async with Store(url, vault, station="S1", create=True) as store:
            assert (await store.counts()).free == 0


async def test_the_file_is_for_its_owner_only(vault: Vault, tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    async with Store(f"sqlite:///{path}", vault, station="S1", create=True):
        for name in (path, tmp_path / "new.db-wal"):
            assert stat.S_IMODE(name.stat().st_mode) == 0o600


async def test_a_database_that_is_not_there_says_what_to_type(
    vault: Vault, tmp_path: Path, postgresql: Server
) -> None:
    for url in (
        f"sqlite:///{tmp_path / 'none.db'}",
        postgresql.url(postgresql.new_database()),
    ):
        with pytest.raises(StoreUnavailable, match="nbiot station init"):
            await Store.open(url, vault, station="S1")
    assert not (tmp_path / "none.db").exists()
    with pytest.raises(StoreUnavailable, match=r"(?s)does not exist.*pg_isready"):
        await Store.open(postgresql.url("nowhere"), vault, station="S1")
    with pytest.raises(StoreUnavailable, match="create tables"):
        await Store.open(postgresql.url("nowhere"), vault, station="S1", create=True)
    url = "postgresql://line:hidden@127.0.0.1:1/line"
    with pytest.raises(StoreUnavailable, match=r"(?s)line:\*\*\*@127.*pg_isready") as raised:
        await Store.open(url, vault, station="S1")
    assert "hidden" not in str(raised.value) + str(raised.value.__cause__)


@pytest.mark.parametrize(
    ("version", "words"), [("0000", "nbiot station init"), ("9999", "newer(.|\n)*Update nbiot")]
)
async def test_another_version_s_tables_say_what_to_type(
    url: str, store: Store, vault: Vault, version: str, words: str
) -> None:
    await sql(store, f"UPDATE alembic_version SET version_num = '{version}'")
    try:
        with pytest.raises(StoreUnavailable, match=words):
            await Store.open(url, vault, station="S2")
    finally:
        await sql(store, f"UPDATE alembic_version SET version_num = '{REVISION}'")


async def test_a_wrong_key_is_found_before_anything_is_claimed(url: str, tmp_path: Path) -> None:
    with pytest.raises(VaultError, match=r"is encrypted with key"):
        await Store.open(url, Vault.create(tmp_path / "other"), station="S1")


async def test_a_store_that_is_not_open_says_so(url: str, vault: Vault) -> None:
    with pytest.raises(StoreUnavailable, match="async with"):
        await Store(url, vault, station="S1").counts()


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
async def test_a_writer_elsewhere_is_waited_for_and_then_told(url: str, store: Store) -> None:
    other = sqlite3.connect(url.partition("///")[2], isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert store._opened is not None
    store._opened._patience = 0.1
    with pytest.raises(StoreUnavailable, match=r"(?s)no answer within 0.1 s.*other program"):
        await store.claim(new_run(), "1", imei(1))
    await store.counts()  # who only reads need not wait
    store._opened._patience = 15.0
    claim = asyncio.create_task(store.claim(new_run(), "1", imei(1)))
    await asyncio.sleep(0.05)
    other.execute("COMMIT")
    assert (await claim).fence == 1
    other.close()


# --- records --------------------------------------------------------------------------------------


async def test_records_are_found_by_what_people_type(line: Line, store: Store) -> None:
    told = [
        record(new_run(), ended=100.0 + n, serial_number=f"SN-{n:03}_A%", slot=str(n), imei=imei(n))
        for n in range(12)
    ]
    for one in told:
        await store.deliver(one)
    newest = list(reversed(told))
    assert await store.records() == newest
    first = await store.records(limit=5)
    assert first == newest[:5]
    assert await store.records(limit=50, before=first[-1].id) == newest[5:]
    assert await store.records(search="sn-003") == [told[3]]
    assert await store.records(search=imei(7)[-6:]) == [told[7]]
    assert await store.records(search="_a%") == newest
    assert await store.records(search="_B%") == []
    assert await store.records(search="\0") == newest
    assert await store.record("nothing") is None


async def test_records_of_the_same_moment_are_paged_whole(store: Store) -> None:
    told = [record(new_run(), ended=100.0) for _ in range(6)]
    for one in told:
        await store.deliver(one)
    found, page = [], await store.records(limit=2)
    while page:
        found += page
        page = await store.records(limit=2, before=page[-1].id)
    assert sorted(one.id for one in found) == sorted(one.id for one in told)


async def test_today_counts_this_station_s_runs(store: Store, station: Stations) -> None:
    for seconds, outcome in ((10, "pass"), (20, "pass"), (60, "pass"), (5, "fail"), (5, "error")):
        await store.deliver(record(new_run(), Outcome(outcome), ended=1000.0, recipe=str(seconds)))
    await store.deliver(record(new_run(), Outcome.ABORTED, ended=1000.0))
    await store.deliver(record(new_run(), Outcome.PASS, ended=10.0))  # yesterday
    await store.deliver(record(new_run(), Outcome.PASS, ended=1000.0, station="S2"))
    assert await store.today(500.0) == (3, 2, 12.0)
    assert await (await station("S3")).today(500.0) == (0, 0, None)


# --- stations -------------------------------------------------------------------------------------


async def test_the_stations_of_a_line_see_each_other(store: Store, station: Stations) -> None:
    other = await station("S2")
    for one in (store, other):
        await one.start()
    view = StationView("S1", recipe="r", passed=3, free=7, seconds_per_unit=12.5)
    reason = Reason("too_weak", {"rsrp": -120.0})
    slots = [SlotView("1", SlotState.FAILED, 10.0, "radio", 0.5, reason, imei=imei(1))]
    await store.report_in(view, slots)
    await store.report_in(view, slots)
    rows = await other.stations()
    assert [row.name for row in rows] == ["S1", "S2"]
    assert (rows[0].view, list(rows[0].slots)) == (view, slots)
    assert 0 <= rows[0].age < 60
    assert (rows[1].view, rows[1].slots) == (StationView("S2"), ())


async def test_two_processes_with_one_name_are_found_out(store: Store, station: Stations) -> None:
    await store.start()
    copy = await station("S1")  # a copied SD card
    await copy.start()
    with pytest.raises(StationError, match=r"(?s)calls itself station S1.*name of its own"):
        await store.report_in(StationView("S1"), [])
    await copy.report_in(StationView("S1"), [])


async def test_a_view_of_a_later_version_can_be_read(store: Store) -> None:
    await store.start()
    await sql(store, """UPDATE station SET view = '{"name": "S1", "more"\\: 1}'""")
    assert (await store.stations())[0].view == StationView("S1")


# --- the clock ------------------------------------------------------------------------------------


async def test_leases_go_by_the_database_s_clock(store: Store) -> None:
    claim = await store.claim(new_run(), "1", imei(1), lease=100.0)
    query = f"SELECT lease_until FROM credential WHERE id = {claim.credential}"
    ((until,),) = await sql(store, query)
    assert abs(until - time.time() - 100.0) < 30.0
    await pass_time(store, 90)
    await store.renew(claim, 200.0)
    ((until,),) = await sql(store, query)
    assert abs(until - time.time() - 200.0) < 30.0


async def test_no_secret_is_in_the_database_s_files(tmp_path: Path, vault: Vault) -> None:
    async with Store(f"sqlite:///{tmp_path / 'new.db'}", vault, station="S", create=True) as store:
        await store.add(identities(3))
        run = new_run()
        claim = await store.claim(run, "1", imei(1))
        await store.deliver(record(run, Outcome.PASS, claim))
        files = list(tmp_path.glob("new.db*"))
        assert len(files) == 3
        assert not any(b"secret-" in file.read_bytes() for file in files)
        assert store._opened is not None
        async with store._opened.engine.connect() as connection:
            assert await connection.scalar(text("PRAGMA synchronous")) == 2  # FULL
