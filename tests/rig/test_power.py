"""Switching supplies and reset lines, each by something real: a server, a program, a modem."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import ssl
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from hil.hosting import hosted, modem_of
from hil.power import PowerError, check, cycle, is_lasting, power_of, reset_of
from hil.rig import Slot, emulated_rig
from nbiot.errors import BadInput, PortBusy
from nbiot.modem import Modem


def slot(power: dict[str, Any] | None = None, reset: dict[str, Any] | None = None) -> Slot:
    return Slot("a", "socket://127.0.0.1:1", modem="bc66", power=power, reset=reset)


# --- emulated modems --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "over", "begins"),
    [("bc95", "pty", "/dev/"), ("bc95-g", "tcp", "socket:"), ("bc66", "rfc2217", "rfc2217:")],
)
async def test_an_emulated_modem_is_switched_and_reset(model: str, over: str, begins: str) -> None:
    its = Slot("a", f"emulator:{model}?speed=100&over={over}", modem=model)
    async with hosted(its) as port, power_of(its) as power, reset_of(its) as reset:
        assert port.startswith(begins)
        assert power is not None
        assert reset is not None
        pty = modem_of(its)
        assert pty is not None
        for work in (reset.pulse(), cycle(power, 0.05)):
            async with Modem(port, model=model) as modem:
                assert modem.profile.name == model
            before = pty.modem.counters.restarts
            await work
            assert pty.modem.counters.restarts > before
        async with Modem(port, model=model) as modem:
            assert len(await modem.imei()) == 15
        await power.off()
        assert not pty.modem.powered
        await power.on()
        await power.on()
        assert pty.modem.powered
    assert modem_of(its) is None


async def test_an_emulated_modem_that_does_not_run_has_no_switch() -> None:
    its = emulated_rig().slots[0]
    async with power_of(its) as power, reset_of(its) as reset:
        assert power is None
        assert reset is None
    explicit = Slot("a", "emulator:bc66", power={"backend": "emulator"})
    async with power_of(explicit) as power:
        assert power is not None
        with pytest.raises(PowerError, match="not running"):
            await power.off()


async def test_an_emulated_modem_is_opened_over_any_kind_of_port() -> None:
    for over in ("pty", "tcp", "rfc2217"):
        async with Modem(f"emulator:bc66?over={over}", model="bc66") as modem:
            assert len(await modem.imei()) == 15
    with pytest.raises(BadInput) as refused:
        async with Modem("emulator:bc66?over=usb", model="bc66"):
            pass
    assert (refused.value.given, refused.value.allowed) == ("over=usb", "pty, tcp, rfc2217")


async def test_one_slot_is_hosted_once() -> None:
    its = emulated_rig().slots[0]
    async with hosted(its):
        with pytest.raises(PortBusy):
            async with hosted(its):
                pass
    async with hosted(its):
        pass


async def test_any_other_port_is_taken_as_it_stands() -> None:
    async with hosted(slot()) as port:
        assert port == "socket://127.0.0.1:1"


# --- http -------------------------------------------------------------------------------------


class Relay(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, str, bytes, str | None]] = []
        self.status = 200
        self.answers = threading.Event()
        self.answers.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Relay

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        login = self.headers.get("Authorization")
        self.server.asked.append((self.command, self.path, body, login))
        self.server.answers.wait()
        self.send_response(self.server.status)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    do_GET = do_POST = do_PUT = handle_any

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def relay() -> Iterator[Relay]:
    server = Relay()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.answers.set()
    server.shutdown()
    thread.join()
    server.server_close()


def http(relay: Relay, **more: Any) -> dict[str, Any]:
    url = relay.url
    return {"backend": "http", "on_url": f"{url}/r?s=on", "off_url": f"{url}/r?s=off", **more}


async def test_a_relay_by_http(relay: Relay) -> None:
    its = slot(http(relay), http(relay, seconds=0.01))
    assert await check(its, "power") == "http"
    assert relay.asked == []
    async with power_of(its) as power, reset_of(its) as reset:
        assert power is not None
        assert reset is not None
        await cycle(power, 0.01)
        await reset.pulse()
    assert [asked[:2] for asked in relay.asked] == [
        ("GET", "/r?s=off"),
        ("GET", "/r?s=on"),
        ("GET", "/r?s=on"),
        ("GET", "/r?s=off"),
    ]


async def test_post_with_body_and_login(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELAY", "geheim:ä")
    table = http(relay, method="POST", on_body='{"on": "ä"}', user="me", password="env:RELAY")
    async with power_of(slot(table)) as power:
        assert power is not None
        assert "RELAY" not in repr(power)
        await power.on()
        await power.off()
    basic = "Basic bWU6Z2VoZWltOsOk"
    assert relay.asked == [
        ("POST", "/r?s=on", '{"on": "ä"}'.encode(), basic),
        ("POST", "/r?s=off", b"", basic),
    ]


@pytest.mark.parametrize(
    ("status", "says"), [(500, "500"), (404, "404"), (401, "password"), (302, "another URL")]
)
async def test_a_relay_that_refuses(relay: Relay, status: int, says: str) -> None:
    relay.status = status
    async with power_of(slot(http(relay))) as power:
        assert power is not None
        with pytest.raises(PowerError) as caught:
            await power.on()
    assert says in str(caught.value)
    assert "s=on" not in str(caught.value)  # may hold a key


async def test_a_relay_that_does_not_answer(relay: Relay) -> None:
    relay.answers.clear()
    async with power_of(slot(http(relay, timeout=0.1))) as power:
        assert power is not None
        with pytest.raises(PowerError, match=r"within 0.1 s"):
            await power.on()


@pytest.mark.parametrize("said", [b"", b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1", b"x" * 40_000])
async def test_something_else_than_a_relay(said: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        url = f"http://127.0.0.1:{port}/"
        async with power_of(slot({"backend": "http", "on_url": url, "off_url": url})) as power:
            assert power is not None
            with pytest.raises(PowerError, match="answers no HTTP"):
                await power.on()


async def test_a_relay_that_is_not_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # not listening
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/"
        with pytest.raises(PowerError, match="cannot be reached") as caught:
            await check(slot({"backend": "http", "on_url": url, "off_url": url}), "power")
    assert caught.value.exit_code == 14


async def test_https_wants_a_certificate_that_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("needs the Debian package openssl")
    make = "req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -keyout key -out cert"
    names = ["-addext", "subjectAltName=DNS:localhost"]
    subprocess.run(
        ["openssl", *make.split(), *names], cwd=tmp_path, check=True, capture_output=True
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert", tmp_path / "key")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        url = f"https://localhost:{server.sockets[0].getsockname()[1]}/"
        async with power_of(slot({"backend": "http", "on_url": url, "off_url": url})) as power:
            assert power is not None
            with pytest.raises(PowerError, match="certificate"):
                await power.on()
            monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert"))
            await power.on()


async def test_a_cycle_that_is_cancelled_ends_with_on(relay: Relay) -> None:
    async with power_of(slot(http(relay))) as power:
        assert power is not None
        task = asyncio.create_task(cycle(power, 60))
        while not relay.asked:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert [asked[1] for asked in relay.asked] == ["/r?s=off", "/r?s=on"]


# --- programs ---------------------------------------------------------------------------------


def program(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o700)
    return str(path)


def command(on: list[str], **more: Any) -> Slot:
    return slot({"backend": "command", "on_command": on, "off_command": ["true"], **more})


async def test_a_program_gets_its_arguments_and_no_shell(tmp_path: Path) -> None:
    out = tmp_path / "out"
    its = command([program(tmp_path / "p", f'printf "%s|" "$@" >{out}'), "a b", "$(id)", ";"])
    assert await check(its, "power") == "command"
    assert not out.exists()
    async with power_of(its) as power:
        assert power is not None
        await power.on()
        await power.off()
    assert out.read_text() == "a b|$(id)|;|"


async def test_a_program_that_fails(tmp_path: Path) -> None:
    name = program(tmp_path / "p", "echo 'no relay\033[31m here' >&2; exit 3")
    async with power_of(command([name])) as power:
        assert power is not None
        with pytest.raises(PowerError, match=r"ended with 3: no relay\?\[31m here"):
            await power.on()


async def test_a_program_that_does_not_end_is_killed_with_its_children(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    name = program(tmp_path / "p", f"sleep 60 & echo $! >{pid}; wait")
    async with power_of(command([name], timeout=1.5)) as power:
        assert power is not None
        with pytest.raises(PowerError, match=r"within 1.5 s"):
            await power.on()
    child = int(pid.read_text())
    async with asyncio.timeout(30):
        while _lives(child):
            await asyncio.sleep(0.02)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


async def test_a_program_that_is_not_there() -> None:
    with pytest.raises(PowerError, match="no program"):
        await check(command(["/nonexistent/on"]), "power")


UHUBCTL = """
echo "$@" >>{log}
case "$*" in *"-l 9"*) echo "No compatible devices detected!" >&2; exit 1;; esac
cat <<END
Current status for hub 1-1 [2109:2812 VIA Labs USB2.0 Hub, USB 2.10, 4 ports, ppps]
  Port 2: 0503 power highspeed enable connect [1a86:7523 QinHeng]
