"""Whatever foreign programs ask has its answer at once, also where they are not installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from hil.emulator import MODELS, ManualClock, Network, Options, ScriptedWire, create

ASKED = [
    line
    for line in (Path(__file__).parent / "asked.txt").read_text().splitlines()
    if not line.startswith("#")
]
FINALS = (b"\r\nOK\r\n", b"\r\nERROR\r\n")


@pytest.mark.parametrize("model", sorted(MODELS))
def test_each_question_is_answered_at_once(model: str) -> None:
    out = bytearray()
    options = Options(attached=True, echo=False)
    network = Network(wire=ScriptedWire())
    modem = create(model, options, network, send=out.extend, clock=ManualClock())
    for line in ASKED:
        out.clear()
        modem.receive(line.encode() + b"\r")
        answer = bytes(out)
        name = line[2:].partition("=")[0].removesuffix("?").rstrip("0123456789")
        if name.startswith(("+", "^", "*", "$")) and name not in modem.handlers:
            assert answer.endswith(b"\r\nERROR\r\n"), (line, answer)
            assert answer.count(b"\r\n") == 2, (line, answer)
        else:
            assert answer.endswith(FINALS) or b"\r\n+CM" in answer, (line, answer)
        assert modem.clock.time() == 0.0
    modem.close()
