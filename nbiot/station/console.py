"""The board on a terminal: a table that is drawn anew, or plain lines where it is none."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from nbiot.station import words
from nbiot.station.board import STATION, Board, SlotState, SlotView, StationView

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

AT_MOST = 5.0  # times a second
BAR = 12  # characters of a progress bar
COLOURS = {
    SlotState.EMPTY: "dim",
    SlotState.WAITING: "cyan",
    SlotState.RUNNING: "blue",
    SlotState.HELD: "yellow",
    SlotState.PASSED: "bold green",
    SlotState.FAILED: "bold red",
    SlotState.ERROR: "bold magenta",
    SlotState.OFF: "dim",
}


async def draw(board: Board, *, console: Console | None = None, language: str = "en") -> None:
    """Until cancelled. In a terminal a table; elsewhere a line for each change of a state."""
    from rich.console import Console

    console = console or Console(stderr=True, highlight=False)
    if console.is_terminal:
        await _draw_table(board, console, language)
    else:
        await _print_lines(board, lambda line: console.print(line, markup=False), language)


async def _draw_table(board: Board, console: Console, language: str) -> None:
    from rich.live import Live

    with Live(console=console, auto_refresh=False) as live:
        try:
            async for _ in board.changes(at_most=AT_MOST):
                await asyncio.to_thread(live.update, table_of(board, language), refresh=True)
        finally:  # how it was at the end
            live.update(table_of(board, language), refresh=True)


async def _print_lines(board: Board, say: Callable[[str], None], language: str) -> None:
    shown: dict[str, tuple[object, ...]] = {}
    try:
        async for names in board.changes(at_most=AT_MOST):
            for line in _new_lines(board, names - {STATION}, shown, language):
                await asyncio.to_thread(say, line)
    finally:
        for line in _new_lines(board, board.slots, shown, language):
            say(line)


def _new_lines(
    board: Board, names: Iterable[str], shown: dict[str, tuple[object, ...]], language: str
) -> list[str]:
    """Of the slots among ``names`` that do not look as they were ``shown``."""
    lines = []
    for name in sorted(names):
        view = board.slots[name]
        now = (view.state, view.phase if view.state is SlotState.RUNNING else "", view.reason)
        if shown.get(name) != now:
            shown[name] = now
            lines.append(line_of(view, language))
    return lines


def table_of(board: Board, language: str) -> Table:
    """The whole board."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(title_of(board.station)), title_justify="left", expand=True)
    for column in ("slot", "state", "", "IMEI", "device key", "what"):
        table.add_column(column, no_wrap=column != "what")
    for view in board.slots.values():
        colour = COLOURS[view.state]
        state = words.state(view.state, language).short
        done = "█" * round(view.progress * BAR)
        cells = (view.name, f"[{colour}]{escape(state)}[/]", f"[{colour}]{done:{BAR}}[/]")
        rest = (view.imei or view.serial_number, view.device_key, said_of(view, language))
        table.add_row(escape(cells[0]), *cells[1:], *map(escape, rest))
    return table


def title_of(view: StationView) -> str:
    """The station in one line."""
    parts = [f"station {view.name}", view.recipe, f"{view.passed} passed", f"{view.failed} failed"]
    if view.seconds_per_unit is not None:
        parts.append(f"{view.seconds_per_unit:.0f} s each")
    if view.free is not None:
        parts.append(f"{view.free} identities left")
    if view.undelivered:
        parts.append(f"{view.undelivered} results wait")
    if not view.database:
        parts.append("the database does not answer")
    return " · ".join(parts)


def line_of(view: SlotView, language: str) -> str:
    """A slot in one line, with the time."""
    state = words.state(view.state, language).short
    known = " ".join(filter(None, (view.imei, view.device_key)))
    said = said_of(view, language)
    parts = (time.strftime("%H:%M:%S"), f"slot {view.name}", state, known, said)
    return "  ".join(part for part in parts if part)


def said_of(view: SlotView, language: str) -> str:
    """The phase, or why, and what to do."""
    if view.state is SlotState.RUNNING:
        return words.phase(view.phase, language) if view.phase else ""
    if view.reason is not None:
        why = words.reason(view.reason, language)
        return f"{why.sentence} {why.todo}"
    if view.state is SlotState.PASSED:
        return ""
    return words.state(view.state, language).todo
