"""Transfers in blocks, without I/O: against a model of a server, and against faulty responses."""

from __future__ import annotations

import random
from contextlib import suppress
from typing import Any

import pytest
from aiocoap.numbers.types import Type
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nbiot.coap.blockwise import MOST_PAYLOAD, Block, Part, Transfer
from nbiot.coap.message import Datagram, Method, Request, decode, encode_request
from nbiot.errors import BadDatagram, BadInput, DatagramTooLong, ResponseLost

from .blockserver import (
    BLOCK1,
    BLOCK2,
    CHANGED,
    CONTINUE,
    ETAG,
    INCOMPLETE,
    SIZE1,
    SIZE2,
    TOO_LARGE,
    BlockServer,
    Manners,
    block,
    taken_apart,
    uint,
)

PATH = ("topic", "sys", "KV315idW", "867726030047601")
TOKEN = b"tk"
SIZES = (16, 32, 64, 128, 256, 512, 1024)
CONTENT, NOT_FOUND = 0x45, 0x84


def body(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def post(size: int, **more: Any) -> Request:
    return Request(Method.POST, PATH, body(size), **more)


def datagram_of(part: Part, mid: int = 1) -> bytes:
    return encode_request(part.request, mid, TOKEN, part.options)


def run(transfer: Transfer, server: BlockServer) -> list[tuple[Part, bytes, bytes]]:
    """Each part, its datagram and the response's."""
    done: list[tuple[Part, bytes, bytes]] = []
    while transfer.next is not None:
        part = transfer.next
        data = datagram_of(part, len(done))
        answer = server.answer(data)
        done.append((part, data, answer))
        assert len(done) < 5000
        transfer.received(decode(answer))
    return done


def blocks_up(server: BlockServer) -> list[Any]:
    return [asked.block(BLOCK1) for asked in server.asked]


def blocks_down(server: BlockServer) -> list[Any]:
    return [asked.block(BLOCK2) for asked in server.asked]


# --- against the model --------------------------------------------------------------------------

sizes = st.lists(st.sampled_from(SIZES), min_size=1, max_size=4).map(tuple)
shrinking = sizes.map(lambda found: tuple(sorted(found, reverse=True)))
requests = st.builds(
    Request,
    st.sampled_from([Method.POST, Method.PUT]),
    st.lists(st.text(st.characters(codec="ascii"), min_size=1, max_size=30), max_size=4)
    .map(tuple)
    .filter(lambda path: not {".", ".."} & set(path)),
    st.integers(0, 4000).map(body),
    st.sampled_from([None, 0, 50, 60000]),
)
manners = st.builds(
    Manners,
    payload=st.integers(0, 4000).map(body),
    up=sizes,
    down=shrinking,
    too_large=st.sampled_from([None, *SIZES]),
    enacts=st.booleans(),
    estimates=st.booleans(),
    etag=st.sampled_from([None, b"", b"\x01\x02"]),
)


def least(request: Request) -> int:
    """A limit that is enough for blocks of 16 bytes."""
    empty = Request(request.method, request.path, b"", request.content_format)
    return len(encode_request(empty, 1, TOKEN)) + 2 + 4 + 1 + 16


@settings(max_examples=400, deadline=None)
@given(requests, manners, st.integers(0, 1400), st.sampled_from([None, 144, 200, 512, 1358]))
def test_what_is_sent_arrives_and_what_is_answered_comes_in(
    request: Request, manners: Manners, spare: int, most_received: int | None
) -> None:
    most_sent = least(request) + spare
    server = BlockServer(manners)
    transfer = Transfer(request, most_sent, most_received=most_received)
    done = run(transfer, server)
    assert transfer.outcome is not None
    if manners.too_large is None or len(request.payload) > 16:
        assert transfer.outcome.code == "2.04"
        assert transfer.outcome.payload == manners.payload
        assert server.bodies == [request.payload]
    assert all(len(data) <= most_sent for _, data, _ in done)
    if most_received is not None:
        assert all(len(answer) <= most_received for _, _, answer in done)
    for asked in server.asked:
        assert [value for number, value in asked.options if number == 11] == [
            segment.encode() for segment in request.path
        ]
        assert asked.method == request.method
        assert asked.uint(12) == request.content_format


@settings(max_examples=300, deadline=None)
@given(requests, st.integers(0, 1400))
@example(post(16 * 16), 0)
@example(post(16 * 16 + 1), 0)
def test_blocks_are_as_large_as_fit_and_are_used_only_where_they_must(
    request: Request, spare: int
) -> None:
    most_sent = least(request) + spare
    server = BlockServer(Manners())
    done = run(Transfer(request, most_sent), server)
    whole = len(encode_request(request, 1, TOKEN))
    if whole <= most_sent and len(request.payload) <= 1024:
        assert [data for _, data, _ in done] == [encode_request(request, 0, TOKEN)]
        return
    parts = blocks_up(server)
    assert [number for number, _, _ in parts] == list(range(len(parts)))
    assert [more for _, more, _ in parts] == [True] * (len(parts) - 1) + [False]
    (size,) = {size for _, _, size in parts}
    longest = max(len(data) for _, data, _ in done)
    assert size == 1024 or longest + size + 4 > most_sent  # 4: a longer option, Size1
    assert server.asked[0].uint(SIZE1) in (None, len(request.payload))
    assert all(asked.uint(SIZE1) is None for asked in server.asked[1:])


@settings(max_examples=200, deadline=None)
@given(requests, manners, st.integers(0, 1400))
def test_only_the_last_exchange_may_release_the_radio(
    request: Request, manners: Manners, spare: int
) -> None:
    """But for one that looked like the last: the server refused it, or had a long response."""
    manners.down = manners.down[-1:]
    done = run(Transfer(request, least(request) + spare), BlockServer(manners))
    for part, data, answer in done[:-1]:
        asked = taken_apart(data)
        last_up = part.way != "down" and not (asked.block(BLOCK1) or (0, False))[1]
        assert part.final is last_up
        if part.final:
            assert answer[1] == TOO_LARGE or len(manners.payload) > manners.down[0]
    last = done[-1][0]
    assert last.final or (last.way == "down" and not manners.estimates)


def test_a_kilobyte_goes_through_a_modem_that_takes_512_bytes() -> None:
    server = BlockServer(Manners(payload=b"ok"))
    transfer = Transfer(post(1024), 512)
    done = run(transfer, server)
    assert blocks_up(server) == [(0, True, 256), (1, True, 256), (2, True, 256), (3, False, 256)]
    assert server.asked[0].uint(SIZE1) == 1024
    assert server.bodies == [body(1024)]
    assert [part.name for part, _, _ in done] == [f"block {n} of 4" for n in (1, 2, 3, 4)]
    assert transfer.outcome is not None
    assert (transfer.outcome.code, transfer.outcome.payload) == ("2.04", b"ok")


def test_smaller_blocks_from_the_first_response_on() -> None:
    """RFC 7959, figure 10: numbers count blocks of the new size."""
    server = BlockServer(Manners(up=(32,)))
    run(Transfer(post(300), 200), server)
    assert blocks_up(server)[:3] == [(0, True, 128), (4, True, 32), (5, True, 32)]
    assert server.bodies == [body(300)]


def test_a_larger_block_than_sent_is_not_used() -> None:
    server = BlockServer(Manners())
    transfer = Transfer(post(40), 68)
    feed(transfer, CONTINUE, (BLOCK1, block(0, True, 1024)))
    assert transfer.next is not None
    server.answer(datagram_of(transfer.next))
    assert blocks_up(server) == [(1, True, 16)]


@pytest.mark.parametrize("size", [100, 1000])
def test_too_large_with_a_hint_begins_again_with_smaller_blocks(size: int) -> None:
    server = BlockServer(Manners(too_large=64))
    transfer = Transfer(post(size), 512)
    run(transfer, server)
    assert blocks_up(server)[1] == (0, True, 64)
    assert server.bodies == [body(size)]


@pytest.mark.parametrize("hint", [(), ((BLOCK1, block(0, False, 256)),)])
def test_too_large_without_a_smaller_hint_is_the_answer(hint: Any) -> None:
    transfer = Transfer(post(1000), 512)
    feed(transfer, TOO_LARGE, *hint)
    assert transfer.next is None
    assert transfer.outcome is not None
    assert transfer.outcome.code == "4.13"


def test_lost_blocks_are_sent_again_once() -> None:
    server = BlockServer(Manners(forgets=(3,)))
    transfer = Transfer(post(1000), 512)
    run(transfer, server)
    assert [number for number, _, _ in blocks_up(server)] == [0, 1, 2, 0, 1, 2, 3]
    assert server.bodies == [body(1000)]


def test_blocks_lost_twice_are_told() -> None:
    transfer = Transfer(post(1000), 512)
    run(transfer, BlockServer(Manners(forgets=(3, 6))))
    assert transfer.outcome is not None
    assert transfer.outcome.code == "4.08"


def test_a_post_of_which_a_part_was_carried_out_is_not_repeated() -> None:
    server = BlockServer(Manners(enacts=True, forgets=(3,)))
    transfer = Transfer(post(1000), 512)
    run(transfer, server)
    assert len(server.asked) == 3
    assert transfer.outcome is not None
    assert transfer.outcome.code == "4.08"


def test_an_error_ends_the_request_at_any_block() -> None:
    transfer = Transfer(post(1000), 512)
    feed(transfer, CONTINUE, (BLOCK1, block(0, True, 256)))
    feed(transfer, 0x81, payload=b"no")
    assert transfer.outcome is not None
    assert (transfer.outcome.code, transfer.outcome.payload) == ("4.01", b"no")


@pytest.mark.parametrize("method", [Method.GET, Method.POST])
def test_the_rest_of_a_response_is_asked_for_without_payload(method: Method) -> None:
    """RFC 7959, 3.3."""
    server = BlockServer(Manners(payload=body(700), down=(256,), etag=b"e"))
    request = Request(method, PATH, b"" if method is Method.GET else b"{}", 50)
    transfer = Transfer(request, 512)
    run(transfer, server)
    assert blocks_down(server) == [None, (1, False, 256), (2, False, 256)]
    assert [asked.payload for asked in server.asked[1:]] == [b"", b""]
    assert transfer.outcome is not None
    assert transfer.outcome.payload == body(700)


def test_a_response_in_blocks_follows_a_request_in_blocks() -> None:
    server = BlockServer(Manners(payload=body(200), down=(128,)))
    transfer = Transfer(post(300), 200)
    run(transfer, server)
    assert blocks_up(server) == [(0, True, 128), (1, True, 128), (2, False, 128), None]
    assert blocks_down(server) == [None, None, None, (1, False, 128)]
    assert (server.bodies, transfer.outcome and transfer.outcome.payload) == (
        [body(300)],
        body(200),
    )


def test_the_wish_for_smaller_blocks_goes_with_the_last_block() -> None:
    server = BlockServer(Manners(payload=body(600)))
    run(Transfer(post(300), 200, most_received=512), server)
    assert blocks_down(server) == [
        *(None, None, (0, False, 256)),
        *((1, False, 256), (2, False, 256)),
    ]


def test_a_wish_that_the_server_did_not_hear_is_told_again() -> None:
    """Late negotiation (RFC 7959, figure 4)."""
    transfer = Transfer(post(2), 512, most_received=512)
    feed(transfer, CHANGED, (BLOCK2, block(0, True, 1024)), payload=body(1024))
    assert transfer.next is not None
    assert transfer.next.options == ((BLOCK2, block(4, False, 256)),)


def test_the_number_of_blocks_is_told_where_the_server_tells_the_size() -> None:
    server = BlockServer(Manners(payload=body(600), down=(256,), estimates=True))
    done = run(Transfer(post(2), 512), server)
    assert [(part.name, part.final) for part, _, _ in done] == [
        ("", True),
        ("block 2 of 3", False),
        ("block 3 of 3", True),
    ]


# --- options ------------------------------------------------------------------------------------

COMMAND = ((2100, b"/topic"), (2102, b"one"))
ANOTHER = ((2100, b"/topic"), (2102, b"two"))


@pytest.mark.parametrize(
    ("commands", "expected"),
    [
        ({1: COMMAND}, COMMAND),
        ({4: COMMAND}, COMMAND),
        ({1: COMMAND, 2: COMMAND, 3: COMMAND, 4: COMMAND, 5: COMMAND}, COMMAND),
        ({1: COMMAND, 2: ANOTHER, 4: COMMAND}, (*COMMAND, *ANOTHER)),
        ({2: ANOTHER, 3: COMMAND}, (*ANOTHER, *COMMAND)),
        ({1: (*COMMAND, *COMMAND)}, (*COMMAND, *COMMAND)),
    ],
)
def test_commands_come_from_all_responses_and_none_twice(commands: Any, expected: Any) -> None:
    inner = ((12, b"\x32"), (14, b"\x3c"))
    server = BlockServer(
        Manners(payload=body(500), down=(256,), etag=b"e", options=inner, commands=commands)
    )
    transfer = Transfer(post(300), 200)
    run(transfer, server)
    assert len(server.asked) == 4
    assert transfer.outcome is not None
    assert transfer.outcome.options == ((4, b"e"), *inner, *sorted_by_number(expected))


def sorted_by_number(options: Any) -> Any:
    """As one datagram carries them, when they came in one."""
    return (
        options
        if len(options) != 4 or options[:2] != options[2:]
        else (
            *(options[0], options[2]),
            *(options[1], options[3]),
        )
    )


def test_commands_are_kept_over_a_second_try() -> None:
    server = BlockServer(Manners(forgets=(2,), commands={1: COMMAND}))
    transfer = Transfer(post(300), 200)
    run(transfer, server)
    assert transfer.outcome is not None
    assert transfer.outcome.options == COMMAND


# --- faulty responses ---------------------------------------------------------------------------


def response(code: int, *options: tuple[int, bytes], payload: bytes = b"") -> Datagram:
    return Datagram(Type.ACK, code, 1, TOKEN, tuple(options), payload)


def feed(transfer: Transfer, code: int, *options: tuple[int, bytes], payload: bytes = b"") -> None:
    transfer.received(response(code, *options, payload=payload))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (response(CONTINUE, (BLOCK1, block(1, True, 256))), "acknowledges block 1; 0 was sent"),
        (response(CONTINUE), "as if it were the whole"),
        (response(CHANGED), "as if it were the whole"),
        (response(CONTINUE, (BLOCK1, b"\x0f")), "means nothing"),
        (response(CONTINUE, (BLOCK1, b"\1\2\3\4")), "means nothing"),
        (response(CONTINUE, (BLOCK1, b"\x0c"), (BLOCK1, b"\x0c")), "2 options 27"),
        (response(TOO_LARGE, (BLOCK1, b"\x07")), "means nothing"),
    ],
)
def test_a_block_that_is_acknowledged_wrongly(answer: Datagram, words: str) -> None:
    transfer = Transfer(post(1000), 512)
    with pytest.raises(BadDatagram, match=words):
        transfer.received(answer)
    assert transfer.next is None
    assert transfer.outcome is None


