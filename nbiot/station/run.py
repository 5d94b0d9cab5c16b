"""One board through the recipe: from the intent on this station's disk to the record on it."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from nbiot.errors import BadInput, LeaseLost, NbiotError, StationError, StoreUnavailable
from nbiot.station.board import SlotState
from nbiot.station.phases import perform
from nbiot.station.places import Place, is_gone
from nbiot.station.reasons import limit_reason, outcome_of, pulled, reason, reason_of
from nbiot.station.record import Outcome, PhaseRecord, Reason, Record, Value
from nbiot.station.work import Services, Work, finished
from nbiot.trace import FileTracer

if TYPE_CHECKING:
    from nbiot.station.outbox import Outbox
    from nbiot.station.recipe import Phase, Recipe

log = logging.getLogger("nbiot.station")

TO_CLEAN_UP = 20.0  # s for letting a board go, in all
DISK_RETRY = 3.0  # s
_NOTED = ("imei", "iccid", "model", "firmware")
_GIVEN = ("product_key", "device_key")


class Run:
    """One board through the recipe. ``execute`` always ends with a record on disk."""

    def __init__(
        self,
        place: Place,
        services: Services,
        recipe: Recipe,
        outbox: Outbox,
        *,
        serial_number: str = "",
        operator: str = "",
        clock: Callable[[], float] = time.time,
        show: Callable[..., None] = lambda **_: None,
    ) -> None:
        self.id = str(uuid.uuid4())
        self.place = place
        self._services = services
        self._recipe = recipe
        self._outbox = outbox
        self._serial_number = serial_number
        self._operator = operator
        self._clock = clock
        self._show = show
        self._work: Work | None = None
        self._task: asyncio.Task[None] | None = None
        self._step: asyncio.Task[None] | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._now: Phase | None = None
        self._skipped: dict[str, Reason] = {}
        self._phases: list[PhaseRecord] = []
        self._outcome: Outcome | None = None
        self._reason: Reason | None = None
        self._noted: dict[str, Value] = {}
        self._in_haste = asyncio.Event()  # the station stops: no waiting for a disk that is full

    # --- from outside -----------------------------------------------------------------------

    def stop(self, outcome: Outcome, why: Reason) -> None:
        """End it now. The first call counts."""
        if self._outcome is None:
            self._outcome, self._reason = outcome, why
            if self._task is not None:
                self._task.cancel()

    def skip(self, name: str | None, why: Reason) -> None:
        """Leave a phase out: the one that runs when none is named. Raises BadInput."""
        phases = {phase.name: phase for phase in self._recipe.phases}
        phase = self._now if name is None else phases.get(name)
        may = [phase.name for phase in self._recipe.phases if phase.may_skip]
        if phase is None or not phase.may_skip:
            given = name or (phase.name if phase else "none")
            raise BadInput(
                "phase",
                given,
                ", ".join(may) or "none: the recipe has no phase with may_skip = true",
            )
        if any(done.name == phase.name for done in self._phases):
            raise BadInput("phase", phase.name, "one that is not done yet")
        self._skipped[phase.name] = why
        if phase is self._now and self._step is not None:
            self._step.cancel()

    # --- the run ----------------------------------------------------------------------------

    async def execute(self) -> Record:
        """The record; it is on disk, and the board is let go. Raises StationError when the disk
        does not take it, and CancelledError, after all that, when cancelled.
        """
        began = self._clock()
        about = {"recipe": self._recipe.name, "operator": self._operator}
        about["serial_number"] = self._serial_number
        await self._outbox.begin(self.id, self.place.slot.name, **cast("Any", about))
        tracer = await asyncio.to_thread(self._tracer)
        self._work = work = Work(
            self.id,
            self.place,
            self._services,
            self._recipe,
            serial_number=self._serial_number,
            tracer=tracer,
            show=self._show,
            hold=self._hold,
            claimed=self._keep_lease,
        )
        self._task = asyncio.create_task(self._phases_of(work), name=f"run {self.id}")
        cancelled = await _wait(self._task, self._interrupted)
        if self._keeper is not None:
            self._keeper.cancel()
            cancelled = await _wait(self._keeper) or cancelled
        tidying = asyncio.create_task(self._end(work, tracer, began))
        cancelled = await _wait(tidying, self._in_haste.set) or cancelled
        record = tidying.result()
        if cancelled:
            raise asyncio.CancelledError
        return record

    def _interrupted(self) -> None:
        self._in_haste.set()
        self.stop(
            Outcome.ABORTED,
            reason("station_died", "the station was stopped", "Put the board in again later."),
        )

    async def _end(self, work: Work, tracer: FileTracer | None, began: float) -> Record:
        """The result first, onto the disk; then the board is let go."""
        digest = await asyncio.to_thread(_closed, tracer, self._trace_path)
        record = self._record(work, began, digest)
        try:
            await self._keep(record)
            await work.give_back()
        finally:
            try:
                async with asyncio.timeout(TO_CLEAN_UP):
                    await work.leave()
            except (NbiotError, TimeoutError) as error:
                log.warning("slot %s was not let go: %s", self.place.slot.name, error)
            self._forget_imei(work)
        return record

    async def _keep(self, record: Record) -> None:
        """Onto the disk, however long that takes: the slot is held meanwhile.

        A station that is stopped then leaves the run's intent, which ends as ABORTED.
        """
        while True:
            try:
                await self._outbox.put(record)
                return
            except StationError as error:
                log.error("the result of run %s is not on disk: %s", record.id, error)
                if self._in_haste.is_set():
                    return
                self._hold(reason_of(error))
            with suppress(TimeoutError):
                async with asyncio.timeout(DISK_RETRY):
                    await self._in_haste.wait()

    def _forget_imei(self, work: Work) -> None:
        imeis, name = self._services.imeis, self.place.slot.name
        for imei in [imei for imei, slot in imeis.items() if slot == name]:
            del imeis[imei]

    def _record(self, work: Work, began: float, trace: str | None) -> Record:
        rsrp = work.facts.get("rsrp")
        return Record(
            id=self.id,
            station=self._services.station,
            slot=self.place.slot.name,
            started=began,
            ended=self._clock(),
            outcome=self._outcome or Outcome.ERROR,
            recipe=self._recipe.name,
            operator=self._operator,
            serial_number=self._serial_number,
            imei=work.text_of("imei"),
            iccid=work.text_of("iccid"),
            model=work.text_of("model"),
            firmware=work.text_of("firmware"),
            rsrp=float(rsrp) if isinstance(rsrp, (int, float)) else None,
            # What the pool got back is not this board's: no label must say so.
            product_key=work.text_of("product_key") if work.given else None,
            device_key=work.text_of("device_key") if work.given else None,
            credential=work.claim.credential if work.claim else None,
            fence=work.claim.fence if work.claim else None,
            trace=trace,
            phases=tuple(self._phases),
            reason=self._reason,
        )

    # --- phases -----------------------------------------------------------------------------

    async def _phases_of(self, work: Work) -> None:
        total = len(self._recipe.phases)
        with suppress(asyncio.CancelledError):  # only ``stop`` cancels this task
            for number, phase in enumerate(self._recipe.phases):
                if self._outcome is not None:  # stopped, though the phase before came to its end
                    break
                self._now = phase
                self._show(phase=phase.name, progress=(number + 0.5) / total)
                done = await self._phase(work, phase)
                self._phases.append(done)
                if done.outcome not in (Outcome.PASS, Outcome.SKIPPED) and self._outcome is None:
                    self._outcome, self._reason = done.outcome, done.reason
                    break
            else:
                self._outcome = self._outcome or Outcome.PASS
        self._now = None
        self._not_reached()

    async def _phase(self, work: Work, phase: Phase) -> PhaseRecord:
        began = self._clock()
        work.measured = []
        outcome, why = Outcome.PASS, None
        try:
            if phase.name in self._skipped:
                raise asyncio.CancelledError
            self._step = asyncio.create_task(perform(work, phase))
            await self._step
            await self._note(work)
        except asyncio.CancelledError:
            if self._outcome is not None or phase.name not in self._skipped:
                self._outcome = self._outcome or Outcome.ABORTED
                self._phases.append(
                    self._phase_record(work, phase, began, self._outcome, self._reason)
                )
                raise
            outcome, why = Outcome.SKIPPED, self._skipped[phase.name]
        except NbiotError as error:
            outcome, why = await self._judged(phase, error)
        except Exception as error:  # a mistake of ours, or of a backend: this slot's alone
            log.exception("slot %s, phase %s", self.place.slot.name, phase.name)
            outcome = Outcome.ERROR
            why = reason("internal", f"{type(error).__name__} in phase {phase.name}; see the log")
        else:
            bad = next((found for found in work.measured if not found.passed), None)
            if bad is not None:
                outcome, why = Outcome.FAIL, limit_reason(bad)
        return self._phase_record(work, phase, began, outcome, why)

    async def _note(self, work: Work) -> None:
        """What the record of a run that is cut from here on must say."""
        names = _NOTED + (_GIVEN if work.given else ())
        known = {name: work.facts[name] for name in names if work.facts.get(name) is not None}
        if work.claim is not None:
            known |= {"credential": work.claim.credential, "fence": work.claim.fence}
        if known != self._noted:
            self._noted = known
            await self._outbox.begin(self.id, self.place.slot.name, **cast("Any", known))

    def _phase_record(
        self, work: Work, phase: Phase, began: float, outcome: Outcome, why: Reason | None
    ) -> PhaseRecord:
        measured = tuple(work.measured)
        return PhaseRecord(phase.name, began, self._clock(), outcome, measured, why)

    async def _judged(self, phase: Phase, error: NbiotError) -> tuple[Outcome, Reason]:
        if await is_gone(self.place, error):
            return Outcome.ABORTED, pulled(phase.name)
        why = reason_of(error)
        return outcome_of(error), replace(why, detail={"phase": phase.name, **why.detail})

    def _not_reached(self) -> None:
        """The phases after the one that ended the run."""
        now = self._clock()
        for phase in self._recipe.phases[len(self._phases) :]:
            self._phases.append(PhaseRecord(phase.name, now, now, Outcome.SKIPPED))

    @property
    def phase(self) -> str:
        """The phase that runs; empty between them."""
        return self._now.name if self._now else ""

    # --- lease and database -----------------------------------------------------------------

    def _hold(self, why: Reason | None) -> None:
        self._show(state=SlotState.RUNNING if why is None else SlotState.HELD, reason=why)

    def _keep_lease(self) -> None:
        if self._keeper is None:
            name = f"lease of run {self.id}"
            self._keeper = asyncio.create_task(self._renew(), name=name)

    async def _renew(self) -> None:
        """Keep the lease; without it the board is told nothing more."""
        assert self._work is not None
        lease = self._services.lease
        while True:
            await asyncio.sleep(lease / 3)
            assert self._work.claim is not None
            try:
                await finished(self._services.store.renew(self._work.claim, lease))
            except StoreUnavailable:
                continue  # what the database holds against us is found out when it is back
            except LeaseLost as error:
                self.stop(Outcome.ABORTED, reason_of(error))
                return
            except Exception:  # the lease runs out, and ``bind`` says so
                log.exception("the lease of run %s is not renewed", self.id)
                return

    # --- the trace --------------------------------------------------------------------------

    @property
    def _trace_path(self) -> Path:
        return (self._services.traces or Path()) / f"{self.id}.jsonl"

    def _tracer(self) -> FileTracer | None:
        folder = self._services.traces
        if folder is None:
            return None
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            return FileTracer(
                self._trace_path, time.monotonic, port=self.place.port, wall=self._clock
            )
        except OSError as error:
            log.warning("no trace of run %s: %s", self.id, error)
            return None


def _closed(tracer: FileTracer | None, path: Path) -> str | None:
    """Close the trace; the SHA-256 of its file."""
    if tracer is None:
        return None
    tracer.close()
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None


async def _wait(task: asyncio.Task[Any], interrupted: Callable[[], None] = lambda: None) -> bool:
    """Wait until ``task`` is done, whatever happens; whether a cancellation came meanwhile."""
    cancelled = False
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            cancelled = True
            interrupted()
    return cancelled
