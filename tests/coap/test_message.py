"""The codec: vectors of the fact sheet, what is refused, fuzzing, aiocoap as second opinion."""

from __future__ import annotations

import json
from typing import Any

import aiocoap
import pytest
from aiocoap.numbers.types import Type
from hypothesis import example, given
from hypothesis import strategies as st

from nbiot.coap.message import (
    Datagram,
    Method,
    Request,
    Response,
    Stats,
    code_text,
    decode,
    encode_empty,
    encode_request,
)
from nbiot.enos.auth import Device, auth_payload
from nbiot.errors import BadDatagram, BadInput
from nbiot.signing import Secret, SecretSigner

from .wire import (
    ACK,
    AUTH,
    BODY,
    CHANGED,
    COMMAND,
    CON,
    DK,
    EMPTY,
    NON,
    PK,
    POST,
    RST,
    SECRET,
    TOPIC,
    message,
)

tokens = st.binary(max_size=8)
mids = st.integers(0, 0xFFFF)
segments = st.text("abcXYZ019-_.:/ äß漢", min_size=1, max_size=80).filter(
    lambda text: text not in (".", "..")
)
requests = st.builds(
    Request,
    st.sampled_from(Method),
    st.lists(segments, max_size=7).map(tuple),
    st.binary(max_size=300),
    st.none() | st.integers(0, 0xFFFF),
)


def decoded_or_refused(data: bytes) -> Datagram | None:
    try:
        return decode(data)
    except BadDatagram:
        return None


# --- what goes out ------------------------------------------------------------------------------


def test_auth_is_the_vector_of_the_fact_sheet() -> None:
    request = Request(Method.POST, ("auth", PK, DK), BODY)
    assert encode_request(request, 0x1234, bytes.fromhex("a1b2c3d4")) == AUTH


def test_the_device_makes_the_body_of_the_vector() -> None:
    device = Device(PK, DK, SecretSigner(Secret(SECRET)), 3600)
    assert auth_payload(device) == BODY


def test_content_format_stands_behind_the_path() -> None:
    request = Request(Method.POST, ("a",), b"x", content_format=50)
    assert encode_request(request, 1, b"") == message(
        CON, POST, 1, b"", [(11, b"a"), (12, b"\x32")], b"x"
    )


def test_content_format_zero_is_sent() -> None:
    request = Request(Method.POST, ("a",), b"x", content_format=0)
    assert encode_request(request, 1, b"") == message(
        CON, POST, 1, b"", [(11, b"a"), (12, b"")], b"x"
    )


@pytest.mark.parametrize("number", [-1, 65536, 2**40, 50.0, "50", True])
def test_a_content_format_that_cannot_be_sent_is_named(number: Any) -> None:
    with pytest.raises(BadInput) as caught:
        Request(Method.POST, ("a",), b"", number)
    assert caught.value.field == "content_format"


@pytest.mark.parametrize("segment", ["x" * 256, "ä" * 128, ".", ".."])
def test_a_path_segment_that_cannot_be_sent_is_named(segment: str) -> None:
    with pytest.raises(BadInput) as caught:
        Request(Method.GET, ("a", segment))
    assert caught.value.field == "path"


@pytest.mark.parametrize("size", [12, 13, 255])
def test_long_path_segments_keep_their_bytes(size: int) -> None:
    segment = "x" * size
    data = encode_request(Request(Method.GET, (segment,)), 1, b"")
    assert data == message(CON, 1, 1, b"", [(11, segment.encode())])


@given(st.integers(30, 86400), st.text("0123456789", min_size=15, max_size=15))
@example(86400, "867723030000000")
def test_a_request_for_an_imei_fits_into_145_bytes(lifetime: int, imei: str) -> None:
    device = Device(PK, imei, SecretSigner(Secret(SECRET)), lifetime)
    request = Request(Method.POST, ("auth", PK, imei), auth_payload(device))
    assert len(encode_request(request, 0xFFFF, b"\xff\xff")) <= 145


