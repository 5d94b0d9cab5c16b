"""What everybody at the station looks at: each slot's state, today's yield, the station's health.

The runner writes; the operator's page and the terminal read. Readers are told which slots changed
since they last looked, not each change: a slow browser costs nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from nbiot.station.record import Reason

STATION = ""
"""Stands among the names of changed slots for the station itself: its yield, its health."""


MOST_FREE = 10_000
"""Free identities are counted up to here: that stays cheap, however many there are."""


class SlotState(Enum):
    """What a slot is doing; the page has a colour and a word for each."""

    EMPTY = "empty"
    """No board in it."""
    WAITING = "waiting"
    """A board is in; the operator must scan its serial number, or press Start."""
    RUNNING = "running"
    HELD = "held"
    """The run waits for something outside the board: the database. It goes on by itself."""
    PASSED = "passed"
    FAILED = "failed"
    ERROR = "error"
    """The station could not tell whether the board is good."""
    OFF = "off"
    """Taken out of use by an operator."""


@dataclass(frozen=True, slots=True)
class SlotView:
    """One slot. ``since`` is when its state began, s since 1970; ``progress`` goes from 0 to 1."""

    name: str
    state: SlotState = SlotState.EMPTY
    since: float = 0.0
    phase: str = ""
    progress: float = 0.0
    reason: Reason | None = None
    serial_number: str = ""
    imei: str = ""
    device_key: str = ""
    record: str = ""
    """Id of the run's record: what "print label" and "history" want."""


@dataclass(frozen=True, slots=True)
class StationView:
    """The station itself. Counts are of the local day."""

    name: str
    recipe: str = ""
    passed: int = 0
    failed: int = 0
    seconds_per_unit: float | None = None
    """Median time of today's passed runs."""
    database: bool = True
    """Does the database answer?"""
    undelivered: int = 0
    """Results that wait in the outbox."""
    free: int | None = None
    """Identities left in the pool, counted up to MOST_FREE; None: unknown, or identities are
    registered one by one."""


class Board:
    """The slots, the station, and who watches them. Belongs to one event loop."""

    def __init__(self, station: StationView, slots: Iterable[str]) -> None:
        self.station = station
        self.slots = {name: SlotView(name) for name in slots}
        self._watchers: set[_Watcher] = set()

    def update(self, slot: str, **changes: Any) -> SlotView:
        """Change fields of a slot's view; watchers hear of it if that changed anything."""
        view = replace(self.slots[slot], **changes)
        if view != self.slots[slot]:
            self.slots[slot] = view
            self._changed(slot)
        return view

    def update_station(self, **changes: Any) -> StationView:
        """Change fields of the station's view, likewise."""
        view = replace(self.station, **changes)
        if view != self.station:
            self.station = view
            self._changed(STATION)
        return view

    async def changes(self, *, at_most: float = 5.0) -> AsyncIterator[frozenset[str]]:
        """Names of what changed since the last time, ``STATION`` among them; at first all.

        at_most: times a second that it yields
        """
        watcher = _Watcher({STATION, *self.slots})
        self._watchers.add(watcher)
        try:
            while True:
                yield await watcher.next()
                await asyncio.sleep(1 / at_most)
        finally:
            self._watchers.discard(watcher)

    def _changed(self, name: str) -> None:
        for watcher in self._watchers:
            watcher.add(name)


class _Watcher:
    def __init__(self, names: set[str]) -> None:
        self._names = names
        self._some = asyncio.Event()
        self._some.set()

    def add(self, name: str) -> None:
        self._names.add(name)
        self._some.set()

    async def next(self) -> frozenset[str]:
        await self._some.wait()
        names, self._names = frozenset(self._names), set()
        self._some.clear()
        return names
