"""Who may see the screen and press its buttons.

Four locks, each against its own thief:

* the Host header names this station, or a web page elsewhere has bent its own name to our address
  (DNS rebinding);
* a PIN where the page can be reached from other machines; wrong ones cost time;
* what changes something must come from our own page: Origin, a SameSite=Strict cookie, and a
  token in the request that belongs to the cookie;
* the browser runs no script and loads nothing but what this package brings (CSP).
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nbiot.errors import BadInput
from nbiot.signing import Secret

PIN_MIN = 6
"""Characters of the PIN: with what a wrong one costs, a million take two years."""
LIFETIME = 7 * 86400
"""s that a login lasts."""
FREE_TRIES = 5
"""Wrong PINs before waiting begins."""
LONGEST_WAIT = 60.0
"""s between two tries, at most."""

OPEN_PATHS = ("/login", "/static/")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self';"
    " img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none';"
    " frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def check_pin(pin: Secret | None, host: str) -> None:
    """Raise BadInput when the screen would be open to a network without a PIN, or with a short one.

    host: where it is to listen
    """
    if pin is None and not is_loopback(host):
        raise BadInput(
            "PIN of the screen",
            None,
            f"a PIN of at least {PIN_MIN} characters when it listens on {host}",
            hint="Give the PIN (env:NAME, file:PATH, keyring:…), or listen on 127.0.0.1.",
        )
    if pin is not None and len(pin.reveal()) < PIN_MIN:
        raise BadInput(
            "PIN of the screen", "a shorter one (not shown)", f"at least {PIN_MIN} characters"
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens on ``host``."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class Session:
    """One browser. ``known``: it gave the PIN, or none is asked for."""

    id: str
    known: bool


class Sessions:
    """Cookies that need no memory: they hold, and their signature says that we gave them.

    The key comes from the PIN and the station's name: a restart of the station logs nobody out, a
    new PIN does. Without a PIN it is random.
    """

    def __init__(
        self, pin: Secret | None, station: str, clock: Callable[[], float] = time.time
    ) -> None:
        self._pin = pin
        self._clock = clock
        self._key = secrets.token_bytes(32) if pin is None else _key(pin, station)
        self._wrong = 0
        self._not_before = 0.0

    def find(self, cookie: str) -> Session | None:
        """The session of a cookie's text; None if it is none of ours, or is too old."""
        said, _, signature = cookie.rpartition(".")
        if not hmac.compare_digest(signature.encode(), self._sign("session", said).encode()):
            return None
        id_, expires, known = said.split(".")
        return Session(id_, known == "1") if int(expires) > self._clock() else None

    def new(self, *, known: bool = False) -> tuple[Session, str]:
        """A session and its cookie's text."""
        session = Session(secrets.token_urlsafe(12), known or self._pin is None)
        said = f"{session.id}.{int(self._clock()) + LIFETIME}.{int(session.known)}"
        return session, f"{said}.{self._sign('session', said)}"

    def csrf(self, session: Session) -> str:
        """What a request of this session that changes something must carry."""
        return self._sign("csrf", session.id)

    def is_csrf(self, session: Session, given: str) -> bool:
        """In constant time."""
        return hmac.compare_digest(self.csrf(session).encode(), given.encode())

    def wait(self) -> float:
        """s until a PIN is looked at again; 0: now."""
        return max(0.0, self._not_before - self._clock())

    def is_pin(self, given: str) -> bool:
        """Whether this is the PIN; a wrong one makes the next try wait. No try while waiting."""
        if self.wait():
            return False
        try:
            right = self._pin is None or Secret(given) == self._pin
        except BadInput:  # no PIN looks like that
            right = False
        self._wrong = 0 if right else self._wrong + 1
        if self._wrong >= FREE_TRIES:
            pause = min(2.0 ** (self._wrong - FREE_TRIES + 1), LONGEST_WAIT)
            self._not_before = self._clock() + pause
        return right

    def _sign(self, purpose: str, text: str) -> str:
        return hmac.new(self._key, f"{purpose}:{text}".encode(), hashlib.sha256).hexdigest()


