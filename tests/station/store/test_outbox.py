"""The outbox: what was put is never lost, and is delivered once."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from nbiot.errors import BadInput, StationError, StoreUnavailable
from nbiot.station import outbox as module
from nbiot.station.board import Board, StationView
from nbiot.station.outbox import Outbox
from nbiot.station.record import Outcome, Record
from nbiot.station.store import Delivery, Store
from nbiot.station.vault import Vault
from tests.station.store.line import iccid, identities, imei, new_run, record

ROOT = Path(__file__).resolve().parents[3]


class Receiver:
    """A store that can be away, and refuse."""

    def __init__(self) -> None:
        self.got: list[Record] = []
        self.away = 0
        self.poison: set[str] = set()
        self.asked = asyncio.Event()

    async def deliver(self, record: Record) -> Delivery:
        self.asked.set()
        if self.away > 0:
            self.away -= 1
            raise StoreUnavailable("away")
        if record.id in self.poison:
            raise ValueError(f"no such thing as {record.id}\nand more")
        self.got.append(record)
        return Delivery.APPLIED


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "outbox.db"


@pytest.fixture
async def outbox(path: Path) -> AsyncIterator[Outbox]:
    async with Outbox(path, station="S1") as outbox:
        yield outbox


@pytest.fixture
def board() -> Board:
    return Board(StationView("S1"), ["1"])


async def _until(board: Board, undelivered: int) -> None:
    async with asyncio.timeout(20):
        async for _ in board.changes(at_most=1000):
            if board.station.undelivered == undelivered and board.station.database:
                return


async def test_records_are_delivered_oldest_first_and_then_gone(
    outbox: Outbox, receiver: Receiver, board: Board
) -> None:
    told = [record(new_run()) for _ in range(5)]
    for one in told:
        await outbox.put(one)
        await outbox.put(one)
    assert await outbox.undelivered() == 5
    assert await outbox.find(told[2].id) == told[2]
    assert await outbox.flush(receiver, board)
    assert receiver.got == told
    assert (await outbox.undelivered(), board.station.undelivered) == (0, 0)
    assert await outbox.find(told[2].id) is None


async def test_what_is_put_while_it_runs_is_delivered_at_once(
    outbox: Outbox, receiver: Receiver, board: Board
) -> None:
    task = asyncio.create_task(outbox.run(receiver, board))
    for _ in range(3):
        one = record(new_run())
        board.update_station(undelivered=1)
        await outbox.put(one)
        await _until(board, 0)
        assert receiver.got[-1] == one
    task.cancel()


async def test_while_the_store_is_away_records_wait_and_the_board_says_so(
    outbox: Outbox, receiver: Receiver, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAUSE_FIRST", 0.02)
    receiver.away = 3
    told = [record(new_run()) for _ in range(3)]
    for one in told:
        await outbox.put(one)
    assert not await outbox.flush(receiver, board)
    assert (board.station.database, board.station.undelivered) == (False, 3)
    task = asyncio.create_task(outbox.run(receiver, board))
    await _until(board, 0)
    assert receiver.got == told
    task.cancel()


async def test_a_record_that_is_refused_is_set_aside_and_blocks_no_other(
    outbox: Outbox, receiver: Receiver, board: Board, caplog: pytest.LogCaptureFixture
) -> None:
    bad, good = record(new_run()), record(new_run())
    receiver.poison.add(bad.id)
    await outbox.put(bad)
    await outbox.put(good)
    assert await outbox.flush(receiver, board)
    assert receiver.got == [good]
    (aside,) = await outbox.set_aside()
    assert (aside.id, aside.error) == (bad.id, f"ValueError: no such thing as {bad.id}")
    assert board.station.undelivered == 1  # somebody must look
    assert bad.id in caplog.text
    assert await outbox.flush(receiver)  # it is not tried again by itself
    receiver.poison.clear()
    assert await outbox.readmit() == 1
    assert await outbox.flush(receiver)
    assert receiver.got == [good, bad]


async def test_an_unreadable_record_is_set_aside(outbox: Outbox, receiver: Receiver) -> None:
    await outbox.put(record(new_run()))
    assert outbox._db is not None
    await outbox._in_thread(lambda: outbox._change("UPDATE record SET body = '{'"))
    assert await outbox.flush(receiver)
    assert len(await outbox.set_aside()) == 1


async def test_records_outlive_the_process(path: Path, receiver: Receiver) -> None:
    told = record(new_run())
    async with Outbox(path, station="S1") as outbox:
        await outbox.put(told)
    async with Outbox(path, station="S1") as outbox:
        assert outbox.cut == []
        assert await outbox.flush(receiver)
    assert receiver.got == [told]


async def test_a_cancelled_put_is_carried_out(outbox: Outbox, receiver: Receiver) -> None:
    told = record(new_run())
    task = asyncio.create_task(outbox.put(told))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await outbox.undelivered() == 1


async def test_a_run_that_was_cut_leaves_an_aborted_record(path: Path, receiver: Receiver) -> None:
    cut, ended, told = new_run(), new_run(), record(new_run())
    async with Outbox(path, station="S1", clock=lambda: 100.0) as outbox:
        await outbox.begin(cut, "1", recipe="line 1")
        await outbox.begin(cut, "1", imei(1), firmware="B657")
        await outbox.begin(ended, "2")
        await outbox.end(ended)
        await outbox.begin(told.id, "3")
        await outbox.put(told)  # ends its intent
        assert [intent.run for intent in await outbox.intents()] == [cut]
    for _ in range(2):  # the second time there is nothing to recover
        async with Outbox(path, station="S1", clock=lambda: 160.0) as outbox:
            assert await outbox.intents() == []
            assert await outbox.undelivered() == 2
    assert outbox.cut == []
    async with Outbox(path, station="S1") as outbox:
        await outbox.flush(receiver)
    assert receiver.got[0] == told
    aborted = receiver.got[1]
    assert (aborted.id, aborted.outcome, aborted.slot) == (cut, Outcome.ABORTED, "1")
    assert (aborted.started, aborted.ended) == (100.0, 160.0)
    assert (aborted.imei, aborted.recipe, aborted.firmware) == (imei(1), "line 1", "B657")
    assert aborted.reason is not None
    assert aborted.reason.code == "station_died"


async def test_another_record_with_the_same_id_is_not_dropped_in_silence(outbox: Outbox) -> None:
    told = record(new_run())
    await outbox.put(told)
    with pytest.raises(BadInput, match="record id"):
        await outbox.put(replace(told, outcome=Outcome.FAIL))
    assert await outbox.find(told.id) == told


async def test_only_fields_of_a_record_can_be_known(outbox: Outbox) -> None:
    with pytest.raises(BadInput, match="colour"):
        await outbox.begin(new_run(), "1", colour="red")


async def test_one_process_at_a_time(outbox: Outbox, path: Path) -> None:
    with pytest.raises(StationError, match=rf"(?s)outbox.*pid {os.getpid()}"):
        async with Outbox(path, station="S1"):
            pass


async def test_the_file_is_for_its_owner_only(outbox: Outbox, path: Path) -> None:
    for name in (path, path.with_name("outbox.db-wal"), path.with_name("outbox.db.lock")):
        assert stat.S_IMODE(name.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


async def test_a_full_disk_is_told_and_the_record_can_be_put_again(outbox: Outbox) -> None:
    assert outbox._db is not None
    big = record(new_run(), operator="x" * 200_000)
    pages = await outbox._in_thread(lambda: outbox._rows("PRAGMA page_count")[0][0])
    await outbox._in_thread(lambda: outbox._rows(f"PRAGMA max_page_count = {pages}"))
    with pytest.raises(StationError, match=r"(?s)outbox.db.*full.*disk"):
        await outbox.put(big)
    await outbox._in_thread(lambda: outbox._rows("PRAGMA max_page_count = 1000000"))
    await outbox.put(big)
    assert await outbox.undelivered() == 1


async def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StationError, match="state folder"):
        async with Outbox(tmp_path / "file" / "outbox.db", station="S1"):
            pass


async def test_a_file_that_is_no_outbox_is_named(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(StationError, match="not a database"):
        async with Outbox(path, station="S1"):
            pass


async def test_a_use_before_opening_is_named(path: Path) -> None:
    with pytest.raises(StationError, match="async with"):
        await Outbox(path, station="S1").undelivered()


async def test_put_is_durable(outbox: Outbox) -> None:
    settings = await outbox._in_thread(
        lambda: [outbox._rows(f"PRAGMA {name}")[0][0] for name in ("synchronous", "journal_mode")]
    )
    assert settings == [2, "wal"]  # 2: FULL


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
async def test_results_reach_the_database_after_it_was_away(
    store: Store, outbox: Outbox, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = new_run()
    claim = await store.claim(run, "1", imei(1), iccid=iccid(1))
    claim = await store.bind(claim, imei(1))
    await outbox.put(record(run, Outcome.PASS, claim))

    async def cut(record: Record) -> Delivery:
        await Store.deliver(store, record)  # it is there, but the reply was lost
        monkeypatch.undo()
        raise StoreUnavailable("cut")

    monkeypatch.setattr(store, "deliver", cut)
    assert not await outbox.flush(store, board)
    assert await outbox.flush(store, board)
    assert len(await store.records()) == 1
    assert (await store.counts()).proven == 1


def test_a_station_that_is_killed_at_any_statement_tidies_up(tmp_path: Path) -> None:
    """Every eleventh step; all of them: ``python -m tests.station.store.dying FOLDER 1``."""
    template = tmp_path / "template"
    template.mkdir()
    _new_database(template)
    done = subprocess.run(
        [sys.executable, "-m", "tests.station.store.dying", str(template), "11"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout) > 40  # statements


def _new_database(folder: Path) -> None:
    vault = Vault.create(folder / "key")

    async def fill() -> None:
        url = f"sqlite+aiosqlite:///{folder / 'station.db'}"
        async with Store(url, vault, station="office", create=True) as store:
            await store.add(identities(3))

    asyncio.run(fill())
    shutil.rmtree(folder / "__pycache__", ignore_errors=True)
    with sqlite3.connect(folder / "station.db") as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