END
"""


async def test_a_usb_hub(tmp_path: Path) -> None:
    log = tmp_path / "log"
    name = program(tmp_path / "uhubctl", UHUBCTL.format(log=log))
    table = {"backend": "usb-hub", "location": "1-1", "port": 2, "program": name}
    async with power_of(slot(table)) as power:
        assert power is not None
        await power.off()
        await power.on()
    assert log.read_text().splitlines() == ["-l 1-1 -p 2 -a off -r 100", "-l 1-1 -p 2 -a on"]
    assert await check(slot(table), "power") == "usb-hub"
    with pytest.raises(PowerError, match="no port 3"):
        await check(slot({**table, "port": 3}), "power")
    with pytest.raises(PowerError, match="No compatible devices"):
        await check(slot({**table, "location": "9"}), "power")


# --- gpio -------------------------------------------------------------------------------------


@pytest.fixture
def pins(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    gpiozero = pytest.importorskip("gpiozero", reason="pip install 'nbiot-driver[gpio]'")
    from gpiozero.pins.mock import MockFactory

    factory = MockFactory()
    monkeypatch.setattr(gpiozero.Device, "pin_factory", factory)
    yield factory
    factory.reset()


async def test_a_supply_at_a_pin(pins: Any) -> None:
    its = slot({"backend": "gpio", "pin": "GPIO17", "active": "low"})
    assert await check(its, "power") == "gpio"
    assert not is_lasting(its)
    async with power_of(its) as power:
        assert power is not None
        pin = pins.pin(17)
        assert pin.function == "output"
        assert not pin.state  # active low: on from the start, nothing is switched by looking
        await power.off()
        assert pin.state
        await power.on()
        assert not pin.state


async def test_a_reset_line_at_a_pin(pins: Any) -> None:
    its = slot(reset={"backend": "gpio", "pin": "BOARD11"})  # GPIO17
    async with reset_of(its) as reset:
        assert reset is not None
        pin = pins.pin(17)
        pin.clear_states()
        await reset.pulse()
    states = [(state.timestamp, state.state) for state in pin.states]
    assert [state for _, state in states] == [False, True, False]
    assert states[2][0] >= 0.1  # timestamps are since the state before: what a BC66 needs


async def test_pwrkey_is_pulled_after_power_on(pins: Any) -> None:
    its = slot({"backend": "gpio", "pin": "GPIO17", "pwrkey": "GPIO27", "pwrkey_seconds": 0.05})
    async with power_of(its) as power:
        assert power is not None
        key = pins.pin(27)
        key.clear_states()
        await cycle(power, 0.01)
    assert [state.state for state in key.states] == [False, True, False]
    assert key.states[2].timestamp >= 0.05


async def test_a_pin_that_is_taken(pins: Any) -> None:
    its = slot({"backend": "gpio", "pin": "GPIO17"})
    async with power_of(its):
        with pytest.raises(PowerError, match="GPIO17 cannot be used"):
            async with power_of(its):
                pass


async def test_no_raspberry_pi(monkeypatch: pytest.MonkeyPatch) -> None:
    gpiozero = pytest.importorskip("gpiozero", reason="pip install 'nbiot-driver[gpio]'")
    monkeypatch.setattr(gpiozero.Device, "pin_factory", None)
    monkeypatch.setenv("GPIOZERO_PIN_FACTORY", "native")
    if os.path.exists("/proc/device-tree/model"):
        pytest.skip("may be a Raspberry Pi")
    with pytest.raises(PowerError, match="Raspberry Pi"):
        await check(slot({"backend": "gpio", "pin": "GPIO17"}), "power")


async def test_without_gpiozero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gpiozero", None)
    with pytest.raises(PowerError, match="nbiot-driver"):
        await check(slot({"backend": "gpio", "pin": "GPIO17"}), "power")


def test_pwrkey_of_a_modem_that_has_none() -> None:
    its = Slot(
        "a", "socket://x:1", "bc95", power={"backend": "gpio", "pin": "GPIO1", "pwrkey": "GPIO2"}
    )
    with pytest.raises(BadInput) as caught:
        is_lasting(its)
    assert caught.value.field == "pwrkey"


# --- any backend ------------------------------------------------------------------------------


async def test_no_tables() -> None:
    assert await check(slot(), "power") is None
    async with power_of(slot()) as power, reset_of(slot()) as reset:
        assert power is None
        assert reset is None


async def test_a_reset_that_is_cancelled_lets_go(tmp_path: Path) -> None:
    log = tmp_path / "log"
    name = program(tmp_path / "p", f'echo "$1" >>{log}')
    table = {
        "backend": "command",
        "on_command": [name, "on"],
        "off_command": [name, "off"],
        "seconds": 60,
    }
    async with reset_of(slot(reset=table)) as reset:
        assert reset is not None
        task = asyncio.create_task(reset.pulse())
        while not log.exists() or "on" not in log.read_text():
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert log.read_text().split() == ["on", "off"]
    assert stat.S_ISREG(log.stat().st_mode)
