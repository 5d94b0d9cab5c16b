"""``rfc2217://`` against servers that do only what a test wants, and against real ones."""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from nbiot.errors import PortBusy, PortError, PortLost, Unsupported
from nbiot.link import Link, open_link, rfc2217
from nbiot.link.telnet import COM_PORT, DO, DONT, SB, WILL, Decoder, Told, command, escape
from tests.link.far import Ear, PortManagerFar, Ser2netFar
from tests.link.ser2net import requires_ser2net

BAUDRATE, DATASIZE, PARITY, STOPSIZE, CONTROL, PURGE = 1, 2, 3, 4, 5, 12
Answer = Callable[[bytes], bytes | None]


class Server:
    """An RFC 2217 server that confirms all it is asked. ``answers`` changes that, by command.

    An answer is a function of the value asked for; None says nothing.
    """

    def __init__(self) -> None:
        self.answers: dict[int, Answer] = {}
        self.greeting = b""
        self.agrees: Told | None = Told(DO, COM_PORT)
        self.asked: list[tuple[int, bytes]] = []
        self.data = bytearray()
        self.connections = 0
        self.writer: asyncio.StreamWriter
        self.turn_away = 0
        self.close_after_greeting = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writer = writer
        writer.write(self.greeting)
        if self.connections <= self.turn_away:
            writer.close()
            return
        decoder = Decoder()
        while data := await reader.read(4096):
            for piece in decoder.feed(data):
                if isinstance(piece, bytes):
                    self.data += piece
                elif piece.verb == SB:
                    self.hear(piece.payload[0], piece.payload[1:])
                elif piece == Told(WILL, COM_PORT) and self.agrees:
                    writer.write(command(self.agrees))
        writer.close()

    def hear(self, what: int, value: bytes) -> None:
        self.asked.append((what, value))
        answer = self.answers.get(what, bytes)(value)
        if answer is not None:
            self.say(what, answer)

    def say(self, what: int, value: bytes) -> None:
        self.writer.write(command(Told(SB, COM_PORT, bytes([100 + what]) + value)))


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.url = f"rfc2217://127.0.0.1:{listening.sockets[0].getsockname()[1]}"  # type: ignore[attr-defined]
    yield server
    listening.close()
    await asyncio.sleep(0.005)  # what was served ends by itself: the link is closed


def silent(value: bytes) -> None:
    return None


async def opened(server: Server, options: str = "", **keywords: int) -> Link:
    return await open_link(server.url + options, **keywords)  # type: ignore[attr-defined]


def baud(rate: int) -> bytes:
    return struct.pack("!I", rate)


# --- opening ------------------------------------------------------------------------------------


async def test_port_is_set_up(server: Server) -> None:
    link = await opened(server, baudrate=115200)
    assert link.baudrate == 115200
    assert dict(server.asked) == {
        CONTROL: b"\x01",  # no flow control
        BAUDRATE: baud(115200),
        DATASIZE: b"\x08",
        PARITY: b"\x01",  # none
        STOPSIZE: b"\x01",
        PURGE: b"\x03",  # both directions
    }
    assert server.asked[-1][0] == PURGE
    await link.close()


async def test_what_waited_is_dropped(server: Server) -> None:
    def purge(value: bytes) -> bytes:
        server.writer.write(b"+CEREG:2\r\n")
        return value

    server.greeting = b"stale"
    server.answers[PURGE] = purge
    link = await opened(server)
    ear = Ear()
    link.start(ear)
    server.writer.write(escape(b"fresh\xff"))
    await ear.until(lambda: len(ear.data) >= 6)
    await link.close()
    assert ear.data == b"fresh\xff"


async def test_server_that_confirms_no_control_and_no_purge(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rfc2217, "_CONTROL_LIMIT", 0.05)
    server.answers = {CONTROL: silent, PURGE: silent}
    async with asyncio.timeout(1):
        link = await opened(server)
        with pytest.raises(Unsupported, match="does not confirm DTR or RTS") as caught:
            await link.set_lines(dtr=True)
    assert "?ign_set_control" in caught.value.hint
    assert server.asked[-1] == (CONTROL, b"\x08")
    await link.close()


