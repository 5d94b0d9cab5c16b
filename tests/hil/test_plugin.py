"""The plugin as a user has it: in a project of theirs, in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

pytestmark = pytest.mark.unhygienic

# What a careful project would say: nothing of the plugin may stumble over it.
CONFIG = """
[tool.pytest.ini_options]
asyncio_mode = "auto"
asyncio_default_fixture_loop_scope = "function"
addopts = ["--strict-markers", "--strict-config", "-p", "no:cacheprovider"]
filterwarnings = ["error"]
"""


class Project:
    """A folder of somebody's, with tests in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.write("pyproject.toml", CONFIG)

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def run(self, *options: str, code: int = 0) -> str:
        """Run pytest there; what it said."""
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-rA", *options],
            cwd=self.folder,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=120,
        )
        assert done.returncode == code, done.stdout
        return done.stdout


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


TESTS = """
import pytest

async def test_attached(modem, slot, session, cloud):
    assert (await modem.profile.address()).startswith("10.")
    await session.report({"t": 1})
    assert cloud.counters.accepted == 1

@pytest.mark.modem("bc66")
async def test_only_there(modem):
    assert modem.profile.name == "bc66"

@pytest.mark.needs("power", "emulator")
async def test_power(power, slot):
    await power.off()

@pytest.mark.needs("crane")
async def test_crane(modem):
    raise AssertionError

def test_without_a_modem():
    pass
"""


def test_without_a_rig_everything_runs_on_software_modems(project: Project) -> None:
    project.write("test_it.py", TESTS)
    said = project.run("--junitxml=j.xml")
    assert "8 passed, 5 skipped" in said
    assert "bc95: this test is for bc66, the slot has a bc95" in said
    assert "bc66: needs 'crane', which is no tag of this slot" in said
    cases = ET.parse(project.folder / "j.xml").iter("testcase")
    found = {
        case.get("name"): {p.get("name"): p.get("value") for p in case.iter("property")}
        for case in cases
    }
    assert found["test_attached[bc66]"] == {
        "slot": "bc66",
        "model": "BC66",
        "firmware": "BC66NBR01A11",
    }
    assert found["test_without_a_modem"] == {}
    assert not (project.folder / "at-traces").exists()


def test_a_failed_test_leaves_its_trace_and_one_that_hangs_says_where(project: Project) -> None:
    project.write(
        "test_it.py",
        "import asyncio, pytest\n"
        "async def test_fails(modem):\n    await modem.imei()\n    assert False, 'as wanted'\n"
        "@pytest.mark.hil(within=0.5)\n"
        "async def test_hangs(modem):\n    await asyncio.sleep(60)\n",
    )
    said = project.run("--slot", "bc66", code=1)
    assert "AT trace" in said
    assert "> AT+CGSN=1" in said
    assert "not done within 0.5 s; the last step was: address" in said
    trace, other = sorted((project.folder / "at-traces").iterdir())
    assert trace.name == "test_it-test_fails-bc66.jsonl"
    assert other.name == "test_it-test_hangs-bc66.jsonl"
    header = json.loads(trace.read_text().splitlines()[0])
    assert header["slot"] == "bc66"


def test_slots_of_a_rig_file(project: Project) -> None:
    project.write(
        "rig.toml",
        '[slot.roof]\nport = "emulator:bc66?speed=100"\nmodem = "bc66"\ntags = ["crane"]\n'
        '[slot.cellar]\nport = "emulator:bc95?speed=100"\n',
    )
    project.write("test_it.py", TESTS)
    said = project.run("--rig", "rig.toml", "--slot", "roof", code=1)
    assert "test_crane[roof]" in said
    assert "cellar" not in said
    said = project.run("--rig", "rig.toml", "--slot", "attic", code=4)
    assert "--slot attic: unknown; there are roof, cellar" in said
    said = project.run("--rig", "nowhere.toml", code=4)
    assert "nowhere.toml" in said


