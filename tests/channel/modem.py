"""A modem of few commands that answers in order, at the other end of a MemoryLink.

Each command's answer tells which command it belongs to:

=================  ================================================================
AT+NUM=<k>         ``+NUM:<k>``, OK
AT+BARE=<k>        ``<k>``, OK
AT+SET=<k>         OK when k is even, else ``+CME ERROR: <k>``
AT+SEND=<k>,<n>    ``>``, takes n bytes, OK, then ``SEND OK`` when k is even, else ``SEND FAIL``
AT+STATE?          ``+STATE:<state>``, OK; ``+STATE:`` is a URC, too
AT+CSQ ...         the probes of BC95
=================  ================================================================

``plan`` decides about each command: how late its answer is, and whether it is lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from modems.bc95 import BANNER, PROBES
from nbiot.at import Command, Dialect, Shape, Urc, UrcReceived
from nbiot.channel import Channel
from nbiot.link.memory import MemoryLink

DIALECT = Dialect(
    urcs=(
        Urc("noted", "+NOTE: <number:int>", "test"),
        Urc("state", "+STATE: <state:int>", "test"),
        Urc("registration", "+CEREG: <stat:digit>[,<rest:line>]", "test"),
        Urc("datagram", '+DATA: "recv",<length:int>', "test", data="length"),
    ),
    banners=(BANNER,),
    errors={4: "operation not supported"},
    probes=PROBES,
    settle=0.002,
)
PROBE_ANSWERS = {"AT+CSQ": "+CSQ:18,99", "AT+CGATT?": "+CGATT:1", "AT+CFUN?": "+CFUN:1"}


def num(k: int, seconds: float = 1.0) -> Command:
    return Command(b"AT+NUM=%d" % k, Shape("+NUM: <n:int>"), 1, 1, seconds=seconds)


def bare(k: int, seconds: float = 1.0) -> Command:
    return Command(b"AT+BARE=%d" % k, Shape("<n:int>"), 1, 1, seconds=seconds)


def put(k: int, seconds: float = 1.0) -> Command:
    return Command(b"AT+SET=%d" % k, seconds=seconds)


def send(k: int, seconds: float = 1.0) -> Command:
    payload = b"%05d\r\nOK\r\n>" % k
    return Command(
        b"AT+SEND=%d,%d" % (k, len(payload)),
        outcome=Shape("SEND <result>"),
        prompt=b">",
        payload=payload,
        seconds=seconds,
    )


STATE = Command(b"AT+STATE?", Shape("+STATE: <state:int>"), 1, 1, repeatable=True)


@dataclass
class Plan:
    """What happens to one command."""

    delay: float = 0.02
    lost: bool = False
    before: bytes = b""  # in front of the answer
    between: bytes = b""  # in front of the final result
    outcome_delay: float = 0.05


@dataclass
class Modem:
    """``link`` is the host's end."""

    plan: Callable[[str], Plan] = lambda _: Plan()
    echo: bool = False
    pieces: Callable[[bytes], list[bytes]] = lambda data: [data]
    state: int = 0
    sent: dict[int, bytes] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)
    link: MemoryLink = field(init=False)

    def __post_init__(self) -> None:
        self.link = MemoryLink(on_write=self._written)
        self._input = b""
        self._wants = 0  # bytes of payload
        self._came = asyncio.Event()
        self._outcomes: set[asyncio.Task[None]] = set()

    def say(self, data: bytes) -> None:
        for piece in self.pieces(data):
            self.link.feed(piece)

    def _written(self, data: bytes) -> None:
        self._input += data
        self._came.set()

    async def _line(self) -> str:
        while b"\r" not in self._input:
            self._came.clear()
            await self._came.wait()
        line, _, self._input = self._input.partition(b"\r")
        return line.decode("latin-1").strip("\n")

    async def _data(self, size: int) -> bytes:
        while len(self._input) < size:
            self._came.clear()
            await self._came.wait()
        data, self._input = self._input[:size], self._input[size:]
        return data

    async def run(self) -> None:
        while True:
            line = await self._line()
            plan = self.plan(line)
            await asyncio.sleep(plan.delay)
            if plan.lost or not line:
                continue
            if self.echo:
                self.say(line.encode("latin-1") + b"\r")
            await self._answer(line, plan)

    async def _answer(self, line: str, plan: Plan) -> None:
        name, _, rest = line.partition("=")
        text, final = "", "OK"
        if line in PROBE_ANSWERS:
            text = PROBE_ANSWERS[line]
        elif line == "AT+STATE?":
            text = f"+STATE:{self.state}"
        elif name == "AT+NUM":
            text = f"+NUM:{rest}"
        elif name == "AT+BARE":
            text = rest
        elif name == "AT+SET":
            final = f"+CME ERROR: {rest}" if int(rest) % 2 else "OK"
        elif name == "AT+SEND" and "," in rest:
            k, size = map(int, rest.split(","))
            self.say(plan.before + b"\r\n> ")
            self.sent[k] = await self._data(size)
            task = asyncio.create_task(self._outcome(k, plan.outcome_delay))
            self._outcomes.add(task)
            task.add_done_callback(self._outcomes.discard)
        elif line != "AT":
            final = "ERROR"
        self.done.append(line)
        body = f"\r\n{text}\r\n".encode() if text else b""
        self.say(plan.before + body + plan.between + f"\r\n{final}\r\n".encode())

    async def _outcome(self, k: int, delay: float) -> None:
        await asyncio.sleep(delay)
        self.say(b"\r\nSEND %s\r\n" % (b"FAIL" if k % 2 else b"OK"))

    @contextmanager
    def running(self) -> Iterator[None]:
        task = asyncio.get_running_loop().create_task(self.run())
        try:
            yield
        finally:
            for each in (task, *self._outcomes):
                each.cancel()


def opened(modem: Modem, **options: object) -> tuple[Channel, list[UrcReceived]]:
    """A channel to ``modem`` and the list that its URCs go to."""
    channel = Channel(modem.link, DIALECT, **options)  # type: ignore[arg-type]
    heard: list[UrcReceived] = []
    channel.listen(heard.append)
    return channel, heard
