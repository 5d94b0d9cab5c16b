"""``--port replay:FILE``: a recorded dialogue in the modem's place.

It waits for the host to say what the trace says, then gives what the modem gave. What a driver
draws at random may differ: the bytes of datagrams, tokens, message ids and signatures count by
their length alone, and the modem's answers get the message id and token of this run.
``replay:FILE?speed=1`` keeps the recorded times (2: twice as fast); without it nothing waits, but
for what came after a time-out. ``?strict=1`` wants every byte as recorded.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections import deque
from pathlib import Path
from urllib.parse import parse_qsl

from nbiot.datagrams import Datagram, in_dialogue
from nbiot.errors import BadInput, PortError, PortLost, Unsupported
from nbiot.link import Link, Receiver, check_baudrate
from nbiot.trace import Record, Trace, read_trace

_OPTIONS = re.compile(r"(.+)\?((?:speed|strict)=.*)")
# Notes of the channel after which what comes depends on when it comes.
_WAIT_ENDED = ("no result of ", "the modem said OK to ", "gave up ", "resynchronising")
# What two runs of the same driver say differently, beside datagrams.
_RANDOM = (
    (re.compile(rb"(AT\+QCOAPCREATE=)\d+"), rb"\1#"),
    (re.compile(rb"(AT\+QCOAPHEAD=\d,)\d+,(\d+),[0-9A-Fa-f]+"), rb"\1#,\2,#"),
)
_DIGITS = re.compile(rb"[0-9A-Fa-f]{16,}")
_NATIVE_MID = re.compile(rb"AT\+QCOAPHEAD=\d,(\d+)")
_NATIVE_ANSWER = re.compile(rb'(\+QCOAPURC: ?"rsp",2,[\d.]+,)(\d+)')
_HEX = b"0123456789ABCDEFabcdef"
_CON, _NON, _ACK, _RST = range(4)


class ReplayMismatch(PortLost):
    """The host does not say what the trace says. ``line``: where; ``expected`` None: it ends."""

    def __init__(self, message: str, *, line: int, expected: bytes | None, given: bytes) -> None:
        super().__init__(
            message,
            hint="Another driver version, other options, or another command than the recorded one?",
        )
        self.line = line
        self.expected = expected
        self.given = given


class ReplayLink:
    """The modem's side of ``trace``. ``speed`` 0: as fast as the host is."""

    def __init__(
        self,
        name: str,
        trace: Trace,
        *,
        baudrate: int = 0,
        speed: float = 0.0,
        strict: bool = False,
    ) -> None:
        self.name = name
        self.baudrate = baudrate
        self._trace = trace
        self._steps = deque(record for record in trace.records)
        self._datagrams = {id(found.record): found for found in in_dialogue(trace.records)}
        self._speed = speed
        self._strict = strict
        self._receiver: Receiver | None = None
        self._started = False
        self._closed = False
        self._mismatch: ReplayMismatch | None = None
        self._due: deque[tuple[float, Record]] = deque()  # when to say what
        self._timer: asyncio.Handle | None = None
        self._said_at = 0.0  # the trace's time of the host's last words
        self._line = 1
        self._heard = (b"", b"")  # the host's last words then and now
        self._mids: dict[bytes, bytes] = {}  # then: now
        self._tokens: dict[bytes, bytes] = {}

    @property
    def remaining(self) -> int:
        """How many times the trace's host spoke and this one has not."""
        return sum(record.dir == ">" for record in self._steps)

    # --- the link

    def start(self, receiver: Receiver) -> None:
        """See :class:`nbiot.link.Link`."""
        if self._started or self._closed:
            raise PortError(f"{self.name} was started or closed before", hint="Open it again.")
        self._started = True
        self._receiver = receiver
        self._answer()

    def write(self, data: bytes) -> None:
        """See :class:`nbiot.link.Link`. Raises ReplayMismatch."""
        if self._mismatch is not None:
            raise self._mismatch
        if self._closed or not self._started:
            state = "closed" if self._closed else "not started"
            raise PortError(f"{self.name} is {state}", hint="Open it again.")
        if not data:
            return
        for late in range(len(self._due)):  # the host is faster than it was: nothing is lost
            self._due[late] = (-math.inf, self._due[late][1])
        self._pump_soon()
        self._take(bytes(data))
        self._answer()

    async def set_baudrate(self, baudrate: int) -> None:
        """See :class:`nbiot.link.Link`."""
        check_baudrate(baudrate)
        self.baudrate = baudrate

    async def set_lines(self, *, dtr: bool | None = None, rts: bool | None = None) -> None:
        """See :class:`nbiot.link.Link`."""
        if dtr is not None or rts is not None:
            raise Unsupported(f"{self.name} has no modem lines")

    async def close(self) -> None:
        """See :class:`nbiot.link.Link`."""
        self._closed = True
        self._receiver = None
        if self._timer is not None:
            self._timer.cancel()

    # --- the host speaks

    def _take(self, data: bytes) -> None:
        if not self._steps:
            raise self._differs(None, data, self._line)
        record = self._steps[0]
        if record.raw != data and not (not self._strict and self._alike(record, data)):
            raise self._differs(record.raw, data, record.number)
        self._steps.popleft()
        self._said_at = record.t
        self._line = record.number
        self._heard = (record.raw, data)
        self._learn(record, data)

    def _alike(self, record: Record, data: bytes) -> bool:
        then = record.raw
        found = self._datagrams.get(id(record))
        if found is not None:
            begin, end = found.begin, found.end
            around = then[:begin] == data[:begin] and then[end:] == data[end:]
            digits = data[begin:end] if found.is_hex else b""
            return around and len(then) == len(data) and not digits.strip(_HEX)
        if b"***" in then:
            pattern = b".*".join(re.escape(part) for part in then.split(b"***"))
            return re.fullmatch(pattern, data, re.DOTALL) is not None
        return _without_random(then) == _without_random(data)

    def _differs(self, expected: bytes | None, given: bytes, line: int) -> ReplayMismatch:
        where = f"{self._trace.name}, line {line}"
        if expected is None:
            words = f"{where}: the trace ends here, but the host says {_shown(given)}"
        else:
            pairs = zip(expected, given, strict=False)
            same = next(
                (i for i, (then, now) in enumerate(pairs) if then != now),
                min(len(expected), len(given)),
            )
            words = (
                f"{where}: the host said {_shown(expected)} then and says {_shown(given)} now;"
                f" the first difference is at byte {same + 1}"
            )
        error = ReplayMismatch(words, line=line, expected=expected, given=given)
        self._mismatch = error
        asyncio.get_running_loop().call_soon(self._lose, error)
        return error

    def _lose(self, error: ReplayMismatch) -> None:
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.lost(error)

    def _learn(self, record: Record, data: bytes) -> None:
        """Remember which message id and token stand for the recorded ones."""
        then, now = _NATIVE_MID.match(record.raw), _NATIVE_MID.match(data)
        if then and now:
            self._mids[then[1]] = now[1]
        found = self._datagrams.get(id(record))
        if found is None:
            return
        own = bytes.fromhex(data[found.begin : found.end].decode()) if found.is_hex else data
        if _is_coap(found.data) and _is_coap(own) and _type(own) in (_CON, _NON):
            size = min(found.data[0] & 15, own[0] & 15)
            self._mids[found.data[2:4]] = own[2:4]
            self._tokens[found.data[4 : 4 + size]] = own[4 : 4 + size]

    # --- the modem answers

    def _answer(self) -> None:
        """Plan what the modem says until the host speaks again."""
        now = asyncio.get_running_loop().time()
        timed = self._speed > 0
        while self._steps and self._steps[0].dir != ">":
            record = self._steps.popleft()
            if record.dir == "-":
                timed = timed or record.note.startswith(_WAIT_ENDED)
                continue
            delay = max(record.t - self._said_at, 0.0) / (self._speed or 1.0)
            self._due.append((now + delay if timed else now, record))
        self._pump_soon()

    def _pump_soon(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._due:
            when = self._due[0][0]
            loop = asyncio.get_running_loop()
            if when <= loop.time():
                self._timer = loop.call_soon(self._pump)
            else:
                self._timer = loop.call_at(when, self._pump)

    def _pump(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        while self._due and self._due[0][0] <= loop.time() and self._receiver is not None:
            raw = self._as_now(self._due.popleft()[1])
            if raw:
                self._receiver.received(raw)
        if self._receiver is not None and self._timer is None:
            self._pump_soon()

    def _as_now(self, record: Record) -> bytes:
        """What the modem would have said to this host."""
        raw = record.raw
        then, now = self._heard
        if record.event == "echo" and then != now:
            return raw.replace(then.rstrip(b"\r"), now.rstrip(b"\r"))
        found = self._datagrams.get(id(record))
        if found is not None:
            return self._datagram_as_now(raw, found)
        return _NATIVE_ANSWER.sub(lambda m: m[1] + self._mids.get(m[2], m[2]), raw)

    def _datagram_as_now(self, raw: bytes, found: Datagram) -> bytes:
        data = raw[found.begin : found.end]
        if found.is_hex:
            data = bytes.fromhex(data.decode())
        if not _is_coap(data):
            return raw
        size = data[0] & 15
        mid, token = data[2:4], data[4 : 4 + size]
        if _type(data) in (_ACK, _RST):
            mid = self._mids.get(mid, mid)
        data = data[:2] + mid + self._tokens.get(token, token) + data[4 + size :]
        if found.is_hex:
            data = data.hex().upper().encode()
        return raw[: found.begin] + data + raw[found.end :]


def _without_random(data: bytes) -> bytes:
    """``data`` with what differs from run to run taken out; of digits their number stays."""
    for pattern, mark in _RANDOM:
        data = pattern.sub(mark, data)
    return _DIGITS.sub(lambda digits: b"#%d" % len(digits[0]), data)


def _is_coap(data: bytes) -> bool:
    """Version 1, and a header that is whole (RFC 7252, 3)."""
    return len(data) >= 4 and data[0] >> 6 == 1 and data[0] & 15 <= min(8, len(data) - 4)


def _type(data: bytes) -> int:
    return data[0] >> 4 & 3


def _shown(data: bytes) -> str:
    text = data.decode("latin-1")
    return repr(text if len(text) <= 120 else f"{text[:117]}...")


async def open_replay(rest: str, *, baudrate: int) -> Link:
    """The opener of ``replay:`` (entry point group ``nbiot.links``)."""
    speed, strict = 0.0, False
    if found := _OPTIONS.fullmatch(rest):
        rest = found[1]
        for name, text in parse_qsl(found[2], keep_blank_values=True):
            if name == "speed":
                speed = check_speed(text)
            elif name == "strict" and text in ("0", "1"):
                strict = text == "1"
            else:
                raise BadInput("port", f"{name}={text}", "speed=NUMBER, strict=0 or strict=1")
    if not rest:
        raise BadInput("port", "replay:", "replay:FILE with a trace of `--trace`")
    trace = await asyncio.to_thread(read_trace, Path(rest))
    return ReplayLink(f"replay:{rest}", trace, baudrate=baudrate, speed=speed, strict=strict)


def check_speed(text: str | float) -> float:
    """A speed: 1 is as recorded, 2 twice as fast, 0 without waiting. Raises BadInput."""
    try:
        speed = float(text)
    except ValueError:
        speed = -1.0
    if not 0 <= speed < math.inf:
        raise BadInput("speed", text, "a number, 0 or more: 1 is as recorded, 0 without waiting")
    return speed
