"""The watch over loop and descriptors sees what it must, and blames nobody else."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
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


BLOCKING = """
import asyncio
async def test_blocks_{when}():
    names = {{}}
    exec(compile({source!r}, {place!r}, "exec"), names)
    counter = open({counter!r}, "a+")
    counter.write("x")
    runs = counter.tell()
    counter.close()
    asyncio.get_running_loop().call_soon(names["work"] if {when} else int)
    await asyncio.sleep(0.2)
"""


@pytest.mark.parametrize(
    ("when", "passes"), [("True", False), ("runs == 1", True)], ids=["always", "once"]
)
def test_what_blocks_once_runs_again_and_what_blocks_always_fails(
    tmp_path: Path, when: str, passes: bool
) -> None:
    place, counter = str(ROOT / "nbiot/slow.py"), str(tmp_path / "runs")
    source = BLOCKING.replace("blocks_{when}", "blocks")
    file = tmp_path / "test_blocking.py"
    file.write_text(source.format(source=SLEEP, place=place, counter=counter, when=when))
    command = [sys.executable, "-m", "pytest", "-q", "-c", str(ROOT / "pyproject.toml")]
    command += ["-p", "tests.hygiene", "-p", "no:cacheprovider", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode == 0) is passes, done.stdout
    assert len(Path(counter).read_text()) == (2 if passes else 3)
