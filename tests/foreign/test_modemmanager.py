"""ModemManager 1.20 finds the emulated modems, and leaves nothing behind.

It registers the BC66. A BC95 it finds and cannot use, as it could not use a real one: it asks
AT+GCAP, ATI, AT+CPIN? and AT+CGMM for GSM or LTE. The Quectel manuals of the BC95 (V1.3 to V2.0)
list neither +GCAP nor +CPIN, and a SARA-N211, the same chip with the same firmware branch, was
seen to answer AT+CPIN? with ERROR (github ARMmbed/mbed-os issue 8199).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from hil.emulator import Options, PtyModem

from . import modemmanager
from .hosts import MODELS, RATES

LIMIT = modemmanager.ALL_WITHIN
MISSING = modemmanager.missing()
pytestmark = [
    pytest.mark.unhygienic,  # both models run in threads at the same time
    pytest.mark.skipif(bool(MISSING), reason=MISSING),
]
Outcome = tuple[modemmanager.Report, list[str]]


async def _session(model: str, folder: Path) -> Outcome:
    async with PtyModem(model, Options()) as pty:
        program = modemmanager.command(pty.path, RATES[model], folder)
        process = await asyncio.create_subprocess_exec(*program, stdout=asyncio.subprocess.PIPE)
        try:
            out, _ = await asyncio.wait_for(process.communicate(), LIMIT)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode == 0
        report: modemmanager.Report = json.loads(out)
        return report, list(pty.modem.counters.commands)


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Outcome]]]:
    with ThreadPoolExecutor() as threads:
        yield {
            model: threads.submit(asyncio.run, _session(model, tmp_path_factory.mktemp(model)))
            for model in MODELS
        }


def test_bc66_is_found_and_registers(sessions: dict[str, Future[Outcome]]) -> None:
    report, asked = sessions["bc66"].result(LIMIT)
    assert not report["error"], report
    generic = report["modem"]["generic"]
    assert generic["plugin"] == "quectel"
    assert generic["manufacturer"] == "Quectel_Ltd"
    assert generic["model"] == "Quectel_BC66"
    assert report["modem"]["3gpp"]["imei"] == "867726030047601"
    assert "model: Quectel_BC66" in report["text"]
    assert "imei: 867726030047601" in report["text"]
    assert report["enable"] == "successfully enabled the modem\n"
    assert report["registered"]["generic"]["state"] == "registered"
    network = report["registered"]["3gpp"]
    assert network["registration-state"] == "home"
    assert network["operator-code"] == "46000"
    assert network["packet-service-state"] == "attached"
    assert len(asked) >= 60, asked


def test_bc95_is_found_and_refused_as_a_real_one(sessions: dict[str, Future[Outcome]]) -> None:
    report, asked = sessions["bc95"].result(LIMIT)
    assert report["modem"]["generic"]["plugin"] == "quectel"
    assert report["modem"]["generic"]["state"] == "failed"
    assert report["error"] == "unknown-capabilities"
    assert {"AT+GCAP", "AT+CPIN?", "AT+CGMM"} <= set(asked)


def test_nothing_is_left(sessions: dict[str, Future[Outcome]]) -> None:
    for session in sessions.values():
        session.result(LIMIT)
    assert not _left()


async def test_killed_in_the_middle_nothing_is_left(tmp_path: Path) -> None:
    async with PtyModem("bc66", Options()) as pty:
        program = modemmanager.command(pty.path, RATES["bc66"], tmp_path)
        process = await asyncio.create_subprocess_exec(*program)
        try:
            async with asyncio.timeout(20):
                while not _processes_of(tmp_path, "ModemManager"):
                    await asyncio.sleep(0.05)
        finally:
            process.kill()
            await process.wait()
        async with asyncio.timeout(5):
            while _processes_of(tmp_path, ""):
                await asyncio.sleep(0.05)
        assert not _left()


def _left() -> list[str]:
    """Mounts in this namespace that are ours."""
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    return [line for line in mounts if modemmanager.TTY in line or str(modemmanager.RULES) in line]


def _processes_of(folder: Path, name: str) -> list[int]:
    """Processes whose environment or command names `folder`, and whose command has `name`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
            told = command + (process / "environ").read_bytes()
        except OSError:  # gone in the meantime
            continue
        if str(folder).encode() in told and name.encode() in command:
            found.append(int(process.name))
    return found
