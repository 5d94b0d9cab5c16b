"""A real CUPS, started for the test. Its printer is a backend that writes into a file."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from nbiot.errors import PrinterError
from nbiot.station.labels import printer_from, zpl
from tests.station.labels.samples import LONG, SHORT

CUPSD, LPADMIN = "/usr/sbin/cupsd", "/usr/sbin/lpadmin"

pytestmark = [
    pytest.mark.skipif(
        not (os.path.exists(CUPSD) and os.path.exists(LPADMIN) and shutil.which("lp")),
        reason="CUPS is missing: Debian packages cups-daemon and cups-client",
    ),
    pytest.mark.skipif(os.geteuid() != 0, reason="cupsd wants root"),
]

CUPSD_CONF = """
Listen {folder}/sock
WebInterface No
Browsing No
DefaultAuthType None
<Location />
  Order allow,deny
  Allow all
</Location>
<Location /admin>
  Order allow,deny
  Allow all
</Location>
<Policy default>
  <Limit All>
    Order deny,allow
  </Limit>
</Policy>
"""
BACKEND = """#!/bin/sh
[ $# -eq 0 ] || cat "$6" >> "${DEVICE_URI#folder:}/output"
"""
CUPS_FILES_CONF = """
ServerBin {folder}/lib
ServerRoot {folder}
RequestRoot {folder}/spool
CacheDir {folder}/cache
StateDir {folder}/state
TempDir {folder}/tmp
AccessLog {folder}/access
ErrorLog {folder}/error
PageLog {folder}/page
"""


@dataclass
class Cups:
    """A CUPS of its own, and what its queue ``zebra`` printed."""

    folder: Path

    @property
    def output(self) -> Path:
        return self.folder / "output"

    async def admin(self, program: str, *arguments: str) -> None:
        process = await asyncio.create_subprocess_exec(
            program, *arguments, stderr=asyncio.subprocess.PIPE
        )
        _, said = await process.communicate()
        assert process.returncode == 0, said

    async def printed(self) -> bytes:
        """Once the queue is empty."""
        async with asyncio.timeout(20):
            while True:
                process = await asyncio.create_subprocess_exec(
                    "lpstat", "-o", stdout=asyncio.subprocess.PIPE
                )
                jobs, _ = await process.communicate()
                if not jobs.strip():
                    return self.output.read_bytes()
                await asyncio.sleep(0.05)


@pytest.fixture
async def cups(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Cups]:
    folder = Path(tempfile.mkdtemp(prefix="cups-", dir="/tmp"))  # sockets' paths are short
    try:
        folder.chmod(0o755)
        for name in ("spool", "cache", "state", "tmp"):
            (folder / name).mkdir()
        (folder / "cupsd.conf").write_text(CUPSD_CONF.format(folder=folder))
        (folder / "cups-files.conf").write_text(CUPS_FILES_CONF.format(folder=folder))
        (folder / "lib" / "backend").mkdir(parents=True)
        (folder / "lib" / "backend" / "folder").write_text(BACKEND)
        (folder / "lib" / "backend" / "folder").chmod(0o755)
        for name in ("daemon", "filter"):
            (folder / "lib" / name).symlink_to(f"/usr/lib/cups/{name}")
        (folder / "output").touch()
        (folder / "output").chmod(0o666)
        monkeypatch.setenv("CUPS_SERVER", str(folder / "sock"))
        daemon = await asyncio.create_subprocess_exec(
            CUPSD,
            *("-f", "-c", str(folder / "cupsd.conf"), "-s", str(folder / "cups-files.conf")),
            stdin=subprocess.DEVNULL,
        )
        try:
            async with asyncio.timeout(20):
                while not (folder / "sock").exists():
                    assert daemon.returncode is None, (folder / "error").read_text()
                    await asyncio.sleep(0.02)
            there = Cups(folder)
            await there.admin(LPADMIN, "-p", "zebra", "-E", "-v", f"folder:{folder}")
            yield there
        finally:
            daemon.terminate()
            await daemon.wait()
    finally:
        shutil.rmtree(folder)


async def test_zpl_comes_through_a_queue_unaltered(cups: Cups) -> None:
    printer = printer_from("cups://zebra")
    assert "idle" in await printer.check()
    await printer.print(SHORT, copies=2)
    assert await cups.printed() == zpl(SHORT, copies=2)


async def test_a_stopped_queue_takes_no_label(cups: Cups) -> None:
    printer = printer_from("cups://zebra")
    await cups.admin("/usr/sbin/cupsdisable", "-r", "no labels", "zebra")
    with pytest.raises(PrinterError, match="stopped: no labels"):
        await printer.print(SHORT)
    await cups.admin("/usr/sbin/cupsenable", "zebra")
    await printer.print(LONG)
    assert await cups.printed() == zpl(LONG)


async def test_a_queue_that_is_not_there(cups: Cups) -> None:
    with pytest.raises(PrinterError, match="zebra2"):
        await printer_from("cups://zebra2").print(SHORT)
