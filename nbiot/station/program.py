"""The external program of a phase: JSON on its stdin, JSON on its stdout, a time limit.

It gets one object: run, station, slot, phase, port, what was found so far (imei, iccid, model,
...), and ``identity`` where the recipe says so. It answers with nothing, or with one object::

    {"outcome": "pass",                       # or "fail", "error"; else its exit code decides
     "message": "...", "hint": "...",         # why, for the operator
     "measurements": [{"name": "sleep_current", "value": 3.1, "unit": "uA", "high": 5}]}

Exit code 0 means pass, any other one fail. What it says on stderr is kept in the record.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nbiot import programs
from nbiot.errors import BadReply
from nbiot.programs import MOST_OUTPUT, Ran
from nbiot.station.reasons import NotGood
from nbiot.station.recipe import Range
from nbiot.station.record import Outcome, Value

if TYPE_CHECKING:
    from nbiot.station.recipe import Program
    from nbiot.station.work import Work

MOST_MEASUREMENTS = 200
MOST_TEXT = 1000  # characters of a text in an answer


async def run_program(work: Work, phase: Program, about: Mapping[str, Any]) -> None:
    """Run it; its measurements become the phase's. Raises NotGood."""
    asked = dict(about)
    if phase.identity:
        claim = await work.bind()
        asked["identity"] = {
            "product_key": claim.product_key,
            "device_key": claim.device_key,
            "device_secret": claim.secret.reveal(),
        }
    ran = await _run(phase, asked)
    stdout, stderr = ran.stdout, ran.stderr
    if phase.identity:  # a program may repeat what it was told, and records are no place for it
        stdout, stderr = (
            text.replace(claim.secret.reveal().encode(), b"***") for text in (stdout, stderr)
        )
    said = stderr.decode("utf-8", "backslashreplace").strip()
    if said:
        work.measure("stderr", said)
    if ran.status is None:
        raise NotGood(
            "timeout",
            f"{phase.command[0]} was not done within {phase.seconds:g} s",
            hint="It was ended. Give the phase more seconds, or look what it waits for.",
            outcome=Outcome.ERROR,
            program=phase.command[0],
        )
    if len(ran.stdout) > MOST_OUTPUT:
        raise _bad_output(phase, f"is longer than {MOST_OUTPUT} bytes")
    _judge(work, phase, ran.status, _answer(phase, stdout, ran.status), said)


def _judge(work: Work, phase: Program, status: int, answer: dict[str, Any], said: str) -> None:
    for item in answer.get("measurements", []):
        _measure(work, phase, item)
    outcome = Outcome(answer.get("outcome") or ("fail" if status else "pass"))
    if outcome is Outcome.PASS and status:
        outcome = Outcome.FAIL
    if outcome is Outcome.PASS:
        return
    last = said.splitlines()[-1][:200] if said else ""
    words = answer.get("message") or last or f"{phase.command[0]} ended with {_ended(status)}"
    hint = answer.get("hint", "")
    name = phase.command[0]
    raise NotGood("program_failed", words, hint=hint, outcome=outcome, program=name, exit=status)


def _ended(status: int) -> str:
    return f"exit code {status}" if status >= 0 else signal.Signals(-status).name


# --- its answer -------------------------------------------------------------------------------


def _answer(phase: Program, stdout: bytes, status: int) -> dict[str, Any]:
    """The object it answered; empty when it said nothing."""
    from nbiot.enos.things import from_json

    if not stdout.strip():
        return {}
    try:
        found = from_json(stdout)
    except BadReply as error:
        if status:
            return {}  # it failed, and stderr says why
        raise _bad_output(phase, f"is {error.message}") from None
    if not isinstance(found, dict):
        raise _bad_output(phase, "is no JSON object")
    for key, value in found.items():
        if key not in ("outcome", "message", "hint", "measurements"):
            raise _bad_output(phase, f"has an unknown key {key[:40]!r}")
        if key in ("message", "hint") and not _is_text(value):
            raise _bad_output(phase, f"has a {key} that is no text of up to {MOST_TEXT} characters")
    if found.get("outcome", "pass") not in ("pass", "fail", "error"):
        raise _bad_output(phase, "has an outcome that is not pass, fail or error")
    items = found.get("measurements", [])
    if not isinstance(items, list) or len(items) > MOST_MEASUREMENTS:
        raise _bad_output(
            phase, f"has measurements that are no list of {MOST_MEASUREMENTS} at most"
        )
    return found


def _measure(work: Work, phase: Program, item: Any) -> None:
    if not isinstance(item, dict) or not _is_text(item.get("name")) or "value" not in item:
        raise _bad_output(phase, "has a measurement without name and value")
    name = item["name"]
    for key, value in item.items():
        if key in ("low", "high"):
            good = _is_number(value) or value is None
        elif key == "allowed":
            good = isinstance(value, list) and all(_is_value(one) for one in value)
        elif key == "unit":
            good = _is_text(value)
        else:
            good = key in ("name", "value") and _is_value(value)
        if not good:
            raise _bad_output(phase, f"has a measurement {name[:40]!r} with a bad {key[:40]!r}")
    work.measure(
        name,
        item["value"],
        item.get("unit", ""),
        Range(item.get("low"), item.get("high")),
        tuple(item.get("allowed", ())),
    )


def _is_text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= MOST_TEXT


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_value(value: Value | object) -> bool:
    return value is None or _is_text(value) or isinstance(value, (bool, int, float))


def _bad_output(phase: Program, what: str) -> NotGood:
    return NotGood(
        "program_output",
        f"the output of {phase.command[0]} {what}",
        hint="docs/station.md tells what a program answers.",
        outcome=Outcome.ERROR,
        program=phase.command[0],
    )


# --- running it ---------------------------------------------------------------------------------


async def _run(phase: Program, asked: dict[str, Any]) -> Ran:
    line = await asyncio.to_thread(_line, phase)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("NBIOT_")}
    data = json.dumps(asked).encode() + b"\n"
    try:
        return await programs.run_program(line, data, phase.seconds, environment, alone=True)
    except OSError as error:
        raise NotGood(
            "program_failed",
            f"{phase.command[0]} does not start: {error.strerror}",
            outcome=Outcome.ERROR,
            program=phase.command[0],
        ) from None


def _line(phase: Program) -> list[str]:
    """The program, which ends with the station where the system can do that: a flash tool that
    outlives a killed station would keep the port of the next run.
    """
    setpriv = shutil.which("setpriv")
    return [*([setpriv, "--pdeathsig", "KILL"] if setpriv else []), *phase.command]
