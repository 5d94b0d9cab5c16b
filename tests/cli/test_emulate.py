"""``nbiot emulate`` as a process: its ports, files, and what it refuses."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nbiot.link import open_link
from tests.cli.test_cli import NBIOT, environment, nbiot
from tests.link.far import Ear

IMEIS = ["867726030047601", "867726030047619", "867726030047627"]


class Running:
    """An emulator process; `said` is what it wrote on standard output."""

    def __init__(self, process: subprocess.Popen[str], lines: int) -> None:
        assert process.stdout is not None
        self.process = process
        self.said = [process.stdout.readline().rstrip("\n") for _ in range(lines)]
        self.told = ""

    @property
    def port(self) -> str:
        return self.said[0]

    def stop(self) -> None:
        """Ctrl-C."""
        self.process.send_signal(signal.SIGINT)
        _, self.told = self.process.communicate(timeout=10)


@contextmanager
def emulate(*args: str, lines: int = 1) -> Iterator[Running]:
    process = subprocess.Popen(
        [*NBIOT, "emulate", *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    try:
        running = Running(process, lines)
        yield running
        running.stop()
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def free_ports(count: int = 1) -> int:
    """The first of so many TCP ports in a row that nobody has."""
    for first in range(42_000 + os.getpid() % 5_000, 60_000, count):
        try:
            for number in range(first, first + count):
                with socket.create_server(("127.0.0.1", number)):
                    pass
        except OSError:
            continue
        return first
    raise AssertionError("no free ports")


def imei_at(port: str, *more: str) -> str:
    done = nbiot("info", "--port", port, "--json", "--quiet", *more)
    assert done.returncode == 0, done.stdout + done.stderr
    imei = json.loads(done.stdout)["imei"]
    assert isinstance(imei, str)
    return imei


def answer(port: str, *commands: str) -> str:
    done = nbiot("at", "--port", port, *commands)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# --- ports --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tcp", "rfc2217"])
@pytest.mark.parametrize("model", ["bc95", "bc66"])
def test_a_tcp_port_serves_our_own_info(kind: str, model: str) -> None:
    number = free_ports()
    scheme = "socket" if kind == "tcp" else kind
    with emulate(model, f"--{kind}", str(number), "--attached") as running:
        assert running.port == f"{scheme}://127.0.0.1:{number}"
        assert imei_at(running.port) == imei_at(running.port) == IMEIS[0]
    assert running.process.returncode == 130
    assert f"{model} is ready; try: nbiot info --port {running.port}" in running.told
    assert "Traceback" not in running.told
    with socket.create_server(("127.0.0.1", number)):
        pass  # it is free again


def test_many_modems_count_their_ports_and_numbers() -> None:
    first = free_ports(3)
    with emulate("bc95", "--tcp", str(first), "--count", "3", "--attached", lines=3) as running:
        assert running.said == [f"socket://127.0.0.1:{first + index}" for index in range(3)]
        assert [imei_at(port) for port in running.said] == IMEIS
    assert "3 bc95 are ready" in running.told


def test_many_pseudo_terminals() -> None:
    with emulate("bc95", "--count", "2", "--attached", lines=2) as running:
        assert [imei_at(port) for port in running.said] == IMEIS[:2]


def test_json_tells_every_port() -> None:
    with emulate("bc66", "--rfc2217", "0", "--count", "2", "--json") as running:
        found = json.loads(running.port)
        assert (found["ok"], found["model"]) == (True, "bc66")
        assert [modem["imei"] for modem in found["modems"]] == IMEIS[:2]
        assert all(m["port"].startswith("rfc2217://127.0.0.1:") for m in found["modems"])
    assert running.told.count("ready") == 0


@pytest.mark.parametrize("before", [0, 1])
def test_a_port_in_use_is_named(before: int) -> None:
    first = free_ports(2)
    with socket.create_server(("127.0.0.1", first + before)):
        args = ("bc95", "--tcp", str(first), "--count", "2")
        done = nbiot("emulate", *args)
        as_json = nbiot("emulate", *args, "--json")
    assert (done.returncode, done.stdout) == (11, "")
    assert f"TCP port {first + before} of 127.0.0.1 is in use" in done.stderr
    found = json.loads(as_json.stdout)
    assert (found["error"], found["exit_code"]) == ("PortBusy", 11)
    with socket.create_server(("127.0.0.1", first + 1 - before)):
        pass  # nothing is left behind


def test_an_address_of_another_machine_is_refused() -> None:
    done = nbiot("emulate", "bc95", "--tcp", "0", "--host", "192.0.2.1")
    assert done.returncode == 2
    assert "an address of this machine" in done.stderr


def test_a_host_for_everybody_says_so() -> None:
    with emulate("bc95", "--tcp", "0", "--host", "0.0.0.0") as running:
        port = running.port.replace("0.0.0.0", "127.0.0.1")
        assert imei_at(port) == IMEIS[0]
    assert "Whoever reaches this machine's address can use them" in running.told


async def test_dtr_is_wired_to_the_reset_pin() -> None:
    args = ("bc28", "--rfc2217", "0", "--wiring", "dtr=reset", "--speed", "10")
    with emulate(*args) as running:
        link = await open_link(running.port, baudrate=9600)
        ear = Ear()
        link.start(ear)
        try:
            await link.set_lines(dtr=True)
            await asyncio.sleep(0.1)
            await link.set_lines(dtr=False)
            await ear.until(lambda: b"Neul \r\n\r\nOK\r\n" in ear.data, 5)
        finally:
            await link.close()
    assert b"REBOOT_CAUSE_SECURITY_RESET_PIN" in ear.data


# --- files --------------------------------------------------------------------------------------

NETWORK = """\
[network]
plmn = "26201"
attach_delay = 0

