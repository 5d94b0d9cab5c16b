"""Words: each thing that can go wrong has a short word, a sentence, and what to do; twice."""

from __future__ import annotations

import ast
import re
import string
from collections.abc import Iterator
from pathlib import Path

import pytest

from nbiot import errors
from nbiot.errors import BadInput, NotRegistered, StationError
from nbiot.station import words
from nbiot.station.board import SlotState
from nbiot.station.record import Outcome, Reason

STATION = Path(words.__file__).parent
ROOT = STATION.parents[1]
SOURCES = "\n".join(path.read_text() for path in STATION.rglob("*.py") if path.name != "words.py")
CJK = re.compile(r"[\u4e00-\u9fff]")

# The codes that a slot's tile can be given, as the source has them. Others may make errors of
# their own (a power backend): those fall back to their message and hint.


CLASS = re.compile(r"^ *class (\w+)\(([^)]*)\):", re.M)


def sources(*folders: str) -> Iterator[tuple[Path, str]]:
    for name in folders:
        found = ROOT / name
        for path in [found] if found.suffix else sorted(found.rglob("*.py")):
            yield path, path.read_text()


def error_codes() -> set[str]:
    """Of the classes of errors in all that a station runs."""
    bases: dict[str, set[str]] = {}
    folders = ("nbiot", "hil/power", "hil/rig.py", "hil/hosting.py", "hil/labgrid.py")
    for path, text in sources(*folders):
        if path.name == "demo.py" or "cli" in path.parts:  # front doors: no slot sees their errors
            continue
        for name, of in CLASS.findall(text):
            bases.setdefault(name, set()).update(re.findall(r"\w+", of))
    known = {"NbiotError"}
    while more := {name for name, of in bases.items() if of & known} - known:
        known |= more
    known.remove("NotGood")  # its code is told by who raises it
    return {words.code_of(type(name, (), {})) for name in known if not name.startswith("_")}


