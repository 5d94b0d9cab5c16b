"""The BC66's own CoAP client, and the small codec under it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hil.emulator import Network, coap

PEER = ("192.0.2.1", 5683)
OK = b"\r\nOK\r\n"
ERROR = b"\r\nERROR\r\n"


def client(make: Any, network: Network | None = None, **more: Any) -> Any:
    """A BC66 with a CoAP context and a silent peer."""
    bench = make("bc66", network, echo=False, cmee=1, **more)
    assert bench.ask("AT+QCOAPCREATE=56830") == OK
    return bench


def sent(bench: Any) -> coap.Message:
    """The last message that went out."""
    return coap.decode(bench.wire.sent[-1][1])


def cme(code: int) -> bytes:
    return f"\r\n+CME ERROR: {code}\r\n".encode()


def answer_with(bench: Any, code: int, payload: bytes = b"", **changes: Any) -> None:
    """Let the peer answer every request, piggybacked."""

    def reply(data: bytes) -> list[bytes]:
        request = coap.decode(data)
        options = changes.get("options", [])
        message = coap.Message(
            coap.ACK, coap.code_of(code), request.mid, request.token, options, payload
        )
        return [coap.encode(message)]

    bench.wire.peers[PEER] = reply


# --------------------------------------------------------------------- codec


def test_a_known_message_is_decoded() -> None:
    """The CON POST of Quectel's BC95 AT manual V1.8, ch. 9."""
    data = bytes.fromhex("400241C7B17401724D0265703D323031363038323331363438")
    message = coap.decode(data)
    assert (message.type, message.code, message.mid) == (coap.CON, 2, 0x41C7)
    assert message.options == [(11, b"t"), (11, b"r"), (15, b"ep=201608231648")]
    assert coap.encode(message) == data


OPTIONS = st.lists(st.tuples(st.integers(0, 65535), st.binary(max_size=400)), max_size=6)


@given(
    st.integers(0, 3),
    st.integers(0, 255),
    st.integers(0, 65535),
    st.binary(max_size=8),
    OPTIONS,
    st.binary(max_size=50),
)
def test_what_is_encoded_is_decoded(
    kind: int, code: int, mid: int, token: bytes, options: list[tuple[int, bytes]], payload: bytes
) -> None:
    options = sorted(options, key=lambda option: option[0])
    message = coap.Message(kind, code, mid, token, options, payload)
    assert coap.decode(coap.encode(message)) == message


@given(st.binary(max_size=40))
def test_garbage_is_refused_or_decoded_but_never_crashes(data: bytes) -> None:
    try:
        coap.decode(data)
    except ValueError:
        return


# ------------------------------------------------------------------ commands


def test_a_post_goes_out_and_its_response_comes_back(make_bench: Any) -> None:
    bench = client(make_bench)
    answer_with(bench, 205, b"done")
    assert bench.ask("AT+QCOAPHEAD=5,4660,2,BEEF") == OK
    assert bench.ask('AT+QCOAPOPTION=3,11,"/device/auth",12,50,15,"a=1&b=2"') == OK
    text = bench.ask("AT+QCOAPSEND=0,2,192.0.2.1,5683,2,4142", 1.0)
    assert text == OK + b'\r\n+QCOAPURC: "rsp",2,2.05,4660,4,646F6E65\r\n'
    message = sent(bench)
    assert (message.type, message.code, message.mid) == (coap.CON, 2, 4660)
    assert (message.token, message.payload) == (b"\xbe\xef", b"AB")
    assert message.options == [
        (11, b"device"),
        (11, b"auth"),
        (12, b"\x32"),
        (15, b"a=1"),
        (15, b"b=2"),
    ]
    assert bench.lines("AT+QCOAPDATASTATUS?") == ["+QCOAPDATASTATUS: 4", "OK"]


def test_a_payload_can_be_typed(make_bench: Any) -> None:
    bench = client(make_bench)
    assert bench.ask("AT+QCOAPSEND=1,2,192.0.2.1,5683") == b"\r\n>"
    assert bench.ask(b'{"a":1}\x1a', 1.0) == OK
    assert (sent(bench).type, sent(bench).payload) == (coap.NON, b'{"a":1}')
    bench.ask("AT+QCOAPSEND=1,2,192.0.2.1,5683")
    assert bench.ask(b"no\x1b", 1.0) == OK
    assert len(bench.wire.sent) == 1


