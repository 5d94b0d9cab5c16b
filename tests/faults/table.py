"""One dialogue with a faulty modem, in virtual time, judged by the modem's own truth."""

from __future__ import annotations

import asyncio
import random
import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from hil.emulator import Network, Options, ScriptedWire, create
from hil.faults import FAULTS, with_faults
from nbiot.channel import Channel
from nbiot.errors import NbiotError, PortLost
from nbiot.link.memory import MemoryLink
from nbiot.modem import profiles
from nbiot.profile import csq_dbm
from tests.virtualtime import run_virtual

MODELS = ("bc95", "bc95-g", "bc66")
PEER = ("192.0.2.1", 5683)
DEADLINE = 200.0  # s of virtual time that one call may take, recovery of the dialogue included
STEPS = 14
# Not a matter of one dialogue: these have tests of their own.
ELSEWHERE = {"hang-up", "baud-mismatch", "slow-attach", "denied-registration"}
# Nothing to do in the dialogue that this driver has with that modem.
IDLE = {
    ("bc95", "send-ok-missing"),
    ("bc95-g", "send-ok-missing"),
    ("bc66", "truncated-hex"),
}
# Raw data has no checksum on the serial line: noise in it, or a shorter length, looks like truth.
UNTELLABLE = {("bc66", "wrong-length"), ("bc66", "noise")}
# Faults that need another one, or a greater chance, to happen at all.
TEXTS = {
    "garbage-after-boot": "reboot-mid-command:probability=0.15,seed={0}+{name}:seed={0}",
    "deaf-after-boot": "reboot-mid-command:probability=0.15,seed={0}+{name}:seed={0}",
    "uplink-busy": "uplink-busy:probability=0.5,seed={0}",
    "reboot-mid-command": "reboot-mid-command:probability=0.1,seed={0}",
    "stuck-peer": "stuck-peer:duration=20,seed={0}",
}


def faults_of(model: str) -> list[str]:
    """The faults of the table for ``model``."""
    return [
        name
        for name, fault in FAULTS.items()
        if fault.applies(model)
        and fault.tellable
        and name not in ELSEWHERE
        and (model, name) not in IDLE | UNTELLABLE
    ]


@dataclass
class Outcome:
    """What a dialogue showed. Empty lists are good."""

    wrong: list[str] = field(default_factory=list)
    hung: list[str] = field(default_factory=list)
    not_sent: list[str] = field(default_factory=list)
    invented: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    happened: int = 0

    @property
    def bad(self) -> list[str]:
        """All that must not be."""
        return [
            f"{kind}: {text}"
            for kind in ("wrong", "hung", "not_sent", "invented", "lost")
            for text in getattr(self, kind)
        ]


