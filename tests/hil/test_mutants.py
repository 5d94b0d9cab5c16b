"""A driver that is broken on purpose is caught by the suite."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.unhygienic
def test_each_mutant_is_caught() -> None:
    options = [] if os.environ.get("HIL_MUTANTS") == "all" else ["--quick"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.hil.mutants", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all caught" in done.stdout
