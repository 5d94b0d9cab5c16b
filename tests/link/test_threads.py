"""Opening a port takes a thread only while it lasts."""

from __future__ import annotations

import asyncio
import os
import threading
import time

import pytest

from nbiot.link import open_link, serial


async def test_no_thread_stays_behind_an_opened_port() -> None:
    before = set(threading.enumerate())
    ptys = [os.openpty() for _ in range(8)]
    try:
        links = await asyncio.gather(*(open_link(os.ttyname(slave)) for _, slave in ptys))
        for thread in set(threading.enumerate()) - before:  # it may still be on its way out
            if thread.name.startswith("nbiot"):
                await asyncio.to_thread(thread.join, 2)
        left = {thread.name for thread in set(threading.enumerate()) - before}
        assert not [name for name in left if name.startswith("nbiot")]
        for link in links:
            await link.close()
    finally:
        for pair in ptys:
            for descriptor in pair:
                os.close(descriptor)


async def test_one_port_that_hangs_keeps_no_other_from_opening(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hang = threading.Event()
    real = serial._open_port

    def slow(path: str, baudrate: int) -> object:
        if path.endswith("hangs"):
            hang.wait(5)
        return real(path, baudrate)

    monkeypatch.setattr(serial, "_open_port", slow)
    master, slave = os.openpty()
    stuck = [asyncio.ensure_future(open_link("/dev/hangs")) for _ in range(40)]
    began = time.monotonic()
    try:
        link = await open_link(os.ttyname(slave))
        assert time.monotonic() - began < 2
        await link.close()
    finally:
        hang.set()
        await asyncio.wait(stuck)
        assert all(task.exception() for task in stuck)
        os.close(master)
        os.close(slave)
