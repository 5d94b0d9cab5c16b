"""The stream of changes (server-sent events): whole tiles, at most five times a second.

Events: ``hello`` (which start of the station this is: a page of another one loads itself again),
``t-SLOT`` a tile's face, ``a-SLOT`` its buttons when they changed, ``station`` the summary, ``say``
what a screen reader speaks, ``beat`` (the station's time) while nothing changes: a page that hears
nothing for a while knows that it is cut off. A new connection gets the whole state.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable

from nbiot.station.board import STATION, Board, SlotState, SlotView
from nbiot.station.web.pages import Pages, Part, event_name

BEAT = 2.0
"""s between two signs of life."""
AT_MOST = 5.0
"""Updates per second."""
SPOKEN = {
    SlotState.WAITING,
    SlotState.HELD,
    SlotState.PASSED,
    SlotState.FAILED,
    SlotState.ERROR,
}


class Live:
    """Makes the stream of each browser. Belongs to one event loop."""

    def __init__(
        self, board: Board, pages: Pages, clock: Callable[[], float], *, beat: float = BEAT
    ) -> None:
        self.start = secrets.token_hex(8)
        """Which start of the station this is."""
        self.beat = beat
        self._board = board
        self._pages = pages
        self._clock = clock
        self._closing = asyncio.Event()

    def close(self) -> None:
        """End all streams, so that the server can stop."""
        self._closing.set()

    async def stream(self, language: str) -> AsyncIterator[str]:
        """Events for one browser, until it goes away or the station stops."""
        browser = _Browser(self._board, self._pages, language)
        changes = self._board.changes(at_most=AT_MOST)
        closing = asyncio.ensure_future(self._closing.wait())
        coming = asyncio.ensure_future(anext(changes))
        try:
            yield f"retry: 1000\n{event('hello', self.start)}"
            while True:
                done, _ = await asyncio.wait(
                    {coming, closing}, timeout=self.beat, return_when=asyncio.FIRST_COMPLETED
                )
                if closing in done:
                    return
                if coming in done:
                    names = coming.result()
                    coming = asyncio.ensure_future(anext(changes))
                    yield browser.events(names)
                else:
                    yield event("beat", f"{self._clock():.3f}")
        finally:
            coming.cancel()
            closing.cancel()
            await asyncio.gather(coming, closing, return_exceptions=True)
            await changes.aclose()  # type: ignore[attr-defined]  # it is a generator


class _Browser:
    """What one browser was told."""

    def __init__(self, board: Board, pages: Pages, language: str) -> None:
        self._board = board
        self._pages = pages
        self._language = language
        self._actions: dict[str, str] = {}
        self._spoken: dict[str, SlotState] = {}

    def events(self, names: frozenset[str]) -> str:
        """All that changed, in one piece: one write, one packet or few."""
        return "".join(self._of(name) for name in sorted(names))

    def _of(self, name: str) -> str:
        if name == STATION:
            return _part("station", self._pages.summary(self._board.station, self._language))
        view = self._board.slots[name]
        key = event_name(name)
        text = _part(f"t-{key}", self._pages.face(view, self._language))
        actions = self._pages.actions(view, self._language)
        if self._actions.get(name) != actions.version:
            self._actions[name] = actions.version
            text += _part(f"a-{key}", actions)
        return text + self._speech(view)

    def _speech(self, view: SlotView) -> str:
        before, self._spoken[view.name] = self._spoken.get(view.name), view.state
        if before in (None, view.state) or view.state not in SPOKEN:
            return ""
        return event("say", self._pages.page("speech.html", self._language, view=view))


def _part(name: str, part: Part) -> str:
    """The version goes along as the event's id: a page that shows it already leaves it there."""
    return f"event: {name}\nid: {part.version}\ndata: {part.html}\n\n"


def event(name: str, data: str) -> str:
    """One event; line breaks in HTML mean nothing, and in a stream they would."""
    return f"event: {name}\ndata: {' '.join(data.splitlines())}\n\n"