@given(requests, mids, tokens)
def test_what_is_encoded_is_decoded_alike(request: Request, mid: int, token: bytes) -> None:
    found = decode(encode_request(request, mid, token))
    assert (found.type, found.code, found.mid) == (Type.CON, int(request.method), mid)
    assert (found.token, found.payload) == (token, request.payload)
    assert [v.decode() for n, v in found.options if n == 11] == list(request.path)
    formats = [int.from_bytes(v, "big") for n, v in found.options if n == 12]
    assert formats == ([] if request.content_format is None else [request.content_format])


@given(requests, mids, tokens)
def test_aiocoap_reads_what_we_send(request: Request, mid: int, token: bytes) -> None:
    found = aiocoap.Message.decode(encode_request(request, mid, token))
    assert (found.mtype, int(found.code)) == (aiocoap.CON, int(request.method))
    assert (found.mid, found.token, found.payload) == (mid, token, request.payload)
    assert found.opt.uri_path == request.path
    assert found.opt.content_format == request.content_format


@given(st.sampled_from([Type.ACK, Type.RST]), mids)
def test_empty_messages_are_four_bytes(kind: Type, mid: int) -> None:
    data = encode_empty(kind, mid)
    assert data == message(int(kind), EMPTY, mid)
    assert decode(data) == Datagram(kind, 0, mid, b"", (), b"")


# --- what comes in ------------------------------------------------------------------------------


def test_a_response_with_a_command_is_decoded() -> None:
    found = decode(COMMAND)
    assert (found.type, code_text(found.code), found.mid) == (Type.ACK, "2.04", 0x1235)
    assert found.token == bytes.fromhex("a1b2c3d5")
    assert found.options == ((2100, TOPIC), (2102, b"\x02\x00\x00\x00\x14"))
    assert found.payload == b""
    assert found.is_response
    assert found.not_understood == []


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "0 bytes"),
        (b"\x60\x44\x12", "3 bytes"),
        (b"\x20\x44\x12\x34", "version 0"),
        (b"\xa0\x44\x12\x34", "version 2"),
        (b"\xe0\x44\x12\x34", "version 3"),
        (b"\x69\x44\x12\x34" + bytes(9), "token length 9"),
        (b"\x6f\x44\x12\x34" + bytes(15), "token length 15"),
        (b"\x64\x44\x12\x34abc", "inside the token"),
        (b"\x60\x44\x12\x34\xff", "without payload"),
        (b"\x62\x44\x12\x34ab\xff", "without payload"),
        (b"\x61\x00\x12\x34a", "empty message"),
        (b"\x60\x00\x12\x34\xffx", "empty message"),
        (b"\x60\x00\x12\x34\x60", "empty message"),
        (b"\x60\x44\x12\x34\xf0", "reserved"),
        (b"\x60\x44\x12\x34\x0f", "reserved"),
        (b"\x60\x44\x12\x34\xd0", "inside an option"),
        (b"\x60\x44\x12\x34\xe0\x00", "inside an option"),
        (b"\x60\x44\x12\x34\x0d", "inside an option"),
        (b"\x60\x44\x12\x34\x0e\x00", "inside an option"),
        (b"\x60\x44\x12\x34\xed\x00\x00", "inside an option"),
        (b"\x60\x44\x12\x34\x13ab", "inside an option"),
        (b"\x60\x44\x12\x34\x1d\x00" + bytes(12), "inside an option"),
        (b"\x60\x44\x12\x34\x1e\x00\x00" + bytes(268), "inside an option"),
        (b"\x60\x44\x12\x34\x82\xff\xfe", "not a CoAP message"),  # Location-Path, not UTF-8
    ],
)
def test_message_format_errors_are_refused(data: bytes, words: str) -> None:
    with pytest.raises(BadDatagram, match=words):
        decode(data)


@pytest.mark.parametrize(
    "data",
    [
        b"\x60\x44\x12\x34",
        b"\x68\x44\x12\x34" + bytes(8),
        b"\x60\x44\x12\x34\xff\xff",
        b"\x60\x44\x12\x34\xe0\x00\x00",
        b"\x60\x44\x12\x34\x1d\x00" + bytes(13),
        b"\x60\x44\x12\x34\x1e\x00\x00" + bytes(269),
    ],
)
def test_messages_at_the_edge_of_the_format_are_taken(data: bytes) -> None:
    assert decode(data).code == CHANGED


