"""Running foreign programs against software modems."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hil.emulator import Options, PtyModem

MODELS = ("bc66", "bc95")
RATES = {"bc66": 115200, "bc95": 9600}
EXTRA = "pip install nbiot-driver[foreign]"


def needs(program: str, package: str) -> pytest.MarkDecorator:
    """Skip without a program of a Debian package."""
    return pytest.mark.skipif(
        shutil.which(program) is None, reason=f"needs the Debian package {package}"
    )


def needs_module(module: str, package: str) -> pytest.MarkDecorator:
    """Skip without a Python package of the extra."""
    return pytest.mark.skipif(
        importlib.util.find_spec(module) is None, reason=f"needs {package}: {EXTRA}"
    )


@dataclass
class Done:
    """A program that has ended."""

    code: int
    output: str
    """What it wrote, standard error included."""

    @property
    def last(self) -> Any:
        """The last line, as JSON."""
        return json.loads(self.output.splitlines()[-1])

    @property
    def fields(self) -> dict[str, str]:
        """Lines like `Model : Quectel_BC66`."""
        pairs = (line.split(":", 1) for line in self.output.splitlines() if ":" in line)
        return {name.strip(): value.strip() for name, value in pairs}


async def run(*program: str | Path, seconds: float = 20.0, port: str | None = None) -> Done:
    """Run a program to its end, `port` as its standard input and output; kill it when late."""
    line = os.open(port, os.O_RDWR | os.O_NOCTTY) if port is not None else None
    try:
        process = await asyncio.create_subprocess_exec(
            *program,
            stdin=line if line is not None else asyncio.subprocess.DEVNULL,
            stdout=line if line is not None else asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE if line is not None else asyncio.subprocess.STDOUT,
        )
    finally:
        if line is not None:
            os.close(line)
    try:
        out, err = await asyncio.wait_for(process.communicate(), seconds)
    except TimeoutError:
        process.kill()
        await process.communicate()
        pytest.fail(f"{program[0]} did not end within {seconds} s")
    assert process.returncode is not None
    return Done(process.returncode, ((out or b"") + (err or b"")).decode(errors="replace"))


@asynccontextmanager
async def modem(model: str, **options: Any) -> AsyncIterator[PtyModem]:
    """A software modem, attached unless said otherwise."""
    options.setdefault("attached", True)
    async with PtyModem(model, Options(**options)) as pty:
        yield pty


Host = Callable[[str, PtyModem], Awaitable[Done]]


async def on_each(host: Host, **options: Any) -> dict[str, tuple[Done, list[str]]]:
    """Run a host on all models at once; what it said, and the AT lines it sent."""

    async def one(model: str) -> tuple[Done, list[str]]:
        async with modem(model, **options) as pty:
            return await host(model, pty), list(pty.modem.counters.commands)

    results = await asyncio.gather(*(one(model) for model in MODELS))
    return dict(zip(MODELS, results, strict=True))
