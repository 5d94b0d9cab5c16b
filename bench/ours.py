"""Our adapter for the benchmark: the whole engine on a serial port, as a program uses it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from adapters import Adapter, register

from modems.bc95g import BC95G
from nbiot.at import Command, Shape, UrcReceived
from nbiot.channel import Channel
from nbiot.link import open_link

Render = Callable[[dict[str, Any]], str]

# line: (shape, least, most, how its text is put together again)
ANSWERS: dict[str, tuple[str, int, int, Render]] = {
    "ATI": ("<text:line>", 1, 3, lambda f: str(f["text"])),
    "AT+CGSN=1": ("+CGSN: <imei:digits>", 1, 1, lambda f: f"+CGSN:{f['imei']}"),
    "AT+CSQ": ("+CSQ: <a:int>,<b:int>", 1, 1, lambda f: f"+CSQ:{f['a']},{f['b']}"),
    "AT+CEREG?": (
        "+CEREG: <n:digit>,<stat:digit>[,<rest:line>]",
        1,
        1,
        lambda f: f"+CEREG:{f['n']},{f['stat']}",
    ),
    "AT+CGPADDR": (
        "+CGPADDR: <cid:int>,<address:ip>",
        1,
        1,
        lambda f: f"+CGPADDR:{f['cid']},{f['address']}",
    ),
    "AT+XSTAT": ("+XSTAT: <rest:line>", 1, 1, lambda f: f"+XSTAT:{f['rest']}"),
    "AT+NSOCR": ("<socket:digit>", 1, 1, lambda f: str(f["socket"])),
    "AT+NSOST": ("0,<length:int>", 1, 1, lambda f: f"0,{f['length']}"),
    "AT+NSORF": (
        "0,<ip:ip>,<port:int>,<length:int>,<data:hex>,<left:int>",
        0,
        1,
        lambda f: f"0,{f['ip']},{f['port']},{f['length']},{f['data'].hex().upper()},{f['left']}",
    ),
}
SHAPES = {name: Shape(row[0]) for name, row in ANSWERS.items()}
FIXED: dict[tuple[str, float], tuple[Command, Render | None]] = {}


def command(line: str, timeout: float) -> tuple[Command, Render | None]:
    """The command with the answer it declares, and how to print that answer.

    As in a program, a command without values is made once, one with values (``=``) each time.
    """
    found = FIXED.get((line, timeout))
    if found is None:
        found = made(line, timeout)
        if "=" not in line:
            FIXED[line, timeout] = found
    return found


def made(line: str, timeout: float) -> tuple[Command, Render | None]:
    name = line if line in ANSWERS else line.partition("=")[0]
    if name not in ANSWERS:
        return Command(line.encode(), seconds=timeout), None
    _, least, most, render = ANSWERS[name]
    return Command(line.encode(), SHAPES[name], least, most, seconds=timeout), render


@register
class Ours(Adapter):
    name = "ours"
    kind = "async"
    has_urc = True
    python = sys.executable
    what = "this project: parser, channel, deadlines, URCs, resynchronisation"

    async def open(self) -> None:
        link = await open_link(self.port, baudrate=self.baud)
        self.channel = Channel(link, BC95G.dialect)
        self.urcs: list[str] = []
        self._waiter: Any = None
        self.channel.listen(self._heard)

    def _heard(self, urc: UrcReceived) -> None:
        self.urcs.append(urc.line.decode())
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def cmd(self, line: str, timeout: float = 5.0) -> list[str]:
        asked, render = command(line, timeout)
        reply = await self.channel.run(asked)
        return [render(fields) for fields in reply.lines] if render else []

    async def wait_urc(self, prefix: str, timeout: float) -> str | None:
        import asyncio

        loop = asyncio.get_running_loop()
        until = loop.time() + timeout
        while True:
            for urc in self.urcs:
                if urc.startswith(prefix):
                    self.urcs.remove(urc)
                    return urc
            self._waiter = loop.create_future()
            try:
                async with asyncio.timeout_at(until):
                    await self._waiter
            except TimeoutError:
                return None

    async def drain(self, timeout: float = 0.0) -> list[str]:
        import asyncio

        if timeout:
            await asyncio.sleep(timeout)
        found, self.urcs = self.urcs, []
        return found

    async def close(self) -> None:
        await self.channel.close()
