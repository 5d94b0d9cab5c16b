"""What an operator sees and does, in a real browser with real clicks."""

from __future__ import annotations

import io
import itertools
import json
import time
from collections.abc import Callable

import pytest
from PIL import Image

from nbiot.errors import StationError
from nbiot.signing import Secret
from nbiot.station import words
from nbiot.station.board import SlotState
from nbiot.station.record import Reason
from tests.station.web import fake
from tests.station.web.browser import Page
from tests.station.web.conftest import Hosted

Open = Callable[..., Page]
Host = Callable[..., Hosted]
S = SlotState


def tile(slot: str, inside: str = "") -> str:
    return f"[data-slot='{slot}'] {inside}"


def text_of(slot: str) -> str:
    return f"document.querySelector(\"[data-slot='{slot}']\").innerText"


def test_a_tile_follows_its_slot_from_empty_to_pass(open_page: Open, hosted: Host) -> None:
    screen = hosted(fake.station(8))
    page = open_page(screen.url)
    assert "Put a board in" in page.text(tile("3"))
    screen.update("3", state=S.RUNNING, phase="attach", progress=0.5, serial_number="MB3-1")
    page.until(f"{text_of('3')}.includes('Join the network')")
    assert page.js("document.querySelector('progress').value") == 0.5
    assert "MB3-1" in page.text(tile("3"))
    screen.update("3", state=S.PASSED, record=fake.record(1).id)
    page.until(f"{text_of('3')}.includes('Take the board out')")
    assert "Slot 3: Pass" in page.js("document.querySelector('[aria-live]').textContent")
    assert page.problems() == []


def test_a_failure_says_why_and_what_to_do(open_page: Open, hosted: Host) -> None:
    screen = hosted(fake.station(4))
    page = open_page(screen.url)
    screen.update("2", state=S.FAILED, reason=Reason("sim_missing"), record="x")
    page.until(f"{text_of('2')}.includes('No SIM')")
    assert "Push the SIM card in, then press Retry." in page.text(tile("2"))


def test_yield_and_health_are_told(open_page: Open, hosted: Host) -> None:
    screen = hosted(fake.station(2, passed=1412, failed=9, seconds_per_unit=42.4, free=7))
    page = open_page(screen.url)
    summary = page.text(".summary")
    for said in ("1\u202f412", "9", "99.4\u202f%", "0:42", "7", "OK"):
        assert said in summary
    away = {"database": False, "undelivered": 3, "free": 0}
    screen.do(lambda: screen.station.board.update_station(**away))
    page.until("document.querySelector('.summary').innerText.includes('Away')")
    assert "None left" in page.text(".summary")
    assert page.js("document.querySelectorAll('.summary .alarm').length") == 2


# --- scanning -----------------------------------------------------------------------------------


def test_a_scanner_types_and_presses_enter(open_page: Open, hosted: Host) -> None:
    screen = hosted(fake.station(8))
    for slot in ("2", "5", "7"):
        screen.update(slot, state=S.WAITING, reason=Reason("waiting_for_scan"))
    page = open_page(screen.url)
    for number in range(3):  # faster than the station answers
        page.type(f"MB3-00{number}", enter=True)
    page.until(f"{text_of('7')}.includes('MB3-002')")
    assert screen.station.done == [("scan", f"MB3-00{n}", None) for n in range(3)]
    assert page.js("document.activeElement.id") == "scan-text"
    assert page.js("document.getElementById('scan-text').value") == ""
    assert "Slot 7: Scanned MB3-002" in page.text("#say")


def test_a_scan_finds_its_field_from_anywhere(open_page: Open, hosted: Host) -> None:
    screen = hosted(fake.station(2))
    screen.update("1", state=S.WAITING)
    page = open_page(screen.url)
    page.click(tile("2", ".menu summary"))
    assert page.js("document.activeElement.tagName") == "SUMMARY"
    page.type("MB3-9", enter=True)
    page.until("document.querySelector('#say').innerText.includes('MB3-9')")
    assert screen.station.done == [("scan", "MB3-9", None)]


def test_a_scan_for_one_slot(open_page: Open, hosted: Host) -> None:
    screen = hosted(fake.station(4))
    for slot in ("2", "3"):
        screen.update(slot, state=S.WAITING)
    page = open_page(screen.url)
    page.click_text("Scan here", tile("3"))
    page.until("document.querySelector('.chip')?.innerText.includes('For slot 3')")
    page.type("MB3-5", enter=True)
    page.until(f"{text_of('3')}.includes('MB3-5')")
    assert screen.station.done == [("scan", "MB3-5", "3")]
    page.until("!document.querySelector('.chip')")  # once only


