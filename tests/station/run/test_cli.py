"""``nbiot station``, as a person types it."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from nbiot.cli import main
from nbiot.station import recipe as recipes
from nbiot.station.demo import PRODUCT_KEY
from nbiot.station.record import Record
from tests.station.run.rigs import running

SECRETS = ("Sommernacht17", "Winterabend18")
CSV = "product_key,device_key,device_secret\n" + "".join(
    f"{PRODUCT_KEY},meter-{n},{secret}\n" for n, secret in enumerate(SECRETS)
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("NBIOT_STATION"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path


def typed(*arguments: str) -> subprocess.CompletedProcess[str]:
    out, err = io.StringIO(), io.StringIO()
    code: Any = 0
    with redirect_stdout(out), redirect_stderr(err):
        try:
            main(["station", *arguments])
        except SystemExit as stop:
            code = stop.code or 0
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def good(*arguments: str) -> str:
    found = typed(*arguments)
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


@pytest.fixture
def made(folder: Path) -> Path:
    """A station after init and import."""
    good("init", "--name", "S7")
    (folder / "ids.csv").write_text(CSV)
    good("import", "ids.csv")
    return folder


def test_init_makes_what_is_missing_and_overwrites_nothing(folder: Path) -> None:
    said = good("init", "--name", "S7")
    assert "station.toml is written" in said
    assert "vault.key is made" in said
    key = (folder / "state/nbiot/station-S7/vault.key").read_bytes()
    recipes.load(folder / "recipe.toml")
    (folder / "recipe.toml").write_text("mine")
    said = good("init")
    assert "is written" not in said
    assert "has its tables" in said
    assert (folder / "recipe.toml").read_text() == "mine"
    assert (folder / "state/nbiot/station-S7/vault.key").read_bytes() == key


def test_before_init_it_says_what_to_type(folder: Path) -> None:
    found = typed("status")
    assert found.returncode == 2
    assert "nbiot station init" in found.stderr
    found = typed("status", "--json")
    assert json.loads(found.stdout)["error"] == "BadFile"


def test_an_import_may_be_repeated_and_tells_bad_rows_by_line(made: Path) -> None:
    assert "0 added, 2 were there, 0 bad rows" in good("import", "ids.csv")
    bad = CSV + f"{PRODUCT_KEY},x,Herbststurm19\n{PRODUCT_KEY},meter-9,Tauwetter20\n"
    (made / "bad.csv").write_text(bad)
    found = typed("import", "bad.csv")
    assert found.returncode == 2
    assert "line 4" in found.stderr
    assert "Nothing is imported" in found.stderr
    assert "Herbststurm" not in found.stdout + found.stderr
    found = typed("import", "bad.csv", "--skip-bad", "--json")
    assert found.returncode == 0
    told = json.loads(found.stdout)
    assert (told["added"], told["unchanged"], len(told["problems"])) == (1, 2, 1)


def test_status_export_and_audit_show_no_secret(made: Path) -> None:
    assert "2 free" in good("status")
    assert json.loads(good("status", "--json"))["identities"]["free"] == 2
    rows = list(csv.DictReader(io.StringIO(good("export"))))
    assert [row["device_key"] for row in rows] == ["meter-0", "meter-1"]
    good("export", "--format", "json", "--out", "out.json")
    told = (
        (made / "out.json").read_text() + good("export") + good("audit") + good("audit", "--json")
    )
    assert not any(secret in told for secret in SECRETS)
    assert "import" in good("audit")
    kept = [path.read_bytes() for path in (made / "state").rglob("*") if path.is_file()]
    assert not any(secret.encode() in content for secret in SECRETS for content in kept)


def test_people_take_identities_out_of_use_with_a_reason(made: Path) -> None:
    assert typed("give-back", "meter-0").returncode == 2
    good("give-back", "meter-0", "--why", "label torn", "--who", "ann")
    entries = [json.loads(line) for line in good("audit", "meter-0", "--json").splitlines()]
    assert (entries[0]["who"], entries[0]["why"], entries[0]["to_state"]) == (
        "ann",
        "label torn",
        "returned",
    )
    found = typed("allow-retry", "meter-1", "--why", "no board yet")
    assert found.returncode == 2
    assert "free" in found.stderr
    assert typed("give-back", "nobody", "--why", "x").returncode == 2


def test_doctor_says_what_is_missing(made: Path) -> None:
    found = typed("doctor", "--json")
    steps = {step["step"]: step for step in json.loads(found.stdout)["steps"]}
    assert steps["database"]["verdict"] in ("ok", "warning")
    assert steps["recipe"]["verdict"] == "ok"
    assert "FAILED" not in typed("doctor").stdout.partition("EnOS")[0]


def test_results_are_exported_and_labels_printed(folder: Path, tmp_path: Path) -> None:
    async def one() -> Record:
        async with running(tmp_path) as run:
            await run.places[0].insert(run.line.board())
            return await run.ended()

    record = asyncio.run(one())
    (tmp_path / "station.toml").write_text(
        f'name = "demo"\nstate = "state"\ndatabase = "sqlite:///{tmp_path}/station.db"\n'
        f'vault = "file:{tmp_path}/vault.key"\nprinter = "file:{tmp_path}/labels"\n'
        '[slot.1]\nport = "emulator:bc66"\n'
    )
    (tmp_path / "station.toml").chmod(0o600)
    assert Record.from_dict(json.loads(good("export", "--format", "records"))) == record
    assert json.loads(good("export", "--format", "openhtf"))["outcome"] == "PASS"
    assert record.imei is not None
    good("label", record.imei)
    assert len(list((tmp_path / "labels").glob("*.zpl"))) == 1
    good("label", record.id, "--png", "label.png")
    assert (tmp_path / "label.png").read_bytes().startswith(b"\x89PNG")
    assert typed("label", "490154203237518").returncode == 2


DEMO = ("demo", "--slots", "2", "--speed", "40", "--once")


def test_the_demo_ends_by_itself_when_all_boards_are_green() -> None:
    found = typed(*DEMO, "--port", "0")
    assert found.returncode == 0, found.stderr
    assert "2 of 2 boards passed" in found.stderr
    assert "http://127.0.0.1:" in found.stderr


def test_the_demo_shows_a_failure() -> None:
    found = typed(*DEMO, "--no-ui", "--fail", "sim")
    assert found.returncode == 1
    assert "1 of 2 boards passed" in found.stderr
    assert "SIM" in found.stderr


def test_one_ctrl_c_ends_a_station(made: Path) -> None:
    text = (made / "station.toml").read_text()
    (made / "station.toml").write_text(
        text.replace('host = "abc.def.com"', 'server = "127.0.0.1:9"')
    )
    line = [sys.executable, "-m", "nbiot", "station", "run", "--port", "0"]
    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = ""
        while "operator's page" not in said:
            said = process.stderr.readline()
            assert said, "it ended by itself"
        with urlopen(said.rpartition(" ")[2].strip(), timeout=30) as page:
            assert "station.js" in page.read().decode()
        found = subprocess.run(line, capture_output=True, text=True, timeout=60)
        assert found.returncode == 60
        assert f"pid {process.pid}" in found.stderr
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        assert process.wait(timeout=30) == 130
        assert time.monotonic() - began < 25


def test_help_needs_no_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    from nbiot.cli import station

    monkeypatch.setattr(station, "find_spec", lambda _: None)
    assert "operator" in good("--help")
    found = typed("status")
    assert found.returncode == 60
    assert "pip install 'nbiot-driver[station]'" in found.stderr


def test_install_shows_what_it_would_write(folder: Path) -> None:
    said = good("install", "--root", str(folder / "root"), "--dry-run", "--slot", "1=platform-1")
    assert "nbiot-station.service" in said
    assert not (folder / "root").exists()
    assert typed("install", "--slot", "1").returncode == 2
