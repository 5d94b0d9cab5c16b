"""Backend ``http``: a relay or socket that is switched by a URL (Shelly, Tasmota, a PDU ...)."""

from __future__ import annotations

import asyncio
import base64
import ssl
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urlsplit

from hil.power import MOST_SECONDS, PowerError, positive
from hil.rig import check_secret_source
from nbiot.errors import BadInput

_METHODS = ("GET", "POST", "PUT")
_HEAD_MOST = 16_384  # bytes of a response's head


@dataclass
class HttpPower:
    """Asks ``on_url`` or ``off_url``; any answer of 2xx is a success.

    Proxies of the environment are not used: relays stand in the same network.
    """

    on_url: str = field(repr=False)
    off_url: str = field(repr=False)
    method: str = "GET"
    on_body: str = field(default="", repr=False)
    off_body: str = field(default="", repr=False)
    content_type: str = "application/json"
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    timeout: float = 5.0

    def __post_init__(self) -> None:
        positive("timeout", self.timeout, MOST_SECONDS)
        _checked("on_url", self.on_url)
        _checked("off_url", self.off_url)
        if self.method not in _METHODS:
            raise BadInput("method", self.method, ", ".join(_METHODS))
        if not self.content_type.isascii() or not self.content_type.isprintable():
            raise BadInput("content_type", self.content_type, "text such as application/json")
        if (self.user is None) != (self.password is None):
            raise BadInput("user", "one without the other", "user and password together")
        if self.password is not None:
            check_secret_source(self.password, "password")

    async def check(self) -> None:
        """See hil.power. Connects, and asks nothing."""
        _, writer = await self._connected(urlsplit(self.on_url))
        await _closed(writer)

    async def on(self) -> None:
        """See hil.power.PowerSwitch."""
        await self._ask(self.on_url, self.on_body)

    async def off(self) -> None:
        """See hil.power.PowerSwitch."""
        await self._ask(self.off_url, self.off_body)

    async def _ask(self, url: str, body: str) -> None:
        parts = urlsplit(url)
        request = self._head(parts, body).encode() + await self._login() + b"\r\n" + body.encode()
        reader, writer = await self._connected(parts)
        try:
            async with asyncio.timeout(self.timeout):
                writer.write(request)
                await writer.drain()
                head = await _head_of(reader)
        except TimeoutError:
            raise self._failed(parts, f"does not answer within {self.timeout:g} s") from None
        except (OSError, ValueError) as error:
            raise self._failed(parts, f"answers no HTTP: {error}") from error
        finally:
            await _closed(writer)
        self._judge(parts, head)

    def _judge(self, parts: SplitResult, head: str) -> None:
        status = head.splitlines()[0].split(" ", 1)[1][:100]
        if status.startswith("2"):
            return
        hint = "Ask it by hand, with curl."
        if status.startswith("3"):
            hint = "It wants another URL than the one in the rig file (https?)."
        elif status.startswith("401"):
            hint = 'It wants a login: user = "...", password = "env:NAME" in the rig file.'
        raise self._failed(parts, f"answers {status!r}", hint)

    def _head(self, parts: SplitResult, body: str) -> str:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        lines = [
            f"{self.method} {target} HTTP/1.1",
            f"Host: {parts.netloc}",
            "Connection: close",
            "User-Agent: nbiot",
            "Accept: */*",
        ]
        if body or self.method != "GET":
            lines.append(f"Content-Length: {len(body.encode())}")
        if body:
            lines.append(f"Content-Type: {self.content_type}")
        return "\r\n".join(lines) + "\r\n"

    async def _login(self) -> bytes:
        """The header line with user and password, if there are any."""
        if self.password is None:
            return b""
        from nbiot.signing import secret_from

        secret = await asyncio.to_thread(secret_from, self.password)
        pair = base64.b64encode(f"{self.user}:{secret.reveal()}".encode())
        return b"Authorization: Basic " + pair + b"\r\n"

    async def _connected(
        self, parts: SplitResult
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        secure = parts.scheme == "https"
        port = parts.port or (443 if secure else 80)
        context = await asyncio.to_thread(ssl.create_default_context) if secure else None
        try:
            async with asyncio.timeout(self.timeout):
                return await asyncio.open_connection(
                    parts.hostname, port, ssl=context, limit=_HEAD_MOST
                )
        except TimeoutError:
            raise self._failed(parts, f"cannot be reached within {self.timeout:g} s") from None
        except OSError as error:
            reason = error.strerror or error
            raise self._failed(parts, f"cannot be reached: {reason}") from error

    def _failed(self, parts: SplitResult, problem: str, hint: str = "") -> PowerError:
        where = f"{parts.scheme}://{parts.netloc}"  # what follows may hold a key
        return PowerError(
            f"the relay {where} {problem}", hint=hint or "Is it on, its address right?"
        )


async def _head_of(reader: asyncio.StreamReader) -> str:
    """Status line and headers. Raises ValueError, OSError."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError as error:
        head = error.partial.decode("latin-1")
    except asyncio.LimitOverrunError:
        raise ValueError("a head without end") from None
    if not head.startswith("HTTP/1.") or head[8:9] != " ":
        raise ValueError(f"it says {head[:40]!r}")
    return head


async def _closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(1):
            await writer.wait_closed()


def _checked(key: str, url: str) -> None:
    allowed = "a URL: http://HOST[:PORT]/PATH"
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not url.isascii() or not url.isprintable() or " " in url:
        raise BadInput(key, "another text (not shown: it may hold a key)", allowed)
    if parts.username is not None or parts.password is not None:
        raise BadInput(
            key,
            "a URL with user or password in it (not shown)",
            "a URL without them",
            hint='Write user = "NAME" and password = "env:NBIOT_RELAY_PASSWORD" beside it.',
        )
