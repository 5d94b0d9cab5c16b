"""A program that carries out a command from EnOS: JSON in, JSON out, an exit code."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from nbiot.errors import BadInput, BadReply
from nbiot.programs import MOST_OUTPUT, run_program

USER_CODE = 2000  # EnOS: codes from here on are the user's own
SIGNALLED = 128  # added to the number of a signal, as shells do
NOT_HANDLED, FAILED = 1101, 1102  # codes of EnOS's own SDKs


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is to be answered. ``said``: for this side's ears only."""

    code: int
    data: Any = None
    message: str = ""
    said: str = ""
    exit: int | None = None
    seconds: float = 0.0


class Program:
    """Runs ``line`` once for each command, for ``seconds`` at most.

    It gets the environment without ``hidden``, and a process group of its own, which ends with it
    when the time is up or this process is interrupted. Raises BadInput when there is no such
    program.
    """

    def __init__(self, line: Sequence[str], seconds: float, hidden: Sequence[str] = ()) -> None:
        found = shutil.which(line[0])
        if found is None:
            raise BadInput("exec", line[0], "a program in the PATH, or a path of one (./handler)")
        self._line = [found, *line[1:]]
        self._seconds = seconds
        self._hidden = set(hidden)

    async def run(self, about: Mapping[str, Any]) -> Outcome:
        """Carry out the command ``about``."""
        began = time.monotonic()
        environment = {k: v for k, v in os.environ.items() if k not in self._hidden}
        data = json.dumps(about).encode() + b"\n"
        try:
            ran = await run_program(self._line, data, self._seconds, environment)
        except OSError as error:
            return Outcome(FAILED, message="not started", said=f"not started: {error.strerror}")
        if ran.status is None:
            words = f"not done within {self._seconds:g} s"
            return Outcome(FAILED, message=words, said=_with_last_line(words, ran.stderr))
        took = round(time.monotonic() - began, 3)
        return _outcome(ran.status, ran.stdout, ran.stderr, about["kind"] == "raw", took)


def _outcome(status: int, stdout: bytes, stderr: bytes, is_raw: bool, seconds: float) -> Outcome:
    if status < 0:
        name = signal.Signals(-status).name
        code, words = USER_CODE + SIGNALLED - status, f"ended by {name}"
    else:
        code, words = USER_CODE + status, f"exit code {status}"
    if status:
        said = _with_last_line(words, stderr)
        return Outcome(code, message=words, said=said, exit=status, seconds=seconds)
    try:
        data = _data(stdout, is_raw)
    except BadReply as error:
        return Outcome(
            FAILED, message="no valid output", said=error.message, exit=0, seconds=seconds
        )
    return Outcome(200, data, exit=0, seconds=seconds)


def _data(stdout: bytes, is_raw: bool) -> Any:
    """What the program answered. Raises BadReply."""
    from nbiot.enos.things import from_json

    if len(stdout) > MOST_OUTPUT:
        raise BadReply(f"its output is longer than {MOST_OUTPUT} bytes")
    if not stdout.strip():
        return None
    try:
        found = from_json(stdout)
    except BadReply as error:
        raise BadReply(f"its output is {error.message}") from None
    if not is_raw:
        return found
    with suppress(TypeError, ValueError, KeyError):
        return bytes.fromhex(found["hex"])
    raise BadReply('its output is not {"hex": "0102"}, as the answer to a raw command')


def _with_last_line(words: str, stderr: bytes) -> str:
    lines = stderr.decode("utf-8", "backslashreplace").strip().splitlines()
    last = "".join(c if c.isprintable() else "?" for c in lines[-1][:200]) if lines else ""
    return f"{words}: {last}" if last else words
