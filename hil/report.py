"""What came of a run of the suite: gathered from pytest; as a table, JSON, or one HTML page."""

from __future__ import annotations

import html
import json
import platform
import re
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

OUTCOMES = ("failed", "passed", "skipped")
PACKAGES = ("pytest", "pytest-asyncio", "pytest-xdist", "pyserial", "aiocoap")
# Lines of pytest that take an assertion apart, beside the words that it has of its own.
_EXPLAINS = re.compile(r" *(\+ |assert )")
TEMPLATE = Path(__file__).with_name("report.html")


@dataclass
class Check:
    """One check on one slot. ``words``: why it failed or was skipped, in a line or two;
    ``worker``: of pytest-xdist.
    """

    nodeid: str
    slot: str = ""
    group: str = ""
    title: str = ""
    outcome: str = "passed"
    seconds: float = 0.0
    words: str = ""
    details: str = ""
    steps: list[tuple[float, str, str]] = field(default_factory=list)
    dialogue: list[tuple[float, str, str, str]] = field(default_factory=list)
    left_out: int = 0
    trace: str = ""
    worker: str = ""
    steps_left_out: int = 0


@dataclass
class SlotInfo:
    """A slot and who was in it."""

    name: str
    emulated: bool
    port: str = ""
    model: str = ""
    firmware: str = ""
    profile: str = ""


@dataclass
class Run:
    """Everything that a report tells. ``problems``: what kept the suite from running."""

    rig: str = ""
    command: str = ""
    started: float = field(default_factory=time.time)
    seconds: float = 0.0
    interrupted: bool = False
    expected: int = 0
    slots: dict[str, SlotInfo] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def count(self, slot: str | None = None, group: str | None = None) -> Counter[str]:
        """How many checks ended how."""
        return Counter(
            check.outcome
            for check in self.checks
            if slot in (None, check.slot) and group in (None, check.group)
        )

    @property
    def groups(self) -> list[str]:
        """In the order in which they ran."""
        return list(dict.fromkeys(check.group for check in self.checks))

    @property
    def verdict(self) -> str:
        """In a few words."""
        found = self.count()
        if self.problems:
            return f"the suite did not run: {self.problems[0].splitlines()[0]}"
        words = [f"{found[outcome]} {outcome}" for outcome in OUTCOMES if found[outcome]]
        said = ", ".join(words) or "nothing was checked"
        if self.interrupted:
            left = f" of {self.expected}" if self.expected else ""
            return f"interrupted after {len(self.checks)}{left} checks: {said}"
        if not found["passed"] and not found["failed"]:
            return f"nothing was checked: {said}"
        return said

    @property
    def good(self) -> bool:
        """Something was checked, and all of it passed."""
        found = self.count()
        stopped = self.interrupted or self.problems
        return bool(found["passed"]) and not found["failed"] and not stopped

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "format": "nbiot hil run",
            "version": 1,
            "verdict": self.verdict,
            "good": self.good,
            "interrupted": self.interrupted,
            "rig": self.rig,
            "started": moment(self.started),
            "seconds": round(self.seconds, 3),
            "environment": environment(),
            "counts": {outcome: self.count()[outcome] for outcome in OUTCOMES},
            "slots": [asdict(slot) for slot in self.slots.values()],
            "problems": self.problems,
            "checks": [asdict(check) for check in self.checks],
        }


