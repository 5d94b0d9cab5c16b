"""A station without boards: a real Board, a history in memory, and a list of what was pressed."""

from __future__ import annotations

import io
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from nbiot.errors import BadInput, NbiotError, PrinterError
from nbiot.station.board import Board, SlotState, SlotView, StationView
from nbiot.station.record import Measurement, Outcome, PhaseRecord, Reason, Record

PHASES = ("identify", "radio", "attach", "claim", "authenticate", "report", "label", "release")
NOW = 1_764_000_000.0


@dataclass
class Row:
    view: StationView
    slots: Sequence[SlotView]
    age: float


@dataclass
class FakeStation:
    """Fulfils ``Operated``."""

    board: Board
    may_skip: frozenset[str] = frozenset({"radio", "label"})
    records: list[Record] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    done: list[tuple[Any, ...]] = field(default_factory=list)
    failing: dict[str, Exception] = field(default_factory=dict)
    """What an action raises."""

    def _do(self, name: str, *values: Any) -> None:
        self.done.append((name, *values))
        if error := self.failing.get(name):
            raise error

    async def scan(self, text: str, slot: str | None = None) -> str:
        self._do("scan", text, slot)
        waiting = [v.name for v in self.board.slots.values() if v.state is SlotState.WAITING]
        if not waiting:
            raise BadInput("scan", text, "a label, while a slot waits for one")
        slot = slot or waiting[0]
        self.board.update(slot, state=SlotState.RUNNING, serial_number=text, phase="identify")
        return slot

    async def start(self, slot: str) -> None:
        self._do("start", slot)
        self.board.update(slot, state=SlotState.RUNNING, phase="identify")

    async def stop(self, slot: str) -> None:
        self._do("stop", slot)
        reason = Reason("stopped", {"by": "operator"})
        self.board.update(slot, state=SlotState.ERROR, reason=reason)

    async def retry(self, slot: str) -> None:
        self._do("retry", slot)
        self.board.update(slot, state=SlotState.RUNNING, reason=None, phase="identify")

    async def skip(self, slot: str, reason: str, phase: str | None = None) -> None:
        self._do("skip", slot, reason, phase)

    async def switch_off(self, slot: str) -> None:
        self._do("switch_off", slot)
        self.board.update(slot, state=SlotState.OFF, reason=None)

    async def switch_on(self, slot: str) -> None:
        self._do("switch_on", slot)
        self.board.update(slot, state=SlotState.EMPTY)

    async def print_label(self, record_id: str, copies: int = 1) -> None:
        self._do("print_label", record_id, copies)

    async def label_png(self, record_id: str) -> bytes:
        self._do("label_png", record_id)
        return label_picture()

    async def history(
        self, search: str = "", limit: int = 50, before: str | None = None
    ) -> Sequence[Record]:
        self._do("history", search, limit, before)
        ids = [r.id for r in self.records]
        found = self.records[ids.index(before) + 1 if before else 0 :]
        return [r for r in found if search in f"{r.imei} {r.serial_number} {r.slot}"][:limit]

    async def record(self, record_id: str) -> Record | None:
        return next((r for r in self.records if r.id == record_id), None)

    async def stations(self) -> Sequence[Row]:
        return self.rows


def station(slots: int | Iterable[str] = 8, **view: Any) -> FakeStation:
    names = [str(n + 1) for n in range(slots)] if isinstance(slots, int) else slots
    return FakeStation(Board(StationView(**{"name": "S1", "recipe": "meter-v3", **view}), names))


# --- samples ------------------------------------------------------------------------------------


def imei(number: int) -> str:
    body = f"86{number % 10**12:012}"
    digits = [int(d) * (1 + i % 2) for i, d in enumerate(body)]
    return f"{body}{-sum(d // 10 + d % 10 for d in digits) % 10}"


REASONS = [
    Reason("limit", {"name": "rsrp", "value": -121.0, "unit": "dBm", "low": -110.0, "high": None}),
    Reason("sim_missing", {"message": "no SIM", "hint": ""}),
    Reason("no_response", {}),
    Reason("imei_taken", {"station": "S2", "slot": "4"}),
]


