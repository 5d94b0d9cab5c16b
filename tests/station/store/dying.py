"""A station that is killed (SIGKILL) before each statement that it says to a database.

    python -m tests.station.store.dying FOLDER EVERY

FOLDER has a database ``station.db`` with identities, and its ``key``. For each step the station
runs one board and is killed there; then it starts again and must tidy up. Prints how many steps
there were.

The processes are forks of this one, which has imported all that they need.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sqlite3
import sys
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psycopg  # noqa: F401  # so that the forks need not
import sqlalchemy.dialects.sqlite.aiosqlite  # noqa: F401

from nbiot.station.outbox import Outbox
from nbiot.station.record import Outcome
from nbiot.station.store import Store
from nbiot.station.vault import Vault
from tests.station.store.line import iccid, imei, record

RUN = "11111111-2222-4333-8444-555555555555"


async def _run_a_board(folder: Path, said: Callable[[str], None]) -> None:
    """What a station does for a board, from the outbox's and the store's side."""
    async with Outbox(folder / "outbox.db", station="S1") as outbox, _store(folder) as store:
        await store.start()
        await outbox.begin(RUN, "1")
        said("began")
        claim = await store.claim(RUN, "1", imei(1), iccid=iccid(1))
        await outbox.begin(RUN, "1", imei(1), device_key=claim.device_key)
        claim = await store.bind(claim, imei(1))
        said("bound")
        await outbox.put(record(RUN, Outcome.PASS, claim))
        said("put")
        assert await outbox.flush(store)
        said("delivered")


async def _start_again(folder: Path, told: set[str]) -> None:
    """After the restart: one record, no stuck lease, and the truth in the database."""
    async with Outbox(folder / "outbox.db", station="S1") as outbox, _store(folder) as store:
        await store.start()
        assert await outbox.flush(store)
        assert await outbox.undelivered() == 0
        assert await outbox.intents() == []
        records = await store.records()
        counts = await store.counts()
        assert await store.contradictions() == []
        assert counts.claimed == counts.bound == 0, counts
        assert len(records) <= 1
        assert records or "began" not in told, "a run that began left no record"
        if "put" in told:
            assert records[0].outcome is Outcome.PASS
        outcome = records[0].outcome if records else None
        assert counts.proven == (outcome is Outcome.PASS), (counts, outcome)
        assert counts.failed == ("bound" in told and outcome is not Outcome.PASS), counts
        await _board_again(store, outcome)


async def _board_again(store: Store, outcome: Outcome | None) -> None:
    if outcome is not Outcome.PASS:  # the same board goes on at once, with what it had
        claim = await store.claim("again", "1", imei(1), iccid=iccid(1))
        assert claim.device_key == "dev0000"
        await store.bind(claim, imei(1))


def _store(folder: Path) -> Store:
    key = Vault.open(f"file:{folder / 'key'}")
    return Store(f"sqlite+aiosqlite:///{folder / 'station.db'}", key, station="S1")


def _forked(work: Callable[[], Awaitable[None]]) -> int:
    """Run ``work`` in a fork; how that ended, as in ``os.waitpid``."""
    pid = os.fork()
    if pid == 0:
        try:
            asyncio.run(work())  # type: ignore[arg-type]  # it is a coroutine
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return os.waitpid(pid, 0)[1]


def _killed_at(step: int) -> None:
    """From now on this process dies before its ``step``-th statement."""
    left = step
    connect = sqlite3.connect

    def traced(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*arguments, **options)
        connection.set_trace_callback(count)
        return connection

    def count(_: str) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sqlite3.connect = traced  # type: ignore[assignment]


def _try(template: Path, folder: Path, step: int) -> bool:
    """Whether the station was killed; asserts that it tidied up."""
    shutil.copytree(template, folder)
    said = os.open(folder / "said", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    async def doomed() -> None:
        _killed_at(step)
        await _run_a_board(folder, lambda word: os.write(said, f"{word}\n".encode()) and None)

    status = _forked(doomed)
    os.close(said)
    told = set((folder / "said").read_text().split())
    killed = os.WIFSIGNALED(status)
    assert killed or status == 0, f"step {step}: the station failed by itself"
    status = _forked(lambda: _start_again(folder, told))
    assert status == 0, f"step {step}: the restart did not tidy up; it had {told}"
    shutil.rmtree(folder)
    return killed


def main() -> None:
    """See the module."""
    template, every = Path(sys.argv[1]), int(sys.argv[2])
    step = 1
    while _try(template, template.with_name(f"step-{step}"), step):
        step += every
    print(step)


if __name__ == "__main__":
    main()
