"""Run one target: ``python -m fuzz.run TARGET [-option=value ...] [FILE or FOLDER ...]``.

Files are run once each, without atheris: that is how a finding is looked at. With folders the
target is fuzzed from what is in them; options are libFuzzer's, as atheris has them. Where atheris
is not installed, a mutator without feedback does what it can and takes the options of PLAIN.
"""

from __future__ import annotations

import hashlib
import importlib
import random
import shlex
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, cast

from fuzz import TARGETS

if TYPE_CHECKING:
    from fuzz.script import Target

PLAIN = {"max_total_time": 10.0, "max_len": 4096.0, "seed": 0.0}
INSTRUMENTED = ["nbiot", "modems", "hil"]
FINDING = 77  # libFuzzer's exit code


def load(name: str) -> Target:
    """The module of target ``name``."""
    return cast("Target", importlib.import_module(f"fuzz.{name}"))


def replay(target: Target, paths: Sequence[Path]) -> int:
    """Run each file once."""
    failed = 0
    for path in paths:
        try:
            target.one(path.read_bytes())
        except Exception:
            traceback.print_exc()
            print(f"{path}: a finding")
            failed = 1
        else:
            print(f"{path}: fine")
    return failed


def with_atheris(name: str, arguments: Sequence[str]) -> int:
    """Never returns: libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=INSTRUMENTED):
        target = load(name)
    with tempfile.NamedTemporaryFile("w", suffix=".dict") as words:
        for token in filter(None, dict.fromkeys(target.TOKENS)):
            escaped = "".join(f"\\x{byte:02x}" for byte in token[:120])
            words.write(f'"{escaped}"\n')
        words.flush()
        # libFuzzer gives its first argument to the shell when it starts itself again.
        again = f"{shlex.quote(sys.executable)} -m fuzz.run {name}"
        atheris.Setup([again, f"-dict={words.name}", *arguments], target.one)
        atheris.Fuzz()
    return 0


# --- without atheris ------------------------------------------------------------------------------


def mutate(data: bytes, rng: random.Random, tokens: Sequence[bytes], other: bytes) -> bytes:
    """``data`` with a few changes."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 5)):
        at, end = sorted((rng.randint(0, len(out)), rng.randint(0, len(out))))
        piece = bytes(out[at : min(end, at + 40)])
        change: Callable[[], object] = rng.choice(
            (
                lambda at=at: out.__setitem__(slice(at, at), rng.choice(tokens)),
                lambda at=at: out.__setitem__(slice(at, at + 8), rng.choice(tokens)),
                lambda at=at: out.__setitem__(slice(at, at + 1), rng.randbytes(1)),
                lambda at=at: out.__setitem__(slice(at, at), rng.randbytes(rng.randint(1, 4))),
                lambda at=at, end=end: out.__delitem__(slice(at, min(end, at + 20))),
                lambda at=at, piece=piece: out.__setitem__(slice(at, at), piece),
                lambda at=at: out.__setitem__(slice(at, None), other[at:]),
            )
        )
        change()
    return bytes(out)


def without_atheris(name: str, options: dict[str, str], folders: Sequence[Path]) -> int:
    """Mutate what is in ``folders`` until the time is over or something is found."""
    wanted = PLAIN | {key: float(options[key]) for key in PLAIN if key in options}
    target = load(name)
    seeds = [p.read_bytes() for folder in folders for p in sorted(folder.glob("*")) if p.is_file()]
    seeds = seeds or [b""]
    rng = random.Random(int(wanted["seed"]) or None)
    began, runs = time.monotonic(), 0
    found = 0
    while time.monotonic() - began < wanted["max_total_time"] or runs < len(seeds):
        if runs < len(seeds):
            data = seeds[runs]
        else:
            data = mutate(rng.choice(seeds), rng, target.TOKENS, rng.choice(seeds))
            data = data[: int(wanted["max_len"])]
        runs += 1
        try:
            target.one(data)
        except Exception:
            traceback.print_exc()
            digest = hashlib.sha1(data, usedforsecurity=False).hexdigest()
            path = Path(f"{options.get('artifact_prefix', './')}crash-{digest}")
            path.write_bytes(data)
            print(f"Test unit written to {path}", file=sys.stderr)
            found = FINDING
            break
    took = max(time.monotonic() - began, 0.001)
    print(f"stat::number_of_executed_units: {runs}", file=sys.stderr)
    print(f"stat::average_exec_per_sec:     {int(runs / took)}", file=sys.stderr)
    return found


def main(arguments: Sequence[str]) -> int:
    """The command line."""
    if not arguments or arguments[0] not in TARGETS:
        print(__doc__, f"\nTargets: {', '.join(TARGETS)}", file=sys.stderr)
        return 2
    name, *rest = arguments
    paths = [Path(word) for word in rest if not word.startswith("-")]
    shortens = any(word.startswith("-minimize_crash") for word in rest)
    if paths and all(path.is_file() for path in paths) and not shortens:
        return replay(load(name), paths)
    if "-plain" not in rest:
        with suppress(ImportError):
            return with_atheris(name, rest)
    words = (word.lstrip("-").partition("=") for word in rest if word.startswith("-"))
    return without_atheris(name, {key: value for key, _, value in words}, paths)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
