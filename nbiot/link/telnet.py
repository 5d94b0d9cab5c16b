"""Telnet as RFC 2217 needs it: bytes to data and commands, and back. No I/O, no clock.

RFC 854 (commands), RFC 855 (options), RFC 856 (binary: CR is not followed by NUL).
"""

from __future__ import annotations

from typing import NamedTuple

IAC, DONT, DO, WONT, WILL, SB, SE = 255, 254, 253, 252, 251, 250, 240
BINARY, ECHO, SUPPRESS_GO_AHEAD, COM_PORT = 0, 1, 3, 44
_AGREE = {DO: WILL, DONT: WILL, WILL: DO, WONT: DO}
_REFUSE = {DO: WONT, DONT: WONT, WILL: DONT, WONT: DONT}
_ESCAPE = bytes([IAC])
LONGEST = 1024
"""Bytes of a subnegotiation. RFC 2217's longest is a signature in words."""


class TelnetError(ValueError):
    """What comes is no telnet."""


class Told(NamedTuple):
    """A command: ``verb`` is DO, DONT, WILL, WONT, or SB with what stood up to SE."""

    verb: int
    option: int
    payload: bytes = b""


def escape(data: bytes) -> bytes:
    """``data`` as it goes over the line."""
    return data.replace(_ESCAPE, _ESCAPE * 2)


def command(told: Told) -> bytes:
    """``told`` as it goes over the line."""
    begin = bytes([IAC, told.verb, told.option])
    return begin + escape(told.payload) + bytes([IAC, SE]) if told.verb == SB else begin


class Decoder:
    """Takes telnet apart, in whatever pieces it comes."""

    def __init__(self) -> None:
        self._rest = b""  # the beginning of a command

    def feed(self, data: bytes) -> list[bytes | Told]:
        """Data and commands in their order; neighbouring data is one piece. Raises TelnetError."""
        if not self._rest and IAC not in data:
            return [data] if data else []
        data = self._rest + data
        self._rest = b""
        found: list[bytes | Told] = []
        plain = bytearray()
        at = 0
        while (iac := data.find(_ESCAPE, at)) >= 0:
            plain += data[at:iac]
            end, told = _take(data, iac)
            if end == 0:
                at = len(data)
                self._rest = data[iac:]
                break
            at = end
            if told is None:
                if data[iac + 1] == IAC:
                    plain += _ESCAPE
                continue
            if plain:
                found.append(bytes(plain))
                plain.clear()
            found.append(told)
        plain += data[at:]
        if plain:
            found.append(bytes(plain))
        if len(self._rest) > LONGEST:
            raise TelnetError(f"a telnet command of more than {LONGEST} bytes")
        return found


def _take(data: bytes, iac: int) -> tuple[int, Told | None]:
    """The end of the command at ``iac`` and its meaning, if it has one for us; end 0: cut off."""
    if iac + 1 == len(data):
        return 0, None
    verb = data[iac + 1]
    if verb < SB or verb == IAC:  # an escaped 0xFF; no operation, are you there, and the like
        return iac + 2, None
    if iac + 2 == len(data):
        return 0, None
    option = data[iac + 2]
    if verb != SB:
        return iac + 3, Told(verb, option)
    if option == IAC:  # nobody's option, and an end in all likelihood
        return iac + 2, None
    at = iac + 3
    while (at := data.find(_ESCAPE, at)) >= 0 and at + 1 < len(data):
        if data[at + 1] == SE:
            payload = data[iac + 3 : at].replace(_ESCAPE * 2, _ESCAPE)
            return at + 2, Told(SB, option, payload)
        at += 2
    return 0, None


class Negotiator:
    """Who does which option, by the rules of RFC 1143 that keep two ends from arguing for ever."""

    def __init__(self, *, us: frozenset[int], them: frozenset[int]) -> None:
        self._wanted = {DO: us, DONT: us, WILL: them, WONT: them}
        self._asked = {(WILL, option) for option in us} | {(DO, option) for option in them}
        self._on: set[tuple[int, int]] = set()

    def begin(self) -> bytes:
        """What to say first: all that is wanted."""
        return b"".join(command(Told(verb, option)) for verb, option in sorted(self._asked))

    def we_do(self, option: int) -> bool:
        """Both ends agreed that we do it."""
        return (WILL, option) in self._on

    def they_do(self, option: int) -> bool:
        """Both ends agreed that they do it."""
        return (DO, option) in self._on

    def answer(self, told: Told) -> bytes:
        """What must be said to DO, DONT, WILL or WONT; often nothing."""
        verb, option, _ = told
        key = (_AGREE[verb], option)
        asked, on = key in self._asked, key in self._on
        self._asked.discard(key)
        if verb in (DO, WILL):
            if option not in self._wanted[verb]:
                return command(Told(_REFUSE[verb], option))
            self._on.add(key)
            return b"" if asked or on else command(Told(_AGREE[verb], option))
        self._on.discard(key)
        return command(Told(_REFUSE[verb], option)) if on else b""
