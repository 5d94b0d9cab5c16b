"""What `nbiot station install` writes, looked at by systemd's own tools where they are."""

from __future__ import annotations

import asyncio
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from nbiot.errors import BadInput, StationError
from nbiot.station.deploy import TARGETS, Settings, install, rendered, watched

ROOT = Path(__file__).parents[3]
SLOTS = {"A1": "platform-3f980000.usb-usb-0:1.2:1.0", "A2": "platform-3f980000.usb-usb-0:1.3:1.0"}
SETTINGS = Settings(program="/bin/true", slots=SLOTS)
UNIT = TARGETS["nbiot-station.service"]


def test_writes_every_file_and_says_what_to_type(tmp_path: Path) -> None:
    told = install(tmp_path, SETTINGS)
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert written == set(TARGETS.values())
    assert any("systemctl enable --now nbiot-station" in line for line in told)
    for path in written:
        assert not re.search(r"@[A-Z_]+@", (tmp_path / path).read_text())
        assert (tmp_path / path).stat().st_mode & 0o777 == 0o644


def test_a_second_time_changes_nothing(tmp_path: Path) -> None:
    install(tmp_path, SETTINGS)
    assert sum("unchanged" in line for line in install(tmp_path, SETTINGS)) == len(TARGETS)


def test_what_somebody_changed_is_kept(tmp_path: Path) -> None:
    install(tmp_path, SETTINGS)
    (tmp_path / UNIT).write_text("mine")
    install(tmp_path, SETTINGS)
    assert (tmp_path / f"{UNIT}.old").read_text() == "mine"
    assert "ExecStart" in (tmp_path / UNIT).read_text()


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    told = install(tmp_path, SETTINGS, dry_run=True)
    assert sum("would write" in line for line in told) == len(TARGETS)
    assert not list(tmp_path.iterdir())


def test_where_it_may_not_write_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "etc").write_text("a file")
    with pytest.raises(StationError, match="cannot be written") as caught:
        install(tmp_path, SETTINGS)
    assert "sudo" in caught.value.hint


def test_the_files_are_in_the_package_that_is_built() -> None:
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "files/*" in data["tool"]["setuptools"]["package-data"]["nbiot.station.deploy"]


@pytest.mark.parametrize(
    "settings",
    [
        {"user": "root user"},
        {"config": "station.toml"},
        {"program": "/opt/my nbiot"},
        {"state": "/data"},
        {"slots": {"A 1": "x"}},
        {"slots": {"A1": 'x", RUN+="/bin/sh'}},
    ],
)
def test_settings_that_would_break_a_file_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(BadInput):
        Settings(**settings)  # type: ignore[arg-type]


# --- as systemd sees it -----------------------------------------------------------------------


def unit_lines() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in rendered(SETTINGS)["nbiot-station.service"].splitlines():
        if line and not line.startswith(("#", "[")):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None,
    reason="systemd-analyze is missing: Debian package systemd",
)


@needs_systemd
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    install(tmp_path, SETTINGS)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(tmp_path / UNIT)],
        capture_output=True,
        text=True,
    )
    assert "nbiot-station" not in done.stderr
    assert done.returncode == 0


@needs_systemd
def test_systemd_finds_the_unit_well_shut_in(tmp_path: Path) -> None:
    """``exposure`` goes from 0 to 10; the unit has 2.1."""
    install(tmp_path, SETTINGS)
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--threshold=25", str(tmp_path / UNIT)],
        capture_output=True,
        text=True,
    )
    if "Unknown" in done.stderr or "unrecognized" in done.stderr:
        pytest.skip("this systemd-analyze cannot do it without systemd running")
    assert done.returncode == 0, done.stdout[-500:] + done.stderr


def test_the_command_in_the_unit_is_one_of_ours() -> None:
    from click.testing import CliRunner

    from nbiot.cli import nbiot

    (start,) = unit_lines()["ExecStart"]
    _, *arguments = shlex.split(start)
    result = CliRunner().invoke(nbiot, [*arguments, "--help"])
    assert result.exit_code == 0, result.output
    assert "--config" in result.output


def test_nothing_of_a_dead_station_comes_to_the_disk() -> None:
    unit = unit_lines()
    assert unit["LimitCORE"] == ["0"]
    assert unit["MemorySwapMax"] == ["0"]


# --- as udev sees it --------------------------------------------------------------------------


def rules() -> list[str]:
    lines = rendered(SETTINGS)["nbiot-station.rules"].splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_the_rules_are_of_udevs_grammar() -> None:
    """udev(7): NAME or NAME{attribute}, an operator, a value in double quotes."""
    part = r'[A-Z_]+(\{[A-Za-z_.]+\})?(==|!=|=|\+=|:=)"[^"]*"'
    for rule in rules():
        assert re.fullmatch(rf"{part}(, {part})*", rule), rule


def test_modem_manager_is_kept_off_and_each_slot_has_a_name() -> None:
    assert any('ENV{ID_MM_DEVICE_IGNORE}="1"' in rule for rule in rules())
    assert any('ENV{ID_MM_PORT_IGNORE}="1"' in rule for rule in rules())
    for name, where in SLOTS.items():
        (rule,) = (rule for rule in rules() if f'SYMLINK+="nbiot/{name}"' in rule)
        assert f'ENV{{ID_PATH}}=="{where}"' in rule


# --- the watchdog -----------------------------------------------------------------------------


@pytest.mark.parametrize("abstract", [False, True], ids=["path", "abstract"])
async def test_systemd_is_told_that_the_station_lives(tmp_path: Path, abstract: bool) -> None:
    name = f"nbiot-{tmp_path.name}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as ours:
        ours.bind(f"\0{name}" if abstract else name)
        environ = {"NOTIFY_SOCKET": f"@{name}" if abstract else name, "WATCHDOG_USEC": "30000"}
        loop = asyncio.get_running_loop()
        watch = asyncio.create_task(watched(environ))
        said = [await loop.sock_recv(ours, 100) for _ in range(3)]
        watch.cancel()
        with pytest.raises(asyncio.CancelledError):
            await watch
        while said[-1] == b"WATCHDOG=1":
            said.append(await loop.sock_recv(ours, 100))
    assert said[0] == b"READY=1"
    assert said[1] == b"WATCHDOG=1"
    assert said[-1] == b"STOPPING=1"


async def test_without_systemd_nothing_is_told() -> None:
    watch = asyncio.create_task(watched({}))
    await asyncio.sleep(0)
    watch.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watch


async def test_a_systemd_that_went_away_stops_nothing(tmp_path: Path) -> None:
    environ = {"NOTIFY_SOCKET": str(tmp_path / "gone"), "WATCHDOG_USEC": "3000"}
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await watched(environ)


def test_the_program_is_that_of_this_environment() -> None:
    unit = rendered(Settings())["nbiot-station.service"]
    assert f"ExecStart={Path(sys.executable).with_name('nbiot')} station run" in unit
