"""The pages, and what the operator may do on them."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Protocol
from urllib.parse import parse_qsl, urlencode

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nbiot.errors import BadInput, NbiotError
from nbiot.signing import Secret
from nbiot.station import words
from nbiot.station.board import Board, SlotState, SlotView, StationView
from nbiot.station.record import Record
from nbiot.station.web import guard
from nbiot.station.web.live import BEAT, Live
from nbiot.station.web.pages import Pages, duration

log = logging.getLogger(__name__)

BODY_MAX = 16 * 1024
"""Bytes of a form."""
SCAN_MAX = 128
"""Characters of a scanned label."""
COPIES_MAX = 20
PAGE_OF_RECORDS = 50
STREAMS_MAX = 32
"""Browsers that look on at a time."""
STALE = 15.0
"""s after which a station of the line counts as gone."""


class StationRow(Protocol):
    """One station of the line, as it last reported, ``age`` seconds ago."""

    @property
    def view(self) -> StationView: ...
    @property
    def slots(self) -> Sequence[SlotView]: ...
    @property
    def age(self) -> float: ...


class Operated(Protocol):
    """What the screen wants of a station. Each action raises NbiotError to say why not."""

    @property
    def board(self) -> Board: ...

    @property
    def may_skip(self) -> frozenset[str]:
        """Names of the recipe's phases that an operator may skip."""
        ...

    async def scan(self, text: str, slot: str | None = None) -> str:
        """A label was scanned; without a slot, the station finds the one that waits for it.

        Returns the slot.
        """
        ...

    async def start(self, slot: str) -> None: ...
    async def stop(self, slot: str) -> None: ...
    async def retry(self, slot: str) -> None: ...
    async def skip(self, slot: str, reason: str, phase: str | None = None) -> None:
        """Skip the phase; BadInput if the slot is no longer in it."""
        ...

    async def switch_off(self, slot: str) -> None: ...
    async def switch_on(self, slot: str) -> None: ...
    async def print_label(self, record_id: str, copies: int = 1) -> None: ...
    async def label_png(self, record_id: str) -> bytes: ...
    async def history(
        self, search: str = "", limit: int = 50, before: str | None = None
    ) -> Sequence[Record]:
        """Newest first; before: the id of the last record of the page before."""
        ...

    async def record(self, record_id: str) -> Record | None: ...
    async def stations(self) -> Sequence[StationRow]: ...


def create_app(
    station: Operated,
    *,
    token: Secret | None = None,
    names: frozenset[str] | None = None,
    clock: Callable[[], float] = time.time,
    beat: float = BEAT,
) -> Starlette:
    """The screen as an ASGI application. Reads files and derives a key: make it in a thread.

    token: the PIN; None: nobody is asked for one
    names: what the Host header may say, beside addresses; None: localhost and this host's names
    beat: s between two signs of life
    """
    return Screen(station, token=token, names=names, clock=clock, beat=beat).app


