"""Restarts, lost ports, noise, announced data that does not come, listeners that raise."""

from __future__ import annotations

import asyncio
import itertools
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modems.bc66 import BANNERS
from nbiot.at import Command, Shape, UrcReceived
from nbiot.channel import Channel, Counters, Reply
from nbiot.errors import (
    CommandRefused,
    CommandTimeout,
    ModemError,
    ModemRebooted,
    PortError,
    PortLost,
)
from nbiot.link.memory import MemoryLink
from tests.virtualtime import run_virtual

from .modem import DIALECT, Modem, Plan, bare, num, opened, put, send

V100 = b"\r\nREBOOT_CAUSE_APPLICATION_AT\r\n\r\nNeul \r\n\r\nOK\r\n"
V150 = (
    b"\r\nBoot: Unsigned\r\nSecurity B.. Verified\r\nProtocol A.. Verified\r\n"
    b"Apps A...... Verified\r\n\r\nREBOOT_CAUSE_SECURITY_PMU_POWER_ON_RESET\r\nNeul \r\nOK\r\n"
)
BROM = (
    b"\n\rF1: 0000 0000\n\rV0: 0000 0000 [0001]\n\r00: 0006 000C\n\r01: 0000 0000\n\r"
    b"U0: 0000 0001 [0000]\n\rT0: 0000 00B4\n\rLeaving the BROM\n\r\n\r"
)
RESTARTS = {
    "V100": V100,
    "V100 with REBOOTING": b"\r\nREBOOTING\r\n0???\xf0\x80" + V100,
    "V100 behind junk": b"\x80\x00\xff\x13" + V100,
    "V100 without its first line": b"\r\nNeul \r\n\r\nOK\r\n",
    "V100 with junk in its first line": b"\r\nREBOOT\x80CAUSE\r\nNeul \r\nOK\r\n",
    "V150": V150,
    "V150 without its first lines": V150[60:],
    "BROM": BROM,
    "BROM twice": BROM + BROM,
}
BOTH = replace(DIALECT, banners=(*DIALECT.banners, *BANNERS))
ANSWERS = {
    num(4): b"\r\n+NUM:4\r\n\r\nOK\r\n",
    bare(4): b"\r\n4\r\n\r\nOK\r\n",
    put(4): b"\r\nOK\r\n",
    send(4): b"\r\n> \r\nOK\r\n\r\nSEND OK\r\n",
    Command(b"ATI", Shape("<text:line>"), 0, 9): b"ATI\r\r\nBC95\r\nRev\r\n\r\nOK\r\n",
    Command(b"AT+X", success=(b"DONE",), seconds=2.0): b"\r\nDONE\r\n",
}


async def works(channel: Channel, modem: Modem) -> None:
    modem.plan = lambda _: Plan()
    modem.link.on_write = modem._written
    with modem.running():
        assert (await channel.run(num(77)))["n"] == 77
        with pytest.raises(CommandRefused) as refused:
            await channel.run(put(79))
        assert refused.value.code == 79


@pytest.mark.parametrize("restart", RESTARTS)
@pytest.mark.parametrize("command", ANSWERS, ids=str)
def test_a_restart_at_any_point_of_a_command_fails_it(restart: str, command: Command) -> None:
    async def main(cut: int, size: int) -> None:
        modem = Modem()
        channel, _ = opened(modem)
        channel.dialect = BOTH
        said = ANSWERS[command][:cut] + RESTARTS[restart]
        once = iter([said])

        def written(_: bytes) -> None:
            data = next(once, b"")
            for i in range(0, len(data), size):
                modem.link.feed(data[i : i + size])

        modem.link.on_write = written
        with pytest.raises(ModemRebooted):
            await channel.run(command)
        assert channel.reboots == RESTARTS[restart].count(b"F1:") or channel.reboots == 1
        await works(channel, modem)
        await channel.close()

    # A second result that is cut is still one ("SEND O"): its profile must know all good ones.
    last = ANSWERS[command].rfind(b"\r\n", 0, -2) + 2
    for cut in range(last if command.outcome else len(ANSWERS[command]) - 2):
        run_virtual(main(cut, 1 if cut % 2 else 4096))


