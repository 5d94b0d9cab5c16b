"""What an authentication costs on the serial line, on an attached and prepared modem."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from hil.emulator import Network, Options, ScriptedWire, create
from nbiot.coap.client import Identifiers, UdpClient
from nbiot.coap.message import Method, Request
from nbiot.enos.auth import Device, auth_payload
from nbiot.link import Link
from nbiot.link.memory import MemoryLink
from nbiot.modem import Modem
from nbiot.signing import Secret, SecretSigner
from tests.virtualtime import run_virtual

SERVER = ("47.96.1.2", 5683)
REPLY = 100  # bytes of the response datagram
PRODUCT_KEY, DEVICE_KEY = "Ab12Cd34", "863703030668235"
LIMITS = {"bc95": (4, 680), "bc95-g": (4, 680), "bc66": (3, 410)}


def respond(datagram: bytes) -> list[bytes]:
    """A piggybacked 2.04 of REPLY bytes."""
    head = bytes([datagram[0] | 0x20, 0x44]) + datagram[2 : 4 + (datagram[0] & 15)] + b"\xff"
    return [head + b"x" * (REPLY - len(head))]


class PacedLine:
    """A serial line between driver and modem: 10 bits a byte, each way, on the loop's clock."""

    def __init__(self, baudrate: int) -> None:
        self.byte_time = 10 / baudrate
        self.link = MemoryLink("line", baudrate=baudrate, on_write=self._to_modem)
        self.modem: Any = None
        self._free = {"up": 0.0, "down": 0.0}

    def _to_modem(self, data: bytes) -> None:
        self._carry("up", data, self.modem_receives)

    def modem_receives(self, data: bytes) -> None:
        self.modem.receive(data)

    def to_host(self, data: bytes) -> None:
        self._carry("down", data, self.link.feed)

    def _carry(self, way: str, data: bytes, deliver: Callable[[bytes], None]) -> None:
        loop = asyncio.get_running_loop()
        for index in range(len(data)):
            self._free[way] = max(self._free[way], loop.time()) + self.byte_time
            loop.call_at(self._free[way], deliver, data[index : index + 1])


async def authentication(model: str, baudrate: int, lifetime: int, monkeypatch: Any) -> Any:
    """(datagram bytes, AT round trips, serial bytes, seconds) of one authentication."""
    line = PacedLine(baudrate)
    wire = ScriptedWire()
    wire.peers[SERVER] = respond
    options = Options(attached=True, rate=baudrate, speed=1e6)  # no waiting inside the modem
    loop: Any = asyncio.get_running_loop()
    line.modem = create(model, options, Network(wire=wire), send=line.to_host, clock=loop)

    async def open_memory(_: str, *, baudrate: int) -> Link:
        return line.link

    monkeypatch.setattr("nbiot.modem.open_link", open_memory)
    device = Device(PRODUCT_KEY, DEVICE_KEY, SecretSigner(Secret("abcd")), lifetime)
    request = Request(Method.POST, ("auth", PRODUCT_KEY, DEVICE_KEY), auth_payload(device))
    async with Modem("line", model=model, baudrate=baudrate) as modem:
        await modem.attach()
        before, begin = modem.counters, loop.time()
        async with await modem.udp(*SERVER) as socket:
            response = await UdpClient(socket, Identifiers()).request(request)
        seconds = loop.time() - begin
        used = modem.counters.since(before)
        assert response.code == "2.04"
        assert response.stats.down == REPLY
        return response.stats.up, used.commands, used.sent + used.received, seconds


@pytest.mark.parametrize("lifetime", [30, 3600, 86400])
@pytest.mark.parametrize("model", LIMITS)
def test_bytes_and_round_trips(model: str, lifetime: int, monkeypatch: Any) -> None:
    up, round_trips, serial, _ = run_virtual(authentication(model, 9600, lifetime, monkeypatch))
    most_trips, most_bytes = LIMITS[model]
    assert up <= 145
    assert round_trips <= most_trips
    assert serial <= most_bytes


@pytest.mark.parametrize("baudrate", [9600, 115200])
@pytest.mark.parametrize("model", LIMITS)
def test_the_driver_adds_next_to_no_time(model: str, baudrate: int, monkeypatch: Any) -> None:
    """In virtual time, so that only the driver's own waiting counts, not this computer."""
    _, _, serial, seconds = run_virtual(authentication(model, baudrate, 3600, monkeypatch))
    wire = serial * 10 / baudrate
    allowed = 1.02 if baudrate == 9600 else 1.07  # a prompt needs 2 ms at any rate
    assert 0.9 * wire <= seconds <= allowed * wire
