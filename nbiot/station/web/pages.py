"""The HTML: templates, filled. What a slot shows depends on its view and the language alone, so it
is made once for all browsers, and only when it changed.
"""

from __future__ import annotations

import hashlib
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, NamedTuple
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from nbiot.station import words
from nbiot.station.board import MOST_FREE, SlotState, SlotView, StationView
from nbiot.station.record import Measurement, Outcome, Reason, Record

FEW = 20
"""Free identities at which the page begins to warn."""

OUTCOME_CLASS = {
    Outcome.PASS: "passed",
    Outcome.FAIL: "failed",
    Outcome.ERROR: "error",
    Outcome.ABORTED: "error",
    Outcome.SKIPPED: "skipped",
}

MEDIA = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".LICENSE": "text/plain; charset=utf-8",
}


@dataclass(frozen=True)
class StaticFile:
    """A file of ``static``, in memory: there are few, and they are small."""

    body: bytes
    media_type: str


class Part(NamedTuple):
    """HTML that replaces what a page shows in one place, if the page shows another ``version``."""

    html: str
    version: str


class Say:
    """The words of one language, for templates."""

    def __init__(self, language: str) -> None:
        self.language = language

    def text(self, key: str) -> str:
        """See ``words.text``."""
        return words.text(key, self.language)

    def state(self, of: SlotState) -> words.Words:
        """See ``words.state``."""
        return words.state(of, self.language)

    def waiting(self, why: Reason | None) -> words.Words:
        """See ``words.waiting``."""
        return words.waiting(why, self.language)

    def outcome(self, of: Outcome) -> str:
        """See ``words.outcome``."""
        return words.outcome(of, self.language)

    def phase(self, name: str) -> str:
        """See ``words.phase``."""
        return words.phase(name, self.language)

    def measure(self, name: str) -> str:
        """See ``words.measure``."""
        return words.measure(name, self.language)

    def reason(self, of: Reason) -> words.Words:
        """See ``words.reason``."""
        return words.reason(of, self.language)

    def limits(self, of: Measurement) -> str:
        """See ``words.limits_of``."""
        return words.limits_of(of.low, of.high, of.allowed, of.unit, self.language)


class Pages:
    """Templates and static files, read once. Making it reads the disk: do it in a thread.

    may_skip: whether the recipe has a phase that may be skipped
    """

    def __init__(self, clock: Callable[[], float] = time.time, *, may_skip: bool = False) -> None:
        self._may_skip = may_skip
        self.static = _read_static()
        self.version = _version(self.static)
        self._clock = clock
        self._templates = _read_templates()
        self._says = {language: Say(language) for language in words.LANGUAGES}
        self._faces: dict[tuple[str, str], tuple[SlotView, Part]] = {}
        self._actions: dict[tuple[str, str], tuple[object, Part]] = {}

    def page(self, name: str, language: str, **values: Any) -> str:
        """A whole page, or a part that is asked for by itself."""
        template = self._templates[name]
        shared = {"say": self._says[language], "clock": self._clock, "version": self.version}
        return template.render(shared, **values)

    def part(self, name: str, language: str, **values: Any) -> Part:
        """A part that comes over the stream."""
        html = " ".join(self.page(name, language, **values).split("\n")).strip()
        return Part(html, f"{zlib.crc32(html.encode()):08x}")

    def face(self, view: SlotView, language: str) -> Part:
        """What a tile shows."""
        known = self._faces.get((view.name, language))
        if known is None or known[0] is not view:
            known = view, self.part("face.html", language, view=view)
            self._faces[view.name, language] = known
        return known[1]

    def actions(self, view: SlotView, language: str) -> Part:
        """A tile's buttons. They change seldom, and not under a finger that presses them."""
        matters = view.state, view.record, view.reason.code if view.reason else ""
        known = self._actions.get((view.name, language))
        if known is None or known[0] != matters:
            known = matters, self.part("actions.html", language, view=view, may_skip=self._may_skip)
            self._actions[view.name, language] = known
        return known[1]

    def summary(self, view: StationView, language: str) -> Part:
        """Today's yield, the station's health."""
        return self.part("summary.html", language, view=view, few=FEW, most=MOST_FREE)


# --- filters ------------------------------------------------------------------------------------


def event_name(slot: str) -> str:
    """A slot's name as part of an event's name and of an id: those know no commas and spaces."""
    return quote(slot, safe="")


def minutes(seconds: float | None) -> str:
    """A duration: "0:42", "12:05"; a dash if there is none."""
    if seconds is None:
        return "–"
    return f"{int(seconds + 0.5) // 60}:{int(seconds + 0.5) % 60:02}"


def short_seconds(seconds: float) -> str:
    """A phase's duration: "0.42 s", "12.1 s"."""
    return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"


def clock_time(when: float) -> str:
    """Local time of day."""
    return time.strftime("%H:%M:%S", time.localtime(when))


def date(when: float) -> str:
    """Local date, as ISO 8601 has it."""
    return time.strftime("%Y-%m-%d", time.localtime(when))


def thousands(number: int) -> str:
    """A count with thin spaces: 12 345."""
    return f"{number:,}".replace(",", "\u202f")


def share(good: int, bad: int) -> str:
    """The yield: "98.1 %"; 100 only when nothing failed."""
    if not good + bad:
        return "–"
    percent = 100 * good / (good + bad)
    return f"{min(percent, 99.9) if bad else percent:.{0 if percent == 100 else 1}f}\u202f%"


def when(moment: float, now: float) -> str:
    """Local time; with its date when that is not today."""
    today = date(moment) == date(now)
    return clock_time(moment) if today else f"{date(moment)} {clock_time(moment)}"


def duration(record: Record) -> float:
    """s that a run took."""
    return max(0.0, record.ended - record.started)


FILTERS: dict[str, Callable[..., Any]] = {
    "amount": words.amount,
    "clock_time": clock_time,
    "date": date,
    "event_name": event_name,
    "minutes": minutes,
    "share": share,
    "short_seconds": short_seconds,
    "thousands": thousands,
    "when": when,
}


# --- files --------------------------------------------------------------------------------------


@cache
def _read_templates() -> dict[str, Template]:
    """Compiled, by name: once per process."""
    loader = PackageLoader("nbiot.station.web")
    env = Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=StrictUndefined,
    )  # fmt: skip
    env.filters |= FILTERS
    env.globals["outcome_class"] = OUTCOME_CLASS
    names = [name for name in loader.list_templates() if name.endswith(".html")]
    return {name: env.get_template(name) for name in names}


@cache
def _read_static() -> dict[str, StaticFile]:
    found = {}
    for file in resources.files("nbiot.station.web").joinpath("static").iterdir():
        suffix = f".{file.name.rpartition('.')[2]}"
        if suffix in MEDIA:
            found[file.name] = StaticFile(file.read_bytes(), MEDIA[suffix])
    return found


def _version(files: dict[str, StaticFile]) -> str:
    """Changes with any of the files: browsers may keep them for ever under this name."""
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(name.encode() + b"\0" + files[name].body)
    return digest.hexdigest()[:12]
