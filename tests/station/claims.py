"""How long a claim takes when many stations claim at once, and does anything go out twice?

    python -m tests.station.claims --identities 2000 --stations 4 --slots 4

Each station is a process of its own; all of them start at the same moment.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

from nbiot.errors import PoolEmpty
from nbiot.station.store import Store
from nbiot.station.vault import Vault
from tests.station.postgres import Server, programs
from tests.station.store.line import identities, imei, new_run

_IMPORTED = [
    *("nbiot.station.store", "nbiot.station.vault", "tests.station.store.line"),
    *("sqlalchemy.dialects.sqlite.aiosqlite", "sqlalchemy.dialects.postgresql.psycopg", "psycopg"),
]
Claimed = tuple[str, float]
"""Device key, and the seconds that the claim took."""


@dataclass(frozen=True)
class Result:
    """Times in s."""

    claimed: list[Claimed]
    seconds: float

    @property
    def distinct(self) -> int:
        """Identities that were given out."""
        return len({device_key for device_key, _ in self.claimed})

    def __str__(self) -> str:
        took = sorted(seconds for _, seconds in self.claimed)
        return (
            f"{len(took)} claims, {self.distinct} distinct, {len(took) / self.seconds:.0f}/s; "
            f"p50 {statistics.median(took) * 1000:.1f} ms, "
            f"p99 {took[int(len(took) * 0.99)] * 1000:.1f} ms, longest {took[-1] * 1000:.0f} ms"
        )


def measure(url: str, key: Path, *, count: int, stations: int, slots: int) -> Result:
    """Fill the pool of a new database and claim it to its end."""
    asyncio.run(_filled(url, key, count))
    # Forks of a process that has imported all: to do that in each takes longer than the claims.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_IMPORTED)
    barrier = context.Barrier(stations)
    with context.Pool(stations, initializer=_start_with, initargs=(barrier,)) as pool:
        return _joined(pool, [(url, str(key), number, slots) for number in range(stations)])


def _joined(pool: Pool, work: list[tuple[object, ...]]) -> Result:
    found = pool.starmap(_station, work, chunksize=1)
    began = min(start for start, _, _ in found)
    ended = max(end for _, end, _ in found)
    return Result([one for _, _, claimed in found for one in claimed], ended - began)


async def _filled(url: str, key: Path, count: int) -> None:
    async with Store(url, Vault.open(f"file:{key}"), station="office", create=True) as store:
        await store.add(identities(count))


_ready: Any = None  # in each station's process: where they wait for each other


def _start_with(barrier: object) -> None:
    global _ready
    _ready = barrier


def _station(url: str, key: str, number: int, slots: int) -> tuple[float, float, list[Claimed]]:
    """A process of its own: wall-clock times, and what it claimed."""

    async def work() -> tuple[float, float, list[Claimed]]:
        claimed: list[Claimed] = []
        async with Store(url, Vault.open(f"file:{key}"), station=f"S{number}") as store:
            await store.counts()
            _ready.wait(60)
            began = time.time()
            async with asyncio.TaskGroup() as tasks:
                for slot in range(slots):
                    tasks.create_task(_slot(store, number * slots + slot, claimed))
            return began, time.time(), claimed

    return asyncio.run(work())


async def _slot(store: Store, slot: int, claimed: list[Claimed]) -> None:
    board = slot * 100_000
    while True:
        board += 1
        began = time.perf_counter()
        try:
            claim = await store.claim(new_run(), str(slot), imei(board))
        except PoolEmpty:
            return
        claimed.append((claim.device_key, time.perf_counter() - began))


@contextmanager
def _databases(which: str) -> Iterator[tuple[str, str, Path]]:
    folder = Path(tempfile.mkdtemp(prefix="nbiot-claims-"))
    try:
        Vault.create(folder / "key")
        if which == "sqlite":
            yield which, f"sqlite+aiosqlite:///{folder / 'station.db'}", folder / "key"
            return
        bin = programs()
        if bin is None:
            sys.exit("PostgreSQL is not installed (Debian: apt-get install postgresql)")
        (folder / "server").mkdir()
        folder.chmod(0o755)
        server = Server(folder / "server", bin, durable=True)
        server.create()
        yield which, server.url(server.new_database()), folder / "key"
        server.kill()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--identities", type=int, default=2000)
    parser.add_argument("--stations", type=int, default=4)
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--database", choices=["sqlite", "postgresql"], action="append")
    given = parser.parse_args()
    for which in given.database or ["sqlite", "postgresql"]:
        with _databases(which) as (name, url, key):
            result = measure(
                url, key, count=given.identities, stations=given.stations, slots=given.slots
            )
            print(f"{name}: {result}", flush=True)
            assert result.distinct == len(result.claimed) == given.identities


if __name__ == "__main__":
    main()