def test_a_slot_of_somebody_elses_is_left_alone(project: Project) -> None:
    project.write(
        "test_it.py",
        "import pytest\n"
        "@pytest.fixture\ndef slot():\n    return 7\n"
        "def test_own(slot):\n    assert slot == 7\n"
        "@pytest.mark.parametrize('slot', [1, 2])\ndef test_given(slot):\n    assert slot < 3\n",
    )
    assert "3 passed" in project.run()


def test_repeating(project: Project) -> None:
    project.write("test_it.py", "def test_one(slot):\n    pass\n")
    said = project.run("--slot-repeat", "3", "--slot", "bc66")
    assert "test_one[bc66-3]" in said
    assert "3 passed" in said


def test_a_port_in_use_is_told(project: Project, tmp_path: Path) -> None:
    from hil.lock import locked

    master, slave = os.openpty()
    try:
        port = os.ttyname(slave)
        project.write("rig.toml", f'[slot.one]\nport = "{port}"\nmodem = "bc66"\n')
        project.write("test_it.py", "async def test_it(modem):\n    pass\n")
        with locked(port):
            said = project.run("--rig", "rig.toml", code=1)
        assert "slot one" in said
        assert port in said
    finally:
        os.close(master)
        os.close(slave)


LOST = """
from contextlib import asynccontextmanager
import hil.labgrid
from hil.emulator import Options, PtyModem

@asynccontextmanager
async def acquired(place, *, on_lost):
    hil.labgrid.lose = lambda: on_lost(hil.labgrid.PlaceLost(f"labgrid place {place} is lost"))
    async with PtyModem("bc66", Options(attached=True, speed=100)) as pty:
        if place == "at-once":
            hil.labgrid.lose()
        yield pty.path

hil.labgrid.acquired = acquired
"""


def test_a_place_that_is_lost_ends_the_test(project: Project) -> None:
    project.write("conftest.py", LOST)
    project.write(
        "rig.toml",
        '[slot.a]\nport = "labgrid:later"\nmodem = "bc66"\n'
        '[slot.b]\nport = "labgrid:at-once"\nmodem = "bc66"\n',
    )
    project.write(
        "test_it.py",
        "import asyncio, hil.labgrid\n"
        "async def test_it(modem):\n    hil.labgrid.lose()\n    await asyncio.sleep(3600)\n",
    )
    said = project.run("--rig", "rig.toml", code=1)
    assert "labgrid place later is lost" in said
    assert "labgrid place at-once is lost" in said
    assert "1 failed, 1 error" in said


def test_secrets_are_not_shown(project: Project) -> None:
    secret = "Kq81xYp2uGY8INjEgd9Z"
    project.write("secret", secret)
    (project.folder / "secret").chmod(0o600)
    project.write(
        "rig.toml",
        '[slot.one]\nport = "emulator:bc66?speed=100"\nmodem = "bc66"\n'
        f'secret = "file:{project.folder}/secret"\n',
    )
    (project.folder / "rig.toml").chmod(0o600)
    project.write(
        "test_it.py",
        "async def test_leaks(session):\n"
        "    text = session.enos.device.signer._secret.reveal()\n"
        "    print('it is', text)\n"
        "    assert text == 'something else'\n",
    )
    said = project.run("--rig", "rig.toml", code=1)
    assert "***" in said
    assert secret not in said


def test_what_a_run_pays_that_does_not_use_it(project: Project) -> None:
    """At most 20 ms of processor time for the imports; whole runs differ by more than that."""
    code = (
        "import sys, time, pytest, pytest_asyncio\n"
        "before = set(sys.modules)\n"
        "began = time.process_time()\n"
        "import hil.plugin, hil.fixtures\n"
        "took = time.process_time() - began\n"
        "print(took, *sorted(set(sys.modules) - before))"
    )
    took = []
    for _ in range(5):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        seconds, *modules = done.stdout.split()
        assert modules == ["hil", "hil.fixtures", "hil.plugin"], "something heavy is imported"
        took.append(float(seconds))
    assert min(took) < 0.02