@pytest.mark.parametrize(
    "answer",
    [
        response(CONTINUE, (BLOCK1, block(1, False, 512))),
        response(CHANGED, (BLOCK1, block(1, True, 512))),
        response(CHANGED, (BLOCK1, block(0, False, 512))),
        response(CHANGED, (BLOCK2, block(1, False, 512)), (BLOCK1, block(1, False, 512))),
    ],
)
def test_the_last_block_acknowledged_wrongly(answer: Datagram) -> None:
    transfer = Transfer(post(900), 800)
    feed(transfer, CONTINUE, (BLOCK1, block(0, True, 512)))
    with pytest.raises(BadDatagram):
        transfer.received(answer)


@pytest.mark.parametrize(
    "answer",
    [
        response(CONTINUE),
        response(CONTINUE, (BLOCK1, block(0, True, 64))),
        response(CHANGED, (BLOCK1, block(0, True, 64))),
        response(CHANGED, (BLOCK1, block(3, False, 64))),
        response(CHANGED, (BLOCK2, block(2, False, 64)), payload=b"x"),
        response(CHANGED, (BLOCK2, block(0, True, 64)), payload=b"x"),
        response(CHANGED, (BLOCK2, block(0, False, 16)), payload=bytes(17)),
        response(CHANGED, (BLOCK2, b"\x07")),
        response(CHANGED, (BLOCK2, b""), (BLOCK2, b"")),
    ],
)
def test_a_whole_request_answered_with_blocks_that_make_no_sense(answer: Datagram) -> None:
    transfer = Transfer(post(10), 512)
    with pytest.raises(BadDatagram):
        transfer.received(answer)
    assert transfer.outcome is None


