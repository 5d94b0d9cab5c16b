"""`nbiot station doctor`: a good station, and each thing that can be wrong with one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hil.enos_rest import RestStandIn
from hil.rig import Slot
from nbiot.doctor import Finding, Verdict
from nbiot.enos import Server
from nbiot.station import doctor
from nbiot.station.config import Config, Rest, Screen
from nbiot.station.doctor import examine, filesystem
from nbiot.station.store import Store
from nbiot.station.vault import Vault

RECIPE = """
name = "first"
[[phase]]
kind = "identify"
"""


@pytest.fixture
async def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """A station that is ready, but for its identities."""
    state = tmp_path / "state"
    state.mkdir()
    database = f"sqlite+aiosqlite:///{state / 'station.db'}"
    vault = await asyncio.to_thread(Vault.create, state / "vault.key")
    async with Store(database, vault, station="S1", create=True):
        pass
    (tmp_path / "recipe.toml").write_text(RECIPE)
    (tmp_path / "labels").mkdir()
    monkeypatch.setattr(doctor, "filesystem", lambda path: "ext4")
    return Config(
        name="S1",
        slots=(Slot("A1", "emulator:bc66"),),
        database=database,
        vault=f"file:{state / 'vault.key'}",
        state=state,
        recipe=tmp_path / "recipe.toml",
        printer=f"file:{tmp_path / 'labels'}",
        screen=Screen(port=_free_port()),
        server=Server("127.0.0.1"),
    )


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


async def found(config: Config, **changes: Any) -> dict[str, Finding]:
    return {finding.step: finding async for finding in examine(replace(config, **changes))}


async def test_a_station_that_is_ready(config: Config) -> None:
    steps = await found(config)
    assert {s.step for s in steps.values() if s.verdict is Verdict.FAILED} == set()
    assert steps["database"].saw.startswith("0 identities free")
    assert "import" in steps["database"].next
    for step in ("recipe", "state folder", "outbox", "vault", "slot A1", "printer", "screen"):
        assert steps[step].verdict is Verdict.OK, steps[step]
    assert steps["EnOS REST"].verdict is Verdict.SKIPPED
    assert not list(config.state.glob(".doctor*"))


async def test_each_thing_that_is_missing_is_named_and_nothing_else_fails(
    config: Config, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    broken = replace(
        config,
        recipe=tmp_path / "none.toml",
        state=tmp_path / "file" / "state",
        vault=f"file:{tmp_path / 'none.key'}",
        printer=f"file:{tmp_path / 'none'}",
    )
    steps = await found(broken)
    failed = {step for step, finding in steps.items() if finding.verdict is Verdict.FAILED}
    assert failed == {"recipe", "state folder", "vault", "database", "printer"}
    for step in failed:
        assert steps[step].exit_code, step
        assert steps[step].next, step


async def test_a_database_of_another_key(config: Config, tmp_path: Path) -> None:
    await asyncio.to_thread(Vault.create, tmp_path / "other.key")
    steps = await found(config, vault=f"file:{tmp_path / 'other.key'}")
    assert steps["vault"].verdict is Verdict.OK
    assert steps["database"].exit_code == 65


async def test_a_port_without_permission(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = os.openpty()
    try:
        path = os.ttyname(theirs)
        slot = Slot("A1", path)
        assert (await found(config, slots=(slot,)))["slot A1"].verdict is Verdict.OK
        monkeypatch.setattr(os, "access", lambda *_, **__: False)  # root may do everything
        finding = (await found(config, slots=(slot,), printer=None))["slot A1"]
    finally:
        os.close(ours)
        os.close(theirs)
    assert finding.verdict is Verdict.FAILED
    assert "dialout" in finding.next


@pytest.mark.parametrize(
    ("port", "boards", "verdict"),
    [
        ("/dev/serial/by-id/usb-none", "auto", Verdict.OK),  # a slot without board
        ("/dev/serial/by-id/usb-none", "operator", Verdict.WARNING),
        ("/dev/null", "auto", Verdict.FAILED),
    ],
)
async def test_ports_that_are_none(
    config: Config, port: str, boards: str, verdict: Verdict
) -> None:
    steps = await found(config, slots=(Slot("A1", port),), boards=boards)
    assert steps["slot A1"].verdict is verdict


async def test_results_that_wait_and_results_set_aside(config: Config) -> None:
    with contextlib.closing(sqlite3.connect(config.state / "outbox.db")) as db:
        db.execute("CREATE TABLE record (id, error)")
        db.execute("INSERT INTO record VALUES (1, NULL), (2, NULL)")
        db.commit()
        assert (await found(config))["outbox"].saw == "2 results wait"
        db.execute("INSERT INTO record VALUES (3, 'no such table')")
        db.commit()
    finding = (await found(config))["outbox"]
    assert finding.verdict is Verdict.WARNING
    assert "1 were set aside" in finding.saw


async def test_an_outbox_of_the_station_itself_can_be_read(config: Config) -> None:
    from nbiot.station.outbox import Outbox

    async with Outbox(config.state / "outbox.db", station="S1"):
        finding = (await found(config))["outbox"]  # while the station runs
    assert (finding.verdict, finding.saw) == (Verdict.OK, "empty")


async def test_a_damaged_outbox(config: Config) -> None:
    (config.state / "outbox.db").write_bytes(b"no database at all" * 100)
    finding = (await found(config))["outbox"]
    assert finding.verdict is Verdict.FAILED
    assert "Keep" in finding.next


async def test_a_page_whose_port_is_taken(config: Config) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        screen = Screen(port=listener.getsockname()[1])
        finding = (await found(config, screen=screen))["screen"]
    assert finding.verdict is Verdict.WARNING


async def test_a_state_folder_that_forgets(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "filesystem", lambda path: "overlay")
    finding = (await found(config))["state folder"]
    assert finding.verdict is Verdict.WARNING
    assert "read-only root" in finding.next


async def test_a_clock_that_nobody_set(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "WRITTEN", 4e9)
    finding = (await found(config))["clock"]
    assert finding.verdict is Verdict.FAILED
    assert "timedatectl" in finding.next


async def test_the_rest_interface(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    async with RestStandIn(products=["KV315idW"]) as cloud:
        monkeypatch.setenv("REST_SECRET", cloud.secret_key)
        rest = Rest(cloud.address, cloud.org, cloud.access_key, "env:REST_SECRET")
        steps = await found(config, rest=rest, product_key="KV315idW")
        assert steps["EnOS REST"].verdict is Verdict.OK
        assert "product meter" in steps["EnOS REST"].saw
        monkeypatch.setenv("REST_SECRET", "wrong")
        finding = (await found(config, rest=rest))["EnOS REST"]
    assert (finding.verdict, finding.exit_code) == (Verdict.FAILED, 67)
    assert "wrong" not in finding.next


def test_modem_manager_is_found_and_kept_off(tmp_path: Path) -> None:
    look = doctor._modem_manager
    assert look(tmp_path)[0] is Verdict.OK
    (tmp_path / "123").mkdir()
    (tmp_path / "123" / "comm").write_text("ModemManager\n")
    assert look(tmp_path, tmp_path)[0] is Verdict.WARNING
    rules = tmp_path / "etc/udev/rules.d/61-nbiot-station.rules"
    rules.parent.mkdir(parents=True)
    rules.touch()
    assert look(tmp_path, tmp_path)[0] is Verdict.OK


def test_the_file_system_is_that_of_the_nearest_mount(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"a / ext4 rw 0 0\nb {tmp_path} tmpfs rw 0 0\nc {tmp_path}x nfs rw 0 0\n")
    assert filesystem(tmp_path / "state", str(mounts)) == "tmpfs"
    assert filesystem(Path("/etc"), str(mounts)) == "ext4"