class _Ears:
    """A tracer that keeps every line that was heard, and what it was taken for."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def sent(self, data: bytes) -> None: ...

    def note(self, text: str) -> None: ...

    def heard(self, raw: bytes, kind: str) -> None:
        self.lines.append((kind, raw.strip(b"\r\n \x00\xff").decode("latin-1")))


def play(model: str, fault: str, seed: int) -> Outcome:
    """One dialogue of ``STEPS`` calls with ``fault``."""
    return run_virtual(_play(model, fault, seed))


async def _play(model: str, fault: str, seed: int) -> Outcome:
    rng = random.Random(f"{model} {fault} {seed}")
    loop: Any = asyncio.get_running_loop()
    wire = ScriptedWire()
    wire.peers[PEER] = lambda data: [data[::-1]]
    text = TEXTS.get(fault, "{name}:seed={0}").format(seed, name=fault)
    options = with_faults(text, Options(attached=True), model=model)
    network = Network(wire=wire, latency=0.3)
    link = MemoryLink(on_write=lambda data: modem.receive(data))
    modem: Any = create(model, options, network, send=link.feed, clock=loop)
    ears = _Ears()
    channel = Channel(link, profiles()[model].dialect, tracer=ears)
    profile = profiles()[model](channel)
    outcome = Outcome()
    host = _Host(profile, modem, network, rng, outcome)
    for _ in range(STEPS):
        if not await host.step():
            break
    await asyncio.sleep(30)
    _judge(modem, ears, host, outcome)
    await channel.close()
    modem.power_off()
    return outcome


class _Host:
    """Calls of every kind, each with an answer that can be checked."""

    def __init__(
        self, profile: Any, modem: Any, network: Network, rng: random.Random, outcome: Outcome
    ) -> None:
        self.profile = profile
        self.modem = modem
        self.network = network
        self.rng = rng
        self.outcome = outcome
        self.reported: list[bytes] = []
        self.received: list[bytes] = []

    async def step(self) -> bool:
        """One call; False when the port is gone."""
        call = self.rng.choice([self._identity, self._identity, self._signal, self._datagram])
        loop = asyncio.get_running_loop()
        begin = loop.time()
        try:
            async with asyncio.timeout(DEADLINE):
                await call()
        except PortLost:
            return False
        except NbiotError as error:
            self.outcome.errors[type(error).__name__] += 1
        except TimeoutError:
            if loop.time() - begin >= DEADLINE:
                self.outcome.hung.append(call.__name__)
        return True

    async def _identity(self) -> None:
        options = self.modem.options
        row, field_, true = self.rng.choice(
            [("imei", "imei", options.imei), ("imsi", "imsi", options.imsi)]
        )
        reply = await self.profile.ask(row)
        if len(reply.lines) != 1 or reply[field_] != true:
            self.outcome.wrong.append(f"{row}: {reply.lines}")

    async def _signal(self) -> None:
        self.network.signal.power = self.rng.randrange(-1100, -700, 20)
        reply = await self.profile.ask("signal")
        true = [c.answer for c in self.modem.truth.commands if c.line == "AT+CSQ"][-1:]
        said = csq_dbm(reply.lines[0])
        if true and true[0] and f"{int((said + 113) / 2) if said else 99}," not in true[0][0]:
            self.outcome.wrong.append(f"signal: {reply.lines}, true {true[0]}")

    async def _datagram(self) -> None:
        data = self.rng.randbytes(self.rng.randint(1, 40))
        async with await self.profile.udp(*PEER) as socket:
            await socket.send(data)
            self.reported.append(data)
            self.received.append(await socket.receive(5.0))


def _judge(modem: Any, ears: _Ears, host: _Host, outcome: Outcome) -> None:
    truth = modem.truth
    outcome.happened = len(modem.faults.log)
    sent = truth.traffic("sent")
    outcome.not_sent += [data.hex() for data in host.reported if data not in sent]
    came = truth.traffic("came")
    outcome.invented += [data.hex() for data in host.received if data not in came]
    heard = Counter(text for kind, text in ears.lines if kind != "answer")
    whole = "\n".join(text for _, text in ears.lines)
    for urc in truth.urcs:
        text = urc.text.strip()
        if urc.since_damage is not None or heard[text] or "\n" in text or text in whole:
            continue
        outcome.lost.append(text)


def main(seeds: int) -> int:
    """Play the whole table and print a line a row; the number of bad findings."""
    found = 0
    for model in MODELS:
        for fault in faults_of(model):
            outcomes = [play(model, fault, seed) for seed in range(seeds)]
            bad = [f"seed {s}: {line}" for s, o in enumerate(outcomes) for line in o.bad]
            happened = sum(outcome.happened for outcome in outcomes)
            errors = sum((outcome.errors for outcome in outcomes), Counter[str]())
            print(
                f"{model:7} {fault:20} {happened:7} faults  {dict(errors)}  bad {bad}", flush=True
            )
            found += len(bad)
    print(f"{found} findings")
    return found


if __name__ == "__main__":
    sys.exit(min(main(int(sys.argv[1])), 1))
