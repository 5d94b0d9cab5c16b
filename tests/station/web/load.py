"""What the screen costs the station: 16 slots, five updates a second of each, one browser.

    python -m tests.station.web.load [--slots 16] [--seconds 20] [--browsers 1] [--png FILE]

The station's process holds a fake station and the screen. Its processor time is that of the whole
process, updates of the board included; memory is its resident set, and its own share of it.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import time
from multiprocessing.connection import Connection
from pathlib import Path

from nbiot.station.board import SlotState
from nbiot.station.web import serve
from tests.station.web import fake
from tests.station.web.browser import Browser, program

UPDATES = 5.0  # per second and slot


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    asked.add_argument("--slots", type=int, default=16)
    asked.add_argument("--seconds", type=float, default=20.0)
    asked.add_argument("--browsers", type=int, default=1)
    asked.add_argument("--png", type=Path, default=None, help="a picture of the end")
    options = asked.parse_args()
    chromium = program()
    if chromium is None:
        raise SystemExit("It needs the Debian package chromium.")
    ours, its = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    station = context.Process(target=_station, args=(options.slots, its))
    station.start()
    url = ours.recv()
    with Browser(chromium) as browser:
        tabs = [browser.page() for _ in range(options.browsers)]
        for tab in tabs:
            tab.resize(1280, 800)
            tab.open(url)
            tab.call("Performance.enable")
        time.sleep(2)  # what starting costs is not asked
        before, page_before, began = _cpu(station.pid), _page_cpu(tabs[0]), time.monotonic()
        time.sleep(options.seconds)
        took = time.monotonic() - began
        cpu, page = (_cpu(station.pid) - before) / took, (_page_cpu(tabs[0]) - page_before) / took
        heap = _metrics(tabs[0])["JSHeapUsedSize"] / 1e6
        rss, own = _memory(station.pid)
        if options.png:
            tabs[0].screenshot(options.png)
    ours.send("stop")
    rate = ours.recv()
    station.join()
    print(f"{options.slots} slots, {rate:.0f} updates/s, {options.browsers} browser(s)")
    print(f"station: {100 * cpu:.1f} % of a core, {rss:.0f} MB resident ({own:.0f} MB its own)")
    print(f"browser: {100 * page:.1f} % of a core in the page's thread, heap {heap:.1f} MB")


def _station(slots: int, pipe: Connection) -> None:
    asyncio.run(_serve(slots, pipe))


async def _serve(slots: int, pipe: Connection) -> None:
    station = fake.station(slots)
    told, began = 0, time.monotonic()
    screen = asyncio.ensure_future(serve(station, port=0, on_ready=pipe.send))
    names = list(station.board.slots)
    step = 0
    while not pipe.poll():
        step += 1
        for n, name in enumerate(names):
            at = (step / 100 + n / slots) % 1
            phase = fake.PHASES[int(at * len(fake.PHASES))]
            since = station.board.slots[name].since or time.time()
            station.board.update(
                name, state=SlotState.RUNNING, phase=phase, progress=at, since=since,
                imei=fake.imei(n),
            )  # fmt: skip
            told += 1
        station.board.update_station(passed=step // 10)
        await asyncio.sleep(1 / UPDATES)
    pipe.send(told / (time.monotonic() - began))
    screen.cancel()
    await asyncio.gather(screen, return_exceptions=True)


def _cpu(pid: int | None) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory(pid: int | None) -> tuple[float, float]:
    """Resident MB, and those that no other process shares."""
    found = dict(
        line.split(":", 1)
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    )
    kb = {name: int(text.split()[0]) for name, text in found.items()}
    return kb["Rss"] / 1000, (kb["Private_Clean"] + kb["Private_Dirty"]) / 1000


def _metrics(tab: object) -> dict[str, float]:
    answer = tab.call("Performance.getMetrics")  # type: ignore[attr-defined]
    return {metric["name"]: metric["value"] for metric in answer["metrics"]}


def _page_cpu(tab: object) -> float:
    return _metrics(tab)["TaskDuration"]


if __name__ == "__main__":
    main()
