"""Printers: a TCP printer that answers as Zebra's guide has it, a folder, programs named lp."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from nbiot.errors import BadInput, PrinterError
from nbiot.station.labels import Size, png, printer_from, zpl
from tests.station.labels.samples import LEAST, LONG, SHORT
from tests.station.labels.test_zpl_reader import parse

SENT = {label: zpl(label) for label in (SHORT, LONG, LEAST)}


@dataclass
class LabelPrinter:
    """Tells how it is unless it is mute, as clones are."""

    port: int = 0
    flags: dict[tuple[int, int], int] = field(default_factory=dict)
    """(string, place) -> value, in the answer to ~HS."""
    mute: bool = False
    breaks_after: int | None = None
    """Bytes until it cuts the connection."""
    got: list[bytes] = field(default_factory=list)
    deaf: asyncio.Event | None = None
    """Reads nothing until set."""
    busy: int = 0
    at_once: int = 0
    """Most connections at the same time."""

    def status(self) -> bytes:
        strings = [[0] * 12, [0] * 11, [1234, 0]]
        for (string, place), value in self.flags.items():
            strings[string][place] = value
        lines = (",".join(map(str, string)).encode() for string in strings)
        return b"".join(b"\x02" + line + b"\x03\r\n" for line in lines)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.busy += 1
        self.at_once = max(self.at_once, self.busy)
        if self.deaf is not None:
            await self.deaf.wait()
        job = b""
        while data := await reader.read(1000):
            job += data
            if self.breaks_after is not None and len(job) > self.breaks_after:
                writer.transport.abort()
                break
            if b"~HS\r\n" in job:
                job = job.replace(b"~HS\r\n", b"")
                if not self.mute:
                    writer.write(self.status())
        if job:
            self.got.append(job)
        self.busy -= 1
        writer.close()


@asynccontextmanager
async def plugged_in(printer: LabelPrinter) -> AsyncIterator[str]:
    server = await asyncio.start_server(printer.serve, "127.0.0.1", printer.port)
    async with server:
        printer.port = server.sockets[0].getsockname()[1]
        yield f"zpl://127.0.0.1:{printer.port}"


async def test_prints_by_tcp() -> None:
    async with plugged_in(there := LabelPrinter()) as url:
        printer = printer_from(url, size=Size(60, 40), dpi=300)
        assert "is ready" in await printer.check()
        await printer.print(SHORT, copies=2)
    assert there.got == [zpl(SHORT, Size(60, 40), 300, copies=2)]


async def test_labels_sent_at_the_same_time_come_one_by_one() -> None:
    async with plugged_in(there := LabelPrinter()) as url:
        printer = printer_from(url)
        await asyncio.gather(*(printer.print(label) for label in (SHORT, LONG, LEAST)))
    assert sorted(there.got) == sorted(SENT.values())
    assert there.at_once == 1


@pytest.mark.parametrize(
    ("flag", "words", "to_do"),
    [
        ((0, 1), "no labels", "new roll"),
        ((0, 2), "paused", "Press Pause"),
        ((1, 2), "head open", "Close it"),
        ((1, 3), "no ribbon", "ribbon"),
        ((0, 11), "too hot", "cool"),
    ],
)
async def test_says_what_the_printer_lacks(flag: tuple[int, int], words: str, to_do: str) -> None:
    async with plugged_in(there := LabelPrinter(flags={flag: 1})) as url:
        with pytest.raises(PrinterError, match=words) as caught:
            await printer_from(url).print(SHORT)
        assert to_do in caught.value.hint
        with pytest.raises(PrinterError, match=words):
            await printer_from(url).check()
    assert there.got == []


async def test_a_printer_that_never_tells_prints_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("nbiot.station.labels.printers.STATUS_SECONDS", 0.2)
    async with plugged_in(there := LabelPrinter(mute=True)) as url:
        printer = printer_from(url)
        assert "does not tell" in await printer.check()
        await printer.print(SHORT)
    assert there.got == [SENT[SHORT]]


async def test_a_printer_that_falls_silent_is_out_of_something(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Zebra's guide: no answer to ~HS when labels or ribbon ran out, or the head is open."""
    async with plugged_in(there := LabelPrinter()) as url:
        printer = printer_from(url)
        await printer.print(SHORT)
        there.mute = True
        monkeypatch.setattr("nbiot.station.labels.printers.STATUS_SECONDS", 0.2)
        with pytest.raises(PrinterError, match="any more") as caught:
            await printer.print(LONG)
        assert "ribbon" in caught.value.hint
        there.mute = False
        await printer.print(LONG)
    assert there.got == [SENT[SHORT], SENT[LONG]]


async def test_status_can_be_left_unasked() -> None:
    async with plugged_in(there := LabelPrinter(flags={(0, 1): 1})) as url:
        await printer_from(url + "?status=off").print(SHORT)
    assert there.got == [SENT[SHORT]]