async def test_ign_set_control_believes(server: Server) -> None:
    server.answers = {CONTROL: silent}
    link = await opened(server, "?ign_set_control&poll_modem&logging=debug&timeout=1")
    async with asyncio.timeout(0.3):
        await link.set_lines(dtr=False, rts=True)
    await asyncio.sleep(0.01)
    assert server.asked[-2:] == [(CONTROL, b"\x09"), (CONTROL, b"\x0b")]
    await link.close()


@pytest.mark.parametrize(
    ("what", "name"),
    [(BAUDRATE, "baud rate"), (DATASIZE, "data bits"), (PARITY, "parity"), (STOPSIZE, "stop")],
)
async def test_setting_that_is_not_confirmed(server: Server, what: int, name: str) -> None:
    server.answers = {what: silent}
    with pytest.raises(PortError, match=f"did not confirm the {name}.* within 0.05 s"):
        await opened(server, "?timeout=0.05")


async def test_rate_that_the_server_refuses(server: Server) -> None:
    server.answers = {BAUDRATE: lambda value: baud(9600)}
    with pytest.raises(PortError, match="baud rate 115200 refused, the server keeps 9600"):
        await opened(server, baudrate=115200)


@pytest.mark.parametrize("answer", [None, Told(DONT, COM_PORT)])
async def test_server_without_rfc2217(server: Server, answer: Told | None) -> None:
    server.agrees = answer
    with pytest.raises(PortError, match="does not speak RFC 2217") as caught:
        await opened(server, "?timeout=0.05")
    assert "socket://127.0.0.1:" in caught.value.hint


async def test_server_that_only_offers_it(server: Server) -> None:
    """Either end's word will do, as in pyserial: not all servers negotiate by the book."""
    server.agrees = Told(WILL, COM_PORT)
    await (await opened(server)).close()


async def test_server_that_hangs_up(server: Server) -> None:
    server.turn_away = 1
    with pytest.raises(PortLost, match="went away"):  # closed or reset
        await opened(server)


async def test_server_that_says_why(server: Server) -> None:
    server.turn_away = 1
    server.greeting = b"Device open failure: No such file\r\n"
    with pytest.raises(PortError, match="the server says 'Device open failure: No such file'"):
        await opened(server)


async def test_busy_server(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rfc2217, "_BUSY_PAUSE", 0.001)
    server.turn_away = 99
    server.greeting = b"Port already in use\r\n"
    with pytest.raises(PortBusy, match="'Port already in use'") as caught:
        await opened(server)
    assert "kickolduser" in caught.value.hint
    assert server.connections == 5


async def test_server_that_is_busy_for_a_moment(server: Server) -> None:
    """The one before us has just left, and the server has not seen it yet."""
    server.turn_away = 2
    server.greeting = b"Port already in use\r\n"
    link = await opened(server)
    assert server.connections == 3
    await link.close()


async def test_server_that_talks_nonsense(server: Server) -> None:
    server.greeting = bytes([255, SB, COM_PORT]) + bytes(2000)
    with pytest.raises(PortLost, match="telnet command of more than 1024 bytes"):
        await opened(server)


async def test_cancelled_open_leaks_nothing(server: Server) -> None:
    before = os.listdir("/proc/self/fd")
    server.answers = {DATASIZE: silent}
    opening = asyncio.ensure_future(opened(server))
    await asyncio.sleep(0.02)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    await asyncio.sleep(0.01)
    assert os.listdir("/proc/self/fd") == before


# --- open ---------------------------------------------------------------------------------------


async def test_commands_amid_data(server: Server) -> None:
    """Modem states, flow control and a question for our name come at any moment."""
    link = await opened(server)
    ear = Ear()
    link.start(ear)
    assert link.modem_state is None  # type: ignore[attr-defined]
    server.writer.write(b"\r\n+CS")
    server.say(7, b"\xb0")
    server.say(6, b"\x60")
    server.say(8, b"")
    server.writer.write(b"Q:18,99\r\n\r\nO")
    server.say(0, b"")
    server.writer.write(b"K\r\n")
    await ear.until(lambda: ear.data.endswith(b"OK\r\n"))
    await asyncio.sleep(0.01)
    assert ear.data == b"\r\n+CSQ:18,99\r\n\r\nOK\r\n"
    assert link.modem_state == 0xB0  # type: ignore[attr-defined]
    assert server.asked[-1] == (0, b"nbiot")
    await link.close()


