"""The watch over loop and descriptors sees what it must, and blames nobody else."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import hygiene

pytestmark = pytest.mark.unhygienic

ROOT = Path(hygiene.__file__).resolve().parents[1]


def code_in(place: str, source: str) -> Callable[[], None]:
    """A function that seems to stand in a file of the project."""
    names: dict[str, Callable[[], None]] = {}
    exec(compile(source, str(ROOT / place), "exec"), names)
    return names["work"]


SLEEP = "import time\ndef work(): time.sleep(0.1)"
SPIN = "def work():\n    for _ in range(30): sum(range(400_000))"


async def blocks_of(*work: Callable[[], None]) -> list[str]:
    with hygiene.watched_loop() as blocks:
        for one in work:
            asyncio.get_running_loop().call_soon(one)
            await asyncio.sleep(0.01)
    return blocks


async def test_block_in_the_product_is_seen() -> None:
    for source in (SLEEP, SPIN):
        blocks = await blocks_of(code_in("nbiot/link/slow.py", source))
        assert len(blocks) == 1
        assert "nbiot/link/slow.py" in blocks[0]


async def test_block_of_the_test_itself_is_not() -> None:
    assert await blocks_of(lambda: time.sleep(0.1), code_in("tests/slow.py", SPIN)) == []


async def test_product_that_calls_the_test_is_not_blamed() -> None:
    work = code_in("nbiot/slow.py", "def work(): call()")
    work.__globals__["call"] = lambda: time.sleep(0.1)
    assert await blocks_of(work) == []


async def test_short_callbacks_pass() -> None:
    work = code_in("nbiot/slow.py", "import time\ndef work(): time.sleep(0.03)")
    assert await blocks_of(work, work, work) == []


async def test_garbage_collection_is_not_blamed() -> None:
    heap = [[n] for n in range(1_000_000)]
    work = code_in("nbiot/slow.py", "import gc\ndef work(): gc.collect()")
    begin = time.perf_counter()
    assert await blocks_of(work) == []
    assert time.perf_counter() - begin > hygiene.LIMIT, len(heap)


async def test_call_that_keeps_the_interpreter_is_seen() -> None:
    """No thread runs meanwhile, so nobody can tell where it was."""
    work = code_in("nbiot/slow.py", "def work(): sum(range(20_000_000))")
    blocks = await blocks_of(work)
    assert len(blocks) == 1


def test_open_descriptor_is_seen() -> None:
    before = hygiene.open_files()
    read, write = os.pipe()
    after = hygiene.open_files() - before
    os.close(read)
    os.close(write)
    assert len(after) == 2
    assert all("pipe:" in what for what in after)
    assert hygiene.open_files() == before
