"""Transfers in blocks against CoAP servers that others wrote: libcoap, node's coap, aiocoap."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiocoap
import pytest
from aiocoap import resource

from nbiot.coap.blockwise import Transfer
from nbiot.coap.client import Identifiers, UdpClient
from nbiot.coap.exchange import Timing
from nbiot.coap.message import Method, Request, decode, encode_request
from tests.peers.libcoap import coap_server, requires_libcoap
from tests.peers.nodecoap import node_server, requires_node_coap
from tests.peers.tshark import dissect, requires_tshark

from .blockserver import BLOCK1, BLOCK2, Asked, BlockServer, Manners, taken_apart
from .loopback import HOST, Loopback, loopback, unused_port
from .wire import DK, PK

PATIENT = Timing(ack_timeout=10.0, response_timeout=10.0)  # nothing is to be repeated
LOSSY = Timing(ack_timeout=0.2, random_factor=1.0, max_retransmit=6)
COMMAND = ((2100, b"/topic"), (2102, b"down"))
LIMITS = (512, 1024, 200)


def body(size: int) -> bytes:
    return random.Random(size).randbytes(size)


@asynccontextmanager
async def client_of(
    port: int, limit: int, **options: Any
) -> AsyncIterator[tuple[UdpClient, Loopback]]:
    settings: dict[str, Any] = {"identifiers": Identifiers(), "timing": PATIENT} | options
    async with loopback(port, limit) as socket:
        yield UdpClient(socket.as_socket, **settings), socket


def asked(socket: Loopback) -> list[Asked]:
    return [taken_apart(data) for data in socket.sent if data[0] >> 4 & 3 == 0]


# --- libcoap ------------------------------------------------------------------------------------


@requires_libcoap
@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("most_received", [None, 512])
async def test_libcoap_keeps_what_we_put_and_gives_it_back(
    limit: int, most_received: int | None
) -> None:
    async with (
        coap_server() as server,
        client_of(server.port, limit, most_received=most_received) as (client, socket),
    ):
        created = await client.request(Request(Method.PUT, ("a", "report"), body(1024)))
        changed = await client.request(Request(Method.PUT, ("a", "report"), body(3000)))
        found = await client.request(Request(Method.GET, ("a", "report")))
    assert (created.code, changed.code) == ("2.01", "2.04")
    assert (found.code, found.payload) == ("2.05", body(3000))
    assert found.stats.exchanges == (3 if most_received is None else 12)
    assert max(map(len, socket.sent)) <= limit
    if most_received is not None:
        assert max(map(len, socket.heard)) <= most_received


@requires_libcoap
async def test_blocks_whose_responses_are_lost_are_sent_again() -> None:
    """Not the last one: libcoap would take its repetition for a request of its own."""
    async with (
        coap_server(lost="2-3,6,12,14") as server,
        client_of(server.port, 200, timing=LOSSY, most_received=512) as (client, _),
    ):
        put = await client.request(Request(Method.PUT, ("a", "report"), body(1024)))
        found = await client.request(Request(Method.GET, ("a", "report")))
    assert (put.stats.exchanges, put.stats.retransmissions) == (8, 3)
    assert (found.stats.exchanges, found.stats.retransmissions) == (4, 2)
    assert found.payload == body(1024)


@requires_libcoap
async def test_blocks_of_two_versions_are_never_put_together() -> None:
    """Another client writes libcoap's resource between two blocks."""
    path = ("a", "report")

    async with coap_server() as server, client_of(server.port, 1024) as (writer, _):
        await writer.request(Request(Method.PUT, path, body(3000)))
        async with client_of(server.port, 1024) as (reader, socket):
            plain, interfered = socket.receive, False

            async def receive(seconds: float) -> bytes:
                nonlocal interfered
                data = await plain(seconds)
                if not interfered:
                    interfered = True
                    await writer.request(Request(Method.PUT, path, body(2500)))
                return data

            socket.receive = receive  # type: ignore[method-assign]
            found = await reader.request(Request(Method.GET, path))
    assert found.payload in (body(3000), body(2500))


# --- node ---------------------------------------------------------------------------------------


