"""How many paced software modems fit on one core: `python bench/many_emulators.py --count 200`.

Starts `--count` modems in this process, each on a port of its own and paced as a 9600 baud line,
and a client process that asks every modem the same 12 commands in a loop. Prints what the modems'
process needed: processor time a second (1.0 = one core), memory, and how much longer the commands
took than the line itself does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import socket
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from hil.emulator import Emulators, Network, Options  # noqa: E402

COMMANDS = {
    "bc95": (
        "AT",
        "AT+CMEE=1",
        "AT+CGMI",
        "AT+CGMM",
        "AT+CGSN=1",
        "AT+CIMI",
        "AT+CFUN?",
        "AT+CSQ",
        "AT+CEREG?",
        "AT+CGATT?",
        "AT+CGPADDR",
        "AT+NUESTATS",
    ),
    "bc66": (
        "AT",
        "ATE0",
        "AT+CMEE=1",
        "AT+CGMI",
        "AT+CGMM",
        "AT+CGSN=1",
        "AT+CIMI",
        "AT+CFUN?",
        "AT+CSQ",
        "AT+CEREG?",
        "AT+CGATT?",
        "AT+QENG=0",
    ),
}
FINALS = (b"\r\nOK\r\n", b"ERROR")


# ------------------------------------------------------------------- the client


class Asker:
    """Asks one modem its commands for ever; the least of a client."""

    def __init__(self, url: str, commands: tuple[str, ...], loop: Any) -> None:
        self._commands = [command.encode() + b"\r" for command in commands]
        self._loop = loop
        self._answer = bytearray()
        self._next = 0
        self.asked = self.errors = self.bytes = 0
        self._fd = _opened(url)
        os.set_blocking(self._fd, False)
        loop.add_reader(self._fd, self._readable)

    def ask(self) -> None:
        os.write(self._fd, self._commands[self._next % len(self._commands)])

    def _readable(self) -> None:
        try:
            data = os.read(self._fd, 4096)
        except BlockingIOError:
            return
        self._answer += data
        if not data or not self._answer.endswith((b"OK\r\n", b"ERROR\r\n")):
            return
        self.errors += b"ERROR" in self._answer
        self.bytes += len(self._answer) + len(self._commands[self._next % len(self._commands)])
        self._answer.clear()
        self._next += 1
        self.asked += 1
        self.ask()


def _opened(url: str) -> int:
    if not url.startswith("socket://"):
        return os.open(url, os.O_RDWR | os.O_NOCTTY)
    host, _, port = url.removeprefix("socket://").rpartition(":")
    sock = socket.create_connection((host, int(port)))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock.detach()


async def client(urls: list[str], model: str, seconds: float) -> dict[str, float]:
    loop = asyncio.get_running_loop()
    askers = [Asker(url, COMMANDS[model], loop) for url in urls]
    for asker in askers:
        asker.ask()
    await asyncio.sleep(seconds)
    return {
        "commands": sum(asker.asked for asker in askers),
        "slowest": min(asker.asked for asker in askers),
        "errors": sum(asker.errors for asker in askers),
        "bytes": sum(asker.bytes for asker in askers),
        "busy": _processor_time(),
    }


# ---------------------------------------------------------------- the emulators


def _processor_time() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def measure(
    *, count: int, seconds: float, model: str, baud: int | None, port: str, keep: int
) -> dict[str, float]:
    """Run it; gives the figures by name."""
    options = Options(attached=True, baud=baud, echo=False, keep=keep)
    began = time.perf_counter()
    async with Emulators(model, count, options, Network(), port=port) as many:  # type: ignore[arg-type]
        started = time.perf_counter() - began
        busy, wall = _processor_time(), time.perf_counter()
        told = await _run_client(many.urls, model, seconds)
        busy, wall = _processor_time() - busy, time.perf_counter() - wall
        line = told["bytes"] * 10 / baud / count if baud else 0.0
    return {
        "count": count,
        "started_s": round(started, 3),
        "cores": round(busy / wall, 3),
        "client_cores": round(told["busy"] / seconds, 3),
        "rss_mb": round(_rss_mb(), 1),
        "commands_per_s": round(told["commands"] / seconds, 1),
        "slowest_per_s": round(told["slowest"] / seconds, 2),
        "errors": told["errors"],
        "line_busy": round(line / seconds, 3),
    }


def _rss_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


async def _run_client(urls: list[str], model: str, seconds: float) -> dict[str, float]:
    arguments = json.dumps({"urls": urls, "model": model, "seconds": seconds})
    process = await asyncio.create_subprocess_exec(
        sys.executable, __file__, "--client", stdin=-1, stdout=-1
    )
    out, _ = await process.communicate(arguments.encode())
    if process.returncode:
        raise SystemExit("the client failed")
    told: dict[str, float] = json.loads(out)
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--model", choices=sorted(COMMANDS), default="bc95")
    parser.add_argument("--baud", type=int, default=9600, help="0: do not pace")
    parser.add_argument("--port", choices=("pty", "tcp"), default="pty")
    parser.add_argument("--keep", type=int, default=1000, help="commands a modem remembers")
    parser.add_argument("--client", action="store_true", help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    if wanted.client:
        print(json.dumps(asyncio.run(client(**json.load(sys.stdin)))))
        return
    figures = asyncio.run(
        measure(
            count=wanted.count,
            seconds=wanted.seconds,
            model=wanted.model,
            baud=wanted.baud or None,
            port=wanted.port,
            keep=wanted.keep,
        )
    )
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
