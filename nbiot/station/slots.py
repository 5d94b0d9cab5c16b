"""One slot: is a board in, must it be scanned, run it, show how it went, wait for the next one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from nbiot.errors import NbiotError, StationError
from nbiot.station.board import Board, SlotState
from nbiot.station.places import Place
from nbiot.station.reasons import pulled, reason, reason_of
from nbiot.station.recipe import Release
from nbiot.station.record import Outcome, Reason, Record
from nbiot.station.run import Run
from nbiot.station.work import Services

if TYPE_CHECKING:
    from nbiot.station.outbox import Outbox
    from nbiot.station.recipe import Recipe

log = logging.getLogger("nbiot.station")

TO_APPEAR = 20.0  # s in which a port comes back with its supply
TO_VANISH = 3.0  # s in which it goes with it
LOOK_AGAIN = 10.0  # s until a slot that cannot be used is tried again
MISSES = 2  # looks in a row without a board before it is gone: USB may blink

STATES = {
    Outcome.PASS: SlotState.PASSED,
    Outcome.FAIL: SlotState.FAILED,
    Outcome.ERROR: SlotState.ERROR,
    Outcome.ABORTED: SlotState.ERROR,
}


class SlotRunner:
    """Lives as long as the station. All that happens to it sets flags and wakes it up."""

    def __init__(
        self,
        place: Place,
        services: Services,
        recipe: Recipe,
        outbox: Outbox,
        board: Board,
        *,
        clock: Callable[[], float],
        ended: Callable[[Record], None],
    ) -> None:
        self.name = place.slot.name
        self.place = place
        self.operator = ""
        self.run: Run | None = None
        self.serial_number = ""
        self._services = services
        self._recipe = recipe
        self._outbox = outbox
        self._board = board
        self._clock = clock
        self._ended = ended
        self._changed = asyncio.Event()
        self._present = False
        self._misses = 0
        self._off = False
        self._wanted = False  # somebody said: start
        self._done = False  # the board that is in has been through
        self._dark_until = 0.0  # loop time until which the port may go or come with the supply
        self._parked = False  # it went with the supply: nobody can tell whether a board is in
        self._last: Outcome | None = None
        self._ran = ""  # the serial number that the board that is in ran with

    # --- what happens to it -----------------------------------------------------------------

    @property
    def waiting(self) -> bool:
        """Does a board wait for its serial number?"""
        return self._board.slots[self.name].state is SlotState.WAITING and not self.serial_number

    def look(self, present: bool) -> None:
        """What a look at the place told."""
        self._misses = 0 if present else self._misses + 1
        if self._parked and present:  # with its supply off, this is another board
            self._present = False
        if present == self._present or (not present and (self._misses < MISSES or self._parked)):
            return
        if not present and asyncio.get_running_loop().time() < self._dark_until:
            self._parked = self.run is None
            return
        self._present = present
        self._parked = self._done = False
        if not present:
            self._ran = ""
            self._wanted = False
            if self.run is not None:
                self.run.stop(Outcome.ABORTED, pulled(self.run.phase))
            self.serial_number = ""
        self._changed.set()

    def scan(self, serial_number: str) -> None:
        """The board that is in, or comes next, has this serial number."""
        if self.run is not None:
            raise self._refused("a board runs in it", "Scan before the run, or stop it first.")
        self._refuse_passed()
        self.serial_number = serial_number
        if self._there:
            self._wanted = True
        self._board.update(self.name, serial_number=serial_number)
        self._changed.set()

    def start(self) -> None:
        """Run the board that is in. Raises StationError."""
        if self._off:
            raise self._refused("it is switched off", "Switch it on first.")
        if self.run is not None:
            raise self._refused("it runs already")
        if not (self._there or self.place.fed):
            raise self._refused("no board is in it", "Put one in.")
        self._refuse_passed()
        self._wanted = True
        self._changed.set()

    def stop(self, why: Reason) -> None:
        """End the run. Raises StationError when none is on."""
        if self.run is None:
            raise self._refused("nothing runs in it")
        self.run.stop(Outcome.ABORTED, why)

    def skip(self, phase: str | None, why: Reason) -> None:
        """Leave a phase out. Raises StationError, BadInput."""
        if self.run is None:
            raise self._refused("nothing runs in it")
        self.run.skip(phase, why)

    def switch(self, on: bool, why: Reason) -> None:
        """Take it out of use, or back."""
        self._off = not on
        if self._off and self.run is not None:
            self.run.stop(Outcome.ABORTED, why)
        self._wanted = False
        self._changed.set()

    @property
    def _there(self) -> bool:
        """Is a board in, as far as can be told?"""
        return self._present or self._parked or not self.place.detects

    def _refuse_passed(self) -> None:
        """The same board once more can only end in "already proven"."""
        if self._done and self._present and self._last is Outcome.PASS and self.place.detects:
            if self._parked:  # it may be another one: nobody can tell
                return
            raise self._refused("its board has passed", "Take it out and put the next one in.")

    def _refused(self, why: str, hint: str = "") -> StationError:
        return StationError(f"slot {self.name}: {why}", hint=hint)

    # --- its life ---------------------------------------------------------------------------

    async def live(self) -> None:
        """Until cancelled. What goes wrong here stays here."""
        while True:
            try:
                async with self.place:
                    await self._feed()
                    await self._serve()
            except NbiotError as error:
                why = reason_of(error)
            except Exception as error:
                log.exception("slot %s", self.name)
                why = reason("internal", f"{type(error).__name__} in the slot; see the log")
            self._show(state=SlotState.ERROR, reason=why)
            await asyncio.sleep(LOOK_AGAIN)

    async def _feed(self) -> None:
        """A port that is fed by the supply is not seen without it."""
        release = self._recipe.first(Release)
        stays_on = isinstance(release, Release) and not release.power_off
        if stays_on and self.place.fed and self.place.power is not None:
            await self.place.power.on()

    async def _serve(self) -> None:
        while True:
            self._changed.clear()
            state = self._idle()
            if state is None:
                await self._run_board()
                continue
            self._show_idle(state)
            await self._changed.wait()

    def _idle(self) -> SlotState | None:
        """The state to show; None: run."""
        if self._off:
            return SlotState.OFF
        if self._wanted:
            return None
        if not self._there:
            return SlotState.EMPTY
        if self._done:
            return STATES[self._last or Outcome.ERROR]
        if self.serial_number or (self.place.detects and not self._recipe.scan):
            return None
        return SlotState.WAITING

    def _show_idle(self, state: SlotState) -> None:
        shown = self._board.slots[self.name]
        if shown.state is state:
            return
        if state is SlotState.EMPTY and shown.reason and shown.reason.code == "board_pulled":
            return  # the operator must see why, until the next board comes
        if state in (SlotState.EMPTY, SlotState.WAITING, SlotState.OFF):
            scan = state is SlotState.WAITING and self._recipe.scan
            why = reason("waiting_for_scan", "") if scan else None
            self._show(state=state, reason=why, **_BLANK, serial_number=self.serial_number)
        else:
            self._show(state=state)

    def _show(self, **changes: Any) -> None:
        if "state" in changes and changes["state"] is not self._board.slots[self.name].state:
            changes["since"] = self._clock()
        self._board.update(self.name, **changes)

    async def _run_board(self) -> None:
        self._wanted = False
        if self._parked:  # the supply comes back, and with it the port
            self._parked = False
            self._dark_until = asyncio.get_running_loop().time() + TO_APPEAR
        serial_number, self.serial_number = self.serial_number, ""
        if self._done and not serial_number:  # once more, the same board
            serial_number = self._ran
        self._ran = serial_number
        self._show(
            **_BLANK, state=SlotState.RUNNING, reason=None, serial_number=serial_number, since=0.0
        )
        self._show(since=self._clock())
        self.run = Run(
            self.place,
            self._services,
            self._recipe,
            self._outbox,
            serial_number=serial_number,
            operator=self.operator,
            clock=self._clock,
            show=self._show,
        )
        lock = AsyncExitStack()
        try:
            await asyncio.to_thread(lock.enter_context, self.place.locked())
            record = await self.run.execute()
        finally:
            self.run = None
            await lock.aclose()
        self._finish(record)

    def _finish(self, record: Record) -> None:
        self._done, self._last = True, record.outcome
        if self.place.fed:
            self._dark_until = asyncio.get_running_loop().time() + TO_VANISH
        if record.reason is not None and record.reason.code == "board_pulled":
            self._present = False  # even if no look found it out
        if not self._present:
            self._done = False
        self._show(
            state=STATES[record.outcome],
            reason=record.reason,
            record=record.id,
            progress=1.0,
            device_key=record.device_key or "",
        )
        self._ended(record)


_BLANK: dict[str, Any] = {
    "phase": "",
    "progress": 0.0,
    "imei": "",
    "device_key": "",
    "record": "",
}