def test_a_scan_that_cannot_be_says_why(open_page: Open, hosted: Host) -> None:
    screen = hosted(fake.station(2))
    page = open_page(screen.url)
    screen.station.failing["scan"] = StationError(
        "no board waits for a serial number", hint="Put a board in first, then scan it."
    )
    page.type("MB3-5", enter=True)
    page.until("document.querySelector('.toast.bad')")
    assert "Put a board in first, then scan it." in page.text("#say")
    page.press("Escape")
    page.until("!document.querySelector('.toast')")


def test_a_scan_while_the_station_is_away_is_not_lost(open_page: Open, hosted: Host) -> None:
    screen = hosted(fake.station(2))
    page = open_page(screen.url)
    screen.stop()
    page.until("!document.getElementById('lost').hidden")
    page.type("MB3-5", enter=True)
    page.until("document.querySelector('.toast.bad')")
    assert page.js("document.getElementById('scan-text').value") == "MB3-5"


# --- buttons ------------------------------------------------------------------------------------


def test_buttons(open_page: Open, hosted: Host) -> None:
    record = fake.record(1).id
    buttons = [
        (S.WAITING, "Start", ("start", "1")),
        (S.RUNNING, "Stop", ("stop", "2")),
        (S.HELD, "Stop", ("stop", "3")),
        (S.FAILED, "Retry", ("retry", "4")),
        (S.ERROR, "Retry", ("retry", "5")),
        (S.OFF, "Put into use", ("switch_on", "6")),
        (S.PASSED, "Print label", ("print_label", record, 1)),
    ]
    station = fake.station(len(buttons))
    station.records = fake.records(3)
    for slot, (state, _, _) in zip(station.board.slots, buttons, strict=True):
        station.board.update(slot, state=state, record=record)
    page = open_page(hosted(station).url)
    for slot, (_, button, done) in zip(station.board.slots, buttons, strict=True):
        page.js("document.getElementById('say').replaceChildren()")
        page.click_text(button, tile(slot))
        page.until("document.querySelector('.toast.good')")
        assert station.done[-1] == done
    assert len(station.done) == len(buttons)
    assert page.problems() == []


def test_a_label_that_was_not_printed_is_printed_from_the_tile(
    open_page: Open, hosted: Host
) -> None:
    station = fake.station(1)
    station.records = fake.records(3)
    why = Reason("printer_error")
    station.board.update("1", state=S.ERROR, reason=why, record=station.records[1].id)
    page = open_page(hosted(station).url)
    page.click_text("Print label", tile("1"))
    page.until("document.querySelector('.toast.good')")
    assert station.done == [("print_label", station.records[1].id, 1)]


def test_a_button_can_be_pressed_while_its_tile_changes(open_page: Open, hosted: Host) -> None:
    """Five times a second the tile is swapped: a click must not fall between two."""
    screen = hosted(fake.station(1))
    screen.update("1", state=S.RUNNING, phase="attach")
    page = open_page(screen.url)
    page.js("window.stopButton = document.querySelector('[value=stop]'); 1")
    for step in range(1, 5):
        screen.update("1", progress=step / 10)
        page.until(f"document.querySelector('progress').value === {step / 10}")
        assert page.js("window.stopButton === document.querySelector('[value=stop]')")
    page.click_text("Stop", tile("1"))
    page.until(f"{text_of('1')}.includes('Stopped')")


def test_skip_asks_for_a_reason(open_page: Open, hosted: Host) -> None:
    screen = hosted(fake.station(2))
    screen.update("2", state=S.RUNNING, phase="label")
    page = open_page(screen.url)
    page.click(tile("2", ".menu summary"))
    page.click_text("Skip a step …", tile("2"))
    page.until("document.querySelector('dialog[open] h2')")
    assert "Slot 2 · Print the label" in page.text("dialog")
    page.press("Escape")
    page.until("!document.querySelector('dialog[open]')")
    assert screen.station.done == []
    page.click(tile("2", ".menu summary"))
    page.click_text("Skip a step …", tile("2"))
    page.until("document.querySelector('dialog[open] [name=other]')")
    page.click("[name=other]")
    page.type("the printer is being mended")
    page.click_text("Skip the step", "dialog")
    page.until("!document.querySelector('dialog[open]')")
    assert screen.station.done == [("skip", "2", "the printer is being mended", "label")]
    screen.update("2", phase="attach")
    page.click(tile("2", ".menu summary"))
    page.click_text("Skip a step …", tile("2"))
    page.until("document.querySelector('dialog[open] h2')")
    assert "This step cannot be skipped" in page.text("dialog")
    assert "Measure the signal" in page.text("dialog")
    assert page.js("document.querySelector('dialog [value=skip]') === null")


