"""The UDP client against the EnOS stand-in in each of its moods, over real UDP sockets."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hil.cloud import Behaviour, Cloud
from nbiot.coap.client import Identifiers, UdpClient
from nbiot.coap.exchange import Timing
from nbiot.coap.message import Method, Request, Response
from nbiot.enos.auth import Device, auth_payload
from nbiot.errors import NoResponse, ResponseReset
from nbiot.signing import Secret, SecretSigner
from tests.peers.tshark import dissect, requires_tshark

from .loopback import Loopback, loopback, unused_port
from .wire import ACK, CON, DK, EMPTY, PK, RST, SECRET, TOPIC, message

PATIENT = Timing(ack_timeout=10.0, response_timeout=10.0)  # nothing is to be repeated
LOSSY = Timing(ack_timeout=0.15, random_factor=1.0, max_retransmit=6)
QUICK = Timing(ack_timeout=0.06, random_factor=1.0, max_retransmit=2, response_timeout=0.3)
ONCE = Timing(ack_timeout=10.0, max_retransmit=0, response_timeout=0.3)
COMMAND = ((2100, TOPIC), (2102, b"\x02\x00\x00\x00\x14"))


def auth_request(lifetime: int = 3600, content_format: int | None = None) -> Request:
    device = Device(PK, DK, SecretSigner(Secret(SECRET)), lifetime)
    return Request(Method.POST, ("auth", PK, DK), auth_payload(device), content_format)


async def ask(
    behaviour: Behaviour, timing: Timing = PATIENT, **options: Any
) -> tuple[Response | Exception, Cloud, Loopback]:
    """One authentication: its response or what it raised, and what both ends saw."""
    async with (
        Cloud({(PK, DK): SECRET}, behaviour) as cloud,
        loopback(cloud.port) as socket,
    ):
        client = UdpClient(socket.as_socket, Identifiers(), timing)
        found: Response | Exception
        try:
            found = await client.request(auth_request(**options))
        except (NoResponse, ResponseReset) as error:
            found = error
        for _ in range(20):  # the last datagram reaches the cloud
            await asyncio.sleep(0.01)
            if sum(direction == "in" for direction, *_ in cloud.datagrams) >= len(socket.sent):
                break
    return found, cloud, socket


def requests_of(socket: Loopback) -> list[bytes]:
    return [data for data in socket.sent if data[1] == Method.POST]


def others_of(socket: Loopback) -> list[bytes]:
    return [data for data in socket.sent if data[1] != Method.POST]


def separates_to(socket: Loopback) -> list[bytes]:
    return [data for data in socket.heard if data[0] >> 4 & 3 == CON]


def empty(kind: int, data: bytes) -> bytes:
    return message(kind, EMPTY, int.from_bytes(data[2:4], "big"))


@pytest.mark.parametrize("lifetime", [30, 3600, 86400])
@pytest.mark.parametrize("content_format", [None, 50])
async def test_the_cloud_finds_the_signature_right(
    lifetime: int, content_format: int | None
) -> None:
    found, cloud, socket = await ask(Behaviour(), lifetime=lifetime, content_format=content_format)
    assert isinstance(found, Response)
    assert (found.code, len(socket.sent)) == ("2.04", 1)
    (request,) = cloud.requests
    assert (request.verdict, request.method) == ("signature ok", "POST")
    assert request.path == ("auth", PK, DK)
    formats = [value for number, value in request.options if number == 12]
    assert formats == ([] if content_format is None else [b"\x32"])


@pytest.mark.parametrize("code", ["2.01", "2.05", "4.00", "4.01", "4.03", "5.00"])
async def test_the_code_of_the_response_is_told(code: str) -> None:
    found, _, _ = await ask(Behaviour(code=code))
    assert isinstance(found, Response)
    assert found.code == code


@pytest.mark.parametrize(
    "behaviour",
    [Behaviour(slow=0.25), Behaviour(separate=True), Behaviour(separate=True, slow=0.3)],
    ids=["slow", "separate", "separate and slow"],
)
async def test_a_separate_response_is_waited_for_and_acknowledged(behaviour: Behaviour) -> None:
    found, cloud, socket = await ask(behaviour)
    assert isinstance(found, Response)
    assert found.stats.retransmissions == 0
    (separate,) = separates_to(socket)
    assert others_of(socket) == [empty(ACK, separate)]
    assert len(cloud.requests) == 1


async def test_a_lost_request_is_sent_again_unchanged() -> None:
    found, cloud, socket = await ask(Behaviour(lose_requests=2), LOSSY)
    assert isinstance(found, Response)
    assert found.stats.retransmissions == 2
    assert (len(socket.sent), len(set(socket.sent))) == (3, 1)
    assert len(cloud.requests) == 1


async def test_a_lost_answer_costs_a_repetition_but_no_second_authentication() -> None:
    found, cloud, socket = await ask(Behaviour(lose_answers=1), LOSSY)
    assert isinstance(found, Response)
    assert found.stats.retransmissions == 1
    assert len(set(socket.sent)) == 1
    assert len(cloud.requests) == 1


async def test_a_separate_response_whose_ack_was_lost_before_it_ends_the_repeating() -> None:
    behaviour = Behaviour(separate=True, slow=0.05, lose_answers=1)
    found, _, socket = await ask(behaviour)
    assert isinstance(found, Response)
    assert len(requests_of(socket)) == 1


@pytest.mark.parametrize("separate", [True, False])
async def test_a_doubled_response_is_one_response(separate: bool) -> None:
    found, cloud, socket = await ask(Behaviour(duplicate=True, separate=separate))
    assert isinstance(found, Response)
    assert found.code == "2.04"
    assert len(requests_of(socket)) == 1
    assert len(cloud.requests) == 1


async def test_a_doubled_response_does_not_answer_the_next_request() -> None:
    async with (
        Cloud({(PK, DK): SECRET}, Behaviour(duplicate=True, separate=True)) as cloud,
        loopback(cloud.port) as socket,
    ):
        client = UdpClient(socket.as_socket, Identifiers(), PATIENT)
        await client.request(auth_request())
        cloud.behaviour = Behaviour(code="4.03", slow=0.05)
        assert (await client.request(auth_request())).code == "4.03"
        doubled = separates_to(socket)
    assert len(doubled) == 2
    assert others_of(socket) == [empty(ACK, doubled[0])] * 2  # no reset


async def test_a_silent_cloud_is_given_up() -> None:
    found, cloud, socket = await ask(Behaviour(silent=True), QUICK)
    assert isinstance(found, NoResponse)
    assert (len(socket.sent), len(set(socket.sent))) == (3, 1)
    assert cloud.requests == []


async def test_a_port_that_nobody_listens_on_is_given_up() -> None:
    async with loopback(unused_port()) as socket:
        with pytest.raises(NoResponse):
            await UdpClient(socket.as_socket, Identifiers(), QUICK).request(auth_request())


async def test_a_reset_is_told_after_one_transmission() -> None:
    found, _, socket = await ask(Behaviour(reset=True))
    assert isinstance(found, ResponseReset)
    assert len(socket.sent) == 1


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        (Behaviour(corrupt=True), "malformed"),
        (Behaviour(corrupt=b"\x00" * 20), "malformed"),
        (Behaviour(wrong_token=True), "response with another token"),
        (Behaviour(wrong_mid=True), "acknowledgement of another message"),
    ],
    ids=["broken option", "zeros", "wrong token", "wrong mid"],
)
async def test_a_spoiled_answer_is_dropped_and_never_taken(
    behaviour: Behaviour, words: str
) -> None:
    found, _, socket = await ask(behaviour, QUICK)
    assert isinstance(found, NoResponse)
    assert f"(dropped: 3 {words}" in found.message
    assert len(socket.sent) == 3


@pytest.mark.parametrize(
    "behaviour",
    [Behaviour(wrong_token=True, separate=True), Behaviour(corrupt=b"\x44\xff\x12\x34")],
    ids=["wrong token", "broken token"],
)
async def test_a_spoiled_confirmable_answer_is_reset(behaviour: Behaviour) -> None:
    found, _, socket = await ask(behaviour, QUICK)
    assert isinstance(found, NoResponse)
    spoiled = separates_to(socket)
    assert spoiled
    assert others_of(socket) == [empty(RST, data) for data in spoiled]


@pytest.mark.parametrize("separate", [True, False])
async def test_the_command_options_reach_the_caller(separate: bool) -> None:
    found, _, _ = await ask(Behaviour(options=COMMAND, separate=separate))
    assert isinstance(found, Response)
    assert found.options == COMMAND


async def test_a_large_response_comes_in_whole() -> None:
    found, _, _ = await ask(Behaviour(big_payload=3000))
    assert isinstance(found, Response)
    assert (found.code, len(found.payload), found.stats.exchanges) == ("2.04", 3000, 3)


async def test_the_cost_is_what_went_over_the_socket() -> None:
    found, _, socket = await ask(Behaviour(separate=True, lose_requests=1), LOSSY)
    assert isinstance(found, Response)
    assert found.stats.up == sum(map(len, socket.sent))
    assert found.stats.down == sum(map(len, socket.heard))
    assert found.stats.datagrams_up == len(socket.sent)
    assert found.stats.datagrams_down == len(socket.heard)


@requires_tshark
async def test_tshark_has_nothing_to_complain_about() -> None:
    exchanged, sent = [], []
    for n, behaviour in enumerate(
        [
            Behaviour(),
            Behaviour(separate=True),
            Behaviour(code="4.01"),
            Behaviour(options=COMMAND),
            Behaviour(wrong_token=True, separate=True),
        ]
    ):
        here = ("10.0.0.1", 40000 + n)
        _, cloud, socket = await ask(behaviour, ONCE, content_format=50)
        for direction, _, data, _ in cloud.datagrams:
            ends = (here, cloud.address) if direction == "in" else (cloud.address, here)
            exchanged.append((*ends, data))
        sent += socket.sent
    dissected = zip(exchanged, await dissect(exchanged), strict=True)
    ours = [found for (source, _, _), found in dissected if source[0] == "10.0.0.1"]
    assert len(ours) == len(sent)
    assert [complaint for found in ours for complaint in found.complaints] == []
    for found, data in zip(ours, sent, strict=True):
        assert found.mid == int.from_bytes(data[2:4], "big")
        if data[1] == Method.POST:
            assert (found.type, found.code, found.path) == ("CON", "0.02", ("auth", PK, DK))
            assert (found.token, found.payload) == (data[4:6], auth_request().payload)
            assert (12, b"\x32") in found.options
        else:
            assert (found.code, found.token, found.payload) == ("0.00", b"", b"")
            assert found.type in ("ACK", "RST")
