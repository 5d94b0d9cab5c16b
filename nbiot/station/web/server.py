"""Serving the screen from the station's own event loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import uvicorn

from nbiot.errors import BadInput, StationError
from nbiot.signing import Secret
from nbiot.station.web import guard
from nbiot.station.web.app import Operated, create_app
from nbiot.station.web.live import BEAT

if TYPE_CHECKING:
    from starlette.applications import Starlette

PORT = 8642
LAST_WORDS = 2.0
"""s that open requests get when the station stops."""


async def serve(
    station: Operated,
    *,
    host: str = "127.0.0.1",
    port: int = PORT,
    token: Secret | None = None,
    names: frozenset[str] = frozenset(),
    on_ready: Callable[[str], None] | None = None,
    clock: Callable[[], float] = time.time,
    beat: float = BEAT,
) -> None:
    """Serve the screen until cancelled.

    token: the PIN; must be given when ``host`` can be reached from other machines
    port: 0 takes a free one
    names: names, beside this host's own, under which browsers may ask for the page
    beat: s between two signs of life to pages
    on_ready: told the page's address once it can be asked for

    Raises BadInput (no PIN, or a short one; an address that is none) or StationError (the port is
    taken).
    """
    guard.check_pin(token, host)
    own = guard.names_of_this_host({*names, host})
    listener = await asyncio.to_thread(_listen, host, port)
    with contextlib.closing(listener):
        app = await asyncio.to_thread(
            create_app, station, token=token, names=own, clock=clock, beat=beat
        )
        if on_ready is not None:
            on_ready(_url(host, listener.getsockname()[1]))
        await _run(app, listener)


async def _run(app: Starlette, listener: socket.socket) -> None:
    config = uvicorn.Config(
        app, lifespan="off", access_log=False, log_config=None, server_header=False, ws="none",
        timeout_graceful_shutdown=int(LAST_WORDS), backlog=64, limit_concurrency=200,
        proxy_headers=False, http="h11",
    )  # fmt: skip
    server = _Server(config)
    running = asyncio.ensure_future(server.serve(sockets=[listener]))
    try:
        await asyncio.shield(running)
    finally:
        app.state.live.close()
        server.should_exit = True
        await running


class _Server(uvicorn.Server):
    """One that leaves Ctrl-C and SIGTERM to the station."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def _listen(host: str, port: int) -> socket.socket:
    if not 0 <= port <= 65535:  # getaddrinfo would take a part of it
        raise BadInput("port of the screen", port, "0 to 65535")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise BadInput(
            "address of the screen", f"{host}:{port}", "an address of this machine, and a port"
        ) from error
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(64)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        reason = os.strerror(error.errno) if error.errno else error
        raise StationError(
            f"the screen cannot listen on {host}:{port}: {reason}",
            hint="Give another port, or stop the program that has this one.",
        ) from error
    return listener


def _url(host: str, port: int) -> str:
    if host in ("", "0.0.0.0", "::"):
        host = socket.gethostname()
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
