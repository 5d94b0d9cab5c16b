"""Every report accepted once, every command executed once: whatever the network does, and for long.

The device here is `Talker`: it repeats a datagram until it is answered, and knows commands by id.
"""

from __future__ import annotations

import asyncio
import gc
import json
from collections import Counter

import pytest

from hil.cloud import Behaviour, Cloud, CommandState, Downlink, Impairment, Limits

from .conftest import Clock, Connect
from .wire import (
    ACK,
    BLOCK1,
    CHANGED,
    DK,
    GET,
    NON,
    PK,
    SECRET,
    UP_RAW,
    Answer,
    Talker,
    Udp,
    block,
    claim,
    connected,
    header,
    read,
    request,
)

BAD = Impairment(loss=0.2, duplicate=0.2, reorder=0.2, seed=1, delay=0.01)
REPEAT = 0.02


class Worker(Talker):
    """Executes the commands it is given, each id once, and replies to each time it is given."""

    def __init__(self, udp: Udp, repeat_after: float = REPEAT) -> None:
        super().__init__(udp, repeat_after)
        self.executed: Counter[str] = Counter()
        self._known: set[str] = set()

    async def work(self, answer: Answer) -> None:
        while topics := [value.decode() for value in answer.option(2100)]:
            payloads = answer.option(2102)
            if not payloads:
                path = tuple(topics[0].strip("/").split("/"))
                answer = await self.ask(path, b"", code=GET)
                assert answer.code == "2.05"
                payloads = [answer.payload]
            answer = await self._execute(topics[0], json.loads(payloads[0])["id"])

    async def _execute(self, path: str, identity: str) -> Answer:
        if identity not in self._known:
            self._known.add(identity)
            self.executed[identity] += 1
        body = json.dumps({"id": identity, "code": 200, "data": {}}).encode()
        return await self.ask(tuple(f"{path}_reply".strip("/").split("/")), body)


async def worker(connect: Connect) -> Worker:
    worker = Worker(await connect())
    await worker.ask()
    return worker


# --- message IDs


async def test_a_message_id_counts_for_247_seconds(cloud: Cloud, udp: Udp, clock: Clock) -> None:
    await udp.ask(request(1))
    for advance, accepted in ((0, 1), (246, 1), (1, 2), (246, 2)):
        clock.advance(advance)
        assert (await udp.ask(request(2, UP_RAW, b"x")))[1] == CHANGED
        assert cloud.counters.accepted == accepted
    assert (cloud.counters.duplicates, cloud.counters.mid_reused) == (2, 0)


async def test_another_address_has_message_ids_of_its_own(cloud: Cloud, connect: Connect) -> None:
    cloud.limits = Limits(source_address=False)
    here, there = await connect(), await connect()
    await here.ask(request(1))
    for udp in (here, there, here, there):
        await udp.ask(request(2, UP_RAW, b"x"))
    assert (cloud.counters.accepted, cloud.counters.answered_again) == (2, 2)


async def test_a_reused_message_id_gets_the_old_answer(cloud: Cloud, udp: Udp) -> None:
    await udp.ask(request(1))
    first = await udp.ask(request(2, UP_RAW, b"x", token=b"\x01"))
    assert await udp.ask(request(2, UP_RAW, b"y", token=b"\x02")) == first
    assert (cloud.counters.accepted, cloud.counters.mid_reused) == (1, 1)


async def test_a_duplicate_during_a_slow_answer(cloud: Cloud, udp: Udp) -> None:
    await udp.ask(request(1))
    cloud.behaviour = Behaviour(slow=0.15)
    udp.send(request(2, UP_RAW, b"x"))
    udp.send(request(2, UP_RAW, b"x"))
    assert await udp.receive() == header(ACK, 0, 2)
    udp.send(request(2, UP_RAW, b"x"))
    assert await udp.receive() == header(ACK, 0, 2)
    assert read(await udp.receive()).code == "2.04"
    assert (cloud.counters.accepted, cloud.counters.duplicates) == (1, 2)


async def test_a_non_confirmable_duplicate_is_ignored(cloud: Cloud, udp: Udp) -> None:
    await udp.ask(request(1))
    await udp.ask(request(2, UP_RAW, b"x", kind=NON))
    udp.send(request(2, UP_RAW, b"x", kind=NON))
    assert await udp.is_quiet()
    assert (cloud.counters.accepted, cloud.counters.answered_again) == (1, 0)


