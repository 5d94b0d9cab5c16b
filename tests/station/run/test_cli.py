"""``nbiot station``, as a person types it."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from nbiot.cli import main
from nbiot.errors import StationError
from nbiot.station import recipe as recipes
from nbiot.station.demo import PRODUCT_KEY
from nbiot.station.outbox import Outbox
from nbiot.station.record import Outcome, Record
from tests.station.run.rigs import running
from tests.station.store.line import imei, record

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


# --- upkeep -----------------------------------------------------------------------------------


def test_a_new_key_is_made_beside_the_old_one_and_taken(made: Path) -> None:
    state = made / "state/nbiot/station-S7"
    old = (state / "vault.key").read_bytes()
    said = good("rotate-key", "--who", "ann")
    assert "2 secrets" in said
    line = next(words.strip() for words in said.splitlines() if words.startswith("  vault = "))
    assert line == f'vault = "file:{state}/vault-2.key"'
    assert (state / "vault-2.key").stat().st_mode & 0o777 == 0o600
    assert (state / "vault.key").read_bytes() == old
    new = (state / "vault-2.key").read_text()
    assert new.strip() not in said
    found = typed("import", "ids.csv")  # the station file still names the old one
    assert found.returncode == 65
    assert "is encrypted with key" in found.stderr
    text = (made / "station.toml").read_text()
    (made / "station.toml").write_text(f"{line}\n{text}")
    assert "2 were there" in good("import", "ids.csv")  # it compared the secrets
    entry = json.loads(good("audit", "--json").splitlines()[0])
    assert (entry["action"], entry["who"]) == ("rotate", "ann")
    told = json.loads(good("rotate-key", "--json"))
    assert told["vault"] == f"file:{state}/vault-3.key"
    assert told["old_vault"] == f"file:{state}/vault-2.key"
    assert told["secrets"] == 2


def test_a_new_key_never_goes_over_a_file_and_needs_the_old_one(made: Path) -> None:
    state = made / "state/nbiot/station-S7"
    found = typed("rotate-key", "--out", str(state / "vault.key"))
    assert found.returncode == 65
    assert "exists already" in found.stderr
    (state / "vault.key").rename(made / "elsewhere.key")
    found = typed("rotate-key", "--json")
    assert json.loads(found.stdout)["error"] == "VaultError"
    assert not list(state.glob("*.key"))


@pytest.mark.parametrize(("error", "kept"), [("StoreUnavailable", True), ("StationError", False)])
def test_a_rotation_that_fails_keeps_the_key_that_may_be_in_use(
    made: Path, monkeypatch: pytest.MonkeyPatch, error: str, kept: bool
) -> None:
    import nbiot.errors
    from nbiot.station.store import Store

    async def fails(*_: Any, **__: Any) -> int:
        raise getattr(nbiot.errors, error)("cut")

    monkeypatch.setattr(Store, "rotate", fails)
    found = typed("rotate-key")
    assert found.returncode == 60
    assert "cut" in found.stderr
    key = made / "state/nbiot/station-S7/vault-2.key"
    assert key.exists() == kept
    assert (str(key) in found.stderr) == kept


def test_a_key_outside_of_a_file_is_rotated_into_one(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = (made / "state/nbiot/station-S7/vault.key").read_text().strip()
    monkeypatch.setenv("VAULT_KEY", key)
    text = (made / "station.toml").read_text()
    (made / "station.toml").write_text(f'vault = "env:VAULT_KEY"\n{text}')
    found = typed("rotate-key")
    assert found.returncode == 2
    assert "env:VAULT_KEY" in found.stderr
    assert f'vault = "file:{made}/new.key"' in good("rotate-key", "--out", "new.key")
    assert (made / "new.key").exists()


def test_the_pool_is_retired_only_after_a_yes(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert typed("retire-pool").returncode == 2  # a reason is needed
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    found = typed("retire-pool", "--why", "restored")
    assert found.returncode == 2
    assert "2 identities" in found.stderr
    assert "--yes" in found.stderr
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    assert typed("retire-pool", "--why", "restored").returncode != 0
    assert "2 free" in good("status")
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert "2 identities are out of use" in good("retire-pool", "--why", "restored", "--who", "ann")
    assert "2 returned" in good("status")
    entry = json.loads(good("audit", "--json").splitlines()[0])
    assert (entry["action"], entry["who"]) == ("retire pool", "ann")
    assert entry["why"] == "restored (2 identities)"
    told = json.loads(good("retire-pool", "--why", "again", "--yes", "--json"))
    assert told == {"ok": True, "retired": 0}


def test_the_outbox_shows_what_waits_and_tries_again(made: Path) -> None:
    assert json.loads(good("outbox", "--json"))["waiting"] == []
    path = made / "state/nbiot/station-S7/outbox.db"

    async def fill() -> None:
        async with Outbox(path, station="S7") as outbox:
            for number in range(2):
                await outbox.put(record(f"run-{number}", Outcome.FAIL, imei=imei(number)))
            await outbox.begin("run-2", "4")
            await outbox._set_aside(1, StationError("no such table"))
            said = await asyncio.to_thread(good, "outbox")  # while the station runs
            assert "1 results wait, 1 were set aside, 1 runs have not ended" in said
            assert "set aside: StationError: no such table" in said
            assert imei(0) in said
            told = json.loads(await asyncio.to_thread(good, "outbox", "--json"))
            assert [found["id"] for found in told["waiting"]] == ["run-1"]
            assert told["set_aside"][0]["error"] == "StationError: no such table"
            assert told["not_ended"] == ["4"]
            assert "1 results are tried again" in await asyncio.to_thread(
                good, "outbox", "--readmit"
            )
            assert await outbox.set_aside() == []
            assert len(await outbox.intents()) == 1  # looking ended no run

    asyncio.run(fill())
    assert "2 results wait, 0 were set aside" in good("outbox", "--readmit")
    path.write_bytes(b"no database at all" * 100)
    found = typed("outbox", "--json")
    assert found.returncode == 60
    assert "Keep the file" in json.loads(found.stdout)["hint"]


def test_a_result_that_cannot_be_read_is_shown_all_the_same(made: Path) -> None:
    path = made / "state/nbiot/station-S7/outbox.db"

    async def fill() -> None:
        async with Outbox(path, station="S7") as outbox:
            for number, body in enumerate(("{", "[]", "{}")):
                await outbox._in_thread(partial(outbox._put, f"run-{number}", body))

    asyncio.run(fill())
    assert [found["id"] for found in json.loads(good("outbox", "--json"))["waiting"]] == [
        *("run-0", "run-1", "run-2")
    ]


def test_contradictions_are_told_and_end_with_1(made: Path) -> None:
    assert "0 contradictions" in good("check")
    assert json.loads(good("check", "--json")) == {"ok": True, "contradictions": []}
    with closing(sqlite3.connect(made / "state/nbiot/station-S7/station.db")) as db:
        db.execute("DROP TRIGGER credential_rule_4")  # as somebody with a mind to
        db.execute(
            "UPDATE credential SET state = 'proven', imei = '490154203237518', fence = 1 "
            "WHERE device_key = 'meter-0'"
        )
        db.commit()
    found = typed("check")
    assert found.returncode == 1
    assert "identity meter-0 is proven, but no run made it so" in found.stdout
    told = json.loads(typed("check", "--json").stdout)
    assert not told["ok"]
    assert told["contradictions"]
