"""A modem kept in use through everything that can happen to it."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from hil.emulator import Network, Options, PtyModem
from nbiot.at import Command
from nbiot.errors import (
    BadInput,
    CommandRefused,
    CommandTimeout,
    ModemRebooted,
    PortLost,
    SimMissing,
    SocketError,
    Unsupported,
)
from nbiot.modem import Modem
from nbiot.profile import Progress
from nbiot.supervisor import Policy, State, Supervisor

from .conftest import IMEI, MODELS

FAST = Policy(backoff=0.02, most_backoff=0.1, attach=10.0, off_time=0.01)


async def imei(modem: Modem) -> str:
    return await modem.imei()


class Board:
    """A modem that can be unplugged and plugged in again, behind a name that stays."""

    def __init__(self, model: str, link: Path, network: Network | None = None) -> None:
        self.model = model
        self.link = link
        self.network = network or Network()
        self.pty: PtyModem | None = None
        self.steps: list[Progress] = []

    async def plug(self, **options: object) -> None:
        settings = {"imei": IMEI, "speed": 100.0, "attached": True} | options
        self.pty = PtyModem(self.model, Options(**settings), self.network)  # type: ignore[arg-type]
        await self.pty.__aenter__()
        self.link.unlink(missing_ok=True)
        os.symlink(self.pty.path, self.link)

    async def unplug(self) -> None:
        assert self.pty is not None
        self.link.unlink()
        self.pty.hang_up()
        await self.pty.__aexit__(None, None, None)

    def supervisor(self, **options: object) -> Supervisor:
        return Supervisor(
            str(self.link),
            model=self.model,
            policy=FAST,
            report=self.steps.append,
            rng=random.Random(1),
            **options,  # type: ignore[arg-type]
        )


@pytest.fixture
def board(tmp_path: Path) -> Callable[..., object]:
    @asynccontextmanager
    async def plugged(model: str, **options: object) -> AsyncIterator[Board]:
        board = Board(model, tmp_path / "modem", options.pop("network", None))  # type: ignore[arg-type]
        await board.plug(**options)
        try:
            yield board
        finally:
            if board.pty is not None:
                await board.pty.__aexit__(None, None, None)

    return plugged


@pytest.mark.parametrize("model", MODELS)
async def test_a_call_waits_until_the_modem_is_attached(board, model: str) -> None:
    async with board(model, attached=False) as b, b.supervisor() as keeper:
        assert await keeper.call(imei) == IMEI
        assert keeper.state is State.READY
        assert keeper.recoveries == 0


@pytest.mark.parametrize("model", MODELS)
async def test_an_unplugged_modem_is_found_again(board, model: str) -> None:
    async with board(model) as b, b.supervisor() as keeper:
        await keeper.call(imei)
        await b.unplug()
        waiting = asyncio.create_task(keeper.call(imei, repeat=True))
        await asyncio.sleep(0.2)
        assert not waiting.done()
        await b.plug()
        assert await waiting == IMEI
        assert keeper.recoveries >= 1


@pytest.mark.parametrize("model", MODELS)
async def test_a_modem_that_restarts_is_prepared_again(board, model: str) -> None:
    async with board(model) as b, b.supervisor() as keeper:
        await keeper.call(imei)
        for _ in range(3):  # a brown-out loop
            b.pty.modem.reboot()
            await asyncio.sleep(0.05)
        assert await keeper.call(imei, repeat=True) == IMEI
        assert b.pty.modem.counters.commands.count("AT+CMEE=1") >= 2


async def test_a_call_in_flight_ends_in_a_typed_error_that_says_it_was_not_repeated(board) -> None:
    async with board("bc95") as b, b.supervisor() as keeper:
        started = asyncio.Event()

        async def stuck(modem: Modem) -> None:
            async with await modem.udp("127.0.0.1", 9) as socket:
                started.set()
                await socket.receive(30)

        task = asyncio.create_task(keeper.call(stuck))
        await started.wait()
        b.pty.modem.reboot()
        with pytest.raises(ModemRebooted) as caught:
            await task
        assert "may have had an effect" in caught.value.__notes__[0]
        assert await keeper.call(imei, repeat=True) == IMEI


async def test_a_call_that_may_be_repeated_is(board) -> None:
    async with board("bc66") as b, b.supervisor() as keeper:
        tries = 0

        async def fails_once(modem: Modem) -> str:
            nonlocal tries
            tries += 1
            if tries == 1:
                b.pty.modem.reboot()
                async with await modem.udp("127.0.0.1", 9) as socket:
                    await socket.receive(30)
            return await modem.imei()

        assert await keeper.call(fails_once, repeat=True) == IMEI
        assert tries == 2


@pytest.mark.parametrize("model", MODELS)
async def test_a_lost_network_is_joined_again(board, model: str) -> None:
    network = Network()
    async with board(model, network=network) as b, b.supervisor() as keeper:
        await keeper.call(imei)
        network.change("none")
        while keeper.state is State.READY:
            await asyncio.sleep(0.01)
        waiting = asyncio.create_task(keeper.call(imei))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        network.change(1)
        assert await waiting == IMEI


@pytest.mark.parametrize("model", MODELS)
async def test_a_lost_context_is_noticed_by_a_refusal_and_made_again(
    board, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nbiot.profile.ADDRESS_PATIENCE", 0.05)
    monkeypatch.setattr("nbiot.profile.POLL", 0.05)
    async with board(model) as b, b.supervisor() as keeper:
        await keeper.call(imei)
        b.pty.modem.radio.address = None  # no URC tells it
        tries = 0

        async def refused_without_address(modem: Modem) -> str:
            nonlocal tries
            tries += 1
            if b.pty.modem.radio.address is None:
                raise SocketError("no network")
            return await modem.imei()

        assert await keeper.call(refused_without_address, repeat=True) == IMEI
        assert tries == 2
        assert b.pty.modem.counters.commands.count("AT+CGATT=0") == 1


@pytest.mark.parametrize("model", MODELS)
async def test_what_a_connected_modem_refuses_goes_to_the_caller(board, model: str) -> None:
    async with board(model) as b, b.supervisor() as keeper:
        tries = 0

        async def refused(modem: Modem) -> None:
            nonlocal tries
            tries += 1
            await modem.channel.run(Command(b"AT+NONSENSE=1"))

        with pytest.raises(CommandRefused) as caught:
            await keeper.call(refused, repeat=True)
        assert tries == 1
        assert not hasattr(caught.value, "__notes__")
        assert keeper.recoveries == 0
        with pytest.raises(Unsupported):
            await keeper.call(unsupported, repeat=True)
        assert keeper.recoveries == 0


async def unsupported(_: Modem) -> None:
    raise Unsupported("not with this modem")


async def test_repeats_wait_longer_each_time_though_each_recovery_succeeds(
    board, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[int] = []
    plain = Policy.pause

    def pause(policy: Policy, failures: int, rng: random.Random) -> float:
        pauses.append(failures)
        return plain(policy, failures, rng)

    monkeypatch.setattr(Policy, "pause", pause)
    async with board("bc66") as b, b.supervisor() as keeper:

        async def times_out(modem: Modem) -> str:
            if len(pauses) < 3:
                raise CommandTimeout("no result")
            return await modem.imei()

        assert await keeper.call(times_out, repeat=True) == IMEI
    assert pauses == [1, 2, 3]


async def test_the_ladder_ends_in_power_control(board) -> None:
    async with board("bc95") as b:
        switched: list[str] = []

        class Relay:
            async def off(self) -> None:
                switched.append("off")

            async def on(self) -> None:
                switched.append("on")
                await b.plug()

        async with b.supervisor(power=Relay()) as keeper:
            await keeper.call(imei)
            await b.unplug()
            assert await keeper.call(imei, repeat=True) == IMEI
        assert switched == ["off", "on"]


async def test_what_no_waiting_mends_is_told_to_every_caller(board) -> None:
    async with board("bc95", attached=False, sim="absent") as b, b.supervisor() as keeper:
        for _ in range(2):
            with pytest.raises(SimMissing):
                await keeper.call(imei)


async def test_a_bad_name_is_told_at_the_first_call() -> None:
    async with Supervisor("nonsense:1") as keeper:
        with pytest.raises(BadInput):
            await keeper.call(imei)


async def test_closing_ends_calls_that_wait(board) -> None:
    async with board("bc95") as b:
        async with b.supervisor() as keeper:
            await keeper.call(imei)
            await b.unplug()
            waiting = asyncio.create_task(keeper.call(imei, repeat=True))
            await asyncio.sleep(0.05)
        with pytest.raises(PortLost, match="closed"):
            await waiting
        await b.plug()


def test_pauses_grow_to_a_limit_and_differ() -> None:
    policy = Policy(backoff=1, most_backoff=8, jitter=0.5)
    rng = random.Random(3)
    for failures, most in [(1, 1), (2, 2), (3, 4), (4, 8), (9, 8)]:
        pauses = {policy.pause(failures, rng) for _ in range(20)}
        assert len(pauses) > 10
        assert all(most / 2 <= pause <= most for pause in pauses)


async def test_an_adapter_is_found_under_another_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """USB adapters come back as ttyUSB1 when ttyUSB0 was still open."""
    from nbiot.link.ports import PortInfo

    names = ["old", "new"]
    boards = [Board("bc95", tmp_path / name) for name in names]
    present: list[PortInfo] = []

    async def listed() -> list[PortInfo]:
        return list(present)

    monkeypatch.setattr("nbiot.supervisor.list_ports_async", listed)
    await boards[0].plug()
    assert boards[0].pty is not None
    present.append(PortInfo(boards[0].pty.path, "", "adapter", 1, 2, "serial"))
    async with boards[0].supervisor() as keeper:
        await keeper.call(imei)
        await boards[1].plug()
        assert boards[1].pty is not None
        present[:] = [PortInfo(boards[1].pty.path, "", "adapter", 1, 2, "serial")]
        await boards[0].unplug()
        assert await keeper.call(imei, repeat=True) == IMEI
        assert boards[1].pty.modem.counters.commands
    await boards[1].unplug()


async def test_a_sleeping_modem_is_woken_before_a_call(
    board, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Everything ten times faster: the modem's sleep lock, and the host's patience.
    monkeypatch.setattr("nbiot.profile.WAKE", Command(b"AT", seconds=0.2))
    async with board("bc66", sleep=True, speed=10.0) as b, b.supervisor() as keeper:

        async def light_sleep(modem: Modem) -> None:
            monkeypatch.setattr(type(modem.profile), "sleeps_after", 0.9)
            await modem.channel.run(Command(b"AT+QSCLK=1"))

        await keeper.call(light_sleep)
        await asyncio.sleep(1.3)  # its lock holds for 10 s of its own time
        before = b.pty.modem.counters.lost_lines
        assert await keeper.call(imei) == IMEI
        assert b.pty.modem.counters.lost_lines > before
        assert keeper.recoveries == 0
