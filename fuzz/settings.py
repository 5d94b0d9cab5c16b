"""What people type: a server, keys, an access point, ``--port emulator:...``. BadInput or a value.

``server|coap.example:5683`` - one of server, enos, emulator, apn, product, device, command; the
text.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address

from hil.emulator import MODELS, ManualClock, ScriptedWire, create
from hil.link import OPTIONS, emulator_settings
from nbiot.at import Command
from nbiot.enos.auth import Server
from nbiot.errors import BadInput
from nbiot.profile import _checked_apn
from nbiot.signing import check_device_key, check_product_key

from .script import chosen, swift


def _server(text: str) -> None:
    server = Server.parse(text)
    assert Server.parse(str(server)) == server
    assert server.host.isascii()
    if server.host.rpartition(".")[2].isdigit():
        IPv4Address(server.host)


def _enos(text: str) -> None:
    server = Server.of_enos(text)
    assert server.host.startswith("coap-")
    assert Server.parse(str(server)) == server


def _emulator(text: str) -> None:
    model, options, network = emulator_settings(text)
    assert model in MODELS
    network.wire = ScriptedWire()
    clock, out = ManualClock(), bytearray()
    modem = create(model, options, network, send=out.extend, clock=clock)
    for command in (b"AT\r", b"AT+CGSN=1\r", b"AT+CSQ\r"):
        modem.receive(command)
    modem.close()


def _apn(text: str) -> None:
    assert _checked_apn(text) == text
    assert not set(text) & set('",\r\n')


def _command(text: str) -> None:
    try:
        line = text.encode("latin-1")
    except UnicodeEncodeError:
        return
    assert b"\r" not in Command(line).line


KINDS: dict[bytes, Callable[[str], object]] = {
    b"server": _server,
    b"enos": _enos,
    b"emulator": _emulator,
    b"apn": _apn,
    b"product": check_product_key,
    b"device": check_device_key,
    b"command": _command,
}
TOKENS = (
    *(b"%b|" % kind for kind in KINDS),
    *(f"&{name}=".encode() for name in OPTIONS),
    *(f"{model}?".encode() for model in MODELS),
    *(b"coap://", b"https://", b":5683", b".example", b"192.0.2.1", b"1e9", b"nan", b"-1", b"%00"),
)


def one(data: bytes) -> None:
    """See the top of this file."""
    kind, _, rest = data.partition(b"|")
    text = rest.decode("utf-8", "surrogateescape")
    with swift(len(data)):
        try:
            chosen(KINDS, kind)(text)
        except BadInput as error:
            str(error)
