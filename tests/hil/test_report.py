"""The reports: what they say, that they hold no more than they should, how the page looks."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hil.record import STEPS as KEPT_STEPS
from hil.record import Record
from hil.report import Check, Run, SlotInfo, page, table, words_of, write_html, write_json
from hil.rig import Slot
from nbiot.profile import Progress

STEPS = [
    (0.01, "port", "/dev/pts/1 is open"),
    (0.12, "modem", "BC66"),
    (0.2, "radio", "radio on"),
    (0.3, "sim", "SIM ready"),
    (1.9, "registered", "registered (home network)"),
    (2.0, "address", "address 10.0.0.7"),
    (2.1, "sent", "sent 150 bytes"),
    (3.4, "authenticated", "authenticated (2.04)"),
]
NASTY = "<script>alert(1)</script> & $verdict \u2028 \ud800"


@pytest.fixture
def run() -> Run:
    run = Run(rig="/somewhere/rig.toml", started=1.7e9, seconds=95.0, expected=6)
    for name in ("roof", "cellar"):
        run.slots[name] = SlotInfo(name, name == "cellar", model="BC66", firmware="R01")
        run.checks += [
            Check(f"a[{name}]", name, "authentication", "A good one", seconds=3.4, steps=STEPS),
            Check(f"b[{name}]", name, "sleep", "Sleep", "skipped", words=f"{name}: no sleep"),
        ]
    run.checks.append(
        Check("c[roof]", "roof", "udp", "Every size", "failed", 1.0, "7 bytes did not come back",
              NASTY, STEPS[:2], [(0.1, ">", "AT+CSQ", ""), (0.2, "<", NASTY, "orphan")], 5, "x")
    )  # fmt: skip
    return run


def test_the_verdict(run: Run) -> None:
    assert run.verdict == "1 failed, 2 passed, 2 skipped"
    assert not run.good
    run.checks.pop()
    assert run.good
    run.interrupted = True
    assert run.verdict == "interrupted after 4 of 6 checks: 2 passed, 2 skipped"
    assert not run.good
    assert Run().verdict == "nothing was checked: nothing was checked"
    assert Run(problems=["no module named x\nmore"]).verdict.endswith("no module named x")


def test_of_an_hour_the_first_and_the_last_steps_are_kept(run: Run) -> None:
    record = Record(Slot("roof", "emulator:bc66"))
    for number in range(10 * KEPT_STEPS):
        record.report(Progress("sent", str(number)))
    texts = [int(step.text) for step in record.steps]
    half = KEPT_STEPS // 2
    assert texts == [*range(half), *range(9 * KEPT_STEPS + half, 10 * KEPT_STEPS)]
    assert record.steps_left_out == 9 * KEPT_STEPS
    run.checks[-1].steps_left_out = record.steps_left_out
    assert f"{9 * KEPT_STEPS} steps in the middle are left out" in page(run)


def test_the_table(run: Run) -> None:
    said = table(run, every_check=True)
    assert "authentication  1 ok" in said
    assert "1 FAILED, 0 ok" in said
    assert "  roof  udp: Every size\n      7 bytes did not come back\n      AT trace: x" in said
    assert "roof: no sleep (sleep: Sleep)" in said


def test_json(run: Run, tmp_path: Path) -> None:
    write_json(run, tmp_path / "r.json")
    found = json.loads((tmp_path / "r.json").read_text())
    assert found["counts"] == {"failed": 1, "passed": 2, "skipped": 2}
    assert found["checks"][0]["steps"][-1] == [3.4, "authenticated", "authenticated (2.04)"]
    assert found["environment"]["nbiot"]


class Reader(HTMLParser):
    """What a page wants from elsewhere, and whether its tags are paired."""

    VOID = ("meta", "br", "link", "img", "input", "hr")

    def __init__(self) -> None:
        super().__init__()
        self.wanted: list[str] = []
        self.scripts = 0
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.scripts += tag == "script"
        self.wanted += [value for name, value in attrs if name in ("src", "href", "data")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_stands_alone(run: Run, tmp_path: Path) -> None:
    write_html(run, tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text()
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    assert reader.scripts == 0
    assert all(link.startswith("#") for link in reader.wanted)
    assert "url(" not in text
    assert "@import" not in text
    assert "$" not in text.replace("$verdict \u2028", "")  # the only one is in what was told


@pytest.mark.parametrize(
    ("longrepr", "words"),
    [
        (("f.py", 1, "Skipped: no power"), "no power"),
        ("plain words", "plain words"),
    ],
)
def test_words(longrepr: Any, words: str) -> None:
    assert words_of(SimpleNamespace(longrepr=longrepr)) == words


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("AssertionError: 3 are left\nassert 3 == 0\n +  where 3 = x", "3 are left"),
        ("assert [1] == []\n  \n  Left contains", "Left contains"),
        ("nbiot.errors.ModemSilent: nothing\nTry that.", "ModemSilent: nothing Try that."),
        ("Failed: not done", "not done"),
        ("assert 1 == 2\n +  where", "assert 1 == 2"),
    ],
)
def test_words_of_a_crash(message: str, words: str) -> None:
    crash = SimpleNamespace(reprcrash=SimpleNamespace(message=message))
    assert words_of(SimpleNamespace(longrepr=crash)) == words


@pytest.mark.unhygienic
async def test_the_page_in_a_browser(run: Run, tmp_path: Path) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("needs the Debian package chromium")
    write_html(run, tmp_path / "r.html")
    dom = await _chromium(chromium, tmp_path, "--dump-dom")
    assert dom.count("<details") >= 4
    assert "alert(1)" in dom
    assert "<script>alert" not in dom
    await _chromium(chromium, tmp_path, f"--screenshot={tmp_path}/r.png")
    picture = (tmp_path / "r.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 20_000, "the page is as good as empty"


async def _chromium(chromium: str, folder: Path, *options: str) -> str:
    process = await asyncio.create_subprocess_exec(
        chromium, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        f"--user-data-dir={folder}/profile", "--window-size=1200,1600", *options,
        f"file://{folder}/r.html",
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    said, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0
    return said.decode()


def test_a_page_of_nothing() -> None:
    text = page(Run(problems=["the suite could not be read"]))
    assert "the suite could not be read" in text
