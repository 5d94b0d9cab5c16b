"""The UDP client against CoAP servers that others wrote: libcoap, node's coap, aiocoap."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiocoap
import pytest
from aiocoap import resource

from nbiot.coap.client import Identifiers, UdpClient, _Run
from nbiot.coap.exchange import Exchange, Timing
from nbiot.coap.message import Method, Request, code_text
from nbiot.profile import Release
from tests.peers.libcoap import coap_server, requires_libcoap
from tests.peers.nodecoap import node_server, requires_node_coap

from .loopback import HOST, Loopback, loopback, unused_port
from .wire import ACK, BODY, CON, DK, EMPTY, GET, PK, TOPIC, message

AUTH = Request(Method.POST, ("auth", PK, DK), BODY)
COMMAND = ((2100, TOPIC), (2102, b"\x02\x00\x00\x00\x14"))
TIMING = Timing(ack_timeout=10.0, response_timeout=10.0)  # nothing is to be repeated


@asynccontextmanager
async def client_of(port: int) -> AsyncIterator[tuple[UdpClient, Loopback]]:
    async with loopback(port) as socket:
        yield UdpClient(socket.as_socket, Identifiers(), TIMING), socket


def acks_of_separates(socket: Loopback) -> list[bytes]:
    return [
        message(ACK, EMPTY, int.from_bytes(data[2:4], "big"))
        for data in socket.heard
        if data[0] >> 4 & 3 == CON
    ]


@requires_libcoap
async def test_libcoap_takes_our_requests() -> None:
    async with coap_server() as server, client_of(server.port) as (client, socket):
        codes = [(await client.request(AUTH)).code for _ in range(3)]
    assert codes == ["2.01", "2.04", "2.04"]
    received = [m for m in server.messages if m.direction == "received"]
    assert [(m.type, m.code) for m in received] == [("CON", "POST")] * 3
    assert [m.mid for m in received] == [int.from_bytes(d[2:4], "big") for d in socket.sent]
    assert [m.token for m in received] == [d[4:6] for d in socket.sent]
    assert f"Uri-Path:auth, Uri-Path:{PK}, Uri-Path:{DK}" in received[0].options


@requires_libcoap
async def test_libcoap_gets_the_ack_of_its_separate_response() -> None:
    mid, token = 0x4321, b"\xab\xcd"
    asked = message(CON, GET, mid, token, [(11, b"async"), (15, b"1")])  # an answer after 1 s
    async with coap_server() as server, loopback(server.port) as socket:
        exchange = Exchange(asked, mid, token, TIMING)
        run = _Run(socket.as_socket, exchange)
        found = await run.response()
        await run.acknowledge(Release.AFTER_THIS)
        await asyncio.sleep(0.2)  # the server gets our ACK
    assert (code_text(found.code), exchange.retransmissions) == ("2.05", 0)
    assert [(m.direction, m.type, m.code) for m in server.messages] == [
        ("received", "CON", "GET"),
        ("sent", "ACK", "0.00"),
        ("sent", "CON", "2.05"),
        ("received", "ACK", "0.00"),
    ]
    assert socket.sent == [asked, *acks_of_separates(socket)]


@requires_node_coap
@pytest.mark.parametrize("separate", [None, 0.05], ids=["piggybacked", "separate"])
@pytest.mark.parametrize("code", ["2.04", "2.05", "4.01"])
async def test_node_and_we_understand_each_other(separate: float | None, code: str) -> None:
    settings: dict[str, Any] = {"code": code, "options": COMMAND, "payload": b"\x00\xff"}
    async with (
        node_server(separate=separate, **settings) as server,
        client_of(server.port) as (client, socket),
    ):
        found = await client.request(AUTH)
    (asked,) = server.requests
    assert (found.code, found.payload, found.options) == (code, b"\x00\xff", COMMAND)
    assert found.stats.retransmissions == 0
    assert (asked.method, asked.path, asked.payload) == ("POST", f"/auth/{PK}/{DK}", BODY)
    assert (asked.mid, asked.token) == (
        int.from_bytes(socket.sent[0][2:4], "big"),
        socket.sent[0][4:6],
    )
    assert socket.sent[1:] == acks_of_separates(socket)
    assert len(socket.sent) == (1 if separate is None else 2)


class Recorder(resource.Resource):  # type: ignore[misc, unused-ignore]
    """Takes every request and answers it after ``pause`` seconds."""

    def __init__(self, pause: float) -> None:
        super().__init__()
        self.requests: list[Any] = []
        self._pause = pause

    async def render(self, request: Any) -> Any:
        self.requests.append(request)
        await asyncio.sleep(self._pause)
        reply = aiocoap.Message(code=aiocoap.CHANGED, payload=b"done")
        for number, value in COMMAND:
            reply.opt.add_option(aiocoap.numbers.OptionNumber(number).create_option(decode=value))
        return reply


@pytest.mark.parametrize("pause", [0.0, 0.3], ids=["piggybacked", "separate"])
async def test_aiocoap_and_we_understand_each_other(pause: float) -> None:
    site, port = Recorder(pause), unused_port()
    server = await aiocoap.Context.create_server_context(
        site, bind=(HOST, port), transports=["simplesocketserver"]
    )
    try:
        async with client_of(port) as (client, socket):
            answers = [await client.request(AUTH) for _ in range(2)]
    finally:
        await server.shutdown()
    assert [(a.code, a.payload, a.options) for a in answers] == [("2.04", b"done", COMMAND)] * 2
    assert [r.opt.uri_path for r in site.requests] == [("auth", PK, DK)] * 2
    assert [r.payload for r in site.requests] == [BODY] * 2
    assert len({r.token for r in site.requests}) == 2
    assert len(socket.sent) == (2 if pause == 0 else 4)
