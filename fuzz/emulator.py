"""The software modems, whatever a host, the network or time does to them.

``bc66 attached|>AT+CSQ\\r|t5|dDATAGRAM|n|r|o|x9`` - model and options. Then: ``>`` the host writes,
``x`` writes it again n times, ``t`` n seconds pass, ``d`` a datagram comes from the peer, ``n``
coverage comes or goes, ``r`` the modem restarts by itself, ``o`` its power goes off and on.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from hil.emulator import (
    MODELS,
    Executed,
    Kind,
    ManualClock,
    Network,
    Options,
    Piece,
    ScriptedWire,
    Seam,
    create,
)

from .script import chosen, fields, number, swift

PEER = ("192.0.2.1", 7)
MOST_WRITTEN = 1 << 14
MOST_SECONDS = 3600
OF_ONE_LINE = 16_384
"""Bytes that one command, one datagram or one restart may cost."""
PER_SECOND = 200
NAMES = {name.encode(): name for name in MODELS}
FLAGS: dict[bytes, dict[str, Any]] = {
    b"attached": {"attached": True},
    b"cold": {"boot": "cold"},
    b"echo": {"echo": True},
    b"cmee": {"cmee": 1},
    b"nosim": {"sim": "absent"},
    b"pin": {"sim": "pin"},
    b"busy": {"busy": "error"},
    b"slow": {"turnaround": 0.01},
    b"urcs": {"urc_seed": 1},
    b"sleep": {"sleep": True},
    b"early": {"early_urcs": True},
    b"junk": {"stale_input": b"\x00\xff"},
}


def _forms() -> list[bytes]:
    suffixes = {"exec": "", "read": "?", "test": "=?", "set": "="}
    names = {
        f"AT{name}{suffixes[form]}"
        for model in MODELS.values()
        for name, forms in model.engine.handlers.items()
        for form in forms
    }
    return [name.encode("latin-1") for name in sorted(names)]


TOKENS = (
    *(b"|>%b" % form for form in _forms()),
    *(b" " + flag for flag in FLAGS),
    *(b"\r", b"|t1", b"|t60", b"|d", b"|n", b"|r", b"|o", b"|x9", b"|>", b"\x1a", b"\x1b", b";"),
    *(b',"192.0.2.1"', b",192.0.2.1", b",7", b"DGRAM,17", b'"UDP"', b"4F4B", b'"', b",0,1"),
)


class Counting(Seam):
    """Counts the final results of each command line."""

    def __init__(self) -> None:
        super().__init__()
        self.finals: Counter[int] = Counter()
        self.lines: dict[int, Executed] = {}  # kept, so that no number is used twice

    def output(self, piece: Piece) -> None:
        if piece.kind is Kind.FINAL and piece.command is not None:
            self.finals[id(piece.command)] += 1
            self.lines[id(piece.command)] = piece.command
        super().output(piece)


def one(data: bytes) -> None:
    """See the top of this file."""
    setting, todo = fields(data)
    name, *words = setting.split(b" ")
    options: dict[str, Any] = {}
    for word in words:
        options |= FLAGS.get(word, {})
    seam = Counting()
    wire, clock, out = ScriptedWire(), ManualClock(), bytearray()
    network = Network(wire=wire, dns={"coap.example": "192.0.2.9"})
    wire.peers[PEER] = lambda datagram: [datagram]
    modem = create(
        chosen(NAMES, name),
        Options(faults=lambda: seam, **options),
        network,
        send=out.extend,
        clock=clock,
    )
    said, written, ends, passed, happened = b"", 0, 0, 0, 1
    with swift(16 * MOST_WRITTEN):
        for letter, argument in todo:
            if letter == b">" or letter == b"x":
                said = argument if letter == b">" else said
                for _ in range(number(argument, 50) if letter == b"x" else 1):
                    if written + len(said) <= MOST_WRITTEN:
                        written += len(said)
                        ends += said.count(b"\r") + said.count(b";")
                        modem.receive(said)
            elif letter == b"t":
                seconds = min(number(argument, 600), MOST_SECONDS - passed)
                passed += seconds
                clock.advance(float(seconds))
            elif letter == b"d" and wire.endpoints:
                happened += 1
                wire.inject(argument, PEER)
            elif letter == b"n":
                happened += 1
                network.change("none" if network.covered else 1)
            elif letter == b"r":
                happened += 1
                modem.reboot()
            elif letter == b"o":
                happened += 1
                modem.power_off()
                modem.power_on()
    lines = modem.counters.commands
    happened += sum(1 + line.count(";") for line in lines) + passed
    assert len(out) <= OF_ONE_LINE * happened + 2 * written + PER_SECOND * passed, "output grows"
    # Lines that a busy modem refuses count as answers to the one that keeps it busy.
    assert seam.finals.total() <= ends, "more final results than command lines"
    for key, count in () if b"busy" in words else seam.finals.items():
        line = seam.lines[key].line
        allowed = 1 + line.count(";") if modem.OK_PER_COMMAND else 1
        assert count <= allowed, f"{count} final results of {line!r}"
    modem.close()
    assert clock.pending == 0, "a closed modem left timers behind"
    assert not wire.endpoints, "a closed modem left sockets open"
