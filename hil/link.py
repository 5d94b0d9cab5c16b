"""``--port emulator:MODEL``: a software modem behind a real pseudo-terminal.

``emulator:bc66?attached=1&speed=10&fault=late-final:probability=0.2``: the part after ``?`` are
options, see OPTIONS, and faults by name, see hil/faults.py.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import parse_qsl

from hil.emulator import MODELS, Network, Options, PtyModem
from hil.faults import with_faults
from nbiot.errors import BadInput
from nbiot.link import Link, Receiver
from nbiot.link.serial import open_serial


def _flag(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError(text)
    return text == "1"


def _one_of(*allowed: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in allowed:
            raise ValueError(text)
        return text

    return read


def _number(least: float, *, above: bool = False) -> Callable[[str], float]:
    """A finite number from ``least`` on, or above it."""

    def read(text: str) -> float:
        value = float(text)
        if not math.isfinite(value) or value < least or (above and value == least):
            raise ValueError(text)
        return value

    return read


def _whole(least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        value = int(text) if len(text) <= 20 else most + 1
        if not least <= value <= most:
            raise ValueError(text)
        return value

    return read


def _imei(text: str) -> str:
    if not re.fullmatch(r"\d{15}", text, re.ASCII):
        raise ValueError(text)
    return text


# name: (how to read it, what is allowed, does it belong to the network?)
OPTIONS: dict[str, tuple[Any, str, bool]] = {
    "attached": (_flag, "0 or 1: joined to the network already", False),
    "baud": (_whole(300, 4_000_000), "300 to 4000000: as slow as a real line", False),
    "speed": (_number(0, above=True), "above 0: divides the modem's own waiting times", False),
    "boot": (_one_of("ready", "cold"), "ready or cold", False),
    "sim": (_one_of("ready", "absent", "pin"), "ready, absent or pin", False),
    "imei": (_imei, "15 digits", False),
    "chunk_seed": (_whole(0, 2**63), "a whole number: output in random pieces", False),
    "urc_seed": (_whole(0, 2**63), "a whole number: URCs at random line boundaries", False),
    "attach_delay": (_number(0), "0 or more seconds", True),
    "latency": (_number(0), "0 or more seconds each way", True),
}


def emulator_settings(rest: str) -> tuple[str, Options, Network]:
    """Model, options and network of ``MODEL?name=value&...``. Raises BadInput."""
    model, _, query = rest.partition("?")
    if model not in MODELS:
        raise BadInput("port", f"emulator:{model}", f"emulator: and one of {', '.join(MODELS)}")
    options: dict[str, Any] = {}
    network: dict[str, Any] = {}
    faults: list[str] = []
    for name, text in parse_qsl(query, keep_blank_values=True):
        if name == "fault":
            faults.append(text)
            continue
        if name not in OPTIONS:
            allowed = f"emulator options {', '.join(OPTIONS)}, fault"
            raise BadInput("port", f"{name}={text}", allowed)
        read, allowed, of_network = OPTIONS[name]
        try:
            (network if of_network else options)[name] = read(text)
        except ValueError:
            raise BadInput("port", f"{name}={text}", allowed) from None
    return model, faulty(faults, Options(**options), model), Network(**network)


def faulty(faults: Sequence[str], options: Options, model: str) -> Options:
    """``options`` with the faults that the texts name. Raises BadInput."""
    try:
        return with_faults(faults, options, model=model) if faults else options
    except ValueError as error:
        raise BadInput("fault", " ".join(faults), str(error)) from None


class EmulatorLink:
    """The driver's end of a pseudo-terminal with a software modem on the other end."""

    def __init__(self, name: str, link: Link, stack: AsyncExitStack) -> None:
        self.name = name
        self._link = link
        self._stack = stack

    @property
    def baudrate(self) -> int:
        """bit/s, as a serial port has it."""
        return self._link.baudrate

    def start(self, receiver: Receiver) -> None:
        self._link.start(receiver)

    def write(self, data: bytes) -> None:
        self._link.write(data)

    async def set_baudrate(self, baudrate: int) -> None:
        await self._link.set_baudrate(baudrate)

    async def set_lines(self, *, dtr: bool | None = None, rts: bool | None = None) -> None:
        await self._link.set_lines(dtr=dtr, rts=rts)

    async def close(self) -> None:
        await self._link.close()
        await self._stack.aclose()


async def open_emulator(rest: str, *, baudrate: int) -> Link:
    """The opener of ``emulator:`` (entry point group ``nbiot.links``)."""
    model, options, network = emulator_settings(rest)
    async with AsyncExitStack() as stack:
        pty = await stack.enter_async_context(PtyModem(model, options, network))
        link = await open_serial(pty.path, baudrate=baudrate)
        return EmulatorLink(f"emulator:{rest}", link, stack.pop_all())
