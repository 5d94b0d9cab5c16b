"""Links over TCP. ``socket://HOST:PORT`` is bare bytes, as ser2net serves by ``accepter: tcp``."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
from typing import NamedTuple, cast
from urllib.parse import parse_qsl, urlsplit

from nbiot.errors import BadInput, PortError, PortLost, PortMissing, Unsupported
from nbiot.link import BUFFER_LIMIT, Link, Receiver, check_baudrate
from nbiot.link.telnet import BINARY, COM_PORT, DO, ECHO, IAC, SUPPRESS_GO_AHEAD, WILL

CONNECT_LIMIT = 5.0  # s for the name, and for each address
IDLE_BEFORE_PROBE, PROBE_INTERVAL, PROBES = 10, 5, 3  # s, s: the kernel asks; nothing wakes up
UNHEARD_LIMIT = 30_000  # ms that a peer may leave sent bytes unconfirmed or untaken
SEND_BUFFER = 16 * 1024  # bytes in the kernel, which doubles it; an AT command has at most 2000
_GREETINGS = tuple(  # how telnet begins
    bytes([IAC, verb, option])
    for verb in (WILL, DO)
    for option in (BINARY, ECHO, SUPPRESS_GO_AHEAD, COM_PORT)
)
_SERVER = "Is that machine up, ser2net running on it, and the modem plugged in there?"


class Target(NamedTuple):
    """A URL taken apart."""

    url: str
    host: str
    port: int
    options: dict[str, str]

    @property
    def place(self) -> str:
        """HOST:PORT, for messages."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_target(scheme: str, rest: str, options: tuple[str, ...] = ()) -> Target:
    """Take ``//HOST:PORT?option&option=value`` apart. Raises BadInput."""
    url = f"{scheme}:{rest}"
    allowed = f"{scheme}://HOST:PORT"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise BadInput("port", url, allowed) from None
    if not host or not port or parts.path not in ("", "/") or "@" in parts.netloc:
        raise BadInput("port", url, allowed)
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    for name in given:
        if name not in options:
            raise BadInput("port", name, f"options {', '.join(options)}")
    return Target(url, host, port, given)


async def open_socket(rest: str, /, *, baudrate: int) -> Link:
    """The opener of ``socket:``. The far end decides about the baud rate."""
    target = parse_target("socket", rest, ("logging",))
    link = SocketLink(target.url)
    await connect(target, link)
    return link


# --- connecting -------------------------------------------------------------------------------


async def connect(target: Target, link: TcpLink) -> None:
    """Connect ``link``. Raises PortMissing, PortError."""
    loop = asyncio.get_running_loop()
    connection = await _connected(target)
    try:
        await loop.create_connection(lambda: link, sock=connection)
    except BaseException:
        connection.close()
        raise


async def _connected(target: Target) -> socket.socket:
    loop = asyncio.get_running_loop()
    failure: Exception
    try:
        async with asyncio.timeout(CONNECT_LIMIT):
            places = await loop.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:  # the latter: a label of more than 63 letters
        raise _no_address(target, error) from error
    for family, kind, protocol, _, address in places:
        connection = socket.socket(family, kind, protocol)
        try:
            _set_options(connection)
            async with asyncio.timeout(CONNECT_LIMIT):
                await loop.sock_connect(connection, address)
        except OSError as error:  # TimeoutError is one
            connection.close()
            failure = error
        except BaseException:
            connection.close()
            raise
        else:
            return connection
    raise _not_connected(target, failure) from failure


