"""The store against a model of the life of identities, on random histories with two stations.

Words of runs that are long over, boards in two slots, two boards with one IMEI, leases that run
out and stations that start again come up as often as anything else. The tests take a few
histories, always the same; other and longer ones, on SQLite:

    python -m tests.station.store.test_model --examples 200 --steps 60
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from nbiot.errors import (
    AlreadyProven,
    BadInput,
    ImeiTaken,
    LeaseLost,
    NbiotError,
    PoolEmpty,
    StationError,
)
from nbiot.station.record import Outcome
from nbiot.station.store import Claim, Delivery, Store
from nbiot.station.vault import Vault
from tests.station.postgres import Server
from tests.station.store.conftest import RESET, filled
from tests.station.store.line import PLENTY as IDENTITIES
from tests.station.store.line import iccid, imei, new_run, pass_time, record

STATIONS = ("S1", "S2")
GIVEN = {"bound", "proven", "failed"}


@dataclass
class Row:
    """An identity, in the model."""

    state: str = "free"
    fence: int = 0
    live: bool = False
    run: str | None = None
    place: tuple[str, str] = ("", "")
    incarnation: int = 0
    imei: int | None = None
    claim_sim: int | None = None
    sim: int | None = None
    given_run: str | None = None
    allowed: bool = False

    def free(self) -> None:
        """Back into the pool."""
        self.state, self.live, self.run, self.imei, self.claim_sim = "free", False, None, None, None


@dataclass
class Model:
    """What the store must do, in the simplest words."""

    rows: list[Row] = field(default_factory=lambda: [Row() for _ in range(IDENTITIES)])
    records: dict[str, Outcome] = field(default_factory=dict)
    incarnations: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STATIONS, 0))

    def claim(self, run: str, place: tuple[str, str], board: int, sim: int | None) -> Row:
        row = self._row_for(run, place, board, sim)
        row.live, row.place, row.incarnation = True, place, self.incarnations[place[0]]
        if row.run == run:
            row.claim_sim = sim or row.claim_sim
            return row
        row.run, row.claim_sim, row.fence = run, sim, row.fence + 1
        if row.state not in GIVEN:
            row.state, row.imei = "claimed", board
        return row

    def _row_for(self, run: str, place: tuple[str, str], board: int, sim: int | None) -> Row:
        if run in self.records:
            raise LeaseLost("")
        for row in self.rows:
            if row.run == run:
                if row.imei != board:
                    raise BadInput("run", run, "")
                return row
        for row in self.rows:
            if row.imei == board and row.state != "returned":
                if row.live and row.place != place:
                    raise ImeiTaken("")
                if row.state != "claimed" and not row.allowed:
                    if row.state == "proven":
                        raise AlreadyProven("")
                    if None not in (row.sim, sim) and row.sim != sim:
                        raise ImeiTaken("")
                return row
        for row in self.rows:
            if row.state == "free":
                return row
        for row in self.rows:
            if row.state == "claimed" and not row.live:
                return row
        raise PoolEmpty("")

    def held(self, number: int, fence: int) -> Row:
        row = self.rows[number]
        if row.fence != fence or row.run is None:
            raise LeaseLost("")
        return row

    def bind(self, number: int, fence: int, board: int, sim: int | None) -> Row:
        row = self.held(number, fence)
        told = sim or row.claim_sim
        if row.imei != board or row.claim_sim not in (None, told):
            raise ImeiTaken("")
        if row.state in GIVEN and not row.allowed and row.sim not in (None, told):
            raise ImeiTaken("")
        row.sim, row.allowed, row.state = told or row.sim, False, "bound"
        row.given_run = row.given_run or row.run
        return row

    def release(self, number: int, fence: int) -> None:
        row = self.held(number, fence)
        if row.state == "claimed":
            row.free()
        else:
            row.live = False

    def deliver(
        self, run: str, number: int | None, fence: int | None, outcome: Outcome
    ) -> Delivery:
        if run in self.records:
            return Delivery.KNOWN
        self.records[run] = outcome
        if number is None:
            found = [row for row in self.rows if row.run == run]
        else:
            found = [self.rows[number]]
        if not found or found[0].run != run or fence not in (None, found[0].fence):
            return Delivery.KEPT
        row = found[0]
        if outcome is not Outcome.PASS and row.state == "claimed":
            row.free()
            return Delivery.APPLIED
        if outcome is Outcome.PASS:
            row.state = "proven"
        elif row.state != "proven":
            row.state = "failed"
        row.given_run, row.sim = row.given_run or row.run, row.sim or row.claim_sim
        row.run, row.live, row.claim_sim = None, False, None
        return Delivery.APPLIED

    def start(self, station: str) -> None:
        self.incarnations[station] += 1
        for row in self.rows:
            if row.place[0] == station and row.run is not None:
                if row.state == "claimed":
                    row.free()
                else:
                    row.live = False

    def give_back(self, number: int) -> None:
        row = self.rows[number]
        if row.state == "returned":
            return
        if row.live:
            raise StationError("")
        if row.state not in GIVEN:
            row.imei = None
        row.state, row.run, row.allowed, row.claim_sim = "returned", None, False, None
        row.fence += 1

    def allow_retry(self, number: int) -> None:
        if self.rows[number].state not in GIVEN:
            raise BadInput("", "", "")
        self.rows[number].allowed = True


@dataclass
class Spoken:
    """A run, and what it believes to hold."""

    run: str
    station: str
    slot: str
    board: int
    sim: int | None
    claim: Claim | None = None


boards, sims = st.integers(1, IDENTITIES + 1), st.sampled_from([None, 1, 2])
stations, slots = st.sampled_from(STATIONS), st.sampled_from(["1", "2"])
picks = st.integers(0, 10_000)
outcomes = st.sampled_from([Outcome.PASS, Outcome.FAIL, Outcome.ABORTED])


class Life(RuleBasedStateMachine):
    """Says everything to both, and compares."""

    fresh: Callable[[], str]
    vault: Vault

    @initialize()
    def open(self) -> None:
        self.loop = asyncio.Runner()
        url = type(self).fresh()
        self.stores = {
            name: self.loop.run(Store.open(url, self.vault, station=name)) for name in STATIONS
        }
        self.model = Model()
        self.runs: list[Spoken] = []
        self.owners: dict[str, str] = {}

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            for store in self.stores.values():
                self.loop.run(store.close())
            self.loop.close()

    def _both(self, said: Callable[[], Any], expected: Callable[[], Any]) -> tuple[Any, Any]:
        """What the store and the model answer; None, None where both refuse alike."""
        try:
            wanted = expected()
        except NbiotError as error:
            with pytest.raises(type(error)):
                self.loop.run(said())
            return None, None
        return self.loop.run(said()), wanted

    def _same(self, claim: Claim, row: Row) -> None:
        assert claim.device_key == f"dev{self.model.rows.index(row):04}"
        assert (claim.fence, claim.state.value) == (row.fence, row.state)
        assert claim.imei == imei(row.imei or 0)
        assert claim.retry == (row.given_run not in (None, row.run))

    def _claim(self, spoken: Spoken) -> None:
        store = self.stores[spoken.station]
        sim = None if spoken.sim is None else iccid(spoken.sim)
        claim, row = self._both(
            lambda: store.claim(spoken.run, spoken.slot, imei(spoken.board), iccid=sim),
            lambda: self.model.claim(
                spoken.run, (spoken.station, spoken.slot), spoken.board, spoken.sim
            ),
        )
        if claim is not None:
            self._same(claim, row)
            spoken.claim = claim

    @rule(station=stations, slot=slots, board=boards, sim=sims)
    def claim(self, station: str, slot: str, board: int, sim: int | None) -> None:
        spoken = Spoken(new_run(), station, slot, board, sim)
        self.runs.append(spoken)
        self._claim(spoken)

    @precondition(lambda self: self.runs)
    @rule(pick=picks)
    def claim_again(self, pick: int) -> None:
        self._claim(self.runs[-1 - pick % len(self.runs)])

    def _picked(self, pick: int) -> Spoken | None:
        holding = [spoken for spoken in self.runs if spoken.claim is not None]
        return holding[-1 - pick % len(holding)] if holding else None

    @rule(pick=st.integers(0, 3), changed=st.booleans(), sim=sims)
    def bind(self, pick: int, changed: bool, sim: int | None) -> None:
        if (spoken := self._picked(pick)) is None or spoken.claim is None:
            return
        claim, store = spoken.claim, self.stores[spoken.station]
        number, board = claim.credential - 1, spoken.board + 1 if changed else spoken.board
        told, row = self._both(
            lambda: store.bind(claim, imei(board), iccid=None if sim is None else iccid(sim)),
            lambda: self.model.bind(number, claim.fence, board, sim),
        )
        if told is not None:
            self._same(told, row)

    @rule(pick=picks)
    def release(self, pick: int) -> None:
        if (spoken := self._picked(pick)) is None or spoken.claim is None:
            return
        claim = spoken.claim
        with contextlib.suppress(LeaseLost):  # releasing what one does not have is fine
            self.model.release(claim.credential - 1, claim.fence)
        self.loop.run(self.stores[spoken.station].release(claim))

    @rule(pick=picks)
    def renew(self, pick: int) -> None:
        if (spoken := self._picked(pick)) is None or spoken.claim is None:
            return
        claim = spoken.claim

        def expected() -> None:
            row = self.model.held(claim.credential - 1, claim.fence)
            row.live, row.incarnation = True, self.model.incarnations[spoken.station]

        self._both(lambda: self.stores[spoken.station].renew(claim), expected)

    @precondition(lambda self: self.runs)
    @rule(pick=st.integers(0, 3), outcome=outcomes, knows=st.booleans())
    def deliver(self, pick: int, outcome: Outcome, knows: bool) -> None:
        spoken = self.runs[-1 - pick % len(self.runs)]
        claim = spoken.claim if knows else None
        outcome = self.model.records.get(spoken.run, outcome)
        told = record(
            spoken.run, outcome, claim, station=spoken.station, slot=spoken.slot, ended=1e9
        )
        number, fence = (claim.credential - 1, claim.fence) if claim else (None, None)
        if spoken.run in self.model.records:
            return
        found, wanted = self._both(
            lambda: self.stores[spoken.station].deliver(told),
            lambda: self.model.deliver(spoken.run, number, fence, outcome),
        )
        assert found is wanted
        assert self.loop.run(self.stores["S1"].deliver(told)) is Delivery.KNOWN

    @rule()
    def time_passes(self) -> None:
        self.loop.run(pass_time(self.stores["S1"], 301))
        for row in self.model.rows:
            row.live = False

    @rule(station=stations)
    def start_again(self, station: str) -> None:
        self.stores[station].incarnation = new_run()
        self.model.start(station)
        self.loop.run(self.stores[station].start())

    @rule(number=st.integers(0, IDENTITIES - 1))
    def give_back(self, number: int) -> None:
        self._both(
            lambda: self.stores["S1"].give_back(f"dev{number:04}", who="li", why="x"),
            lambda: self.model.give_back(number),
        )

    @rule(number=st.integers(0, IDENTITIES - 1))
    def allow_retry(self, number: int) -> None:
        self._both(
            lambda: self.stores["S1"].allow_retry(f"dev{number:04}", who="li", why="x"),
            lambda: self.model.allow_retry(number),
        )

    @invariant()
    def same(self) -> None:
        """The database says what the model says, and no identity ever changed its board."""
        if not hasattr(self, "stores"):
            return

        async def exported() -> list[dict[str, Any]]:
            return [row async for row in self.stores["S1"].export()]

        found = self.loop.run(exported())
        for row, wanted in zip(found, self.model.rows, strict=True):
            board = None if wanted.imei is None else imei(wanted.imei)
            assert (row["state"], row["fence"], row["imei"]) == (wanted.state, wanted.fence, board)
            if row["state"] in GIVEN:
                assert self.owners.setdefault(row["device_key"], row["imei"]) == row["imei"]
        assert self.loop.run(self.stores["S1"].contradictions()) == []


def _check(
    fresh: Callable[[], str], vault: Vault, examples: int, *, steps: int = 25, same: bool = True
) -> None:
    """same: the same histories each time, and none is made shorter that fails"""
    phases = (Phase.explicit, Phase.generate) + (() if same else (Phase.shrink,))
    kind = type("Life", (Life,), {"fresh": staticmethod(fresh), "vault": vault})
    run_state_machine_as_test(
        kind,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
            phases=phases,
            derandomize=same,
        ),
    )


def _copies(template: Path, folder: Path) -> Callable[[], str]:
    """Makes new databases: copies of ``template``."""
    numbers = itertools.count()

    def fresh() -> str:
        path = folder / f"{next(numbers)}.db"
        shutil.copy(template, path)
        return f"sqlite+aiosqlite:///{path}"

    return fresh


def test_the_life_of_identities_in_sqlite(
    tmp_path: Path, sqlite_template: Path, vault: Vault
) -> None:
    _check(_copies(sqlite_template, tmp_path), vault, 5)


def test_the_life_of_identities_in_postgresql(
    postgresql: Server, postgresql_database: str, vault: Vault
) -> None:
    def fresh() -> str:
        postgresql.sql(RESET, database=postgresql_database)
        return postgresql.url(postgresql_database)

    _check(fresh, vault, 3)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--examples", type=int, default=200)
    parser.add_argument("--steps", type=int, default=60)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nbiot-model-") as folder:
        template = Path(folder, "template.db")
        vault = Vault.create(Path(folder, "key"))
        filled(f"sqlite+aiosqlite:///{template}", vault)
        fresh = _copies(template, Path(folder))
        _check(fresh, vault, given.examples, steps=given.steps, same=False)


if __name__ == "__main__":
    main()
