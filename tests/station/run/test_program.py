"""The external program of a phase: what it gets, what it may answer, how it ends."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import textwrap
from pathlib import Path
from typing import Any, cast

import pytest

from nbiot.station.board import SlotState
from nbiot.station.demo import EmulatedPlace
from nbiot.station.phases import perform
from nbiot.station.reasons import NotGood
from nbiot.station.record import Measurement, Outcome, PhaseRecord, Record
from nbiot.station.work import Services, Work
from tests.station.run.rigs import PATIENCE, SHORT, recipe_of, running

BEFORE = '[[phase]]\nkind = "identify"\n[[phase]]\nkind = "claim"\n'


def recipe(folder: Path, script: str, more: str = "") -> str:
    """A recipe whose phase runs ``script``."""
    path = folder / "program.py"
    path.write_text("import json, os, sys, time\n" + textwrap.dedent(script))
    line = json.dumps([sys.executable, str(path)])
    phase = f'[[phase]]\nkind = "program"\ncommand = {line}\n{more}\n'
    return f'name = "program"\n{BEFORE}{phase}'


async def ran(folder: Path, script: str, more: str = "") -> tuple[Record, PhaseRecord]:
    async with running(folder, recipe(folder, script, more)) as run:
        await run.places[0].insert(run.line.board())
        record = await run.ended()
    return record, next(phase for phase in record.phases if phase.name == "program")


async def test_it_gets_what_was_found_and_its_measurements_are_kept(tmp_path: Path) -> None:
    script = """
        asked = json.load(sys.stdin)
        assert asked["slot"] == "1" and asked["imei"].isdigit() and "identity" not in asked
        print(json.dumps({"measurements": [
            {"name": "sleep_current", "value": 3.1, "unit": "uA", "high": 5},
            {"name": "crc", "value": "ab12", "allowed": ["ab12"]}]}))
        print("flashed", file=sys.stderr)
    """
    record, phase = await ran(tmp_path, script)
    assert record.outcome is Outcome.PASS, record.reason
    assert phase.measurements == (
        Measurement("stderr", "flashed"),
        Measurement("sleep_current", 3.1, "uA", None, 5),
        Measurement("crc", "ab12", allowed=("ab12",)),
    )


@pytest.mark.parametrize(
    ("script", "outcome", "code", "words"),
    [
        ("print('no flash chip', file=sys.stderr); sys.exit(3)", "fail", "program_failed", "chip"),
        ("sys.exit(3)", "fail", "program_failed", "exit code 3"),
        ("os.kill(os.getpid(), 9)", "fail", "program_failed", "SIGKILL"),
        ("print('{\"outcome\": \"error\", \"message\": \"no probe\"}')", "error", "program_failed",
         "no probe"),
        ("print('{\"outcome\": \"maybe\"}')", "error", "program_output", "not pass, fail or error"),
        ("print('{\"result\": 1}')", "error", "program_output", "unknown key 'result'"),
        ("print('[1]')", "error", "program_output", "no JSON object"),
        ("print('ok')", "error", "program_output", "not JSON"),
        ("print('x' * 100_000)", "error", "program_output", "longer than"),
        ("print('{\"measurements\": [{\"name\": \"a\"}]}')", "error", "program_output", "value"),
        ("print('{\"measurements\": [{\"name\": \"a\", \"value\": 1, \"low\": \"x\"}]}')", "error",
         "program_output", "'low'"),
    ],
)  # fmt: skip
async def test_how_it_may_fail(
    tmp_path: Path, script: str, outcome: str, code: str, words: str
) -> None:
    found = recipe_of(tmp_path, recipe(tmp_path, script))
    work = Work("run", EmulatedPlace("1"), Services("S1", *cast("Any", (None, None, None))), found)
    with pytest.raises(NotGood, match=words) as caught:
        await perform(work, found.phases[-1])
    assert caught.value.outcome.value == outcome
    assert caught.value.code == code


async def test_a_measurement_out_of_its_limits_fails_the_board(tmp_path: Path) -> None:
    answer = {"measurements": [{"name": "current", "value": 9, "unit": "mA", "high": 5}]}
    record, _ = await ran(tmp_path, f"print({json.dumps(answer)!r})")
    assert record.outcome is Outcome.FAIL
    assert record.reason is not None
    assert record.reason.code == "limit"
    assert record.reason.detail["name"] == "current"


async def test_when_its_time_is_up_its_whole_group_ends(tmp_path: Path) -> None:
    script = f"""
        child = os.fork()
        if not child:
            time.sleep(600)
        open({str(tmp_path / "pids")!r}, "w").write(f"{{os.getpid()}} {{child}}")
        print("waiting", file=sys.stderr, flush=True)
        time.sleep(600)
    """
    record, phase = await ran(tmp_path, script, "seconds = 1.5")
    assert record.outcome is Outcome.ERROR
    assert record.reason is not None
    assert record.reason.code == "timeout"
    assert phase.measurements == (Measurement("stderr", "waiting"),)
    for pid in (tmp_path / "pids").read_text().split():
        assert _is_gone(int(pid))


def _is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


async def test_stopping_the_run_ends_it(tmp_path: Path) -> None:
    marker = tmp_path / "pid"
    script = f"open({str(marker)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    async with running(tmp_path, recipe(tmp_path, script)) as run:
        await run.places[0].insert(run.line.board())
        async with asyncio.timeout(PATIENCE):
            while not marker.exists() or not marker.read_text():
                await asyncio.sleep(0.02)
        await run.station.stop("1")
        assert (await run.ended()).outcome is Outcome.ABORTED
        assert _is_gone(int(marker.read_text()))


async def test_the_identity_is_bound_before_it_is_told_and_its_secret_is_not_kept(
    tmp_path: Path,
) -> None:
    script = """
        asked = json.load(sys.stdin)
        secret = asked["identity"]["device_secret"]
        print(secret, file=sys.stderr)
        print(json.dumps({"outcome": "fail", "message": "wrote " + secret}))
        assert secret not in " ".join(sys.argv)
    """
    text = recipe(tmp_path, script, "identity = true")
    async with running(tmp_path, text) as run:
        await run.places[0].insert(run.line.board())
        record = await run.ended()
        assert record.device_key is not None
        told = json.dumps(record.as_dict())
        assert "wrote ***" in told
        assert run.line.secrets[record.device_key] not in told
        counts = await run.station.store.counts()
        assert (counts.free, counts.failed) == (7, 1)  # given: this board's for ever


async def test_it_may_have_the_port(tmp_path: Path) -> None:
    script = """
        import termios
        asked = json.load(sys.stdin)
        fd = os.open(asked["port"], os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        sys.exit(0 if os.isatty(fd) else 1)
    """
    attach = SHORT.partition('kind = "claim"\n')[2]
    text = recipe(tmp_path, script, "port = true") + attach
    async with running(tmp_path, text) as run:
        await run.places[0].insert(run.line.board())
        record = await run.ended()
        assert record.outcome is Outcome.PASS, record.reason
        assert run.board.slots["1"].state is SlotState.PASSED


async def test_it_sees_no_settings_of_the_station(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NBIOT_STATION_DATABASE_PASSWORD", "tellnobody")
    script = "sys.exit(any(name.startswith('NBIOT_') for name in os.environ))"
    record, _ = await ran(tmp_path, script)
    assert record.outcome is Outcome.PASS, record.reason
    assert "NBIOT_STATION_DATABASE_PASSWORD" in os.environ


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="no setpriv here")
async def test_it_dies_with_a_station_that_is_killed(tmp_path: Path) -> None:
    """A flash tool that lived on would keep the port of the next run."""
    marker = tmp_path / "pid"
    text = recipe(tmp_path, f"open({str(marker)!r}, 'w').write(str(os.getpid())); time.sleep(600)")
    line = json.loads(text.partition("command = ")[2])
    station = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _STATION.format(line=tuple(line)))
    )
    async with asyncio.timeout(PATIENCE):
        while not marker.exists() or not marker.read_text():
            await asyncio.sleep(0.02)
        station.kill()
        await station.wait()
        while not _is_gone(int(marker.read_text())):
            await asyncio.sleep(0.02)


_STATION = """
import asyncio
from nbiot.station.program import _run
from nbiot.station.recipe import Program
asyncio.run(_run(Program(name="flash", seconds=100, command={line}), {{}}))
"""
