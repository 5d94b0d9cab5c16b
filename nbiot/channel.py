"""One AT dialogue over one port: commands in, replies out, URCs to whoever listens.

One command is outstanding at a time. A command that timed out or was cancelled still owes its
results; before the next one the channel finds its footing again: it waits for silence, asks a
question whose answer cannot be anybody else's, and drops all that comes before it. So a late answer
never reaches the next command, with or without echo.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nbiot.at import (
    Answer,
    BootLine,
    Command,
    Dialect,
    Early,
    Event,
    Fields,
    Final,
    Orphan,
    Outcome,
    Parser,
    Prompt,
    Shape,
    UrcReceived,
)
from nbiot.at.parser import error_code
from nbiot.errors import (
    CommandRefused,
    CommandTimeout,
    ModemRebooted,
    ModemSilent,
    NbiotError,
    PortLost,
    UnexpectedAnswer,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nbiot.link import Link
    from nbiot.trace import Tracer

ESC = b"\x1b"
BITS_PER_BYTE = 10  # 8 data bits, start and stop bit
QUIET = 0.1  # s of silence that ends a burst of late results
PROBE_TRIES = 3
EARLY_GRACE = 0.3  # s that an answer may come after an OK that came too early
DATA_GRACE = 1.0  # s beyond the wire time for announced data to come in full

UrcListener = Callable[[UrcReceived], None]
RebootListener = Callable[[], None]


@dataclass(slots=True)
class Reply:
    """What a command brought: its information lines as fields, and its second result."""

    command: Command
    lines: list[Fields] = field(default_factory=list)
    outcome: Fields | None = None

    def __getitem__(self, name: str) -> Any:
        """The field ``name`` of the only (or first) information line."""
        return self.lines[0][name]


@dataclass(slots=True)
class Counters:
    """What went over the port since the channel began: bytes each way and AT round trips."""

    sent: int = 0
    received: int = 0
    commands: int = 0

    def since(self, earlier: Counters) -> Counters:
        """The difference to an earlier copy."""
        return Counters(
            self.sent - earlier.sent,
            self.received - earlier.received,
            self.commands - earlier.commands,
        )

    def copy(self) -> Counters:
        """The counters as they are now."""
        return Counters(self.sent, self.received, self.commands)


@dataclass(slots=True)
class _Exchange:
    """The command in flight and who waits for it."""

    command: Command
    reply: Reply
    future: asyncio.Future[Reply]
    deadline: float
    prompted: bool = False
    payload_sent: bool = False
    early: bool = False


class UrcStream:
    """URCs in the order in which they came. A wait may be cancelled and taken up again."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[UrcReceived] = asyncio.Queue()
        self.put = self._queue.put_nowait

    def __aiter__(self) -> UrcStream:
        return self

    async def __anext__(self) -> UrcReceived:
        return await self._queue.get()


