"""Late, lost and abandoned answers: no command ever gets another one's result."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbiot.at import Command
from nbiot.channel import Channel, Reply
from nbiot.errors import CommandRefused, CommandTimeout, ModemError, ModemSilent, UnexpectedAnswer
from tests.virtualtime import run_virtual

from .modem import STATE, Modem, Plan, bare, num, opened, put, send

Make = Callable[[int, float], Command]
MAKES: list[Make] = [num, bare, put, send]


def refused_rightly(error: CommandRefused, code: int | None) -> bool:
    """A plain ERROR may be for anything: a modem gives it when its input was disturbed."""
    assert error.code in (code, None)
    return error.code is not None


async def checked(channel: Channel, modem: Modem, make: Make, k: int, seconds: float) -> bool:
    """Run one command. True: it gave its own result; False: it failed without one."""
    command = make(k, seconds)
    try:
        reply = await channel.run(command)
    except CommandRefused as error:
        return refused_rightly(error, k if make is put and k % 2 else None)
    except ModemError:
        return False
    line = command.line.decode()
    assert line in modem.done
    if make is num or make is bare:
        assert reply["n"] == k
    elif make is put:
        assert k % 2 == 0
    else:
        assert reply.outcome == {"result": "FAIL" if k % 2 else "OK"}
        assert modem.sent[k] == command.payload
    return True


async def recovered(channel: Channel, modem: Modem) -> None:
    """After all that was late has come, every kind of command works again."""
    modem.plan = lambda _: Plan()
    await asyncio.sleep(500)
    for attempt in range(3):  # the modem may still be in its data mode, or have junk in its input
        if await checked(channel, modem, num, 900_000 + attempt, 2.0):
            break
    for k, make in enumerate([num, bare, put, put, send, num, send], 910_000):
        assert await checked(channel, modem, make, k, 2.0)


@settings(max_examples=120)
@given(st.integers(0, 2**32))
def test_every_reply_is_the_reply_to_exactly_that_command(seed: int) -> None:
    rng = random.Random(seed)
    lateness = rng.choice([0.5, 3.0, 15.0])
    loss = rng.choice([0.0, 0.2, 0.6])

    def plan(_: str) -> Plan:
        late = rng.random() < 0.5
        return Plan(
            delay=rng.uniform(0, lateness) if late else 0.01,
            lost=rng.random() < loss,
            outcome_delay=rng.choice([0.0, 0.05, 0.9, 5.0]),
        )

    async def main() -> None:
        modem = Modem(plan)
        channel, _ = opened(modem)
        with modem.running():
            for k in range(100, 125):
                make = rng.choice(MAKES)
                task = asyncio.create_task(checked(channel, modem, make, k, 1.0))
                if rng.random() < 0.4:
                    await asyncio.sleep(rng.choice([0, 0.005, 0.012, 0.3, 1.0, 2.5]))
                    task.cancel()
                await asyncio.wait([task], timeout=400)
                assert task.done(), "run hangs"
                if not task.cancelled():
                    task.result()
                await asyncio.sleep(rng.choice([0, 0, 0.05, 1.0, 20.0]))
            await recovered(channel, modem)
        await channel.close()

    run_virtual(main())


@settings(max_examples=40)
@given(st.integers(0, 2**32))
def test_many_callers_that_are_cancelled_at_any_time_get_their_own_replies(seed: int) -> None:
    rng = random.Random(seed)

    async def main() -> None:
        modem = Modem(lambda _: Plan(delay=rng.choice([0, 0.01, 0.4, 1.5])))
        channel, _ = opened(modem)

        async def caller(k: int) -> None:
            await asyncio.sleep(rng.uniform(0, 3))
            try:
                async with asyncio.timeout(rng.choice([0, 0.1, 1.0, 30.0])):
                    await checked(channel, modem, rng.choice(MAKES), k, 1.0)
            except TimeoutError:
                pass

        with modem.running():
            await asyncio.gather(*(caller(k) for k in range(100, 120)))
            await recovered(channel, modem)
        await channel.close()

    run_virtual(main())


@pytest.mark.parametrize("late", [1.001, 1.05, 1.5, 2.9, 3.2, 7.0, 9.0, 30.0])
@pytest.mark.parametrize("next_make", MAKES)
def test_an_answer_that_comes_too_late_is_not_the_next_ones(late: float, next_make: Make) -> None:
    async def main() -> None:
        delays = iter([late])
        modem = Modem(lambda _: Plan(delay=next(delays, 0.01)))
        channel, _ = opened(modem)
        with modem.running():
            with pytest.raises(CommandTimeout):
                await channel.run(put(100))
            while not await checked(channel, modem, next_make, 101, 1.0):
                assert asyncio.get_running_loop().time() < 1100
            assert await checked(channel, modem, put, 103, 1.0)
        await channel.close()

    run_virtual(main())


def test_late_answers_of_three_lost_probes_do_not_make_a_wrong_success() -> None:
    """The modem is deaf for a while and then says everything, with a second between two answers."""

    async def main() -> None:
        delays = iter([10.0, *[1.0] * 12])
        modem = Modem(lambda _: Plan(delay=next(delays, 0.01)))
        channel, _ = opened(modem)
        with modem.running():
            with pytest.raises(CommandTimeout):
                await channel.run(put(100))
            with pytest.raises(ModemSilent):
                await channel.run(put(102))
            for k in range(103, 143, 2):
                if await checked(channel, modem, put, k, 2.0):
                    break
            else:
                pytest.fail("the channel did not recover")
        await channel.close()

    run_virtual(main())


def test_a_cancelled_command_that_ends_at_once_costs_no_probe() -> None:
    async def main() -> None:
        modem = Modem()
        channel, _ = opened(modem)
        with modem.running():
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.001):
                    await channel.run(put(100))
            assert (await channel.run(num(7)))["n"] == 7
            assert modem.done == ["AT+SET=100", "AT+NUM=7"]
        await channel.close()

    run_virtual(main())


def test_a_probe_that_equals_the_abandoned_question_is_not_asked() -> None:
    async def main() -> None:
        modem = Modem(lambda line: Plan(delay=1.5 if line == "AT+CSQ" else 0.01))
        channel, _ = opened(modem)
        question = channel.dialect.probes[0]
        assert question.line == b"AT+CSQ"
        with modem.running():
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await channel.run(question)
            assert (await channel.run(num(7)))["n"] == 7
            assert modem.done == ["AT+CSQ", "AT+CGATT?", "AT+NUM=7"]
        await channel.close()

    run_virtual(main())


def test_a_busy_modem_that_refuses_probes_is_given_the_abandoned_commands_time() -> None:
    async def main() -> None:
        modem = Modem()
        channel, _ = opened(modem)
        busy_until = asyncio.get_running_loop().time() + 4.0
        written = modem._written

        def refuse(data: bytes) -> None:
            if asyncio.get_running_loop().time() < busy_until and data != b"AT+SET=100\r":
                modem.link.feed(b"\r\n+CME ERROR: 51\r\n")
            else:
                written(data)

        modem.link.on_write = refuse
        modem.plan = lambda line: Plan(delay=4.0 if line == "AT+SET=100" else 0.01)
        with modem.running():
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await channel.run(put(100, 5.0))
            assert (await channel.run(num(7)))["n"] == 7
        await channel.close()

    run_virtual(main())


def test_a_modem_that_says_nothing_is_silent_in_bounded_time() -> None:
    async def main() -> None:
        modem = Modem(lambda _: Plan(lost=True))
        channel, _ = opened(modem)
        loop = asyncio.get_running_loop()
        with modem.running():
            with pytest.raises(CommandTimeout):
                await channel.run(put(100))
            for _ in range(40):
                began = loop.time()
                with pytest.raises(ModemSilent):
                    await channel.run(put(102))
                assert loop.time() - began < 8.0
            modem.plan = lambda _: Plan()
            assert (await channel.run(num(7)))["n"] == 7
        await channel.close()

    run_virtual(main())


def test_a_modem_that_never_stops_talking_keeps_nobody_waiting_for_silence() -> None:
    async def main() -> None:
        modem = Modem()
        channel, heard = opened(modem)

        async def chatter() -> None:
            while True:
                modem.link.feed(b"\r\n+NOTE:1\r\n")
                await asyncio.sleep(0.03)

        with modem.running():
            noise = asyncio.create_task(chatter())
            modem.plan = lambda _: Plan(lost=True)
            with pytest.raises(CommandTimeout):
                await channel.run(put(100))
            modem.plan = lambda _: Plan()
            async with asyncio.timeout(5.0):
                assert (await channel.run(num(7)))["n"] == 7
            assert len(heard) > 30
            noise.cancel()
        await channel.close()

    run_virtual(main())


def test_a_doubled_ok_is_not_the_next_commands_for_ever() -> None:
    async def main() -> None:
        modem = Modem(lambda line: Plan(between=b"\r\nOK\r\n" if line == "AT+SET=100" else b""))
        channel, _ = opened(modem)
        with modem.running():
            await channel.run(put(100))
            await asyncio.sleep(0.1)
            for k in (101, 103, 105):
                with pytest.raises(CommandRefused) as refused:
                    await channel.run(put(k))
                assert refused.value.code == k
        await channel.close()

    run_virtual(main())


def test_an_ok_before_the_answer_does_not_end_the_question() -> None:
    async def main() -> None:
        modem = Modem(lambda _: Plan(before=b"\r\nOK\r\n"))
        channel, _ = opened(modem)
        with modem.running():
            for k in range(3):
                assert (await channel.run(num(k)))["n"] == k
        await channel.close()

    run_virtual(main())


def test_an_ok_without_the_answer_is_told_soon_and_leaves_the_channel_usable() -> None:
    async def main() -> None:
        modem = Modem()
        channel, _ = opened(modem)
        silent_query = Command(b"AT", num(1).answer, 1, 1, seconds=60.0)
        loop = asyncio.get_running_loop()
        with modem.running():
            began = loop.time()
            with pytest.raises(UnexpectedAnswer):
                await channel.run(silent_query)
            assert loop.time() - began < 1.0
            assert (await channel.run(num(7)))["n"] == 7
        await channel.close()

    run_virtual(main())


def test_a_missing_final_result_times_out_though_the_answer_came() -> None:
    async def main() -> None:
        modem = Modem()
        channel, _ = opened(modem)
        with modem.running():
            modem.link.on_write = lambda _: modem.link.feed(b"\r\n+NUM:5\r\n")
            with pytest.raises(CommandTimeout):
                await channel.run(num(5))
            modem.link.on_write = modem._written
            assert (await channel.run(num(7)))["n"] == 7
        await channel.close()

    run_virtual(main())


def test_a_urc_of_the_answers_shape_makes_the_channel_ask_again() -> None:
    async def main() -> None:
        plans = iter([Plan(before=b"\r\n+STATE:5\r\n"), Plan(between=b"\r\n+STATE:6\r\n")])
        modem = Modem(lambda _: next(plans, Plan()))
        channel, heard = opened(modem)
        with modem.running():
            assert (await channel.run(STATE))["state"] == 0
            assert modem.done == ["AT+STATE?"] * 3
            assert [urc.name for urc in heard] == ["state", "state"]
            modem.plan = lambda _: Plan(before=b"\r\n+STATE:5\r\n")
            with pytest.raises(UnexpectedAnswer):
                await channel.run(STATE)
        await channel.close()

    run_virtual(main())


# --- prompts and second results -------------------------------------------------------------

WHENS = {
    "before the prompt": 0.005,
    "between prompt and payload": 0.011,
    "after the payload": 0.02,
    "after ok": 0.05,
}


@pytest.mark.parametrize("when", WHENS)
@pytest.mark.parametrize("next_make", MAKES)
def test_a_send_may_be_cancelled_anywhere(when: str, next_make: Make) -> None:
    async def main() -> None:
        modem = Modem(lambda _: Plan(delay=0.01, outcome_delay=0.2))
        channel, _ = opened(modem)
        with modem.running():
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(WHENS[when]):
                    await channel.run(send(101))
            assert await checked(channel, modem, next_make, 102, 1.0)
            assert modem.sent[101] == send(101).payload
            assert await checked(channel, modem, send, 104, 1.0)
        await channel.close()

    run_virtual(main(), strict=True)


@pytest.mark.parametrize("late", [0.5, 1.2, 5.0, 15.0])
def test_a_late_send_fail_is_not_the_next_datagrams(late: float) -> None:
    async def main() -> None:
        delays = iter([late])
        modem = Modem(lambda _: Plan(delay=0.01, outcome_delay=next(delays, 0.05)))
        channel, _ = opened(modem)
        with modem.running():
            with pytest.raises((CommandTimeout, TimeoutError)):
                async with asyncio.timeout(None if late > 1 else 0.3):
                    await channel.run(send(101))
            assert (await channel.run(send(102))).outcome == {"result": "OK"}
        await channel.close()

    run_virtual(main())


def test_a_send_that_was_refused_late_delays_no_other() -> None:
    async def main() -> None:
        modem = Modem()
        channel, _ = opened(modem)
        with modem.running():
            prompt = iter([b"\r\n> "])
            modem.link.on_write = lambda _: modem.link.feed(next(prompt, b""))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await channel.run(send(101, 20.0))
            assert bytes(modem.link.sent).endswith(send(101).payload)
            modem.link.feed(b"\r\n+CME ERROR: 50\r\n")
            modem.link.on_write = modem._written
            async with asyncio.timeout(1.0):
                assert (await channel.run(send(102))).outcome == {"result": "OK"}
        await channel.close()

    run_virtual(main())


def test_a_prompt_that_comes_late_gets_its_payload() -> None:
    """Only that ends the modem's data mode for sure; the probe must not become a datagram."""

    async def main() -> None:
        modem = Modem(lambda line: Plan(delay=1.05 if "SEND=101" in line else 0.01))
        channel, _ = opened(modem)
        with modem.running():
            with pytest.raises(CommandTimeout):
                await channel.run(send(101))
            assert (await channel.run(num(7)))["n"] == 7
            assert modem.sent[101] == send(101).payload
        await channel.close()

    run_virtual(main())