async def test_baudrate_is_what_the_server_says(server: Server) -> None:
    link = await opened(server)
    link.start(Ear())
    server.answers = {BAUDRATE: lambda value: baud(57600)}
    with pytest.raises(PortError, match="baud rate 115200 refused, the server keeps 57600"):
        await link.set_baudrate(115200)
    assert link.baudrate == 57600
    server.say(BAUDRATE, baud(0))  # "unknown" in some servers
    await asyncio.sleep(0.01)
    assert link.baudrate == 57600
    await link.close()


async def test_late_confirmation_is_not_the_next_ones(server: Server) -> None:
    link = await opened(server, "?timeout=0.05")
    link.start(Ear())
    server.answers = {BAUDRATE: silent}
    with pytest.raises(PortError, match="did not confirm the baud rate"):
        await link.set_baudrate(57600)

    def late(value: bytes) -> bytes:
        server.say(BAUDRATE, baud(57600))
        return value

    server.answers = {BAUDRATE: late}
    await link.set_baudrate(115200)
    assert link.baudrate == 115200
    await link.close()


async def test_rates_in_turn(server: Server) -> None:
    link = await opened(server)
    link.start(Ear())
    await asyncio.gather(*(link.set_baudrate(rate) for rate in (19200, 38400, 57600)))
    assert link.baudrate == 57600
    asked = [value for what, value in server.asked if what == BAUDRATE]
    assert asked == [baud(rate) for rate in (9600, 19200, 38400, 57600)]
    await link.close()


async def test_line_that_the_server_refuses(server: Server) -> None:
    link = await opened(server)
    server.answers = {CONTROL: lambda value: b"\x09"}
    with pytest.raises(PortError, match="refuses to set DTR"):
        await link.set_lines(dtr=True)
    await link.close()


@pytest.mark.parametrize("close", [True, False])
async def test_end_while_the_server_is_asked(server: Server, close: bool) -> None:
    link = await opened(server)
    ear = Ear()
    link.start(ear)
    server.answers = {BAUDRATE: silent}
    setting = asyncio.ensure_future(link.set_baudrate(115200))
    await asyncio.sleep(0.01)
    if close:
        await link.close()
    else:
        server.writer.close()
    with pytest.raises(PortError, match="closed" if close else "went away") as caught:
        await asyncio.wait_for(setting, 0.5)
    assert isinstance(caught.value, PortLost) is not close
    await link.close()


# --- real servers -------------------------------------------------------------------------------


@requires_ser2net
async def test_second_user_of_ser2net(tmp_path: Path) -> None:
    far = Ser2netFar(tmp_path)
    link = await far.open()
    with pytest.raises(PortBusy, match="in use"):
        await far.open()
    link.start(Ear())
    link.write(b"AT\r")
    assert await far.take(3) == b"AT\r"  # the first user is not disturbed
    await link.close()
    far.destroy()


@requires_ser2net
async def test_ser2net_without_its_device(tmp_path: Path) -> None:
    far = Ser2netFar(tmp_path)
    os.close(far.slave)
    far.hang_up()
    with pytest.raises(PortError):
        async with asyncio.timeout(2):
            await far.open()
    far.destroy()


@pytest.mark.parametrize("make", [PortManagerFar, pytest.param(Ser2netFar, marks=requires_ser2net)])
async def test_stale_bytes_are_dropped(
    make: type[PortManagerFar | Ser2netFar], tmp_path: Path
) -> None:
    far = make(tmp_path)
    far.send(b"OK\r\n")
    link = await far.open()
    ear = Ear()
    link.start(ear)
    far.send(b"new")
    await ear.until(lambda: len(ear.data) >= 3)
    await link.close()
    far.destroy()
    assert ear.data == b"new"
