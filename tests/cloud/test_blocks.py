"""Block-wise transfers in both directions, with a client that writes its blocks by hand."""

from __future__ import annotations

import aiocoap  # type: ignore[import-untyped, unused-ignore]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hil.cloud import Behaviour, Cloud, Limits
from hil.cloud.blocks import Block, Downloads, Uploads
from hil.cloud.records import Refused
from tests.peers.libcoap import coap_client, requires_libcoap

from .conftest import Ask, Clock, Connect
from .wire import (
    AUTH,
    BLOCK1,
    BLOCK2,
    DK,
    PK,
    SECRET,
    SIZE1,
    UP_RAW,
    Talker,
    Udp,
    block,
    claim,
    read,
    request,
    topic,
)

BODY = bytes(range(256)) * 4
SIZES = [16, 64, 256, 512]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("length", [1024, 1023, 1009])
async def test_a_report_in_blocks_is_accepted_once(
    cloud: Cloud, device: Talker, size: int, length: int
) -> None:
    answers = await device.in_blocks(UP_RAW, BODY[:length], size)
    assert [a.code for a in answers] == ["2.31"] * (len(answers) - 1) + ["2.04"]
    assert [a.option(BLOCK1)[0] for a in answers[:-1]] == [
        block(number, True, size) for number in range(len(answers) - 1)
    ]
    assert answers[-1].option(BLOCK1) == [block(len(answers) - 1, False, size)]
    assert [report.payload for report in cloud.reports] == [BODY[:length]]
    assert len(cloud.requests) == 2  # with /auth


async def test_an_auth_in_blocks(cloud: Cloud, udp: Udp) -> None:
    answers = await Talker(udp).in_blocks(AUTH, claim(), 16)
    assert answers[-1].code == "2.04"
    assert cloud.is_online(PK, DK)


async def test_a_command_comes_with_the_last_block_only(cloud: Cloud, device: Talker) -> None:
    cloud.send_command(PK, DK, "down_raw", raw=b"\x07")
    answers = await device.in_blocks(UP_RAW, BODY, 256)
    assert [len(a.commands) for a in answers] == [0, 0, 0, 1]


async def test_a_command_comes_with_the_last_block_of_a_long_answer(
    cloud: Cloud, device: Talker
) -> None:
    cloud.parser = lambda raw: BODY * 2
    cloud.send_command(PK, DK, "down_raw", raw=b"\x07")
    parts = [await device.ask(UP_RAW, b"x", options=[(BLOCK2, block(0, False, 512))])]
    while parts[-1].option(BLOCK2)[0][-1] & 8:
        wanted = block(len(parts), False, 512)
        parts.append(await device.ask(UP_RAW, b"", options=[(BLOCK2, wanted)]))
    assert b"".join(part.payload for part in parts) == BODY * 2
    assert [len(part.commands) for part in parts] == [0, 0, 0, 1]
    assert cloud.counters.accepted == 1


async def test_the_client_may_ask_for_smaller_blocks(cloud: Cloud, device: Talker) -> None:
    cloud.parser = lambda raw: BODY
    first = await device.ask(UP_RAW, b"x", options=[(BLOCK2, block(0, False, 512))])
    assert (first.payload, first.option(BLOCK2)) == (BODY[:512], [block(0, True, 512)])
    part = await device.ask(UP_RAW, b"", options=[(BLOCK2, block(9, False, 64))])
    assert (part.payload, part.option(BLOCK2)) == (BODY[576:640], [block(9, True, 64)])


@pytest.mark.parametrize("size", [16, 256])
async def test_the_server_may_ask_for_smaller_blocks(size: int) -> None:
    async with Cloud({(PK, DK): SECRET}, block_size=size) as cloud:
        context = await aiocoap.Context.create_client_context(transports=["simple6"])
        for path, payload in ((AUTH, claim()), (UP_RAW, BODY)):
            uri = f"coap://{cloud.host}:{cloud.port}/{'/'.join(path)}"
            message = aiocoap.Message(code=aiocoap.POST, uri=uri, payload=payload)
            assert (await context.request(message).response).code == aiocoap.CHANGED
        await context.shutdown()
        assert [report.payload for report in cloud.reports] == [BODY]


def test_a_block_size_is_a_power_of_two() -> None:
    with pytest.raises(ValueError, match="no block size"):
        Cloud({}, block_size=100)


async def test_the_cloud_sends_blocks_of_its_size(cloud: Cloud, device: Talker) -> None:
    cloud._downloads.largest = 0
    cloud.parser = lambda raw: b"12345678901234567"
    answer = await device.ask(UP_RAW, b"x")
    assert (answer.payload, answer.option(BLOCK2)) == (b"1234567890123456", [block(0, True, 16)])


