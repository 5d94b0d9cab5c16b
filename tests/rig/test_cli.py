"""``nbiot rig``, as a person types it."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from click.testing import CliRunner

from hil.emulator import Options, PtyModem
from hil.lock import FOLDER_VARIABLE
from hil.rig import load
from nbiot.cli import main
from nbiot.cli.rig import _text_of
from nbiot.errors import ModemSilent
from nbiot.link import ports as link_ports
from nbiot.link.ports import PortInfo

NBIOT = [sys.executable, "-m", "nbiot", "rig"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    return tmp_path


def nbiot(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*NBIOT, *arguments], capture_output=True, text=True, timeout=60)


def typed(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The same in this process, which takes no start."""
    out, err = io.StringIO(), io.StringIO()
    code: Any = 0
    with redirect_stdout(out), redirect_stderr(err):
        try:
            main(["rig", *arguments])
        except SystemExit as stop:
            code = stop.code
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


async def nbiot_async(*arguments: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(nbiot, *arguments)


@pytest_asyncio.fixture
async def bc66() -> AsyncIterator[PtyModem]:
    async with PtyModem("bc66", Options(speed=20)) as pty:
        yield pty


def write(text: str) -> None:
    Path("rig.toml").write_text(text)
    Path("rig.toml").chmod(0o600)


# --- init -------------------------------------------------------------------------------------

PORTS = [
    PortInfo("/dev/ttyUSB0", '/dev/serial/by-id/usb-1a86_ü"x', "USB\nSerial", 1, 2, "x"),
    PortInfo("/dev/ttyS0", "", "n/a", None, None, ""),
    PortInfo("/dev/ttyUSB1", "", "", 1, 2, ""),
]


@pytest.fixture
def no_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_ports, "list_ports", list)


def invoke(*arguments: str) -> Any:
    from nbiot.cli import nbiot as group

    return CliRunner().invoke(group, ["rig", *arguments])


@pytest.mark.usefixtures("no_ports")
def test_without_ports_it_writes_the_emulated_ones(folder: Path) -> None:
    result = invoke("init")
    assert result.exit_code == 0
    assert "No serial port is plugged in" in result.output
    assert [slot.modem for slot in load(folder / "rig.toml").slots] == ["bc95", "bc95-g", "bc66"]
    assert stat.S_IMODE((folder / "rig.toml").stat().st_mode) == 0o600


@pytest.mark.usefixtures("no_ports")
@pytest.mark.parametrize("kind", ["file", "link"])
def test_it_never_overwrites(folder: Path, kind: str) -> None:
    path = folder / "mine.toml"
    if kind == "file":
        path.write_text("mine")
    else:
        path.symlink_to(folder / "elsewhere")
    result = invoke("init", "--out", str(path))
    assert result.exception is not None
    assert "nothing is overwritten" in str(result.exception)
    assert path.is_symlink() or path.read_text() == "mine"
    assert not (folder / "elsewhere").exists()


def test_what_is_plugged_in(folder: Path) -> None:
    said = [("bc66", "BC66 01\x1b"), ModemSilent("nothing\nthere"), ("bc66", "BC66 02")]
    write(_text_of(PORTS, said))
    text = (folder / "rig.toml").read_text()
    assert "# no modem: nothing?there" in text
    slots = load(folder / "rig.toml", ports=False).slots
    assert [(slot.name, slot.port, slot.modem) for slot in slots] == [
        ("bc66", PORTS[0].by_id, "bc66"),
        ("bc66-2", "/dev/ttyUSB1", "bc66"),
    ]
    write(_text_of(PORTS, [None, None, None]))
    slots = load(folder / "rig.toml", ports=False).slots
    assert [slot.name for slot in slots] == ["slot1", "slot2", "slot3"]


def test_what_it_writes_as_comments_is_right_when_they_are_taken_away(folder: Path) -> None:
    text = _text_of(PORTS[:1], [("bc66", "x")])
    lines = [line.removeprefix("# ") for line in text.splitlines()[2:]]
    text = "\n".join(lines).replace('"..."', '"abcd"')
    write(text.replace("HOST[:PORT]", "abc.def.com:5683"))
    (slot,) = load(folder / "rig.toml", ports=False).slots
    assert None not in (slot.apn, slot.server, slot.secret, slot.power, slot.reset)


