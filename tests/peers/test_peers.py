"""The peers themselves: each is asked by a client which is neither ours nor of the same making."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiocoap  # type: ignore[import-untyped, unused-ignore]
import pytest

from .libcoap import coap_client, coap_server, requires_libcoap
from .nodecoap import Request, node_server, requires_node_coap
from .tshark import dissect, requires_tshark

Post = Callable[..., Awaitable[Any]]

HERE, THERE = ("127.0.0.1", 40000), ("10.1.2.3", 5683)
AUTH = bytes.fromhex("44021234a1b2c3d4b461757468084b563331356964570a7450625a4743646d6145ff")
COMMAND = bytes.fromhex(
    "64441235a1b2c3d5ed0727262f746f7069632f7379732f4b563331356964572f7450625a4743646d6145"
    "2f7468696e672f6d6f64656c2f646f776e5f726177250200000014"
)


@pytest.fixture
async def post() -> AsyncIterator[Post]:
    context = await aiocoap.Context.create_client_context(transports=["simple6"])

    async def post(uri: str, payload: bytes) -> Any:
        message = aiocoap.Message(code=aiocoap.POST, uri=uri, payload=payload)
        return await asyncio.wait_for(context.request(message).response, 5)

    yield post
    await context.shutdown()


@requires_libcoap
async def test_libcoap_server_takes_any_post(post: Post) -> None:
    async with coap_server() as server:
        uri = f"coap://{server.host}:{server.port}/auth/pk/dk"
        assert [(await post(uri, b"x")).code.dotted for _ in range(2)] == ["2.01", "2.04"]
    received = [m for m in server.messages if m.direction == "received"]
    assert [m.code for m in received] == ["POST", "POST"]
    assert "Uri-Path:auth, Uri-Path:pk, Uri-Path:dk" in received[0].options


@requires_libcoap
async def test_libcoap_server_ends_with_an_exception() -> None:
    with pytest.raises(ZeroDivisionError):
        async with coap_server() as server:
            _ = server.port // 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", server.port))  # nobody holds it any more


@requires_node_coap
async def test_node_server_records_and_answers(post: Post) -> None:
    async with node_server(payload=b"\x00ok", options=[(2100, b"/x"), (2102, b"\x01")]) as server:
        answer = await post(f"coap://{server.host}:{server.port}/auth/pk/dk", b"\x01\x02")
    assert (answer.code, answer.payload) == (aiocoap.CHANGED, b"\x00ok")
    assert [(int(o.number), o.encode()) for o in answer.opt.option_list()] == [
        (2100, b"/x"),
        (2102, b"\x01"),
    ]
    (asked,) = server.requests
    assert asked == Request("POST", "/auth/pk/dk", b"\x01\x02", asked.mid, asked.token)


@requires_node_coap
@requires_libcoap
async def test_node_server_answers_separately() -> None:
    async with node_server(code="4.01", separate=0.05) as server:
        uri = f"coap://{server.host}:{server.port}/auth/pk/dk"
        answer = await coap_client("post", uri, b"x")
    assert answer.code == "4.01"
    assert [(m.type, m.code) for m in answer.messages] == [
        ("CON", "POST"),
        ("ACK", "0.00"),
        ("CON", "4.01"),
        ("ACK", "0.00"),
    ]
    assert server.requests[0].mid == answer.messages[0].mid


@requires_node_coap
@requires_libcoap
@pytest.mark.parametrize(
    ("method", "path", "code"), [("get", "auth/a/b", "4.05"), ("post", "auth", "4.04")]
)
async def test_node_server_knows_only_auth(method: str, path: str, code: str) -> None:
    async with node_server() as server:
        answer = await coap_client(method, f"coap://{server.host}:{server.port}/{path}")
    assert answer.code == code


@requires_tshark
async def test_tshark_reads_the_derived_vectors() -> None:
    auth, command = await dissect([(HERE, THERE, AUTH + b"{}"), (THERE, HERE, COMMAND)])
    assert (auth.type, auth.code, auth.mid, auth.token.hex()) == ("CON", "0.02", 0x1234, "a1b2c3d4")
    assert auth.path == ("auth", "KV315idW", "tPbZGCdmaE")
    assert (auth.payload, auth.complaints) == (b"{}", ())
    assert (command.type, command.code, command.complaints) == ("ACK", "2.04", ())
    assert command.options == (
        (2100, b"/topic/sys/KV315idW/tPbZGCdmaE/thing/model/down_raw"),
        (2102, b"\x02\x00\x00\x00\x14"),
    )


@requires_tshark
@pytest.mark.parametrize(
    ("datagram", "complaint"),
    [
        (AUTH[:2], "Malformed Packet (Exception occurred)"),
        (AUTH[:12], "option longer than the package"),
        (b"", "No CoAP"),
        (bytes.fromhex("40020001e10728ff"), "Unknown Option Number 2101"),
    ],
)
async def test_tshark_complains(datagram: bytes, complaint: str) -> None:
    (read,) = await dissect([(HERE, THERE, datagram)])
    assert complaint in read.complaints


@requires_tshark
async def test_tshark_reads_nothing_from_nothing() -> None:
    assert await dissect([]) == []
