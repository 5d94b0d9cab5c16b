"""Clients of the TCP ports, for tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

TIME_LIMIT = 5.0


class Client:
    """A plain TCP client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.got = b""

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def read(self, until: bytes) -> bytes:
        """Everything up to and with `until`."""
        async with asyncio.timeout(TIME_LIMIT):
            while until not in self.got:
                piece = await self.reader.read(4096)
                if not piece:
                    raise EOFError(self.got)
                self.got += piece
        end = self.got.index(until) + len(until)
        found, self.got = self.got[:end], self.got[end:]
        return found

    async def rest(self) -> bytes:
        """Everything until the other end closes."""
        async with asyncio.timeout(TIME_LIMIT):
            return self.got + await self.reader.read()

    async def ask(self, command: str, until: bytes = b"OK\r\n") -> bytes:
        self.send(command.encode() + b"\r")
        return await self.read(until)


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)


async def until(condition: Callable[[], object]) -> None:
    """Wait until something is true."""
    async with asyncio.timeout(TIME_LIMIT):
        while not condition():
            await asyncio.sleep(0.002)