# --- unit tests with modem_mock -----------------------------------------------------------------

MOCKED = """
import pytest
from nbiot.errors import CommandRefused, PortLost
from nbiot.modem import Modem

async def program(port):
    async with Modem(port, model="bc66") as modem:
        return (await modem.signal()).rssi

async def test_as_recorded(modem_mock):
    mock = modem_mock("signal.jsonl")
    assert await program("/dev/ttyNONE") == -77
    assert mock.sent[0] == "AT"
    assert mock.unknown == []

async def test_other_words(modem_mock):
    mock = modem_mock("signal.jsonl")
    mock.answer("AT+CSQ", "+CSQ: 0,99")
    assert await program("/dev/ttyNONE") == -113

async def test_refused(modem_mock):
    mock = modem_mock("signal.jsonl")
    mock.answer("AT+CSQ", final="+CME ERROR: 3")
    with pytest.raises(CommandRefused):
        await program("/dev/ttyNONE")

async def test_unplugged(modem_mock):
    mock = modem_mock("signal.jsonl")
    async with Modem("COM3", model="bc66") as modem:
        mock.unplug()
        with pytest.raises(PortLost):
            await modem.signal()
    assert "AT+NONSENSE" not in mock.unknown

async def test_unknown_commands_get_an_error(modem_mock):
    from nbiot.at import Command
    mock = modem_mock("signal.jsonl")
    async with Modem("COM3", model="bc66") as modem:
        with pytest.raises(CommandRefused):
            await modem.channel.run(Command(b"AT+NONSENSE"))
    assert mock.unknown == ["AT+NONSENSE"]
"""


def test_a_mock_for_unit_tests(project: Project) -> None:
    subprocess.run(
        [sys.executable, "-m", "nbiot", "info", "--port", "emulator:bc66?attached=1&speed=100",
         "--modem", "bc66", "--trace", "signal.jsonl", "--quiet"],
        cwd=project.folder,
        check=True,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    project.write("test_it.py", MOCKED)
    assert "5 passed" in project.run()


def test_a_mock_answers_from_a_capture(project: Project) -> None:
    captures = Path(__file__).parents[1] / "captures" / "bc95.jsonl"
    project.write(
        "test_it.py",
        "import pytest\nfrom nbiot.at import Command, Shape\n"
        "from nbiot.channel import Channel\nfrom modems.bc95 import BC95\n"
        "async def test_it(modem_mock):\n"
        f"    mock = modem_mock({str(captures)!r} + '#bc95-b657sp5-oceanconnect')\n"
        "    channel = Channel(await mock.open_link('x', baudrate=9600), BC95.dialect)\n"
        "    reply = await channel.run(BC95.commands['signal']())\n"
        "    assert reply['rssi'] == 25\n"
        "    await channel.close()\n",
    )
    assert "1 passed" in project.run()


# --- Ctrl-C -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_writes_what_there_is(tmp_path: Path, number: signal.Signals, code: int) -> None:
    run = subprocess.Popen(
        [sys.executable, "-m", "nbiot", "hil", "run", "--slot", "bc66", "--soak", "60",
         "-k", "udp or soak or sim", "--html", "r.html", "--json", "r.json"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip
    soak = tmp_path / "at-traces"
    while run.poll() is None and not list(soak.glob("test_soak*")):
        time.sleep(0.05)
    run.send_signal(number)
    said, _ = run.communicate(timeout=60)
    assert run.returncode == code, said
    assert "interrupted after" in said
    found = json.loads((tmp_path / "r.json").read_text())
    assert found["interrupted"]
    assert found["counts"]["passed"] >= 2
    assert "Interrupted after" in (tmp_path / "r.html").read_text()


def test_nothing_checked_is_no_success(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "nbiot", "hil", "run", "--slot", "bc95", "-k", "test_sleep_and"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "nothing was checked: 1 skipped" in done.stdout
