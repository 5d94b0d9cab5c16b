"""Boards go through a station: what each one gets, and what is said when it does not."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hil.cloud import Device
from hil.emulator import Options, PtyModem
from hil.enos_rest import Fault, RestStandIn
from hil.lock import locked
from hil.rig import Slot
from nbiot.at import Command
from nbiot.errors import BadInput, StationError
from nbiot.station import slots
from nbiot.station.board import SlotState
from nbiot.station.config import Rest
from nbiot.station.demo import MODELS, PRODUCT_KEY, iccid, imei
from nbiot.station.record import Outcome, Record
from nbiot.station.store import CredentialState
from tests.station.run.rigs import FULL, HOLD, SHORT, SPEED, Running, running


async def states(run: Running) -> dict[str, int]:
    counts = await run.station.store.counts()
    found = {state.value: getattr(counts, state.value) for state in CredentialState}
    return {name: count for name, count in found.items() if count}


def phase(record: Record, name: str) -> Outcome:
    return next(phase.outcome for phase in record.phases if phase.name == name)


async def test_a_board_goes_through_all_phases(tmp_path: Path) -> None:
    async with running(tmp_path, FULL) as run:
        await run.places[0].insert(run.line.board())
        record = await run.ended()
        assert record.reason is None
        assert record.outcome is Outcome.PASS
        assert [p.outcome for p in record.phases] == [Outcome.PASS] * 9
        assert record.imei == imei(0)
        assert record.device_key in run.line.secrets
        assert record.trace is not None
        assert record.rsrp == -78.0
        assert await states(run) == {"free": 7, "proven": 1}
        assert len(list((tmp_path / "labels").glob("*.zpl"))) == 1
        assert not run.places[0].pty.modem.powered  # type: ignore[union-attr]
        written = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert any(path.suffix == ".jsonl" for path in written)
        for path in written:
            content = path.read_bytes()
            assert not any(secret.encode() in content for secret in run.line.secrets.values())
        measured = {m.name: m for p in record.phases for m in p.measurements}
        assert measured["rsrp"].low == -115
        assert measured["attach"].unit == "s"


async def test_boards_of_all_models_at_the_same_time(tmp_path: Path) -> None:
    async with running(tmp_path, SHORT, slots=3, models=MODELS) as run:
        for place in run.places:
            await place.insert(run.line.board())
        records = [await run.ended(place.slot.name) for place in run.places]
        assert [record.outcome for record in records] == [Outcome.PASS] * 3
        assert len({record.device_key for record in records}) == 3


@pytest.mark.parametrize(
    ("failure", "code", "at", "left"),
    [
        ("signal", "limit", "radio", {"free": 8}),
        ("sim", "sim_missing", "identify", {"free": 8}),
        ("imei", "imei_invalid", "identify", {"free": 8}),
    ],
)
async def test_what_is_wrong_with_a_board_is_said_and_costs_no_identity(
    tmp_path: Path, failure: str, code: str, at: str, left: dict[str, int]
) -> None:
    async with running(tmp_path) as run:
        await run.places[0].insert(run.line.board(failure))
        record = await run.ended()
        assert record.outcome is Outcome.FAIL
        assert record.reason is not None
        assert record.reason.code == code
        assert phase(record, at) is Outcome.FAIL
        assert record.device_key is None  # what it had for a while went back
        assert phase(record, "authenticate") is Outcome.SKIPPED
        assert run.board.slots["1"].state is SlotState.FAILED
        assert await states(run) == left


async def test_a_board_that_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nbiot.modem.AT", Command(b"AT", seconds=0.05))
    async with running(tmp_path) as run:
        run.station._slots["1"]._services.boot = 0.1
        run.places[0].slot = replace(run.places[0].slot, modem="bc66")
        await run.places[0].insert(run.line.board("silent"))
        record = await run.ended()
        assert record.outcome is Outcome.FAIL
        assert record.reason is not None
        assert record.reason.code == "modem_silent"


async def test_the_same_board_twice(tmp_path: Path) -> None:
    async with running(tmp_path) as run:
        board = run.line.board()
        await run.places[0].insert(board)
        assert (await run.ended()).outcome is Outcome.PASS
        await run.places[0].remove()
        await run.until("1", SlotState.EMPTY)
        await run.places[0].insert(board)
        await run.until("1", SlotState.RUNNING)
        record = await run.ended()
        assert record.outcome is Outcome.FAIL
        assert record.reason is not None
        assert record.reason.code == "already_proven"
        assert await states(run) == {"free": 7, "proven": 1}


async def test_two_boards_with_one_imei(tmp_path: Path) -> None:
    async with running(tmp_path, HOLD, slots=2) as run:
        await run.places[0].insert(run.line.board("signal", number=3))
        await run.until("1", SlotState.RUNNING, phase="radio")
        await run.places[1].insert(run.line.board(number=3))
        record = await run.ended("2")
        assert record.reason is not None
        assert record.reason.code == "imei_taken"
        assert "slot 1" in str(record.reason.detail["message"])
        await run.station.skip("1", "the weak one first")
        assert (await run.ended("1")).outcome is Outcome.PASS
        assert await states(run) == {"free": 7, "proven": 1}


async def test_a_refused_board_keeps_its_identity_and_may_try_again(tmp_path: Path) -> None:
    from hil.cloud import Behaviour

    async with running(tmp_path) as run:
        run.line.cloud.behaviour = Behaviour(code="4.01")
        await run.places[0].insert(run.line.board())
        record = await run.ended()
        assert record.reason is not None
        assert record.reason.code == "auth_refused"
        assert await states(run) == {"free": 7, "failed": 1}
        run.line.cloud.behaviour = Behaviour()
        await run.station.retry("1")
        await run.until("1", SlotState.RUNNING)
        again = await run.ended()
        assert again.outcome is Outcome.PASS
        assert again.device_key == record.device_key
        with pytest.raises(StationError, match="has passed"):
            await run.station.retry("1")


async def test_a_board_that_is_pulled_is_told_in_plain_words(tmp_path: Path) -> None:
    async with running(tmp_path, HOLD) as run:
        board = run.line.board("signal")
        await run.places[0].insert(board)
        await run.until("1", SlotState.RUNNING, phase="radio")
        await run.places[0].remove()
        record = await run.ended()
        assert record.outcome is Outcome.ABORTED
        assert record.reason is not None
        assert record.reason.code == "board_pulled"
        view = run.board.slots["1"]
        assert view.state is SlotState.ERROR
        assert view.reason == record.reason
        assert await states(run) == {"free": 8}
        board.network.signal.power = -800
        board.network.signal.snr = 100
        await run.places[0].insert(board)  # it begins again by itself
        await run.until("1", SlotState.RUNNING)
        assert (await run.ended()).outcome is Outcome.PASS


async def test_an_operator_stops_a_run(tmp_path: Path) -> None:
    async with running(tmp_path, HOLD) as run:
        with pytest.raises(StationError, match="nothing runs"):
            await run.station.stop("1")
        await run.places[0].insert(run.line.board("signal"))
        await run.until("1", SlotState.RUNNING, phase="radio")
        await run.station.stop("1")
        record = await run.ended()
        assert record.outcome is Outcome.ABORTED
        assert record.reason is not None
        assert record.reason.code == "stopped"
        assert not run.places[0].pty.modem.powered  # type: ignore[union-attr]
        assert await states(run) == {"free": 8}


async def test_a_phase_is_skipped_with_a_reason(tmp_path: Path) -> None:
    before = '[[phase]]\nkind = "radio"\nname = "before"\nrsrp = { low = -115 }\nmay_skip = true\n'
    text = SHORT.replace('[[phase]]\nkind = "radio"', before + '[[phase]]\nkind = "radio"')
    async with running(tmp_path, text) as run:
        await run.places[0].insert(run.line.board("signal"))
        await run.until("1", SlotState.RUNNING, phase="before")
        assert run.station.may_skip == {"before", "radio"}
        with pytest.raises(BadInput, match="reason"):
            await run.station.skip("1", " ", "radio")
        with pytest.raises(BadInput, match="allowed: before, radio"):
            await run.station.skip("1", "no", "attach")
        await run.station.skip("1", "antenna is at the workshop", "radio")
        await run.station.skip("1", "likewise")
        record = await run.ended()
        assert record.outcome is Outcome.PASS
        skipped = next(p for p in record.phases if p.name == "radio")
        assert skipped.outcome is Outcome.SKIPPED
        assert skipped.reason is not None
        assert skipped.reason.detail["reason"] == "antenna is at the workshop"


async def test_the_phase_that_runs_is_skipped(tmp_path: Path) -> None:
    async with running(tmp_path, HOLD) as run:
        await run.places[0].insert(run.line.board("signal"))
        await run.until("1", SlotState.RUNNING, phase="radio")
        await run.station.skip("1", "weak cell in the hall")
        assert (await run.ended()).outcome is Outcome.PASS


async def test_a_slot_is_switched_off_and_on(tmp_path: Path) -> None:
    async with running(tmp_path) as run:
        await run.station.switch_off("1")
        await run.until("1", SlotState.OFF)
        await run.places[0].insert(run.line.board())
        with pytest.raises(StationError, match="switched off"):
            await run.station.start("1")
        await run.station.switch_on("1")
        assert (await run.ended()).outcome is Outcome.PASS


async def test_serial_numbers_are_scanned(tmp_path: Path) -> None:
    text = SHORT.replace('"short"', '"short"\nscan = true\nserial_number = "SN[0-9]{4}"')
    async with running(tmp_path, text, slots=2) as run:
        with pytest.raises(StationError, match="no board waits"):
            await run.station.scan("SN0001")
        await run.places[0].insert(run.line.board())
        view = await run.until("1", SlotState.WAITING)
        assert view.reason is not None
        assert view.reason.code == "waiting_for_scan"
        with pytest.raises(BadInput, match="SN"):
            await run.station.scan("garbage")
        assert await run.station.scan("SN0001\r\n") == "1"
        assert (await run.ended("1")).serial_number == "SN0001"
        await run.places[0].remove()
        await run.until("1", SlotState.EMPTY)
        for place in run.places:
            await place.insert(run.line.board())
        for slot in ("1", "2"):
            await run.until(slot, SlotState.WAITING)
        with pytest.raises(StationError, match="slots 1, 2 wait"):
            await run.station.scan("SN0002")
        assert await run.station.scan("2") == "2"  # the slot's own barcode
        assert await run.station.scan("SN0002") == "2"
        with pytest.raises(StationError, match="slot 2 has the serial number"):
            await run.station.scan("SN0002", "1")
        assert (await run.ended("2")).serial_number == "SN0002"


async def test_a_board_that_runs_again_keeps_its_serial_number(tmp_path: Path) -> None:
    text = HOLD.replace('"short"', '"short"\nscan = true')
    async with running(tmp_path, text) as run:
        await run.places[0].insert(run.line.board("signal"))
        await run.until("1", SlotState.WAITING)
        await run.station.scan("SN1")
        await run.until("1", SlotState.RUNNING, phase="radio")
        with pytest.raises(StationError, match="runs in it"):
            await run.station.scan("SN2", "1")
        await run.station.stop("1")
        await run.ended()
        await run.station.retry("1")
        await run.until("1", SlotState.RUNNING, phase="radio")
        await run.station.skip("1", "it is the hall")
        record = await run.ended()
        assert (record.outcome, record.serial_number) == (Outcome.PASS, "SN1")
        with pytest.raises(StationError, match="has passed"):
            await run.station.scan("SN3", "1")


async def test_a_run_that_is_stopped_at_once_begins_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path) as run:
        outbox = run.station._outbox
        real, asked, go_on = outbox.begin, asyncio.Event(), asyncio.Event()

        async def begin(*args: Any, **more: Any) -> None:
            asked.set()
            await go_on.wait()
            await real(*args, **more)

        monkeypatch.setattr(outbox, "begin", begin)
        await run.places[0].insert(run.line.board())
        await asked.wait()
        await run.station.stop("1")
        go_on.set()
        record = await run.ended()
        assert record.outcome is Outcome.ABORTED
        assert {phase.outcome for phase in record.phases} == {Outcome.SKIPPED}


async def test_an_unknown_slot(tmp_path: Path) -> None:
    async with running(tmp_path) as run:
        for action in (run.station.start, run.station.stop, run.station.switch_off):
            with pytest.raises(BadInput, match="slot: '9'"):
                await action("9")
        with pytest.raises(StationError, match="no board"):
            await run.station.start("1")


async def test_labels_are_printed_again_and_looked_at(tmp_path: Path) -> None:
    async with running(tmp_path) as run:
        await run.places[0].insert(run.line.board())
        record = await run.ended()
        await run.station.print_label(record.id, 2)
        assert len(list((tmp_path / "labels").glob("*.zpl"))) == 1
        assert (await run.station.label_png(record.id)).startswith(b"\x89PNG")
        assert await run.station.history(imei(0)) == [record]
        with pytest.raises(BadInput, match="record"):
            await run.station.print_label("no-such-run")
        with pytest.raises(BadInput, match="copies"):
            await run.station.print_label(record.id, 0)


async def test_the_station_tells_its_yield(tmp_path: Path) -> None:
    async with running(tmp_path) as run:
        await run.places[0].insert(run.line.board())
        await run.ended()
        async with asyncio.timeout(20):
            async for _ in run.board.changes(at_most=100):
                view = run.board.station
                if view.passed == 1 and view.free == 7 and view.undelivered == 0:
                    break
        assert view.seconds_per_unit is not None
        async with asyncio.timeout(20):
            while not (rows := await run.station.stations()) or rows[0].view.passed < 1:
                await asyncio.sleep(0.05)
        assert [row.view.name for row in rows] == ["demo"]


async def test_a_slot_of_the_rig_file_whose_port_comes_and_goes(tmp_path: Path) -> None:
    """A by-id name that appears is a board that was put in."""
    link = tmp_path / "by-id"
    config = {"slots": (Slot("left", str(link)),), "boards": "detected"}
    async with (
        running(tmp_path, config=config, real_places=True) as run,
        PtyModem("bc66", Options(imei=imei(1), iccid=iccid(1), speed=SPEED)) as board,
    ):
        await run.until("left", SlotState.EMPTY)
        link.symlink_to(board.path)
        record = await run.ended("left")
        assert record.outcome is Outcome.PASS, record.reason
        link.unlink()
        await run.until("left", SlotState.EMPTY)


async def test_a_slot_without_detection_waits_for_start(tmp_path: Path) -> None:
    """A fixture's UART is there with and without a board."""
    port = f"emulator:bc66?speed={SPEED}&imei={imei(1)}"
    config = {"slots": (Slot("desk", port),)}
    async with running(tmp_path, config=config, real_places=True) as run:
        view = await run.until("desk", SlotState.WAITING)
        assert view.reason is None  # no scan: the tile says what Start is for
        await run.station.start("desk")
        assert (await run.ended("desk")).outcome is Outcome.PASS
        await run.station.start("desk")  # the next board
        await run.until("desk", SlotState.RUNNING)
        record = await run.ended("desk")
        assert record.reason is not None
        assert record.reason.code == "already_proven"