class Screen:
    """The pages of one station."""

    def __init__(
        self,
        station: Operated,
        *,
        token: Secret | None,
        names: frozenset[str] | None,
        clock: Callable[[], float],
        beat: float,
    ) -> None:
        self._station = station
        self._clock = clock
        self._pages = Pages(clock, may_skip=bool(station.may_skip))
        self._sessions = guard.Sessions(token, station.board.station.name, clock)
        self._asks_for_pin = token is not None
        self._streams = 0
        self.live = Live(station.board, self._pages, clock, beat=beat)
        lock = Middleware(
            guard.Guard,
            sessions=self._sessions,
            names=guard.names_of_this_host() if names is None else names,
        )
        self.app = Starlette(
            routes=self._routes(),
            middleware=[lock],
            exception_handlers={
                NbiotError: self._on_error,
                404: self._on_404,
                HTTPException: self._on_http,
            },
        )
        self.app.state.live = self.live

    def _routes(self) -> list[Route]:
        routes = [
            Route("/", self._slots),
            Route("/events", self._events),
            Route("/alive", self._alive),
            Route("/scan", self._scan, methods=["POST"]),
            Route("/scan-form", self._scan_form),
            Route("/do", self._do, methods=["POST"]),
            Route("/skip", self._skip_form),
            Route("/history", self._history),
            Route("/records/{id}", self._record),
            Route("/records/{id}/label.png", self._label),
            Route("/records/{id}/print", self._print, methods=["POST"]),
            Route("/line", self._line),
            Route("/language", self._language, methods=["POST"]),
            Route("/login", self._login, methods=["GET", "POST"]),
            Route("/logout", self._logout, methods=["POST"]),
            Route("/static/{name}", self._static),
        ]
        for route in routes:
            route.app = self._caught(route.app)
        return routes

    def _caught(self, app: ASGIApp) -> ASGIApp:
        """A mistake of ours: its text goes into the log, not into the page."""

        async def caught(scope: Scope, receive: Receive, send: Send) -> None:
            started = False

            async def noted(message: Message) -> None:
                nonlocal started
                started = True
                await send(message)

            try:
                await app(scope, receive, noted)
            except (NbiotError, HTTPException, ClientDisconnect):
                raise
            except Exception as error:
                log.exception("%s %s", scope["method"], scope["path"])
                if not started:
                    response = await self._on_error(Request(scope, receive), error)
                    await response(scope, receive, send)

        return caught

    # --- the slots --------------------------------------------------------------------------

    async def _slots(self, request: Request) -> Response:
        return self._page(
            request, "slots.html", slots=list(self._station.board.slots.values()), pages=self._pages
        )

    async def _events(self, request: Request) -> Response:
        if self._streams >= STREAMS_MAX:
            raise HTTPException(503, f"{STREAMS_MAX} browsers look on already")
        stream = self._counted(self.live.stream(language_of(request)))
        return StreamingResponse(stream, media_type="text/event-stream")

    async def _counted(self, stream: AsyncIterator[str]) -> AsyncIterator[str]:
        self._streams += 1
        try:
            async with contextlib.aclosing(stream):  # type: ignore[type-var]
                async for text in stream:
                    yield text
        finally:
            self._streams -= 1

    async def _alive(self, _: Request) -> Response:
        return Response(self.live.start, media_type="text/plain")

    async def _scan_form(self, request: Request) -> Response:
        slot = request.query_params.get("slot", "")
        return self._page(request, "scan.html", slot=self._known(slot) if slot else "")

    async def _scan(self, request: Request) -> Response:
        form = await self._form(request)
        text = "".join(c for c in form.get("text", "") if c.isprintable()).strip()
        if not 0 < len(text) <= SCAN_MAX:
            raise BadInput("scan", text[:40], f"1 to {SCAN_MAX} characters")
        slot = await self._station.scan(text, form.get("slot") or None)
        return self._done(request, "scanned", slot, text)

    async def _do(self, request: Request) -> Response:
        form = await self._form(request)
        slot, action = self._known(form.get("slot", "")), form.get("action", "")
        if action == "skip":
            await self._skip(slot, form)
        else:
            await self._action(action)(slot)
        return self._done(request, f"ok_{action}", slot)

    def _action(self, name: str) -> Callable[[str], Awaitable[None]]:
        actions = {
            "start": self._station.start,
            "stop": self._station.stop,
            "retry": self._station.retry,
            "switch_off": self._station.switch_off,
            "switch_on": self._station.switch_on,
        }
        if name not in actions:
            raise BadInput("action", name, ", ".join([*actions, "skip"]))
        return actions[name]

    async def _skip(self, slot: str, form: dict[str, str]) -> None:
        reason = form.get("other", "").strip() or form.get("reason", "").strip()
        if not 3 <= len(reason) <= 200:
            raise BadInput("reason", reason[:40], "3 to 200 characters: why it is skipped")
        await self._station.skip(slot, reason, form.get("phase") or None)

    async def _skip_form(self, request: Request) -> Response:
        view = self._station.board.slots[self._known(request.query_params.get("slot", ""))]
        return self._page(
            request, "skip.html", view=view, runs=view.state is SlotState.RUNNING,
            may_skip=self._station.may_skip,
        )  # fmt: skip

    def _known(self, slot: str) -> str:
        if slot not in self._station.board.slots:
            raise BadInput("slot", slot, ", ".join(self._station.board.slots))
        return slot

    # --- records ----------------------------------------------------------------------------

    async def _history(self, request: Request) -> Response:
        search = request.query_params.get("search", "").strip()[:SCAN_MAX]
        before = request.query_params.get("before") or None
        found = list(await self._station.history(search, PAGE_OF_RECORDS + 1, before))
        older = ""
        if len(found) > PAGE_OF_RECORDS:
            found = found[:PAGE_OF_RECORDS]
            older = "?" + urlencode({"search": search, "before": found[-1].id})
        part = request.headers.get("hx-target") == "records"
        return self._page(
            request, "records.html" if part else "history.html",
            records=found, search=search, older=older, duration=duration, newest=before is None,
        )  # fmt: skip

    async def _record(self, request: Request) -> Response:
        record = await self._find(request)
        return self._page(request, "record.html", record=record, duration=duration)

    async def _label(self, request: Request) -> Response:
        record = await self._find(request)
        return Response(await self._station.label_png(record.id), media_type="image/png")

    async def _print(self, request: Request) -> Response:
        form = await self._form(request)
        copies = form.get("copies", "1")
        if not copies.isascii() or not copies.isdigit() or not 1 <= int(copies[:4]) <= COPIES_MAX:
            raise BadInput("copies", copies, f"1 to {COPIES_MAX}")
        record = await self._find(request)
        await self._station.print_label(record.id, int(copies))
        return self._done(request, "printed", "", record.device_key or record.serial_number)

    async def _find(self, request: Request) -> Record:
        record = await self._station.record(request.path_params["id"])
        if record is None:
            raise HTTPException(404)
        return record

    async def _line(self, request: Request) -> Response:
        stations = await self._station.stations()
        part = request.headers.get("hx-target") == "stations"
        name = "stations.html" if part else "line.html"
        return self._page(request, name, stations=stations, stale=STALE)

    # --- who --------------------------------------------------------------------------------

    async def _login(self, request: Request) -> Response:
        if request.state.session.known:
            return RedirectResponse("/", status_code=303)
        if request.method == "GET":
            return self._page(request, "login.html", problem="")
        form = await self._form(request)
        if self._sessions.wait():
            return self._page(request, "login.html", status=429, problem="login_wait")
        if not self._sessions.is_pin(form.get("pin", "")):
            return self._page(request, "login.html", status=403, problem="login_wrong")
        _, text = self._sessions.new(known=True)
        return self._to_slots(request, text)

    async def _logout(self, request: Request) -> Response:
        await self._form(request)
        return self._to_slots(request, "", lifetime=0)

    def _to_slots(
        self, request: Request, cookie: str, *, lifetime: int = guard.LIFETIME
    ) -> Response:
        response = RedirectResponse("/", status_code=303)
        name = guard.cookie_name(request.headers["host"])
        guard.set_cookie(response.headers, name, cookie, lifetime=lifetime)
        return response

    async def _language(self, request: Request) -> Response:
        form = await self._form(request)
        language = form.get("language", "")
        if language not in words.LANGUAGES:
            raise BadInput("language", language, ", ".join(words.LANGUAGES))
        where = form.get("where", "/")
        safe = where.startswith("/") and not where.startswith(("//", "/\\"))
        response = RedirectResponse(where if safe else "/", status_code=303)
        guard.set_cookie(response.headers, "language", language, lifetime=365 * 86400)
        return response

    # --- what all share ---------------------------------------------------------------------

    async def _form(self, request: Request) -> dict[str, str]:
        """What was sent. Raises 403 unless it carries the token of its session."""
        form = dict(parse_qsl((await _body(request)).decode("utf-8", "replace")))
        given = request.headers.get("x-csrf") or form.get("csrf", "")
        if not self._sessions.is_csrf(request.state.session, given):
            raise HTTPException(403, "session_over")
        return form

    def _page(
        self, request: Request, name: str, *, status: int = 200, **values: object
    ) -> Response:
        html = self._pages.page(
            name, language_of(request),
            station=self._station.board.station, live=self.live, path=request.url.path,
            csrf=self._sessions.csrf(request.state.session), asks_for_pin=self._asks_for_pin,
            **values,
        )  # fmt: skip
        return HTMLResponse(html, status_code=status)

    def _done(self, request: Request, key: str, slot: str, detail: str = "") -> Response:
        return self._page(request, "done.html", key=key, slot=slot, detail=detail)

    async def _on_error(self, request: Request, error: Exception) -> Response:
        """An action that could not be: in words, in the place where the operator looks."""
        said = words.of_error(error, language_of(request))
        return self._problem(request, said, 409 if isinstance(error, NbiotError) else 500)

    async def _on_http(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        key = error.detail if error.detail in words.TEXTS else ""
        sentence = words.text(key, language_of(request)) if key else error.detail
        said = words.Words(str(error.status_code), sentence, "")
        return self._problem(request, said, error.status_code)

    def _problem(self, request: Request, said: words.Words, status: int) -> Response:
        name = "problem.html" if "hx-request" in request.headers else "problem_page.html"
        return self._page(request, name, status=status, said=said)

    async def _on_404(self, request: Request, _: Exception) -> Response:
        language = language_of(request)
        said = words.Words("404", words.text("gone", language), words.text("gone_todo", language))
        return self._page(request, "problem_page.html", status=404, said=said)

    async def _static(self, request: Request) -> Response:
        file = self._pages.static.get(request.path_params["name"])
        if file is None:
            raise HTTPException(404)
        fresh = request.query_params.get("v") == self._pages.version
        caching = "public, max-age=31536000, immutable" if fresh else "no-cache"
        return Response(file.body, media_type=file.media_type, headers={"Cache-Control": caching})


def language_of(request: Request) -> str:
    """The chosen language, else the browser's."""
    chosen = request.cookies.get("language")
    if chosen in words.LANGUAGES:
        return chosen
    return "zh" if request.headers.get("accept-language", "").lower().startswith("zh") else "en"


async def _body(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_MAX:
            raise HTTPException(413, f"more than {BODY_MAX} bytes")
    return body
