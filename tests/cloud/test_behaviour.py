"""Every way in which the stand-in can misbehave on purpose."""

from __future__ import annotations

import asyncio

import aiocoap  # type: ignore[import-untyped, unused-ignore]
import pytest

from hil.cloud import Behaviour, Cloud, Limits
from tests.peers.libcoap import coap_client, requires_libcoap

from .conftest import Ask
from .wire import (
    ACK,
    CHANGED,
    CON,
    DK,
    EMPTY,
    NON,
    PK,
    RST,
    UP_RAW,
    Udp,
    claim,
    header,
    request,
)

TOKEN = b"\xa1\xb2"
PIGGYBACKED = header(ACK, CHANGED, 7, TOKEN)


def is_separate(datagram: bytes, code: int = CHANGED) -> bool:
    """A CON with our token and a message ID of the server's own."""
    return datagram[:2] == header(CON, code, 0, TOKEN)[:2] and datagram[4:6] == TOKEN


async def test_healthy_is_the_default(udp: Udp) -> None:
    assert await udp.ask(request(7)) == PIGGYBACKED
    assert await udp.is_quiet()


async def test_slow_sends_an_empty_ack_first(cloud: Cloud, udp: Udp) -> None:
    cloud.behaviour = Behaviour(slow=0.15)
    assert await udp.ask(request(7)) == header(ACK, EMPTY, 7)
    assert is_separate(await udp.receive())
    asked, _, answered = cloud.datagrams
    assert answered.time - asked.time >= 0.15


async def test_a_little_slow_is_still_piggybacked(cloud: Cloud, udp: Udp) -> None:
    cloud.behaviour = Behaviour(slow=0.01)
    assert await udp.ask(request(7)) == PIGGYBACKED
    asked, answered = cloud.datagrams
    assert answered.time - asked.time >= 0.01


async def test_separate_acknowledges_at_once(cloud: Cloud, udp: Udp) -> None:
    cloud.behaviour = Behaviour(separate=True, slow=0.2)
    assert await udp.ask(request(7)) == header(ACK, EMPTY, 7)
    assert is_separate(await udp.receive())
    _, acknowledged, answered = cloud.datagrams
    assert answered.time - acknowledged.time >= 0.15  # aiocoap by itself takes half of 0.2 s


@pytest.mark.parametrize("ack_timeout", [0.1])
async def test_a_separate_answer_is_repeated_until_acknowledged(cloud: Cloud, udp: Udp) -> None:
    cloud.behaviour = Behaviour(separate=True)
    await udp.ask(request(7))
    first = await udp.receive()
    assert is_separate(first)
    assert await udp.receive() == first
    udp.send(header(ACK, EMPTY, int.from_bytes(first[2:4])))
    assert await udp.is_quiet(0.4)


async def test_silent_sends_nothing_at_all(cloud: Cloud, udp: Udp) -> None:
    cloud.behaviour = Behaviour(silent=True)
    udp.send(request(7))
    udp.send(request(7))
    assert await udp.is_quiet(0.15)
    assert [d.direction for d in cloud.datagrams] == ["in", "in"]
    assert cloud.requests == []


async def test_duplicate_sends_the_same_datagram_twice(cloud: Cloud, udp: Udp) -> None:
    cloud.behaviour = Behaviour(duplicate=True)
    assert await udp.ask(request(7)) == PIGGYBACKED
    assert await udp.receive() == PIGGYBACKED
    assert await udp.is_quiet()
    assert len(cloud.requests) == 1


async def test_duplicate_doubles_a_separate_answer_but_not_its_ack(cloud: Cloud, udp: Udp) -> None:
    cloud.behaviour = Behaviour(duplicate=True, separate=True)
    assert await udp.ask(request(7)) == header(ACK, EMPTY, 7)
    first = await udp.receive()
    assert is_separate(first)
    assert await udp.receive() == first


@pytest.mark.parametrize("kind", [CON, NON])
async def test_reset_answers_rst(cloud: Cloud, udp: Udp, kind: int) -> None:
    cloud.behaviour = Behaviour(reset=True)
    assert await udp.ask(request(7, kind=kind)) == header(RST, EMPTY, 7)
    assert cloud.requests == []
    assert not cloud.is_online(PK, DK)