def test_a_recipe_without_steps_to_skip_offers_none(open_page: Open, hosted: Host) -> None:
    station = fake.station(1)
    station.may_skip = frozenset()
    station.board.update("1", state=S.RUNNING, phase="label")
    page = open_page(hosted(station).url)
    page.click(tile("1", ".menu summary"))
    assert page.text(tile("1", ".menu div")) == "Take out of use"


def test_the_menu_takes_a_slot_out_of_use(open_page: Open, hosted: Host) -> None:
    screen = hosted(fake.station(2))
    page = open_page(screen.url)
    page.click(tile("1", ".menu summary"))
    page.click_text("Take out of use", tile("1"))
    page.until(f"{text_of('1')}.includes('Off')")
    assert screen.station.done == [("switch_off", "1")]


def test_everything_is_reached_by_keyboard(open_page: Open, hosted: Host) -> None:
    screen = hosted(fake.station(1))
    screen.update("1", state=S.FAILED, reason=Reason("no_response"), record="r")
    page = open_page(screen.url)
    seen = []
    for _ in range(3):
        page.press("Tab")
        seen.append(page.js("document.activeElement.innerText || document.activeElement.ariaLabel"))
    assert seen[:2] == ["Retry", "Record"]
    assert page.js("document.activeElement.ariaLabel") == "More: Slot 1"
    page.press("Enter")
    page.until("document.querySelector('.menu[open]')")
    page.press("Escape")
    page.until("!document.querySelector('.menu[open]')")


# --- history, records, the line -----------------------------------------------------------------


def test_history_is_searched_and_paged(open_page: Open, hosted: Host) -> None:
    station = fake.station(8)
    station.records = fake.records(120)
    screen = hosted(station)
    page = open_page(f"{screen.url}/history")
    rows = "document.querySelectorAll('tbody tr').length"
    assert page.js(rows) == 50
    page.click_text("Older")
    page.until(f"location.search.includes('before') && {rows} === 50")
    assert "MB3-240050" in page.text("tbody tr")
    page.click("input[type=search]")
    page.type("240117")
    page.until(f"{rows} === 1")
    assert "MB3-240117" in page.text("tbody")
    assert page.js("location.search") == "?search=240117"
    page.type("xyz")
    page.until("document.body.innerText.includes('Nothing found.')")
    assert page.problems() == []


def test_a_record_shows_steps_limits_and_label(open_page: Open, hosted: Host) -> None:
    station = fake.station(8)
    station.records = fake.records(20)
    screen = hosted(station)
    page = open_page(f"{screen.url}/history?search=240003")
    page.click("tbody tr")
    page.until("location.pathname.startsWith('/records/')")
    page.until("document.querySelector('.steps')")
    text = page.text("main")
    for said in (
        "Fail: Signal too low",
        "≥ −110 dBm",
        "−121 dBm",
        fake.imei(3),
        "Join the network",
    ):
        assert said in text
    assert page.js("document.querySelector('.label')") is None  # a bad board gets none
    page.open(f"{screen.url}/records/{fake.record(1).id}")
    page.until("document.querySelector('.label img').naturalWidth === 400")
    page.js("document.querySelector('[name=copies]').value = 3")
    page.click_text("Print label")
    page.until("document.querySelector('.toast.good')")
    assert station.done[-1] == ("print_label", fake.record(1).id, 3)
    station.failing["print_label"] = fake.PRINTER_AWAY
    page.click_text("Print label")
    page.until("document.querySelector('.toast.bad')")
    assert "10.0.0.9:9100" in page.text("#say")