def test_a_prompt_that_may_still_come_is_waited_for_before_the_probe() -> None:
    async def main() -> None:
        modem = Modem(lambda line: Plan(delay=1.5 if "SEND=101" in line else 0.01))
        channel, _ = opened(modem)
        with modem.running():
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await channel.run(send(101, 5.0))
            assert (await channel.run(num(7)))["n"] == 7
            assert modem.sent[101] == send(101).payload
        await channel.close()

    run_virtual(main())


def test_a_late_ok_does_not_cut_the_time_of_the_probe() -> None:
    async def main() -> None:
        delays = iter([1.2, 1.2])
        modem = Modem(lambda _: Plan(delay=next(delays, 0.01)))
        channel, _ = opened(modem)
        with modem.running():
            with pytest.raises(CommandTimeout):
                await channel.run(put(100))
            assert (await channel.run(num(7)))["n"] == 7
            assert modem.done == ["AT+SET=100", "AT+CSQ", "AT+NUM=7"]
        await channel.close()

    run_virtual(main())


def test_the_reply_of_a_send_holds_its_second_result_in_any_chunking() -> None:
    async def main(size: int) -> Reply:
        modem = Modem()
        channel, _ = opened(modem)
        burst = b"\r\nOK\r\n\r\nSEND OK\r\n"

        def written(data: bytes) -> None:
            said = b"\r\n> " if data.startswith(b"AT") else burst
            for i in range(0, len(said), size):
                modem.link.feed(said[i : i + size])

        modem.link.on_write = written
        reply = await channel.run(send(102))
        await channel.close()
        return reply

    for size in (1, 5, 100):
        assert run_virtual(main(size)).outcome == {"result": "OK"}