async def test_lost_requests_have_to_be_repeated(cloud: Cloud, udp: Udp) -> None:
    cloud.behaviour = Behaviour(lose_requests=2)
    udp.send(request(7))
    udp.send(request(7))
    assert await udp.is_quiet()
    assert await udp.ask(request(7)) == PIGGYBACKED
    udp.send(request(8))
    assert await udp.is_quiet()


async def test_lost_answers_come_with_the_next_repetition(cloud: Cloud, udp: Udp) -> None:
    cloud.behaviour = Behaviour(lose_answers=1)
    udp.send(request(7))
    assert await udp.is_quiet()
    assert cloud.is_online(PK, DK)
    assert await udp.ask(request(7)) == PIGGYBACKED
    assert len(cloud.requests) == 1


async def test_aiocoap_gets_through_losses(cloud: Cloud, ask: Ask) -> None:
    cloud.behaviour = Behaviour(lose_requests=1, lose_answers=1)
    assert (await ask(repeat_after=0.1)).code == aiocoap.CHANGED
    assert [d.direction for d in cloud.datagrams][:3] == ["in", "in", "in"]
    assert len(cloud.requests) == 1


async def test_corrupt_keeps_the_header_and_breaks_an_option(cloud: Cloud, udp: Udp) -> None:
    cloud.behaviour = Behaviour(corrupt=True)
    answer = await udp.ask(request(7))
    assert answer.startswith(PIGGYBACKED)
    with pytest.raises(aiocoap.error.UnparsableMessage):
        aiocoap.Message.decode(answer)
    assert cloud.requests[-1].code == "2.04"


@pytest.mark.parametrize("garbage", [b"", b"\x00", b"ERROR"])
async def test_corrupt_sends_the_given_garbage(cloud: Cloud, udp: Udp, garbage: bytes) -> None:
    cloud.behaviour = Behaviour(corrupt=garbage)
    assert await udp.ask(request(7)) == garbage


@pytest.mark.parametrize("token", [b"", b"\x01", b"12345678"])
async def test_wrong_token_changes_only_the_token(cloud: Cloud, udp: Udp, token: bytes) -> None:
    cloud.behaviour = Behaviour(wrong_token=True)
    answer = aiocoap.Message.decode(await udp.ask(request(7, token=token)))
    assert answer.token != token
    assert len(answer.token) == max(len(token), 1)
    assert (answer.mid, answer.code, answer.payload) == (7, aiocoap.CHANGED, b"")


async def test_wrong_mid_changes_only_the_message_id(cloud: Cloud, udp: Udp) -> None:
    cloud.behaviour = Behaviour(wrong_mid=True)
    answer = await udp.ask(request(7))
    assert answer[2:4] != PIGGYBACKED[2:4]
    assert answer[:2] + answer[4:] == PIGGYBACKED[:2] + PIGGYBACKED[4:]


async def test_wrong_mid_spares_the_own_id_of_a_separate_answer(cloud: Cloud, udp: Udp) -> None:
    cloud.behaviour = Behaviour(wrong_mid=True, separate=True)
    assert await udp.ask(request(7)) == header(ACK, EMPTY, 7 ^ 0xFFFF)
    assert is_separate(await udp.receive())


async def test_big_payload_comes_in_blocks(cloud: Cloud, ask: Ask) -> None:
    cloud.next(Behaviour(big_payload=3000))
    answer = await ask()
    assert answer.payload == bytes(index % 256 for index in range(3000))
    assert len(cloud.requests) == 1
    assert sum(d.direction == "in" for d in cloud.datagrams) == 3


async def test_later_blocks_keep_the_behaviour_of_the_first(cloud: Cloud, ask: Ask) -> None:
    cloud.next(Behaviour(big_payload=3000, lose_requests=1))
    cloud.next(Behaviour(code="5.00"))
    assert len((await ask(repeat_after=0.1)).payload) == 3000
    assert sum(d.direction == "in" for d in cloud.datagrams) >= 6
    assert (await ask()).code == aiocoap.INTERNAL_SERVER_ERROR


