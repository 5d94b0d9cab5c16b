from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiocoap  # type: ignore[import-untyped, unused-ignore]
import pytest
from aiocoap.numbers import TransportTuning  # type: ignore[import-untyped, unused-ignore]

from hil.cloud import Cloud

from .wire import AUTH, DK, PK, SECRET, Talker, Udp, claim

Ask = Callable[..., Awaitable[Any]]
Connect = Callable[[], Awaitable[Udp]]


class Clock:
    """Time which passes when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ack_timeout() -> float:
    """Seconds until the cloud repeats a separate answer; a test may parametrize it."""
    return 2.0


@pytest.fixture
async def cloud(clock: Clock, ack_timeout: float) -> AsyncIterator[Cloud]:
    async with Cloud({(PK, DK): SECRET}, clock=clock, ack_timeout=ack_timeout) as cloud:
        yield cloud


@pytest.fixture
async def connect(cloud: Cloud) -> AsyncIterator[Connect]:
    """Makes UDP clients, each with a port of its own."""
    made: list[Udp] = []

    async def connect() -> Udp:
        loop = asyncio.get_running_loop()
        _, udp = await loop.create_datagram_endpoint(Udp, remote_addr=cloud.address)
        made.append(udp)
        return udp

    yield connect
    for udp in made:
        udp.transport.close()
    await asyncio.sleep(0)


@pytest.fixture
async def udp(connect: Connect) -> Udp:
    return await connect()


@pytest.fixture
async def device(udp: Udp) -> Talker:
    """A device that has authenticated."""
    device = Talker(udp)
    assert (await device.ask()).code == "2.04"
    return device


@pytest.fixture
async def ask(cloud: Cloud) -> AsyncIterator[Ask]:
    """One request by aiocoap's client; a good /auth unless told otherwise."""
    context = await aiocoap.Context.create_client_context(transports=["simple6"])

    async def ask(
        path: tuple[str, ...] = AUTH,
        payload: bytes | None = None,
        method: Any = aiocoap.POST,
        repeat_after: float = 2.0,
    ) -> Any:
        constants = {"ACK_TIMEOUT": repeat_after, "ACK_RANDOM_FACTOR": 1.0}
        message = aiocoap.Message(
            code=method,
            uri=f"coap://{cloud.host}:{cloud.port}/{'/'.join(path)}",
            payload=claim() if payload is None else payload,
            transport_tuning=type("Tuning", (TransportTuning,), constants)(),
        )
        return await asyncio.wait_for(context.request(message).response, 5)

    yield ask
    await context.shutdown()
