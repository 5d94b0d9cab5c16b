"""What a test on a slot leaves behind: its steps with their times, its AT trace, who the modem was.

And what a slot can do, so that a test can be skipped by name.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import asyncio

    from hil.rig import Slot
    from nbiot.profile import Progress
    from nbiot.trace import FileTracer

SHOWN = 60  # lines of a dialogue in a report section
KEPT = 400  # records of a dialogue that go into the reports
STEPS = 400  # that are kept of a test: its first and its last


@dataclass(frozen=True, slots=True)
class Step:
    """Something that happened at ``t`` seconds after the test began; see nbiot.profile.Progress."""

    t: float
    step: str
    text: str


@dataclass
class Record:
    """Of one test on one slot."""

    slot: Slot
    steps: list[Step] = field(default_factory=list)
    steps_left_out: int = 0
    model: str = ""
    firmware: str = ""
    profile: str = ""
    failed: bool = False
    tracer: FileTracer | None = None
    trace: Path | None = None
    limit: asyncio.Timeout | None = None
    """When the test must have ended; in the loop's time."""
    task: asyncio.Task[Any] | None = None
    """Runs the test, while it runs."""
    lost: str = ""
    """Why the slot was taken away meanwhile."""
    began: float = field(default_factory=time.monotonic)

    def report(self, step: Progress) -> None:
        """A listener for Modem, Supervisor and EnosSession."""
        self.steps.append(Step(time.monotonic() - self.began, step.step, step.text))
        if len(self.steps) > STEPS:  # an hour of use has a hundred thousand
            del self.steps[STEPS // 2]
            self.steps_left_out += 1

    def allow(self, seconds: float) -> None:
        """The test may take so much longer."""
        if self.limit is not None and (when := self.limit.when()) is not None:
            self.limit.reschedule(when + seconds)

    def shown_trace(self) -> str:
        """The end of the dialogue in plain text, and where all of it is."""
        records = self._records()
        lines = [
            f"{r.t:8.3f} {r.dir} {r.note or shown(r.raw)}{f'  ({r.event})' if r.event else ''}"
            for r in records[-SHOWN:]
        ]
        if len(records) > SHOWN:
            lines.insert(0, f"         ... {len(records) - SHOWN} lines before")
        return "\n".join([f"all of it: {self.trace}", *lines])

    def _records(self) -> list[Any]:
        from nbiot.errors import BadInput
        from nbiot.trace import read_trace

        with suppress(BadInput):
            if self.trace is not None:
                return read_trace(self.trace).records
        return []

    def finish(self) -> None:
        """The trace of a test that passed is of no use."""
        if not self.failed and self.trace is not None:
            with suppress(OSError):
                self.trace.unlink()

    def as_dict(self, item: pytest.Item) -> dict[str, Any]:
        """For the reports."""
        records = self._records() if self.failed else []
        return {
            "slot": self.slot.name,
            "emulated": self.slot.emulated,
            "model": self.model,
            "firmware": self.firmware,
            "profile": self.profile,
            "group": group_of(item),
            "title": title_of(item),
            "worker": os.environ.get("PYTEST_XDIST_WORKER", ""),
            "steps": [[round(step.t, 4), step.step, step.text] for step in self.steps],
            "steps_left_out": self.steps_left_out,
            "trace": str(self.trace) if self.failed and self.trace else "",
            "left_out": max(0, len(records) - KEPT),
            "dialogue": [[r.t, r.dir, r.note or shown(r.raw), r.event] for r in records[-KEPT:]],
        }


def shown(raw: bytes) -> str:
    """Bytes of a line as people read them: no line ends, no control characters."""
    text = raw.decode("latin-1").strip("\r\n\0")
    return re.sub(r"[^\x20-\x7e]", lambda found: f"\\x{ord(found[0]):02x}", text)


def group_of(item: pytest.Item) -> str:
    """The module of a test, as words."""
    name = Path(str(item.path)).stem.removeprefix("test_")
    return name.replace("_", " ")


def title_of(item: pytest.Item) -> str:
    """What a test checks, in its own words, with its parameters."""
    function: Any = getattr(item, "function", None)
    name = getattr(item, "originalname", item.name)
    words = (function.__doc__ or "").strip().split("\n\n")[0] if function is not None else ""
    title = " ".join(words.split()).rstrip(".") or name.removeprefix("test_").replace("_", " ")
    callspec = getattr(item, "callspec", None)
    slot = getattr(callspec.params.get("slot"), "name", "") if callspec is not None else ""
    others = [
        part
        for part in getattr(callspec, "_idlist", ())
        if part != slot and not re.fullmatch(re.escape(slot) + r"-\d+", part)
    ]
    return f"{title} ({', '.join(others)})" if others else title


# --- what a slot can do -------------------------------------------------------------------------


def capabilities(slot: Slot, config: pytest.Config) -> Callable[[str], str]:
    """A function that says why ``slot`` has not got what it is asked for; empty when it has."""

    def lacking(need: str) -> str:
        if need in slot.tags:
            return ""
        if need not in WORDS:
            return f"needs {need!r}, which is no tag of this slot"
        has, words = WORDS[need]
        return "" if has(slot, config) else words

    return lacking


def own_stand_in(slot: Slot) -> bool:
    """Does the slot talk to a stand-in of this process?"""
    return slot.emulated and slot.server is None


WORDS: dict[str, tuple[Callable[[Any, pytest.Config], bool], str]] = {
    "emulator": (lambda slot, _: slot.emulated, "needs a software modem"),
    "power": (lambda slot, _: slot.emulated or bool(slot.power), "needs power control"),
    "reset": (
        lambda slot, _: slot.emulated or bool(slot.reset or slot.power),
        "needs reset or power control",
    ),
    "cloud": (lambda slot, _: own_stand_in(slot), "needs a look inside the EnOS stand-in"),
    "enos": (
        lambda slot, _: (
            own_stand_in(slot) or bool(slot.server and slot.product_key and slot.secret)
        ),
        "needs server, product key and secret in the rig file",
    ),
    "echo": (
        lambda slot, config: slot.emulated or bool(config.getoption("--echo")),
        "needs a UDP echo server that the modem reaches (--echo HOST:PORT)",
    ),
}


def not_this_modem(slot: Slot, wanted: Iterable[str], profile: str = "") -> str:
    """Why a test for modems of the profiles ``wanted`` is not for this slot, as far as known."""
    known = profile or ("" if slot.modem == "auto" else slot.modem)
    wanted = tuple(wanted)
    if not known or known in wanted:
        return ""
    return f"this test is for {' and '.join(wanted)}, the slot has a {known}"
