"""libcoap's command line client and server (without DTLS) as independent CoAP peers."""

from __future__ import annotations

import asyncio
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

requires_libcoap = pytest.mark.skipif(
    shutil.which("coap-client-notls") is None or shutil.which("coap-server-notls") is None,
    reason="coap-client-notls or coap-server-notls is missing: Debian package libcoap3-bin",
)

_TRAFFIC = re.compile(
    r": (?P<direction>sent|received) \d+ bytes\n"
    r"v:1 t:(?P<type>\w+) c:(?P<code>\S+) i:(?P<mid>\w+) \{(?P<token>\w*)\} \[ (?P<options>.*?) ?\]"
)
_BOUND = re.compile(r"created UDP  endpoint [\d.]+:(\d+)")


@dataclass(frozen=True)
class Message:
    """A CoAP message as libcoap's own decoder prints it."""

    direction: str
    type: str
    code: str
    mid: int
    token: bytes
    options: str


@dataclass(frozen=True)
class Answer:
    """What the client got: code None if nothing came that it took for an answer."""

    code: str | None
    payload: bytes
    messages: list[Message]


@dataclass
class Server:
    """A running coap-server; ``log`` grows a moment after the traffic it tells of."""

    port: int
    host: str = "127.0.0.1"
    log: list[str] = field(default_factory=list)

    @property
    def messages(self) -> list[Message]:
        return list(_messages("".join(self.log)))


async def coap_client(
    method: str,
    uri: str,
    payload: bytes = b"",
    *,
    options: Sequence[tuple[int, bytes]] = (),
    block_size: int | None = None,
    confirmable: bool = True,
    patience: int = 5,
) -> Answer:
    """Make one request with coap-client and wait at most ``patience`` (whole) seconds."""
    with tempfile.TemporaryDirectory() as folder:
        received = Path(folder, "payload")
        words = ["-v", "7", "-B", str(patience), "-m", method, "-o", str(received)]
        if payload:
            words += ["-f", "-"]
        for number, value in options:
            words += ["-O", f"{number},0x{value.hex()}"]
        if block_size is not None:
            words += ["-b", str(block_size)]
        if not confirmable:
            words += ["-N"]
        log = await _run(payload, "coap-client-notls", *words, uri)
        messages = list(_messages(log))
        codes = [m.code for m in messages if m.direction == "received" and m.code != "0.00"]
        return Answer(codes[-1] if codes else None, _read(received), messages)


@asynccontextmanager
async def coap_server(*, dynamic_resources: int = 100, lost: str = "") -> AsyncIterator[Server]:
    """libcoap's server on an ephemeral loopback port.

    It creates a resource for each unknown path (2.01, then 2.04), which GET reads; it does not know
    EnOS. ``lost``: which of its datagrams it does not send ("2-3,6"). It takes a request that is
    repeated then for a new one (4.3.1).
    """
    process = await asyncio.create_subprocess_exec(
        *("coap-server-notls", "-A", "127.0.0.1", "-p", "0"),
        *("-d", str(dynamic_resources), "-v", "7"),
        *(("-l", lost) if lost else ()),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    reading: asyncio.Task[None] | None = None
    try:
        server = Server(port=await asyncio.wait_for(_bound_port(process.stdout), 5))
        reading = asyncio.create_task(_collect(process.stdout, server.log))
        yield server
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
        if reading is not None:
            await reading


def _read(file: Path) -> bytes:
    return file.read_bytes() if file.exists() else b""


async def _run(payload: bytes, *words: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *words,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        out, _ = await process.communicate(payload)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return out.decode(errors="replace")


async def _bound_port(stdout: asyncio.StreamReader) -> int:
    while line := (await stdout.readline()).decode(errors="replace"):
        if found := _BOUND.search(line):
            return int(found[1])
    raise RuntimeError("coap-server-notls ended before it was bound")


async def _collect(stdout: asyncio.StreamReader, log: list[str]) -> None:
    while line := await stdout.readline():
        log.append(line.decode(errors="replace"))


def _messages(log: str) -> Iterator[Message]:
    for found in _TRAFFIC.finditer(log):
        yield Message(
            direction=found["direction"],
            type=found["type"],
            code=found["code"],
            mid=int(found["mid"], 16),
            token=bytes.fromhex(found["token"]),
            options=found["options"],
        )