def test_unknown_options_are_accepted_but_not_sent(make_bench: Any) -> None:
    bench = client(make_bench)
    command = 'AT+QCOAPOPTION=5,17,50,14,60,4,"AB",2100,"secret",11,"x"'
    assert bench.ask(command) == OK
    bench.ask("AT+QCOAPSEND=1,1,192.0.2.1,5683,0,", 1.0)
    assert sent(bench).options == [(11, b"x")]


def test_options_stay_until_they_are_replaced(make_bench: Any) -> None:
    bench = client(make_bench)
    for command, options in (
        ('AT+QCOAPOPTION=1,11,"x"', [(11, b"x")]),
        ("AT", [(11, b"x")]),
        ('AT+QCOAPOPTION=1,15,"q"', [(15, b"q")]),
    ):
        bench.ask(command)
        bench.ask("AT+QCOAPSEND=1,2,192.0.2.1,5683,1,00", 1.0)
        assert sent(bench).options == options


@pytest.mark.parametrize(
    "arguments",
    ['2,11,"x"', '1,11,"a,b"', "0", '1,11,"x",12,50', "1,12,nonsense", "1,6,2", "1,x,1"],
)
def test_bad_option_lists(make_bench: Any, arguments: str) -> None:
    assert client(make_bench).ask(f"AT+QCOAPOPTION={arguments}") == cme(50)


@pytest.mark.parametrize(
    ("head", "mid", "token"),
    [
        ("2,3,A1B2C3", None, b"\xa1\xb2\xc3"),
        ("3,777", 777, b""),
        ("4,777", 777, None),
        ("5,777,1,FF", 777, b"\xff"),
    ],
)
def test_heads(make_bench: Any, head: str, mid: int | None, token: bytes | None) -> None:
    bench = client(make_bench)
    assert bench.ask(f"AT+QCOAPHEAD={head}") == OK
    bench.ask("AT+QCOAPSEND=1,2,192.0.2.1,5683,1,00", 1.0)
    assert mid in (None, sent(bench).mid)
    assert token in (None, sent(bench).token)


def test_a_random_token_is_the_previous_message_id(make_bench: Any) -> None:
    bench = client(make_bench)
    bench.ask("AT+QCOAPHEAD=1")
    for _ in range(2):
        bench.ask("AT+QCOAPSEND=1,2,192.0.2.1,5683,1,00", 1.0)
    first, second = (coap.decode(data) for _, data in bench.wire.sent)
    assert second.token == f"{first.mid:x}".encode()
    assert first.mid != second.mid


@pytest.mark.parametrize("head", ["2,9,00", "2,2,AABBCC", "6", "3", "3,65536", '2,1,"AA"'])
def test_bad_heads(make_bench: Any, head: str) -> None:
    assert client(make_bench).ask(f"AT+QCOAPHEAD={head}") == cme(50)


def test_error_codes(make_bench: Any) -> None:
    bench = make_bench("bc66", Network(stat="none"), echo=False, cmee=1, attached=False)
    for command in ("AT+QCOAPDEL", "AT+QCOAPHEAD=1", 'AT+QCOAPOPTION=1,11,"x"'):
        assert bench.ask(command) == cme(3), command
    assert bench.ask("AT+QCOAPCREATE=0") == cme(50)
    assert bench.ask("AT+QCOAPCREATE=56830") == OK
    assert bench.ask("AT+QCOAPCREATE=56830") == cme(50)
    assert bench.ask("AT+QCOAPSEND=0,2,192.0.2.1,5683,1,00") == cme(30)
    assert bench.ask("AT+QCOAPSEND=0,2,192.0.2.1,5683,2,00") == cme(50)
    assert bench.ask("AT+QCOAPSEND=4,2,192.0.2.1,5683,1,00") == cme(50)
    assert bench.ask("AT+QCOAPSEND=0,5,192.0.2.1,5683,1,00") == cme(50)
    assert bench.ask("AT+QCOAPDEL") == OK


