"""A modem on a hand-turned clock and a scripted internet."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from hil.emulator import ManualClock, Modem, Network, Options, ScriptedWire, create

PEER = ("192.0.2.1", 7)


class Bench:
    """One modem, its clock, its internet and what it wrote."""

    def __init__(self, model: str, options: Options, network: Network | None = None) -> None:
        self.wire = ScriptedWire()
        self.clock = ManualClock()
        self.network = replace(network or Network(), wire=self.wire)
        self.out = bytearray()
        self.modem: Modem = create(
            model, options, self.network, send=self.out.extend, clock=self.clock
        )

    def take(self) -> bytes:
        """What was written since the last look."""
        data = bytes(self.out)
        self.out.clear()
        return data

    def ask(self, command: str | bytes, seconds: float = 0.0) -> bytes:
        """Send a command (or bytes as they are), let time pass, return what came."""
        data = command if isinstance(command, bytes) else command.encode("latin-1") + b"\r"
        self.modem.receive(data)
        return self.wait(seconds) if seconds else self.take()

    def wait(self, seconds: float) -> bytes:
        self.clock.advance(seconds)
        return self.take()

    def lines(self, command: str | bytes, seconds: float = 0.0) -> list[str]:
        """The same as text lines without the empty ones."""
        return split_lines(self.ask(command, seconds))

    def echo_peer(self, address: tuple[str, int] = PEER) -> None:
        """Let a peer send every datagram back."""
        self.wire.peers[address] = lambda data: [data]


def split_lines(data: bytes) -> list[str]:
    """Text lines, whatever their ends, without the empty ones."""
    return [line for line in re.split(r"[\r\n]+", data.decode("latin-1")) if line]


MakeBench = Callable[..., Bench]


@pytest.fixture
def make_bench() -> Iterator[MakeBench]:
    benches: list[Bench] = []

    def make(model: str, network: Network | None = None, **options: Any) -> Bench:
        options.setdefault("attached", True)
        benches.append(Bench(model, Options(**options), network))
        return benches[-1]

    yield make
    for bench in benches:
        bench.modem.close()
        assert bench.clock.pending == 0, "a closed modem left timers behind"
        assert not bench.wire.endpoints, "a closed modem left sockets open"
