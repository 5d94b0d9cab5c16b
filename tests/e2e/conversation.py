"""Long conversations between driver, software modem and stand-in, over a network that loses,
doubles and reorders datagrams; in virtual time.

    python -m tests.e2e.conversation --messages 10000 --model bc95-g
"""

from __future__ import annotations

import argparse
import asyncio
import random
import resource
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

from hil.cloud import Cloud, CommandState, Impairment
from hil.emulator import Network, Options, create
from nbiot.coap.exchange import Timing
from nbiot.enos import AuthLimit, Command, Device, EnosSession, Server
from nbiot.link import Link
from nbiot.link.memory import MemoryLink
from nbiot.modem import Modem
from nbiot.signing import Secret, SecretSigner
from tests.virtualtime import run_virtual

PK, DK, SECRET = "KV315idW", "867726030047601", "M3yy874uGY8INjEGddTR"
LOSSY = {"loss": 0.2, "duplicate": 0.2, "reorder": 0.2}
# 13 transmissions within 180 s: with a fifth lost each way, one report in 600,000 has no answer.
PATIENT = Timing(ack_timeout=3.0, max_retransmit=12, backoff=1.2)


@asynccontextmanager
async def memory_modem(model: str, **options: Any) -> AsyncIterator[tuple[Modem, Any]]:
    """A driver and a software modem with a lossless line between, both on the loop's clock."""
    loop: Any = asyncio.get_running_loop()
    emulated: Any = None

    def to_modem(data: bytes) -> None:
        link.sent.clear()  # or a long conversation would be kept
        emulated.receive(data)

    link = MemoryLink("line", on_write=to_modem)
    settings = Options(**({"attached": True, "imei": DK, "speed": 1e4} | options))
    emulated = create(model, settings, Network(), send=link.feed, clock=loop)

    async def open_memory(_: str, *, baudrate: int) -> Link:
        return link

    with mock.patch("nbiot.modem.open_link", open_memory):
        async with Modem("line", model=model) as modem:
            await modem.attach()
            yield modem, emulated


@dataclass
class Told:
    """What a conversation came to."""

    reports: Counter[Any] = field(default_factory=Counter)
    executed: Counter[Any] = field(default_factory=Counter)
    states: Counter[Any] = field(default_factory=Counter)
    counters: Any = None
    seconds: float = 0.0
    growth_kib: int = 0
    dropped: Counter[str] = field(default_factory=Counter)


async def converse(model: str, messages: int, seed: int = 1, *, keep: int | None = None) -> Told:
    """``messages`` reports; a command comes with every third or so."""
    told = Told()
    loop = asyncio.get_running_loop()
    rng = random.Random(seed)
    commands: list[Any] = []

    async def carry_out(command: Command) -> dict[str, int]:
        told.executed[command.params["n"]] += 1
        return {"n": command.params["n"]}

    def count(request: Any) -> None:
        if request.path[-1] == "post" and request.code == "2.04":
            told.reports[request.payload.partition(b'"n":')[2].partition(b"}")[0]] += 1

    async with (
        Cloud(
            {(PK, DK): SECRET},
            clock=loop.time,
            on_request=count if keep is None else None,
            impair=Impairment(**LOSSY, delay=3.0, seed=seed),
            keep=keep or 1000,
        ) as cloud,
        memory_modem(model) as (modem, _),
    ):
        device = Device(PK, DK, SecretSigner(Secret(SECRET)), 86400)
        server = Server(cloud.host, cloud.port)
        async with EnosSession(
            modem, device, server, timing=PATIENT, limit=AuthLimit(clock=loop.time)
        ) as enos:
            enos.handle("service", carry_out)
            begin, memory = loop.time(), 0
            for n in range(messages):
                if n == messages // 10:
                    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
                if rng.random() < 0.3:
                    command = cloud.send_command(
                        PK, DK, "thing/service/s", {"n": n}, timeout=20.0, resend=20
                    )
                    if keep is None:
                        commands.append(command)
                await enos.report({"n": n})
            while any(not command.state.is_final for command in commands):
                await enos.report({"last": 1})  # a command rides on an answer
            await enos.settled()
            told.dropped = enos.dropped
        told.counters = cloud.counters
        told.seconds = loop.time() - begin
        told.growth_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
        told.states = Counter(command.state for command in commands)
    return told


def faults_of(told: Told, messages: int) -> list[str]:
    """What went wrong, in words; empty when nothing did."""
    found = []
    reports = {n: told.reports[str(n).encode()] for n in range(messages)}
    if wrong := {n: times for n, times in reports.items() if times != 1}:
        found.append(f"reports not accepted exactly once: {wrong}")
    if twice := {n: times for n, times in told.executed.items() if times != 1}:
        found.append(f"commands not carried out exactly once: {twice}")
    if set(told.states) - {CommandState.SUCCESS}:
        found.append(f"commands that did not end well: {told.states}")
    if sum(told.states.values()) != len(told.executed):
        found.append(f"{told.states} commands, {len(told.executed)} carried out")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--model", default="bc95-g")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--memory", action="store_true", help="keep nothing; show the growth")
    options = parser.parse_args()
    keep = 100 if options.memory else None
    told = run_virtual(converse(options.model, options.messages, options.seed, keep=keep))
    print(f"{options.messages} reports, {told.seconds:.0f} virtual seconds")
    print(told.counters)
    print(f"dropped: {dict(told.dropped)}; memory grew by {told.growth_kib} KiB after a tenth")
    if not options.memory:
        print(f"commands: {dict(told.states)}")
        print("\n".join(faults_of(told, options.messages)) or "no faults")


if __name__ == "__main__":
    main()
