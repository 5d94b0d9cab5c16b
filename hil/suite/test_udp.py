"""Datagrams of every size, byte for byte."""

from __future__ import annotations

import asyncio
import random

import pytest

from hil.bench import Bench
from nbiot.errors import DatagramTooLong
from nbiot.modem import Modem

pytestmark = [pytest.mark.hil(within=60), pytest.mark.asyncio]


async def echoed(modem: Modem, bench: Bench, payloads: list[bytes]) -> None:
    """Send each and get it back; on air each may take three tries."""
    async with (
        bench.echo() as (host, port),
        await modem.udp((await modem.resolve(host)).address, port) as socket,
    ):
        for payload in payloads:
            assert await _back(socket, payload, bench), f"{len(payload)} bytes did not come back"


async def _back(socket: object, payload: bytes, bench: Bench) -> bool:
    loop = asyncio.get_running_loop()
    for _ in range(1 if bench.emulated else 3):
        began = loop.time()
        await socket.send(payload)  # type: ignore[attr-defined]
        try:
            answer = await socket.receive(3.0 if bench.emulated else 20.0)  # type: ignore[attr-defined]
        except TimeoutError:
            continue
        assert answer == payload, f"{len(payload)} bytes came back as other ones"
        # The BC95's driver asks at the end of the wait, too: without its URC it takes all of that.
        assert not bench.emulated or loop.time() - began < 1.5, "they came, but were not noticed"
        return True
    return False


@pytest.mark.needs("echo")
async def test_every_size(modem: Modem, bench: Bench) -> None:
    """Datagrams of 1 byte up to the modem's limit come back as they went"""
    most = modem.profile.limits.datagram
    sizes = sorted({1, 2, 3, 15, 16, 17, 100, 255, 256, 257, most // 2, most - 1, most})
    rng = random.Random(1)
    await echoed(modem, bench, [rng.randbytes(size) for size in sizes])


@pytest.mark.needs("echo")
async def test_every_byte(modem: Modem, bench: Bench) -> None:
    """All 256 bytes, line ends, results and prompts come back as they went"""
    tricky = [bytes(range(256)), b"\r\nOK\r\n", b"\r\nERROR\r\n> ", b'"\x1a\x1b\x00\xff,"', b"\r"]
    await echoed(modem, bench, tricky)


async def test_too_long(modem: Modem, bench: Bench) -> None:
    """One byte more than the limit is refused before the modem hears of it"""
    async with await modem.udp("127.0.0.1", 9) as socket:
        before = modem.counters.commands
        with pytest.raises(DatagramTooLong):
            await socket.send(b"x" * (modem.profile.limits.datagram + 1))
        assert modem.counters.commands == before


async def test_sockets_are_given_back(modem: Modem, bench: Bench) -> None:
    """Sockets that are closed are free again, twice as often as the modem has any"""
    for _ in range(2 * modem.profile.limits.sockets):
        async with await modem.udp("127.0.0.1", 9):
            pass
        if bench.emulated:
            left = [s for s in bench.pty.modem.sockets.values() if s is not None]  # type: ignore[attr-defined]
            assert not left, "a closed socket is still open in the modem"


@pytest.mark.needs("echo")
async def test_two_sockets(modem: Modem, bench: Bench) -> None:
    """Two sockets do not get each other's datagrams, and closing one leaves the other"""
    async with bench.echo() as (host, port):
        address = (await modem.resolve(host)).address
        async with await modem.udp(address, port) as one:
            async with await modem.udp(address, port) as two:
                assert await _back(one, b"one", bench)
                assert await _back(two, b"two", bench)
            assert await _back(one, b"one again", bench)