@requires_libcoap
@pytest.mark.parametrize("size", [16, 256])
async def test_libcoap_reports_in_blocks(cloud: Cloud, size: int) -> None:
    cloud.limits = Limits(source_address=False)  # each run has its own port
    base = f"coap://{cloud.host}:{cloud.port}/"
    assert (await coap_client("post", base + "/".join(AUTH), claim())).code == "2.04"
    answer = await coap_client("post", base + "/".join(UP_RAW), BODY, block_size=size)
    assert answer.code == "2.04"
    assert [report.payload for report in cloud.reports] == [BODY]


async def test_aiocoap_asks_for_many_attributes(cloud: Cloud, ask: Ask) -> None:
    thing = cloud.thing(PK, DK)
    thing.attributes.update({f"attribute{n}": n for n in range(200)})
    await ask()
    body = b'{"id":"1","version":"1.0","method":"thing.attribute.query"}'
    answer = await ask(topic("thing/attribute/query"), body)
    assert len(answer.payload) > 3000
    assert b'"attribute199":199' in answer.payload


# --- what goes wrong


async def test_a_limit_ends_it_early(cloud: Cloud, device: Talker) -> None:
    answers = await device.in_blocks(UP_RAW, bytes(3000), 512)
    assert [a.code for a in answers] == ["2.31", "2.31", "4.13"]
    assert answers[-1].option(SIZE1) == [b"\x04\x00"]
    assert cloud.counters.accepted == 0


async def test_size1_ends_it_at_once(cloud: Cloud, device: Talker) -> None:
    size1 = (SIZE1, (3000).to_bytes(2))
    answers = await device.in_blocks(UP_RAW, bytes(3000), 512, [size1])
    assert [a.code for a in answers] == ["4.13"]


async def test_without_a_limit_there_is_still_one(cloud: Cloud, device: Talker) -> None:
    cloud.limits = Limits(message_size=None, up_rate=None)
    size1 = (SIZE1, (65537).to_bytes(3))
    assert (await device.in_blocks(UP_RAW, bytes(99), 16, [size1]))[-1].code == "4.13"
    assert (await device.in_blocks(UP_RAW, bytes(3000), 16))[-1].code == "2.04"


async def send_blocks(device: Talker, *numbers: int, last: int = 3) -> list[str]:
    codes = []
    for number in numbers:
        options = [(BLOCK1, block(number, number != last, 256))]
        chunk = BODY[number * 256 : number * 256 + 256]
        codes.append((await device.ask(UP_RAW, chunk, options=options)).code)
    return codes


@pytest.mark.parametrize(
    ("numbers", "codes"),
    [
        ((1,), ["4.08"]),
        ((3,), ["4.08"]),
        ((0, 2), ["2.31", "4.08"]),
        ((0, 1, 3), ["2.31", "2.31", "4.08"]),
        ((0, 1, 1), ["2.31", "2.31", "4.08"]),
        ((0, 2, 1), ["2.31", "4.08", "4.08"]),
        ((0, 1, 0, 1, 2, 3), ["2.31"] * 5 + ["2.04"]),
        ((0, 1, 2, 3, 3), ["2.31"] * 3 + ["2.04", "4.08"]),
    ],
)
async def test_blocks_must_come_in_order(
    cloud: Cloud, device: Talker, numbers: tuple[int, ...], codes: list[str]
) -> None:
    assert await send_blocks(device, *numbers) == codes
    assert [r.payload for r in cloud.reports] == ([BODY] if "2.04" in codes else [])


async def test_a_transfer_gets_old(cloud: Cloud, device: Talker, clock: Clock) -> None:
    await send_blocks(device, 0)
    clock.advance(92)
    assert await send_blocks(device, 1) == ["2.31"]
    clock.advance(93)
    assert await send_blocks(device, 2) == ["4.08"]
    assert "too old" in cloud.requests[-1].verdict
    assert await send_blocks(device, 0, 1, 2, 3) == ["2.31"] * 3 + ["2.04"]


async def test_an_answer_in_blocks_gets_old(cloud: Cloud, device: Talker, clock: Clock) -> None:
    cloud.next(Behaviour(big_payload=3000))
    await device.ask(UP_RAW, b"x")
    one, two = ([(BLOCK2, block(n, False, 1024))] for n in (1, 2))
    assert (await device.ask(UP_RAW, b"", options=one)).code == "2.04"
    clock.advance(93)
    assert (await device.ask(UP_RAW, b"", options=two)).code == "4.08"
    assert cloud.counters.accepted == 1


