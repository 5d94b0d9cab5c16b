"""The slots on a terminal."""

from __future__ import annotations

import asyncio
import io
from contextlib import suppress

from rich.console import Console

from nbiot.station.board import Board, SlotState, StationView
from nbiot.station.console import draw
from nbiot.station.record import Reason
from tests.station.run.rigs import PATIENCE


async def drawn(*, terminal: bool) -> str:
    """What stands there after some changes."""
    board = Board(StationView("S1", "meter", free=3), ["1", "2"])
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=120, height=30)
    task = asyncio.create_task(draw(board, console=console))
    try:
        async with asyncio.timeout(PATIENCE):
            while "Empty" not in out.getvalue():
                await asyncio.sleep(0.01)
            board.update("1", state=SlotState.PASSED, imei="867726030047601", progress=1.0)
            why = Reason("no_such_code", {"message": "the [red] lamp", "hint": "look"})
            board.update("2", state=SlotState.FAILED, reason=why)
            while "Fail" not in out.getvalue() or "Pass" not in out.getvalue():
                await asyncio.sleep(0.01)
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    return out.getvalue()


async def test_a_terminal_gets_a_table() -> None:
    text = await drawn(terminal=True)
    assert "station S1 · meter · 0 passed" in text
    assert "867726030047601" in text
    assert "the [red] lamp" in text


async def test_a_file_gets_lines() -> None:
    lines = (await drawn(terminal=False)).splitlines()
    assert len(lines) == 4
    assert "slot 1  Pass  867726030047601" in lines[2]
    assert "the [red] lamp look" in lines[3]
