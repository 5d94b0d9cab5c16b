"""``--port emulator:MODEL``: a software modem behind a real pseudo-terminal, or a TCP port.

``emulator:bc66?attached=1&speed=10&fault=late-final:probability=0.2``: the part after ``?`` are
options, see OPTIONS and FILES, and faults by name, see hil/faults.py.
"""

from __future__ import annotations

import math
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any, get_args
from urllib.parse import parse_qsl

from hil.emulator import (
    MODELS,
    BadMemory,
    BadNetwork,
    BadWiring,
    Network,
    Options,
    ScriptError,
    serve,
)
from hil.emulator.many import PortKind
from hil.faults import with_faults
from nbiot.errors import BadInput
from nbiot.link import Link, Receiver, open_link


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
    "boot": (_one_of("ready", "cold", "off"), "ready, cold or off", False),
    "check_baud": (_flag, "0 or 1: a host at another rate than the modem's sees garbage", False),
    "sim": (_one_of("ready", "absent", "pin"), "ready, absent or pin", False),
    "imei": (_imei, "15 digits", False),
    "chunk_seed": (_whole(0, 2**63), "a whole number: output in random pieces", False),
    "urc_seed": (_whole(0, 2**63), "a whole number: URCs at random line boundaries", False),
    "attach_delay": (_number(0), "0 or more seconds", True),
    "latency": (_number(0), "0 or more seconds each way", True),
}

# name: what is allowed
FILES = {
    "network": "a TOML file that describes a network, as docs/emulator-network.toml does",
    "script": "a Python file with a function setup(modem), as in docs/emulator.md",
    "nv": "a file in a folder that can be written, made by a modem of this model or still missing",
}


def emulator_settings(rest: str) -> tuple[str, Options, Network]:
    """Model, options and network of ``MODEL?name=value&...``. Raises BadInput."""
    model, _, query = rest.partition("?")
    port_kind(rest)
    if model not in MODELS:
        raise BadInput("port", f"emulator:{model}", f"emulator: and one of {', '.join(MODELS)}")
    options: dict[str, Any] = {}
    network: dict[str, Any] = {}
    files: dict[str, Path] = {}
    faults: list[str] = []
    for name, text in parse_qsl(query, keep_blank_values=True):
        if name == "fault":
            faults.append(text)
            continue
        if name in FILES:
            files[name] = Path(text)
            continue
        if name == "over":
            continue
        if name not in OPTIONS:
            allowed = f"emulator options {', '.join((*OPTIONS, *FILES))}, over, fault"
            raise BadInput("port", f"{name}={text}", allowed)
        read, allowed, of_network = OPTIONS[name]
        try:
            (network if of_network else options)[name] = read(text)
        except ValueError:
            raise BadInput("port", f"{name}={text}", allowed) from None
    if "nv" in files:
        options["nv"] = stored_in(files["nv"])
    if "script" in files:
        options["script"] = script_in(files["script"])
    surroundings = network_in(files["network"]) if "network" in files else Network()
    for name, value in network.items():
        setattr(surroundings, name, value)
    return model, faulty(faults, Options(**options), model), surroundings


def port_kind(rest: str) -> PortKind:
    """What ``over`` in ``MODEL?over=tcp`` says: on what the modem is served. Raises BadInput."""
    given = dict(parse_qsl(rest.partition("?")[2], keep_blank_values=True)).get("over", "pty")
    for kind in get_args(PortKind):
        if given == kind:
            return kind  # type: ignore[no-any-return]
    raise BadInput("port", f"over={given}", ", ".join(get_args(PortKind)))


def network_in(path: Path) -> Network:
    """The network that a file describes. Raises BadInput."""
    try:
        return Network.from_toml(path)
    except BadNetwork as error:
        raise _bad_file("network", path, error) from None
    except ValueError:  # a zero byte in the name
        raise BadInput("network", str(path), FILES["network"]) from None


def stored_in(path: Path) -> Path:
    """A file for settings that outlive the modem. Raises BadInput."""
    try:
        usable = stat.S_ISREG(path.stat().st_mode) and os.access(path, os.R_OK | os.W_OK)
    except FileNotFoundError:
        usable = True
    except (OSError, ValueError):  # a name too long; a zero byte in it
        usable = False
    if not (usable and os.access(path.parent, os.W_OK | os.X_OK)):
        raise BadInput("nv", str(path), FILES["nv"])
    return path


def script_in(path: Path) -> Path:
    """A script; it is not run yet. Raises BadInput."""
    try:
        there = path.is_file()
    except (OSError, ValueError):
        there = False
    if not there:
        raise BadInput("script", str(path), FILES["script"])
    return path


@contextmanager
def settings_checked(options: Options) -> Iterator[None]:
    """Inside, modems are started: what ``options`` have that they refuse raises BadInput."""
    try:
        yield
    except BadMemory as error:
        raise _bad_file("nv", options.nv, error) from None
    except ScriptError as error:
        raise _bad_file("script", options.script, error) from None
    except BadWiring as error:
        given, _, allowed = str(error).removeprefix("wiring ").partition(": ")
        raise BadInput("wiring", given, allowed.removeprefix("allowed ")) from None


def _bad_file(option: str, path: object, error: ValueError) -> BadInput:
    """The emulator's words have the line, the key and what is allowed there."""
    return BadInput(option, str(path), FILES[option], hint=str(error))


def faulty(faults: Sequence[str], options: Options, model: str) -> Options:
    """``options`` with the faults that the texts name. Raises BadInput."""
    try:
        return with_faults(faults, options, model=model) if faults else options
    except ValueError as error:
        raise BadInput("fault", " ".join(faults), str(error)) from None


class EmulatorLink:
    """The driver's end of a line with a software modem on the other end."""

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
        with settings_checked(options):
            modem = serve(model, options, network, port=port_kind(rest))
            await stack.enter_async_context(modem)
        link = await open_link(modem.url, baudrate=baudrate)
        return EmulatorLink(f"emulator:{rest}", link, stack.pop_all())
