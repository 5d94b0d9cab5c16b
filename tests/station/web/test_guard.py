"""Who may see the screen, and press its buttons."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from nbiot.errors import BadInput
from nbiot.signing import Secret
from nbiot.station.board import SlotState
from nbiot.station.record import Outcome, Reason
from nbiot.station.web import create_app, guard
from tests.station.web import fake

PIN = "shift-3-pin"
ADDRESS = "http://127.0.0.1:8642"
Client = httpx.AsyncClient


def client_of(station: fake.FakeStation, **options: Any) -> Client:
    app = create_app(station, **options)
    return Client(transport=httpx.ASGITransport(app=app), base_url=ADDRESS)


@pytest.fixture
async def station() -> fake.FakeStation:
    found = fake.station(2)
    found.records = fake.records(3)
    return found


@pytest.fixture
async def client(station: fake.FakeStation) -> AsyncIterator[Client]:
    async with await asyncio.to_thread(client_of, station) as client:
        yield client


@pytest.fixture
async def locked(station: fake.FakeStation) -> AsyncIterator[Client]:
    async with await asyncio.to_thread(client_of, station, token=Secret(PIN)) as client:
        yield client


async def token(client: Client, path: str = "/") -> str:
    found = re.search(r'name="csrf" value="([0-9a-f]{64})"', (await client.get(path)).text)
    assert found
    return found[1]


# --- changing something -------------------------------------------------------------------------

POSTS = ["/do", "/scan", "/language", "/logout", "/login", "/records/x/print"]


@pytest.mark.parametrize("path", POSTS)
async def test_without_the_pages_token_nothing_is_done(
    station: fake.FakeStation, locked: Client, client: Client, path: str
) -> None:
    asked = locked if path == "/login" else client
    await asked.get("/login")
    for csrf in ("", "0" * 64, "é"):
        answer = await asked.post(path, data={"csrf": csrf, "slot": "1", "action": "stop"})
        assert answer.status_code == 403
    assert station.done == []


def test_all_posts_are_tested() -> None:
    routes = create_app(fake.station(1)).routes
    posts = {r.path for r in routes if "POST" in r.methods}  # type: ignore[attr-defined]
    assert posts == {path.replace("x", "{id}") for path in POSTS}


async def test_another_sessions_token_is_no_good(station: fake.FakeStation, client: Client) -> None:
    stolen = await token(client)
    client.cookies.clear()
    await client.get("/")
    answer = await client.post("/do", data={"csrf": stolen, "slot": "1", "action": "start"})
    assert answer.status_code == 403
    assert station.done == []


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
async def test_another_sites_page_is_refused(
    station: fake.FakeStation, client: Client, headers: dict[str, str]
) -> None:
    data = {"csrf": await token(client), "slot": "1", "action": "start"}
    assert (await client.post("/do", data=data, headers=headers)).status_code == 403
    assert station.done == []
    ours = {"origin": ADDRESS, "sec-fetch-site": "same-origin"}
    assert (await client.post("/do", data=data, headers=ours)).status_code == 200
    assert station.done == [("start", "1")]


async def test_looking_changes_nothing(station: fake.FakeStation, client: Client) -> None:
    for path in ("/do?slot=1&action=start", "/scan?text=1", f"/records/{fake.record(1).id}/print"):
        assert (await client.get(path)).status_code == 405
    assert (await client.put("/do")).status_code == 405
    assert station.done == []


# --- names --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8642", "", "a b", "127.0.0.1.nip.io"]
)
async def test_a_name_that_was_bent_to_us(client: Client, host: str) -> None:
    assert (await client.get("/", headers={"host": host})).status_code == 421


@pytest.mark.parametrize("host", ["localhost:8642", "192.168.1.20:8642", "[::1]:8642", "LOCALHOST"])
async def test_our_names(client: Client, host: str) -> None:
    assert (await client.get("/", headers={"host": host})).status_code == 200


# --- the PIN ------------------------------------------------------------------------------------

PATHS = ["/", "/history", "/line", f"/records/{fake.record(1).id}", "/events", "/alive",
         f"/records/{fake.record(1).id}/label.png", "/skip?slot=1", "/scan-form"]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
async def test_nothing_is_shown_without_the_pin(locked: Client, path: str) -> None:
    answer = await locked.get(path)
    assert answer.status_code in (303, 401)
    assert answer.text == ""


async def test_the_pin_opens(station: fake.FakeStation, locked: Client) -> None:
    csrf = await token(locked, "/login")
    before = dict(locked.cookies)
    answer = await locked.post("/login", data={"csrf": csrf, "pin": PIN})
    assert answer.status_code == 303
    assert dict(locked.cookies) != before  # a session that somebody planted gains nothing
    assert (await locked.get("/")).status_code == 200
    again = await asyncio.to_thread(create_app, station, token=Secret(PIN))  # it restarts
    async with Client(
        transport=httpx.ASGITransport(app=again), base_url=ADDRESS, cookies=locked.cookies
    ) as later:
        assert (await later.get("/")).status_code == 200
    other = await asyncio.to_thread(create_app, station, token=Secret(PIN + "x"))
    async with Client(
        transport=httpx.ASGITransport(app=other), base_url=ADDRESS, cookies=locked.cookies
    ) as late:
        assert (await late.get("/")).status_code == 303


def test_wrong_pins_cost_time() -> None:
    now = [1000.0]
    sessions = guard.Sessions(Secret(PIN), "S1", lambda: now[0])
    assert [sessions.is_pin("000000") for _ in range(guard.FREE_TRIES)] == [False] * 5
    assert sessions.wait() == 2
    assert not sessions.is_pin(PIN)  # not even looked at
    now[0] += 2
    assert not sessions.is_pin("")
    assert sessions.wait() == 4
    now[0] += 4
    assert sessions.is_pin(PIN)
    assert sessions.wait() == 0
    for _ in range(50):
        now[0] += sessions.wait()
        assert not sessions.is_pin("x\x00")
    assert sessions.wait() == guard.LONGEST_WAIT


async def test_the_page_says_that_one_must_wait(locked: Client) -> None:
    csrf = await token(locked, "/login")
    for _ in range(guard.FREE_TRIES):
        answer = await locked.post("/login", data={"csrf": csrf, "pin": "000000"})
        assert answer.status_code == 403
    answer = await locked.post("/login", data={"csrf": csrf, "pin": PIN})
    assert answer.status_code == 429
    assert "Wait a minute" in answer.text


def test_sessions_end_and_cannot_be_made_up() -> None:
    now = [1000.0]
    sessions = guard.Sessions(Secret(PIN), "S1", lambda: now[0])
    session, text = sessions.new(known=True)
    assert sessions.find(text) == session
    assert sessions.find(text.replace(".1.", ".0.")) is None
    for nonsense in ("", ".", "a.b.c.d", "é", text + "0", text[:-1]):
        assert sessions.find(nonsense) is None
    now[0] += guard.LIFETIME
    assert sessions.find(text) is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "", "station.local"])
def test_no_network_without_a_pin(host: str) -> None:
    with pytest.raises(BadInput, match="PIN"):
        guard.check_pin(None, host)
    with pytest.raises(BadInput, match="at least 6") as caught:
        guard.check_pin(Secret("hunt2"), host)
    assert "hunt2" not in str(caught.value)
    guard.check_pin(Secret("314159"), host)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.8.8.8"])
def test_this_machine_alone_needs_none(host: str) -> None:
    guard.check_pin(None, host)


# --- what goes out ------------------------------------------------------------------------------


async def test_headers(client: Client, locked: Client) -> None:
    for answer in (await client.get("/"), await client.get("/nothing"), await locked.get("/")):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["cache-control"] == "no-store"
    cookie = (await locked.get("/login")).headers["set-cookie"]
    assert cookie.startswith("nbiot-station-8642=")
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie


async def test_no_page_has_anything_inline(station: fake.FakeStation, client: Client) -> None:
    fake.mixed(station)
    for path in ("/", "/history", f"/records/{fake.record(1).id}", "/line", "/skip?slot=2"):
        html = (await client.get(path)).text
        assert not re.search(r"<script(?![^>]* src=)|<style|\sstyle=|\son\w+=|javascript:", html)
        assert not re.search(r'(?:src|href)="(?:https?:)?//', html)


NASTY = "<script>alert(1)</script>'\"&\u2028\n\nevent: hello\ndata: x"


async def test_what_boards_and_people_say_is_only_text() -> None:
    station = fake.station(["<b>1, x'\"\n"], name=NASTY, recipe=NASTY)
    slot = next(iter(station.board.slots))
    record = fake.record(1, Outcome.FAIL, Reason("comet", {"message": NASTY, NASTY: 1}))
    station.records = [replace(record, serial_number=NASTY, operator=NASTY, firmware=NASTY)]
    station.board.update(
        slot, state=SlotState.FAILED, serial_number=NASTY, record="x",
        reason=Reason("comet", {"message": NASTY, "hint": NASTY}), phase=NASTY,
    )  # fmt: skip
    app = await asyncio.to_thread(create_app, station)
    async with Client(transport=httpx.ASGITransport(app=app), base_url=ADDRESS) as client:
        for path in ("/", "/history", f"/records/{record.id}", "/history?search=<script>"):
            answer = await client.get(path)
            assert answer.status_code == 200
            assert "<script>" not in answer.text
    stream = app.state.live.stream("en")
    said = "".join([await anext(stream), await anext(stream)])
    await stream.aclose()
    assert said.count("\nevent: hello\n") == 1  # the first
    assert "<script>" not in said


BAD: list[tuple[str, dict[str, str], str]] = [
    ("/do", {"slot": "9", "action": "start"}, "slot"),
    ("/do", {"slot": "1", "action": "explode"}, "action"),
    ("/do", {"slot": "1", "action": "skip", "reason": "x"}, "reason"),
    ("/scan", {"text": " \x1d "}, "scan"),
    ("/scan", {"text": "x" * 129}, "scan"),
    ("/language", {"language": "tlh"}, "language"),
    (f"/records/{fake.record(1).id}/print", {"copies": "-1"}, "copies"),
    (f"/records/{fake.record(1).id}/print", {"copies": "9" * 5000}, "copies"),
]


@pytest.mark.parametrize(("path", "data", "field"), BAD)
async def test_bad_input_is_named(
    station: fake.FakeStation, client: Client, path: str, data: dict[str, str], field: str
) -> None:
    headers = {"x-csrf": await token(client), "hx-request": "true"}
    answer = await client.post(path, data=data, headers=headers)
    assert answer.status_code == 409
    assert f"{field}: " in answer.text
    assert station.done == []


async def test_a_body_without_end(client: Client) -> None:
    answer = await client.post("/scan", data={"text": "x" * 20_000})
    assert answer.status_code == 413


async def test_a_language_leads_nowhere_else(client: Client) -> None:
    csrf = await token(client)
    for where, to in (
        ("//evil.example", "/"),
        ("/line", "/line"),
        ("http://e", "/"),
        ("/\\e", "/"),
    ):
        data = {"csrf": csrf, "language": "zh", "where": where}
        assert (await client.post("/language", data=data)).headers["location"] == to


async def test_a_mistake_of_ours_is_no_text_for_the_page(
    station: fake.FakeStation, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    station.failing["start"] = ValueError("postgresql://u:hunter2@db")
    headers = {"x-csrf": await token(client), "hx-request": "true"}
    data = {"slot": "1", "action": "start"}
    answer = await client.post("/do", data=data, headers=headers)
    assert answer.status_code == 500
    assert "hunter2" not in answer.text
    assert "Station fault" in answer.text
    assert "Traceback" in caplog.text
