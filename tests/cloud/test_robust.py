"""Datagrams which are no good, and shutting down while busy."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import socket
from collections.abc import Callable

import pytest

from hil.cloud import Behaviour, Cloud

from .conftest import Connect
from .wire import ACK, CHANGED, CON, DK, EMPTY, PK, RST, SECRET, Udp, header, request


def random_bytes(chance: random.Random) -> bytes:
    return chance.randbytes(chance.randint(1, 60))


def random_coap(chance: random.Random) -> bytes:
    """The right version, a request code; the rest by chance."""
    return bytes([0x40 | chance.randrange(64), chance.randrange(8)]) + random_bytes(chance)


def mutated_auth(chance: random.Random) -> bytes:
    datagram = bytearray(request(chance.randrange(0x10000), token=chance.randbytes(4)))
    for _ in range(chance.randint(1, 4)):
        datagram[chance.randrange(len(datagram))] = chance.randrange(256)
    return bytes(datagram[: chance.randint(1, len(datagram))])


@pytest.mark.parametrize("make", [random_bytes, random_coap, mutated_auth])
@pytest.mark.parametrize("seed", range(3))
async def test_it_survives_bad_datagrams(
    cloud: Cloud,
    connect: Connect,
    caplog: pytest.LogCaptureFixture,
    make: Callable[[random.Random], bytes],
    seed: int,
) -> None:
    chance = random.Random(seed)
    bad, good = await connect(), await connect()
    for number in range(400):
        bad.send(make(chance))
        if number % 20 == 0:  # not to overrun the socket's buffer
            await good.ask(header(CON, EMPTY, number))
    assert await good.ask(request(7)) == header(ACK, CHANGED, 7, b"\xa1\xb2")
    assert sum(d.direction == "in" for d in cloud.datagrams) == 400 + 20 + 1
    assert [r.message for r in caplog.records if r.levelno >= logging.ERROR] == []
    assert not [r for r in cloud.requests if r.code == "5.00"]


@pytest.mark.parametrize(
    "datagram",
    [
        b"\x40",
        b"\x40\x02\x00",
        bytes.fromhex("8002000700"),  # version 2
        bytes.fromhex("49020007" + "00" * 9),  # a token of 9 bytes
        bytes.fromhex("4f020007" + "00" * 15),
        header(CON, 2, 7) + b"\xef\x00",  # an option cut short
        header(CON, 2, 7) + b"\xb4aut",
        header(CON, 2, 7) + b"\xf1\x00",  # 15 is reserved
        header(ACK, 2, 7),  # a request which acknowledges
        header(CON, 1 << 5, 7),  # a reserved class
        header(ACK, CHANGED, 7),
        header(RST, EMPTY, 7),
    ],
)
async def test_it_ignores_what_is_no_request(cloud: Cloud, udp: Udp, datagram: bytes) -> None:
    udp.send(datagram)
    assert await udp.is_quiet(0.03)
    assert cloud.requests == []


async def test_a_ping_is_answered_by_rst(udp: Udp) -> None:
    assert await udp.ask(header(CON, EMPTY, 7)) == header(RST, EMPTY, 7)


async def test_an_answer_nobody_asked_for_is_answered_by_rst(udp: Udp) -> None:
    assert await udp.ask(header(CON, CHANGED, 7, b"\x01")) == header(RST, EMPTY, 7)


async def test_the_log_of_datagrams_is_what_was_on_the_wire(cloud: Cloud, udp: Udp) -> None:
    answer = await udp.ask(request(7))
    peer = udp.transport.get_extra_info("sockname")
    assert [(d.direction, d.data, d.peer) for d in cloud.datagrams] == [
        ("in", request(7), peer),
        ("out", answer, peer),
    ]
    assert cloud.datagrams[0].time <= cloud.datagrams[1].time


async def test_many_clients_at_once(cloud: Cloud, connect: Connect) -> None:
    clients = [await connect() for _ in range(40)]
    cloud.behaviour = Behaviour(slow=0.02)
    answers = await asyncio.gather(*(udp.ask(request(7)) for udp in clients))
    assert set(answers) == {header(ACK, CHANGED, 7, b"\xa1\xb2")}


@pytest.mark.parametrize(
    "behaviour",
    [Behaviour(), Behaviour(slow=60), Behaviour(separate=True, slow=60), Behaviour(separate=True)],
)
@pytest.mark.parametrize("wait", [0, 0.05, 0.12])
async def test_stopping_leaves_nothing_behind(
    behaviour: Behaviour, wait: float, caplog: pytest.LogCaptureFixture
) -> None:
    before = asyncio.all_tasks()
    cloud = Cloud({(PK, DK): SECRET}, behaviour)
    await cloud.start()
    address = cloud.address
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        for mid in range(5):
            client.sendto(request(mid, token=bytes([mid])), address)
        await asyncio.sleep(wait)
        await cloud.stop()
        await cloud.stop()
    assert asyncio.all_tasks() == before
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
        again.bind(address)  # the port is free
    await asyncio.sleep(0.12)  # aiocoap's timers may still come
    del cloud
    gc.collect()  # an unclosed socket or a coroutine never run would warn here
    assert [r.message for r in caplog.records if r.levelno >= logging.WARNING] == []


async def test_it_can_be_started_again_on_its_port(cloud: Cloud, connect: Connect) -> None:
    udp = await connect()
    await udp.ask(request(7))
    address = cloud.address
    await cloud.stop()
    udp.send(request(8))
    assert await udp.is_quiet()
    await cloud.start()
    assert cloud.address == address
    assert await udp.ask(request(9)) == header(ACK, CHANGED, 9, b"\xa1\xb2")
    assert [r.code for r in cloud.requests] == ["2.04", "2.04"]
