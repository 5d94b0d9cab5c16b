"""Wireshark's dissector reads what the stand-in and its clients exchange."""

from __future__ import annotations

from hil.cloud import Behaviour, Cloud
from tests.peers.libcoap import coap_client, requires_libcoap
from tests.peers.tshark import Dissected, dissect, requires_tshark

from .conftest import Ask
from .wire import AUTH, DK, PK, UP_RAW, Udp, claim, request


async def read(cloud: Cloud) -> list[Dissected]:
    return await dissect(
        [
            (d.peer, cloud.address, d.data)
            if d.direction == "in"
            else (cloud.address, d.peer, d.data)
            for d in cloud.datagrams
        ]
    )


@requires_tshark
async def test_nothing_to_complain_about(cloud: Cloud, ask: Ask) -> None:
    await ask()
    await ask(UP_RAW, b"\x01\x02")
    await ask(payload=b"not JSON")
    await ask(("nowhere",))
    for behaviour in (
        Behaviour(separate=True),
        Behaviour(separate=True, options=[(2100, b"/topic/x"), (2102, b"\x01" * 300)]),
        Behaviour(big_payload=2500),
        Behaviour(code="5.03", big_payload=5),
    ):
        cloud.next(behaviour)
        await ask()
    read_back = await read(cloud)
    assert {d.code for d in read_back} == {"0.00", "0.02", "2.04", "4.00", "4.04", "5.03"}
    assert {d.type for d in read_back} == {"CON", "ACK"}
    assert [d.complaints for d in read_back] == [()] * len(cloud.datagrams)


@requires_tshark
@requires_libcoap
async def test_nothing_to_complain_about_with_libcoap(cloud: Cloud) -> None:
    uri = f"coap://{cloud.host}:{cloud.port}/{'/'.join(AUTH)}"
    await coap_client("post", uri, claim())
    cloud.next(Behaviour(separate=True, big_payload=20))
    await coap_client("post", uri, claim())
    read_back = await read(cloud)
    assert [d.type for d in read_back] == ["CON", "ACK", "CON", "ACK", "CON", "ACK"]
    assert [d.complaints for d in read_back] == [()] * 6


@requires_tshark
async def test_the_fields_are_those_which_were_sent(cloud: Cloud, udp: Udp) -> None:
    cloud.next(Behaviour(options=[(2100, b"/topic/x"), (2102, b"\x01" * 300)], big_payload=3))
    await udp.ask(request(0x1234))
    asked, answered = await read(cloud)
    assert (asked.type, asked.code, asked.mid) == ("CON", "0.02", 0x1234)
    assert (asked.token, asked.path, asked.payload) == (b"\xa1\xb2", ("auth", PK, DK), claim())
    assert (answered.type, answered.code, answered.mid) == ("ACK", "2.04", 0x1234)
    assert (answered.token, answered.payload) == (b"\xa1\xb2", b"\x00\x01\x02")
    assert answered.options == ((2100, b"/topic/x"), (2102, b"\x01" * 300))


@requires_tshark
async def test_it_does_complain_about_spoiled_datagrams(cloud: Cloud, udp: Udp) -> None:
    cloud.next(Behaviour(corrupt=True))
    await udp.ask(request(7))
    await udp.ask(request(8, token=b"\x08"))
    await udp.ask(request(8, token=b"\x08"))
    complaints = [d.complaints for d in await read(cloud)]
    malformed = ("Malformed Packet (Exception occurred)",)
    assert complaints == [(), malformed, (), (), ("Retransmitted",), ()]
