"""Bare TCP: bytes as they are, one client at a time, nothing left for the next one."""

from __future__ import annotations

import asyncio
import os
import shutil

import pytest

from hil.emulator import Options, TcpModem
from tests.emulator.ports import connected, until


async def test_a_client_talks_to_the_modem() -> None:
    async with TcpModem("bc95") as port, connected(port.port) as client:
        assert port.url == f"socket://127.0.0.1:{port.port}"
        assert await client.ask("AT") == b"\r\nOK\r\n"


async def test_telnet_bytes_are_just_bytes() -> None:
    async with TcpModem("bc95") as port, connected(port.port) as client:
        assert await client.ask("\xff\xfb\x03AT", b"ERROR\r\n") == b"\r\nERROR\r\n"


async def test_a_second_client_is_told_who_has_the_port() -> None:
    async with TcpModem("bc95") as port, connected(port.port) as first:
        await first.ask("AT")
        host, number = first.writer.get_extra_info("sockname")
        async with connected(port.port) as second:
            second.send(b"AT\r")
            refusal = f"This port is in use by {host}:{number}\r\n"
            assert await second.rest() == refusal.encode()
        assert await first.ask("AT") == b"\r\nOK\r\n"
        assert port.modem.counters.lines == 2


async def test_the_port_is_free_again_when_the_client_left() -> None:
    async with TcpModem("bc95") as port:
        for _ in range(3):
            async with connected(port.port) as client:
                assert await client.ask("AT") == b"\r\nOK\r\n"
            await until(lambda: not port.attended)


async def test_what_nobody_reads_is_lost() -> None:
    async with TcpModem("bc95") as port:
        port.modem.urc("+CSCON:1")
        async with connected(port.port) as client:
            await until(lambda: port.attended)
            assert await client.ask("AT") == b"\r\nOK\r\n"
        assert port.unread == len("\r\n+CSCON:1\r\n")


async def test_the_next_client_does_not_get_what_was_on_the_line() -> None:
    async with TcpModem("bc95", Options(baud=9600)) as port:
        async with connected(port.port) as client:
            client.send(b"AT+CGMR\r")
            await client.read(b"SECURITY")  # 200 ms of text are still to come
        await until(lambda: not port.attended)
        async with connected(port.port) as client:
            assert await client.ask("AT") == b"\r\nOK\r\n"


async def test_a_client_that_never_reads_costs_little_memory() -> None:
    async with TcpModem("bc95") as port, connected(port.port) as client:
        client.send(b"AT\r")
        await until(lambda: port.attended)
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        for _ in range(200):
            port.modem.urc("x" * 100_000)
        assert len(port._waiting) <= 128 * 1024
        assert port.unread > 1_000_000


async def test_hanging_up_cuts_the_client_off() -> None:
    async with TcpModem("bc95") as port, connected(port.port) as client:
        await client.ask("AT")
        port.hang_up()
        with pytest.raises((EOFError, ConnectionResetError)):
            await client.ask("AT")
        with pytest.raises(OSError, match=r".*"):
            await asyncio.open_connection("127.0.0.1", port.port)


async def test_rubbish_does_no_harm() -> None:
    async with TcpModem("bc66", Options(echo=False)) as port, connected(port.port) as client:
        client.send(os.urandom(20_000).replace(b"\r", b"x") + b"\r")
        await client.read(b"ERROR\r\n")
        client.send(b"\r")
        assert (await client.ask("AT"))[-6:] == b"\r\nOK\r\n"


async def test_nothing_is_left_open() -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    async with TcpModem("bc66") as port, connected(port.port) as client:
        await client.ask("AT")
    assert sorted(os.listdir("/proc/self/fd")) == before
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


@pytest.mark.skipif(shutil.which("socat") is None, reason="needs the Debian package socat")
async def test_socat_talks_to_it() -> None:
    async with TcpModem("bc95", Options(attached=True)) as port:
        socat = await asyncio.create_subprocess_exec(
            "socat", "-t1", "-", f"TCP:127.0.0.1:{port.port}", stdin=-1, stdout=-1
        )
        out, _ = await asyncio.wait_for(socat.communicate(b"AT+CGMI\r\nAT+CGATT?\r\n"), 20)
        assert out == b"\r\nQuectel\r\n\r\nOK\r\n\r\n+CGATT:1\r\n\r\nOK\r\n"