def test_the_line_shows_who_is_gone(open_page: Open, hosted: Host) -> None:
    station = fake.station(8)
    station.rows = fake.a_line(time.time())
    page = open_page(f"{hosted(station).url}/line")
    assert page.js("document.querySelectorAll('.stations .card').length") == 6
    assert page.js("document.querySelector('.gone h2').innerText").startswith("S4")
    assert "Results waiting: 14" in page.text("main")
    assert page.js("document.querySelector('.dot .icon').ariaLabel") == "1: Pass"
    station.rows = station.rows[:1]
    page.js("htmx.trigger('#stations', 'refresh')")  # as it does each 3 s
    page.until("document.querySelectorAll('.stations .card').length === 1")


# --- language, login, losing the station ----------------------------------------------------------


def test_chinese_is_one_click_away_and_stays(open_page: Open, hosted: Host) -> None:
    screen = hosted(fake.station(1))
    screen.update("1", state=S.FAILED, reason=Reason("sim_missing"), record="r")
    page = open_page(screen.url)
    page.click_text("中文")
    page.until("document.documentElement.lang === 'zh-CN'")
    assert "插好 SIM 卡后按“重测”。" in page.text(tile("1"))
    screen.update("1", state=S.RUNNING, reason=None, phase="attach")
    page.until(f"{text_of('1')}.includes('接入网络')")  # what is sent later, too
    page.open(f"{screen.url}/history")
    assert "历史记录" in page.text()
    page.click_text("English")
    page.until("document.documentElement.lang === 'en'")


def test_the_browsers_language_is_the_first_guess(open_page: Open, hosted: Host) -> None:
    page = open_page(hosted(fake.station(1)).url, language="zh-CN,zh;q=0.9")
    assert page.js("document.documentElement.lang") == "zh-CN"


def test_a_pin_is_asked_for(open_page: Open, hosted: Host) -> None:
    screen = hosted(fake.station(1), token=Secret("shift-3-pin"))
    page = open_page(f"{screen.url}/history")
    focused = "document.activeElement && document.activeElement.id === 'pin'"
    page.until(f"location.pathname === '/login' && {focused}")
    page.type("000000", enter=True)
    page.until(f"document.querySelector('.wrong') && {focused}")
    page.type("shift-3-pin", enter=True)
    page.until("location.pathname === '/' && document.querySelector('.tile')")
    screen.update("1", state=S.WAITING)
    page.click_text("Start", tile("1"))
    page.until("document.querySelector('.toast.good')")
    page.click_text("Log out")
    page.until("location.pathname === '/login'")


def test_a_lost_station_is_told_in_red_and_found_again(open_page: Open, hosted: Host) -> None:
    station = fake.station(2)
    first = hosted(station)
    port = int(first.url.rpartition(":")[2])
    page = open_page(first.url)
    first.stop()
    page.until("!document.getElementById('lost').hidden")
    assert "No connection to the station since" in page.text("#lost")
    again = fake.station(2)
    again.board.update("1", state=S.PASSED)
    hosted(again, port=port)
    page.until("document.getElementById('lost').hidden")
    page.until(f"{text_of('1')}.includes('Pass')")


def test_a_frozen_station_is_noticed(open_page: Open, hosted: Host) -> None:
    """The connection stands, and nothing comes: a cable pulled, a process that hangs."""
    screen = hosted(fake.station(1), beat=0.3)
    page = open_page(screen.url)
    with screen.frozen():
        page.until("!document.getElementById('lost').hidden")
    page.until("document.getElementById('lost').hidden")


# --- how it looks -------------------------------------------------------------------------------

CONTRAST = """
(() => {
  const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = (c) => { const [r, g, b] = c.map((v) => { v /= 255;
    return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const ground = (e) => { for (; e; e = e.parentElement) {
    const c = parse(getComputedStyle(e).backgroundColor);
    if (c.length === 3 || c[3] > 0.9) return c.slice(0, 3); } return [255, 255, 255]; };
  const bad = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const text = walk.currentNode.textContent.trim(), e = walk.currentNode.parentElement;
    if (!text || !e.checkVisibility() || e.closest('.unseen, script, style')) continue;
    const style = getComputedStyle(e), a = light(parse(style.color)), b = light(ground(e));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const size = parseFloat(style.fontSize);
    if (ratio < (size >= 24 || (size >= 18.66 && style.fontWeight >= 700) ? 3 : 4.5))
      bad.push(`${text}: ${ratio.toFixed(2)}`);
  }
  return bad;
})()
"""


