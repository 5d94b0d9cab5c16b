"""RFC 2217, mostly against pyserial's client, which was written by others."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable
from typing import Any

import pytest
import serial

from hil.emulator import BadWiring, Options, Rfc2217Modem
from hil.emulator.telnet import BINARY, COM_PORT, DO, IAC, SB, SE, WILL, WONT
from tests.emulator.ports import Client, connected, until

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:serial")


async def with_pyserial(port: Rfc2217Modem, work: Callable[[Any], Any], **settings: Any) -> Any:
    """Open the port with pyserial in a thread, and work there."""

    def run() -> Any:
        with serial.serial_for_url(port.url, timeout=2, **settings) as host:
            return work(host)

    return await asyncio.wait_for(asyncio.to_thread(run), 20)


def ask(host: Any, command: str, end: bytes = b"OK\r\n") -> bytes:
    host.write(command.encode() + b"\r")
    return bytes(host.read_until(end))


# -------------------------------------------------------------------- pyserial


async def test_pyserial_talks_to_the_modem() -> None:
    async with Rfc2217Modem("bc95", Options(attached=True)) as port:

        def work(host: Any) -> bytes:
            return ask(host, "AT+CGATT?")

        assert await with_pyserial(port, work, baudrate=9600) == b"\r\n+CGATT:1\r\n\r\nOK\r\n"


@pytest.mark.parametrize(
    "settings",
    [{"bytesize": 7, "parity": "E", "stopbits": 2}, {"xonxoff": True}, {"rtscts": True}],
)
async def test_pyserial_may_set_what_it_likes(settings: dict[str, Any]) -> None:
    async with Rfc2217Modem("bc95") as port:
        answer = await with_pyserial(port, lambda host: ask(host, "AT"), baudrate=9600, **settings)
        assert answer == b"\r\nOK\r\n"


async def test_bytes_of_255_arrive_once() -> None:
    heard: list[bytes] = []
    options = Options(on_bytes=lambda way, data, at: heard.append(data) if way == "in" else None)
    async with Rfc2217Modem("bc95", options) as port:

        def work(host: Any) -> bytes:
            host.write(b"\xff\xff\x00\r")
            return bytes(host.read_until(b"ERROR\r\n"))

        await with_pyserial(port, work, baudrate=9600)
        assert b"".join(heard) == b"\xff\xff\x00\r"


async def test_the_modems_255_is_escaped() -> None:
    async with Rfc2217Modem("bc95") as port:
        loop = asyncio.get_running_loop()

        def work(host: Any) -> bytes:
            loop.call_soon_threadsafe(port.modem.emit, b"\xff\x1c\xff\xff")
            return bytes(host.read(4))

        assert await with_pyserial(port, work, baudrate=9600) == b"\xff\x1c\xff\xff"


async def test_a_wrong_rate_gives_garbage_both_ways_until_it_is_right() -> None:
    async with Rfc2217Modem("bc95") as port:

        def work(host: Any) -> tuple[bytes, bytes]:
            host.timeout = 0.2
            wrong = ask(host, "AT+CGMI")
            host.baudrate = 9600
            host.timeout = 2
            host.write(b"\r")  # garbage stands before it in the line buffer
            host.read_until(b"ERROR\r\n")
            return wrong, ask(host, "AT")

        wrong, right = await with_pyserial(port, work, baudrate=57600)
        assert b"Quectel" not in wrong
        assert right == b"\r\nOK\r\n"
        assert "AT+CGMI" not in port.modem.counters.commands


async def test_the_check_of_the_rate_can_be_switched_off() -> None:
    async with Rfc2217Modem("bc95", Options(check_baud=False)) as port:
        answer = await with_pyserial(port, lambda host: ask(host, "AT"), baudrate=57600)
        assert answer == b"\r\nOK\r\n"


async def test_a_second_client_is_refused_and_the_first_one_goes_on() -> None:
    async with Rfc2217Modem("bc95") as port, connected(port.port) as second:
        await until(lambda: port.attended)
        async with connected(port.port) as third:
            third.send(bytes((IAC, WILL, COM_PORT)) + b"AT\r")
            assert (await third.rest()).startswith(b"This port is in use by 127.0.0.1:")
        assert (await second.ask("AT")).endswith(b"\r\nOK\r\n")


async def test_cts_and_dsr_say_whether_the_modem_has_power() -> None:
    async with Rfc2217Modem("bc95", Options(autoconnect=False)) as port:
        loop = asyncio.get_running_loop()

        def work(host: Any) -> list[tuple[bool, bool]]:
            states = [(host.cts, host.dsr)]
            for action in (port.modem.power_off, port.modem.power_on):
                loop.call_soon_threadsafe(action)
                time.sleep(0.15)
                states.append((host.cts, host.dsr))
            return states

        states = await with_pyserial(port, work, baudrate=9600)
        assert states == [(True, True), (False, False), (True, True)]


async def test_purging_forgets_what_the_modem_has_not_heard() -> None:
    async with Rfc2217Modem("bc95", Options(baud=9600)) as port:

        def work(host: Any) -> bytes:
            host.write(b"AT+CGMR".ljust(300) + b"\r")  # 310 ms on the line
            host.reset_output_buffer()
            return ask(host, "AT")

        assert await with_pyserial(port, work, baudrate=9600) == b"\r\nOK\r\n"
        assert list(port.modem.counters.commands) == ["AT"]


# ------------------------------------------------------------------------ pins


async def test_a_pulse_on_the_reset_line_boots_the_modem() -> None:
    options = Options(wiring={"rts": "reset"}, speed=20, autoconnect=False)
    async with Rfc2217Modem("bc28", options) as port:

        def work(host: Any) -> bytes:
            host.rts = False
            ask(host, "AT+CMEE=1")
            host.rts = True
            time.sleep(0.1 / 20 + 0.05)
            host.rts = False
            return bytes(host.read_until(b"Neul \r\n\r\nOK\r\n"))

        banner = await with_pyserial(port, work, baudrate=9600)
        assert banner.endswith(b"Neul \r\n\r\nOK\r\n")
        assert port.modem.counters.restarts >= 1


async def test_a_line_can_be_wired_upside_down() -> None:
    options = Options(wiring={"dtr": "!power"}, boot="off", speed=50, autoconnect=False)
    async with Rfc2217Modem("bc95", options) as port:

        def work(host: Any) -> bytes:
            host.dtr = True
            host.dtr = False  # the pin goes low: the supply is on
            host.read_until(b"Neul \r\n\r\nOK\r\n")
            host.write(b"AT\r")
            return bytes(host.read_until(b"OK\r\n"))

        assert (await with_pyserial(port, work, baudrate=9600)).endswith(b"OK\r\n")


@pytest.mark.parametrize(
    ("wiring", "told"),
    [
        ({"cts": "reset"}, "cts=reset: allowed lines: dtr, rts"),
        ({"dtr": "pwrkey"}, "dtr=pwrkey: pins of bc95: reset, power"),
    ],
)
async def test_a_wiring_that_cannot_be_is_refused(wiring: dict[str, str], told: str) -> None:
    with pytest.raises(BadWiring, match=told):
        async with Rfc2217Modem("bc95", Options(wiring=wiring)):
            pass


# ------------------------------------------------------------- byte for byte


def com_port(*content: int) -> bytes:
    return bytes((IAC, SB, COM_PORT, *content, IAC, SE))


async def speaking(client: Client) -> None:
    """Negotiate as a client of RFC 2217 does."""
    client.send(bytes((IAC, WILL, COM_PORT, IAC, WILL, BINARY, IAC, DO, BINARY)))
    await client.read(com_port(107, 0x30))


async def test_the_signature_names_the_model() -> None:
    async with Rfc2217Modem("bc95") as port, connected(port.port) as client:
        await speaking(client)
        client.send(com_port(0))
        assert b"nbiot emulator bc95" in await client.read(bytes((IAC, SE)))


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ((1, 0, 0, 0, 0), (101, 0, 0, 0x25, 0x80)),  # what is the rate?
        ((1, 0, 0, 0xE1, 0), (101, 0, 0, 0xE1, 0)),
        ((1, 0, 0, 0, 7), (101, 0, 0, 0x25, 0x80)),  # 7 bit/s: refused
        ((2, 0), (102, 8)),
        ((2, 7), (102, 7)),
        ((3, 0), (103, 1)),
        ((4, 9), (104, 1)),
        ((5, 0), (105, 1)),
        ((5, 3), (105, 3)),
        ((5, 4), (105, 6)),
        ((5, 5), (105, 5)),
        ((5, 7), (105, 9)),
        ((5, 8), (105, 8)),
        ((5, 10), (105, 12)),
        ((5, 13), (105, 14)),
        ((5, 16), (105, 16)),
        ((5, 99), (105, 1)),
        ((10, 254), (110, 254)),
        ((11, 16), (111, 16)),
        ((12, 3), (112, 3)),
    ],
)
async def test_every_command_is_answered_with_what_is_so_now(
    asked: tuple[int, ...], answered: tuple[int, ...]
) -> None:
    async with Rfc2217Modem("bc95") as port, connected(port.port) as client:
        await speaking(client)
        client.send(com_port(*asked))
        assert (await client.read(bytes((IAC, SE)))).endswith(com_port(*answered))


async def test_suspended_data_comes_when_it_is_resumed() -> None:
    async with Rfc2217Modem("bc95") as port, connected(port.port) as client:
        await speaking(client)
        client.send(com_port(8) + b"AT\r")
        await until(lambda: port.modem.counters.lines == 1)
        client.send(com_port(0))
        assert b"OK" not in await client.read(b"bc95" + bytes((IAC, SE)))
        client.send(com_port(9))
        assert await client.read(b"OK\r\n") == b"\r\nOK\r\n"


async def test_options_it_does_not_have_are_refused_once() -> None:
    async with Rfc2217Modem("bc95") as port, connected(port.port) as client:
        client.send(bytes((IAC, DO, 24)))
        await client.read(bytes((IAC, WONT, 24)))
        client.send(bytes((IAC, WONT, 24)) + b"AT\r\0")  # the NUL belongs to the CR in text mode
        assert await client.read(b"OK\r\n") == b"\r\nOK\r\n"


@pytest.mark.parametrize("seed", range(5))
async def test_rubbish_does_no_harm(seed: int) -> None:
    chance = random.Random(seed)
    rubbish = bytes(
        chance.choice((255, 255, 250, 240, 44, 13, chance.randrange(256))) for _ in range(5000)
    )
    async with Rfc2217Modem("bc95", Options(check_baud=False)) as port:
        async with connected(port.port) as client:
            client.send(rubbish)
            await until(lambda: port.modem.counters.bytes_in > 100)
        await until(lambda: not port.attended)
        async with connected(port.port) as client:
            await speaking(client)
            client.send(b"\r")
            client.send(b"AT\r")
            assert (await client.read(b"OK\r\n")).endswith(b"\r\nOK\r\n")


async def test_a_subnegotiation_without_end_takes_no_memory() -> None:
    async with Rfc2217Modem("bc95") as port, connected(port.port) as client:
        client.send(bytes((IAC, SB, COM_PORT)) + b"x" * 1_000_000 + bytes((IAC, SE)) + b"AT\r")
        assert (await client.read(b"OK\r\n")).endswith(b"\r\nOK\r\n")
        assert len(port._telnet._sub) < 300


async def test_lines_go_off_when_the_client_goes() -> None:
    async with Rfc2217Modem("bc95") as port:
        async with connected(port.port) as client:
            await speaking(client)
            client.send(com_port(5, 8))
            await until(lambda: port.lines["dtr"])
        await until(lambda: not port.lines["dtr"])


async def test_nothing_is_left_open() -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    async with Rfc2217Modem("bc66") as port, connected(port.port) as client:
        await speaking(client)
    assert sorted(os.listdir("/proc/self/fd")) == before