FIRST = response(CONTENT, (ETAG, b"a"), (BLOCK2, block(0, True, 64)), payload=bytes(64))


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ([(ETAG, b"a")], 64),
        ([(ETAG, b"a"), (BLOCK2, block(2, True, 64))], 64),
        ([(ETAG, b"a"), (BLOCK2, block(0, True, 64))], 64),
        ([(ETAG, b"a"), (BLOCK2, block(1, True, 64))], 63),
        ([(ETAG, b"a"), (BLOCK2, block(1, False, 64))], 65),
        ([(ETAG, b"a"), (BLOCK2, block(1, True, 32))], 32),
        ([(ETAG, b"a"), (BLOCK2, block(0, True, 128))], 128),
    ],
)
def test_a_next_block_that_is_not_the_next(options: Any, size: int) -> None:
    transfer = Transfer(Request(Method.GET, PATH), 512)
    transfer.received(FIRST)
    with pytest.raises(BadDatagram):
        feed(transfer, CONTENT, *options, payload=bytes(size))


def test_blocks_may_not_become_larger_on_the_way() -> None:
    transfer = Transfer(Request(Method.GET, PATH), 512)
    transfer.received(FIRST)
    feed(transfer, CONTENT, (ETAG, b"a"), (BLOCK2, block(1, True, 64)), payload=bytes(64))
    with pytest.raises(BadDatagram, match="not the block"):
        feed(transfer, CONTENT, (ETAG, b"a"), (BLOCK2, block(1, True, 128)), payload=bytes(128))