def moment(seconds: float) -> str:
    """A time since 1970 as text."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def environment() -> dict[str, str]:
    """Versions of what took part."""
    from nbiot import __version__

    found = {"nbiot": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found | {"system": platform.platform()}


# --- gathering ----------------------------------------------------------------------------------


class Collector:
    """A pytest plugin that fills a Run; works behind pytest-xdist, too."""

    def __init__(self, run: Run, *, tell: Any = None) -> None:
        self.run = run
        self._tell = tell or (lambda _: None)
        self._open: dict[str, Check] = {}
        self._began = time.monotonic()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.run.expected = len(session.items)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.run.problems.append(f"{report.nodeid or 'collection'}: {report.longrepr}")

    def pytest_internalerror(self, excrepr: Any) -> None:
        self.run.problems.append(f"pytest failed inside: {excrepr}")

    def pytest_keyboard_interrupt(self) -> None:
        self.run.interrupted = True

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.outcome == "rerun":
            self._open.pop(report.nodeid, None)
            return
        check = self._open.setdefault(report.nodeid, Check(report.nodeid))
        check.seconds += report.duration
        if report.outcome != "passed" and check.outcome != "failed":
            check.outcome = report.outcome
            check.words = words_of(report)
            if report.failed:
                check.details = str(report.longrepr)
        if report.when not in ("setup", "call"):  # a worker of xdist that died says "???"
            self._finish(check, getattr(report, "nbiot", {}))

    def _finish(self, check: Check, told: dict[str, Any]) -> None:
        del self._open[check.nodeid]
        self._fill(check, told)
        self.run.checks.append(check)
        self.run.seconds = time.monotonic() - self._began
        self._tell(check)

    def _fill(self, check: Check, told: dict[str, Any]) -> None:
        check.slot = told.get("slot", "")
        check.group = told.get("group", "")
        check.title = told.get("title", "") or check.nodeid
        check.steps = [(t, step, text) for t, step, text in told.get("steps", ())]
        check.steps_left_out = told.get("steps_left_out", 0)
        check.dialogue = [(t, way, text, event) for t, way, text, event in told.get("dialogue", ())]
        check.left_out = told.get("left_out", 0)
        check.trace = told.get("trace", "")
        check.worker = told.get("worker", "")
        if check.slot:
            slot = self.run.slots.setdefault(
                check.slot, SlotInfo(check.slot, told.get("emulated", False))
            )
            slot.model = slot.model or told.get("model", "")
            slot.firmware = slot.firmware or told.get("firmware", "")
            slot.profile = slot.profile or told.get("profile", "")

    def pytest_sessionfinish(self) -> None:
        """A check that was cut off by Ctrl-C counts as neither."""
        self._open.clear()
        self.run.seconds = time.monotonic() - self._began


def words_of(report: Any) -> str:
    """Why a test failed or was skipped, in its own words."""
    longrepr = report.longrepr
    if isinstance(longrepr, tuple):
        return str(longrepr[2]).removeprefix("Skipped: ")
    crash = getattr(longrepr, "reprcrash", None)
    text = crash.message if crash is not None else str(longrepr or "").strip()
    lines = [line.strip() for line in text.splitlines() if not _EXPLAINS.match(line)]
    lines = [line for line in lines if line] or text.splitlines()[:1] or [""]
    for prefix in ("AssertionError: ", "Failed: "):
        lines[0] = lines[0].removeprefix(prefix)
    lines[0] = re.sub(r"^nbiot\.errors\.(\w+): ", r"\1: ", lines[0])
    return " ".join(lines[:2])[:300]


# --- a table for the terminal -------------------------------------------------------------------


def table(run: Run, *, every_check: bool = False) -> str:
    """Groups of checks by slots; then what failed, and what was skipped and why."""
    slots = list(run.slots)
    rows = [["", *slots], ["", *(_who(run.slots[name]) for name in slots)]]
    for group in run.groups:
        rows.append([group, *(_cell(run.count(slot, group)) for slot in slots)])
        if every_check:
            rows += _check_rows(run, group, slots)
    rows.append(["", *(f"{_seconds(run, slot):.1f} s" for slot in slots)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    for title, outcome in (("Failed", "failed"), ("Skipped", "skipped")):
        if said := _reasons(run, outcome):
            lines += ["", f"{title}:", *said]
    return "\n".join([*lines, "", *run.problems, run.verdict])


def _who(slot: SlotInfo) -> str:
    kind = "emulated " if slot.emulated else ""
    return f"{kind}{slot.model or '?'}"


def _cell(found: Counter[str]) -> str:
    if found["failed"]:
        return f"{found['failed']} FAILED, {found['passed']} ok"
    skipped = f"{found['skipped']} skipped" if found["skipped"] else ""
    return ", ".join(filter(None, (f"{found['passed']} ok" if found["passed"] else "", skipped)))


def _check_rows(run: Run, group: str, slots: Sequence[str]) -> Iterable[list[str]]:
    words = {"passed": "ok", "failed": "FAILED", "skipped": "skipped"}
    checks = [check for check in run.checks if check.group == group]
    for title in dict.fromkeys(check.title for check in checks):
        row = [f"  {title}"]
        for slot in slots:
            found = Counter(c.outcome for c in checks if (c.slot, c.title) == (slot, title))
            row.append(words[next(iter(found))] if len(found) == 1 else _cell(found))
        yield [row[0][:70], *row[1:]]


def _seconds(run: Run, slot: str) -> float:
    return sum(check.seconds for check in run.checks if check.slot == slot)


def _reasons(run: Run, outcome: str) -> list[str]:
    lines = []
    seen: dict[str, list[str]] = {}
    for check in run.checks:
        if check.outcome != outcome:
            continue
        if outcome == "failed":
            lines.append(f"  {check.slot}  {check.group}: {check.title}")
            lines.append(f"      {check.words}")
            if check.trace:
                lines.append(f"      AT trace: {check.trace}")
        else:
            seen.setdefault(check.words, []).append(f"{check.group}: {check.title}")
    for words, titles in seen.items():
        more = f" and {len(titles) - 1} more" if len(titles) > 1 else ""
        lines.append(f"  {words} ({titles[0]}{more})")
    return lines


# --- files --------------------------------------------------------------------------------------


def write_json(run: Run, path: Path) -> None:
    """May raise OSError."""
    path.write_text(json.dumps(run.as_dict(), indent=1) + "\n", encoding="utf-8")


def write_html(run: Run, path: Path) -> None:
    """One page with everything in it, readable without a network. May raise OSError."""
    text = page(run)
    path.write_text(text, encoding="utf-8", errors="backslashreplace")


# --- the page -----------------------------------------------------------------------------------

# Which steps end a stage of the way, in what colour, and what the stage is called.
STAGES = {
    "port": ("a", "port opened"),
    "modem": ("b", "modem identified"),
    "radio": ("c", "prepared, radio on"),
    "sim": ("d", "SIM read"),
    "registered": ("e", "network joined"),
    "address": ("f", "address given"),
    "sent": ("g", "request handed to the modem"),
    "authenticated": ("h", "answer of EnOS"),
}
SHOWN_WAYS = ("attach", "authentication")


def page(run: Run) -> str:
    """The HTML page."""
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        state="good" if run.good else "bad",
        verdict=_e(run.verdict[:1].upper() + run.verdict[1:]),
        subtitle=_e(_subtitle(run)),
        slots="".join(_slot_card(run, slot) for slot in run.slots.values()),
        matrix=_matrix(run),
        ways=_ways(run),
        failures=_failures(run),
        skips=_skips(run),
        problems="".join(f"<pre>{_e(text)}</pre>" for text in run.problems),
        environment="".join(
            f"<dt>{_e(name)}</dt><dd>{_e(value)}</dd>" for name, value in environment().items()
        ),
    )


def _e(text: object) -> str:
    return html.escape(str(text))


def _subtitle(run: Run) -> str:
    rig = f"rig {Path(run.rig).name}" if run.rig else "software modems (no rig file)"
    return f"{rig} · {moment(run.started)} · {_duration(run.seconds)}"


def _duration(seconds: float) -> str:
    if seconds >= 90:
        return f"{int(seconds // 60)} min {seconds % 60:.0f} s"
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


def _slot_card(run: Run, slot: SlotInfo) -> str:
    found = run.count(slot.name)
    total = sum(found.values()) or 1
    bar = "".join(
        f'<i class="{outcome}" style="flex:{found[outcome]}"></i>'
        for outcome in OUTCOMES
        if found[outcome]
    )
    counts = " · ".join(f"{found[o]} {o}" for o in OUTCOMES if found[o])
    kind = "emulated" if slot.emulated else "real"
    return (
        f'<article class="card {"bad" if found["failed"] else ""}">'
        f"<h3>{_e(slot.name)}<small>{kind}</small></h3>"
        f"<p>{_e(slot.model or 'nobody answered')}<br><code>{_e(slot.firmware)}</code></p>"
        f'<div class="bar" title="{total} checks">{bar}</div>'
        f"<p class=counts>{counts} · {_duration(_seconds(run, slot.name))}</p></article>"
    )


def _matrix(run: Run) -> str:
    """Groups by slots; each opens to its checks, those with failures are open."""
    slots = list(run.slots)
    head = "".join(f"<b>{_e(name)}</b>" for name in slots)
    columns = f"--columns: minmax(220px, 1fr) repeat({max(1, len(slots))}, minmax(110px, 150px))"
    parts = [f'<div class=matrix style="{columns}"><div class="line head"><b></b>{head}</div>']
    for group in run.groups:
        is_open = " open" if run.count(group=group)["failed"] else ""
        cells = "".join(_group_cell(run.count(slot, group)) for slot in slots)
        name = _e(group.capitalize())
        parts.append(f"<details{is_open}><summary class=line><b>{name}</b>{cells}</summary>")
        checks = [check for check in run.checks if check.group == group]
        for title in dict.fromkeys(check.title for check in checks):
            same = [check for check in checks if check.title == title]
            cells = "".join(_cell_of([c for c in same if c.slot == slot]) for slot in slots)
            parts.append(f"<div class=line><span>{_e(title)}</span>{cells}</div>")
        parts.append("</details>")
    return "".join([*parts, "</div>"])


def _group_cell(found: Counter[str]) -> str:
    if not found:
        return "<span></span>"
    kind = "failed" if found["failed"] else "passed" if found["passed"] else "skipped"
    ran = found["failed"] + found["passed"]
    words = f"{found['passed']} of {ran}" if ran else "skipped"
    return f'<span class="{kind}">{words}</span>'


def _cell_of(checks: list[Check]) -> str:
    if not checks:
        return "<span></span>"
    worst = next(o for o in OUTCOMES if any(check.outcome == o for check in checks))
    why = next((check.words for check in checks if check.outcome == worst), "")
    marks = {"passed": "✓", "failed": "✗", "skipped": "–"}
    took = sum(check.seconds for check in checks)
    times = f" {sum(c.outcome == worst for c in checks)}/{len(checks)}" if len(checks) > 1 else ""
    text = f"{marks[worst]}{times}" + (f"<small>{_duration(took)}</small>" if took > 0.005 else "")
    if worst == "failed":
        text = f'<a href="#{_anchor(next(c for c in checks if c.outcome == worst))}">{text}</a>'
    return f'<span class="{worst}" title="{_e(why)}">{text}</span>'


def _anchor(check: Check) -> str:
    return "f-" + "".join(c if c.isalnum() else "-" for c in check.nodeid)


def _ways(run: Run) -> str:
    """How long each stage took, slot beside slot, on one scale."""
    parts = []
    for title, last in (
        ("From opening the port to an IP address", "address"),
        ("From opening the port to an authenticated device", "authenticated"),
    ):
        chosen = {slot: _longest_way(run, slot, last) for slot in run.slots}
        found = {slot: check for slot, check in chosen.items() if check is not None}
        if found:
            parts.append(_way(title, found, last))
    return "".join(parts) or "<p>No check got that far.</p>"


def _longest_way(run: Run, slot: str, last: str) -> Check | None:
    """The passed check with the most stages up to ``last``; of equals, the first."""
    found: Check | None = None
    for check in run.checks:
        steps = [step for _, step, _ in check.steps]
        if check.slot != slot or check.outcome != "passed" or last not in steps:
            continue
        if steps.count("modem") != 1:  # opened more than once: no way from one end to the other
            continue
        stages = len(set(steps[: steps.index(last) + 1]) & set(STAGES))
        if found is None or stages > len({s for _, s, _ in found.steps} & set(STAGES)):
            found = check
    return found


def _stages(check: Check, last: str) -> list[tuple[str, float, float]]:
    """Stage, beginning, end."""
    found: list[tuple[str, float, float]] = []
    begin = 0.0
    seen: set[str] = set()
    for t, step, _ in check.steps:
        if step in STAGES and step not in seen:
            seen.add(step)
            found.append((step, begin, t))
            begin = t
        if step == last:
            break
    return found


def _way(title: str, checks: dict[str, Check], last: str) -> str:
    ways = {slot: _stages(check, last) for slot, check in checks.items()}
    scale = max(way[-1][2] for way in ways.values()) or 1.0
    rows = []
    for slot, way in ways.items():
        bars = "".join(
            f'<i class="s-{STAGES[step][0]}" style="left:{begin / scale:.2%};'
            f'width:max(2px,{(end - begin) / scale:.2%})"'
            f' title="{_e(STAGES[step][1])}: {_duration(end - begin)}"></i>'
            for step, begin, end in way
        )
        rows.append(
            f"<div class=row><b>{_e(slot)}</b><div class=track>{bars}</div>"
            f"<span>{_duration(way[-1][2])}</span></div>"
        )
    used = {step for way in ways.values() for step, _, _ in way}
    legend = "".join(
        f'<li><i class="s-{colour}"></i>{_e(words)}</li>'
        for step, (colour, words) in STAGES.items()
        if step in used
    )
    ticks = "".join(f"<span>{_duration(scale * part / 4)}</span>" for part in range(5))
    return (
        f"<figure><figcaption>{_e(title)}</figcaption>{''.join(rows)}"
        f"<div class=axis>{ticks}</div><ul class=legend>{legend}</ul></figure>"
    )


def _failures(run: Run) -> str:
    return "".join(
        f'<details class=failure id="{_anchor(check)}" {"open" if number < 3 else ""}>'
        f"<summary><b>{_e(check.slot)}</b> {_e(check.group)}: {_e(check.title)}"
        f"<em>{_e(check.words)}</em></summary>{_steps(check)}{_dialogue(check)}"
        f"<details><summary>traceback</summary><pre>{_e(check.details)}</pre></details></details>"
        for number, check in enumerate(c for c in run.checks if c.outcome == "failed")
    )


def _steps(check: Check) -> str:
    if not check.steps:
        return ""
    rows = "".join(
        f"<li><time>{t:.3f} s</time><b>{_e(step)}</b> {_e(text)}</li>"
        for t, step, text in check.steps
    )
    left = f"<p>{check.steps_left_out} steps in the middle are left out.</p>"
    return f"<h4>Steps</h4><ol class=steps>{rows}</ol>{left if check.steps_left_out else ''}"


def _dialogue(check: Check) -> str:
    if not check.dialogue:
        return ""
    rows = "".join(
        f'<tr class="{ {">": "host", "<": "modem"}.get(way, "note") } {_e(event)}">'
        f"<td>{t:.3f}</td><td>{ {'>': '→', '<': '←'}.get(way, '·') }</td>"
        f"<td>{_e(text)}</td><td>{_e(event)}</td></tr>"
        for t, way, text, event in check.dialogue
    )
    left = f"<p>{check.left_out} lines before these are left out.</p>" if check.left_out else ""
    where = f"<p>All of it: <code>{_e(check.trace)}</code></p>" if check.trace else ""
    return f"<h4>AT dialogue</h4>{left}<div class=at><table>{rows}</table></div>{where}"


def _skips(run: Run) -> str:
    seen: dict[str, list[str]] = {}
    for check in run.checks:
        if check.outcome == "skipped":
            seen.setdefault(check.words, []).append(f"{check.group}: {check.title}")
    return "".join(
        f"<li><b>{_e(words)}</b><br>{_e('; '.join(dict.fromkeys(titles)))}</li>"
        for words, titles in seen.items()
    )
