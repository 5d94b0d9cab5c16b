"""The stream: who looks on is told what changed, all of it at first, and costs nothing after."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator

import pytest

from nbiot.station.board import Board, SlotState
from nbiot.station.web.live import Live
from nbiot.station.web.pages import Pages
from tests.station.web import fake


@pytest.fixture(scope="module")
def pages() -> Pages:
    return Pages()


@pytest.fixture
def board() -> Board:
    return fake.station(["1", "2", "roof, left"]).board


@pytest.fixture
async def live(board: Board, pages: Pages) -> Live:
    return Live(board, pages, time.time, beat=0.05)


@pytest.fixture
async def stream(live: Live) -> AsyncIterator[AsyncIterator[str]]:
    found = live.stream("en")
    yield found
    await found.aclose()  # type: ignore[attr-defined]


def names(text: str) -> list[str]:
    return re.findall(r"^event: (.*)$", text, re.M)


async def some(stream: AsyncIterator[str]) -> str:
    """The next that is no sign of life."""
    async for text in stream:
        if names(text) != ["beat"]:
            return text
    return ""


async def test_a_new_connection_gets_everything(stream: AsyncIterator[str]) -> None:
    assert names(await anext(stream)) == ["hello"]
    found = names(await anext(stream))
    assert sorted(found) == [
        "a-1", "a-2", "a-roof%2C%20left", "station", "t-1", "t-2", "t-roof%2C%20left",
    ]  # fmt: skip


async def test_then_only_what_changed(board: Board, stream: AsyncIterator[str]) -> None:
    await anext(stream)
    await anext(stream)
    board.update("2", state=SlotState.RUNNING, phase="attach")
    assert names(await some(stream)) == ["t-2", "a-2"]
    board.update("2", progress=0.5)
    assert names(await some(stream)) == ["t-2"]  # its buttons are what they were
    board.update_station(passed=1)
    assert names(await some(stream)) == ["station"]
    board.update("2", state=SlotState.PASSED)
    text = await some(stream)
    assert names(text) == ["t-2", "a-2", "say"]
    assert "Slot 2: Pass. Take the board out" in text


async def test_many_changes_are_one(board: Board, stream: AsyncIterator[str]) -> None:
    await anext(stream)
    await anext(stream)
    for step in range(100):
        board.update("1", state=SlotState.RUNNING, progress=step / 100)
    text = await some(stream)
    assert names(text) == ["t-1", "a-1"]
    assert 'value="0.990"' in text


async def test_a_sign_of_life_while_nothing_changes(stream: AsyncIterator[str]) -> None:
    await anext(stream)
    await anext(stream)
    text = await anext(stream)
    assert names(text) == ["beat"]
    assert abs(float(text.split("data: ")[1]) - time.time()) < 60


async def test_who_goes_away_is_forgotten(board: Board, live: Live) -> None:
    stream = live.stream("en")
    await anext(stream)
    await anext(stream)
    assert len(board._watchers) == 1
    await stream.aclose()  # type: ignore[attr-defined]
    assert not board._watchers
    assert len(asyncio.all_tasks()) == 1


async def test_the_station_stops(board: Board, live: Live) -> None:
    stream = live.stream("en")
    await anext(stream)
    live.close()
    assert [text async for text in stream] == []
    assert not board._watchers


async def test_html_is_made_once_for_all(board: Board, pages: Pages) -> None:
    one = pages.face(board.slots["1"], "en")
    assert pages.face(board.slots["1"], "en") is one
    assert pages.face(board.slots["1"], "zh") != one
    assert pages.face(board.slots["1"], "en") is one