def test_a_size_that_no_server_means_is_not_believed() -> None:
    transfer = Transfer(Request(Method.GET, PATH), 512)
    feed(transfer, CONTENT, (BLOCK2, block(0, True, 64)), (SIZE2, b"\1" * 5), payload=bytes(64))
    assert transfer.next is not None
    assert transfer.next.blocks is None


def test_blocks_may_become_smaller_on_the_way() -> None:
    transfer = Transfer(Request(Method.GET, PATH), 512)
    transfer.received(FIRST)
    feed(transfer, CONTENT, (ETAG, b"a"), (BLOCK2, block(2, True, 32)), payload=bytes(32))
    assert transfer.next is not None
    assert transfer.next.options == ((BLOCK2, block(3, False, 32)),)


OTHERS = [
    response(CONTENT, (ETAG, b"b"), (BLOCK2, block(1, False, 64)), payload=b"x"),
    response(CONTENT, (BLOCK2, block(1, False, 64)), payload=b"x"),
    response(INCOMPLETE),
    response(NOT_FOUND),
    response(CONTINUE, (ETAG, b"a"), (BLOCK2, block(1, False, 64)), payload=b"x"),
]


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("method", [Method.GET, Method.PUT])
def test_a_response_that_changes_is_fetched_anew_once(method: Method, other: Datagram) -> None:
    transfer = Transfer(Request(method, PATH, b"" if method is Method.GET else b"x"), 512)
    first = transfer.next
    transfer.received(FIRST)
    transfer.received(other)
    assert transfer.next == first
    transfer.received(FIRST)
    with pytest.raises(ResponseLost, match="not all of its response") as caught:
        transfer.received(other)
    assert not isinstance(caught.value, BadDatagram)


