"""Printers, each by a URL. Whatever goes wrong is a PrinterError that says what to do.

=============================  ====================================================================
``zpl://HOST[:9100]``          a label printer in the network. ``?status=off``: do not ask it how it
                               is (see ``ZplPrinter``)
``cups://QUEUE``               a CUPS queue, by the program lp: raw ZPL; ``?format=png``: a picture,
                               for queues with a driver
``file:FOLDER``                no printer: a ``.zpl`` and a ``.png`` in a folder
=============================  ====================================================================
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shlex
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import parse_qsl, urlsplit

from nbiot.errors import BadInput, PrinterError
from nbiot.station.labels.label import Label
from nbiot.station.labels.layout import Size
from nbiot.station.labels.png import png
from nbiot.station.labels.zpl import zpl

PORT = 9100
STATUS_SECONDS = 2.0  # in which a printer answers ~HS
_LINGER_SECONDS = 1.0  # in which it takes leave
_URLS = "zpl://HOST[:PORT], cups://QUEUE or file:FOLDER"


class Printer(Protocol):
    """Whatever prints labels. Labels sent at the same time come out one after the other."""

    async def print(self, label: Label, copies: int = 1) -> None:
        """Print; done when printer or queue have it all. Raises PrinterError, BadInput."""
        ...

    async def check(self) -> str:
        """What is there, in words, without printing. Raises PrinterError."""
        ...


def printer_from(
    url: str, *, size: Size | None = None, dpi: int = 203, timeout: float = 10.0
) -> Printer:
    """The printer that ``url`` names; nothing is opened yet. Raises BadInput.

    timeout: s that printing one label may take
    """
    if not 0.1 <= timeout <= 600:
        raise BadInput("printer time-out", timeout, "0.1 to 600 s")
    try:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=True))
        port = PORT if parts.port is None else parts.port
    except ValueError:  # a port that is no number; an option without "="
        parts, options, port = urlsplit(url.partition("?")[0].rpartition(":")[0]), {}, 0
    paper = Paper(size or Size(), dpi)
    match parts.scheme:
        case "zpl" if parts.hostname and port and parts.path in ("", "/"):
            status = _option(url, options, "status", ("on", "off")) == "on"
            return ZplPrinter(parts.hostname, port, paper, timeout, asks_status=status)
        case "cups" if re.fullmatch(r"[A-Za-z0-9_.][A-Za-z0-9_.-]{0,126}", parts.netloc):
            as_png = _option(url, options, "format", ("zpl", "png")) == "png"
            return CupsPrinter(parts.netloc, paper, timeout, as_png=as_png)
        case "file" if parts.path and not parts.netloc and not options:
            return FolderPrinter(Path(parts.path), paper)
    raise BadInput("printer", url, _URLS)


def _option(url: str, options: dict[str, str], name: str, allowed: tuple[str, str]) -> str:
    value = options.pop(name, allowed[0])
    if options or value not in allowed:
        raise BadInput("printer", url, f"no option but {name}={' or '.join(allowed)}")
    return value


@dataclass(frozen=True, slots=True)
class Paper:
    """What is in the printer."""

    size: Size
    dpi: int

    async def zpl(self, label: Label, copies: int) -> bytes:
        """In a thread."""
        return await asyncio.to_thread(zpl, label, self.size, self.dpi, copies=copies)

    async def png(self, label: Label, scale: int = 1) -> bytes:
        """In a thread."""
        return await asyncio.to_thread(png, label, self.size, self.dpi, scale=scale)


# --- ZPL over TCP -------------------------------------------------------------------------------


@dataclass
class ZplPrinter:
    """A label printer at a TCP port.

    It is asked how it is (~HS) before each label. Zebra's printers stay silent when labels or
    ribbon ran out or the head is open; other makes may never answer. So silence is an error only
    once this printer has answered; before that, the label is sent all the same.
    """

    host: str
    port: int
    paper: Paper
    timeout: float
    asks_status: bool = True
    _answered: bool = field(default=False, init=False)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock, init=False, repr=False)

    async def print(self, label: Label, copies: int = 1) -> None:
        """See Printer."""
        data = await self.paper.zpl(label, copies)
        async with self._turn:
            await self._within(lambda: self._send(data))

    async def check(self) -> str:
        """See Printer."""
        async with self._turn:
            return await self._within(self._ask)

    async def _within(self, work: Callable[[], Awaitable[str]]) -> str:
        try:
            async with asyncio.timeout(self.timeout):
                return await work()
        except TimeoutError:
            raise self._failed(f"takes nothing within {self.timeout:g} s") from None
        except OSError as error:
            raise self._failed(f"does not answer: {error.strerror or error}") from error

    async def _send(self, data: bytes) -> str:
        reader, writer = await asyncio.open_connection(self.host, self.port)
        async with _closing(writer):
            await self._check_status(reader, writer)
            try:
                writer.write(data)
                await writer.drain()
                writer.write_eof()
                await _until_closed(reader)
            except (OSError, TimeoutError) as error:
                raise self._failed(
                    "broke off in the middle of a label",
                    "Look whether the label came out before you print it again.",
                ) from error
        return "printed"

    async def _ask(self) -> str:
        reader, writer = await asyncio.open_connection(self.host, self.port)
        async with _closing(writer):
            answered = await self._check_status(reader, writer)
        if answered:
            return f"{self._place} is ready"
        return f"{self._place} takes connections; it does not tell how it is"

    async def _check_status(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Did it answer, and is it ready? Raises PrinterError when it is not."""
        if not self.asks_status:
            return False
        writer.write(b"~HS\r\n")
        try:
            async with asyncio.timeout(STATUS_SECONDS):
                await writer.drain()
                lines = [await reader.readuntil(b"\x03") for _ in range(3)]
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            if not self._answered:
                return False
            raise self._failed(
                "does not say how it is any more",
                "Are labels and ribbon in, and is its head closed? It is silent when not.",
            ) from None
        self._answered = True
        trouble = trouble_in(lines)
        if trouble:
            raise self._failed(*trouble)
        return True

    @property
    def _place(self) -> str:
        return f"the label printer {self.host}:{self.port}"

    def _failed(self, what: str, hint: str = "") -> PrinterError:
        return PrinterError(
            f"{self._place} {what}",
            hint=hint
            or "Is it on, in this network, and free? Its address is in its menu, "
            "or on the label that it prints of its settings.",
        )


