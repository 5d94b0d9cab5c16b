"""Run all targets for a while: ``python -m fuzz [--seconds 60] [--jobs N] [TARGET ...]``.

Each target starts from its corpus in fuzz/corpus. The exit code is 1 when something was found; the
input is in fuzz/findings then, and the last lines say how to run it again.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from fuzz import TARGETS

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
FINDINGS = HERE / "findings"
PATIENCE = 90.0  # s beyond its time that a target may take to start and to end
MAX_LEN = 4096


@dataclass(frozen=True)
class Outcome:
    """What became of one target."""

    name: str
    runs: int
    speed: int
    coverage: str
    findings: tuple[Path, ...]
    broken: str = ""
    words: str = ""


def fuzz(name: str, seconds: float, plain: bool, keep: bool) -> Outcome:
    """Fuzz one target for ``seconds`` in a process of its own."""
    FINDINGS.mkdir(exist_ok=True)
    before = set(FINDINGS.glob(f"{name}-*"))
    with tempfile.TemporaryDirectory() as scratch:
        # libFuzzer writes what is new into the first folder.
        folders = [str(CORPUS / name)] if keep else [scratch, str(CORPUS / name)]
        command = [
            *(sys.executable, "-m", "fuzz.run", name, *folders),
            f"-max_total_time={max(int(seconds), 1)}",
            f"-max_len={MAX_LEN}",
            f"-artifact_prefix={os.path.relpath(FINDINGS)}/{name}-",
            *("-print_final_stats=1", "-timeout=20", "-rss_limit_mb=2048"),
            *(["-plain"] if plain else []),
        ]
        environment = os.environ | {"PYTHONPATH": str(HERE.parent)}
        try:
            done = subprocess.run(
                command,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=seconds + PATIENCE,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            text = (error.stdout or b"").decode("utf-8", "replace")
            return Outcome(name, 0, 0, "", (), f"no end after {error.timeout:g} s", text)
    text = done.stdout.decode("utf-8", "replace")
    findings = tuple(sorted(set(FINDINGS.glob(f"{name}-*")) - before))
    broken = f"exit code {done.returncode}" if done.returncode and not findings else ""
    return Outcome(
        name,
        _last(r"stat::number_of_executed_units: *(\d+)", text) or _last(r"^#(\d+)\t", text),
        _last(r"stat::average_exec_per_sec: *(\d+)", text),
        "".join(re.findall(r" cov: (\d+) ", text)[-1:]),
        findings,
        broken,
        text,
    )


def _last(pattern: str, text: str) -> int:
    found = re.findall(pattern, text, re.MULTILINE)
    return int(found[-1]) if found else 0


def describe(outcome: Outcome) -> str:
    """One line."""
    count = len(outcome.findings)
    verdict = outcome.broken or f"{count} finding{'' if count == 1 else 's'}"
    cover = f", {outcome.coverage} edges" if outcome.coverage else ""
    return (
        f"{outcome.name:10} {outcome.runs:>9,} executions {outcome.speed:>7,}/s"
        f"{cover:>13}  {verdict}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__.split("\n")[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=float, default=60.0, help="for all together (60)")
    parser.add_argument("--jobs", type=int, default=min(os.cpu_count() or 1, 4))
    parser.add_argument("--plain", action="store_true", help="without atheris")
    parser.add_argument("--keep", action="store_true", help="put new inputs into the corpus")
    asked = parser.parse_args(arguments)
    names = asked.targets or list(TARGETS)
    if unknown := set(names) - set(TARGETS):
        parser.error(f"no target {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    plain = asked.plain
    if not plain and importlib.util.find_spec("atheris") is None:
        print(
            f"atheris is not here (Python {platform.python_version()} on {platform.system()}"
            f" {platform.machine()}; it has wheels for 3.11 to 3.13 on Linux x86_64)."
            " Running the same targets with a mutator without feedback instead.",
            flush=True,
        )
        plain = True
    seconds = asked.seconds * min(asked.jobs, len(names)) / len(names)
    began = time.monotonic()
    with ThreadPoolExecutor(asked.jobs) as pool:
        outcomes = list(pool.map(lambda name: fuzz(name, seconds, plain, asked.keep), names))
    bad = False
    for outcome in outcomes:
        print(describe(outcome))
    for outcome in outcomes:
        for path in outcome.findings:
            short = os.path.relpath(path)
            print(f"\n{outcome.name} found {short}; run it again with")
            print(f"    {os.path.relpath(sys.executable)} -m fuzz.run {outcome.name} {short}")
        if outcome.findings or outcome.broken:
            bad = True
            print("\n".join(_telling(outcome.words)))
    print(f"fuzzed for {time.monotonic() - began:.0f} s {'without' if plain else 'with'} atheris")
    return 1 if bad else 0


def _telling(words: str) -> list[str]:
    """The lines of a target's output from the exception on."""
    lines = [line for line in words.splitlines() if not line.startswith(("INFO", "#", "MS:"))]
    starts = [i for i, line in enumerate(lines) if "Traceback" in line or "xception" in line]
    return lines[max(starts[0] if starts else 0, len(lines) - 80) :][:60]


if __name__ == "__main__":
    sys.exit(main())