[[cell]]
earfcn = 2509
pci = 226
cell_id = 0x0D09F951
tac = 0x7871
band = 8
signal = [[0, -82, 23]]
"""


def test_a_network_file_makes_the_network(tmp_path: Path) -> None:
    path = tmp_path / "net.toml"
    path.write_text(NETWORK)
    with emulate("bc66", "--network", str(path), "--attached") as running:
        assert '"26201"' in answer(running.port, "AT+COPS?")
    assert '"26201"' in answer(f"emulator:bc66?network={path}&attached=1", "AT+COPS?")


def test_a_mistake_in_a_network_file_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "net.toml"
    path.write_text(NETWORK.replace("0, -82, 23", "0, -8200, 23"))
    for done in (
        nbiot("emulate", "bc95", "--tcp", "0", "--network", str(path)),
        nbiot("info", "--port", f"emulator:bc95?network={path}"),
    ):
        assert (done.returncode, done.stdout) == (2, "")
        assert f"network: '{path}' cannot be used" in done.stderr
        assert f"{path}:11: cell[0].signal" in done.stderr
        assert "; allowed: " in done.stderr.splitlines()[-1]


SCRIPT = """\
def setup(modem):
    @modem.script.command("AT+FOO?")
    def foo(call):
        return "+FOO:42"
