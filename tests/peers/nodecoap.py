"""The npm package ``coap`` as an independent CoAP server (see server.js)."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

_HERE = Path(__file__).parent
_MODULES = Path(os.environ.get("NBIOT_NODE_MODULES", _HERE / "node_modules"))


def _missing() -> str:
    if shutil.which("node") is None:
        return "node is missing: Debian packages nodejs and npm"
    if not (_MODULES / "coap" / "package.json").exists():
        return (
            "the npm package coap is missing: run `npm install` in tests/peers "
            "(Debian packages nodejs and npm), or name a folder by NBIOT_NODE_MODULES"
        )
    return ""


requires_node_coap = pytest.mark.skipif(bool(_missing()), reason=_missing())


@dataclass(frozen=True)
class Request:
    """A request as node's coap understood it."""

    method: str
    path: str
    payload: bytes
    mid: int
    token: bytes


@dataclass
class Server:
    """A running server; ``requests`` grows as they come, retransmissions not counted."""

    port: int
    host: str = "127.0.0.1"
    requests: list[Request] = field(default_factory=list)


@asynccontextmanager
async def node_server(
    *,
    code: str = "2.04",
    payload: bytes = b"",
    options: Sequence[tuple[int, bytes]] = (),
    separate: float | None = None,
) -> AsyncIterator[Server]:
    """A server on an ephemeral loopback port which takes every POST /auth/{pk}/{dk}.

    It checks nothing and answers ``code``, ``payload`` and ``options``; with ``separate`` (in
    seconds) an empty ACK goes first and the answer follows as a CON.
    """
    settings = {
        "code": code,
        "payload": payload.hex(),
        "options": [[number, value.hex()] for number, value in options],
        "separateMs": None if separate is None else round(separate * 1000),
    }
    process = await asyncio.create_subprocess_exec(
        *("node", str(_HERE / "server.js"), json.dumps(settings)),
        stdin=asyncio.subprocess.PIPE,  # the server ends when this is closed
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "NODE_PATH": str(_MODULES)},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    reading: asyncio.Task[None] | None = None
    try:
        bound = await asyncio.wait_for(process.stdout.readline(), 10)
        server = Server(port=json.loads(bound)["port"])
        reading = asyncio.create_task(_collect(process.stdout, server.requests))
        yield server
    finally:
        process.stdin.close()
        await process.wait()
        if reading is not None:
            await reading


async def _collect(stdout: asyncio.StreamReader, requests: list[Request]) -> None:
    while line := await stdout.readline():
        said = json.loads(line)
        requests.append(
            Request(
                method=said["method"],
                path=said["path"],
                payload=bytes.fromhex(said["payload"]),
                mid=said["mid"],
                token=bytes.fromhex(said["token"]),
            )
        )
