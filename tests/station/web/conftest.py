"""A browser for the session, and a screen in a thread of its own for each test."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, Self

import pytest

from nbiot.station.web import serve
from tests.station.web import fake
from tests.station.web.browser import Browser, Page, program

PATIENCE = 30.0


class Hosted:
    """A screen that is served, as from a station: in an event loop, until cancelled."""

    def __init__(self, station: fake.FakeStation, **options: Any) -> None:
        self.station = station
        self.url = ""
        self._options = options
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()))

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(PATIENCE)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End it, as Ctrl-C does."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()

    def do(self, action: Callable[[], Any]) -> Any:
        """Call it in the station's loop; returns what it returns."""
        result: Future[Any] = Future()

        def call() -> None:
            try:
                result.set_result(action())
            except Exception as error:
                result.set_exception(error)

        self._loop.call_soon_threadsafe(call)
        return result.result(PATIENCE)

    def update(self, slot: str, **changes: Any) -> None:
        """Change what a slot shows."""
        self.do(lambda: self.station.board.update(slot, **changes))

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Its event loop stands still meanwhile."""
        end = threading.Event()
        self._loop.call_soon_threadsafe(end.wait, PATIENCE)
        try:
            yield
        finally:
            end.set()

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        options = {"port": 0, **self._options}
        self._task = asyncio.ensure_future(serve(self.station, on_ready=self._on_ready, **options))
        try:
            await self._task
        except asyncio.CancelledError:
            pass
        finally:
            self._ready.set()

    def _on_ready(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._ready.set()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    found = program()
    if found is None:
        pytest.skip("needs the Debian package chromium")
    with Browser(found) as running:
        yield running


@pytest.fixture(scope="session")
def tab(browser: Browser) -> Page:
    return browser.page()


@pytest.fixture
def open_page(tab: Page) -> Iterator[Callable[..., Page]]:
    """Opens a page."""

    def opened(url: str, width: int = 1280, height: int = 800, *, language: str = "en") -> Page:
        tab.reset(language)
        tab.resize(width, height)
        tab.open(url)
        return tab

    yield opened
    tab.open("about:blank")  # or it would look for its station


@pytest.fixture
def hosted() -> Iterator[Callable[..., Hosted]]:
    """Serves a station."""
    running: list[Hosted] = []

    def host(station: fake.FakeStation, **options: Any) -> Hosted:
        screen = Hosted(station, **options).__enter__()
        running.append(screen)
        return screen

    yield host
    for screen in running:
        screen.stop()