def test_a_confirmable_message_is_repeated_and_given_up(make_bench: Any) -> None:
    bench = client(make_bench)
    bench.ask("AT+QCOAPSEND=0,2,192.0.2.1,5683,1,00", 1.0)
    assert bench.lines("AT+QCOAPDATASTATUS?")[0] == "+QCOAPDATASTATUS: 1"
    bench.wait(120.0)
    assert len(bench.wire.sent) == 5
    assert len({data for _, data in bench.wire.sent}) == 1
    assert bench.lines("AT+QCOAPDATASTATUS?")[0] == "+QCOAPDATASTATUS: 3"


def test_a_reset_ends_the_exchange(make_bench: Any) -> None:
    bench = client(make_bench)
    bench.wire.peers[PEER] = lambda data: [b"\x70\x00" + data[2:4]]
    assert bench.ask("AT+QCOAPSEND=0,2,192.0.2.1,5683,1,00", 60.0) == OK
    assert len(bench.wire.sent) == 1
    assert bench.lines("AT+QCOAPDATASTATUS?")[0] == "+QCOAPDATASTATUS: 5"


def test_a_separate_response_is_acknowledged(make_bench: Any) -> None:
    bench = client(make_bench)

    def reply(data: bytes) -> list[bytes]:
        if data[0] >> 4 & 3 != coap.CON:
            return []
        token = coap.decode(data).token
        late = coap.Message(coap.CON, coap.code_of(204), 999, token)
        return [b"\x60\x00" + data[2:4], coap.encode(late)]

    bench.wire.peers[PEER] = reply
    text = bench.ask("AT+QCOAPSEND=0,2,192.0.2.1,5683,1,00", 60.0)
    assert text == OK + b'\r\n+QCOAPURC: "rsp",0,2.04,999\r\n'
    assert bench.wire.sent[-1][1] == b"\x60\x00\x03\xe7"


def test_shown_address_and_options(make_bench: Any) -> None:
    bench = client(make_bench)
    options = [(12, b"\x32"), (23, b"\x1e"), (2100, b"x"), (8, b"path")]
    answer_with(bench, 205, b"\x01", options=options)
    bench.ask('AT+QCOAPCFG="Showra",1')
    bench.ask('AT+QCOAPCFG="Showrspopt",1')
    assert bench.lines('AT+QCOAPCFG="Showra"')[0] == '+QCOAPCFG: "Showra",1'
    bench.ask("AT+QCOAPHEAD=3,7")
    text = bench.lines("AT+QCOAPSEND=0,1,192.0.2.1,5683,0,", 1.0)
    assert text[1] == ('+QCOAPURC: "rsp",192.0.2.1,5683,2,2.05,7,2,12,"50",23,"1/M/1024",1,01')


def test_another_address_clears_the_options_another_port_is_ignored(make_bench: Any) -> None:
    bench = client(make_bench)
    bench.ask('AT+QCOAPOPTION=1,11,"x"')
    bench.ask("AT+QCOAPSEND=1,2,192.0.2.1,5683,1,00", 1.0)
    bench.ask("AT+QCOAPSEND=1,2,192.0.2.1,9999,1,00", 1.0)
    assert bench.wire.sent[-1][0] == PEER
    bench.ask("AT+QCOAPSEND=1,2,192.0.2.2,5683,1,00", 1.0)
    assert bench.wire.sent[-1][0] == ("192.0.2.2", 5683)
    assert sent(bench).options == []


def test_a_resource_of_the_modem_is_served(make_bench: Any) -> None:
    bench = client(make_bench)
    bench.ask('AT+QCOAPADDRES=3,"led"')
    bench.ask("AT+QCOAPSEND=1,2,192.0.2.1,5683,1,00", 1.0)
    request = coap.Message(coap.CON, 3, 77, b"\x01", [(11, b"led")], b"on")
    bench.wire.inject(coap.encode(request), PEER)
    assert bench.wait(1.0) == b'\r\n+QCOAPURC: "req",0,3,77,00,1,01,2,6F6E\r\n'
    request.options = [(11, b"fan")]
    bench.wire.inject(coap.encode(request), PEER)
    bench.wait(1.0)
    assert sent(bench).dotted == "4.04"