def _key(pin: Secret, station: str) -> bytes:
    salt = f"nbiot station {station}".encode()
    return hashlib.scrypt(pin.reveal().encode(), salt=salt, n=2**14, r=8, p=1, dklen=32)


def names_of_this_host(more: Iterable[str] = ()) -> frozenset[str]:
    """The names under which browsers may ask for us; addresses are always allowed."""
    own = socket.gethostname().lower()
    return frozenset({"localhost", own, f"{own.partition('.')[0]}.local", *map(str.lower, more)})


class Guard:
    """Stands in front of the pages."""

    def __init__(self, app: ASGIApp, *, sessions: Sessions, names: frozenset[str]) -> None:
        self._app = app
        self._sessions = sessions
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or say no."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        send = _with_headers(send)
        refusal = self._refusal(scope, Headers(scope=scope))
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        cookie = scope["state"]["new_cookie"]
        await self._app(scope, receive, _with_cookie(send, *cookie) if cookie else send)

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        host = headers.get("host", "")
        if not self._is_our_name(host):
            return PlainTextResponse(
                "This station does not go by that name. Ask for it by its address, or add the name"
                " to the station's settings.",
                status_code=421,
            )
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return PlainTextResponse("Only GET and POST are answered here.", status_code=405)
        if scope["method"] == "POST" and not _from_our_page(headers, host):
            return PlainTextResponse("That did not come from this station's page.", status_code=403)
        session = self._find_session(scope, headers, host)
        if session.known or scope["path"].startswith(OPEN_PATHS):
            return None
        return _ask_for_pin(scope, headers)

    def _is_our_name(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name.lower() in self._names
        return True  # a page elsewhere cannot bend an address

    def _find_session(self, scope: Scope, headers: Headers, host: str) -> Session:
        name = cookie_name(host)
        session = self._sessions.find(_cookie(headers.get("cookie", ""), name))
        state = scope.setdefault("state", {})
        state["new_cookie"] = None
        if session is None:
            session, text = self._sessions.new()
            state["new_cookie"] = (name, text)
        state["session"] = session
        return session


def cookie_name(host: str) -> str:
    """Cookies know no ports: two stations on one machine must not take each other's."""
    port = host.rpartition(":")[2]
    return f"nbiot-station-{port if port.isdigit() else '80'}"


def set_cookie(headers: MutableHeaders, name: str, text: str, *, lifetime: int = LIFETIME) -> None:
    """A cookie for this site alone, out of reach of scripts."""
    headers.append(
        "set-cookie", f"{name}={text}; Path=/; Max-Age={lifetime}; HttpOnly; SameSite=Strict"
    )


def _cookie(text: str, name: str) -> str:
    try:
        found = SimpleCookie(text).get(name)
    except CookieError:
        return ""
    return found.value if found else ""


def _from_our_page(headers: Headers, host: str) -> bool:
    origin = headers.get("origin")
    if origin is not None:
        return urlsplit(origin).netloc.lower() == host.lower()
    return headers.get("sec-fetch-site", "same-origin") == "same-origin"


def _ask_for_pin(scope: Scope, headers: Headers) -> Response:
    if scope["path"] == "/" or "text/html" in headers.get("accept", ""):
        return RedirectResponse("/login", status_code=303)
    return Response(status_code=401, headers={"HX-Redirect": "/login"})


def _with_headers(send: Send) -> Send:
    async def wrapped(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers[name] = value
            headers.setdefault("Cache-Control", "no-store")
        await send(message)

    return wrapped


def _with_cookie(send: Send, name: str, text: str) -> Send:
    async def wrapped(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            if "immutable" not in headers.get("cache-control", "") and not _sets(headers, name):
                set_cookie(headers, name, text)
        await send(message)

    return wrapped


def _sets(headers: MutableHeaders, name: str) -> bool:
    return any(cookie.startswith(f"{name}=") for cookie in headers.getlist("set-cookie"))