def test_a_stray_ok_before_the_prompt_is_no_success() -> None:
    async def main() -> None:
        modem = Modem()
        channel, _ = opened(modem)
        sends_nothing = Command(b"AT+COAP", prompt=b">", payload=b"x", seconds=30.0)
        modem.link.on_write = lambda _: modem.link.feed(b"\r\nOK\r\n")
        with pytest.raises(UnexpectedAnswer):
            await channel.run(sends_nothing)
        await channel.close()

    run_virtual(main())


# --- cancellation ---------------------------------------------------------------------------


@pytest.mark.parametrize("make", MAKES)
@pytest.mark.parametrize("lost", [False, True])
def test_a_caller_may_be_cancelled_at_any_step(make: Make, lost: bool) -> None:
    async def main(steps: int) -> bool:
        modem = Modem(lambda _: Plan(lost=lost))
        channel, _ = opened(modem)

        async def caller() -> None:
            for k in (100, 102):
                with_lost = checked(channel, modem, make, k, 0.05)
                await with_lost

        with modem.running():
            task = asyncio.create_task(caller())
            for _ in range(steps):
                await asyncio.sleep(0.0)
            finished = task.done()
            task.cancel()
            await asyncio.wait([task])
            modem.plan = lambda _: Plan()
            assert (await channel.run(num(7)))["n"] == 7
            assert await checked(channel, modem, put, 101, 1.0)
        await channel.close()
        return finished

    for steps in range(0, 60, 3 if lost else 1):
        if run_virtual(main(steps), strict=steps % 12 == 0):
            break


