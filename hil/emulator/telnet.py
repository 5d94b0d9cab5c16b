"""Telnet (RFC 854, 855, 1143) as the server of one serial port needs it; no I/O.

`Telnet` takes the bytes of a connection apart: data, and subnegotiations of the COM-PORT option.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

SE, SB, WILL, WONT, DO, DONT, IAC = 240, 250, 251, 252, 253, 254, 255
BINARY, ECHO, SUPPRESS_GO_AHEAD, COM_PORT = 0, 1, 3, 44
OURS = frozenset({BINARY, ECHO, SUPPRESS_GO_AHEAD, COM_PORT})
"""Options this end may do."""
THEIRS = frozenset({BINARY, SUPPRESS_GO_AHEAD, COM_PORT})
"""Options the client may do."""
OFFER = ((WILL, SUPPRESS_GO_AHEAD), (DO, SUPPRESS_GO_AHEAD), (WILL, BINARY), (DO, BINARY))
MOST = 256
"""Longest subnegotiation; a longer one is thrown away."""


class _At(Enum):
    DATA = 0
    IAC = 1
    VERB = 2
    SUB = 3
    SUB_IAC = 4


class Telnet:
    """One end of one connection."""

    def __init__(
        self,
        send: Callable[[bytes], None],
        data: Callable[[bytes], None],
        negotiated: Callable[[], None],
        subnegotiation: Callable[[bytes], None],
    ) -> None:
        self._send, self._data = send, data
        self._negotiated, self._subnegotiation = negotiated, subnegotiation
        self._out = bytearray()
        """Data not yet passed on."""
        self._at = _At.DATA
        self._after_cr = False
        self._verb = 0
        self._sub = bytearray()
        self._asked: set[tuple[int, int]] = set()
        """(WILL or DO, option) offered and not answered."""
        self.ours: set[int] = set()
        self.theirs: set[int] = set()

    def offer(self) -> None:
        """The server's first words."""
        for verb, option in OFFER:
            self._asked.add((verb, option))
            self._say(verb, option)

    def _say(self, verb: int, option: int) -> None:
        self._send(bytes((IAC, verb, option)))

    # ------------------------------------------------------------------- out

    @staticmethod
    def escaped(data: bytes) -> bytes:
        """Data as it goes onto the connection."""
        return data.replace(b"\xff", b"\xff\xff")

    def say_option(self, option: int, content: bytes) -> None:
        """Send a subnegotiation."""
        self._send(bytes((IAC, SB, option)) + self.escaped(content) + bytes((IAC, SE)))

    # -------------------------------------------------------------------- in

    def feed(self, data: bytes) -> None:
        """Take bytes of the connection; data and commands are passed on in their order."""
        place = 0
        while place < len(data):
            if self._at in (_At.DATA, _At.SUB):
                end = data.find(b"\xff", place)
                end = len(data) if end < 0 else end
                self._plain(data[place:end])
                if end < len(data):
                    self._at = _At.IAC if self._at is _At.DATA else _At.SUB_IAC
                place = end + 1
            else:
                self._step(data[place])
                place += 1
        self._pass_on()

    def _pass_on(self) -> None:
        if self._out:
            out, self._out = bytes(self._out), bytearray()
            self._data(out)

    def _plain(self, data: bytes) -> None:
        """Bytes without an IAC among them."""
        if self._at is _At.SUB:
            self._sub += data[: MOST + 1 - len(self._sub)]
            return
        if BINARY not in self.theirs:  # text: a NUL after CR belongs to it
            if self._after_cr and data[:1] == b"\0":
                data = data[1:]
            self._after_cr = data[-1:] == b"\r" if data else False
            data = data.replace(b"\r\0", b"\r")
        self._out += data

    def _step(self, byte: int) -> None:
        """One byte of a command."""
        if self._at is _At.IAC:
            self._command(byte)
        elif self._at is _At.VERB:
            self._at = _At.DATA
            self._answer(self._verb, byte)
        else:
            self._sub_end(byte)

    def _command(self, byte: int) -> None:
        self._at = _At.DATA
        if byte == IAC:
            self._out.append(byte)
        elif byte in (WILL, WONT, DO, DONT):
            self._verb, self._at = byte, _At.VERB
        elif byte == SB:
            self._sub.clear()
            self._at = _At.SUB

    def _sub_end(self, byte: int) -> None:
        if byte == IAC:
            self._at = _At.SUB
            if len(self._sub) <= MOST:
                self._sub.append(byte)
            return
        self._at = _At.DATA
        if byte == SE and 0 < len(self._sub) <= MOST and self._sub[0] == COM_PORT:
            self._pass_on()
            self._subnegotiation(bytes(self._sub[1:]))

    # ----------------------------------------------------------- negotiation

    def _answer(self, verb: int, option: int) -> None:
        """Answer a change, and nothing else: two ends that answer answers never stop."""
        wants = verb in (WILL, DO)
        theirs = verb in (WILL, WONT)
        state, allowed = (self.theirs, THEIRS) if theirs else (self.ours, OURS)
        yes, no = (DO, DONT) if theirs else (WILL, WONT)
        asked = (yes, option) in self._asked
        self._asked.discard((yes, option))
        if wants and option in allowed and option not in state:
            state.add(option)
            if not asked:
                self._say(yes, option)
            self._negotiated()
        elif wants and option not in allowed:
            self._say(no, option)
        elif not wants and option in state:
            state.discard(option)
            self._say(no, option)
