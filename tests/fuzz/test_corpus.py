"""The corpus goes through its targets without atheris, and so does some random change of it."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from fuzz import TARGETS
from fuzz.run import load, main, mutate

ROOT = Path(__file__).parents[2]
CORPUS = ROOT / "fuzz" / "corpus"


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus_has_no_finding(name: str) -> None:
    target = load(name)
    paths = sorted((CORPUS / name).iterdir())
    assert paths
    for path in paths:
        target.one(path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_changes_of_the_corpus_have_no_finding(name: str) -> None:
    target = load(name)
    seeds = [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]
    rng = random.Random(name)
    for _ in range(150):
        target.one(mutate(rng.choice(seeds), rng, target.TOKENS, rng.choice(seeds))[:1024])


def test_the_corpus_is_small() -> None:
    assert sum(path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()) < 300_000


def test_a_finding_is_told_and_written_down(tmp_path: Path) -> None:
    """By the runner without atheris, in a process of its own."""
    broken = "import fuzz.answers as a; a.one = lambda data: 1 / 0;"
    program = f"{broken} import fuzz.run as r; raise SystemExit(r.main(r.sys.argv[1:]))"
    seeds = tmp_path / "seeds"
    seeds.mkdir()
    (seeds / "one").write_bytes(b"bc95|signal|+CSQ:18,99")
    done = subprocess.run(
        [
            *(sys.executable, "-c", program, "answers", str(seeds), "-plain"),
            *("-max_total_time=1", f"-artifact_prefix={tmp_path}/answers-"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 77
    assert "ZeroDivisionError" in done.stderr
    (written,) = tmp_path.glob("answers-crash-*")
    assert written.read_bytes() == b"bc95|signal|+CSQ:18,99"


def test_a_file_is_run_once(capsys: pytest.CaptureFixture[str]) -> None:
    path = next((CORPUS / "settings").iterdir())
    assert main(["settings", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}: fine\n"
