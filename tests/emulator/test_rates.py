"""The host's rate on a pty."""

from __future__ import annotations

import asyncio
import os
import termios

import pytest

from hil.emulator import Options, PtyModem
from tests.emulator.test_port import host_on, set_rate


async def test_a_wrong_rate_is_garbage_without_being_asked_for() -> None:
    async with PtyModem("bc95") as pty:
        with host_on(pty.path) as host:
            set_rate(host.fd, termios.B115200)
            host.write(b"AT\r")
            await asyncio.sleep(0.02)
            assert pty.modem.counters.understood == 0
            pty.modem.urc("+CSCON:1")
            noise = os.read(host.fd, 4096)
            assert noise
            assert b"CSCON" not in noise


async def test_the_check_can_be_switched_off() -> None:
    async with PtyModem("bc95", Options(check_baud=False)) as pty:
        with host_on(pty.path) as host:
            set_rate(host.fd, termios.B115200)
            assert await host.ask("AT") == b"\r\nOK\r\n"


@pytest.mark.parametrize("rate", [4800, 9600, 57600, 115200, 460800])
async def test_auto_baud_loses_what_comes_before_the_first_at(rate: int) -> None:
    async with PtyModem("bc66", Options(echo=False)) as pty:
        pty.modem.rate = None
        with host_on(pty.path) as host:
            set_rate(host.fd, getattr(termios, f"B{rate}"))
            host.write(b"\x00\xffjunk\r")
            await asyncio.sleep(0.02)
            assert pty.modem.rate is None
            for letter in (b"xA", b"T", b"\r"):  # as typed by hand
                host.write(letter)
                await asyncio.sleep(0.01)
            assert await host.read(b"OK\r\n") == b"\r\nOK\r\n"
            assert (pty.modem.rate, list(pty.modem.counters.commands)) == (rate, ["AT"])
