"""One AT dialogue over one port: commands in, replies out, URCs to whoever listens.

One command is outstanding at a time. A command that timed out or was cancelled still owes its
results; before the next one the channel finds its footing again: it waits for them a little, then
asks a question whose answer cannot be anybody else's, and drops all that comes before it. So a late
answer never reaches the next command, with or without echo. What is relied on: the modem answers
commands in the order in which it got them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nbiot.at import (
    Answer,
    BootLine,
    Command,
    Dialect,
    Early,
    Echo,
    Event,
    Fields,
    Final,
    Orphan,
    Outcome,
    Overflow,
    Parser,
    Prompt,
    Truncated,
    Unknown,
    UrcReceived,
)
from nbiot.at.parser import error_code
from nbiot.errors import (
    CommandRefused,
    CommandTimeout,
    ModemRebooted,
    ModemSilent,
    NbiotError,
    PortError,
    PortLost,
    UnexpectedAnswer,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nbiot.link import Link
    from nbiot.trace import Tracer

BITS_PER_BYTE = 10  # 8 data bits, start and stop bit
QUIET = 0.1  # s of silence that ends a burst of late results
PROMPT_PATIENCE = 2.0  # s that a prompt may come after its command was given up
LAST_RESULTS = 3.0  # s at most before the first probe, to a modem that never stops talking
PROBE_TRIES = 3  # probes without an answer until the modem counts as silent
MOST_PROBES = 12
BUSY_PAUSE = 0.5  # s between probes that a busy modem refuses
DOUBT_TRIES = 3
OUTCOME_GRACE = 20.0  # s beyond a command's time for its second result, which has no name on it
EARLY_GRACE = 0.3  # s that an answer may come after an OK that came too early
DATA_GRACE = 1.0  # s beyond the wire time for announced data to come in full

UrcListener = Callable[[UrcReceived], None]
RebootListener = Callable[[], None]
LossListener = Callable[[PortLost], None]


@dataclass(slots=True)
class Reply:
    """What a command brought: its information lines as fields, its second result, its echo."""

    command: Command
    lines: list[Fields] = field(default_factory=list)
    outcome: Fields | None = None
    echoed: bool = False

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
    """The command in flight and who waits for it.

    ``deadline``: when its time is used up; ``until``: when the caller has waited long enough.
    """

    command: Command
    reply: Reply
    future: asyncio.Future[Reply]
    deadline: float
    until: float
    prompted: bool = False
    early: bool = False
    doubtful: bool = False


class _DoubtfulAnswer(UnexpectedAnswer):
    """A URC of the same shape came between; nobody can say which line was the answer."""


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
        self._owed_outcomes: list[tuple[Command, float]] = []  # until when each may come
        self._busy_until = 0.0  # when the last abandoned command should have ended
        self._lost: PortLost | None = None
        self._urc_listeners: list[UrcListener] = []
        self._reboot_listeners: list[RebootListener] = []
        self._loss_listeners: list[LossListener] = []
        self._boot_heard = 0.0  # when the last line of a boot banner came
        self._masked: dict[bytes, bytes] = {}  # secret commands and what to show
        self._heard = asyncio.Event()  # set whenever bytes come
        self._last_heard = -1e9
        self._timer: asyncio.TimerHandle | None = None
        self._data_timer: asyncio.TimerHandle | None = None
        self._payload_timer: asyncio.TimerHandle | None = None
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
        """Send ``command`` and wait until it is done.

        ModemRebooted also when the modem restarts while the command waits for its turn.
        """
        reboots = self.reboots
        await self._turn.acquire()  # half the cost of ``async with``
        try:
            for _ in range(DOUBT_TRIES):
                if self._unsettled:
                    await self._find_footing(command)
                if self.reboots != reboots:
                    raise _rebooted()
                try:
                    return await self._run_once(command)
                except _DoubtfulAnswer as error:
                    doubt = error
                    if not command.repeatable:
                        break
            raise doubt
        finally:
            self._turn.release()

    async def fill_data_mode(self, count: int) -> None:
        """End a data mode that a host which died has left behind: ``count`` CRs fill it up.

        They are empty lines to a modem that waits for commands. The datagram that goes out is
        rubbish; nothing else ends a mode of fixed length. Raises PortLost.
        """
        async with self._turn:
            self._raise_if_lost()
            self._note(f"filling a data mode with {count} CRs")
            self._write(b"\r" * count)
            rate = self.link.baudrate
            await asyncio.sleep(count * BITS_PER_BYTE / rate + QUIET if rate else QUIET)
            await self._silence(QUIET)

    @property
    def idle(self) -> float:
        """Seconds since the modem last said something."""
        return self._loop.time() - self._last_heard

    def listen(self, listener: UrcListener) -> Callable[[], None]:
        """Call ``listener`` for every URC from now on; the returned function ends that."""
        self._urc_listeners.append(listener)
        return lambda: _remove(self._urc_listeners, listener)

    def on_reboot(self, listener: RebootListener) -> Callable[[], None]:
        """Call ``listener`` whenever a boot banner begins; the returned function ends that."""
        self._reboot_listeners.append(listener)
        return lambda: _remove(self._reboot_listeners, listener)

    def on_lost(self, listener: LossListener) -> Callable[[], None]:
        """Call ``listener`` when the port goes away; the returned function ends that."""
        self._loss_listeners.append(listener)
        return lambda: _remove(self._loss_listeners, listener)

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
        self._heard.set()
        await self.link.close()

    # --- one command ------------------------------------------------------------------------

    async def _run_once(self, command: Command) -> Reply:
        self._raise_if_lost()
        loop = self._loop
        # The channel's own time for a command begins when its first byte goes out.
        deadline = loop.time() + command.seconds + self._wire_time(command)
        exchange = _Exchange(command, Reply(command), loop.create_future(), deadline, deadline)
        self._exchange = exchange
        self._wake_by(deadline)
        self._parser.begin(command)
        self.counters.commands += 1
        try:
            self._write(command.line + b"\r", shown=command.shown)
            return await exchange.future
        finally:
            if self._exchange is exchange:  # cancelled, or the write failed
                self._abandon(exchange)
                self._note(f"gave up {exchange.command}")

    def _wire_time(self, command: Command) -> float:
        rate = self.link.baudrate
        if not rate:
            return 0.0
        return (len(command.line) + len(command.payload) + command.size) * BITS_PER_BYTE / rate

    def _wake_by(self, until: float) -> None:
        """Look at the command in flight at ``until`` or before.

        Commands mostly end long before their time, and a timer for each costs as much as reading
        its answer. So a timer stays for the commands to come; the last one goes off in vain.
        """
        if self._timer is not None:
            if self._timer.when() <= until:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(until, self._on_time, until)

    def _on_time(self, now: float) -> None:
        self._timer = None
        exchange = self._exchange
        if exchange is None:
            return
        if exchange.until > now:  # the timer was an earlier command's
            self._wake_by(exchange.until)
        else:
            self._expire(exchange)

    def _expire(self, exchange: _Exchange) -> None:
        """The command in flight has used up its time."""
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
        self._parser.abandon()
        self._busy_until = max(self._busy_until, exchange.deadline)
        command = exchange.command
        if exchange.reply.outcome is None and (exchange.prompted or not command.prompt):
            self._owe_outcome(command, exchange.deadline)

    def _owe_outcome(self, command: Command, deadline: float) -> None:
        if command.outcome is not None:
            self._owed_outcomes.append((command, deadline + OUTCOME_GRACE))

    def _finish(self) -> None:
        """All that the command in flight declared has come."""
        exchange, self._exchange = self._exchange, None
        assert exchange is not None
        if exchange.doubtful:
            error = _DoubtfulAnswer(
                f"a URC came between {exchange.command} and its result, and looks like the answer"
            )
            _settle(exchange.future, error)
        elif not exchange.future.done():
            exchange.future.set_result(exchange.reply)

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

    @property
    def _unsettled(self) -> bool:
        """Is there anything to wait for before the next command?"""
        parser = self._parser
        return bool(
            parser.unsettled or self._owed_outcomes or parser.dialect.gap or self._lost is not None
        )

    async def _find_footing(self, command: Command) -> None:
        """Make sure that the next line that looks like an answer is one to ``command``."""
        quiet = not self.dialect.gap
        while True:
            self._raise_if_lost()
            if self._parser.booting:
                await self._end_of_boot()
            elif self._parser.owes:
                await self._resynchronise()
            elif self._owed_outcomes and (until := self._owed_until(command)):
                await self._anything_before(until)
            elif not quiet:
                await self._silence(self.dialect.gap)
                quiet = True
            else:
                return

    async def _end_of_boot(self) -> None:
        until = self._boot_heard + self.dialect.boot_seconds
        while self._parser.booting and await self._anything_before(until):
            pass
        self._parser.end_of_boot()

    async def _resynchronise(self) -> None:
        """Find the answers to our own commands again. Raises ModemSilent, PortLost."""
        self._note("resynchronising")
        await self._last_results()
        silent = 0
        for _ in range(MOST_PROBES):
            if not self._parser.owes or self._parser.booting:
                return
            probe = self._parser.probe()
            if probe is None:  # the modem is not identified yet: silence must do
                self._parser.settle()
                return
            try:
                await self._run_once(probe)
            except ModemRebooted:
                return
            except CommandRefused:
                if self._loop.time() < self._busy_until:
                    await asyncio.sleep(BUSY_PAUSE)
                    continue
                silent += 1
            except (CommandTimeout, UnexpectedAnswer):
                silent += 1
            if silent == PROBE_TRIES:
                break
        raise ModemSilent(
            f"{self.link.name}: the modem gives no orderly answer",
            hint="Is it powered, awake and at this baud rate? Reset or power-cycle it.",
        )

    async def _last_results(self) -> None:
        """Mostly the abandoned command ends by itself, soon. A probe must not be its payload."""
        began = self._loop.time()
        while self._parser.owes:
            patience = PROMPT_PATIENCE if self._parser.prompt_due else QUIET
            until = min(max(began, self._last_heard) + patience, began + LAST_RESULTS)
            if not await self._anything_before(until):
                return

    def _owed_until(self, command: Command) -> float:
        """Until when a second result may come that ``command`` would take for its own; 0: none.

        ``SEND OK`` has no number: a late one would be taken for the next datagram's.
        """
        now = self._loop.time()
        self._owed_outcomes = [debt for debt in self._owed_outcomes if debt[1] > now]
        alike = (
            until for debtor, until in self._owed_outcomes if debtor.outcome == command.outcome
        )
        return max(alike, default=0.0)

    async def _silence(self, seconds: float) -> None:
        """Wait until nothing has come for ``seconds``; a modem that never stops is not waited for
        more than ten times that.
        """
        until = self._loop.time() + 10 * seconds
        while True:
            wait = min(self._last_heard + seconds, until) - self._loop.time()
            if wait <= 0:
                return
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
        events = self._parser.feed(data)
        if self._data_timer is not None or self._parser.awaits_data:
            self._watch_data(events)
        if events:
            self._dispatch_all(events)
        self._heard.set()

    def lost(self, error: PortLost) -> None:
        """The link's call: the port is gone."""
        self._lost = error
        self._note(str(error))
        self._fail(error)
        self._cancel_timers()
        self._heard.set()
        for listener in tuple(self._loss_listeners):
            self._call(listener, error)

    def _watch_data(self, events: list[Event]) -> None:
        """Announced data has a limited time from its header on; ``events`` are the latest."""
        if self._data_timer is not None and (events or not self._parser.awaits_data):
            self._data_timer.cancel()
            self._data_timer = None
        if self._parser.awaits_data and self._data_timer is None:
            self._data_timer = self._loop.call_later(self._data_patience(), self._give_up_data)

    def _give_up_data(self) -> None:
        self._data_timer = None
        events = self._parser.give_up_data()
        self._watch_data(events)
        self._dispatch_all(events)

    def _data_patience(self) -> float:
        baudrate = self.link.baudrate
        return DATA_GRACE + (2048 * BITS_PER_BYTE / baudrate if baudrate else 0.0)

    def _write(self, data: bytes, *, shown: str = "") -> None:
        if shown:
            self._masked[data.rstrip(b"\r")] = shown.encode()
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
        for timer in (self._timer, self._data_timer, self._payload_timer):
            if timer is not None:
                timer.cancel()

    # --- events -----------------------------------------------------------------------------

    def _dispatch_all(self, events: list[Event]) -> None:
        for event in events:
            if self._tracer is not None:
                self._tracer.heard(self._shown(event), type(event).__name__.lower())
            if self._owed_outcomes and not isinstance(event, Outcome):
                self._pay_outcome(event)
            self._dispatch(event)

    def _pay_outcome(self, event: Event) -> None:
        """Is ``event`` a second result that an abandoned command owed, or the end of its hopes?"""
        line = event.line
        refused = None
        if isinstance(event, Orphan) and event.kind == "final" and line != b"OK":
            refused = event.command
        for debt in self._owed_outcomes:
            command, _ = debt
            if command is refused or (command.outcome and command.outcome.match(line) is not None):
                self._owed_outcomes.remove(debt)
                return

    def _shown(self, event: Event) -> bytes:
        """What the trace may tell of ``event``: an echo that was damaged may hold a secret, too."""
        raw = event.raw
        if self._masked:
            for secret, shown in self._masked.items():
                raw = raw.replace(secret, shown)
            if isinstance(event, Unknown | Overflow | Truncated):
                return b"(%d bytes, perhaps a damaged echo of a secret)" % len(raw)
        return raw

    def _dispatch(self, event: Event) -> None:
        match event:
            case Answer(fields=fields) if self._exchange:
                self._exchange.reply.lines.append(fields)
            case Final(ok=True) if self._exchange:
                self._exchange.doubtful = event.doubtful
                if event.done:
                    self._finish()
            case Outcome(fields=fields) if self._exchange:
                self._exchange.reply.outcome = fields
                if event.done:
                    self._finish()
            case Final() if self._exchange:
                self._refuse(event.line)
            case UrcReceived():
                for listener in tuple(self._urc_listeners):
                    self._call(listener, event)
            case Prompt() if self._exchange:
                self._exchange.prompted = True
                self._send_payload(self._exchange.command)
            case Orphan(kind="prompt", command=Command() as command):
                # To give the modem what it waits for is the only sure way out of its data mode.
                self._owe_outcome(command, self._loop.time() + command.seconds)
                self._send_payload(command)
            case Echo() if self._exchange:
                self._exchange.reply.echoed = True
            case Early():
                self._wait_for_late_answer()
            case BootLine(first=first):
                self._boot_heard = self._loop.time()
                if first:
                    self._on_reboot()

    def _call(self, listener: Callable[..., None], *arguments: object) -> None:
        """A listener that raises must not keep anybody else from what was received."""
        try:
            listener(*arguments)
        except Exception as error:
            self._loop.call_exception_handler(
                {"message": f"a listener of {self.link.name} raised", "exception": error}
            )

    def _send_payload(self, command: Command) -> None:
        if self.dialect.settle:
            self._payload_timer = self._loop.call_later(
                self.dialect.settle, self._write_payload, command
            )
        else:
            self._write_payload(command)

    def _write_payload(self, command: Command) -> None:
        self._payload_timer = None
        with suppress(PortError):  # a port that is lost says so itself
            self._write(command.payload)

    def _wait_for_late_answer(self) -> None:
        exchange = self._exchange
        if exchange is None or exchange.early or self._parser.owes:
            return  # while an abandoned command owes its OK, this one was it
        exchange.early = True
        exchange.until = min(exchange.deadline, self._loop.time() + EARLY_GRACE)
        self._wake_by(exchange.until)

    def _on_reboot(self) -> None:
        self.reboots += 1
        self._note("the modem restarted")
        self._owed_outcomes.clear()
        self._busy_until = 0.0
        if self._payload_timer is not None:
            self._payload_timer.cancel()
        self._fail(_rebooted())
        for listener in tuple(self._reboot_listeners):
            self._call(listener)


def _rebooted() -> ModemRebooted:
    return ModemRebooted(
        "the modem restarted; its sockets and volatile settings are gone",
        hint="If nobody reset it, look at its supply: attaching draws peaks of 0.5 A.",
    )


def _remove(listeners: list[Any], listener: object) -> None:
    with suppress(ValueError):
        listeners.remove(listener)


def _settle(future: asyncio.Future[Reply], error: NbiotError) -> None:
    """End ``future`` with ``error`` unless its caller has gone."""
    if not future.done():
        future.set_exception(error)
