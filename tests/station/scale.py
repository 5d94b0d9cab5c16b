"""What the database of a whole line sees, measured with simulated stations.

    python -m tests.station.scale --stations 200 --slots 16 --cycle 60

Each station calls its store as the runner does: claim, bind and deliver for each board, one board a
slot in ``cycle`` seconds, and every 5 s a look at the counts and a report of its slots. There are
no modems. The database has ``--given`` identities of earlier years, and fsync is on.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import tempfile
import time
import uuid
from collections import defaultdict
from collections.abc import Awaitable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from nbiot.errors import StoreUnavailable
from nbiot.signing import Secret
from nbiot.station.board import SlotState, SlotView, StationView
from nbiot.station.record import Measurement, Outcome, PhaseRecord, Record
from nbiot.station.runner import HEALTH
from nbiot.station.store import Identity, Store
from nbiot.station.vault import Vault
from tests.station.factory import luhn
from tests.station.postgres import Server, a_server

T = TypeVar("T")
WARM_UP = 20.0  # s that are not counted
PHASES = ("identify", "radio", "attach", "claim", "authenticate", "report", "release")


@dataclass
class Times:
    """Seconds that each operation took, by name; and how often the store was away."""

    took: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    away: int = 0

    async def time(self, name: str, work: Awaitable[T]) -> T | None:
        """The result of ``work``; None where the database did not do it."""
        began = time.perf_counter()
        try:
            return await work
        except StoreUnavailable:
            self.away += 1
            return None
        finally:
            self.took[name].append(time.perf_counter() - began)


async def board(store: Store, slot: str, number: int, cycle: float, times: Times) -> None:
    """One board: its run takes most of ``cycle``, as the network is slow."""
    run, imei = str(uuid.uuid4()), luhn(f"86{number:012}")
    began = time.time()
    await asyncio.sleep(cycle * random.uniform(0.2, 0.4))
    claim = await times.time("claim", store.claim(run, slot, imei))
    if claim is None:
        return
    await times.time("bind", store.bind(claim, imei))
    await asyncio.sleep(cycle * random.uniform(0.4, 0.6))
    phases = tuple(
        PhaseRecord(name, began, time.time(), Outcome.PASS, (Measurement("rsrp", -95.0, "dBm"),))
        for name in PHASES
    )
    record = Record(
        id=run,
        station=store.station,
        slot=slot,
        started=began,
        ended=time.time(),
        outcome=Outcome.PASS,
        imei=imei,
        product_key=claim.product_key,
        device_key=claim.device_key,
        credential=claim.credential,
        fence=claim.fence,
        phases=phases,
    )
    await times.time("deliver", store.deliver(record))


async def station(
    store: Store, first: int, slots: int, cycle: float, end: float, times: Times
) -> None:
    """All slots of one station, and what it tells the line."""
    numbers = iter(range(first, first + 1_000_000))

    async def slot(name: str) -> None:
        await asyncio.sleep(random.uniform(0, cycle))
        while time.monotonic() < end:
            await board(store, name, next(numbers), cycle, times)

    async def health() -> None:
        view = StationView(store.station)
        views = [SlotView(f"slot-{n}", SlotState.RUNNING, phase="attach") for n in range(slots)]
        await asyncio.sleep(random.uniform(0, HEALTH))
        while time.monotonic() < end:
            await times.time("free", store.free())
            await times.time("today", store.today(time.time() - 8 * 3600))
            await times.time("report in", store.report_in(view, views))
            await asyncio.sleep(HEALTH)

    async with asyncio.TaskGroup() as group:
        group.create_task(health())
        for number in range(slots):
            group.create_task(slot(f"slot-{number}"))


async def measure(server: Server, given: argparse.Namespace, folder: Path) -> None:
    """Fill the database, let the stations work, print what they saw."""
    name = server.new_database()
    vault = await asyncio.to_thread(Vault.create, folder / "vault.key")
    boards = int(given.stations * given.slots * (given.seconds / given.cycle + 2))
    free = (Identity("KV315idW", f"SCALE{n:09}", Secret(f"secret {n:09}")) for n in range(boards))
    async with Store(server.url(name), vault, station="office", create=True) as office:
        await office.add(free)
    server.sql(
        "INSERT INTO credential (product_key, device_key, pooled, state, imei, added, changed)"
        " SELECT 'KV315idW', 'OLD' || n, true, 'proven', '35' || lpad(n::text, 13, '0'), 0, 0"
        f" FROM generate_series(1, {given.given}) AS n",
        database=name,
    )
    server.sql("VACUUM ANALYZE", database=name)
    server.sql("CHECKPOINT")
    times = Times()
    stores = [Store(server.url(name), vault, station=f"S{n}") for n in range(given.stations)]
    for store in stores:
        await store.__aenter__()
        await store.start()
    began = time.monotonic()
    asking = asyncio.create_task(_most_connections(server, name))
    async with asyncio.TaskGroup() as group:
        for number, store in enumerate(stores):
            end = began + given.seconds
            group.create_task(
                station(store, number * 1_000_000, given.slots, given.cycle, end, times)
            )
        await asyncio.sleep(WARM_UP)  # connections are being opened
        times.took.clear()
        cpu, own, measured = _cpu(server), time.process_time(), time.monotonic()
        await asyncio.sleep(given.seconds - WARM_UP)
        took = time.monotonic() - measured
        cpu, own = _cpu(server) - cpu, time.process_time() - own
        found = {what: sorted(all_took) for what, all_took in times.took.items()}
    asking.cancel()
    print(
        f"{given.stations} stations x {given.slots} slots, a board a slot in {given.cycle:g} s,"
        f" {given.given} identities of earlier years; {took:.0f} s"
    )
    for what, all_took in found.items():
        print(
            f"  {what:10} {len(all_took) / took:7.1f}/s"
            f"  p50 {statistics.median(all_took) * 1e3:6.1f} ms"
            f"  p99 {all_took[int(len(all_took) * 0.99)] * 1e3:7.1f} ms"
            f"  longest {all_took[-1] * 1e3:7.0f} ms"
        )
    print(
        f"  store away {times.away} times; PostgreSQL {cpu / took:.2f} of a core,"
        f" the simulation {own / took:.2f}; connections {MOST[0]}"
    )
    for store in stores:
        await store.close()


MOST = [0]
"""The most connections seen at a time."""


async def _most_connections(server: Server, name: str) -> None:
    query = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}'"
    while True:
        rows = await asyncio.to_thread(server.sql, query)
        MOST[0] = max(MOST[0], rows[0][0])
        await asyncio.sleep(2)


def _cpu(server: Server) -> float:
    """Processor seconds of the server's processes, ended ones included."""
    main = int((server.folder / "data" / "postmaster.pid").read_text().split()[0])
    total = 0
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            found = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(entry.name) == main:
            total += sum(map(int, found[11:15]))
        elif int(found[1]) == main:
            total += sum(map(int, found[11:13]))
    return total / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--stations", type=int, default=200)
    parser.add_argument("--slots", type=int, default=16)
    parser.add_argument("--cycle", type=float, default=60.0, help="s that a board takes in a slot")
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--given", type=int, default=1_000_000)
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        a_server(durable=True, connections=2000) as server,
    ):
        asyncio.run(measure(server, given, Path(folder)))


if __name__ == "__main__":
    main()