@requires_node_coap
@pytest.mark.parametrize("separate", [None, 0.05], ids=["piggybacked", "separate"])
@pytest.mark.parametrize("most_received", [None, 512, 250])
async def test_node_gives_a_long_response_to_a_post(
    separate: float | None, most_received: int | None
) -> None:
    request = Request(Method.POST, ("auth", PK, DK), b"{}", 50)
    async with (
        node_server(payload=body(2000), options=COMMAND, separate=separate) as server,
        client_of(server.port, 512, most_received=most_received) as (client, socket),
    ):
        found = await client.request(request)
    assert (found.code, found.payload) == ("2.04", body(2000))
    assert [o for o in found.options if o[0] >= 2048] == list(COMMAND)
    assert [a.payload for a in asked(socket)] == [b"{}"] + [b""] * (found.stats.exchanges - 1)
    assert found.stats.exchanges == {None: 2, 512: 8, 250: 32}[most_received]


class OneToken(Identifiers):
    """node's coap takes the blocks of a request for one only where they have one token (that is
    not in RFC 7959, and EnOS wants another one for each request).
    """

    def next(self) -> tuple[int, bytes]:
        return super().next()[0], b"\x12\x34"


@requires_node_coap
@pytest.mark.parametrize("limit", LIMITS)
async def test_node_puts_our_blocks_together(limit: int) -> None:
    request = Request(Method.POST, ("auth", PK, DK), body(1000), 50)
    async with (
        node_server(payload=b"ok", options=COMMAND) as server,
        client_of(server.port, limit, identifiers=OneToken()) as (client, socket),
    ):
        found = await client.request(request)
    (whole,) = server.requests
    assert (whole.payload, found.payload, found.options) == (body(1000), b"ok", COMMAND)
    assert found.stats.exchanges == len(socket.sent) == {1024: 2, 512: 4, 200: 8}[limit]


# --- aiocoap ------------------------------------------------------------------------------------


class Echo(resource.Resource):  # type: ignore[misc, unused-ignore]
    """Answers each request with its payload backwards, and with a command."""

    def __init__(self) -> None:
        super().__init__()
        self.payloads: list[bytes] = []

    async def render(self, request: Any) -> Any:
        self.payloads.append(request.payload)
        reply = aiocoap.Message(code=aiocoap.CHANGED, payload=request.payload[::-1])
        for number, value in COMMAND:
            reply.opt.add_option(aiocoap.numbers.OptionNumber(number).create_option(decode=value))
        return reply


@pytest.mark.parametrize("size", [0, 1, 511, 512, 1023, 1024, 1025, 4000])
@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("content_format", [None, 50])
async def test_aiocoap_gets_and_gives_long_payloads(
    size: int, limit: int, content_format: int | None
) -> None:
    site, port = Echo(), unused_port()
    server = await aiocoap.Context.create_server_context(
        site, bind=(HOST, port), transports=["simplesocketserver"]
    )
    try:
        async with client_of(port, limit, most_received=limit) as (client, socket):
            found = await client.request(
                Request(Method.POST, ("auth", PK, DK), body(size), content_format)
            )
    finally:
        await server.shutdown()
    assert (found.code, found.payload) == ("2.04", body(size)[::-1])
    assert site.payloads == [body(size)]
    assert found.options == COMMAND
    assert max(map(len, socket.sent + socket.heard)) <= limit
    for request in asked(socket):
        assert not (request.block(BLOCK1) and request.block(BLOCK2)) or (
            request.block(BLOCK1)[1] is False  # type: ignore[index]
        )


# --- tshark -------------------------------------------------------------------------------------


@requires_tshark
async def test_tshark_has_nothing_to_complain_about() -> None:
    here, there = ("10.0.0.1", 40000), ("10.1.2.3", 5683)
    server = BlockServer(Manners(payload=body(700)))
    sent: list[Any] = []
    transfer = Transfer(Request(Method.POST, ("a", "b"), body(1024), 50), 512, most_received=512)
    while (part := transfer.next) is not None:
        mid = len(sent)
        data = encode_request(part.request, mid, mid.to_bytes(2, "big"), part.options)
        sent.append((here, there, data))
        transfer.received(decode(server.answer(data)))
    read = await dissect(sent)
    assert [complaint for found in read for complaint in found.complaints] == []
    blocks = [dict(found.options).keys() & {BLOCK1, BLOCK2} for found in read]
    assert blocks == [*[{BLOCK1}] * 3, {BLOCK1, BLOCK2}, *[{BLOCK2}] * 2]
    assert b"".join(found.payload for found in read) == body(1024)
