"""Our side against labgrid's own programs, on loopback, from an environment of their own."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from fcntl import LOCK_EX, flock
from pathlib import Path

import pytest

from hil.bench import until
from hil.cloud import Cloud
from hil.emulator import Options, PtyModem
from hil.examine import examine
from hil.hosting import hosted
from hil.labgrid import PROGRAM_VARIABLE, PlaceLost, url_of
from hil.power import PowerError, cycle, power_of
from hil.power.programs import run
from hil.rig import Rig, Slot
from nbiot.errors import PortBusy, PortError
from nbiot.modem import Modem
from tests.hil.servers import PRODUCT_KEY, SECRET, echo
from tests.rig import preloaded

LABGRID = "labgrid==26.0.1"
PLACE = Slot("a", "labgrid:slot0", modem="bc66", power={"backend": "labgrid", "place": "slot0"})


@pytest.fixture(scope="session")
def programs() -> Path:
    """labgrid's programs; they are installed once into the user's cache."""
    if shutil.which("ser2net") is None:
        pytest.skip("needs the Debian package ser2net")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nbiot-tests"
    folder = cache / LABGRID.replace("==", "-")
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        flock(lock, LOCK_EX)
        if not (folder / "installed").exists():
            pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "-q", LABGRID]
            try:
                subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
                subprocess.run(pip, check=True, timeout=180)
            except (OSError, subprocess.SubprocessError) as error:
                pytest.skip(f"{LABGRID} cannot be installed: {error}")
            (folder / "installed").touch()
    return folder / "bin"


class Lab:
    """A coordinator, and an exporter with one modem and a relay for it."""

    def __init__(self, programs: Path, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.address = f"127.0.0.1:{self._port}"
        self._programs = programs
        self._folder = folder
        self._number = 0
        self.program = folder / "labgrid-client"

    @contextmanager
    def started(self, name: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        self._number += 1
        log = self._folder / f"{name}-{self._number}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [self._programs / name, *arguments], stdout=out, stderr=out, cwd=self._folder
            )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    @asynccontextmanager
    async def clients(self) -> AsyncIterator[None]:
        """Makes ``self.program``."""
        path = str(self._folder / "socket")
        preloaded.write_caller(self.program, path)
        with self.started("python", preloaded.__file__, path, "labgrid.remote.client:main"):
            while "ready" not in (self._folder / "python-1.log").read_text():
                await asyncio.sleep(0.02)
            yield

    @asynccontextmanager
    async def coordinator(self) -> AsyncIterator[subprocess.Popen[bytes]]:
        # Places that are made by labgrid-client are written to this file within 15 s only.
        places = "slot0: {matches: [{exporter: rack1, group: slot0, cls: '*'}]}\n"
        (self._folder / "places.yaml").write_text(places)
        with self.started("labgrid-coordinator", "-l", self.address) as process:
            while process.poll() is None:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", self._port)
                except OSError:
                    await asyncio.sleep(0.05)
                    continue
                writer.close()
                break
            yield process

    @asynccontextmanager
    async def exporter(self, port: str, relay: int) -> AsyncIterator[None]:
        config = self._folder / "exporter.yaml"
        config.write_text(
            f"slot0:\n  RawSerialPort: {{port: {port}, speed: 115200}}\n  NetworkPowerPort:\n"
            f"    model: simplerest\n    host: 'http://127.0.0.1:{relay}/{{index}}/{{value}}'\n"
            "    index: '1'\n"
        )
        where = ["-c", self.address, "-n", "rack1", "--hostname", "127.0.0.1"]
        with self.started("labgrid-exporter", *where, str(config)):
            await self.until("rack1/slot0/NetworkSerialPort", "resources")
            yield

    async def until(self, said: str, *arguments: str) -> None:
        """Ask again until the answer has ``said`` in it."""
        async with asyncio.timeout(60):
            while True:
                with suppress(PowerError):
                    if said in await self.client(*arguments):
                        return
                await asyncio.sleep(0.1)

    async def client(self, *arguments: str) -> str:
        return await run([str(self.program), *arguments], seconds=60)


@asynccontextmanager
async def relay_of(modem: PtyModem) -> AsyncIterator[tuple[int, list[str]]]:
    """An HTTP relay that switches ``modem``."""
    asked: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        value = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode()[-1]
        asked.append(value)
        if value == "0":
            modem.modem.power_off()
        else:
            modem.modem.power_on()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], asked


@pytest.mark.unhygienic  # labgrid's programs take both processors for seconds
async def test_a_place_as_port_and_supply(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = Lab(programs, tmp_path)
    monkeypatch.setenv("LG_COORDINATOR", lab.address)
    monkeypatch.setenv(PROGRAM_VARIABLE, str(lab.program))
    async with (
        PtyModem("bc66", Options(speed=100, attached=True)) as pty,
        relay_of(pty) as (relay, asked),
        lab.clients(),
    ):
        with pytest.raises(PortError, match="slot0"):
            async with hosted(PLACE):
                pass
        async with lab.coordinator() as coordinator, lab.exporter(pty.path, relay):
            (found,) = await examine(Rig(None, (PLACE,)), lambda *_: None)
            assert found.errors == {}
            assert found.saw["power"] == "labgrid"
            async with hosted(PLACE) as port, power_of(PLACE) as power:
                assert port.startswith("rfc2217://127.0.0.1:")
                assert power is not None
                async with hosted(PLACE) as same:  # acquired by hand, or by a run that died
                    assert same == port
                with pytest.MonkeyPatch.context() as other:
                    other.setenv("LG_USERNAME", "other")
                    with pytest.raises(PortBusy, match="already acquired"):
                        async with hosted(PLACE):
                            pass
                async with Modem(port, model="bc66") as modem:
                    assert modem.identity.model == "BC66"
                    await cycle(power, 0.1)
                    assert asked == ["0", "1"]
                    assert await until(30, lambda: modem.channel.reboots > 0)
                    assert modem.channel.reboots == 1
            assert "acquired: None" in await lab.client("-p", "slot0", "show")

            await lab.client("-p", "slot0", "acquire")
            await the_suite_runs(tmp_path, pty.modem.options.imei)
            assert "acquired: None" not in await lab.client("-p", "slot0", "show")
            assert asked == ["0", "1"] * 2
            await lab.client("-p", "slot0", "release")

            with pytest.raises(PlaceLost, match="coordinator ended"):
                await use_until_lost(coordinator)
        async with lab.coordinator():
            await lab.until("acquired: None", "-p", "slot0", "show")


async def the_suite_runs(folder: Path, imei: str) -> None:
    """Three checks of it, over the place's export and with its supply."""
    (folder / "secret").write_text(SECRET)
    rig = folder / "rig.toml"
    async with Cloud({(PRODUCT_KEY, imei): SECRET}) as cloud, echo() as address:
        rig.write_text(
            '[slot.a]\nport = "labgrid:slot0"\nmodem = "bc66"\n'
            'power = { backend = "labgrid", place = "slot0" }\n'
            f'server = "{cloud.host}:{cloud.port}"\nproduct_key = "{PRODUCT_KEY}"\n'
            f'secret = "file:{folder / "secret"}"\n'
        )
        for file in (rig, folder / "secret"):
            file.chmod(0o600)
        command = [sys.executable, "-m", "nbiot", "hil", "run", "--rig", str(rig)]
        checks = "test_good or test_every_byte or test_without_power"
        said = await run([*command, "--echo", address, "-k", checks], seconds=120)
        assert "3 passed" in said
        assert cloud.counters.requests == 1