async def test_only_some_exchanges_are_remembered() -> None:
    async with Cloud({(PK, DK): SECRET}, exchanges=100) as cloud, connected(cloud.address) as udp:
        for mid in range(150):
            await udp.ask(request(mid))
        assert cloud._border is not None
        assert len(cloud._border._exchanges) == 100
        await udp.ask(request(60))
        assert cloud.counters.duplicates == 1
        await udp.ask(request(0))
        assert cloud.counters.duplicates == 1


# --- the bad network


@pytest.mark.parametrize(
    "impairment",
    [
        Impairment(loss=0.5),
        Impairment(duplicate=1.0),
        Impairment(reorder=1.0),
        Impairment(loss=0.5, inward=False),
        Impairment(loss=0.5, outward=False),
        BAD,
    ],
)
async def test_reports_through_a_bad_network(
    cloud: Cloud, connect: Connect, impairment: Impairment
) -> None:
    device = await worker(connect)
    cloud.impair = impairment
    for number in range(60):
        assert (await device.ask(UP_RAW, number.to_bytes(2))).code == "2.04"
    assert [r.payload for r in cloud.reports] == [n.to_bytes(2) for n in range(60)]
    counters = cloud.counters
    assert (counters.lost > 0) == (impairment.loss > 0)
    assert (counters.doubled > 0) == (impairment.duplicate > 0)
    assert (counters.held > 0) == (impairment.reorder > 0)