@pytest.mark.parametrize(
    ("number", "value", "payload", "code"),
    [
        (BLOCK1, b"\x07", b"x", "4.00"),  # SZX 7
        (BLOCK1, b"\x0e", b"x" * 1023, "4.00"),  # more to come, but not full
        (BLOCK1, b"\x08", b"x" * 17, "4.00"),
        (BLOCK1, b"\xff\xff\xf0", b"x", "4.08"),
        (BLOCK1, b"\x01\x00\x00\x00", b"x", "4.02"),
        (BLOCK1, b"\xff" * 200, b"x", "4.02"),
        (BLOCK1, b"", b"x", "2.04"),
        (BLOCK1, b"\x06", b"x", "2.04"),
        (BLOCK2, b"\x07", b"x", "4.00"),
        (BLOCK2, b"\x10", b"", "4.08"),
        (BLOCK2, b"\xff\xff\xf6", b"", "4.08"),
        (BLOCK2, b"\xff" * 9, b"", "4.02"),
    ],
)
async def test_strange_blocks(
    cloud: Cloud, device: Talker, number: int, value: bytes, payload: bytes, code: str
) -> None:
    assert (await device.ask(UP_RAW, payload, options=[(number, value)])).code == code
    assert cloud.counters.accepted == (code == "2.04")


async def test_a_block_behind_the_end(cloud: Cloud, device: Talker) -> None:
    cloud.next(Behaviour(big_payload=3000))
    await device.ask(UP_RAW, b"x")
    options = [(BLOCK2, block(3, False, 1024))]
    assert (await device.ask(UP_RAW, b"", options=options)).code == "4.00"


async def test_transfers_of_two_clients_do_not_mix(cloud: Cloud, connect: Connect) -> None:
    cloud.limits = Limits(source_address=False)
    here, there = Talker(await connect()), Talker(await connect())
    await here.ask()
    codes = []
    for number in range(4):
        codes += [await send_blocks(device, number) for device in (here, there)]
    assert codes == [["2.31"]] * 6 + [["2.04"]] * 2
    assert [r.payload for r in cloud.reports] == [BODY, BODY]


async def test_a_repeated_block_counts_once(cloud: Cloud, device: Talker) -> None:
    """The same datagram again, late and early: the message ID tells."""
    datagrams = [
        request(
            100 + n,
            UP_RAW,
            BODY[n * 256 : n * 256 + 256],
            token=bytes([n]),
            options=[(BLOCK1, block(n, n < 3, 256))],
        )
        for n in range(4)
    ]
    for now in (0, 0, 1, 0, 1, 2, 1, 3, 0, 3, 2):
        answer = read(await device.udp.ask(datagrams[now]))
        assert (answer.mid, answer.code) == (100 + now, "2.31" if now < 3 else "2.04")
    assert [r.payload for r in cloud.reports] == [BODY]


# --- the parts, by chance


@given(st.binary(max_size=2000), st.integers(0, 6))
def test_what_was_cut_fits_together(payload: bytes, exponent: int) -> None:
    uploads, downloads = Uploads(), Downloads[None]()
    part = downloads.begin("key", payload, Block(0, False, exponent), None, 0.0)
    number = 0
    while not part.is_final:
        assert part.block == Block(number, True, exponent)
        assert uploads.take("key", part.block, part.chunk, 0, None, 0.0) is None
        number += 1
        part, _ = downloads.go_on("key", Block(number, False, exponent), 0.0)
    last = part.block or Block(0, False, exponent)
    assert uploads.take("key", last, part.chunk, 0, None, 0.0) == payload
    assert len(uploads) == 0


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 4), st.booleans(), st.integers(0, 70)),
        max_size=30,
    )
)
def test_uploads_answer_or_refuse(
    blocks: list[tuple[int, int, bool, int]],
) -> None:
    uploads, codes = Uploads(), []
    for key, number, more, length in blocks:
        try:
            body = uploads.take(key, Block(number, more, 1), bytes(length), 0, 100, 0.0)
        except Refused as refused:
            codes.append(refused.code)
        else:
            assert body is None if more else len(body or b"") >= number * 32
    assert {*codes} <= {"4.00", "4.08", "4.13"}


def test_transfers_are_forgotten() -> None:
    uploads, downloads = Uploads(), Downloads[None]()
    for key in range(1000):
        uploads.take(key, Block(0, True, 0), bytes(16), 0, None, 0.0)
        downloads.begin(key, bytes(2000), None, None, 0.0)
    assert (len(uploads), len(downloads)) == (256, 256)
    with pytest.raises(Refused):
        downloads.go_on(0, Block(1, False, 6), 0.0)