@pytest.mark.parametrize("restart", RESTARTS)
def test_what_follows_a_banner_in_the_same_chunk_ends_nothing(restart: str) -> None:
    async def main(tail: bytes) -> None:
        modem = Modem()
        channel, _ = opened(modem)
        channel.dialect = BOTH
        once = iter([RESTARTS[restart] + tail])
        modem.link.on_write = lambda _: modem.link.feed(next(once, b""))
        with pytest.raises(ModemRebooted):
            await channel.run(put(4))
        await works(channel, modem)
        await channel.close()

    for tail in (
        b"\r\nOK\r\n",
        b"\r\nERROR\r\n",
        b"\r\n> ",
        b"\r\nSEND OK\r\n",
        b"\r\n+CME ERROR: 4\r\n",
    ):
        run_virtual(main(tail))


def test_a_restart_is_told_once_and_waited_for() -> None:
    async def main() -> None:
        modem = Modem()
        channel, _ = opened(modem)
        told: list[int] = []
        stop = channel.on_reboot(lambda: told.append(channel.reboots))
        before = channel.reboots
        modem.link.on_write = lambda _: modem.link.feed(b"\r\nREBOOTING\r\n")
        await channel.run(Command(b"AT+NRB", success=(b"REBOOTING",)))
        waiting = asyncio.create_task(channel.booted(before, 10.0))
        await asyncio.sleep(3)
        modem.link.feed(V150[:-6])
        await asyncio.sleep(1)
        assert not waiting.done()
        modem.link.feed(V150[-6:])
        assert await waiting
        assert told == [1]
        stop()
        stop()
        modem.link.feed(V100)
        await asyncio.sleep(0.1)
        assert (told, channel.reboots) == ([1], 2)
        assert not await channel.booted(channel.reboots, 2.0)
        await channel.close()

    run_virtual(main(), strict=True)


def test_a_command_that_waits_while_the_modem_restarts_is_not_sent() -> None:
    """Its socket may be somebody else's by now."""

    async def main() -> None:
        modem = Modem(lambda _: Plan(lost=True))
        channel, _ = opened(modem)
        with modem.running():
            first = asyncio.create_task(channel.run(put(4, 5.0)))
            second = asyncio.create_task(channel.run(put(6, 5.0)))
            await asyncio.sleep(1)
            modem.link.feed(V100)
            for task in (first, second):
                with pytest.raises(ModemRebooted):
                    await task
        await works(channel, modem)
        assert b"SET=6" not in bytes(modem.link.sent)
        await channel.close()

    run_virtual(main(), strict=True)


def test_a_restart_while_the_channel_finds_its_footing_is_told() -> None:
    async def main() -> None:
        modem = Modem(lambda _: Plan(lost=True))
        channel, _ = opened(modem)
        with modem.running():
            with pytest.raises(CommandTimeout):
                await channel.run(put(4))
            waiting = asyncio.create_task(channel.run(put(6)))
            await asyncio.sleep(1.0)
            modem.link.feed(V100)
            with pytest.raises(ModemRebooted):
                await waiting
        await works(channel, modem)
        await channel.close()

    run_virtual(main(), strict=True)


def test_a_command_waits_for_the_end_of_a_banner_and_not_for_ever() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        modem = Modem()
        channel, _ = opened(modem)
        with modem.running():
            modem.link.feed(V100[:-6])
            await asyncio.sleep(2)
            running = asyncio.create_task(channel.run(num(7)))
            await asyncio.sleep(1)
            assert not modem.link.sent
            modem.link.feed(V100[-6:])
            assert (await running)["n"] == 7
            modem.link.feed(V100[:-6])
            await asyncio.sleep(2)
            began = loop.time()
            assert (await channel.run(num(8)))["n"] == 8
            assert 7 < loop.time() - began < 9
        await channel.close()

    run_virtual(main(), strict=True)


def test_a_payload_is_not_written_to_a_modem_that_has_restarted() -> None:
    async def main() -> None:
        modem = Modem()
        channel, _ = opened(modem)
        once = iter([b"\r\n> " + V100])
        modem.link.on_write = lambda _: modem.link.feed(next(once, b""))
        with pytest.raises(ModemRebooted):
            await channel.run(send(4))
        await asyncio.sleep(1)
        assert bytes(modem.link.sent) == send(4).line + b"\r"
        await channel.close()

    run_virtual(main(), strict=True)


