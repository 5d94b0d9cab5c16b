"""The pty: bytes, pace, faults, and nothing left behind."""

from __future__ import annotations

import asyncio
import os
import shutil
import termios
import time
import tty
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest
from pytest_mock import MockerFixture

from hil.emulator import Network, Options, PtyModem


class Host:
    """The least of a host: a terminal and a reader."""

    def __init__(self, path: str) -> None:
        self.fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)

    def write(self, data: bytes) -> None:
        os.write(self.fd, data)

    async def ask(self, command: str, until: bytes = b"OK\r\n") -> bytes:
        """Send a command, return everything up to `until`."""
        self.write(command.encode() + b"\r")
        return await self.read(until)

    async def read(self, until: bytes, times: int = 1) -> bytes:
        """Everything until `until` came so many times."""
        data = b""
        async with asyncio.timeout(5.0):
            while data.count(until) < times:
                await self._readable()
                data += os.read(self.fd, 4096)
        return data

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_reader(self.fd, ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_reader(self.fd)


@contextmanager
def host_on(path: str) -> Iterator[Host]:
    host = Host(path)
    try:
        yield host
    finally:
        os.close(host.fd)


@asynccontextmanager
async def udp_echo() -> AsyncIterator[int]:
    """A real UDP echo server on loopback; gives its port."""

    class Echo(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            self.transport.sendto(data[::-1], addr)  # type: ignore[attr-defined]

    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Echo, local_addr=("127.0.0.1", 0))
    try:
        yield transport.get_extra_info("sockname")[1]
    finally:
        transport.close()


async def test_bc95_udp_reaches_a_real_server() -> None:
    options = Options(attached=True, speed=1000)
    async with (
        udp_echo() as port,
        PtyModem("bc95", options, Network()) as pty,
    ):
        with host_on(pty.path) as host:
            assert await host.ask("AT+NSOCR=DGRAM,17,0,1") == b"\r\n0\r\n\r\nOK\r\n"
            sent = await host.ask(f"AT+NSOST=0,127.0.0.1,{port},3,010203", b"+NSONMI:0,3\r\n")
            assert sent.startswith(b"\r\n0,3\r\n\r\nOK\r\n")
            assert f"0,127.0.0.1,{port},3,030201,0".encode() in await host.ask("AT+NSORF=0,512")


async def test_bc66_udp_reaches_a_real_server_by_name() -> None:
    options = Options(attached=True, speed=1000, echo=False)
    async with (
        udp_echo() as port,
        PtyModem("bc66", options, Network()) as pty,
    ):
        with host_on(pty.path) as host:
            await host.ask(f'AT+QIOPEN=1,0,"UDP","localhost",{port}', b"+QIOPEN: 0,0\r\n")
            answer = await host.ask("AT+QISEND=0,5,hello", b"olleh\r\n")
            assert b'\r\n+QIURC: "recv",0,5\r\nolleh\r\n' in answer


async def test_datagrams_can_be_routed_to_a_local_server() -> None:
    async with udp_echo() as port:
        network = Network(routes={("203.0.113.9", 5683): ("127.0.0.1", port)})
        async with PtyModem("bc95-g", Options(attached=True, speed=1000), network) as pty:
            with host_on(pty.path) as host:
                await host.ask("AT+NSOCR=DGRAM,17,0,1")
                await host.ask("AT+NSOST=1,203.0.113.9,5683,1,AA", b"+NSONMI:1,1\r\n")
                assert b"1,203.0.113.9,5683,1,AA,0" in await host.ask("AT+NSORF=1,9")


@pytest.mark.parametrize("baud", [9600, 115200])
async def test_pace_is_that_of_the_line(baud: int) -> None:
    async with PtyModem("bc95", Options(attached=True, baud=baud)) as pty:
        with host_on(pty.path) as host:
            ratios = []
            for _ in range(4):  # the machine may be busy with something else
                start = time.monotonic()
                answer = await host.ask("AT+NCONFIG?")
                took = time.monotonic() - start
                wire = (len("AT+NCONFIG?\r") + len(answer)) * 10 / baud
                assert took > wire
                ratios.append((took - 0.02) / wire)
            assert min(ratios) < 1.1


async def test_a_command_is_heard_only_when_its_last_byte_is_in() -> None:
    async with PtyModem("bc95", Options(baud=9600)) as pty:
        with host_on(pty.path) as host:
            start = time.monotonic()
            host.write(b"AT" + b" " * 94 + b"\r")  # 97 bytes = 101 ms
            await host.read(b"\r\nOK\r\n")  # 6 bytes more
            assert time.monotonic() - start > 103 * 10 / 9600 - 0.001


async def test_chunks_are_small_and_complete(mocker: MockerFixture) -> None:
    pieces: list[bytes] = []  # as written: what is read at a time is the kernel's choice
    write = os.write

    def noted(fd: int, data: bytes) -> int:
        pieces.append(bytes(data))
        return write(fd, data)

    async with PtyModem("bc95", Options(chunk_seed=3)) as pty:
        with host_on(pty.path) as host:
            host.write(b"AT+CGMR\r")
            mocker.patch("os.write", noted)
            answer = await host.read(b"OK\r\n")
            assert answer.count(b"V100R100C10B657SP3") == 5
    assert b"".join(pieces) == answer
    assert len(pieces) > 3


async def test_a_slow_reader_loses_nothing() -> None:
    async with PtyModem("bc95", Options()) as pty:
        with host_on(pty.path) as host:
            for _ in range(200):  # about 35 kB of answers, more than the terminal holds
                host.write(b"AT+CGMR\r")
                await asyncio.sleep(0)
            answers = await host.read(b"OK\r\n", times=200)
            assert answers.count(b"RADIO,") == 200


def set_rate(fd: int, code: int) -> None:
    settings = termios.tcgetattr(fd)
    settings[4] = settings[5] = code
    termios.tcsetattr(fd, termios.TCSANOW, settings)


async def test_wrong_baud_gives_garbage_and_natspeed_moves_the_rate() -> None:
    options = Options(check_baud=True, speed=200)
    async with PtyModem("bc95", options) as pty:
        with host_on(pty.path) as host:
            assert await host.ask("AT") == b"\r\nOK\r\n"
            set_rate(host.fd, termios.B57600)
            host.write(b"AT\r")
            await asyncio.sleep(0.01)
            assert pty.modem.counters.commands == ["AT"]

            set_rate(host.fd, termios.B9600)
            await host.ask("", b"ERROR")  # the garbage was junk in the line buffer
            await host.ask("AT+NATSPEED=57600,30,1,2,1")
            set_rate(host.fd, termios.B57600)
            assert await host.ask("AT") == b"\r\nOK\r\n"
            await asyncio.sleep(30 / 200 + 0.05)
            assert await host.ask("AT+NATSPEED?") == b"\r\n+NATSPEED:57600,2,1\r\n\r\nOK\r\n"


async def test_natspeed_falls_back_without_a_command() -> None:
    async with PtyModem("bc95", Options(check_baud=True, speed=100)) as pty:
        with host_on(pty.path) as host:
            await host.ask("AT+NATSPEED=115200,3,1,2,1")
            assert pty.modem.rate == 115200
            await asyncio.sleep(0.06)
            assert await host.ask("AT+NATSPEED?") == b"\r\n+NATSPEED:9600,2,1\r\n\r\nOK\r\n"


async def test_bc66_takes_the_hosts_rate_when_it_listens_for_any() -> None:
    async with PtyModem("bc66", Options(check_baud=True, echo=False)) as pty:
        with host_on(pty.path) as host:
            await host.ask("ATE0")
            await host.ask("AT+IPR=0")
            set_rate(host.fd, termios.B9600)
            assert await host.ask("AT") == b"\r\nOK\r\n"
            assert pty.modem.rate == 9600


async def test_cold_boot_prints_the_banner() -> None:
    options = Options(boot="cold", autoconnect=False, speed=100)
    async with PtyModem("bc28", options) as pty:
        with host_on(pty.path) as host:
            banner = await host.read(b"Neul \r\n\r\nOK\r\n")
            assert banner.startswith(b"\r\nBoot: Unsigned\r\n")


async def test_hang_up_is_seen_and_the_modem_lives_on() -> None:
    async with PtyModem("bc95", Options()) as pty:
        with host_on(pty.path) as host:
            await host.ask("AT")
            pty.hang_up()
            with pytest.raises(OSError, match="Input/output error"):
                host.write(b"AT\r")
            pty.modem.urc("+CSCON:1")  # goes nowhere, harms nothing


async def test_drain_throws_stale_answers_away() -> None:
    async with PtyModem("bc95", Options()) as pty:
        with host_on(pty.path) as host:
            tty.setraw(host.fd)
            pty.modem.urc("+CSCON:1")
            pty.drain()
            assert await host.ask("AT") == b"\r\nOK\r\n"


async def test_nothing_is_left_open() -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    async with PtyModem("bc66", Options(attached=True, baud=9600)) as pty:
        with host_on(pty.path) as host:
            await host.ask('AT+QIOPEN=1,0,"UDP","127.0.0.1",9', b"+QIOPEN: 0,0\r\n")
            host.write(b"ATI\r")
    assert sorted(os.listdir("/proc/self/fd")) == before
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


async def test_injected_urcs_are_counted() -> None:
    options = Options(urc_seed=5, urc_rate=0.5, attached=True)
    async with PtyModem("bc95-g", options) as pty:
        with host_on(pty.path) as host:
            text = b""
            for command in ("AT+CGMR", "AT+NCONFIG?", "AT+CGPADDR", "AT+CEREG?") * 5:
                text += await host.ask(command)
            await asyncio.sleep(0.01)
            lines = text.split(b"\r\n")
            assert len(pty.modem.injected_urcs) > 5
            for urc in set(pty.modem.injected_urcs):
                assert lines.count(urc) == pty.modem.injected_urcs.count(urc)
            assert lines.count(b"RADIO,Hi2115_RF0") == 5


@pytest.mark.skipif(shutil.which("chat") is None, reason="needs the Debian package ppp (chat)")
async def test_chat_talks_to_a_bc66() -> None:
    script = ["ABORT", "ERROR", "", "AT", "OK", "ATE0", "OK", "AT+CMEE=1", "OK", "ATI"]
    script += ["Quectel_BC66", "AT+CGATT?", "+CGATT: 1", "AT+CPIN?", "+CPIN: READY"]
    async with PtyModem("bc66", Options(attached=True)) as pty:
        port = os.open(pty.path, os.O_RDWR | os.O_NOCTTY)
        try:
            chat = await asyncio.create_subprocess_exec(
                "chat", "-t", "5", *script, stdin=port, stdout=port
            )
            assert await asyncio.wait_for(chat.wait(), 20) == 0
        finally:
            os.close(port)


async def test_modems_with_the_same_port_number_do_not_collide() -> None:
    """The host picks the real port, as a carrier's NAT does."""
    async with (
        PtyModem("bc95", Options(attached=True)) as one,
        PtyModem("bc95", Options(attached=True)) as two,
    ):
        for pty in (one, two):
            with host_on(pty.path) as host:
                assert await host.ask("AT+NSOCR=DGRAM,17,16666,1") == b"\r\n0\r\n\r\nOK\r\n"