class Channel:
    """The host's end of an AT dialogue.

    ``run`` may be called from many tasks; commands go out in the order of the calls. A caller may
    be cancelled at any moment; the channel stays usable. Errors of ``run``: CommandRefused,
    CommandTimeout, UnexpectedAnswer, ModemRebooted, ModemSilent, PortLost.
    """

    def __init__(
        self,
        link: Link,
        dialect: Dialect,
        *,
        tracer: Tracer | None = None,
        require_echo: bool = False,
    ) -> None:
        self.link = link
        self.counters = Counters()
        self.reboots = 0
        self._loop = asyncio.get_running_loop()
        self._parser = Parser(dialect, require_echo=require_echo)
        self._tracer = tracer
        self._turn = asyncio.Lock()
        self._exchange: _Exchange | None = None
        self._suspect: Command | None = None  # what the last abandoned command was
        self._owed_outcomes: list[tuple[Shape, float]] = []
        self._lost: PortLost | None = None
        self._urc_listeners: list[UrcListener] = []
        self._reboot_listeners: list[RebootListener] = []
        self._banner_running = False
        self._masked: tuple[bytes, bytes] | None = None  # a secret command and what to show
        self._heard = asyncio.Event()  # set whenever bytes come
        self._last_heard = -1e9
        self._timer: asyncio.TimerHandle | None = None
        self._data_timer: asyncio.TimerHandle | None = None
        link.start(self)

    # --- for callers ------------------------------------------------------------------------

    @property
    def dialect(self) -> Dialect:
        """The tables in use."""
        return self._parser.dialect

    @dialect.setter
    def dialect(self, dialect: Dialect) -> None:
        self._parser.dialect = dialect

    @property
    def is_lost(self) -> bool:
        """The port is gone; open a new channel."""
        return self._lost is not None

    async def run(self, command: Command) -> Reply:
        """Send ``command`` and wait until it is done."""
        async with self._turn:
            await self._find_footing(command)
            return await self._run_once(command)

    def listen(self, listener: UrcListener) -> Callable[[], None]:
        """Call ``listener`` for every URC from now on; the returned function ends that."""
        self._urc_listeners.append(listener)
        return lambda: self._urc_listeners.remove(listener)

    def on_reboot(self, listener: RebootListener) -> Callable[[], None]:
        """Call ``listener`` whenever a boot banner begins; the returned function ends that."""
        self._reboot_listeners.append(listener)
        return lambda: self._reboot_listeners.remove(listener)

    @contextmanager
    def urcs(self) -> Iterator[UrcStream]:
        """An asynchronous iterator over the URCs that come inside the ``with`` block."""
        stream = UrcStream()
        stop = self.listen(stream.put)
        try:
            yield stream
        finally:
            stop()

    async def booted(self, since: int, seconds: float) -> bool:
        """Wait for the end of the boot banner that follows reboot number ``since``.

        Take ``channel.reboots`` before the command that restarts the modem. False: no banner came
        to its end within ``seconds``.
        """
        until = self._loop.time() + seconds
        while self._parser.booting or self.reboots == since:
            if not await self._anything_before(until):
                return False
        return True

    async def close(self) -> None:
        """Release the port. The command in flight, if any, ends with PortLost."""
        self._fail(PortLost(f"{self.link.name} was closed"))
        self._lost = self._lost or PortLost(f"{self.link.name} is closed")
        self._cancel_timers()
        await self.link.close()

    # --- one command ------------------------------------------------------------------------

    async def _run_once(self, command: Command) -> Reply:
        self._raise_if_lost()
        loop = self._loop
        # The channel's own time for a command begins when its first byte goes out.
        deadline = loop.time() + command.seconds + self._wire_time(command)
        exchange = _Exchange(command, Reply(command), loop.create_future(), deadline)
        self._exchange = exchange
        self._timer = loop.call_at(deadline, self._expire)
        self._parser.begin(command)
        self.counters.commands += 1
        try:
            self._write(command.line + b"\r", shown=command.shown)
            return await exchange.future
        finally:
            if self._exchange is exchange:  # cancelled, or the write failed
                self._abandon(exchange)
            if exchange.future.done() and not exchange.future.cancelled():
                exchange.future.exception()  # a cancelled caller does not fetch it
            self._timer.cancel()

    def _wire_time(self, command: Command) -> float:
        if not self.link.baudrate:
            return 0.0
        size = len(command.line) + len(command.payload) + command.size
        return size * BITS_PER_BYTE / self.link.baudrate

    def _expire(self) -> None:
        """The command in flight has used up its time."""
        exchange = self._exchange
        if exchange is None:
            return
        self._abandon(exchange)
        if exchange.early:
            error: NbiotError = UnexpectedAnswer(
                f"the modem said OK to {exchange.command} without the answer it must bring"
            )
        else:
            error = CommandTimeout(
                f"no result of {exchange.command} within {exchange.command.seconds:g} s",
                hint="Is the modem awake, powered and at this baud rate? `nbiot ports` shows what"
                " answers.",
            )
        self._note(str(error))
        _settle(exchange.future, error)

    def _abandon(self, exchange: _Exchange) -> None:
        """Nobody waits for ``exchange`` any more, but the modem still owes its results."""
        self._exchange = None
        self._suspect = exchange.command
        self._parser.abandon()
        if exchange.command.outcome is not None and exchange.reply.outcome is None:
            self._owed_outcomes.append((exchange.command.outcome, exchange.deadline))
        if exchange.prompted and not exchange.payload_sent:
            self._cancel_prompt()

    def _cancel_prompt(self) -> None:
        """Leave the modem's data mode (Quectel: ESC cancels the sending)."""
        if self._lost is None:
            self._write(ESC)

    def _finish(self) -> None:
        """All that the command in flight declared has come."""
        exchange = self._exchange
        assert exchange is not None
        self._exchange = None
        _settle(exchange.future, exchange.reply)

    def _refuse(self, line: bytes) -> None:
        exchange = self._exchange
        assert exchange is not None
        self._exchange = None
        code = error_code(line)
        _settle(
            exchange.future,
            CommandRefused(
                str(exchange.command),
                line.decode("ascii", "backslashreplace"),
                code=code,
                meaning=self.dialect.errors.get(code, "") if code is not None else "",
            ),
        )

    def _fail(self, error: NbiotError) -> None:
        """End the command in flight with ``error``."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            _settle(exchange.future, error)

    # --- resynchronisation ------------------------------------------------------------------

    async def _find_footing(self, command: Command) -> None:
        """Make sure that the next line that looks like an answer is one to ``command``."""
        self._raise_if_lost()
        if self._parser.booting:
            await self._end_of_boot()
        if self._suspect is not None:
            await self._resynchronise(self._suspect)
        if self._owed_outcomes:
            await self._collect_outcomes(command)
        if self.dialect.gap:
            await self._silence(self.dialect.gap)

    async def _end_of_boot(self) -> None:
        until = self._loop.time() + self.dialect.boot_seconds
        while self._parser.booting and await self._anything_before(until):
            pass
        self._parser.end_of_boot()
        self._banner_running = False

    async def _resynchronise(self, suspect: Command) -> None:
        self._note(f"resynchronising after {suspect}")
        await self._silence(QUIET)
        asked = [suspect.line]
        while len(asked) <= PROBE_TRIES and self._suspect is not None:
            probe = self._probe_unlike(asked)
            if probe is None or await self._answered(probe):
                self._parser.settle()
                self._suspect = None
                return
            asked.append(probe.line)
        if self._suspect is not None:
            raise ModemSilent(
                f"{self.link.name}: the modem gives no orderly answer",
                hint="Is it powered, awake and at this baud rate? Reset or power-cycle it.",
            )

    async def _answered(self, probe: Command) -> bool:
        """Is ``probe`` answered, and does nothing more come after that?"""
        try:
            await self._run_once(probe)
        except ModemRebooted:
            await self._end_of_boot()
            return True  # it forgot all that it owed
        except (CommandTimeout, CommandRefused, UnexpectedAnswer):
            return False
        answered = self._last_heard
        await self._silence(QUIET)
        return self._last_heard == answered

    async def _collect_outcomes(self, command: Command) -> None:
        """Wait for second results that abandoned commands owe, where ``command`` has the like.

        ``SEND OK`` has no number: a late one would be taken for the next datagram's.
        """
        while until := self._owed_until(command):
            await self._anything_before(until)

    def _owed_until(self, command: Command) -> float:
        """When the last debt that ``command`` could take for its own runs out; 0 without one."""
        now = self._loop.time()
        self._owed_outcomes = [debt for debt in self._owed_outcomes if debt[1] > now]
        if command.outcome is None:
            return 0.0
        prefix = command.outcome.prefix
        return max((until for shape, until in self._owed_outcomes if shape.prefix == prefix), default=0.0)

    def _probe_unlike(self, asked: list[bytes]) -> Command | None:
        """A query that is not among ``asked``: its answer cannot be a late one to any of those.

        None when the dialect has no probes: an unidentified modem gets silence only.
        """
        probes = self.dialect.probes
        return next((p for p in probes if p.line not in asked), probes[-1] if probes else None)

    async def _silence(self, seconds: float) -> None:
        """Wait until nothing has come for ``seconds``."""
        while (wait := self._last_heard + seconds - self._loop.time()) > 0:
            await asyncio.sleep(wait)

    async def _anything_before(self, until: float) -> bool:
        """Wait for the next bytes; False when none came before ``until``."""
        self._raise_if_lost()
        self._heard.clear()
        try:
            async with asyncio.timeout_at(until):
                await self._heard.wait()
        except TimeoutError:
            return False
        self._raise_if_lost()
        return True

    # --- the port ---------------------------------------------------------------------------

    def received(self, data: bytes) -> None:
        """The link's call: the modem said ``data``."""
        self.counters.received += len(data)
        self._last_heard = self._loop.time()
        if self._data_timer is not None:
            self._data_timer.cancel()
            self._data_timer = None
        self._dispatch_all(self._parser.feed(data))
        if self._parser.awaits_data:
            self._data_timer = self._loop.call_later(self._data_patience(), self._give_up_data)
        self._heard.set()

    def lost(self, error: PortLost) -> None:
        """The link's call: the port is gone."""
        self._lost = error
        self._note(str(error))
        self._fail(error)
        self._heard.set()

    def _give_up_data(self) -> None:
        self._data_timer = None
        self._dispatch_all(self._parser.give_up_data())

    def _data_patience(self) -> float:
        baudrate = self.link.baudrate
        return DATA_GRACE + (2048 * BITS_PER_BYTE / baudrate if baudrate else 0.0)

    def _write(self, data: bytes, *, shown: str = "") -> None:
        if shown:
            self._masked = data.rstrip(b"\r"), shown.encode()
        if self._tracer is not None:
            self._tracer.sent(f"{shown}\r".encode() if shown else data)
        self.counters.sent += len(data)
        self.link.write(data)

    def _note(self, text: str) -> None:
        if self._tracer is not None:
            self._tracer.note(text)

    def _raise_if_lost(self) -> None:
        if self._lost is not None:
            raise self._lost

    def _cancel_timers(self) -> None:
        for timer in (self._timer, self._data_timer):
            if timer is not None:
                timer.cancel()

    # --- events -----------------------------------------------------------------------------

    def _dispatch_all(self, events: list[Event]) -> None:
        for event in events:
            if self._tracer is not None:
                self._tracer.heard(self._shown(event), type(event).__name__.lower())
            if self._owed_outcomes and not isinstance(event, Outcome):
                self._pay_outcome(event.line)
            self._dispatch(event)

    def _pay_outcome(self, line: bytes) -> None:
        """``line`` may be a second result that an abandoned command owed."""
        for debt in self._owed_outcomes:
            if debt[0].match(line) is not None:
                self._owed_outcomes.remove(debt)
                return

    def _shown(self, event: Event) -> bytes:
        return event.raw.replace(*self._masked) if self._masked else event.raw

    def _dispatch(self, event: Event) -> None:
        match event:
            case Answer(fields=fields) if self._exchange:
                self._exchange.reply.lines.append(fields)
            case Final(ok=True) | Outcome():
                self._result(event)
            case Final():
                self._refuse(event.line)
            case UrcReceived():
                for listener in tuple(self._urc_listeners):
                    listener(event)
            case Prompt():
                self._answer_prompt()
            case Early():
                self._wait_for_late_answer()
            case Orphan(kind="prompt"):
                self._cancel_prompt()
            case BootLine(done=done):
                self._boot_line(done=done)

    def _result(self, event: Event) -> None:
        exchange = self._exchange
        if exchange is None:
            return
        if isinstance(event, Outcome):
            exchange.reply.outcome = event.fields
        if self._parser.in_flight is None:
            self._finish()

    def _answer_prompt(self) -> None:
        exchange = self._exchange
        assert exchange is not None
        exchange.prompted = True
        if self.dialect.settle:
            self._loop.call_later(self.dialect.settle, self._send_payload, exchange)
        else:
            self._send_payload(exchange)

    def _send_payload(self, exchange: _Exchange) -> None:
        if self._exchange is exchange and self._lost is None:
            exchange.payload_sent = True
            self._write(exchange.command.payload)

    def _wait_for_late_answer(self) -> None:
        exchange = self._exchange
        if exchange is None or exchange.early:
            return
        exchange.early = True
        until = min(exchange.deadline, self._loop.time() + EARLY_GRACE)
        assert self._timer is not None
        self._timer.cancel()
        self._timer = self._loop.call_at(until, self._expire)

    def _boot_line(self, *, done: bool) -> None:
        if not self._banner_running:
            self.reboots += 1
            self._forget_debts()
            self._note("the modem restarted")
            self._fail(
                ModemRebooted(
                    "the modem restarted; its sockets and volatile settings are gone",
                    hint="If nobody reset it, look at its supply: attaching draws peaks of 0.5 A.",
                )
            )
            for listener in tuple(self._reboot_listeners):
                listener()
        self._banner_running = not done

    def _forget_debts(self) -> None:
        """A modem that restarted owes nothing."""
        self._parser.settle()
        self._suspect = None
        self._owed_outcomes.clear()


def _settle(future: asyncio.Future[Reply], result: Reply | NbiotError) -> None:
    """Complete ``future`` unless its caller has gone."""
    if future.done():
        return
    if isinstance(result, NbiotError):
        future.set_exception(result)
    else:
        future.set_result(result)
