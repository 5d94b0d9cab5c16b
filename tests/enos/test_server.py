"""How a server is named."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbiot.enos import Server
from nbiot.errors import BadInput

LONG = ".".join(["x" * 63] * 4)  # 255 characters; a name has 253 at most, "coap-" included


@pytest.mark.parametrize(
    "hostname",
    ["abc.def.com", "https://abc.def.com", "http://abc.def.com/", "https://abc.def.com/"],
)
def test_the_server_of_an_environment_has_coap_before_its_name(hostname: str) -> None:
    assert str(Server.of_enos(hostname)) == "coap-abc.def.com:5683"


@pytest.mark.parametrize(
    "hostname",
    [
        *["", " ", "/", "https://", "a b.com", " abc.def.com", "abc.def.com ", "abc.def.com\n"],
        *["coap-abc.def.com", "COAP-abc.def.com", "coap://abc.def.com", "coaps://abc.def.com"],
        *["abc.def.com:5683", "abc.def.com/path", "abc..com", ".com", "abc.com.", "a_b.com"],
        *["192.0.2.1", "::1", "[::1]", "user@abc.com", "ab\u0000c.com", "b\u00fccher.de", LONG],
    ],
)
def test_what_names_no_environment_is_refused(hostname: str) -> None:
    with pytest.raises(BadInput) as caught:
        Server.of_enos(hostname)
    assert caught.value.field == "enos"
    assert caught.value.exit_code == 2


def test_the_way_to_another_server_is_shown() -> None:
    with pytest.raises(BadInput, match="--server"):
        Server.of_enos("abc.def.com:5684")


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("abc.def.com", "abc.def.com", 5683),
        ("abc.def.com:1", "abc.def.com", 1),
        ("abc.def.com:65535", "abc.def.com", 65535),
        ("coap://abc.def.com", "abc.def.com", 5683),
        ("coap://abc.def.com:5685/", "abc.def.com", 5685),
        ("192.0.2.1", "192.0.2.1", 5683),
        ("192.0.2.1:5685", "192.0.2.1", 5685),
        ("localhost:5685", "localhost", 5685),
        ("coap-abc.def.com", "coap-abc.def.com", 5683),
        ("3com.com", "3com.com", 5683),
    ],
)
def test_a_server_is_a_host_and_perhaps_a_port(text: str, host: str, port: int) -> None:
    assert Server.parse(text) == Server(host, port)


@pytest.mark.parametrize(
    "text",
    [
        *["", ":", ":5683", "host:", "host:0", "host:65536", "host:-1", "host:+1", "host: 1"],
        *["host:1 ", " host", "host ", "ho st", "host:1\n", "host\n", "host:\u0665", "host:1_0"],
        *["host:" + "9" * 5000, "coaps://host", "http://host", "https://host:443", "host/path"],
        *["host:1/path", "coap://", "coap://coap://host", "a..b", "a_b", "host.", "user@host"],
        *["1.2.3", "1.2.3.4.5", "256.1.1.1", "01.2.3.4", "1.2.3.4.", "1", LONG],
    ],
)
def test_what_names_no_server_is_refused(text: str) -> None:
    with pytest.raises(BadInput) as caught:
        Server.parse(text)
    assert caught.value.field == "server"


@pytest.mark.parametrize("text", ["::1", "[::1]", "[::1]:5683", "fe80::1%eth0", "2001:db8::1"])
def test_an_ipv6_address_is_refused_in_these_words(text: str) -> None:
    with pytest.raises(BadInput, match="IPv6"):
        Server.parse(text)


@pytest.mark.parametrize("port", [0, -1, 65536, True, 5683.0, "5683", None])
def test_a_port_that_is_none_is_refused(port: Any) -> None:
    with pytest.raises(BadInput, match="a port from 1 to 65535"):
        Server("abc.def.com", port)


@given(st.text(max_size=40))
def test_any_text_is_a_server_or_bad_input(text: str) -> None:
    for read in (Server.parse, Server.of_enos):
        try:
            server = read(text)
        except BadInput:
            continue
        assert server.host.isascii()
        assert Server.parse(str(server)) == server
