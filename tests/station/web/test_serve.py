"""Serving: refusals, the end, and who is still there then."""

from __future__ import annotations

import asyncio
import socket
import urllib.request
from collections.abc import Callable
from contextlib import suppress

import httpx
import pytest

from nbiot.errors import BadInput, StationError
from nbiot.signing import Secret
from nbiot.station.web import serve
from tests.station.web import fake
from tests.station.web.conftest import Hosted

Host = Callable[..., Hosted]


async def test_no_network_without_a_pin() -> None:
    with pytest.raises(BadInput, match="PIN of the screen"):
        await serve(fake.station(1), host="0.0.0.0", port=0)


async def test_a_port_that_is_taken_is_named() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(StationError, match=f"127.0.0.1:{port}: Address already in use"):
            await serve(fake.station(1), port=port)


@pytest.mark.parametrize(("host", "port"), [("999.0.0.1", 0), ("127.0.0.1", 70000)])
async def test_an_address_that_is_none(host: str, port: int) -> None:
    with pytest.raises((BadInput, StationError), match=str(port)):
        await serve(fake.station(1), host=host, port=port, token=Secret("314159"))


async def test_cancelling_ends_it_with_browsers_looking_on() -> None:
    station = fake.station(2)
    url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    task = asyncio.ensure_future(serve(station, port=0, on_ready=url.set_result))
    async with (
        httpx.AsyncClient(base_url=await url) as client,
        client.stream("GET", "/events") as events,
    ):
        chunks = events.aiter_text()
        assert "event: hello" in await anext(chunks)
        task.cancel()
        with suppress(httpx.RemoteProtocolError):
            async for _ in chunks:
                pass
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 20)
    assert not station.board._watchers


async def test_a_browser_that_leaves_is_forgotten() -> None:
    station = fake.station(2)
    url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    task = asyncio.ensure_future(serve(station, port=0, on_ready=url.set_result, beat=0.05))
    async with httpx.AsyncClient(base_url=await url) as client:
        async with client.stream("GET", "/events") as events:
            chunks = events.aiter_text()
            await anext(chunks)
            await anext(chunks)
            assert len(station.board._watchers) == 1
        async with asyncio.timeout(20):
            while station.board._watchers:
                await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_static_files_are_kept_by_browsers(hosted: Host) -> None:
    screen = hosted(fake.station(1))
    with urllib.request.urlopen(f"{screen.url}/") as page:
        html = page.read().decode()
    path = html.partition('src="')[2].partition('"')[0]
    with urllib.request.urlopen(screen.url + path) as file:
        assert "immutable" in file.headers["cache-control"]
        assert file.headers["content-type"].startswith("text/javascript")
    with urllib.request.urlopen(screen.url + path.partition("?")[0]) as file:
        assert file.headers["cache-control"] == "no-cache"