@pytest.mark.parametrize("after", [0.0, 0.5, 1.04, 1.2, 3.5, 5.0, 8.0])
def test_a_caller_may_be_cancelled_while_the_channel_finds_its_footing(after: float) -> None:
    async def main() -> None:
        modem = Modem(lambda _: Plan(lost=True))
        channel, _ = opened(modem)
        with modem.running():
            with pytest.raises(CommandTimeout):
                await channel.run(put(100))
            with pytest.raises((TimeoutError, ModemSilent)):
                async with asyncio.timeout(after):
                    await channel.run(put(102))
            modem.plan = lambda _: Plan()
            assert (await channel.run(num(7)))["n"] == 7
            assert "AT+SET=102" not in modem.done
        await channel.close()

    run_virtual(main(), strict=True)


def test_a_caller_that_waits_for_its_turn_may_be_cancelled() -> None:
    async def main() -> None:
        modem = Modem()
        channel, _ = opened(modem)
        with modem.running():
            calls: list[Awaitable[Reply]] = [
                asyncio.ensure_future(channel.run(num(k))) for k in range(5)
            ]
            await asyncio.sleep(0.03)
            calls[3].cancel()  # type: ignore[attr-defined]
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert [r["n"] if isinstance(r, Reply) else None for r in results] == [0, 1, 2, None, 4]
            assert "AT+NUM=3" not in modem.done
        await channel.close()

    run_virtual(main(), strict=True)
