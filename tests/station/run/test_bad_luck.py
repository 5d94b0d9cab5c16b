"""Kills, lost leases, a database that is away, crashes, Ctrl-C: nothing is lost or given twice."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from nbiot.errors import ImeiTaken, LeaseLost, StationError, StoreUnavailable
from nbiot.station import run as runs
from nbiot.station import slots
from nbiot.station.board import SlotState
from nbiot.station.record import Outcome
from nbiot.station.runner import Station
from tests.station.run.rigs import FULL, HOLD, PATIENCE, SHORT, recipe_of, running


class Away:
    """Let a store's method fail for as long as ``on``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, store: Any, *names: str) -> None:
        self.on = True
        self.asked = asyncio.Event()
        for name in names:
            monkeypatch.setattr(store, name, self._failing(getattr(store, name)))

    def _failing(self, real: Any) -> Any:
        async def method(*args: Any, **more: Any) -> Any:
            if self.on:
                self.asked.set()
                raise StoreUnavailable("the server went away")
            return await real(*args, **more)

        return method


async def test_a_slot_is_held_while_the_database_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = SHORT.replace('kind = "claim"', 'kind = "claim"\nseconds = 1')
    async with running(tmp_path, text) as run:
        away = Away(monkeypatch, run.station.store, "claim", "bind")
        await run.places[0].insert(run.line.board())
        view = await run.until("1", SlotState.HELD)
        assert view.reason is not None
        assert view.reason.code == "store_unavailable"
        await asyncio.sleep(1.2)  # longer than the phase may take: that time does not count
        assert run.board.slots["1"].state is SlotState.HELD
        away.on = False
        assert (await run.ended()).outcome is Outcome.PASS


async def test_results_wait_while_the_database_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path) as run:
        names = ("deliver", "free", "today", "report_in", "renew")
        away = Away(monkeypatch, run.station.store, *names)
        await run.places[0].insert(run.line.board())
        view = await run.until("1", SlotState.PASSED)
        assert (await run.station.record(view.record)) is not None  # from the outbox
        async with asyncio.timeout(PATIENCE):
            async for _ in run.board.changes(at_most=100):
                station = run.board.station
                if station.undelivered == 1 and not station.database and station.passed == 1:
                    break
        away.on = False
        assert (await run.delivered(view.record)).outcome is Outcome.PASS


async def test_a_board_whose_pass_is_not_delivered_is_not_run_again_as_if_it_had_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path) as run:
        away = Away(monkeypatch, run.station.store, "deliver")
        board = run.line.board()
        await run.places[0].insert(board)
        await run.until("1", SlotState.PASSED)
        await run.places[0].remove()
        await run.until("1", SlotState.EMPTY)
        await run.places[0].insert(board)
        await run.until("1", SlotState.HELD)
        away.on = False
        record = await run.ended()
        assert record.reason is not None
        assert record.reason.code == "already_proven"
        assert [r.outcome for r in await run.station.history()] == [Outcome.FAIL, Outcome.PASS]


async def test_a_held_slot_can_be_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(tmp_path) as run:
        Away(monkeypatch, run.station.store, "claim")
        await run.places[0].insert(run.line.board())
        await run.until("1", SlotState.HELD)
        await run.station.stop("1")
        assert (await run.ended()).outcome is Outcome.ABORTED


async def test_who_lost_the_lease_tells_the_board_nothing_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, HOLD, lease=1.0) as run:

        async def renew(*_: Any) -> None:
            raise LeaseLost("another run has it")

        monkeypatch.setattr(run.station.store, "renew", renew)
        await run.places[0].insert(run.line.board("signal"))
        record = await run.ended()
        assert record.outcome is Outcome.ABORTED
        assert record.reason is not None
        assert record.reason.code == "lease_lost"
        assert not run.line.cloud.requests  # it never authenticated


async def test_a_lease_is_renewed_for_as_long_as_a_run_lasts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, HOLD, lease=1.5) as run:
        real, renewed = run.station.store.renew, asyncio.Semaphore(0)

        async def renew(*args: Any) -> None:
            await real(*args)
            renewed.release()

        monkeypatch.setattr(run.station.store, "renew", renew)
        await run.places[0].insert(run.line.board("signal"))
        async with asyncio.timeout(PATIENCE):
            for _ in range(2):
                await renewed.acquire()
        await run.station.skip("1", "seen enough")
        assert (await run.ended()).outcome is Outcome.PASS


async def test_a_claim_under_way_is_given_back_when_a_run_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path) as run:
        real, asked, go_on = run.station.store.claim, asyncio.Event(), asyncio.Event()

        async def claim(*args: Any, **more: Any) -> Any:
            asked.set()
            await go_on.wait()
            return await real(*args, **more)

        monkeypatch.setattr(run.station.store, "claim", claim)
        await run.places[0].insert(run.line.board())
        async with asyncio.timeout(PATIENCE):
            await asked.wait()
        await run.station.stop("1")
        go_on.set()
        await run.ended()
        counts = await run.station.store.counts()
        assert (counts.claimed, counts.free) == (0, 8)