def given_codes() -> dict[str, str]:
    """Codes that the station's source gives by name, and where it does."""
    found: dict[str, str] = {}
    for path, text in sources("nbiot/station"):
        if path == Path(words.__file__) or not re.search(r"Reason|NotGood|station.reasons", text):
            continue  # the first looks them up
        tree = ast.parse(text, str(path))
        makers = {"Reason", "NotGood", "reason"}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module == "nbiot.station.reasons":
                makers |= {name.asname for name in node.names if name.name in makers if name.asname}
        names = {
            target.id: node.value.value
            for node in tree.body
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            if node.func.id not in makers:
                continue
            keyed = [keyword.value for keyword in node.keywords if keyword.arg == "code"]
            (code,) = [*node.args[:1], *keyed]
            where = f"{path.relative_to(ROOT)}:{node.lineno}"
            told = names.get(code.id) if isinstance(code, ast.Name) else None
            for part in ast.walk(code) if told is None else [ast.Constant(told)]:
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    found[part.value] = where
            if told is None and not isinstance(code, ast.Constant):
                found[ast.unparse(code)] = where
    return found


PASSED_ON = {
    "code", "error.code", "code_of(error)",  # reasons.py
    "phase.outcome.value",  # OpenHTF's record, where no reason is known
}  # fmt: skip
"""What is no text in the source: it comes from one of the others."""


def test_each_error_has_words() -> None:
    codes = error_codes()
    assert {"modem_silent", "power_error", "dtls_refused", "rest_error", "lease_lost"} <= codes
    assert sorted(codes - set(words.REASONS)) == []


def test_codes() -> None:
    assert words.code_of(NotRegistered("x")) == "not_registered"
    assert words.code_of(errors.ModemSilent) == "modem_silent"
    assert words.code_of(type("_Private", (errors.ModemSilent,), {})) == "modem_silent"


def test_each_code_that_the_station_gives_has_words() -> None:
    given = given_codes()
    assert {"stopped", "station_died", "program_output", "waiting_for_scan", "limit"} <= set(given)
    own = {*words.REASONS, "limit"}  # whose words are made of its numbers
    assert {code: at for code, at in given.items() if code not in own | PASSED_ON} == {}


def test_words_are_short_enough_for_a_tile() -> None:
    states = [words.STATES[state] for state in SlotState]
    for short, sentence, todo in [*words.REASONS.values(), *states]:
        assert len(short[0].split()) <= 3, short
        assert len(short[1].replace(" ", "")) <= 10, short
        assert len(todo[0]) <= 72, todo
        assert len(todo[1]) <= 32, todo
        assert sentence[0].endswith("."), sentence
        assert sentence[1].endswith("。"), sentence


def test_everything_is_said_in_both_languages() -> None:
    pairs = [*words.TEXTS.values(), *words.OUTCOMES.values(), *words.PHASES.values()]
    pairs += [pair for three in words.REASONS.values() for pair in three]
    pairs += [pair for three in words.STATES.values() for pair in three]
    for english, chinese in pairs:
        assert english
        assert chinese
        assert not CJK.search(english) or english == "中文"
        same = english == chinese or english == "中文"  # IMEI; a language's name in itself
        assert CJK.search(chinese) or same, chinese
    assert set(words.STATES) == set(SlotState)
    assert set(words.OUTCOMES) == set(Outcome)


def test_no_text_of_the_page_is_left_unused() -> None:
    used = SOURCES + "".join(p.read_text() for p in STATION.rglob("*.html"))
    used += Path(words.__file__).read_text().partition("TEXTS:")[0]
    assert [key for key in words.TEXTS if f'"{key}"' not in used and key[:3] != "ok_"] == []


@pytest.mark.parametrize(
    ("detail", "short", "sentence"),
    [
        (
            {"name": "rsrp", "value": -121, "unit": "dBm", "low": -110, "high": None},
            "Signal too low",
            "Signal strength (RSRP): −121 dBm; wanted: ≥ −110 dBm.",
        ),
        (
            {"name": "current", "value": 3.14159, "unit": "mA", "low": 0.5, "high": 2.5},
            "Current too high",
            "Current: 3.142 mA; wanted: 0.5 to 2.5 mA.",
        ),
        (
            {"name": "firmware", "value": "A01", "allowed": "A02 or A03"},
            "Firmware not allowed",
            "Firmware: A01; wanted: A02 or A03.",
        ),
        (
            {"name": "relay_closed", "value": None, "allowed": None},
            "relay closed missing",
            "relay closed: nothing; wanted: –.",
        ),
    ],
)
def test_limits_in_words(detail: dict[str, str], short: str, sentence: str) -> None:
    found = words.reason(Reason("limit", detail), "en")
    assert (found.short, found.sentence) == (short, sentence)
    assert CJK.search(words.reason(Reason("limit", detail), "zh").sentence)


def test_an_unknown_code_says_what_it_brings() -> None:
    found = words.reason(Reason("comet", {"message": "A comet fell.", "hint": "Duck."}), "en")
    assert found == words.Words("Fault", "A comet fell.", "Duck.")
    bare = words.reason(Reason("comet_fell"), "zh")
    assert bare == words.Words("故障", "comet fell", "请通知班组长。")


def test_who_and_where_are_told() -> None:
    taken = Reason("imei_taken", {"station": "S2", "slot": "4"})
    assert words.reason(taken, "en").sentence.endswith(": Station S2, Slot 4.")
    assert words.reason(taken, "zh").sentence.endswith("：工站 S2，槽位 4。")
    assert "Li" in words.reason(Reason("stopped", {"by": "Li"}), "en").sentence


def test_a_programs_own_words_go_first() -> None:
    own = Reason("program_failed", {"message": "U7 draws 80 mA", "hint": "Look for a short."})
    assert words.reason(own, "en").sentence == "U7 draws 80 mA"
    assert words.reason(own, "en").todo == "Look for a short."


def test_an_error_says_in_english_what_it_knows() -> None:
    error = BadInput("copies", 99, "1 to 20", hint="Fewer.")
    assert words.of_error(error, "en").sentence == "copies: 99 cannot be used; allowed: 1 to 20"
    assert words.of_error(error, "zh").sentence == "份数须为 1 至 20。"


def test_an_error_that_is_not_ours_keeps_its_text_to_itself() -> None:
    found = words.of_error(ValueError("postgresql://user:hunter2@db"), "en")
    assert "hunter2" not in repr(found)


def test_what_the_station_refuses_is_said_in_chinese() -> None:
    error = StationError("slot 3: it is switched off", hint="Switch it on first.")
    assert words.of_error(error, "zh") == words.Words(
        "无法执行", "槽位 3 已停用。", "请先启用该槽位。"
    )
    other = StationError("the moon is full")
    assert "the moon is full" in words.of_error(other, "zh").sentence


def test_refusals_are_still_said_like_that() -> None:
    """The English is the runner's: if it changes, its Chinese must follow."""
    for english, _, _ in words.REFUSALS:
        plain = re.split(r"\(\.[*+]\)|\.\*|'|: ", english)
        for part in plain:
            said = part.strip().removeprefix("slot ").strip()
            assert said in SOURCES or said == "cannot be used", english


def test_phases_and_measures_fall_back_to_their_names() -> None:
    assert words.phase("flash_mcu", "en") == "flash mcu"
    assert words.measure("idle_current", "zh") == "idle current"


def test_no_sentence_has_holes() -> None:
    for short, sentence, todo in words.REASONS.values():
        for pair in (short, sentence, todo):
            for said in pair:
                assert [name for _, name, _, _ in string.Formatter().parse(said) if name] == []
