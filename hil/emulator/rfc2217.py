"""Software modems on RFC 2217 ports: a serial port over TCP, with its rate, DTR and RTS."""

from __future__ import annotations

import struct
from collections.abc import Callable

from .engine import State
from .pins import LINES
from .tcp import TcpModem
from .telnet import COM_PORT, Telnet

SIGNATURE, BAUDRATE, DATASIZE, PARITY, STOPSIZE, CONTROL = range(6)
NOTIFY_MODEMSTATE, SUSPEND, RESUME, LINE_MASK, MODEM_MASK, PURGE = 7, 8, 9, 10, 11, 12
ANSWER = 100
"""The server's commands are the client's plus this."""
RATES = range(50, 4_000_001)
DATA_SIZES, PARITIES, STOP_SIZES = range(5, 9), range(1, 6), range(1, 4)
CTS, DSR, RING, CARRIER = 0x10, 0x20, 0x40, 0x80
FLOW_ASKED, FLOW_VALUES = 0, (1, 2, 3)
BREAK_ASKED, BREAK_ON, BREAK_OFF = 4, 5, 6
IN_FLOW_ASKED, IN_FLOW_VALUES = 13, (14, 15, 16)
DTR_ASKED, RTS_ASKED = 7, 10


class Rfc2217Modem(TcpModem):
    """Serve one software modem as `rfc2217://HOST:PORT`.

    A client that set another rate than the modem's gets garbage, unless `Options.check_baud` is
    False. DTR and RTS reach the pins `Options.wiring` names. CTS and DSR are on while the modem
    is switched on. Word length and parity are taken and make no difference.
    """

    scheme = "rfc2217"

    async def open(self) -> None:
        self._reset()
        self.modem.on_power = self._power_changed
        await super().open()

    def _reset(self) -> None:
        """As a client finds it: 8N1 at the modem's rate, DTR and RTS off."""
        self._telnet = Telnet(self.put, self.heard, self._greet_com_port, self._com_port)
        self._rate: int | None = None
        self._settings = {DATASIZE: 8, PARITY: 1, STOPSIZE: 1}
        self.lines = dict.fromkeys(LINES, False)
        self._flow, self._in_flow = 1, 14
        self._break = False
        self._mask = 0
        self._shown = 0
        self._held = False

    @property
    def client_rate(self) -> int | None:
        """The rate the client has set, bit/s; None: not yet."""
        return self._rate

    def host_rate(self) -> int | None:
        return self._rate

    # ------------------------------------------------------------- the client

    def greet(self) -> None:
        self._reset()
        self._telnet.offer()

    def client_gone(self) -> None:
        for line in LINES:
            self._set_line(line, False)

    def from_client(self, data: bytes) -> None:
        self._telnet.feed(data)

    def block(self, blocked: bool) -> None:
        super().block(blocked or self._held)

    def to_client(self, data: bytes) -> None:
        self.written += len(data)
        self.put(self._telnet.escaped(data))

    # -------------------------------------------------------- COM-PORT option

    def _greet_com_port(self) -> None:
        """The client speaks RFC 2217: tell the state of the lines, as it may wait for it."""
        if COM_PORT in self._telnet.theirs and not self._mask:
            self._mask = 0xFF
            self._shown = self._modem_state()
            self._tell(NOTIFY_MODEMSTATE, self._shown)

    def _tell(self, command: int, value: int) -> None:
        self._telnet.say_option(COM_PORT, bytes((command + ANSWER, value)))

    def _com_port(self, content: bytes) -> None:
        """One command of the client; what makes no sense is answered with what is."""
        if not content:
            return
        command, value = content[0], content[1:]
        if command == SIGNATURE:
            self._sign(value)
        elif command == BAUDRATE:
            self._set_rate(value)
        elif command in (SUSPEND, RESUME):
            self._held = command == SUSPEND
            self.block(self._held)
        elif value and command in _COMMANDS:
            _COMMANDS[command](self, value[0])

    def _sign(self, value: bytes) -> None:
        if not value:
            model = self.modem.model.name
            self._telnet.say_option(
                COM_PORT, bytes((SIGNATURE + ANSWER,)) + f"nbiot emulator {model}".encode()
            )

    def _set_rate(self, value: bytes) -> None:
        if len(value) != 4:
            return
        rate = struct.unpack(">I", value)[0]
        if rate in RATES:
            self._rate = rate
            self._look()
        now = self._rate or self.modem.rate or self.modem.model.rate
        self._telnet.say_option(COM_PORT, struct.pack(">BI", BAUDRATE + ANSWER, now))

    def _set_size(self, value: int) -> None:
        self._set(DATASIZE, value, DATA_SIZES)

    def _set_parity(self, value: int) -> None:
        self._set(PARITY, value, PARITIES)

    def _set_stop(self, value: int) -> None:
        self._set(STOPSIZE, value, STOP_SIZES)

    def _set(self, command: int, value: int, allowed: range) -> None:
        if value in allowed:
            self._settings[command] = value
        self._tell(command, self._settings[command])

    def _control(self, value: int) -> None:
        for line, asked in (("dtr", DTR_ASKED), ("rts", RTS_ASKED)):
            if asked <= value <= asked + 2:
                if value > asked:
                    self._set_line(line, value == asked + 1)
                self._tell(CONTROL, asked + 1 if self.lines[line] else asked + 2)
                return
        if value in (BREAK_ASKED, BREAK_ON, BREAK_OFF):
            if value != BREAK_ASKED:
                self._break = value == BREAK_ON
            self._tell(CONTROL, BREAK_ON if self._break else BREAK_OFF)
        elif value in (IN_FLOW_ASKED, *IN_FLOW_VALUES):
            self._in_flow = value if value in IN_FLOW_VALUES else self._in_flow
            self._tell(CONTROL, self._in_flow)
        else:
            self._flow = value if value in FLOW_VALUES else self._flow
            self._tell(CONTROL, self._flow)

    def _set_line(self, line: str, on: bool) -> None:
        if self.lines[line] != on:
            self.lines[line] = on
            self.modem.pins.set_line(line, on)

    def _set_line_mask(self, value: int) -> None:
        self._tell(LINE_MASK, value)  # there are no line errors to tell

    def _set_mask(self, value: int) -> None:
        self._mask = value
        self._tell(MODEM_MASK, value)

    def _purge(self, value: int) -> None:
        """1: what the client has not got, 2: what the modem has not got, 3: both."""
        if value in (1, 3):
            self._waiting.clear()
        if value in (2, 3):
            self.forget(out=False)
        self._tell(PURGE, value)

    # ------------------------------------------------------ lines of the modem

    def _modem_state(self) -> int:
        return CTS | DSR if self.modem.state is not State.OFF else 0

    def _power_changed(self) -> None:
        """Tell that CTS and DSR changed."""
        state = self._modem_state()
        changed = (state ^ self._shown) >> 4
        self._shown = state
        if changed & (self._mask >> 4) and self._client is not None:
            self._tell(NOTIFY_MODEMSTATE, (state | changed) & self._mask)


_COMMANDS: dict[int, Callable[[Rfc2217Modem, int], None]] = {
    DATASIZE: Rfc2217Modem._set_size,
    PARITY: Rfc2217Modem._set_parity,
    STOPSIZE: Rfc2217Modem._set_stop,
    CONTROL: Rfc2217Modem._control,
    LINE_MASK: Rfc2217Modem._set_line_mask,
    MODEM_MASK: Rfc2217Modem._set_mask,
    PURGE: Rfc2217Modem._purge,
}