async def test_a_port_that_another_program_uses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "LOOK_AGAIN", 0.05)
    async with PtyModem("bc66", Options(imei=imei(1), iccid=iccid(1), speed=SPEED)) as board:
        config = {"slots": (Slot("left", board.path),), "boards": "detected"}
        lock = locked(board.path)
        lock.__enter__()
        async with running(tmp_path, config=config, real_places=True) as run:
            view = await run.until("left", SlotState.ERROR)
            assert view.reason is not None
            assert view.reason.code == "port_busy"
            lock.__exit__(None, None, None)  # it goes on by itself
            assert (await run.ended("left")).outcome is Outcome.PASS


async def test_a_board_is_registered_at_enos_by_its_imei(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with RestStandIn(products=[PRODUCT_KEY]) as enos:
        monkeypatch.setenv("TEST_SECRET_KEY", enos.secret_key)
        enos.faults.append(Fault("create", lost=True))  # the device is made, its answer is lost
        rest = Rest(enos.address, enos.org, enos.access_key, "env:TEST_SECRET_KEY")
        config = {"rest": rest, "product_key": PRODUCT_KEY}
        async with running(tmp_path, HOLD, config=config) as run:
            await run.places[0].insert(run.line.board("signal"))
            await run.until("1", SlotState.RUNNING, phase="radio")
            made = enos.devices[PRODUCT_KEY, imei(0)]
            run.line.cloud.devices[PRODUCT_KEY, imei(0)] = Device(PRODUCT_KEY, imei(0), made.secret)
            await run.station.skip("1", "it is the hall")
            record = await run.ended()
            assert record.outcome is Outcome.PASS, record.reason
            assert record.device_key == imei(0)
            assert enos.done["create"] == 1
            assert run.board.station.free is None


async def test_a_registration_that_failed_can_be_tried_again_at_once_in_another_slot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with RestStandIn(products=[PRODUCT_KEY]) as enos:
        monkeypatch.setenv("TEST_SECRET_KEY", enos.secret_key)
        enos.faults.append(Fault("create", status=403, times=9))
        rest = Rest(enos.address, enos.org, enos.access_key, "env:TEST_SECRET_KEY")
        config = {"rest": rest, "product_key": PRODUCT_KEY}
        async with running(tmp_path, HOLD, slots=2, config=config) as run:
            board = run.line.board("signal")
            await run.places[0].insert(board)
            refused = await run.ended("1")
            assert refused.reason is not None
            assert refused.reason.code == "rest_error"
            enos.faults.clear()
            await run.places[0].remove()
            await run.places[1].insert(board)
            view = await run.until("2", SlotState.RUNNING, phase="radio")
            assert view.imei == imei(0)
            await run.station.stop("2")
