"""Recording from software modems on pseudo-terminals, and comparing what was recorded."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hil.emulator import Network, Options, PtyModem
from hil.emulator.engine import Result
from hil.verify import Level, Verdict, guess_model, verify
from nbiot.capture import Capture, Recording, Step, capture_of, read_captures, record, steps_of
from nbiot.errors import BadInput, PortBusy, PortLost
from nbiot.redact import Redaction

IMEI, IMSI, ICCID = "490154203237518", "460043193006443", "89860317492039000007"
QUICK = 0.003


def options(**more: Any) -> Options:
    defaults: dict[str, Any] = {"imei": IMEI, "imsi": IMSI, "iccid": ICCID, "attached": True}
    return Options(**defaults | {"speed": 100.0} | more)


def kept(recording: Recording) -> dict[str, Any]:
    return capture_of(recording, Redaction(cells=True), identifier="bc66-test", started=1.7e9)


async def verified(capture: Capture, model: str = "") -> Verdict:
    return await asyncio.to_thread(verify, capture, model)  # no work for an event loop


def exchange(found: dict[str, Any], tx: str) -> dict[str, Any]:
    return next(e for e in found["exchanges"] if e.get("tx") == tx)


@pytest.mark.parametrize("model", ["bc95", "bc95-g", "bc66", "bc26"])
@pytest.mark.parametrize("seed", [None, 1])
async def test_what_was_recorded_has_the_form_of_the_same_modem(
    model: str, seed: int | None, tmp_path: Path
) -> None:
    async with PtyModem(model, options(chunk_seed=seed), Network(latency=0.01)) as pty:
        recording = Recording(pty.path)
        await record(recording, settle=QUICK)
        commands = list(pty.modem.counters.commands)
    found = kept(recording)
    text = json.dumps(found)
    for private in (IMEI, IMSI, ICCID, "10.0.0.7", "0D09F951", "D09F951"):
        assert private not in text
    assert found["redacted"].items() >= {"IMEI": 1, "IMSI": 1, "ICCID": 1, "IP address": 1}.items()
    sent = [e["tx"] for e in found["exchanges"] if "tx" in e]
    assert sent == commands[-len(sent) :]
    assert len(sent) > 40
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps(found, ensure_ascii=False) + "\n", encoding="utf-8")
    (capture,) = read_captures(file)
    assert all(e.exact and e.answered for e in capture.exchanges)
    verdict = await verified(capture, model)
    assert verdict.same_form, [c.as_dict() for c in verdict.compared if c.level is Level.FORM]
    assert verdict.count(Level.EQUAL) > 30
    assert guess_model(capture) == model


async def test_every_byte_is_kept_with_its_time() -> None:
    wire = bytearray()

    def on_bytes(way: str, data: bytes, _: float) -> None:
        if way == "out":
            wire.extend(data)

    async with PtyModem("bc66", options(on_bytes=on_bytes, chunk_seed=3)) as pty:
        recording = Recording(pty.path)
        await record(recording, steps=steps_of(["AT+CEREG?", "AT+NONSENSE"]), settle=QUICK)
    found = kept(recording)
    said = "".join(e.get("rx_raw", e.get("raw", "")) for e in found["exchanges"])
    assert len(wire) >= len(said) > 100
    assert [e["tx_raw"] for e in found["exchanges"]][-2:] == ["AT+CEREG?\r", "AT+NONSENSE\r"]
    last = exchange(found, "AT+NONSENSE")
    assert last["rx_raw"] == "AT+NONSENSE\r\r\nERROR\r\n"
    assert last["rx"] == ["AT+NONSENSE", "ERROR"]
    assert len(last["rx_at"]) == 2
    times = [e["t"] for e in found["exchanges"]]
    assert times == sorted(times)
    assert bytes(wire).endswith(b"\r\nERROR\r\n")


async def test_what_the_modem_says_by_itself_is_apart() -> None:
    async with PtyModem("bc66", options()) as pty:
        recording = Recording(pty.path)

        def speak(text: str) -> None:
            if text == "AT+CSQ":
                pty.modem.urc('+CEREG: 5,"7871","0D09F951",9')

        await record(
            recording,
            steps=[Step("AT+CSQ"), Step("", wait=0.05), Step("AT+CEREG?")],
            settle=QUICK,
            report=speak,
        )
    found = kept(recording)
    urcs = [e for e in found["exchanges"] if "urc" in e]
    assert len(urcs) == 1
    assert urcs[0]["raw"].startswith('\r\n+CEREG: 5,"')
    assert urcs[0]["raw"].endswith('",9\r\n')
    assert "7871" not in urcs[0]["urc"]


async def test_data_behind_a_prompt_and_its_second_result() -> None:
    async with PtyModem("bc66", options()) as pty:
        recording = Recording(pty.path)
        steps = [
            Step('AT+QIOPEN=1,0,"UDP","127.0.0.1",9,0,1'),
            Step("AT+QISEND=0,5", payload=b"hello"),
            Step("AT+QICLOSE=0"),
        ]
        await record(recording, steps=steps, settle=QUICK)
    found = kept(recording)
    said = json.dumps(found["exchanges"])
    assert exchange(found, "hello")["tx_raw"] == "hello"
    assert exchange(found, "AT+QISEND=0,5")["rx_raw"].endswith(">")
    for text in ("+QIOPEN: 0,0", "SEND OK", "CLOSE OK"):
        assert text in said
    assert not recording.timed_out


async def test_a_command_without_result_is_recorded_as_such(tmp_path: Path) -> None:
    async with PtyModem("bc66", options()) as pty:
        recording = Recording(pty.path)
        pty.modem.script.command("AT+CSQ")(lambda call: Result.SILENT)
        steps = steps_of(["AT+CSQ", "AT+CFUN?"])
        await record(recording, steps=steps, settle=QUICK, timeout=0.2)
    found = kept(recording)
    assert exchange(found, "AT+CSQ")["timed_out"] == 1.0  # as the profile has it
    assert exchange(found, "AT+CFUN?")["rx"][-1] == "OK"
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps(found) + "\n")
    (capture,) = read_captures(file)
    late = next(e for e in capture.exchanges if e.tx == b"AT+CSQ\r")
    assert not late.answered
    assert (await verified(capture)).same_form


async def test_a_restart_is_part_of_the_record(tmp_path: Path) -> None:
    async with PtyModem("bc95", options()) as pty:
        recording = Recording(pty.path)
        await record(recording, steps=steps_of(["AT+NRB", "AT+CGMR"]), settle=QUICK)
    found = kept(recording)
    assert exchange(found, "AT+NRB")["rx"][-1] == "REBOOTING"
    assert "REBOOT_CAUSE_APPLICATION_AT" in json.dumps([e.get("urc") for e in found["exchanges"]])
    assert exchange(found, "AT+CGMR")["rx"][-1] == "OK"
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps(found) + "\n")
    (capture,) = read_captures(file)
    assert (await verified(capture)).same_form


async def test_what_came_before_the_port_was_lost_is_kept() -> None:
    pty = PtyModem("bc66", options())
    await pty.__aenter__()
    recording = Recording(pty.path)

    async def unplug() -> None:
        await pty.__aexit__(None, None, None)

    tasks = []

    def speak(text: str) -> None:
        if text == "AT+CSQ":
            tasks.append(asyncio.ensure_future(unplug()))

    steps = [Step("AT+CSQ"), Step("", wait=0.1), Step("AT+CFUN?")]
    with pytest.raises(PortLost):
        await record(recording, steps=steps, settle=QUICK, report=speak)
    await asyncio.gather(*tasks)
    assert exchange(kept(recording), "AT+CSQ")["rx"][-1] == "OK"


async def test_a_busy_port_is_told() -> None:
    async with PtyModem("bc66", options()) as pty:
        recording = Recording(pty.path)
        other = asyncio.create_task(record(Recording(pty.path), steps=[Step("", wait=60)]))
        await asyncio.sleep(0.1)
        with pytest.raises(PortBusy):
            await record(recording, steps=steps_of(["AT"]))
        other.cancel()
        await asyncio.gather(other, return_exceptions=True)
    assert recording.records == []


async def test_a_profile_that_is_not_there() -> None:
    with pytest.raises(BadInput, match="bc67"):
        await record(Recording("/dev/none"), defaults_of="bc67")


# --- the command line -----------------------------------------------------------------------

NBIOT = [sys.executable, "-m", "nbiot"]
EMULATOR = "emulator:bc66?attached=1&speed=100"


def nbiot(*args: str | Path) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("NBIOT_")}
    return subprocess.run(
        [*NBIOT, *map(str, args)],
        capture_output=True,
        text=True,
        timeout=60,
        env=clean | {"TERM": "dumb", "COLUMNS": "100"},
    )


def test_a_capture_from_the_command_line(tmp_path: Path) -> None:
    out = tmp_path / "a.jsonl"
    commands = ["AT+CGSN=1", "AT+CGPADDR", "AT+COPS?", "AT+CEREG?"]
    done = nbiot("capture", "--port", EMULATOR, "--out", out, *commands)
    assert done.returncode == 0, done.stderr
    assert "7 commands" in done.stdout
    assert "IMEI 1" in done.stdout
    assert "the operator: +COPS:" in done.stdout
    assert "Look the file over" in done.stdout
    assert "proves nothing" in done.stdout
    assert "867726030047601" not in done.stdout + out.read_text()
    assert json.loads(out.read_text())["evidence"] == "emulated"
    before = out.read_text()
    again = nbiot("capture", "--port", EMULATOR, "--out", out, "AT")
    assert again.returncode == 2
    assert "not there yet" in again.stderr
    assert out.read_text() == before
    same = nbiot("hil", "verify-emulator", out)
    assert same.returncode == 0, same.stdout
    assert "the same form" in same.stdout
    assert "~-" in same.stdout
    out.write_text(before.replace("+COPS: ", "+COPS:"))
    other = nbiot("hil", "verify-emulator", out, "--json")
    assert other.returncode == 1
    found = json.loads(other.stdout)
    assert found["ok"] is False
    (line,) = [
        row
        for e in found["captures"][0]["exchanges"]
        for row in e["lines"]
        if row["level"] == "form"
    ]
    assert line["why"] == "spacing"
    assert line["captured"].startswith("\\r\\n+COPS:0")


def test_nothing_recorded_leaves_no_file(tmp_path: Path) -> None:
    out = tmp_path / "a.jsonl"
    done = nbiot("capture", "--port", tmp_path / "none", "--out", out, "AT")
    assert done.returncode == 10
    assert not out.exists()


def test_ctrl_c_keeps_what_was_recorded(tmp_path: Path) -> None:
    out, commands = tmp_path / "a.jsonl", tmp_path / "c.txt"
    commands.write_text("AT+CSQ\nwait 60\n")
    process = subprocess.Popen(
        [*NBIOT, "capture", "--port", EMULATOR, "--out", out, "--commands", commands],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "waiting" in line:
            break
    process.send_signal(signal.SIGINT)
    stdout, _ = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "4 commands" in stdout
    assert exchange(json.loads(out.read_text()), "AT+CSQ")["rx"][-1] == "OK"