async def test_a_crash_in_a_slot_is_that_slot_s_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "LOOK_AGAIN", 0.05)
    async with running(tmp_path, slots=2) as run:
        first = run.places[0]

        def broken() -> Any:
            raise RuntimeError("a mistake")

        monkeypatch.setattr(first, "locked", broken)
        for place in run.places:
            await place.insert(run.line.board())
        view = await run.until("1", SlotState.ERROR)
        assert view.reason is not None
        assert view.reason.code == "internal"
        assert (await run.ended("2")).outcome is Outcome.PASS
        monkeypatch.undo()  # mended, it goes on by itself
        assert (await run.ended("1")).outcome is Outcome.PASS


async def test_a_crash_in_a_phase_is_kept_in_its_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path) as run:

        async def claim(*_: Any, **__: Any) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(run.station.store, "claim", claim)
        await run.places[0].insert(run.line.board())
        record = await run.ended()
        assert record.outcome is Outcome.ERROR
        assert record.reason is not None
        assert record.reason.code == "internal"


async def test_ctrl_c_lets_the_boards_go(tmp_path: Path) -> None:
    async with running(tmp_path, HOLD, slots=2) as run:
        for place in run.places:
            await place.insert(run.line.board("signal"))
        for place in run.places:
            await run.until(place.slot.name, SlotState.RUNNING, phase="radio")
        await run.stop()
        for place in run.places:
            assert place.pty is not None
            assert not place.pty.modem.powered
        store = run.station.store
        assert (await store.counts()).claimed == 0
    async with running(tmp_path) as run:  # the results were on disk
        async with asyncio.timeout(PATIENCE):
            while len(found := await run.station.history()) < 2:
                await asyncio.sleep(0.02)
        assert {record.outcome for record in found} == {Outcome.ABORTED}
        counts = await run.station.store.counts()
        assert (counts.free, counts.claimed) == (8, 0)


async def test_a_board_leaves_the_network_though_its_supply_stays_on(tmp_path: Path) -> None:
    text = HOLD + '[[phase]]\nkind = "release"\npower_off = false\n'
    async with running(tmp_path, text) as run:
        await run.places[0].insert(run.line.board("signal"))
        await run.until("1", SlotState.RUNNING, phase="radio")
        assert run.places[0].pty is not None
        modem: Any = run.places[0].pty.modem
        assert modem.radio.attached
        await run.stop()
        assert modem.powered
        assert not modem.radio.attached


async def test_two_processes_of_one_station(tmp_path: Path) -> None:
    async with running(tmp_path) as run:
        recipe = recipe_of(tmp_path, SHORT)
        with pytest.raises(StationError, match=f"pid {os.getpid()}"):
            async with Station(run.line.config, recipe, places=run.line.places):
                pass


async def test_a_disk_that_is_full_holds_the_slot_until_the_result_is_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "DISK_RETRY", 0.05)
    async with running(tmp_path) as run:
        real, full = run.station._outbox.put, True

        async def put(record: Any) -> None:
            if full:
                raise StationError("disk full")
            await real(record)

        monkeypatch.setattr(run.station._outbox, "put", put)
        await run.places[0].insert(run.line.board())
        view = await run.until("1", SlotState.HELD)
        assert view.reason is not None
        full = False
        assert (await run.ended()).outcome is Outcome.PASS


@pytest.mark.parametrize("phase", ["attach", "authenticate", "report"])
async def test_a_station_that_is_killed_leaves_nothing_stuck(tmp_path: Path, phase: str) -> None:
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.station.run.child", str(tmp_path)),
        stdout=asyncio.subprocess.PIPE,
    )
    assert child.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE):
            line = ""
            while phase not in line and "passed" not in line:  # it may be too quick for us
                line = (await child.stdout.readline()).decode()
                assert line, "it died by itself"
    finally:
        child.send_signal(signal.SIGKILL)
        await child.wait()
    async with running(tmp_path, FULL) as run:
        async with asyncio.timeout(PATIENCE):
            while not (found := await run.station.history()):
                await asyncio.sleep(0.02)
        assert len(found) == 1
        cut = found[0]
        if cut.outcome is not Outcome.PASS:  # it was quicker than the kill
            assert cut.outcome is Outcome.ABORTED
            assert cut.reason is not None
            assert cut.reason.code == "station_died"
        await run.places[0].insert(run.line.board(number=0))
        again = await run.ended()
        if cut.outcome is Outcome.PASS:
            assert again.reason is not None
            assert again.reason.code == "already_proven"
        else:
            assert again.outcome is Outcome.PASS
        counts = await run.station.store.counts()
        assert (counts.proven, counts.claimed, counts.bound, counts.failed) == (1, 0, 0, 0)
        assert counts.free == 7


async def test_an_imei_that_another_station_works_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path) as run:

        async def claim(*_: Any, **__: Any) -> None:
            raise ImeiTaken("slot 3 of station S2 works on this IMEI")

        monkeypatch.setattr(run.station.store, "claim", claim)
        await run.places[0].insert(run.line.board())
        record = await run.ended()
        assert record.outcome is Outcome.FAIL
        assert record.reason is not None
        assert record.reason.code == "imei_taken"