async def test_a_request_in_blocks_is_put_together(cloud: Cloud, ask: Ask) -> None:
    cloud.limits = Limits(message_size=None)
    nested = b"[" * 5000
    assert (await ask(payload=nested)).code == aiocoap.BAD_REQUEST
    assert cloud.requests[-1].verdict == "the payload is not JSON"
    await ask()
    assert (await ask(UP_RAW, bytes(2500))).code == aiocoap.CHANGED
    assert cloud.requests[-1].payload == bytes(2500)


@requires_libcoap
async def test_libcoap_takes_blocks_and_separate_answers(cloud: Cloud) -> None:
    uri = f"coap://{cloud.host}:{cloud.port}/auth/{PK}/{DK}"
    cloud.next(Behaviour(big_payload=3000))
    answer = await coap_client("post", uri, claim(), block_size=256)
    assert (answer.code, len(answer.payload)) == ("2.04", 3000)
    cloud.next(Behaviour(separate=True, big_payload=10))
    answer = await coap_client("post", uri, claim())
    assert (answer.code, answer.payload) == ("2.04", bytes(range(10)))
    assert [m.type for m in answer.messages] == ["CON", "ACK", "CON", "ACK"]


async def test_aiocoap_takes_no_answer_with_another_token(cloud: Cloud, ask: Ask) -> None:
    cloud.next(Behaviour(wrong_token=True))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(ask(), 0.2)
    assert [d.direction for d in cloud.datagrams] == ["in", "out"]


async def test_options_are_added_to_the_answer(cloud: Cloud, ask: Ask) -> None:
    cloud.behaviour = Behaviour(options=[(2100, b"/topic/x"), (2102, b"\x01\x02"), (12, b"\x32")])
    answer = await ask()
    found = {int(option.number): option.encode() for option in answer.opt.option_list()}
    assert found == {2100: b"/topic/x", 2102: b"\x01\x02", 12: b"\x32"}


@pytest.mark.parametrize("code", ["4.00", "4.29", "5.03", "2.01", "7.31"])
async def test_a_code_can_be_forced(cloud: Cloud, udp: Udp, code: str) -> None:
    cloud.behaviour = Behaviour(code=code)
    kind, detail = map(int, code.split("."))
    assert (await udp.ask(request(7)))[1] == kind << 5 | detail
    assert cloud.requests[-1].code == code
    assert cloud.requests[-1].verdict == "signature ok"
    assert cloud.is_online(PK, DK) == code.startswith("2.")


async def test_the_queue_goes_before_the_device_and_the_device_before_all(
    cloud: Cloud, ask: Ask
) -> None:
    cloud.behaviour = Behaviour(code="5.01")
    cloud.behaviours[PK, DK] = Behaviour(code="5.02")
    cloud.next(Behaviour(code="5.03"), n=2)
    codes = [(await ask()).code.dotted for _ in range(3)]
    assert codes == ["5.03", "5.03", "5.02"]
    assert (await ask(("auth", PK, "other"))).code.dotted == "5.01"
    cloud.behaviours.clear()
    cloud.behaviour = Behaviour()
    assert (await ask()).code.dotted == "2.04"


async def test_a_retransmission_does_not_use_up_the_queue(cloud: Cloud, udp: Udp) -> None:
    cloud.next(Behaviour(silent=True), n=2)
    for mid in (7, 7, 7, 8, 8):
        udp.send(request(mid))
    assert await udp.is_quiet()
    assert await udp.ask(request(9)) == header(ACK, CHANGED, 9, TOKEN)


async def test_another_token_makes_it_another_request(cloud: Cloud, udp: Udp) -> None:
    cloud.next(Behaviour(silent=True))
    udp.send(request(7, token=b"\x01"))
    assert await udp.ask(request(7, token=b"\x02")) == header(ACK, CHANGED, 7, b"\x02")


async def test_a_non_confirmable_request_gets_a_non_confirmable_answer(udp: Udp) -> None:
    answer = await udp.ask(request(7, kind=NON))
    assert (answer[:2], answer[4:]) == (header(NON, CHANGED, 0, TOKEN)[:2], TOKEN)
