"""A station in a process of its own, to be killed: ``python -m tests.station.run.child FOLDER``.

Says ``slot state phase`` at each change.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from nbiot.station.runner import Station
from tests.station.run.rigs import FULL, line_in, recipe_of


async def main(folder: Path) -> None:
    recipe = await asyncio.to_thread(recipe_of, folder, FULL)
    async with (
        line_in(folder, boards=8, models=("bc66",)) as line,
        Station(line.config, recipe, places=line.places, poll=0.02) as station,
        asyncio.TaskGroup() as tasks,
    ):
        tasks.create_task(station.run())
        await line.places[0].insert(line.board())
        async for _ in station.board.changes(at_most=1000):
            view = station.board.slots["1"]
            print(view.name, view.state.value, view.phase, flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