async def test_a_label_that_broke_off_may_have_been_printed() -> None:
    # So long that the system cannot take it all before the printer cuts the connection.
    async with plugged_in(LabelPrinter(breaks_after=3000)) as url:
        with pytest.raises(PrinterError, match="broke off") as caught:
            await printer_from(url, size=Size(110, 200), dpi=600).print(LONG)
        assert "before you print it again" in caught.value.hint


async def test_a_printer_that_takes_nothing_is_given_up() -> None:
    there = LabelPrinter(deaf=asyncio.Event())
    async with plugged_in(there) as url:
        with pytest.raises(PrinterError, match=r"within 0\.3 s"):
            await printer_from(url, timeout=0.3).print(SHORT)
        assert there.deaf is not None
        there.deaf.set()


async def test_a_printer_that_is_off() -> None:
    async with plugged_in(LabelPrinter()) as url:
        pass
    with pytest.raises(PrinterError, match="does not answer") as caught:
        await printer_from(url).print(SHORT)
    assert "Is it on" in caught.value.hint


# --- a folder -----------------------------------------------------------------------------------


async def test_prints_into_a_folder(tmp_path: Path) -> None:
    printer = printer_from(f"file:{tmp_path}")
    assert str(tmp_path) in await printer.check()
    await printer.print(SHORT)
    picture, text = sorted(tmp_path.iterdir(), key=lambda path: path.suffix)
    assert (picture.suffix, text.suffix) == (".png", ".zpl")
    assert text.read_bytes() == SENT[SHORT]
    assert picture.read_bytes() == await asyncio.to_thread(png, SHORT)


async def test_a_folder_that_is_missing(tmp_path: Path) -> None:
    printer = printer_from(f"file:{tmp_path / 'none'}")
    for work in (printer.check(), printer.print(SHORT)):
        with pytest.raises(PrinterError, match="none") as caught:
            await work
        assert "mkdir -p" in caught.value.hint


# --- lp, by programs of that name -------------------------------------------------------------


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder at the head of PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def program(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


IDLE = "echo 'printer zebra is idle.  enabled since Sun Nov 22'"


async def test_hands_raw_zpl_to_lp(programs: Path) -> None:
    program(programs, "lpstat", IDLE)
    program(programs, "lp", f'echo "$@" > {programs}/arguments; cat > {programs}/job')
    await printer_from("cups://zebra").print(SHORT, copies=3)
    assert parse((programs / "job").read_bytes()).copies == 3
    assert (programs / "arguments").read_text().strip() == (
        "-d zebra -t label-866971030000017 -o raw"
    )


async def test_hands_a_picture_to_lp(programs: Path) -> None:
    program(programs, "lpstat", IDLE)
    program(programs, "lp", f'echo "$@" > {programs}/arguments; cat > {programs}/job')
    await printer_from("cups://zebra?format=png").print(SHORT, copies=3)
    assert (programs / "job").read_bytes() == await asyncio.to_thread(png, SHORT, scale=1)
    assert "-n 3" in (programs / "arguments").read_text()


async def test_a_queue_that_is_stopped(programs: Path) -> None:
    program(
        programs,
        "lpstat",
        "printf 'printer zebra disabled since Sun Nov 22 -\\n\\tUnable to connect.\\n'",
    )
    with pytest.raises(PrinterError, match=r"stopped: Unable to connect\.") as caught:
        await printer_from("cups://zebra").print(SHORT)
    assert "cupsenable zebra" in caught.value.hint


async def test_what_lp_complains_about_is_told(programs: Path) -> None:
    program(programs, "lpstat", IDLE)
    program(programs, "lp", "echo 'lp: The printer or class does not exist.' >&2; exit 1")
    with pytest.raises(PrinterError, match="does not exist"):
        await printer_from("cups://zebra").print(SHORT)


async def test_lp_that_hangs_is_killed(programs: Path) -> None:
    program(programs, "lpstat", IDLE)
    program(programs, "lp", f"echo $$ > {programs}/pid; exec sleep 60")
    with pytest.raises(PrinterError, match="did not end"):
        await printer_from("cups://zebra", timeout=1.0).print(SHORT)
    with pytest.raises(ProcessLookupError):
        os.kill(int((programs / "pid").read_text()), 0)


async def test_without_lp_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(PrinterError, match="lpstat") as caught:
        await printer_from("cups://zebra").check()
    assert "cups-client" in caught.value.hint


# --- URLs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "",
        "zebra",
        "zpl://",
        "zpl://host:0",
        "zpl://host:port",
        "zpl://host/path",
        "zpl://host?status",
        "zpl://host?status=maybe",
        "zpl://host?speed=1",
        "cups://",
        "cups://-o",
        "cups://a b",
        "cups://zebra?format=pdf",
        "file:",
        "http://host",
    ],
)
def test_urls_of_no_printer(url: str) -> None:
    with pytest.raises(BadInput, match="printer"):
        printer_from(url)


def test_a_timeout_out_of_range() -> None:
    with pytest.raises(BadInput, match=r"0\.1 to 600 s"):
        printer_from("zpl://host", timeout=0)