@pytest.mark.parametrize("size", [16, 64, 256, 512])
async def test_blocks_through_a_bad_network(cloud: Cloud, connect: Connect, size: int) -> None:
    device = await worker(connect)
    cloud.impair = BAD
    bodies = [bytes([n]) * 1024 for n in range(3)]
    for body in bodies:
        answers = await device.in_blocks(UP_RAW, body, size)
        assert answers[-1].code == "2.04"
        assert all(a.option(BLOCK1) for a in answers)
    assert [r.payload for r in cloud.reports] == bodies
    assert cloud.counters.blocks == 3 * (1024 // size - 1)


@pytest.mark.parametrize(
    "downlink", [Downlink(), Downlink(dialect="2100+get"), Downlink(option_max=80)]
)
async def test_commands_through_a_bad_network(
    cloud: Cloud, connect: Connect, downlink: Downlink
) -> None:
    cloud.limits = Limits(up_rate=None, down_rate=None)
    cloud.downlink = downlink
    device = await worker(connect)
    cloud.impair = BAD
    sent = [
        cloud.send_command(PK, DK, "set" if n % 2 else "thing/service/go", {"n": "x" * n})
        for n in range(30)
    ]
    for _ in range(2):
        await device.work(await device.ask(UP_RAW, b"x"))
    assert [command.state for command in sent] == [CommandState.SUCCESS] * 30
    assert [len(command.replies) for command in sent] == [1] * 30
    assert [command.deliveries for command in sent] == [1] * 30
    assert device.executed == Counter(command.id for command in sent)


async def test_the_seed_decides(cloud: Cloud, udp: Udp) -> None:
    await udp.ask(request(1))
    patterns = []
    for seed in (1, 1, 2):
        cloud.impair = Impairment(loss=0.5, seed=seed, outward=False)
        pattern = []
        for _ in range(40):
            lost, come = cloud.counters.lost, cloud.counters.lost + cloud.counters.received
            udp.send(request(2, UP_RAW, b"x"))
            async with asyncio.timeout(5):
                while cloud.counters.lost + cloud.counters.received == come:
                    await asyncio.sleep(0)
            pattern.append(cloud.counters.lost > lost)
        patterns.append(pattern)
    assert patterns[0] == patterns[1] != patterns[2]


async def test_an_impairment_from_the_start_and_taken_away() -> None:
    async with (
        Cloud({(PK, DK): SECRET}, impair=Impairment(loss=1.0)) as cloud,
        connected(cloud.address) as udp,
    ):
        udp.send(request(1))
        assert await udp.is_quiet()
        assert (cloud.counters.lost, cloud.datagrams) == (1, [])
        cloud.impair = None
        assert (await udp.ask(request(1)))[1] == CHANGED
        cloud.impair = Impairment(reorder=1.0, delay=0.05)
        udp.send(request(2))  # held back until the cloud is gone
        while not cloud.counters.held:
            await asyncio.sleep(0)
    await asyncio.sleep(0.06)
    assert cloud.counters.received == 1


# --- for long


async def test_ten_thousand_datagrams_in_a_bad_network(cloud: Cloud, connect: Connect) -> None:
    cloud.limits = Limits(up_rate=None, down_rate=None)
    device = await worker(connect)
    cloud.impair = Impairment(loss=0.01, duplicate=0.1, reorder=0.1, seed=3, delay=0.005)
    sent = []
    for number in range(4000):
        if number % 5 == 0:
            sent.append(cloud.send_command(PK, DK, "set", {"n": number}))
        await device.work(await device.ask(UP_RAW, number.to_bytes(4)))
    assert cloud.counters.received + cloud.counters.sent > 10_000
    payloads = Counter(r.payload for r in cloud.reports)
    assert payloads == Counter(n.to_bytes(4) for n in range(4000))
    assert device.executed == Counter(command.id for command in sent)
    assert {command.state for command in sent} == {CommandState.SUCCESS}
    assert cloud.counters.mid_reused == 0


async def test_a_day(cloud: Cloud, connect: Connect, clock: Clock) -> None:
    """A report each minute, a command each hour, a sleep that is too long each six hours."""
    cloud.limits = Limits(connections=True)
    device = await worker(connect)
    refused = 0
    for minute in range(1, 24 * 60 + 1):
        clock.advance(60)
        if minute % 60 == 0:
            cloud.send_command(PK, DK, "set", {"minute": minute}, pending=600)
        if minute % 360 == 0:
            clock.advance(3600)
        answer = await device.ask(UP_RAW, minute.to_bytes(2))
        if answer.code == "4.01":
            refused += 1
            await device.work(await device.ask())
            answer = await device.ask(UP_RAW, minute.to_bytes(2))
        await device.work(answer)
    assert (cloud.counters.accepted, refused) == (1440, 4)
    states = Counter(command.state for command in cloud.commands(PK, DK))
    assert states == {CommandState.SUCCESS: 20, CommandState.EXPIRED: 4}
    assert sum(device.executed.values()) == 20


async def test_message_ids_may_go_round_by_the_clock(cloud: Cloud, udp: Udp, clock: Clock) -> None:
    await udp.ask(request(0, payload=claim(86400)))
    for number in range(300):
        clock.advance(250)
        assert (await udp.ask(request(7, UP_RAW, b"x")))[1] == CHANGED
        assert cloud.counters.accepted == number + 1
    assert cloud._border is not None
    assert len(cloud._border._exchanges) == 1


async def chat(device: Worker, cloud: Cloud, messages: int) -> None:
    """One of everything, over and over."""
    for number in range(messages // 5):
        cloud.send_command(PK, DK, "set", {"n": number})
        await device.work(await device.ask(UP_RAW, bytes(20)))
        await device.report("thing/attribute/update", {"attributes": {f"a{number % 50}": 1}})
        await device.report("thing/event/e/post", {"events": {}})
        await device.ask(UP_RAW, bytes(16), options=[(BLOCK1, block(0, True, 16))])
        device.executed.clear()
        device._known.clear()


async def test_memory_stays_flat() -> None:
    limits = Limits(up_rate=None, down_rate=None)
    async with (
        Cloud({(PK, DK): SECRET}, limits=limits, keep=100, exchanges=100) as cloud,
        connected(cloud.address) as udp,
    ):
        device = Worker(udp)
        await device.ask()
        objects = []
        for messages in (5500, 1000, 1000):  # 1000 events are kept
            await chat(device, cloud, messages)
            gc.collect()
            objects.append(len(gc.get_objects()))
        assert abs(objects[2] - objects[0]) < 200
        assert len(cloud.requests) == len(cloud.datagrams) == len(cloud.reports) == 100
        assert len(cloud.commands(PK, DK)) == 100
        assert cloud.requests.total == cloud.counters.requests > 5500
        assert cloud.counters.accepted == cloud.reports.total == 4500