async def use_until_lost(coordinator: subprocess.Popen[bytes]) -> None:
    async with hosted(PLACE) as port, Modem(port, model="bc66"):
        coordinator.kill()  # asked to end it would wait 5 s for its clients
        await asyncio.sleep(60)


SHOWN = """Place 'slot0':
  matches:
    rack1/slot0/*
  acquired: host/me
Acquired resource 'NetworkPowerPort' (rack1/slot0/NetworkPowerPort/NetworkPowerPort):
  {'acquired': 'slot0',
   'params': {'host': 'http://x', 'port': 1}}
Acquired resource 'uart' (rack1/slot0/NetworkSerialPort/RawSerialPort):
  {'acquired': 'slot0',
   'avail': True,
   'cls': 'NetworkSerialPort',
   'params': {'extra': {'path': '/dev/pts/6'},
              'host': 'pi.local',
              'port': 42873,%s
              'speed': 115200}}
"""


def test_what_show_prints() -> None:
    assert url_of("slot0", SHOWN % "") == "rfc2217://pi.local:42873"
    assert url_of("slot0", SHOWN % " 'protocol': 'raw',") == "socket://pi.local:42873"


@pytest.mark.parametrize(
    "shown",
    [
        "",
        SHOWN % " 'protocol': 'other',",
        (SHOWN % "").replace("42873", "None"),
        (SHOWN % "").replace("'params'", "'parms'"),
        (SHOWN % "").replace("}}", "}"),
        (SHOWN % "").replace("Acquired", "Matching"),
        (SHOWN % "").replace("'avail': True", "'avail': __import__('os')"),
    ],
)
def test_a_place_without_a_port(shown: str) -> None:
    with pytest.raises(PortError, match="slot0 has no serial port"):
        url_of("slot0", shown)


async def test_without_labgrid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PROGRAM_VARIABLE, "/nonexistent/labgrid-client")
    with pytest.raises(PortError, match="no program"):
        async with hosted(PLACE):
            pass
