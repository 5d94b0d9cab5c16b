"""``nbiot trace``, ``nbiot replay`` and ``--port replay:FILE`` as people use them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from nbiot.trace import read_trace
from tests.cli.test_cli import IMEI, PRODUCT_KEY, SECRET, nbiot
from tests.peers.tshark import requires_tshark

from .samples import REPLAYS

SAMPLE = str(REPLAYS["bc95-cold-auth"])


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trace as a user makes it."""
    path = tmp_path_factory.mktemp("recorded") / "info.jsonl"
    port = "emulator:bc66?attached=1&speed=100"
    done = nbiot("info", "--quiet", "--port", port, "--trace", str(path))
    assert done.returncode == 0, done.stderr
    assert IMEI in path.read_text()
    return path


def test_show_prints_the_dialogue_for_people() -> None:
    done = nbiot("trace", "show", SAMPLE)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "# port: emulator:bc95" in lines
    assert any(line.endswith(" > AT+CGSN=1") for line in lines)
    assert any(" < +CGSN:" in line and line.endswith("[answer]") for line in lines)
    assert any(line.endswith(" - the modem restarted") for line in lines)
    assert lines[-1] == f"# bc95-cold-auth.jsonl: {len(read_trace(Path(SAMPLE)).records)} records"


def test_show_sends_no_control_character_to_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_text(
        '{"format": "nbiot trace", "version": 1}\n'
        '{"t": 1, "dir": "<", "raw": "a\\u001b[31mb\\r\\nc\\u009b", "event": "x\\u0007"}\n'
        '{"t": 1, "dir": "-", "note": "n\\u001b]0;t"}\n'
    )
    done = nbiot("trace", "show", str(path))
    assert "a\\x1b[31mb\\r\\nc\\x9b  [x\\x07]" in done.stdout
    assert "n\\x1b]0;t" in done.stdout
    assert "\x1b" not in done.stdout


@requires_tshark
def test_to_pcapng_makes_a_capture_and_says_how_to_see_coap(tmp_path: Path) -> None:
    out = tmp_path / "x.pcapng"
    done = nbiot("trace", "to-pcapng", SAMPLE, str(out))
    assert done.returncode == 0, done.stderr
    hint = done.stdout.splitlines()[-1].partition("open it with: ")[2].split()
    assert "2 datagrams" in done.stdout
    seen = subprocess.run(
        ["tshark", "-n", "-r", str(out), *hint, "-Y", "coap"], capture_output=True, text=True
    )
    assert "POST" in seen.stdout
    assert "2.04" in seen.stdout


def test_a_users_trace_becomes_a_test_in_one_command(recorded: Path, tmp_path: Path) -> None:
    done = nbiot("trace", "to-test", str(recorded), str(tmp_path / "test_issue-12.py"))
    assert done.returncode == 0, done.stderr
    assert "info: ok" in done.stdout
    assert IMEI not in (tmp_path / "test_issue-12.jsonl").read_text()
    args = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    passed = subprocess.run(args, capture_output=True, text=True, cwd=tmp_path)
    assert "1 passed" in passed.stdout
    record = tmp_path / "test_issue-12.jsonl"
    record.write_text(record.read_text().replace('"result": "ok"', '"result": "SimMissing"'))
    failed = subprocess.run(args, capture_output=True, text=True, cwd=tmp_path)
    assert "1 failed" in failed.stdout


def test_to_test_may_keep_the_trace_as_it_is(recorded: Path, tmp_path: Path) -> None:
    out = tmp_path / "kept.jsonl"
    done = nbiot("trace", "to-test", str(recorded), str(out), "--as-is")
    assert done.returncode == 0, done.stderr
    assert IMEI in out.read_text()
    assert read_trace(out).header["expect"] == {"what": "info", "result": "ok", "remaining": 0}


def test_redact_counts_what_it_replaced(recorded: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.jsonl"
    done = nbiot("trace", "redact", str(recorded), str(out), "--also", "BC66NBR01A11")
    assert done.returncode == 0, done.stderr
    assert "5 things replaced" in done.stdout  # IMEI, IMSI, ICCID, address, and that firmware
    assert IMEI not in out.read_text()
    assert "BC66NBR01A11" not in out.read_text()


def test_replay_tells_that_nothing_differs() -> None:
    done = nbiot("replay", SAMPLE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 different" in done.stdout
    assert "auth: ok" in done.stdout


def test_replay_tells_what_differs_with_exit_code_1(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(REPLAYS["bc66-no-sim"].read_text().replace('"echo"', '"answer"'))
    done = nbiot("replay", str(path), "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 1
    assert found["ok"] is False
    assert {d["then"] for d in found["differences"]} == {"answer"}
    assert {d["now"] for d in found["differences"]} == {"echo"}


def test_replay_runs_at_the_recorded_speed_when_told() -> None:
    done = nbiot("replay", str(REPLAYS["bc66-no-sim"]), "--speed", "50")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SimMissing" in done.stdout


@pytest.mark.parametrize(("name", "path"), [("bc95-g-sent-again", "udp"), ("bc66-urcs", "udp")])
def test_any_command_runs_against_a_trace(name: str, path: str) -> None:
    trace = read_trace(REPLAYS[name])
    from nbiot.datagrams import datagrams

    host, port = datagrams(trace.records)[0].peer
    done = nbiot(
        *("auth", "--quiet", "--json", "--port", f"replay:{REPLAYS[name]}", "--coap", path),
        *("--product-key", PRODUCT_KEY, "--server", f"{host}:{port}", "--ack-timeout", "0.2"),
        *("--baud", str(trace.header["baudrate"])),
        NBIOT_DEVICE_SECRET=SECRET,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["code"] == "2.04"


def test_another_command_than_the_recorded_one_is_told(recorded: Path) -> None:
    done = nbiot("at", "--port", f"replay:{recorded}", "AT+CSQ")
    assert done.returncode == 13
    assert "the host said 'ATI\\r' then and says 'AT+CSQ\\r' now" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["trace", "show", "nowhere.jsonl"], "a file that can be read"),
        (["trace", "to-pcapng", SAMPLE, "no/such/folder"], "a file that can be written"),
        (["trace", "redact", SAMPLE, SAMPLE], "another file"),
        (["trace", "redact", SAMPLE, "x", "--also", "ab"], "4 or more"),
        (["trace", "to-test", SAMPLE, "x.txt"], ".jsonl or .py"),
        (["replay", __file__], "one JSON object a line"),
        (["replay", SAMPLE, "--speed", "-1"], "0 or more"),
        (["replay", SAMPLE, "--modem", "bc96"], "bc95-g"),
    ],
)
def test_bad_input_says_what_is_allowed(args: list[str], said: str) -> None:
    done = nbiot(*args)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
