"""Each fault and each profile: no wrong answer, no hang, nothing claimed, no URC lost."""

from __future__ import annotations

import pytest

from tests.faults.table import MODELS, faults_of, play

SEEDS = range(5)  # `python -m tests.faults.table 1000` plays as many as you like


@pytest.mark.parametrize(
    ("model", "fault"), [(model, fault) for model in MODELS for fault in faults_of(model)]
)
def test_a_fault_makes_errors_but_no_lies(model: str, fault: str) -> None:
    played = [play(model, fault, seed) for seed in SEEDS]
    assert [line for outcome in played for line in outcome.bad] == []


@pytest.mark.parametrize("model", MODELS)
def test_the_table_is_not_idle(model: str) -> None:
    """Over a few more seeds each fault of the table really happens."""
    for fault in faults_of(model):
        assert any(play(model, fault, seed).happened for seed in range(100, 140)), fault
