"""The line under bad luck, small; and that its verdict can be bad."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.station.factory import Piece, Row, run_line, verdict
from tests.station.postgres import Server, postgresql  # noqa: F401  # a fixture


def board(number: int, *keys: str, outcome: str = "pass", imei: str = "") -> Piece:
    imei = imei or f"imei {number}"
    piece = Piece(number, "bc95", imei, f"iccid {number}", keys=set(keys))
    return Piece(**{**piece.__dict__, "outcomes": [outcome]})


def row(piece: Piece, key: str, outcome: str = "pass", *, applied: bool = True, n: int = 0) -> Row:
    run = f"run {piece.number}.{n}"
    where = ("S1", "S1-1", piece.imei, piece.iccid)
    return Row(run, *where, outcome, key, applied, started=0.0, seconds=1.0)


GOOD = board(1, "A"), board(2, "B"), board(3, outcome="fail")
ROWS = (row(GOOD[0], "A"), row(GOOD[1], "B"), row(GOOD[2], "", "fail", applied=False))
STATES = {
    "A": ("proven", "imei 1"),
    "B": ("proven", "imei 2"),
    "C": ("free", None),
    "": ("free", None),
}


def found(
    boards: tuple[Piece, ...] = GOOD,
    rows: tuple[Row, ...] = ROWS,
    **states: tuple[str, str | None],
) -> set[str]:
    return set(verdict(list(boards), {row.id: row for row in rows}, {**STATES, **states}))


def test_a_good_line() -> None:
    assert found() == set()


@pytest.mark.parametrize(
    ("what", "is_found"),
    [
        ("identity given twice", lambda: found(boards=(*GOOD, board(4, "A", outcome="fail")))),
        ("board with two identities", lambda: found(boards=(board(1, "A", "C"), *GOOD[1:]))),
        ("identity used that is not given", lambda: found(A=("free", None))),
        ("identity free again after use", lambda: found(A=("free", None))),
        ("result lost", lambda: found(rows=ROWS[1:])),
        ("result lost", lambda: found(C=("proven", "imei 9"))),
        ("pass without proof", lambda: found(boards=(board(1), *GOOD[1:]))),
        ("pass that changed nothing", lambda: found(rows=(row(GOOD[0], "A", applied=False),))),
        ("pass, but not proven", lambda: found(A=("failed", "imei 1"))),
        ("passed twice", lambda: found(rows=(*ROWS, row(GOOD[0], "A", n=1)))),
        ("lease stuck", lambda: found(C=("claimed", "imei 9"))),
    ],
)
def test_what_must_not_be_is_found(what: str, is_found: object) -> None:
    assert callable(is_found)
    assert what in is_found()


async def test_bad_luck_gives_no_identity_twice_and_loses_no_result(
    tmp_path: Path,
    postgresql: Server,  # noqa: F811
) -> None:
    result = await run_line(
        tmp_path, postgresql, boards=8, slots=4, stations=2, every=2.0, twins=0.2
    )
    assert result.bad == {}
    assert result.happened.total() > 0
    assert {piece.outcomes[-1] for piece in result.boards} <= {"pass", "fail"}