def _set_options(connection: socket.socket) -> None:
    connection.setblocking(False)
    tcp = socket.IPPROTO_TCP
    for level, option, value in (
        (socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (tcp, socket.TCP_KEEPIDLE, IDLE_BEFORE_PROBE),
        (tcp, socket.TCP_KEEPINTVL, PROBE_INTERVAL),
        (tcp, socket.TCP_KEEPCNT, PROBES),
        (tcp, socket.TCP_USER_TIMEOUT, UNHEARD_LIMIT),
        (tcp, socket.TCP_NODELAY, 1),
    ):
        connection.setsockopt(level, option, value)


def _no_address(target: Target, error: Exception) -> PortError:
    if isinstance(error, TimeoutError):
        return PortError(
            f"no answer from DNS about {target.host} within {CONNECT_LIMIT:g} s",
            hint="Is this machine on the network? The IP address can be given instead.",
        )
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return PortMissing(
        f"this host finds no address of {target.host} ({reason})",
        hint="Is the name right? The IP address can be given instead.",
    )


def _not_connected(target: Target, error: Exception) -> PortError:
    code = getattr(error, "errno", None)
    if code == errno.ECONNREFUSED:
        return PortMissing(
            f"nothing listens at {target.place}",
            hint=f"Is ser2net running on {target.host}, and {target.port} the port that it serves"
            " there? To see, type on that machine: ss -ltn",
        )
    if isinstance(error, TimeoutError) or code == errno.ETIMEDOUT:
        reason = f"no answer within {CONNECT_LIMIT:g} s"
    else:
        reason = os.strerror(code) if code else str(error)
    return PortError(
        f"{target.place} cannot be reached: {reason}",
        hint=f"Is that machine up, and no firewall between? Try: ping {target.host}",
    )


# --- connected --------------------------------------------------------------------------------


class TcpLink(asyncio.Protocol):
    """What the links over TCP have in common; ``_heard`` and ``_encode`` are theirs."""

    def __init__(self, name: str, *, limit: int = BUFFER_LIMIT) -> None:
        self.name = name
        self._limit = limit
        self._transport: asyncio.Transport
        self._receiver: Receiver | None = None
        self._started = False
        self._closed = False
        self._early: list[bytes] = []  # what came before start()
        self._lost: tuple[str, str] | None = None  # reason and hint
        self._gone = asyncio.Event()

    @property
    def baudrate(self) -> int:
        """bit/s; 0: the far end's business."""
        return 0

    def start(self, receiver: Receiver) -> None:
        """See :class:`nbiot.link.Link`."""
        if self._started or self._closed:
            raise PortError(f"{self.name} was started or closed before", hint="Open it again.")
        self._started = True
        self._receiver = receiver
        if self._early or self._gone.is_set():
            asyncio.get_running_loop().call_soon(self._hand_over)

    def write(self, data: bytes) -> None:
        """See :class:`nbiot.link.Link`."""
        self._check_usable()
        if not self._started:
            raise PortError(f"{self.name} is not started", hint="Call start() first.")
        if self._transport.get_write_buffer_size() + len(data) > self._limit:
            raise PortError(
                f"{self.name} takes no bytes: more than {self._limit} would wait",
                hint="Is the modem at the far end powered, and nothing holding the line?",
            )
        if data:
            self._transport.write(self._encode(bytes(data)))

    async def set_baudrate(self, baudrate: int) -> None:
        """See :class:`nbiot.link.Link`."""
        check_baudrate(baudrate)
        self._check_usable()
        raise Unsupported(
            f"{self.name} has no baud rate: the far end decides it",
            hint="Let the far end serve RFC 2217 (ser2net: telnet(rfc2217),tcp), and use"
            " rfc2217://HOST:PORT.",
        )

    async def set_lines(self, *, dtr: bool | None = None, rts: bool | None = None) -> None:
        """See :class:`nbiot.link.Link`."""
        self._check_usable()
        if dtr is not None or rts is not None:
            raise Unsupported(
                f"{self.name} has no modem lines (DTR, RTS)", hint="rfc2217://HOST:PORT has them."
            )

    async def close(self) -> None:
        """See :class:`nbiot.link.Link`."""
        self._receiver = None
        if not self._closed:
            self._closed = True
            self._early.clear()
            if self._transport.get_write_buffer_size():
                self._reset_at_close()
            self._transport.abort()
        await self._gone.wait()

    def _reset_at_close(self) -> None:
        """Or the server would hold the port for bytes that nobody takes."""
        connection: socket.socket = self._transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _check_usable(self) -> None:
        if self._lost is None and not self._closed and self._transport.is_closing():
            self._lost = ("the connection broke", _SERVER)  # connection_lost comes next turn
        if self._lost is not None:
            raise self._loss()
        if self._closed:
            raise PortError(f"{self.name} is closed", hint="Open it again.")

    def _loss(self) -> PortLost:
        assert self._lost is not None
        reason, hint = self._lost
        return PortLost(f"{self.name} went away: {reason}", hint=hint)

    # --- for links over this

    def _encode(self, data: bytes) -> bytes:
        return data

    def _heard(self, data: bytes) -> None:
        raise NotImplementedError

    def _deliver(self, data: bytes) -> None:
        """Hand ``data`` to the receiver, or keep it until there is one."""
        if self._receiver is not None and not self._early:
            self._receiver.received(data)
        elif not self._closed:
            self._early.append(data)
            if sum(map(len, self._early)) > self._limit:
                self._transport.pause_reading()

    def _lose(self, reason: str, hint: str = _SERVER) -> None:
        if self._lost is None and not self._closed:
            self._lost = (reason, hint)
        self._transport.abort()

    def _hand_over(self) -> None:
        """The receiver gets what came early and then, where it is so, the loss."""
        while self._receiver is not None and self._early:
            self._receiver.received(self._early.pop(0))
        if self._receiver is not None and self._gone.is_set():
            receiver, self._receiver = self._receiver, None
            receiver.lost(self._loss())
        if self._receiver is not None:
            self._transport.resume_reading()

    # --- from the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self._lost is None and not self._closed:
            self._heard(data)

    def eof_received(self) -> None:
        self._lose("the far end closed the connection")

    def connection_lost(self, exc: Exception | None) -> None:
        if self._lost is None and not self._closed:
            reason = getattr(exc, "strerror", None) or "the connection broke"
            self._lost = (reason, _SERVER)
        self._gone.set()
        self._hand_over()


class SocketLink(TcpLink):
    """Bare bytes over TCP. Made by :func:`open_socket`."""

    _fresh = True

    def _heard(self, data: bytes) -> None:
        if self._fresh:
            self._fresh = False
            if data.startswith(_GREETINGS):
                host_port = self.name.partition("//")[2]
                self._lose(
                    "the far end speaks telnet, this is an RFC 2217 port",
                    f"Use rfc2217://{host_port}",
                )
                return
        self._deliver(data)