# --- ports ----------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [num(4), put(4), send(4)], ids=str)
@pytest.mark.parametrize("said", [b"", b"\r\n+NUM:4\r\n", b"\r\n> "])
def test_a_lost_port_ends_all_commands_at_once(command: Command, said: bytes) -> None:
    async def main() -> None:
        modem = Modem()
        channel, _ = opened(modem)
        loop = asyncio.get_running_loop()
        modem.link.on_write = lambda _: modem.link.feed(said)
        running = asyncio.create_task(channel.run(command))
        queued = asyncio.create_task(channel.run(num(5)))
        booted = asyncio.create_task(channel.booted(channel.reboots, 60.0))
        await asyncio.sleep(0.01)
        began = loop.time()
        modem.link.lose("cable pulled")
        for task in (running, queued, booted):
            with pytest.raises(PortLost):
                await task
        assert loop.time() - began < 0.05
        assert channel.is_lost
        with pytest.raises(PortLost):
            await channel.run(num(6))
        await channel.close()

    run_virtual(main(), strict=True)


def test_a_port_that_is_lost_while_the_channel_finds_its_footing() -> None:
    async def main() -> None:
        modem = Modem()
        channel, _ = opened(modem)
        with pytest.raises(CommandTimeout):
            await channel.run(put(4))
        for delay in (0.05, 0.5):
            waiting = asyncio.create_task(channel.run(num(5)))
            await asyncio.sleep(delay)
            modem.link.lose()
            with pytest.raises(PortLost):
                await waiting
        await channel.close()

    run_virtual(main(), strict=True)


def test_closing_ends_the_command_in_flight_and_all_that_wait() -> None:
    async def main() -> None:
        modem = Modem(lambda _: Plan(lost=True))
        channel, _ = opened(modem)
        with modem.running():
            tasks = [asyncio.create_task(channel.run(num(k))) for k in range(3)]
            tasks.append(asyncio.create_task(channel.booted(0, 60.0)))  # type: ignore[arg-type]
            await asyncio.sleep(0.1)
            await channel.close()
            for task in tasks:
                with pytest.raises(PortLost):
                    await task
        await channel.close()
        with pytest.raises(PortLost):
            await channel.run(num(4))

    run_virtual(main(), strict=True)


def test_a_peer_that_takes_no_bytes_fails_the_command_and_no_other() -> None:
    async def main() -> None:
        modem = Modem()
        modem.link._limit = 8
        channel, _ = opened(modem)
        modem.link.stalled = True
        with pytest.raises((PortError, ModemError)):
            await channel.run(num(4))
        modem.link._limit = 1000
        modem.link.stalled = False
        await works(channel, modem)
        await channel.close()

    run_virtual(main(), strict=True)


# --- data, noise, floods --------------------------------------------------------------------


def test_announced_data_that_never_comes_is_given_up_after_its_time() -> None:
    async def main() -> None:
        modem = Modem()
        channel, heard = opened(modem)
        modem.link.feed(b'\r\n+DATA: "recv",500\r\n')
        for _ in range(30):  # a modem that goes on talking must not be swallowed for long
            modem.link.feed(b"\r\n+NOTE:1\r\n")
            await asyncio.sleep(0.1)
        assert len(heard) == 30
        assert {urc.name for urc in heard} == {"noted"}
        await works(channel, modem)
        await channel.close()

    run_virtual(main(), strict=True)


def test_data_that_comes_in_time_is_not_given_up() -> None:
    async def main() -> None:
        modem = Modem()
        channel, heard = opened(modem)
        for _ in range(3):
            for byte in b'\r\n+DATA: "recv",6\r\n\r\nOK\r\n':
                modem.link.feed(bytes([byte]))
                await asyncio.sleep(0.03)
        assert [urc.data for urc in heard] == [b"\r\nOK\r\n"] * 3
        await channel.close()

    run_virtual(main(), strict=True)


def test_the_time_of_announced_data_begins_anew_with_each_header() -> None:
    async def main() -> None:
        modem = Modem()
        channel, heard = opened(modem)
        modem.link.feed(b'\r\n+DATA: "recv",2\r\n')
        await asyncio.sleep(0.9)
        modem.link.feed(b'ab\r\n+DATA: "recv",2\r\n')
        await asyncio.sleep(0.9)
        modem.link.feed(b"cd")
        await asyncio.sleep(0.9)
        assert [urc.data for urc in heard] == [b"ab", b"cd"]
        await channel.close()

    run_virtual(main(), strict=True)


