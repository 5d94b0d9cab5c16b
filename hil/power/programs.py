"""Running the programs that switch something."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Sequence
from contextlib import suppress

from hil.power import PowerError

_SHOWN = 300  # characters of what a program said


async def run(command: Sequence[str], *, seconds: float | None, keep: bool = True) -> str:
    """What ``command`` printed. No shell. Killed with its children when time is up or cancelled.

    keep: whether what it prints is wanted

    Raises PowerError: not there, a result other than 0, out of time.
    """
    find(command[0])
    out_to = asyncio.subprocess.PIPE if keep else asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=out_to,
        stderr=out_to,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(seconds):
            out, err = await process.communicate()
    except TimeoutError:
        raise PowerError(
            f"{command[0]} did not end within {seconds:g} s",
            hint=f"Try it by hand: {_typed(command)}",
        ) from None
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if process.returncode:
        raise PowerError(
            f"{command[0]} ended with {process.returncode}: {_words(err or out or b'')}",
            hint=f"Try it by hand: {_typed(command)}",
        )
    return (out or b"").decode(errors="replace")


def find(program: str) -> None:
    """Raise PowerError if there is no such program."""
    if shutil.which(program) is None:
        raise PowerError(f"there is no program {program}", hint="Install it, or give its path.")


def _words(said: bytes) -> str:
    """The end of what a program said, as one line fit for a terminal."""
    text = " ".join(said.decode(errors="replace").split())
    return "".join(c if c.isprintable() else "?" for c in text)[-_SHOWN:] or "it said nothing"


def _typed(command: Sequence[str]) -> str:
    import shlex

    return shlex.join(command)
