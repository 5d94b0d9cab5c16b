"""What every link must do, over each kind of port, without blocking the loop (see hygiene)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from nbiot.errors import BadInput, PortError, PortLost, Unsupported
from nbiot.link import BUFFER_LIMIT, Link
from tests.link.far import FARS, Ear, Far

LINKS = [pytest.param(make, id=name, marks=mark) for name, (make, mark) in FARS.items()]


@pytest.fixture(params=LINKS)
async def far(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Far]:
    far: Far = request.param(tmp_path)
    yield far
    far.destroy()


@pytest.fixture
async def link(far: Far) -> AsyncIterator[Link]:
    link = await far.open()
    yield link
    await link.close()


@pytest.fixture
async def ear(link: Link) -> Ear:
    ear = Ear()
    link.start(ear)
    return ear


ALL_BYTES = bytes(range(256)) * 8


async def test_bytes_to_us(far: Far, ear: Ear) -> None:
    far.send(ALL_BYTES)
    await ear.until(lambda: len(ear.data) >= len(ALL_BYTES))
    assert ear.data == ALL_BYTES


async def test_bytes_from_us(far: Far, link: Link, ear: Ear) -> None:
    link.write(ALL_BYTES[:1])
    link.write(b"")
    link.write(ALL_BYTES[1:])
    assert await far.take(len(ALL_BYTES)) == ALL_BYTES
    assert not ear.data  # no echo


async def test_bytes_before_start_are_kept(far: Far, link: Link) -> None:
    far.send(b"early")
    await asyncio.sleep(0.01)
    ear = Ear()
    link.start(ear)
    await ear.until(lambda: len(ear.data) == 5)
    assert ear.data == b"early"


async def test_receiver_is_not_called_from_inside_a_method(far: Far, link: Link) -> None:
    far.send(b"early")
    ear = Ear()
    link.start(ear)
    assert not ear.data
    await ear.until(lambda: bool(ear.data))


async def test_what_was_written_may_change_later(far: Far, link: Link, ear: Ear) -> None:
    far.stall()
    data = bytearray(b"x" * 30_000)
    link.write(data)  # type: ignore[arg-type]
    data[:] = b"y" * 30_000
    assert await far.take(30_000) == b"x" * 30_000


async def test_big_write(far: Far, link: Link, ear: Ear) -> None:
    far.stall()
    data = os.urandom(BUFFER_LIMIT)
    link.write(data)
    assert await far.take(len(data)) == data


async def test_stalled_peer(far: Far, link: Link, ear: Ear) -> None:
    far.stall()
    accepted = 0

    async def write_until_refused() -> None:
        nonlocal accepted
        while accepted < 8 * BUFFER_LIMIT:
            link.write(b"x" * 1000)
            accepted += 1000
            await asyncio.sleep(0)

    with pytest.raises(PortError, match="takes no bytes") as caught:
        await write_until_refused()
    assert not isinstance(caught.value, PortLost)
    assert BUFFER_LIMIT - 1000 < accepted < BUFFER_LIMIT + far.slack
    assert await far.take(accepted) == b"x" * accepted  # the refused write left nothing
    await asyncio.sleep(0.01)
    link.write(b"again")
    assert await far.take(5) == b"again"


async def test_close_with_a_stalled_peer(far: Far, link: Link, ear: Ear) -> None:
    far.stall()
    link.write(b"x" * BUFFER_LIMIT)
    await asyncio.sleep(0.01)
    begin = time.monotonic()
    await link.close()
    assert time.monotonic() - begin < 1
    assert not ear.losses


async def test_hang_up_is_seen_at_once(far: Far, link: Link, ear: Ear) -> None:
    await asyncio.sleep(0.01)
    far.hang_up()
    await ear.until(lambda: bool(ear.losses), limit=0.05)
    assert link.name in str(ear.losses[0])
    await asyncio.sleep(0.05)
    await link.close()
    assert len(ear.losses) == 1


async def test_hang_up_before_start(far: Far, link: Link) -> None:
    far.hang_up()
    ear = Ear()
    link.start(ear)
    assert not ear.losses
    await ear.until(lambda: bool(ear.losses), limit=0.05)
    await link.close()
    assert len(ear.losses) == 1


async def test_hang_up_with_unsent_bytes(
    far: Far, link: Link, ear: Ear, caplog: pytest.LogCaptureFixture
) -> None:
    far.stall()
    link.write(b"x" * BUFFER_LIMIT)
    await asyncio.sleep(0.01)
    far.hang_up_full()
    await ear.until(lambda: bool(ear.losses), limit=0.05)
    await asyncio.sleep(0.05)
    assert len(ear.losses) == 1
    assert not caplog.records


async def test_everything_raises_after_a_loss(far: Far, link: Link, ear: Ear) -> None:
    far.hang_up()
    await ear.until(lambda: bool(ear.losses))
    with pytest.raises(PortLost):
        link.write(b"AT\r")
    with pytest.raises(PortLost):
        await link.set_baudrate(115200)
    with pytest.raises(PortLost):
        await link.set_lines(dtr=True)


async def test_write_right_after_hang_up_ends_in_a_loss(far: Far, link: Link, ear: Ear) -> None:
    far.hang_up()
    with contextlib.suppress(PortLost):
        link.write(b"AT\r")
    await ear.until(lambda: bool(ear.losses), limit=0.05)


async def test_close_is_idempotent_and_final(far: Far, link: Link, ear: Ear) -> None:
    await asyncio.gather(link.close(), link.close())
    await link.close()
    with pytest.raises(PortError, match="closed"):
        link.write(b"AT\r")
    with pytest.raises(PortError, match="closed"):
        await link.set_baudrate(115200)
    with pytest.raises(PortError, match="closed"):
        link.start(ear)
    assert not ear.losses


async def test_nothing_is_heard_after_close(far: Far, link: Link, ear: Ear) -> None:
    far.send(b"late")
    closing = asyncio.ensure_future(link.close())
    await asyncio.sleep(0)  # close() has begun, the bytes have not been read
    heard = bytes(ear.data)
    far.hang_up()
    await closing
    await asyncio.sleep(0.02)
    assert ear.data == heard
    assert not ear.losses


async def test_close_before_start(far: Far, link: Link) -> None:
    await link.close()
    await link.close()


async def test_start_only_once(link: Link, ear: Ear) -> None:
    with pytest.raises(PortError, match="started"):
        link.start(ear)


async def test_write_before_start(link: Link) -> None:
    with pytest.raises(PortError, match="not started"):
        link.write(b"AT\r")


async def test_reopen_at_once(far: Far) -> None:
    for round_ in range(5):
        link = await far.open()
        ear = Ear()
        link.start(ear)
        link.write(b"%d" % round_)
        assert await far.take(1) == b"%d" % round_
        await link.close()


async def test_baudrate_reaches_the_far_end(far: Far, link: Link, ear: Ear) -> None:
    if far.has_baudrate:
        assert far.baudrate() == link.baudrate == 9600
        await link.set_baudrate(115200)
        assert far.baudrate() == link.baudrate == 115200
    else:
        with pytest.raises(Unsupported, match="the far end decides"):
            await link.set_baudrate(115200)
    before = link.baudrate
    for bad in (0, 49, 4_000_001, True, 9600.0):
        with pytest.raises(BadInput, match="baudrate"):
            await link.set_baudrate(bad)  # type: ignore[arg-type]
    assert far.baudrate() == link.baudrate == before


async def test_modem_lines(far: Far, link: Link, ear: Ear) -> None:
    await link.set_lines()
    lines = far.lines()
    for wanted in ({"dtr": False}, {"rts": False}, {"dtr": True, "rts": True}):
        if lines is None:
            with pytest.raises(Unsupported):
                await link.set_lines(**wanted)
        else:
            await link.set_lines(**wanted)
            assert lines == lines | wanted
    assert not ear.losses


async def test_idle_link_is_idle(far: Far, ear: Ear) -> None:
    """No CPU time, and not one wake-up."""
    await asyncio.sleep(0.02)
    loop = asyncio.get_running_loop()
    turns = 0
    select = loop._selector.select  # type: ignore[attr-defined]

    def counted(timeout: float | None) -> object:
        nonlocal turns
        turns += 1
        return select(timeout)

    loop._selector.select = counted  # type: ignore[attr-defined]
    begin = time.process_time()
    await asyncio.sleep(0.2)
    assert time.process_time() - begin < 0.02
    assert turns <= 3  # this test's own


async def test_nothing_leaks(far: Far) -> None:
    async def life() -> None:
        link = await far.open()
        link.start(Ear())
        link.write(b"x" * 20_000)
        await link.close()
        await far.left()

    await life()
    before = sorted(os.listdir("/proc/self/fd"))
    await life()
    assert sorted(os.listdir("/proc/self/fd")) == before