def trouble_in(lines: list[bytes]) -> tuple[str, str] | None:
    """What the three strings of ~HS complain about, and what to do; None: nothing.

    Sources: "~HS" in Zebra's ZPL II manual. The strings stand between STX and ETX.
    """
    strings = [line.partition(b"\x02")[2].rstrip(b"\x03").split(b",") for line in lines]
    for string, place, what, hint in _TROUBLES:
        if len(strings[string]) > place and strings[string][place].strip() == b"1":
            return what, hint
    return None


_TROUBLES = (
    (0, 1, "has no labels", "Put in a new roll, close the head, press Feed."),
    (1, 2, "has its head open", "Close it until it clicks."),
    (1, 3, "has no ribbon", "Put in a new ribbon, close the head, press Feed."),
    (0, 2, "is paused", "Press Pause on it."),
    (0, 11, "is too hot", "Let it cool; it goes on by itself."),
    (0, 10, "is too cold", "Let it warm up; it goes on by itself."),
    (0, 5, "is full of labels that wait", "See what keeps it from printing."),
    (0, 9, "lost its settings", "Set it up anew: see its manual."),
)


@contextlib.asynccontextmanager
async def _closing(writer: asyncio.StreamWriter) -> AsyncIterator[None]:
    try:
        yield
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _until_closed(reader: asyncio.StreamReader) -> None:
    """Read what it still says: closing before would let the system take back what was sent.

    Raises OSError when it cut the connection instead.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LINGER_SECONDS):
            while await reader.read(4096):
                pass


# --- CUPS -------------------------------------------------------------------------------------


@dataclass
class CupsPrinter:
    """A CUPS queue. A label is printed when the queue has it."""

    queue: str
    paper: Paper
    timeout: float
    as_png: bool = False

    async def print(self, label: Label, copies: int = 1) -> None:
        """See Printer."""
        if self.as_png:
            data = await self.paper.png(label)
            how = ["-n", str(copies), "-o", "print-scaling=none"]
        else:
            data = await self.paper.zpl(label, copies)
            how = ["-o", "raw"]
        await self.check()
        await self._run("lp", "-d", self.queue, "-t", f"label-{label.imei}", *how, input_=data)

    async def check(self) -> str:
        """See Printer."""
        said = await self._run("lpstat", "-p", self.queue)
        first, _, rest = said.partition("\n")
        if "disabled" in first:
            raise PrinterError(
                f"the CUPS queue {self.queue} is stopped: {rest.strip() or 'no reason given'}",
                hint=f"See to the printer, then type: sudo cupsenable {self.queue}",
            )
        return first.strip()

    async def _run(self, program: str, *arguments: str, input_: bytes = b"") -> str:
        try:
            process = await asyncio.create_subprocess_exec(
                program,
                *arguments,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env={**os.environ, "LC_ALL": "C"},
            )
        except OSError as error:
            raise PrinterError(
                f"the program {program} cannot be run: {error.strerror}",
                hint="Type: sudo apt install cups-client",
            ) from error
        try:
            async with asyncio.timeout(self.timeout):
                out, err = await process.communicate(input_)
        except TimeoutError:
            raise PrinterError(
                f"{program} did not end within {self.timeout:g} s", hint="Type: lpstat -r"
            ) from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            raise self._refused(program, arguments, err)
        return out.decode(errors="replace")

    def _refused(self, program: str, arguments: tuple[str, ...], err: bytes) -> PrinterError:
        said = err.decode(errors="replace").strip().splitlines() or ["no reason given"]
        return PrinterError(
            f"the CUPS queue {self.queue} cannot be used: {said[-1]}",
            hint=f"Type: {shlex.join([program, *arguments])}; all queues: lpstat -p",
        )


# --- a folder ---------------------------------------------------------------------------------


@dataclass
class FolderPrinter:
    """Labels as files: to see what would be printed, or for a program that fetches them."""

    folder: Path
    paper: Paper

    async def print(self, label: Label, copies: int = 1) -> None:
        """See Printer."""
        data, picture = await self.paper.zpl(label, copies), await self.paper.png(label, 2)
        name = f"{time.time_ns() // 1000}-{label.imei}"
        try:
            for suffix, content in ((".png", picture), (".zpl", data)):
                await asyncio.to_thread(_written, self.folder / (name + suffix), content)
        except OSError as error:
            raise self._failed(error.strerror or str(error)) from error

    async def check(self) -> str:
        """See Printer."""
        if not await asyncio.to_thread(os.access, self.folder, os.W_OK | os.X_OK):
            raise self._failed("it is missing, or not to be written")
        return f"labels go to the folder {self.folder}"

    def _failed(self, why: str) -> PrinterError:
        return PrinterError(
            f"the label folder {self.folder} cannot be used: {why}",
            hint=f"Type: mkdir -p {shlex.quote(str(self.folder))}",
        )


def _written(path: Path, content: bytes) -> None:
    """Whoever watches the folder sees whole files only."""
    hidden = path.with_name(f".{path.name}")
    hidden.write_bytes(content)
    hidden.rename(path)