@settings(max_examples=150)
@given(st.integers(0, 2**32), st.booleans())
def test_nul_and_ff_anywhere_make_no_wrong_answer_and_stop_nothing(
    seed: int, replacing: bool
) -> None:
    rng = random.Random(seed)

    def noisy(data: bytes) -> list[bytes]:
        said = bytearray(data)
        for _ in range(rng.choice([0, 0, 1, 1, 3])):
            place = rng.randrange(len(said))
            if replacing:
                said[place] = rng.choice([0, 255])
            else:
                said.insert(place, rng.choice([0, 255]))
        return [bytes(said)]

    async def main() -> None:
        modem = Modem(pieces=noisy)
        channel, _ = opened(modem)
        with modem.running():
            for k in range(12):
                command = rng.choice([num, bare, put])(k, 1.0)
                try:
                    reply = await channel.run(command)
                except CommandRefused:
                    refused = b"SET" in command.line and k % 2 == 1
                    assert refused
                except ModemError:
                    pass
                else:
                    assert [line["n"] for line in reply.lines] in ([k], [])
                    assert b"SET" not in command.line or k % 2 == 0
        modem.pieces = lambda data: [data]
        await works(channel, modem)
        await channel.close()

    run_virtual(main())


def test_a_flood_in_the_middle_of_a_command_fails_it_at_worst() -> None:
    async def main(flood: bytes) -> None:
        modem = Modem()
        channel, _ = opened(modem)
        modem.link.on_write = lambda _: modem.link.feed(flood)
        with pytest.raises(CommandTimeout):
            await channel.run(put(4))
        await works(channel, modem)
        await channel.close()

    for flood in (b"x", b"\x00", b"\r", b"\xff", b">", b'+DATA: "recv",10'):
        run_virtual(main(flood * (262_144 // len(flood)) + b"OK\r\n" * (flood == b"x")))


# --- listeners, echo, counters --------------------------------------------------------------


def test_a_listener_that_raises_keeps_nobody_from_anything() -> None:
    async def main() -> list[dict[str, object]]:
        modem = Modem(lambda _: Plan(before=b"\r\n+NOTE:1\r\n"))
        channel = Channel(modem.link, DIALECT)
        heard: list[UrcReceived] = []

        def broken(_: UrcReceived) -> None:
            raise ZeroDivisionError

        channel.listen(broken)
        channel.listen(heard.append)
        channel.on_reboot(lambda: broken(heard[0]))
        with modem.running():
            assert (await channel.run(num(7)))["n"] == 7
            assert len(heard) == 1
            modem.link.feed(V100)
            await asyncio.sleep(0.1)
            assert (await channel.run(num(8)))["n"] == 8
        await channel.close()
        loop = asyncio.get_running_loop()
        problems = list(loop.problems)  # type: ignore[attr-defined]
        loop.problems.clear()  # type: ignore[attr-defined]
        return problems

    problems = run_virtual(main())
    assert [type(problem["exception"]) for problem in problems] == [ZeroDivisionError] * 3


def test_urcs_come_in_order_and_only_inside_the_block() -> None:
    async def main() -> None:
        modem = Modem()
        channel, _ = opened(modem)
        modem.link.feed(b"\r\n+NOTE:0\r\n")
        await asyncio.sleep(0.1)
        with channel.urcs() as stream:
            modem.link.feed(b"\r\n+NOTE:1\r\n\r\n+NOTE:2\r\n")
            numbers = []
            async for urc in stream:
                numbers.append(urc.fields["number"])
                if len(numbers) == 2:
                    break
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1):
                    await anext(stream)
            modem.link.feed(b"\r\n+NOTE:3\r\n")
            assert (await anext(stream)).fields == {"number": 3}
        assert numbers == [1, 2]
        assert not channel._urc_listeners[1:]
        await channel.close()

    run_virtual(main(), strict=True)


@pytest.mark.parametrize("late_echo", [False, True])
def test_with_echo_a_late_answer_without_its_echo_is_nobodys(late_echo: bool) -> None:
    async def main() -> None:
        modem = Modem(echo=True)
        channel, _ = opened(modem, require_echo=True)
        with modem.running():
            assert (await channel.run(num(1)))["n"] == 1
            stale = b"AT+SET=8\r" * late_echo + b"\r\nOK\r\n"
            modem.pieces = lambda data: [stale, data] if data == b"AT+SET=3\r" else [data]
            with pytest.raises(CommandRefused) as refused:
                await channel.run(put(3))
            assert refused.value.code == 3
        await channel.close()

    run_virtual(main())


def test_without_its_echo_no_answer_counts_when_echo_is_required() -> None:
    async def main() -> None:
        modem = Modem()
        channel, _ = opened(modem, require_echo=True)
        with modem.running(), pytest.raises(CommandTimeout):
            await channel.run(num(1))
        await channel.close()

    run_virtual(main())


def test_counters_count_bytes_and_commands() -> None:
    async def main() -> None:
        modem = Modem()
        channel, _ = opened(modem)
        with modem.running():
            await channel.run(num(1))
            before = channel.counters.copy()
            await channel.run(num(22))
            assert channel.counters.since(before) == Counters(
                sent=len("AT+NUM=22\r"), received=len("\r\n+NUM:22\r\n\r\nOK\r\n"), commands=1
            )
            assert before == Counters(
                sent=len("AT+NUM=1\r"), received=len("\r\n+NUM:1\r\n\r\nOK\r\n"), commands=1
            )
        await channel.close()

    run_virtual(main())


def test_a_reply_gives_the_fields_of_its_first_line() -> None:
    reply = Reply(num(1), [{"n": 1}, {"n": 2}])
    assert reply["n"] == 1
    with pytest.raises(IndexError):
        Reply(num(1))["n"]
    with pytest.raises(KeyError):
        reply["m"]


def test_the_time_of_the_bytes_on_the_wire_is_added() -> None:
    async def main() -> float:
        channel = Channel(MemoryLink(baudrate=9600), DIALECT)
        began = asyncio.get_running_loop().time()
        with pytest.raises(CommandTimeout):
            await channel.run(Command(b"AT" + b"X" * 1000, size=440, seconds=1.0))
        await channel.close()
        return asyncio.get_running_loop().time() - began

    assert run_virtual(main()) == pytest.approx(1 + 1442 / 960, abs=0.01)


def test_the_gap_of_the_dialect_is_kept() -> None:
    async def main() -> None:
        modem = Modem()
        channel, _ = opened(modem)
        channel.dialect = replace(DIALECT, gap=0.25)
        loop = asyncio.get_running_loop()
        times: list[float] = []
        with modem.running():
            for k in range(3):
                await channel.run(num(k))
                times.append(loop.time())
        assert [b - a for a, b in itertools.pairwise(times)] == pytest.approx([0.27, 0.27])
        await channel.close()

    run_virtual(main())


def test_ten_thousand_exchanges_between_urcs_bring_no_wrong_answer_and_lose_no_urc() -> None:
    rng = random.Random(7)
    sent = 0

    def urcs(chance: float) -> bytes:
        nonlocal sent
        said = b""
        while rng.random() < chance:
            sent += 1
            said += rng.choice(
                [
                    b"\r\n+NOTE:%d\r\n" % sent,
                    b"\r\n+CEREG:1,7871,0D09F951,9\r\n",
                    b'\r\n+DATA: "recv",14\r\n\r\nOK\r\n+NUM:1\r\n',
                ]
            )
        return said

    def pieces(data: bytes) -> list[bytes]:
        data = urcs(0.15) + data + urcs(0.15)
        cut = rng.randrange(len(data))
        return [piece for piece in (data[:cut], data[cut:]) if piece]

    async def main() -> int:
        modem = Modem(lambda _: Plan(delay=0, before=urcs(0.15), between=urcs(0.15)), pieces=pieces)
        channel, heard = opened(modem)
        wrong = 0
        with modem.running():
            for k in range(10_000):
                make = (num, bare, put)[k % 3]
                try:
                    reply = await channel.run(make(k))
                except CommandRefused as error:
                    wrong += error.code != k
                else:
                    wrong += (make is put and k % 2) or (make is not put and reply["n"] != k)
        await asyncio.sleep(1)
        assert sent == len(heard) > 5000
        assert channel.counters.commands == 10_000
        await channel.close()
        return wrong

    assert run_virtual(main()) == 0
