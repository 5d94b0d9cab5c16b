"""Reports up, commands down."""

from __future__ import annotations

from typing import Any

import pytest

from hil.bench import Bench
from hil.cloud import Behaviour, Cloud, CommandState, Downlink
from hil.cloud.behaviour import filler
from nbiot.enos import Command, CommandFailed, EnosSession, Measurepoint
from nbiot.errors import RequestRefused
from nbiot.modem import Modem

pytestmark = [pytest.mark.hil, pytest.mark.asyncio, pytest.mark.needs("enos")]


def device_of(session: EnosSession) -> tuple[str, str]:
    device = session.enos.device
    return device.product_key, device.device_key


async def test_report(session: EnosSession, bench: Bench) -> None:
    """A report arrives once, value for value"""
    await session.report({"hilTemperature": 21.5, "hilPower": Measurepoint(1.0, 9)})
    if bench.slot.server is None:
        cloud = await bench.cloud()
        points = cloud.thing(*device_of(session)).measurepoints
        assert points["hilTemperature"].value == 21.5
        assert points["hilPower"].quality == 9
        assert cloud.counters.accepted == 1
        assert cloud.counters.rejected == 0


@pytest.mark.needs("cloud")
async def test_everything_that_goes_up(session: EnosSession, cloud: Cloud) -> None:
    """Events, attributes, tags and raw bytes arrive, and are read back as written"""
    await session.event("hot", {"temperature": 90})
    await session.update_attributes({"place": "roof", "height": 12.5})
    await session.update_tags({"owner": "me"})
    assert (await session.attributes(["place"])).data == {"place": "roof"}
    assert (await session.tags()).data == {"owner": "me"}
    await session.delete_attributes(["height"])
    await session.delete_tags(["owner"])
    await session.raw(bytes(range(32)))
    assert cloud.thing(*device_of(session)).attributes == {"place": "roof"}
    assert cloud.reports[-1].payload == bytes(range(32))
    assert cloud.counters.rejected == 0


@pytest.mark.needs("cloud")
async def test_a_long_report(session: EnosSession, cloud: Cloud) -> None:
    """A report of 1 KB arrives whole, in blocks where the modem needs them"""
    points = {f"point{n:02}": f"{n:02}" * 29 for n in range(12)}
    await session.report(points)
    found = cloud.thing(*device_of(session)).measurepoints
    assert {name: point.value for name, point in found.items()} == points
    assert cloud.counters.accepted == 1


@pytest.mark.needs("cloud")
async def test_a_long_answer(modem: Modem, bench: Bench) -> None:
    """An answer that comes in blocks is put together byte for byte"""
    cloud = await bench.cloud(block_size=256)
    async with await bench.session(modem) as session:
        cloud.next(Behaviour(big_payload=700))
        answer = await session.raw(b"\x01")
        assert answer.data == filler(700)


@pytest.mark.needs("cloud")
async def test_a_refused_report(session: EnosSession, cloud: Cloud) -> None:
    """A report that EnOS refuses is told with the code, and is not accepted in silence"""
    cloud.next(Behaviour(code="4.04"))
    with pytest.raises(RequestRefused, match=r"4\.04"):
        await session.report({"t": 1})
    assert cloud.counters.accepted == 0
    await session.report({"t": 2})
    assert cloud.counters.accepted == 1


@pytest.mark.needs("cloud")
@pytest.mark.parametrize("dialect", ["2100+2102", "2100+get"])
async def test_every_kind_of_command(session: EnosSession, cloud: Cloud, dialect: Any) -> None:
    """Each kind of command is carried out once, and the answer is its own"""
    cloud.downlink = Downlink(dialect)
    done: list[tuple[str, str, Any]] = []

    async def carry_out(command: Command) -> Any:
        done.append((str(command.kind), command.service, command.params))
        return {"raw": b"\x02", "get": {"t": 1}}.get(command.kind, {"ok": True})

    for kind in ("raw", "set", "get", "service"):
        session.handle(kind, carry_out)
    who = device_of(session)
    commands = [
        cloud.send_command(*who, "set", {"limit": 30.5}),
        cloud.send_command(*who, "get", ["t"]),
        cloud.send_command(*who, "thing/service/turn", {"to": "on"}),
        cloud.send_command(*who, "down_raw", raw=b"\x01"),
    ]
    await session.report({"t": 1})
    await session.settled()
    states = [command.state.name for command in commands]
    assert states == ["SUCCESS"] * 4, f"the commands ended as {states}"
    assert len(done) == 4, f"4 commands, {len(done)} carried out"
    assert ("service", "turn", {"to": "on"}) in done
    assert commands[1].replies[0].data == {"t": 1}
    assert commands[3].replies[0].payload == b"\x02"
    assert not session.dropped


@pytest.mark.needs("cloud")
async def test_a_command_that_fails(session: EnosSession, cloud: Cloud) -> None:
    """A handler that refuses, or breaks, is answered with a code and never with success"""

    async def refuses(_: Command) -> None:
        raise CommandFailed("too hot", code=2001)

    async def breaks(_: Command) -> None:
        raise ValueError("nobody's business")

    session.handle("service", refuses, name="refuses")
    session.handle("service", breaks, name="breaks")
    who = device_of(session)
    names = ("refuses", "breaks", "unknown")
    commands = [cloud.send_command(*who, f"thing/service/{name}", {}) for name in names]
    await session.report({"t": 1})
    await session.settled()
    assert [command.state for command in commands] == [CommandState.FAILED] * 3
    assert [command.replies[0].code for command in commands] == [2001, 1102, 1101]
    assert b"business" not in commands[1].replies[0].payload


@pytest.mark.needs("cloud")
async def test_a_command_that_comes_again(session: EnosSession, cloud: Cloud) -> None:
    """A command that EnOS sends again is answered again and not carried out again"""
    runs: list[str | None] = []

    async def count(command: Command) -> dict[str, int]:
        runs.append(command.id)
        return {"runs": len(runs)}

    session.handle("service", count)
    topic = "/".join(("/topic/sys", *device_of(session), "thing/service/count")).encode()
    for _ in range(2):
        cloud.next(Behaviour(options=[(2100, topic), (2102, b'{"id":"77","params":{}}')]))
        await session.report({"t": 1})
        await session.settled()
    assert runs == ["77"]
