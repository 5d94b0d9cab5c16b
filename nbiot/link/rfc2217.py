"""``rfc2217://HOST:PORT``: a serial port of another machine, with its baud rate and its lines.

RFC 2217, section 3. Options as in pyserial's URLs: ``ign_set_control`` (servers that do not confirm
DTR and RTS, such as ser2net on a pty, are believed), ``timeout=SECONDS`` (for each answer of the
server); ``poll_modem`` and ``logging=LEVEL`` are taken and change nothing.
"""

from __future__ import annotations

import asyncio
import struct
from collections import Counter
from contextlib import suppress

from nbiot.errors import BadInput, PortBusy, PortError, Unsupported
from nbiot.link import Link, check_baudrate
from nbiot.link.tcp import Target, TcpLink, connect, parse_target
from nbiot.link.telnet import (
    BINARY,
    COM_PORT,
    DONT,
    SB,
    SUPPRESS_GO_AHEAD,
    Decoder,
    Negotiator,
    TelnetError,
    Told,
    command,
    escape,
)

SIGNATURE, SET_BAUDRATE, SET_DATASIZE, SET_PARITY, SET_STOPSIZE, SET_CONTROL = range(6)
NOTIFY_MODEMSTATE = 7
PURGE_DATA = 12
SERVER = 100  # added to the number of a command in what the server says
NO_FLOW_CONTROL = 1
DTR_ON, DTR_OFF, RTS_ON, RTS_OFF = 8, 9, 11, 12
PURGE_BOTH = 3
_NAMES = {
    SET_BAUDRATE: "baud rate",
    SET_DATASIZE: "data bits",
    SET_PARITY: "parity",
    SET_STOPSIZE: "stop bits",
    SET_CONTROL: "control line",
    PURGE_DATA: "purge",
}
_OPTIONS = ("ign_set_control", "poll_modem", "timeout", "logging")
_ANSWER_LIMIT = 3.0  # s
_CONTROL_LIMIT = 0.5  # s: a server that confirms these does so at once
_BUSY_TRIES, _BUSY_PAUSE = 5, 0.1  # a server may need a moment to see that the last user left


async def open_rfc2217(rest: str, /, *, baudrate: int) -> Link:
    """The opener of ``rfc2217:``: 8N1, no flow control, what waited at the server is dropped."""
    target = parse_target("rfc2217", rest, _OPTIONS)
    limit = _seconds(target.options.get("timeout"))
    for tries_left in reversed(range(_BUSY_TRIES)):
        link = Rfc2217Link(target, limit)
        await connect(target, link)
        try:
            await link.set_up(baudrate)
        except PortBusy:
            await link.close()
            if not tries_left:
                raise
            await asyncio.sleep(_BUSY_PAUSE)
        except BaseException:
            await link.close()
            raise
        else:
            return link
    raise AssertionError


def _seconds(text: str | None) -> float:
    if text is None:
        return _ANSWER_LIMIT
    with suppress(ValueError):
        if 0 < float(text) <= 60:
            return float(text)
    raise BadInput("port", f"timeout={text}", "timeout=SECONDS, up to 60")


