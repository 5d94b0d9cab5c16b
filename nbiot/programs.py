"""Run a program of the user's: bytes in, bytes out, a time limit, an end for its whole group.

For commands from EnOS (``nbiot commands --exec``) and for phases of a recipe.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

MOST_OUTPUT = 64 * 1024  # bytes
MOST_SAID = 4096  # bytes of standard error that are kept, the last ones
GRACE = 2.0  # s between SIGTERM and SIGKILL


@dataclass(frozen=True, slots=True)
class Ran:
    """How it went. ``status``: its exit code, or minus the number of the signal that ended it;
    None: its time was up. ``stdout`` has up to MOST_OUTPUT + 1 bytes: one more is too many.
    """

    status: int | None
    stdout: bytes
    stderr: bytes


async def run_program(
    line: Sequence[str],
    data: bytes,
    seconds: float,
    environment: Mapping[str, str],
    *,
    alone: bool = False,
) -> Ran:
    """Run ``line`` in a process group of its own, with ``data`` on its standard input.

    The group is ended when ``seconds`` are over or this is cancelled; with ``alone`` also what the
    program leaves behind when it ends by itself. Raises OSError: it does not start.
    """
    process = await asyncio.create_subprocess_exec(
        *line,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )
    stdout, stderr = bytearray(), bytearray()
    status: int | None = None
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await asyncio.gather(
                    _feed(process, data),
                    _first(process.stdout, stdout),
                    _last(process.stderr, stderr),
                    process.wait(),
                )
                status = process.returncode
    finally:
        if status is None:
            await _end(process)
        elif alone:
            _signal(process, signal.SIGKILL)
    return Ran(status, bytes(stdout), bytes(stderr))


async def _feed(process: asyncio.subprocess.Process, data: bytes) -> None:
    assert process.stdin is not None
    with suppress(BrokenPipeError, ConnectionResetError):  # it need not read
        process.stdin.write(data)
        await process.stdin.drain()
    process.stdin.close()


async def _first(stream: asyncio.StreamReader | None, kept: bytearray) -> None:
    """The beginning of a stream, one byte more than allowed at most; read to its end."""
    assert stream is not None
    while chunk := await stream.read(MOST_OUTPUT):
        kept += chunk[: MOST_OUTPUT + 1 - len(kept)]


async def _last(stream: asyncio.StreamReader | None, kept: bytearray) -> None:
    assert stream is not None
    while chunk := await stream.read(MOST_OUTPUT):
        kept += chunk
        del kept[:-MOST_SAID]


async def _end(process: asyncio.subprocess.Process) -> None:
    """End the process and what else is in its group, which may outlive it."""
    if process.returncode is None:
        _signal(process, signal.SIGTERM)
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(GRACE):
                await process.wait()
    finally:
        _signal(process, signal.SIGKILL)
    await process.wait()


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