def test_contrast(open_page: Open, hosted: Host) -> None:
    station = fake.station(16)
    fake.mixed(station)
    station.records = fake.records(40)
    station.rows = fake.a_line(time.time())
    screen = hosted(station)
    away = {"database": False, "undelivered": 3, "free": 3}
    screen.do(lambda: station.board.update_station(**away))
    page = open_page(screen.url)
    assert page.js(CONTRAST) == []
    for path in ("/history", f"/records/{fake.record(3).id}", "/line", "/nothing"):
        page.open(screen.url + path)
        if path == "/line":  # what is gone is meant to be faint
            page.js("document.querySelector('.gone').remove()")
        assert page.js(CONTRAST) == [], path


def test_states_differ_for_colour_blind_people(open_page: Open, hosted: Host) -> None:
    states = (S.PASSED, S.FAILED, S.ERROR, S.RUNNING)
    station = fake.station(len(states))
    for slot, state in zip(station.board.slots, states, strict=True):
        station.board.update(slot, state=state, record="r")
    page = open_page(hosted(station).url)
    corners = page.js(
        "[...document.querySelectorAll('.tile')].map(t => t.getBoundingClientRect())"
        ".map(r => [r.x + r.width / 2, r.y + 8])"
    )
    for vision in ("none", "protanopia", "deuteranopia", "tritanopia", "achromatopsia"):
        page.call("Emulation.setEmulatedVisionDeficiency", type=vision)
        picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB").convert("LAB")
        colours = [picture.getpixel((int(x), int(y))) for x, y in corners]
        for (one, a), (other, b) in itertools.combinations(zip(states, colours, strict=True), 2):
            apart = sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) ** 0.5
            assert apart > 20, f"{one} and {other} look alike with {vision}: {apart:.0f}"


CLIPPED = """
[...document.querySelectorAll('.tile')].filter((t) => {
  const face = t.querySelector('.face-of').getBoundingClientRect();
  return [...t.querySelectorAll('.word, .short, .todo, .timer, progress')].some((e) => {
    const r = document.createRange(); r.selectNodeContents(e);
    const box = e.matches('progress') ? e.getBoundingClientRect() : r.getBoundingClientRect();
    return box.height && (box.bottom > face.bottom + 2 || box.right > face.right + 1);
  }) || t.querySelector('.actions > div').scrollWidth > t.querySelector('.actions').clientWidth;
}).map((t) => t.innerText)
"""


SIZES = [(16, 1280, 800), (8, 1280, 800), (16, 1920, 1080), (8, 390, 844)]


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("slots", [8, 16])
def test_all_words_fit_their_tiles(
    open_page: Open, hosted: Host, language: str, slots: int
) -> None:
    screen = hosted(fake.station(slots))
    page = open_page(screen.url, language=language)

    def clipped() -> list[str]:
        found = []
        for count, width, height in SIZES:
            if count == slots:
                page.resize(width, height)
                found += page.js(CLIPPED)
        return found

    limit = {"name": "firmware", "value": "BC66NBR01A01", "allowed": "BC66NBR01A10"}
    reasons = [Reason(code) for code in words.REASONS] + [Reason("limit", limit)]
    names = list(screen.station.board.slots)
    now = time.time()
    for first in range(0, len(reasons), slots):
        batch = reasons[first : first + slots]
        for n, (slot, reason) in enumerate(zip(names, batch, strict=False)):
            state = (S.FAILED, S.ERROR, S.HELD)[n % 3]
            screen.update(slot, state=state, reason=reason, imei=fake.imei(n), since=now - 700)
        last = words.reason(batch[-1], language).todo
        where = text_of(names[len(batch) - 1])
        page.until(f"{where}.replace(/\\s+/g, ' ').includes({json.dumps(last)})")
        assert clipped() == []
    for slot, name in zip(names, itertools.cycle(words.PHASES), strict=False):
        screen.update(slot, state=S.RUNNING, reason=None, phase=name, since=now - 700)
    page.until(f"document.querySelectorAll('.face.running').length === {slots}")
    assert clipped() == []
    states = (S.PASSED, S.WAITING, S.EMPTY, S.OFF)
    for slot, state in zip(names, itertools.cycle(states), strict=False):
        screen.update(slot, state=state, record=fake.record(1).id)
    page.until(f"document.querySelectorAll('.face.off').length === {slots // 4}")
    assert clipped() == []
