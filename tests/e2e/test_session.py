"""A device's life with EnOS: driver, software modem and stand-in, joined."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from hil.cloud import Behaviour, CommandState, Downlink
from nbiot.coap.exchange import Timing
from nbiot.enos import (
    AuthLimit,
    Command,
    CommandFailed,
    Measurepoint,
    SessionState,
    StateChange,
)
from nbiot.errors import (
    AuthRefused,
    BadInput,
    BadReply,
    ModemRebooted,
    NoResponse,
    RequestRefused,
    SocketError,
    Unsupported,
)

from .conftest import IMEI, MODELS, PRODUCT_KEY, SECRET
from .life import DEVICE, Life, half_minutes


@pytest.fixture
def life(bench):
    @asynccontextmanager
    async def opened(model: str, **options: Any) -> AsyncIterator[Life]:
        emulator = options.pop("emulator", {})
        async with bench(model, attached=True, **emulator) as on, AsyncExitStack() as stack:
            await on.modem.attach()
            found = Life(on)
            found.session = await stack.enter_async_context(found.open(**options))
            yield found

    return opened


# --- up -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
async def test_a_device_reports_and_reads_back_what_it_wrote(life, model: str) -> None:
    async with life(model) as at:
        enos = at.session
        answer = await enos.report(
            {"temp": 21.5, "power": Measurepoint(1.0, 9)}, time=1700000000000
        )
        assert answer.data in (None, {})
        await enos.event("hot", {"temp": 90})
        await enos.update_attributes({"place": "roof", "height": 12.5})
        await enos.update_tags({"owner": "me"})
        assert (await enos.attributes(["place"])).data == {"place": "roof"}
        assert (await enos.attributes()).data == {"place": "roof", "height": 12.5}
        await enos.delete_attributes(["height"])
        await enos.delete_tags(["owner"])
        assert not (await enos.tags()).data
        await enos.raw(b"\x01\x00\x00\x00\x14")
        thing = at.cloud.thing(*DEVICE)
        assert thing.measurepoints["power"].quality == 9
        assert thing.attributes == {"place": "roof"}
        assert at.cloud.counters.rejected == 0
        assert at.authentications == 1
    assert at.seen == ["authenticating", "online", "closed"]
    assert at.bench.open_sockets() == []


@pytest.mark.parametrize("model", MODELS)
async def test_a_report_of_one_kilobyte_goes_through_and_is_accepted_once(life, model: str) -> None:
    async with life(model) as at:
        points = {f"point{n}": "x" * 58 for n in range(12)}
        answer = await at.session.report(points)
        assert at.cloud.counters.accepted == 1
        assert set(at.cloud.thing(*DEVICE).measurepoints) == set(points)
        limit = at.bench.modem.profile.limits.datagram
        # Blocks of 256 bytes: 512 and the headers are more than a BC95 takes.
        assert answer.cost.round_trips == (4 if limit == 512 else 1)
        assert answer.cost.up > 900


async def test_each_answer_says_what_it_took(life) -> None:
    async with life("bc95-g") as at:
        cost = (await at.session.report({"t": 1})).cost
    sent = [d for d in at.cloud.datagrams if d.direction == "in"][-1]
    assert cost.up == len(sent.data)
    assert (cost.round_trips, cost.datagrams_up, cost.datagrams_down) == (1, 1, 1)
    assert cost.at_round_trips >= 2
    assert cost.serial_bytes > 2 * cost.up
    assert 0 < cost.connected < 5
    assert cost.released is at.bench.modem.profile.has_release_assistance


async def test_refusals_in_the_body_and_in_the_code_are_errors(life) -> None:
    async with life("bc66") as at:
        with pytest.raises(RequestRefused, match="12"):
            await at.session.post("thing/attribute/update", {"attributes": "nonsense"})
        at.cloud.next(Behaviour(code="4.04"))
        with pytest.raises(RequestRefused, match=r"4\.04"):
            await at.session.report({"t": 1})
        at.cloud.next(Behaviour(fault=True))
        with pytest.raises(RequestRefused, match=r"5\.00"):
            await at.session.report({"t": 1})
        await at.session.report({"t": 2})
        assert at.authentications == 1


async def test_bad_input_is_refused_before_the_modem_hears_of_it(life) -> None:
    async with life("bc95") as at:
        before = at.bench.modem.counters.commands
        with pytest.raises(BadInput):
            await at.session.report({"t": float("nan")})
        with pytest.raises(BadInput):
            await at.session.raw(b"x" * 1025)
        with pytest.raises(Unsupported, match="over CoAP"):
            await at.session.post("thing/measurepoint/post/batch", [])
        assert at.bench.modem.counters.commands == before


async def test_an_answer_that_cannot_be_understood_is_an_error(life) -> None:
    async with life("bc66") as at:
        at.cloud.next(Behaviour(big_payload=20))
        with pytest.raises(BadReply):
            await at.session.report({"t": 1})
        await at.session.report({"t": 2})


async def test_reports_are_held_back_within_ten_kilobytes_a_second(life) -> None:
    async with life("bc66") as at:
        loop = asyncio.get_running_loop()
        begin = loop.time()
        at.session._sizes.extend([(begin, 10 * 1024 - 50)])
        await at.session.report({"t": 1})
        assert loop.time() - begin >= 0.99


# --- staying online -----------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("forget", ["forget_session", "forget_address"])
async def test_a_server_that_forgot_the_device_is_told_again_and_the_report_counts_once(
    life, model: str, forget: str
) -> None:
    async with life(model) as at:
        getattr(at.cloud, forget)(*DEVICE)
        answer = await at.session.report({"t": 1})
        assert at.cloud.counters.accepted == 1
        assert at.authentications == 2
        assert answer.cost.round_trips == 3
    assert at.seen[2:5] == ["offline", "authenticating", "online"]


async def test_a_device_that_is_refused_anew_is_told_so_and_not_for_ever(life) -> None:
    async with life("bc66") as at:
        at.cloud.devices[DEVICE].secret = "another-secret-than-1"
        at.cloud.forget_session(*DEVICE)
        with pytest.raises(AuthRefused):
            await at.session.report({"t": 1})
        assert at.authentications == 2
        assert at.session.state is SessionState.OFFLINE
        at.cloud.devices[DEVICE].secret = SECRET
        await at.session.report({"t": 2})


async def test_a_wrong_secret_is_told_on_entry_and_leaves_nothing_open(bench) -> None:
    async with bench("bc95", attached=True) as on:
        await on.modem.attach()
        at = Life(on)
        with pytest.raises(AuthRefused):
            async with at.open(secret="another-secret-than-1"):
                raise AssertionError("not to be entered")
        assert on.open_sockets() == []
    assert at.seen == ["authenticating", "offline", "closed"]


@pytest.mark.parametrize("model", MODELS)
async def test_a_modem_that_restarts_is_authenticated_again(bench, model: str) -> None:
    from nbiot.supervisor import Supervisor

    from .test_supervisor import FAST as PATIENCE

    async with bench(model, attached=True) as on:
        port = on.pty.path
        await on.modem.channel.close()
        async with Supervisor(port, model=model, policy=PATIENCE) as keeper:
            at = Life(on)
            async with at.open(carrier=keeper) as enos:
                await enos.report({"t": 1})
                on.pty.modem.reboot()
                await asyncio.sleep(0.05)
                await enos.attributes()  # repeated, because it does no harm
                await enos.report({"t": 2})
        assert on.cloud.counters.accepted >= 2
        assert at.authentications == 2
        assert "offline" in at.seen[2:]


async def test_a_socket_that_a_restart_swept_away_is_not_closed_in_its_successors_place(
    bench,
) -> None:
    async with bench("bc66", attached=True) as on:
        await on.modem.attach()
        old = await on.modem.udp("127.0.0.1", 9)
        old._gone(ModemRebooted("the modem restarted"))
        old._gone(SocketError("the modem closed the socket"))  # another one of this number
        await old.close()
        assert "AT+QICLOSE=0" not in on.pty.modem.counters.commands


async def test_the_end_of_the_lifetime_is_told_and_the_next_report_authenticates(life) -> None:
    async with life("bc66") as at:
        at.session._alive_until = asyncio.get_running_loop().time() + 0.1
        at.session._keeper.cancel()
        at.session._keeper = asyncio.create_task(at.session._keep())
        await asyncio.sleep(0.3)
        assert at.states[-1] == StateChange(SessionState.OFFLINE, "silent for the whole lifetime")
        assert at.session.seconds_left == 0
        await at.session.report({"t": 1})
        assert at.authentications == 2


async def test_the_limit_of_authentications_is_waited_for(life) -> None:
    async with life("bc66", limit=AuthLimit(clock=half_minutes())) as at:
        for _ in range(3):
            at.cloud.forget_session(*DEVICE)
            await at.session.report({"t": 1})
        assert at.authentications == 4


async def test_a_call_that_is_cancelled_leaves_the_session_usable(life) -> None:
    async with life("bc95") as at:
        at.cloud.next(Behaviour(silent=True))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await at.session.report({"t": 1})
        await at.session.report({"t": 2})
        assert at.cloud.counters.accepted == 1


async def test_no_response_says_that_the_report_may_have_arrived(life) -> None:
    fast = Timing(ack_timeout=0.05, max_retransmit=1)
    async with life("bc66", timing=fast) as at:
        at.cloud.next(Behaviour(lose_answers=9))
        with pytest.raises(NoResponse):
            await at.session.report({"t": 1})
        assert at.cloud.counters.accepted == 1
        await at.session.report({"t": 2})


# --- down ---------------------------------------------------------------------------------------

DIALECTS = [Downlink("2100+2102"), Downlink("2100+get"), Downlink("2100+2102", at_once=3)]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("downlink", DIALECTS, ids=["2102", "get", "three at once"])
async def test_every_kind_of_command_is_carried_out_once_and_answered(
    life, model: str, downlink: Downlink
) -> None:
    async with life(model) as at:
        at.cloud.downlink = downlink
        done: list[Any] = []

        async def carry_out(command: Command) -> Any:
            done.append((command.kind, command.service, command.params))
            return {"raw": b"\x02", "get": {"t": 1}}.get(command.kind, {"ok": True})

        for kind in ("raw", "set", "get", "service"):
            at.session.handle(kind, carry_out)
        commands = [
            at.cloud.send_command(*DEVICE, "set", {"t": 30.5}),
            at.cloud.send_command(*DEVICE, "get", ["t"]),
            at.cloud.send_command(*DEVICE, "thing/service/turn", {"to": "on"}),
            at.cloud.send_command(*DEVICE, "down_raw", raw=b"\x01"),
        ]
        await at.session.report({"t": 1})
        await at.session.settled()
        assert [command.state for command in commands] == [CommandState.SUCCESS] * 4
        assert sorted(done, key=str) == sorted(
            [
                ("set", "", {"t": 30.5}),
                ("get", "", ["t"]),
                ("service", "turn", {"to": "on"}),
                ("raw", "", None),
            ],
            key=str,
        )
        assert commands[1].replies[0].data == {"t": 1}
        assert commands[3].replies[0].payload == b"\x02"
        assert not at.session.dropped


async def test_a_command_rides_on_the_answer_to_the_authentication(bench) -> None:
    async with bench("bc66", attached=True) as on:
        await on.modem.attach()
        command = on.cloud.send_command(*DEVICE, "thing/service/turn", {})
        at = Life(on)
        enos = at.open()

        async def turn(_: Command) -> None:
            return None

        enos.handle("service", turn, name="turn")
        async with enos:
            await enos.settled()
        assert command.state is CommandState.SUCCESS


async def test_a_command_that_comes_again_is_answered_again_and_not_carried_out(life) -> None:
    async with life("bc66") as at:
        runs = 0

        async def count(_: Command) -> dict[str, int]:
            nonlocal runs
            runs += 1
            return {"runs": runs}

        at.session.handle("service", count)
        for _ in range(3):
            at.cloud.next(
                Behaviour(
                    options=[
                        (2100, f"/topic/sys/{PRODUCT_KEY}/{IMEI}/thing/service/count".encode()),
                        (2102, b'{"id":"77","params":{}}'),
                    ]
                )
            )
            await at.session.report({"t": 1})
            await at.session.settled()
        assert runs == 1
        replies = [r for r in at.cloud.requests if r.path[-1] == "count_reply"]
        assert [json.loads(r.payload)["data"] for r in replies] == [{"runs": 1}] * 3


async def test_a_handler_that_fails_is_answered_with_a_code(life) -> None:
    async with life("bc66") as at:

        async def refuses(_: Command) -> None:
            raise CommandFailed("too hot", code=2001)

        async def breaks(_: Command) -> None:
            raise ValueError("secret words")

        async def talks(_: Command) -> str:
            return "x" * 2000

        at.session.handle("service", refuses, name="refuses")
        at.session.handle("service", breaks, name="breaks")
        at.session.handle("service", talks, name="talks")
        commands = [
            at.cloud.send_command(*DEVICE, f"thing/service/{name}", {})
            for name in ("refuses", "breaks", "talks", "unknown")
        ]
        await at.session.report({"t": 1})
        await at.session.settled()
        assert [command.state for command in commands] == [CommandState.FAILED] * 4
        assert [command.replies[0].code for command in commands] == [2001, 1102, 1102, 1101]
        assert b"secret words" not in b"".join(c.replies[0].payload for c in commands)


async def test_commands_come_out_of_an_iterator(life) -> None:
    async with life("bc95-g") as at:
        got: list[Any] = []

        async def listen() -> None:
            async for command in at.session.commands():
                got.append(command.params)
                await command.reply({"done": True})

        listening = asyncio.create_task(listen())
        await asyncio.sleep(0)
        commands = [at.cloud.send_command(*DEVICE, "set", {"t": n}) for n in range(3)]
        await at.session.report({"t": 1})
        assert await commands[-1].done(5.0) is CommandState.SUCCESS
        assert got == [{"t": 0}, {"t": 1}, {"t": 2}]
    await listening  # ends with the session


async def test_a_one_shot_caller_may_leave_commands_to_others(life) -> None:
    async with life("bc66", leave_commands=True) as at:
        command = at.cloud.send_command(*DEVICE, "thing/service/turn", {}, timeout=30)
        await at.session.report({"t": 1})
        await at.session.settled()
        assert command.state is CommandState.SENT
        assert command.replies == []
        told = [step for step in at.steps if step.step == "command"]
        assert [step.data["topic"] for step in told] == ["thing/service/turn"]


@pytest.mark.parametrize(
    "options",
    [
        [(2100, b"\xff\xfe")],
        [(2102, b"{}")],
        [(2100, b"/topic/sys/other/device/thing/model/down_raw"), (2102, b"x")],
        [(2100, f"/topic/sys/{PRODUCT_KEY}/{IMEI}/thing/service/x".encode()), (2102, b"{")],
        [(2100, f"/topic/sys/{PRODUCT_KEY}/{IMEI}/ota/upgrade".encode()), (2102, b"{}")],
    ],
    ids=["not UTF-8", "no topic", "another device", "bad JSON", "unknown topic"],
)
async def test_what_is_no_command_is_counted_and_told(life, options: Any) -> None:
    async with life("bc66") as at:
        at.cloud.next(Behaviour(options=options))
        await at.session.report({"t": 1})
        await at.session.settled()
        assert at.session.dropped.total() == 1
        assert any(step.step == "dropped" for step in at.steps)
        await at.session.report({"t": 2})