def record(number: int, outcome: Outcome = Outcome.PASS, reason: Reason | None = None) -> Record:
    """A run as it may have been."""
    began = NOW - 61.7 * number
    phases, at = [], began
    for name, seconds, measured in (
        ("identify", 0.8, (
            Measurement("model", "BC66", allowed=("BC66", "BC66-NA")),
            Measurement("firmware", "BC66NBR01A10", allowed=("BC66NBR01A10", "BC66NBR01A11")),
            Measurement("imei", imei(number)))),
        ("radio", 2.1, (
            Measurement("rsrp", -121.0 if reason else -87.0, "dBm", low=-110.0),
            Measurement("snr", 12.4, "dB", low=-3.0), Measurement("ecl", 0, "", high=1))),
        ("attach", 14.2, (Measurement("attach_seconds", 14.2, "s", high=60.0),)),
        ("claim", 0.03, ()), ("authenticate", 4.4, ()), ("report", 2.7, ()), ("label", 0.6, ()),
    ):  # fmt: skip
        bad = reason is not None and name == "radio"
        ended = at + seconds
        how = Outcome.FAIL if bad else Outcome.PASS
        phases.append(PhaseRecord(name, at, ended, how, measured, reason if bad else None))
        at = ended
        if bad:
            phases.append(PhaseRecord("attach", at, at, Outcome.SKIPPED))
            break
    passed = outcome is Outcome.PASS
    return Record(
        id=f"00000000-0000-4000-8000-{number:012}", station="S1", slot=str(number % 8 + 1),
        started=began, ended=at, outcome=outcome, recipe="meter-v3", operator="Li",
        serial_number=f"MB3-{240000 + number}", imei=imei(number), iccid="89860400000000000018",
        model="BC66", firmware="BC66NBR01A10", rsrp=-87.0,
        product_key="pk8Zq2Lw" if passed else None,
        device_key=imei(number) if passed else None, credential=number if passed else None,
        fence=1 if passed else None, trace="9f" * 32, phases=tuple(phases), reason=reason,
    )  # fmt: skip


def records(count: int) -> list[Record]:
    found = []
    for n in range(count):
        if n % 7 == 3:
            found.append(record(n, Outcome.FAIL, REASONS[n // 7 % 2]))
        elif n % 23 == 11:
            found.append(record(n, Outcome.ERROR, REASONS[2]))
        elif n % 31 == 8:
            found.append(record(n, Outcome.ABORTED, Reason("stopped", {"by": "Li"})))
        else:
            found.append(record(n))
    return found


def label_picture() -> bytes:
    from PIL import Image, ImageDraw

    picture = Image.new("1", (400, 200), 1)
    pen = ImageDraw.Draw(picture)
    for x in range(25):
        for y in range(25):
            if (x * 7 + y * 13 + x * y) % 3 == 0:
                pen.rectangle((20 + 6 * x, 20 + 6 * y, 25 + 6 * x, 25 + 6 * y), fill=0)
    pen.text((190, 40), "IMEI 860000000000017", fill=0)
    pen.text((190, 70), "pk8Zq2Lw", fill=0)
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def mixed(fake: FakeStation, now: float | None = None) -> None:
    """Each state once or more, as at a busy moment."""
    now = time.time() if now is None else now
    S = SlotState
    show: list[dict[str, Any]] = [
        {"state": S.PASSED, "device_key": imei(1), "record": record(0).id},
        {"state": S.RUNNING, "phase": "attach", "progress": 0.42, "since": now - 17},
        {"state": S.FAILED, "reason": REASONS[0], "record": record(3).id},
        {"state": S.PASSED, "device_key": imei(4), "record": record(1).id},
        {"state": S.ERROR, "reason": REASONS[2], "record": record(11).id},
        {"state": S.WAITING, "reason": Reason("waiting_for_scan")},
        {"state": S.EMPTY},
        {"state": S.HELD, "reason": Reason("store_unavailable", {}), "since": now - 65},
        {"state": S.RUNNING, "phase": "authenticate", "progress": 0.7, "since": now - 31},
        {"state": S.FAILED, "reason": REASONS[1], "record": record(10).id},
        {"state": S.OFF},
        {"state": S.PASSED, "device_key": imei(12), "record": record(2).id},
        {"state": S.FAILED, "reason": REASONS[3], "record": record(10).id},
        {"state": S.RUNNING, "phase": "report", "progress": 0.86, "since": now - 44},
        {"state": S.EMPTY},
        {"state": S.ERROR, "reason": Reason("modem_rebooted", {}), "record": record(11).id},
    ]  # fmt: skip
    for number, (name, changes) in enumerate(zip(fake.board.slots, show, strict=False)):
        if changes["state"] not in (S.EMPTY, S.OFF, S.WAITING):
            changes |= {"imei": imei(number), "serial_number": f"MB3-{240100 + number}"}
        fake.board.update(name, **changes)
    fake.board.update_station(passed=412, failed=9, seconds_per_unit=42.3, free=1288)


def a_line(now: float) -> list[Row]:
    rows = []
    for n in range(6):
        one = station(8 if n % 2 else 16, name=f"S{n + 1}")
        mixed(one, now)
        states = [view.state for view in one.board.slots.values()]
        for i, name in enumerate(one.board.slots):
            one.board.update(name, state=states[(i * 5 + n * 3) % len(states)])
        one.board.update_station(passed=412 - 31 * n, failed=9 + n, undelivered=14 if n == 4 else 0)
        age = 900.0 if n == 3 else 2.0
        rows.append(Row(one.board.station, list(one.board.slots.values()), age))
    return rows


PRINTER_AWAY: NbiotError = PrinterError(
    "the printer 10.0.0.9:9100 does not answer", hint="Check its cable and paper, print again."
)