async def test_init_asks_the_modems(
    bc66: PtyModem, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nbiot.cli.rig import _init

    port = PortInfo(bc66.path, "", "pty", None, None, "")
    monkeypatch.setattr(link_ports, "list_ports", lambda: [port])
    await _init(folder / "rig.toml", True)
    (slot,) = load(folder / "rig.toml").slots
    assert (slot.name, slot.port, slot.modem) == ("bc66", bc66.path, "bc66")


# --- check ------------------------------------------------------------------------------------


def test_check_without_a_file_tries_the_emulated_modems() -> None:
    done = nbiot("check", "--json", "-q")
    assert done.returncode == 0
    found = json.loads(done.stdout)
    assert [slot["modem"]["profile"] for slot in found["slots"]] == ["bc95", "bc95-g", "bc66"]
    assert found["ok"]


async def test_check_says_what_is_wrong_in_each_slot(bc66: PtyModem) -> None:
    write(
        f'[slot.good]\nport = "{bc66.path}"\nmodem = "bc66"\n'
        'power = { backend = "command", on_command = ["true"], off_command = ["/no/such"] }\n'
        '[slot.other]\nport = "emulator:bc95?speed=10"\nmodem = "bc66"\n'
        '[slot.dead]\nport = "/dev/ttyNONE"\nsecret = "env:NBIOT_NO_SUCH"\n'
        '[slot.nosim]\nport = "emulator:bc66?sim=absent&speed=10"\n'
        '[slot.mute]\nport = "socket://127.0.0.1:9"\n'
    )
    done = await nbiot_async("check", "--json", "-q", "rig.toml")
    found = {slot["slot"]: slot for slot in json.loads(done.stdout)["slots"]}
    what = {name: {c: e["error"] for c, e in s["errors"].items()} for name, s in found.items()}
    assert what == {
        "good": {"power": "PowerError"},
        "other": {"modem": "OtherModem"},
        "dead": {"port": "PortMissing", "secret": "SecretUnavailable"},
        "nosim": {"SIM": "SimMissing"},
        "mute": {"modem": "PortMissing"},
    }
    assert done.returncode == 14  # the first that failed
    assert found["good"]["saw"]["SIM"] == "ready"
    assert "states bc66, but this is a BC95" in found["other"]["errors"]["modem"]["message"]
    plain = await nbiot_async("check")
    assert "good   " in plain.stdout
    assert 'modem = "bc95"' in plain.stdout
    assert "there is no port /dev/ttyNONE" in plain.stderr + plain.stdout


async def test_check_says_who_has_a_port(bc66: PtyModem) -> None:
    write(f'[slot.a]\nport = "{bc66.path}"\n')
    from hil.lock import locked

    with locked(bc66.path):
        done = await nbiot_async("check", "-q")
    assert done.returncode == 11
    assert f"(pid {os.getpid()})" in done.stdout


def test_a_bad_file_is_told_before_anything_is_tried() -> None:
    write('[slot.a]\nprot = "emulator:bc66"\n')
    done = nbiot("check")
    assert (done.returncode, done.stdout) == (2, "")
    assert "rig.toml:2: slot a has no key 'prot'" in done.stderr
    assert "Did you mean port?" in done.stderr
    assert json.loads(typed("check", "--json").stdout)["error"] == "BadRig"
    assert typed("check", "other.toml").returncode == 2


async def test_ctrl_c_lets_go_of_everything(bc66: PtyModem) -> None:
    write(f'[slot.a]\nport = "{bc66.path}"\n[slot.b]\nport = "emulator:bc66"\n')
    bc66.pause()  # it never answers
    with subprocess.Popen([*NBIOT, "check"], stdout=-1, stderr=-1, text=True) as process:
        assert process.stderr is not None
        line = await asyncio.to_thread(process.stderr.readline)
        assert ": port: " in line
        await asyncio.sleep(0.5)
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        assert await asyncio.to_thread(process.wait) == 130
        assert time.monotonic() - began < 20
        assert "interrupted" in process.stderr.read()
        assert process.stdout is not None
        assert process.stdout.read() == ""
    bc66.drain()
    bc66.resume()
    done = await nbiot_async("check", "-q")
    assert done.returncode == 0


# --- power and reset --------------------------------------------------------------------------


def switches(folder: Path) -> None:
    program = folder / "switch"
    program.write_text(f'#!/bin/sh\necho "$1" >>{folder}/log\n')
    program.chmod(0o700)
    table = (
        '{ backend = "command", on_command = ["./switch", "on"], off_command = ["./switch", "off"]'
    )
    write(
        f'[slot.a]\nport = "/dev/ttyNONE"\npower = {table} }}\nreset = {table}, seconds = 0.01 }}\n'
        '[slot.b]\nport = "emulator:bc66"\n[slot.c]\nport = "socket://x:1"\n'
    )


@pytest.mark.parametrize(
    ("what", "log"),
    [
        (["power", "a", "on"], "on"),
        (["power", "a", "off"], "off"),
        (["power", "a", "cycle", "--seconds", "0.01"], "off on"),
        (["reset", "a"], "on off"),
    ],
)
def test_switching(folder: Path, what: list[str], log: str) -> None:
    switches(folder)
    done = typed(*what)
    assert (done.returncode, done.stderr) == (0, "")
    assert (folder / "log").read_text().split() == log.split()


@pytest.mark.parametrize(
    ("what", "code", "says"),
    [
        (["power", "x", "on"], 2, "allowed: a, b, c"),
        (["power", "b", "on"], 2, "emulated"),
        (["reset", "b"], 2, "emulated"),
        (["power", "c", "on"], 2, "a table power"),
        (["reset", "c"], 2, "a table reset"),
        (["power", "a", "cycle", "--seconds", "nan"], 2, "above 0"),
        (["power", "a", "blink"], 2, "cycle"),
    ],
)
def test_what_cannot_be_switched(folder: Path, what: list[str], code: int, says: str) -> None:
    switches(folder)
    done = typed(*what)
    assert done.returncode == code
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_switch_that_fails(folder: Path) -> None:
    switches(folder)
    (folder / "switch").write_text("#!/bin/sh\necho no relay >&2; exit 1\n")
    done = typed("power", "a", "on")
    assert done.returncode == 14
    assert "no relay" in done.stderr


def test_ctrl_c_in_a_cycle_gives_the_supply_back(folder: Path) -> None:
    switches(folder)
    with subprocess.Popen([*NBIOT, "power", "a", "cycle", "--seconds", "60"]) as process:
        while not (folder / "log").exists():
            assert process.poll() is None
            time.sleep(0.02)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130
    assert (folder / "log").read_text().split() == ["off", "on"]


def test_a_pin_stays_as_long_as_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gpiozero", reason="pip install 'nbiot-driver[gpio]'")
    monkeypatch.setenv("GPIOZERO_PIN_FACTORY", "mock")
    write('[slot.a]\nport = "/dev/ttyNONE"\npower = { backend = "gpio", pin = "GPIO17" }\n')
    assert typed("power", "a", "on").returncode == 0
    with subprocess.Popen([*NBIOT, "power", "a", "off"], stdout=-1, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "a: off\n"
        assert "until Ctrl-C" in process.stdout.readline()
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130


async def test_a_modem_in_use_by_another_run_is_not_switched(bc66: PtyModem, folder: Path) -> None:
    from hil.lock import locked

    switches(folder)
    text = (folder / "rig.toml").read_text()
    (folder / "rig.toml").write_text(text.replace("/dev/ttyNONE", bc66.path))
    with locked(bc66.path):
        done = await nbiot_async("power", "a", "off")
    assert done.returncode == 11
    assert not (folder / "log").exists()
    assert (await nbiot_async("power", "a", "off")).returncode == 0