@given(st.binary(max_size=60))
def test_random_bytes_are_refused_or_decoded(data: bytes) -> None:
    found = decoded_or_refused(data)
    assert found is None or (data[0] >> 6 == 1 and found.code == data[1])


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A valid datagram with a few bytes changed, cut out or put in."""
    data = bytearray(draw(st.sampled_from([AUTH, COMMAND, message(ACK, CHANGED, 7, b"ab")])))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        cut = draw(st.integers(0, 3))
        data[at : at + cut] = draw(st.binary(max_size=3))
    return bytes(data)


@given(mutated())
def test_spoiled_datagrams_are_refused_or_decoded(data: bytes) -> None:
    found = decoded_or_refused(data)
    if found is not None:  # every byte of it is accounted for
        assert len(found.payload) <= len(data) - 4 - len(found.token)
        assert data.endswith(found.payload)


@given(mutated())
def test_aiocoap_agrees_with_what_is_decoded(data: bytes) -> None:
    found = decoded_or_refused(data)
    if found is not None:
        theirs = aiocoap.Message.decode(data)
        options = tuple((int(o.number), o.encode()) for o in theirs.opt.option_list())
        assert (int(theirs.mtype), int(theirs.code)) == (found.type, found.code)
        assert (theirs.mid, theirs.token) == (found.mid, found.token)
        assert (options, theirs.payload) == (found.options, found.payload)


@given(
    st.integers(0, 3),
    st.integers(1, 255),
    mids,
    tokens,
    st.lists(st.tuples(st.integers(2048, 65535), st.binary(max_size=300)), max_size=4),
    st.binary(max_size=40),
)
def test_any_well_formed_message_is_decoded(
    kind: int, code: int, mid: int, token: bytes, options: list[tuple[int, bytes]], payload: bytes
) -> None:
    options.sort(key=lambda option: option[0])
    found = decode(message(kind, code, mid, token, options, payload))
    assert (found.type, found.code, found.mid, found.token) == (kind, code, mid, token)
    assert (list(found.options), found.payload) == (options, payload)


@pytest.mark.parametrize(
    ("number", "critical"), [(9, True), (2099, True), (2101, False), (2100, False), (65001, True)]
)
def test_critical_options_that_nobody_knows_are_named(number: int, critical: bool) -> None:
    found = decode(message(ACK, CHANGED, 1, b"", [(number, b"x")]))
    assert found.not_understood == ([number] if critical else [])


@pytest.mark.parametrize(
    ("code", "is_response"),
    [
        *[(code, True) for code in (0x41, 0x44, 0x5F, 0x81, 0x9F, 0xA0, 0xA3)],
        *[(code, False) for code in (0x00, 0x02, 0x21, 0x61, 0xC0, 0xE1, 0xFF)],
    ],
)
def test_only_classes_2_4_and_5_are_responses(code: int, is_response: bool) -> None:
    assert decode(message(NON, code, 1)).is_response is is_response


# --- Response -----------------------------------------------------------------------------------


def response(code: str = "2.04", options: tuple[tuple[int, bytes], ...] = ()) -> Response:
    return Response(code, b"", options, Stats(1, 1, 1, 1, 0, 0.1))


@pytest.mark.parametrize(
    ("code", "ok"), [("2.01", True), ("2.31", True), ("4.01", False), ("5.00", False)]
)
def test_class_2_is_success(code: str, ok: bool) -> None:
    assert response(code).ok is ok


def test_the_first_value_of_an_option_is_found() -> None:
    found = response(options=((2100, b"a"), (2100, b"b"), (2102, b"")))
    assert (found.option(2100), found.option(2102), found.option(2101)) == (b"a", b"", None)


def test_a_request_does_not_show_the_signature_it_carries() -> None:
    request = Request(Method.POST, ("auth", PK, DK), BODY)
    assert json.loads(BODY)["sign"] not in repr(request)
    assert DK in repr(request)


def test_a_reset_with_content_decodes_but_is_not_empty() -> None:
    assert not decode(message(RST, CHANGED, 1)).is_empty