"""


def test_a_script_adds_a_command(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(SCRIPT)
    with emulate("bc95", "--tcp", "0", "--script", str(path)) as running:
        assert "+FOO:42" in answer(running.port, "AT+FOO?")
    assert "+FOO:42" in answer(f"emulator:bc95?script={path}", "AT+FOO?")


@pytest.mark.parametrize(
    ("text", "line"),
    [("def setup(modem:\n", 1), ("x = 1\n\nraise OSError('mine')\n", 3), ("x = 1\n", 0)],
)
def test_a_script_that_cannot_start_is_refused(tmp_path: Path, text: str, line: int) -> None:
    path = tmp_path / "mine.py"
    path.write_text(text)
    for done in (
        nbiot("emulate", "bc95", "--tcp", "0", "--script", str(path)),
        nbiot("info", "--port", f"emulator:bc95?script={path}"),
    ):
        assert (done.returncode, done.stdout) == (2, "")
        assert "a Python file with a function setup(modem)" in done.stderr
        assert (f"{path}:{line}: " if line else f"{path}: no function setup") in done.stderr
        assert "Traceback" not in done.stderr


def test_settings_survive_the_process(tmp_path: Path) -> None:
    path = tmp_path / "modem.json"
    args = ("bc95", "--tcp", "0", "--nv", str(path))
    with emulate(*args) as running:
        assert "MULTITONE" not in answer(running.port, "AT+NCONFIG?")
        answer(running.port, "AT+NCONFIG=CELL_RESELECTION,TRUE")
    with emulate(*args) as running:
        assert "+NCONFIG:CELL_RESELECTION,TRUE" in answer(running.port, "AT+NCONFIG?")
    told = answer(f"emulator:bc95?nv={path}", "AT+NCONFIG?")
    assert "+NCONFIG:CELL_RESELECTION,TRUE" in told


@pytest.mark.parametrize(
    ("text", "told"),
    [('{"model": "bc66"}', "model = 'bc66'; allowed: bc95"), ("{", "not JSON")],
)
def test_settings_of_another_modem_are_refused(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "modem.json"
    path.write_text(text)
    for done in (
        nbiot("emulate", "bc95", "--tcp", "0", "--nv", str(path)),
        nbiot("info", "--port", f"emulator:bc95?nv={path}"),
    ):
        assert (done.returncode, done.stdout) == (2, "")
        assert "nv: " in done.stderr
        assert told in done.stderr
    assert path.read_text() == text


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ("bc99", "model: 'bc99'"),
        ("bc95 --tcp 65536", "tcp: 65536 cannot be used; allowed: 0 (any free one) to 65535"),
        ("bc95 --tcp 65535 --count 2", "to 65534, so that 2 fit"),
        ("bc95 --rfc2217 -1", "rfc2217: -1"),
        ("bc95 --tcp 0 --rfc2217 0", "one of --tcp and --rfc2217"),
        ("bc95 --count 0", "count: 0 cannot be used; allowed: 1 to 10000"),
        ("bc95 --host 127.0.0.1", "with --tcp or --rfc2217"),
        ("bc95 --tcp 0 --link /tmp/x", "one modem on a pseudo-terminal"),
        ("bc95 --count 2 --link /tmp/x", "one modem on a pseudo-terminal"),
        ("bc95 --tcp 0 --wiring dtr=reset", "with --rfc2217"),
        ("bc95 --rfc2217 0 --wiring dtr", "LINE=PIN"),
        ("bc95 --rfc2217 0 --wiring dtr=reset --wiring dtr=power", "one pin for dtr"),
        (
            "bc95 --rfc2217 0 --wiring cts=reset",
            "wiring: 'cts=reset' cannot be used; allowed: lines: dtr, rts",
        ),
        (
            "bc95 --rfc2217 0 --wiring dtr=pwrkey",
            "wiring: 'dtr=pwrkey' cannot be used; allowed: pins of bc95: reset, power",
        ),
        ("bc95 --cold --off", "one of the two"),
        ("bc95 --baud 1", "baud: 1"),
        ("bc95 --speed nan", "speed: nan"),
        ("bc95 --network /nowhere/net.toml", "cannot be read"),
        ("bc95 --network /tmp", "cannot be read"),
        ("bc95 --script /nowhere/mine.py", "script: '/nowhere/mine.py'"),
        ("bc95 --nv /nowhere/modem.json", "nv: '/nowhere/modem.json'"),
        ("bc95 --nv /tmp", "nv: '/tmp'"),
        ("bc95 --fault late-finl", "late-final"),
    ],
)
def test_bad_input_is_refused_before_anything_is_opened(args: str, told: str) -> None:
    done = nbiot("emulate", *args.split())
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_bad_input_is_json_when_asked_for() -> None:
    found = json.loads(nbiot("emulate", "bc95", "--count", "0", "--json").stdout)
    assert (found["ok"], found["error"], found["exit_code"]) == (False, "BadInput", 2)


# --- what comes in ------------------------------------------------------------------------------


def test_show_prints_a_line_for_a_command_typed_slowly() -> None:
    with emulate("bc66", "--tcp", "0", "--count", "2", "--show", lines=2) as running:
        _type(int(running.port.rpartition(":")[2]), b"AT+CSQ\r\nAT\x1b[2J\rAT\r")
    shown = [line for line in running.told.splitlines() if " > " in line]
    assert shown[:2] == [f"{running.port} > AT+CSQ", f"{running.port} > AT\\x1b"]
    assert "\x1b" not in running.told


def _type(number: int, text: bytes) -> None:
    """Letter by letter, until the answer to a last `AT`."""
    with socket.create_connection(("127.0.0.1", number)) as host:
        host.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for letter in text:
            host.sendall(bytes((letter,)))
            time.sleep(0.01)
        data = b""
        while b"\nOK\r\n" not in data.partition(b"AT\r")[2]:
            assert select.select([host], [], [], 5)[0], data
            data += host.recv(100)