class Rfc2217Link(TcpLink):
    """A serial port behind RFC 2217. Made by :func:`open_rfc2217`."""

    def __init__(self, target: Target, limit: float = _ANSWER_LIMIT) -> None:
        super().__init__(target.url)
        self.modem_state: int | None = None
        """The server's last NOTIFY-MODEMSTATE (RFC 2217, section 3), None before the first."""
        self._place = target.place
        self._believes = "ign_set_control" in target.options
        self._answer_limit = limit
        self._baudrate = 0
        self._decoder = Decoder()
        self._negotiator = Negotiator(
            us=frozenset({BINARY, SUPPRESS_GO_AHEAD, COM_PORT}),
            them=frozenset({BINARY, SUPPRESS_GO_AHEAD, COM_PORT}),
        )
        self._agreed: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._answers: dict[int, tuple[bytes, asyncio.Future[bytes]]] = {}
        self._owed: Counter[int] = Counter()  # confirmations that nobody waits for any more
        self._asking = asyncio.Lock()
        self._words: bytearray | None = bytearray()  # what the server says while being set up

    @property
    def baudrate(self) -> int:
        """bit/s, as the server last confirmed it."""
        return self._baudrate

    async def set_up(self, baudrate: int) -> None:
        """Agree upon RFC 2217, set the port to 8N1 at ``baudrate`` and drop what waited there.

        Raises PortError, PortBusy.
        """
        try:
            await self._agree()
            async with self._asking:
                self._say(SET_CONTROL, bytes([NO_FLOW_CONTROL]))
                self._owed[SET_CONTROL] += 1  # not every server confirms it
                await asyncio.gather(
                    self._set_baudrate(baudrate),
                    self._set(SET_DATASIZE, 8),
                    self._set(SET_PARITY, 1),
                    self._set(SET_STOPSIZE, 1),
                )
                with suppress(TimeoutError):
                    await self._ask(PURGE_DATA, bytes([PURGE_BOTH]), _CONTROL_LIMIT)
            self._check_usable()
        except PortError:
            words = bytes(self._words or b"").decode("ascii", "replace").strip()
            if not words or not self._gone.is_set():
                raise
            if "in use" in words or "busy" in words:
                raise PortBusy(
                    f"{self._place} has another user: the server says {words!r}",
                    hint="Stop the other user first. ser2net can let a new one in by the option"
                    " kickolduser: true.",
                ) from None
            raise PortError(f"{self._place} turns us away: the server says {words!r}") from None
        self._words = None

    async def _agree(self) -> None:
        self._transport.write(self._negotiator.begin())
        try:
            async with asyncio.timeout(self._answer_limit):
                spoken = await self._agreed
        except TimeoutError:
            spoken = False
        self._check_usable()
        if not spoken:
            raise PortError(
                f"{self._place} does not speak RFC 2217",
                hint=f"Use socket://{self._place} for bare bytes, or let the far end serve RFC 2217"
                " (ser2net: accepter: telnet(rfc2217),tcp,PORT).",
            )

    async def set_baudrate(self, baudrate: int) -> None:
        """See :class:`nbiot.link.Link`."""
        check_baudrate(baudrate)
        self._check_usable()
        async with self._asking:
            await self._set_baudrate(baudrate)

    async def set_lines(self, *, dtr: bool | None = None, rts: bool | None = None) -> None:
        """See :class:`nbiot.link.Link`. Unsupported where the server does not confirm."""
        self._check_usable()
        for on, values in ((dtr, (DTR_OFF, DTR_ON)), (rts, (RTS_OFF, RTS_ON))):
            if on is not None:
                async with self._asking:
                    await self._set_line(values[on])

    async def _set_line(self, value: int) -> None:
        if self._believes:
            self._say(SET_CONTROL, bytes([value]))
            return
        try:
            answer = await self._ask(SET_CONTROL, bytes([value]), _CONTROL_LIMIT)
        except TimeoutError:
            raise Unsupported(
                f"{self.name}: the server does not confirm DTR or RTS",
                hint="It may have none, as on a pty. To have it believed, add ?ign_set_control",
            ) from None
        if answer != bytes([value]):
            raise PortError(f"{self.name}: the server refuses to set DTR or RTS")

    async def _set_baudrate(self, baudrate: int) -> None:
        await self._set(SET_BAUDRATE, baudrate, width=4)

    async def _set(self, what: int, value: int, width: int = 1) -> None:
        try:
            answer = await self._ask(what, value.to_bytes(width), self._answer_limit)
        except TimeoutError:
            raise PortError(
                f"{self.name}: the server did not confirm the {_NAMES[what]} within"
                f" {self._answer_limit:g} s",
                hint="Open it again; if that does not help, restart the server (ser2net).",
            ) from None
        if (got := int.from_bytes(answer)) != value:
            raise PortError(
                f"{self.name}: {_NAMES[what]} {value} refused, the server keeps {got}",
                hint="Does the port of the far machine allow it?",
            )

    async def _ask(self, what: int, payload: bytes, limit: float) -> bytes:
        """Ask the server and wait for its confirmation. Raises TimeoutError, PortError."""
        self._check_usable()
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._answers[what] = payload, answer
        try:
            self._say(what, payload)
            async with asyncio.timeout(limit):
                return await answer
        finally:
            del self._answers[what]
            if answer.cancelled():
                self._owed[what] += 1

    def _say(self, what: int, payload: bytes) -> None:
        self._transport.write(command(Told(SB, COM_PORT, bytes([what]) + payload)))

    # --- what comes

    def _encode(self, data: bytes) -> bytes:
        return escape(data)

    def _heard(self, data: bytes) -> None:
        try:
            found = self._decoder.feed(data)
        except TelnetError as error:
            self._lose(str(error), "Is this an RFC 2217 port?")
            return
        for piece in found:
            if isinstance(piece, Told):
                self._obey(piece)
            elif self._words is None:
                self._deliver(piece)
            else:
                self._words += piece[: 200 - len(self._words)]

    def _obey(self, told: Told) -> None:
        if told.verb == SB:
            if told.option == COM_PORT and told.payload:
                self._told(told.payload[0] - SERVER, told.payload[1:])
            return
        if answer := self._negotiator.answer(told):
            self._transport.write(answer)
        if not self._agreed.done():
            if self._negotiator.we_do(COM_PORT) or self._negotiator.they_do(COM_PORT):
                self._agreed.set_result(True)
            elif told[:2] == (DONT, COM_PORT):
                self._agreed.set_result(False)

    def _told(self, what: int, value: bytes) -> None:
        if what == SET_BAUDRATE and len(value) == 4 and any(value):
            (self._baudrate,) = struct.unpack("!I", value)
        elif what == NOTIFY_MODEMSTATE and value:
            self.modem_state = value[0]
        elif what == SIGNATURE and not value:
            self._say(SIGNATURE, b"nbiot")
        wanted, answer = self._answers.get(what, (b"", None))
        if value != wanted and self._owed[what]:
            self._owed[what] -= 1
        elif answer is not None and not answer.done():
            answer.set_result(value)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        error = self._loss() if self._lost else PortError(f"{self.name} is closed")
        if not self._agreed.done():
            self._agreed.set_result(False)
        for _, answer in self._answers.values():
            if not answer.done():
                answer.set_exception(error)
