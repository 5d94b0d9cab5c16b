"""Whatever a host sends, there is an answer in the modem's own words and never a crash."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hil.emulator import MODELS, ManualClock, Network, Options, ScriptedWire, create

ANSWERED = re.compile(rb"(\r\n(OK|ERROR|\+CM[ES] ERROR: \d+|CLOSE OK)\r\n|\r\n>|REBOOTING\r\n)")
VALUES = st.one_of(
    st.integers(-1, 70000).map(str),
    st.sampled_from(["", '"', '""', '"x"', "192.0.2.1", '"192.0.2.1"', "0x100", "DGRAM", '"UDP"']),
    st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=8),
    st.binary(max_size=6).map(bytes.hex),
)
LEAVES = {"+QRST", "+QPOWD", "+NRB"}
"""Commands after which the modem is away for a while."""


def modem_on_bench(model: str) -> tuple[Any, bytearray]:
    out = bytearray()
    modem = create(
        model,
        Options(attached=True, cmee=1, echo=False),
        Network(wire=ScriptedWire()),
        send=out.extend,
        clock=ManualClock(),
    )
    return modem, out


@pytest.mark.parametrize("model", ["bc95", "bc95-g", "bc66"])
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_every_command_answers_every_argument(model: str, data: st.DataObject) -> None:
    modem, out = modem_on_bench(model)
    for ready in ("+NSOCR=DGRAM,17,0,1", '+QIOPEN=1,0,"UDP","192.0.2.1",7', "+QCOAPCREATE=9"):
        modem.receive(f"AT{ready}\r".encode())
    modem.clock.advance(1.0)
    names = sorted(name for name in type(modem).handlers if name[:1] == "+" and name not in LEAVES)
    name = data.draw(st.sampled_from(names))
    form = data.draw(st.sampled_from(["", "?", "=?", "="]))
    arguments = ",".join(data.draw(st.lists(VALUES, max_size=7))) if form == "=" else ""
    out.clear()
    modem.receive(f"AT{name}{form}{arguments}\r".encode("latin-1"))
    modem.clock.advance(0.6)
    assert ANSWERED.search(bytes(out)), bytes(out)
    modem.close()


@pytest.mark.parametrize("model", sorted(MODELS))
@settings(max_examples=100, deadline=None)
@given(noise=st.binary(max_size=300))
def test_after_any_noise_a_line_end_and_at_bring_it_back(model: str, noise: bytes) -> None:
    modem, out = modem_on_bench(model)
    modem.receive(noise)
    modem.receive(b"\x1b\r")
    modem.clock.advance(10.0)
    out.clear()
    modem.receive(b"AT\r")
    assert bytes(out).endswith(b"\r\nOK\r\n")
    modem.close()
