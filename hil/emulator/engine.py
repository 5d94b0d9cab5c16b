"""The dialect-free part of a software modem: line editor, results, URCs, boot, prompt.

It does no I/O and owns no clock: bytes come in through `receive`, leave through the `send`
callable, and time comes from the injected clock. A dialect is a subclass whose handlers carry
the `at` decorator.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar, Literal, Protocol

from .clock import Clock, Handle
from .memory import Memory
from .network import Address, Network
from .options import Options
from .pins import Pins
from .radio import Radio
from .recent import Recent
from .script import Script
from .seam import KEPT, Executed, Kind, Piece, Restart, Seam, Traffic, Truth, Urc

CR, LF = 0x0D, 0x0A
CTRL_Z, ESC = 0x1A, 0x1B
INBOX = 65536
"""Bytes that wait for a busy modem; what comes on top is lost, as in an overrun UART."""

Form = Literal["exec", "read", "test", "set"]
_SUFFIXES: tuple[tuple[str, Form], ...] = (("=?", "test"), ("?", "read"), ("=", "set"))


class Result(Enum):
    """What a handler may return instead of None (= OK)."""

    PENDING = 1
    """The final result comes later, through `Modem.finish`."""
    SILENT = 2
    """There is no final result."""


class AtError(Exception):
    """A command failed: `+CME ERROR: code`, or plain ERROR when `code` is None."""

    def __init__(self, code: int | None = None) -> None:
        super().__init__(f"CME {code}")
        self.code = code


class BadParameter(Exception):
    """A parameter is missing, not of its type, or out of range."""


@dataclass(frozen=True)
class Param:
    """One parameter of a command, without its quotes."""

    text: str
    quoted: bool = False


@dataclass(frozen=True)
class Call:
    """One command as parsed: `+CEREG`, form `set`, argument text `2`."""

    name: str
    form: Form = "exec"
    text: str = ""
    params: tuple[Param, ...] = ()

    def __len__(self) -> int:
        return len(self.params)

    def given(self, index: int) -> bool:
        """Is parameter `index` there and not empty?"""
        return index < len(self.params) and self.params[index] != Param("")

    def count(self, low: int, high: int) -> None:
        """Refuse another number of parameters than low..high."""
        if not low <= len(self.params) <= high:
            raise BadParameter

    def number(self, index: int, low: int, high: int, default: int | None = None) -> int:
        """Unquoted decimal parameter within low..high."""
        if not self.given(index):
            if default is None:
                raise BadParameter
            return default
        param = self.params[index]
        if param.quoted or not (param.text.isascii() and param.text.isdigit()):
            raise BadParameter
        value = int(param.text)
        if not low <= value <= high:
            raise BadParameter
        return value

    def string(self, index: int, default: str | None = None) -> str:
        """Text parameter, quoted or not."""
        if index >= len(self.params):
            if default is None:
                raise BadParameter
            return default
        return self.params[index].text

    def quoted(self, index: int, default: str | None = None) -> str:
        """Text parameter that must be quoted when it is there."""
        if self.given(index) and not self.params[index].quoted:
            raise BadParameter
        return self.string(index, default)

    def word(self, index: int, default: str | None = None) -> str:
        """Text parameter that must not be quoted."""
        if index < len(self.params) and self.params[index].quoted:
            raise BadParameter
        return self.string(index, default)


Handler = Callable[[Any, Call], Result | None]


def at(*commands: str) -> Callable[[Handler], Handler]:
    """Mark a method as handler: `+CSQ` (exec), `+CEREG?` (read), `+CEREG=?`, `+CEREG=` (set)."""

    def mark(handler: Handler) -> Handler:
        handler.__dict__["at_forms"] = [_form_of(command) for command in commands]
        return handler

    return mark


def _form_of(command: str) -> tuple[str, Form]:
    for suffix, form in _SUFFIXES:
        if command.endswith(suffix):
            return command.removesuffix(suffix), form
    return command, "exec"


def split_outside_quotes(text: str, separator: str) -> list[str]:
    """Split at `separator`, but not within double quotes."""
    parts, start, quoted = [], 0, False
    for position, char in enumerate(text):
        if char == '"':
            quoted = not quoted
        elif char == separator and not quoted:
            parts.append(text[start:position])
            start = position + 1
    parts.append(text[start:])
    return parts


def parse_params(text: str) -> tuple[Param, ...]:
    """Parameters of a set command; blanks around them do not count."""
    return tuple(_parse_param(part.strip(" ")) for part in split_outside_quotes(text, ","))


def _parse_param(part: str) -> Param:
    if len(part) >= 2 and part[0] == part[-1] == '"' and '"' not in part[1:-1]:
        return Param(part[1:-1], quoted=True)
    if '"' in part:
        raise BadParameter
    return Param(part)


def parse_hex(text: str) -> bytes:
    """Hex digits of either case, two a byte, nothing else."""
    if len(text) % 2 or any(char not in "0123456789abcdefABCDEF" for char in text):
        raise BadParameter
    return bytes.fromhex(text)


class DataSink(Protocol):
    """Takes the bytes after a prompt; returns how many it used, True when it has all."""

    def __call__(self, data: bytes, /) -> tuple[int, bool]: ...


@dataclass
class Counters:
    """What went through the port since it was opened."""

    bytes_in: int = 0
    bytes_out: int = 0
    commands: Recent[str] = field(default_factory=lambda: Recent(KEPT))
    """Command lines as received, without CR: the latest `Options.keep`."""
    lines: int = 0
    """All command lines."""
    understood: int = 0
    """Those of them that began with AT."""
    lost_lines: int = 0
    """Lines that came while the modem could not listen."""
    lost_bytes: int = 0
    """Bytes for which the busy modem had no room."""
    urcs: int = 0
    restarts: int = 0
    datagrams: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("sent", "passed", "came", "received"), 0)
    )
    """By what befell them, see `Traffic`."""


class State(Enum):
    """Is the modem listening?"""

    OFF = 0
    BOOTING = 1
    READY = 2
    ASLEEP = 3


@dataclass(frozen=True)
class Model:
    """A kind of modem by name: its dialect, default UART rate and identity texts."""

    name: str
    engine: type[Modem]
    rate: int
    firmware: str
    identity: Any


class Modem:
    """A software modem without a port; subclasses speak one dialect each."""

    BAD_PARAMETER: ClassVar[int | None] = None
    """CME code of a bad parameter; None: plain ERROR."""
    NO_SUCH_FORM: ClassVar[int | None] = None
    """CME code when a command exists but not in this form."""
    OK_PER_COMMAND: ClassVar[bool] = False
    """`AT+A;+B` answers one OK per command (HiSilicon) or one in all."""
    LINE_LIMIT: ClassVar[int] = 1024
    LINE_TOO_LONG: ClassVar[int | None] = 536
    """CME code of a line longer than that."""
    FAMILY: ClassVar[str] = ""
    ERROR_TEXTS: ClassVar[dict[int, str]] = {}
    """Texts of CMEE=2."""
    CMEE_LEVELS: ClassVar[tuple[int, ...]] = (0, 1)
    ECHO: ClassVar[bool] = False
    TESTS: ClassVar[dict[str, str]] = {}
    """Constant answers to test commands, by command name."""
    ACCEPTED: ClassVar[frozenset[str]] = frozenset()
    """`+NAME=` commands that are taken with OK and do nothing here."""
    AUTOBAUD: ClassVar[bool] = False
    """Does the UART take the rate of the first AT it hears, unless one was set?"""

    handlers: ClassVar[dict[str, dict[Form, str]]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        table: dict[str, dict[Form, str]] = {}
        for base in reversed(cls.__mro__):
            for attribute, value in vars(base).items():
                for name, form in getattr(value, "at_forms", ()):
                    table.setdefault(name, {})[form] = attribute
        for name in cls.TESTS:
            table.setdefault(name, {}).setdefault("test", "_constant_test")
        for name in cls.ACCEPTED:
            table.setdefault(name, {}).setdefault("set", "_accept")
        cls.handlers = table

    def __init__(
        self,
        model: Model,
        options: Options,
        network: Network,
        send: Callable[[bytes], None],
        clock: Clock,
    ) -> None:
        self.model, self.options, self.network, self.clock = model, options, network, clock
        self._write = send
        self.counters = Counters(commands=Recent(options.keep))
        self.truth = Truth(Recent(options.keep))
        self.faults = Seam() if options.faults is None else options.faults()
        """What stands between this modem and the world."""
        self._executed: Executed | None = None
        self._since_damage: int | None = None
        self.injected_urcs: Recent[bytes] = Recent(options.keep)
        """The latest URCs put in by `Options.urc_seed`, in order, without their line ends."""
        default_rate = None if self.AUTOBAUD else model.rate
        self.rate: int | None = options.rate or options.baud or default_rate
        """UART rate in bit/s; None while the modem listens for any rate (auto-baud)."""
        self.nv: Any = None
        """What a restart keeps; the dialect makes it."""
        self.echo = self.ECHO if options.echo is None else options.echo
        self.cmee = options.cmee
        self.state = State.OFF
        self.on_power: Callable[[], None] = lambda: None
        """Called when the modem is switched on or off."""
        self.firmware = options.firmware or model.firmware
        self._timers: set[Timer] = set()
        self._inbox = bytearray()
        self._line = bytearray(options.stale_input)
        self._overflow = False
        self._busy = False
        self._calls: deque[Call] = deque()
        self._sink: DataSink | None = None
        self._feeding = False
        self._deferred: list[tuple[bytes, Kind]] = []
        self._after_final: list[Callable[[], None]] = []
        self._random = random.Random(options.urc_seed)
        self.faults.attach(self)
        self.radio = Radio(network, self.after, self.faults, self._emulated_time, options.imei)
        self.radio.on_stat = self.on_stat
        self.radio.on_rrc = self.on_rrc
        self.radio.on_address = self.on_address
        self.radio.on_psm = self.on_psm
        self.radio.bands = self.bands
        self.setup()
        self.memory = Memory(self)
        self.pins = Pins(self)
        self.script = Script(self)
        self.network.begin(self, clock, options.speed)

    # ------------------------------------------------------------------ life

    def start(self) -> None:
        """Switch on as `Options.boot` says."""
        if self.options.boot == "cold":
            self.power_on()
        elif self.options.boot == "ready":
            self.state = State.READY
            self.start_ready()
        self.faults.started()
        self.script.load()

    def close(self) -> None:
        """Stop everything: timers, sockets, radio."""
        self.state = State.OFF
        self.memory.keep()
        self.faults.closed()
        self.script.close()
        self.pins.close()
        self.network.end(self)
        self.radio.close()
        self.cancel_timers()
        self.lose_state()
        self._forget_input()

    def power_on(self) -> None:
        """Power comes on: boot and print the banner."""
        self._begin_boot()
        self.on_power()
        self.cold_boot()

    def power_off(self) -> None:
        """Power goes away; nothing is answered until `power_on`."""
        self._begin_boot()
        self.state = State.OFF
        self.on_power()

    @property
    def powered(self) -> bool:
        """Is it switched on?"""
        return self.state is not State.OFF

    def power_cycle(self, seconds: float = 1.0) -> None:
        """Take the power away and give it back after `seconds`; the modem boots."""
        self.power_off()
        self.after(seconds, self.power_on)

    def reset(self) -> None:
        """The RESET pin was pulled long enough, and let go: boot."""
        self._begin_boot()
        self.on_power()
        self.reset_boot()

    def reboot(self, cause: str | None = None) -> None:
        """Restart by itself (watchdog and the like) with `cause` in the banner."""
        self._begin_boot()
        self.warm_boot(cause)

    def _begin_boot(self) -> None:
        self.counters.restarts += 1
        self.truth.events.append(Restart(self.clock.time()))
        self.memory.keep()
        self.faults.booting()
        self.radio.reset()
        self.cancel_timers()
        self.lose_state()
        self._forget_input()
        self.state = State.BOOTING

    def _forget_input(self) -> None:
        self._inbox.clear()
        self._line.clear()
        self._overflow = self._busy = False
        self._calls.clear()
        self._deferred.clear()
        self._after_final.clear()
        self._sink = None
        self._executed = None

    def booted(self) -> None:
        """The banner is out: listen."""
        self.state = State.READY
        self.faults.booted()

    def spoil_input(self, data: bytes) -> None:
        """Junk gets into the line buffer: the next command line begins with it."""
        self._line += data

    # Hooks of the dialect.

    def setup(self) -> None:
        """Create the dialect's own state."""

    def start_ready(self) -> None:
        """Take the state of a modem that booted long ago."""

    def cold_boot(self) -> None:
        """Schedule the boot after power-up; ends in `booted`."""
        raise NotImplementedError

    def warm_boot(self, cause: str | None) -> None:
        """Schedule the boot after a restart; ends in `booted`."""
        raise NotImplementedError

    def reset_boot(self) -> None:
        """Schedule the boot after a reset by its pin; ends in `booted`."""
        self.cold_boot()

    def lose_state(self) -> None:
        """Forget volatile settings and close sockets."""

    def reset_volatile(self) -> None:
        """Give every volatile setting the value a boot gives it."""

    def wake(self) -> None:
        """Pulse on the pin that ends deep sleep."""

    def bands(self) -> tuple[int, ...]:
        """Bands the modem may use; none or 0: all it can."""
        return tuple(getattr(self.nv, "bands", ()))

    def on_stat(self) -> None:
        """Registration changed."""

    def on_rrc(self) -> None:
        """The radio connection was set up or released."""

    def on_address(self) -> None:
        """The default bearer got its address."""

    def on_psm(self) -> None:
        """Power saving was entered or left."""

    def harmless_urcs(self) -> list[str]:
        """URCs that may appear now without changing anything."""
        return []

    def own_urc(self, name: str) -> str | None:
        """A URC that begins as the answer of this command does (`+CEREG`), if there is one."""
        return None

    def boot_text(self) -> list[bytes]:
        """What a restart by itself prints."""
        return []

    def open_sockets(self) -> list[int]:
        """Numbers of the sockets that are open."""
        return []

    def lose_socket(self, ident: int) -> None:
        """Close a socket without having been asked."""

    def id_in_use(self) -> AtError:
        """The error for opening a socket under a number that is taken."""
        return AtError()

    # ----------------------------------------------------------------- time

    def after(self, delay: float, callback: Callable[[], None]) -> Handle:
        """Call later, in seconds before division by `Options.speed`; a reboot cancels it."""
        timer = Timer(self._timers, callback)
        timer.handle = self.clock.call_later(delay / self.options.speed, timer.fire)
        return timer

    def _emulated_time(self) -> float:
        """Seconds as the modem's own waits count them."""
        return self.clock.time() * self.options.speed

    def cancel_timers(self) -> None:
        for timer in list(self._timers):
            timer.cancel()

    # --------------------------------------------------------------- output

    def emit(self, data: bytes, kind: Kind = Kind.BANNER, text: str | None = None) -> None:
        """Write bytes as they are; `text` is the line in them."""
        piece = Piece(kind, data)
        if kind in (Kind.LINE, Kind.FINAL, Kind.PROMPT):
            piece.command = self._executed
        if text is not None and kind in (Kind.URC, Kind.TRAILER):
            piece.texts = ((kind, text),)
        elif text is not None and self._executed is not None:
            told = self._executed.finals if kind is Kind.FINAL else self._executed.answer
            told.append(text)
        self.faults.output(piece)

    def put(self, piece: Piece) -> None:
        """A piece leaves the modem."""
        size, now = len(piece.data), self.clock.time()
        self.counters.bytes_out += size
        if piece.damaged:
            self._since_damage = 0
        elif self._since_damage is not None:
            self._since_damage += size
        if self.options.on_bytes is not None:
            self.options.on_bytes("out", piece.data, now)
        for kind, text in piece.texts:
            end, clean = self.counters.bytes_out, self._since_damage
            self.counters.urcs += kind is Kind.URC
            self.truth.events.append(Urc(now, text, end, clean, kind is Kind.TRAILER))
        self._write(piece.data)

    def _say(self, data: bytes, kind: Kind, start: bytes = b"\r\n", end: bytes = b"\r\n") -> None:
        self._boundary()
        self.emit(start + data + end, kind, data.decode("latin-1"))

    def _boundary(self) -> None:
        """A place between lines: a random URC may come here."""
        if self.options.urc_seed is None or self.state is not State.READY:
            return
        if self._random.random() >= self.options.urc_rate:
            return
        pool = self.options.urc_pool
        choice = list(self.harmless_urcs() if pool is None else pool)
        if not choice:
            return
        urc = self._random.choice(choice).encode("latin-1")
        self.injected_urcs.append(urc)
        self.emit(b"\r\n" + urc + b"\r\n", Kind.URC, urc.decode("latin-1"))

    def line(self, text: str | bytes, kind: Kind = Kind.LINE) -> None:
        """One line framed by CR LF on both sides; a wrapped list is several of these."""
        self._say(text if isinstance(text, bytes) else text.encode("latin-1"), kind)

    def lines(self, texts: Iterable[str]) -> None:
        """A joined list: CR LF, then every line with its CR LF."""
        start = b"\r\n"
        for text in texts:
            self._say(text.encode("latin-1"), Kind.LINE, start)
            start = b""

    def open_lines(self, texts: Iterable[str]) -> None:
        """Lines that are ended only by the CR LF of what comes next."""
        for text in texts:
            self._say(text.encode("latin-1"), Kind.LINE, end=b"")

    def urc(self, text: str | bytes, *, early: bool = False, kind: Kind = Kind.URC) -> None:
        """Raise a URC; during a command it waits for the final result unless `early`."""
        if self.state is not State.READY:
            return
        data = text if isinstance(text, bytes) else text.encode("latin-1")
        now = early or self.options.early_urcs
        if self._busy and (not now or self._sink is not None):
            self._deferred.append((data, kind))
        else:
            self.line(data, kind)

    # ---------------------------------------------------------------- input

    def receive(self, data: bytes) -> None:
        """Bytes from the host, as the UART delivers them."""
        self.counters.bytes_in += len(data)
        if self.options.on_bytes is not None:
            self.options.on_bytes("in", data, self.clock.time())
        self.hear(self.faults.input(data))

    def hear(self, data: bytes) -> None:
        """Bytes come out of the UART."""
        if self.state is not State.READY:
            self._not_listening(data)
            return
        if self._busy and self._sink is None and self.options.busy == "error":
            self._refuse(data)
            return
        room = max(INBOX - len(self._inbox), 0)
        self.counters.lost_bytes += len(data[room:])
        self._inbox += data[:room]
        self._pump()

    def _not_listening(self, data: bytes) -> None:
        self.counters.lost_lines += data.count(b"\r")
        if self.state is State.ASLEEP:
            self.woken_by_uart(data)

    def woken_by_uart(self, data: bytes) -> None:
        """Bytes arrived while asleep."""

    def _refuse(self, data: bytes) -> None:
        """Refuse each line in `data`: no result of the command that runs, and no end of it."""
        for _ in range(data.count(b"\r")):
            self.emit(b"\r\n" + self.result_text(AtError(51)).encode() + b"\r\n", Kind.REFUSAL)

    def _pump(self) -> None:
        while self._inbox and self.state is State.READY and not self._feeding:
            if self._sink is not None:
                self._feed_sink()
            elif self._busy or not self._take_line():
                return

    def _take_line(self) -> bool:
        """Move input into the line buffer up to CR, run the line; False when there is no CR."""
        end = self._inbox.find(b"\r") + 1
        piece = bytes(self._inbox[: end or None])
        del self._inbox[: end or None]
        typed = piece.translate(None, b"\n")
        if self.echo and typed:
            self.emit(typed, Kind.ECHO)
        self._line += typed
        limit = self.options.line_limit or self.LINE_LIMIT
        if len(self._line) > limit:
            self._overflow = True
            del self._line[limit:]
        if not end:
            return False
        raw, overflow = bytes(self._line), self._overflow
        self._line.clear()
        self._overflow = False
        self._run_line(raw.removesuffix(b"\r"), overflow)
        return True

    def _feed_sink(self) -> None:
        sink = self._sink
        assert sink is not None
        self._feeding = True  # a sink that ends its command must not have its data read as a line
        try:
            used, done = sink(bytes(self._inbox))
        finally:
            self._feeding = False
        del self._inbox[:used]
        if done and self._sink is sink:
            self._sink = None

    def ask_data(self, prompt: bytes, sink: DataSink) -> Result:
        """Show a prompt and give what follows to `sink`."""
        self.emit(prompt, Kind.PROMPT)
        self._sink = sink
        return Result.PENDING

    # ------------------------------------------------------------- commands

    def _run_line(self, raw: bytes, overflow: bool) -> None:
        text = raw.decode("latin-1").replace("\0", "").strip(" ")
        if overflow:
            self._note(text)
            self._final(AtError(self.LINE_TOO_LONG))
            return
        start = self.find_at(text)
        if not text or start is None:
            return
        self._note(text)
        verdict = self.faults.command(text)
        if isinstance(verdict, AtError):
            self._final(verdict)
        if verdict is not None:
            return
        self._busy = True
        if self.options.turnaround:
            self.after(self.options.turnaround, lambda: self._begin_late(text[start:]))
        else:
            self._begin(text[start:])

    def _note(self, text: str) -> None:
        self.counters.commands.append(text)
        self.counters.lines += 1
        self.counters.understood += text[:2].upper() == "AT"
        self._executed = Executed(self.clock.time(), text)
        self.truth.events.append(self._executed)

    def _begin_late(self, text: str) -> None:
        self._begin(text)
        self._pump()

    def _begin(self, text: str) -> None:
        if text[:2].upper() != "AT":
            self._end_line(AtError())
            return
        try:
            self._calls.extend(self.split_commands(text[2:]))
        except BadParameter:
            self._end_line(AtError(self.BAD_PARAMETER))
            return
        if not self._calls:
            self._calls.append(Call(""))
        self._run_calls()

    def find_at(self, text: str) -> int | None:
        """Where the command line begins in what was received; None: nothing to answer."""
        return 0

    def split_commands(self, text: str) -> list[Call]:
        """The commands of a line, without its AT."""
        parts = split_outside_quotes(text, ";")
        return [self.parse_command(part.strip(" ")) for part in parts if part.strip(" ")]

    def parse_command(self, text: str) -> Call:
        """`+CEREG=2` -> Call."""
        for position, char in enumerate(text):
            if char == "=":
                name, rest = text[:position].upper(), text[position + 1 :]
                if rest.strip(" ") == "?":
                    return Call(name, "test")
                return Call(name, "set", rest, self.parse_arguments(name, rest))
            if char == "?":
                if text[position + 1 :].strip(" "):
                    raise BadParameter
                return Call(text[:position].upper(), "read")
        return Call(text.upper())

    def parse_arguments(self, name: str, text: str) -> tuple[Param, ...]:
        """Parameters of one set command."""
        try:
            return parse_params(text)
        except BadParameter:
            if name in self.handlers:
                raise
            return ()

    def _run_calls(self) -> None:
        while self._calls:
            call = self._calls.popleft()
            try:
                result = self.run(call)
            except AtError as error:
                self._end_line(error)
                return
            except BadParameter:
                self._end_line(AtError(self.BAD_PARAMETER))
                return
            if result is Result.PENDING:
                return
            if self.state is not State.READY:
                return
            if result is not Result.SILENT and not self._command_ok():
                return
        self._busy = False
        self._flush()

    def run(self, call: Call) -> Result | None:
        """Find the handler and run it; a script comes first."""
        if call in self.script:
            return self.script.run(call)
        return self.run_own(call)

    def run_own(self, call: Call) -> Result | None:
        """Run the model's own handler."""
        forms = self.handlers.get(call.name)
        if call.name == "":
            return None
        if forms is None:
            raise AtError()
        attribute = forms.get(call.form)
        if attribute is None:
            raise AtError(self.NO_SUCH_FORM)
        handler: Callable[[Call], Result | None] = getattr(self, attribute)
        return handler(call)

    def _command_ok(self) -> bool:
        if self.OK_PER_COMMAND or not self._calls:
            self._final(None)
        return self.state is State.READY

    def _end_line(self, error: AtError) -> None:
        self._calls.clear()
        self._final(error)
        self._busy = False
        self._flush()

    def _final(self, error: AtError | None) -> None:
        self.line(self.result_text(error), Kind.FINAL)
        actions, self._after_final = self._after_final, []
        for action in actions:
            action()
        self.memory.keep()

    def result_text(self, error: AtError | None) -> str:
        """The final result as the present CMEE level prints it."""
        if error is None:
            return "OK"
        if error.code is None or self.cmee == 0:
            return "ERROR"
        if self.cmee == 2:
            text = self.ERROR_TEXTS.get(error.code, f"unknown error {error.code}")
            return f"+CME ERROR: {text}"
        return f"+CME ERROR: {error.code}"

    def after_final(self, action: Callable[[], None]) -> None:
        """Do something right after the final result of the running command."""
        self._after_final.append(action)

    def finish(self, error: AtError | None = None) -> None:
        """Give the final result of a command that returned PENDING."""
        self._sink = None
        if error is not None:
            self._end_line(error)
        elif self._command_ok():
            self._run_calls()
        self._pump()

    def _flush(self) -> None:
        deferred, self._deferred = self._deferred, []
        for data, kind in deferred:
            self.line(data, kind)

    # ------------------------------------------------------------ datagrams

    def uplink(self, data: bytes, peer: Address, send: Callable[[], None]) -> None:
        """A datagram leaves the radio; the air or the seam may do something to it."""
        self.record("sent", peer, data)

        def passed() -> None:
            self.record("passed", peer, data)
            send()

        if not self.radio.lost("up", data):
            self.faults.datagram("up", data, lambda: self.radio.carry("up", passed))

    def downlink(self, data: bytes, peer: Address, deliver: Callable[[], None]) -> None:
        """A datagram for this modem came from the internet."""
        self.record("came", peer, data)

        def on_the_air() -> None:
            self.radio.carry("down", lambda: self.radio.downlink(data, deliver))

        self.faults.datagram("down", data, on_the_air)

    def record(
        self, event: Literal["sent", "passed", "came", "received"], peer: Address, data: bytes
    ) -> None:
        self.counters.datagrams[event] += 1
        self.truth.events.append(Traffic(self.clock.time(), event, peer, data))

    # --------------------------------------------- handlers of every dialect

    def _constant_test(self, call: Call) -> None:
        if self.TESTS[call.name]:
            self.line(self.TESTS[call.name])

    def _accept(self, call: Call) -> None:
        return None

    @at("+CMEE=")
    def set_cmee(self, call: Call) -> None:
        call.count(1, 1)
        level = call.number(0, 0, 2)
        if level not in self.CMEE_LEVELS:
            raise BadParameter
        self.cmee = level


class Timer:
    """A pending call of a modem; leaves the modem's set when it ran or was cancelled."""

    def __init__(self, timers: set[Timer], callback: Callable[[], None]) -> None:
        self._timers, self._callback = timers, callback
        self.handle: Handle | None = None
        timers.add(self)

    def fire(self) -> None:
        self._timers.discard(self)
        self._callback()

    def cancel(self) -> None:
        self._timers.discard(self)
        if self.handle is not None:
            self.handle.cancel()
