"""A line of emulated slots with a station that runs, for tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nbiot.station import recipe as recipes
from nbiot.station.board import Board, SlotState, SlotView
from nbiot.station.demo import EmulatedPlace, Line
from nbiot.station.record import Record
from nbiot.station.runner import Station
from nbiot.station.store import migrate  # noqa: F401  # imported late, it would block the loop

SPEED = 40.0
PATIENCE = 30.0  # s: a test that hangs must end

SHORT = """
name = "short"
[[phase]]
kind = "identify"
[[phase]]
kind = "claim"
[[phase]]
kind = "attach"
seconds = 20
[[phase]]
kind = "radio"
rsrp = { low = -115 }
seconds = 0.1
may_skip = true
[[phase]]
kind = "authenticate"
"""
HOLD = SHORT.replace("seconds = 0.1", "seconds = 60")
"""With it, a board with a weak signal stays in the phase radio until that is skipped."""
FULL = (
    SHORT
    + """
[[phase]]
kind = "report"
points = { rsrp = "$rsrp", imei = "$imei" }
[[phase]]
kind = "command"
service = "identify"
seconds = 20
[[phase]]
kind = "label"
[[phase]]
kind = "release"
"""
)


@dataclass
class Running:
    """A station that runs."""

    line: Line
    station: Station
    task: asyncio.Task[None]

    @property
    def board(self) -> Board:
        return self.station.board

    @property
    def places(self) -> list[EmulatedPlace]:
        return self.line.places

    async def until(self, slot: str, *states: SlotState, phase: str = "") -> SlotView:
        """Wait until ``slot`` is in one of ``states``, and in ``phase`` if one is named."""
        return await self.shows(
            slot, lambda view: view.state in states and (not phase or view.phase == phase)
        )

    async def shows(self, slot: str, wanted: Callable[[SlotView], bool]) -> SlotView:
        """Wait until what ``slot`` shows is as ``wanted``."""
        async with asyncio.timeout(PATIENCE):
            async for _ in self.board.changes(at_most=200):
                if self.task.done():
                    self.task.result()
                if wanted(self.board.slots[slot]):
                    return self.board.slots[slot]
        raise AssertionError

    async def ended(self, slot: str = "1") -> Record:
        """Wait until the run in ``slot`` is over; its record, delivered."""
        ends = (SlotState.PASSED, SlotState.FAILED, SlotState.ERROR)
        view = await self.shows(slot, lambda v: v.state in ends and bool(v.record))
        return await self.delivered(view.record)

    async def delivered(self, record: str) -> Record:
        """Wait until the store has it."""
        async with asyncio.timeout(PATIENCE):
            while True:
                found = await self.station.store.record(record)
                if found is not None:
                    return found
                await asyncio.sleep(0.01)

    async def stop(self) -> None:
        """What Ctrl-C does."""
        self.task.cancel()
        with suppress(asyncio.CancelledError):
            await self.task


def recipe_of(folder: Path, text: str) -> recipes.Recipe:
    """The recipe ``text``, from a file."""
    path = folder / "recipe.toml"
    path.write_text(text)
    path.chmod(0o600)
    return recipes.load(path)


def line_in(folder: Path, **options: Any) -> Line:
    """A fast line."""
    return Line(folder, speed=SPEED, ack_timeout=1.0, **options)


_POOL = ("station.db", "vault.key")
_pools: dict[int, dict[str, bytes]] = {}
"""Databases as a line begins with them, by number of boards: to make one is half a test's work."""


def _put_pool(folder: Path, boards: int) -> None:
    if any((folder / name).exists() for name in _POOL):
        return
    for name, data in _pools.get(boards, {}).items():
        path = folder / name
        path.touch(0o600)
        path.write_bytes(data)


def _keep_pool(folder: Path, boards: int) -> None:
    if boards not in _pools and not (folder / "state").exists():  # no station was here
        _pools[boards] = {name: (folder / name).read_bytes() for name in _POOL}


@asynccontextmanager
async def running(
    folder: Path,
    text: str = SHORT,
    *,
    slots: int = 1,
    boards: int = 8,
    config: dict[str, Any] | None = None,
    models: Sequence[str] = ("bc66",),
    real_places: bool = False,
    **options: Any,
) -> AsyncIterator[Running]:
    """A station in ``folder`` that runs the recipe ``text``."""
    recipe = recipe_of(folder, text)
    await asyncio.to_thread(_put_pool, folder, boards)
    async with line_in(folder, slots=slots, boards=boards, models=models) as line:
        await asyncio.to_thread(_keep_pool, folder, boards)
        found = replace(line.config, **(config or {}))
        options = {"poll": 0.02, "health": 0.2, **options}
        places = None if real_places else line.places
        async with Station(found, recipe, places=places, **options) as station:
            run = Running(line, station, asyncio.create_task(station.run()))
            try:
                yield run
            finally:
                await run.stop()