@pytest.mark.parametrize("other", OTHERS)
def test_a_post_is_not_carried_out_twice_for_its_response(other: Datagram) -> None:
    transfer = Transfer(post(10), 512)
    transfer.received(FIRST)
    with pytest.raises(ResponseLost, match="only its response is lost"):
        transfer.received(other)


def test_a_response_without_end_is_given_up() -> None:
    transfer = Transfer(Request(Method.GET, PATH), 512)

    def block2(number: int) -> Datagram:
        return response(CONTENT, (BLOCK2, block(number, True, 1024)), payload=bytes(1024))

    for number in range(MOST_PAYLOAD // 1024 - 1):
        transfer.received(block2(number))
    with pytest.raises(ResponseLost, match="longer than 65536"):
        transfer.received(block2(MOST_PAYLOAD // 1024 - 1))


def test_a_response_that_announces_too_much_is_not_fetched() -> None:
    transfer = Transfer(Request(Method.GET, PATH), 512)
    with pytest.raises(ResponseLost, match="longer than 65536"):
        feed(
            transfer,
            CONTENT,
            *((BLOCK2, block(0, True, 1024)), (SIZE2, uint(MOST_PAYLOAD + 1))),
            payload=bytes(1024),
        )


def test_nothing_is_taken_after_the_end() -> None:
    transfer = Transfer(post(10), 512)
    feed(transfer, CHANGED)
    with pytest.raises(BadDatagram, match="has ended"):
        feed(transfer, CHANGED)


@settings(max_examples=500, deadline=None)
@given(
    st.integers(0, 600),
    st.lists(
        st.builds(
            lambda code, options, payload: response(code, *options, payload=payload),
            st.sampled_from([CONTINUE, CHANGED, CONTENT, INCOMPLETE, TOO_LARGE, NOT_FOUND]),
            st.lists(
                st.tuples(
                    st.sampled_from([ETAG, BLOCK1, BLOCK2, SIZE2, 2100]),
                    st.one_of(
                        st.binary(max_size=5),
                        st.builds(block, st.integers(0, 3), st.booleans(), st.just(128)),
                    ),
                ),
                max_size=3,
            ),
            st.sampled_from([b"", bytes(16), bytes(128)]),
        ),
        max_size=8,
    ),
)
def test_whatever_comes_ends_in_an_outcome_or_an_error_of_ours(
    size: int, answers: list[Datagram]
) -> None:
    transfer = Transfer(post(size), 220)
    for answer in answers:
        if transfer.next is None:
            break
        with suppress(BadDatagram, ResponseLost):
            transfer.received(answer)
            assert (transfer.next is None) is (transfer.outcome is not None)
            continue
        assert transfer.next is None
        assert transfer.outcome is None


# --- limits -------------------------------------------------------------------------------------


def test_a_path_that_leaves_no_room_for_a_payload_is_refused() -> None:
    request = post(100)
    with pytest.raises(DatagramTooLong, match=r"blocks of 16 bytes .* takes 60"):
        Transfer(request, 60)
    with pytest.raises(DatagramTooLong):
        Transfer(Request(Method.GET, PATH), 30)


def test_a_payload_beyond_64_kib_is_refused() -> None:
    with pytest.raises(BadInput, match="at most 65536"):
        Transfer(post(MOST_PAYLOAD + 1), 512)


def test_no_blocks_are_small_enough_for_that() -> None:
    with pytest.raises(BadInput, match="144 bytes or more"):
        Transfer(post(1), 512, most_received=143)


@given(st.integers(0, 2**20 - 1), st.booleans(), st.integers(0, 6))
def test_the_value_of_a_block_option(number: int, more: bool, szx: int) -> None:
    value = Block(number, more, szx).encode()
    assert value == block(number, more, 16 << szx)
    assert Block.decode(value) == Block(number, more, szx)
    assert len(value) <= 3
