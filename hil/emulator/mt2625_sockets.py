"""UDP sockets, DNS and ping of the BC66 family: QIOPEN, QISEND, QIRD, QICLOSE and the rest.

Sources: facts 0.1 and 1.3 (drivers, the Xinyi firmware with the same commands, application
notes of sister families); no capture of a genuine BC66 socket is public.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from .engine import CTRL_Z, ESC, AtError, BadParameter, Call, Result, at, parse_hex
from .mt2625_base import Mt2625Base
from .network import Address, Endpoint, is_ipv4
from .seam import Kind

PROMPT = b"\r\n>"
MAX_SEND = 1024
MAX_READ = 1024
RX_BUFFER = 8 * 1024
"""Bytes that wait in one socket for QIRD; own choice, no source has the real number."""
SOCKETS = 5

IP_ERRORS: dict[int, str] = {
    0: "operate successfully",
    550: "unknown error",
    551: "operation blocked",
    552: "invalid parameters",
    553: "memory not enough",
    554: "create socket failed",
    555: "operation not supported",
    556: "socket bind failed",
    557: "socket listen failed",
    558: "socket write failed",
    559: "socket read failed",
    560: "socket accept failed",
    561: "open PDP context failed",
    562: "close PDP context failed",
    563: "socket identity has been used",
    564: "DNS busy",
    565: "DNS parse failed",
    566: "socket connect failed",
    567: "socket has been closed",
    568: "operation busy",
    569: "operation timeout",
    570: "PDP context broken down",
    571: "cancel send",
    572: "operation not allowed",
    573: "APN not configured",
    574: "port busy",
}


@dataclass
class Socket:
    """One connect id of QIOPEN."""

    id: int
    peer: Address
    port: int
    push: bool
    endpoint: Endpoint | None = None
    state: int = 1
    """0 init, 1 connecting, 2 connected, 3 closing."""
    queue: list[bytes] = field(default_factory=list)
    announced: bool = False
    sent: int = 0


class Mt2625Sockets(Mt2625Base):
    """The socket commands."""

    def setup(self) -> None:
        self.sockets: dict[int, Socket] = {}
        super().setup()

    def reset_volatile(self) -> None:
        super().reset_volatile()
        self.ip_error = 0
        self.echo_data = self.show_length = self.view_mode = 0
        self.hex_send = self.hex_receive = 0

    def lose_state(self) -> None:
        for sock in list(self.sockets.values()):
            self._drop(sock)

    def on_stat(self) -> None:
        super().on_stat()
        if self.radio.stat == 0:
            self._service_lost()

    def _service_lost(self) -> None:
        for ident in self.open_sockets():
            self.lose_socket(ident)

    def open_sockets(self) -> list[int]:
        return sorted(sock.id for sock in self.sockets.values() if sock.state == 2)

    def lose_socket(self, ident: int) -> None:
        self.sockets[ident].state = 4
        self.urc(f'+QIURC: "closed",{ident}')

    def id_in_use(self) -> AtError:
        return self._ip_error(563)

    def _ip_error(self, code: int) -> AtError:
        """TCP/IP commands fail with plain ERROR; QIGETERROR tells the number."""
        self.ip_error = code
        return AtError()

    @at("+QIGETERROR")
    def qigeterror(self, call: Call) -> None:
        self.line(f"+QIGETERROR: {self.ip_error},{IP_ERRORS[self.ip_error]}")

    @at("+QIOPEN=")
    def qiopen(self, call: Call) -> None:
        try:
            sock, host = self._parse_open(call)
        except BadParameter:
            raise self._ip_error(552) from None
        if sock.id in self.sockets:
            raise self._ip_error(563)
        self.sockets[sock.id] = sock
        self.ip_error = 0
        self.after_final(lambda: self._connect(sock, host))

    def _parse_open(self, call: Call) -> tuple[Socket, str]:
        call.count(5, 8)
        call.number(0, 1, 1)
        ident = call.number(1, 0, SOCKETS - 1)
        if call.quoted(2).upper() != "UDP":
            raise self._ip_error(555)
        host, port = call.quoted(3), call.number(4, 1, 65535)
        local = call.number(5, 0, 65535, default=0)
        push = bool(call.number(6, 0, 1, default=1))
        call.number(7, 0, 1, default=0)
        if not host or (local and any(s.port == local for s in self.sockets.values())):
            raise BadParameter
        return Socket(ident, (host, port), local, push), host

    def _connect(self, sock: Socket, host: str) -> None:
        if not self.radio.attached:
            self.after(0.1, lambda: self._opened(sock, 561))
        elif is_ipv4(host):
            self.after(0.0, lambda: self._open(sock, host))
        else:
            self.radio.activity()
            delay = self.network.dns_delay
            self.after(
                delay, lambda: self.network.resolve(host, lambda found: self._open(sock, found))
            )

    def _open(self, sock: Socket, host: str | None) -> None:
        if self.sockets.get(sock.id) is not sock:
            return
        if host is None:
            self._opened(sock, 565)
            return
        sock.peer = (host, sock.peer[1])
        sock.endpoint = self.network.open(lambda data, peer: self._heard(sock, data, peer))
        self._opened(sock, 0)

    def _opened(self, sock: Socket, error: int) -> None:
        if self.sockets.get(sock.id) is not sock:
            return
        sock.state = 0 if error else 2
        self.ip_error = error
        self.urc(f"+QIOPEN: {sock.id},{error}")

    @at("+QICLOSE=")
    def qiclose(self, call: Call) -> None:
        ident = call.number(0, 0, SOCKETS - 1)
        sock = self.sockets.get(ident)
        if sock is not None:
            self._drop(sock)
        self.after_final(lambda: self.line("CLOSE OK", Kind.TRAILER))

    def _drop(self, sock: Socket) -> None:
        self.sockets.pop(sock.id, None)
        if sock.endpoint is not None:
            sock.endpoint.close()

    @at("+QISTATE=")
    def qistate(self, call: Call) -> None:
        kind = call.number(0, 0, 1)
        wanted = call.number(1, 0, 15)
        socks = [s for s in self.sockets.values() if kind == 0 or s.id == wanted]
        self.lines([self._state_line(sock) for sock in sorted(socks, key=lambda s: s.id)])

    @at("+QISTATE?", "+QISTATE")
    def qistate_all(self, call: Call) -> None:
        self.lines([self._state_line(s) for s in sorted(self.sockets.values(), key=_by_id)])

    def _state_line(self, sock: Socket) -> str:
        host, port = sock.peer
        tail = f"{port},{sock.port},{sock.state},1,{int(sock.push)}"
        return f'+QISTATE: {sock.id},"UDP","{host}",{tail}'

    def _socket(self, call: Call) -> Socket:
        try:
            ident = call.number(0, 0, SOCKETS - 1)
        except BadParameter:
            raise self._ip_error(552) from None
        sock = self.sockets.get(ident)
        if sock is None or sock.state != 2:
            raise self._ip_error(567)
        return sock

    @at("+QISEND=")
    def qisend(self, call: Call) -> Result | None:
        sock = self._socket(call)
        if len(call) == 1:
            return self.ask_data(PROMPT, Typed(self, lambda data: self._typed(sock, data)))
        try:
            length = call.number(1, 0, MAX_SEND)
        except BadParameter:
            raise self._ip_error(552) from None
        inline = call.text.split(",", 2)[2:]
        if inline:
            self._send(sock, length, inline[0].strip(" "))
        elif length == 0:
            self.line(f"+QISEND: {sock.sent},{sock.sent},0")
        else:
            wanted = length * 2 if self.hex_send else length
            return self.ask_data(PROMPT, Fixed(self, wanted, lambda d: self._typed(sock, d)))
        return None

    def _send(self, sock: Socket, length: int, text: str) -> None:
        """Inline data: exactly `length` characters, or twice as many hex digits."""
        wanted = length * 2 if self.hex_send else length
        if len(text) == wanted + 2 and text[0] == text[-1] == '"':
            text = text[1:-1]
        if len(text) != wanted:
            raise self._ip_error(552)
        self._transmit(sock, self._decoded(text.encode("latin-1")))

    def _decoded(self, data: bytes) -> bytes:
        if not self.hex_send:
            return data
        try:
            return parse_hex(data.decode("latin-1"))
        except BadParameter:
            raise self._ip_error(552) from None

    def _typed(self, sock: Socket, data: bytes | None) -> None:
        """Data came after the prompt; None: cancelled."""
        if data is None:
            self.finish()
            return
        try:
            self._transmit(sock, self._decoded(data))
        except AtError as error:
            self.finish(error)
        else:
            self.finish()

    @at("+QISENDEX=")
    def qisendex(self, call: Call) -> None:
        sock = self._socket(call)
        try:
            call.count(3, 4)
            length = call.number(1, 1, MAX_SEND)
            data = parse_hex(call.string(2))  # quoted or not (facts 1.3)
            if len(data) != length:
                raise BadParameter
        except BadParameter:
            raise self._ip_error(552) from None
        self._transmit(sock, data)

    def _transmit(self, sock: Socket, data: bytes) -> None:
        if not 1 <= len(data) <= MAX_SEND:
            raise self._ip_error(552)
        endpoint, peer = sock.endpoint, sock.peer
        if not self.radio.attached or endpoint is None:
            raise self._ip_error(570)

        def transmit() -> None:
            self.uplink(data, peer, lambda: endpoint.send(data, peer))

        taken = self.radio.send(transmit, lambda sent: None)
        sock.sent += len(data) if taken else 0
        answer = "SEND OK" if taken else "SEND FAIL"
        self.after(self.SEND_OK_TIME, lambda: self.urc(answer, kind=Kind.TRAILER))

    # --------------------------------------------------------------- receive

    def _heard(self, sock: Socket, data: bytes, peer: Address) -> None:
        if self.sockets.get(sock.id) is sock and peer == sock.peer:
            self.downlink(data, peer, lambda: self._arrived(sock, data))

    def _arrived(self, sock: Socket, data: bytes) -> None:
        if self.sockets.get(sock.id) is not sock or not data:
            return
        if sock.push:
            self.record("received", sock.peer, data)
            separator = b"," if self.view_mode else b"\r\n"
            head = f'+QIURC: "recv",{sock.id},{len(data)}'.encode()
            self.urc(head + separator + self._shown(data))
            return
        if sum(map(len, sock.queue)) + len(data) > RX_BUFFER:
            return  # own choice: the newest is dropped, as by a BC95
        self.record("received", sock.peer, data)
        sock.queue.append(data)
        self._announce(sock)

    def _shown(self, data: bytes) -> bytes:
        return data.hex().upper().encode() if self.hex_receive else data

    def _announce(self, sock: Socket) -> None:
        """One URC until the buffer was read empty."""
        if sock.queue and not sock.announced:
            sock.announced = True
            length = f",{len(sock.queue[0])}" if self.show_length else ""
            self.urc(f'+QIURC: "recv",{sock.id}{length}')

    @at("+QIRD=")
    def qird(self, call: Call) -> None:
        sock = self._socket(call)
        limit = call.number(1, 1, MAX_READ, default=MAX_READ)
        if not sock.queue:
            self.line("+QIRD: 0")
            return
        data, rest = sock.queue[0][:limit], sock.queue[0][limit:]
        sock.queue[0:1] = [rest] if rest else []
        if not sock.queue:
            sock.announced = False
        left = f",{sum(map(len, sock.queue))}" if self.show_length else ""
        separator = b"," if self.view_mode else b"\r\n"
        self.line(f"+QIRD: {len(data)}{left}".encode() + separator + self._shown(data))

    @at("+QICFG=")
    def qicfg(self, call: Call) -> None:
        name = call.quoted(0).lower()
        if name == "dataformat":
            self._dataformat(call)
            return
        attribute = {
            "echomode": "echo_data",
            "showlength": "show_length",
            "viewmode": "view_mode",
        }.get(name)
        if attribute is None:
            raise AtError()
        if len(call) == 1:
            self.line(f'+QICFG: "{name}",{getattr(self, attribute)}')
        else:
            setattr(self, attribute, call.number(1, 0, 1))

    def _dataformat(self, call: Call) -> None:
        if len(call) == 1:
            self.line(f'+QICFG: "dataformat",{self.hex_send},{self.hex_receive}')
            return
        send = call.number(1, 0, 1)
        self.hex_receive = call.number(2, 0, 1, default=self.hex_receive)
        self.hex_send = send

    # ------------------------------------------------------------ DNS, ping

    @at("+QIDNSCFG=")
    def qidnscfg(self, call: Call) -> None:
        call.number(0, 1, 1)
        if len(call) == 1:
            servers = ",".join(f'"{server}"' for server in self.network.dns_servers)
            self.line(f"+QIDNSCFG: 1,{servers}")
        elif not all(is_ipv4(call.quoted(index)) for index in range(1, len(call))):
            raise self._ip_error(552)

    @at("+QIDNSGIP=")
    def qidnsgip(self, call: Call) -> None:
        call.count(2, 2)
        call.number(0, 1, 1)
        name = call.quoted(1)
        if not self.radio.attached:
            raise self._ip_error(561)
        self.after_final(self.radio.activity)
        delay = self.network.dns_delay
        self.after(delay, lambda: self.network.resolve(name, self._resolved))

    def _resolved(self, address: str | None) -> None:
        if address is None:
            self.ip_error = 565
            self.urc('+QIURC: "dnsgip",565')
            return
        self.urc('+QIURC: "dnsgip",0,1,600')
        self.urc(f'+QIURC: "dnsgip","{address}"')

    @at("+QPING=")
    def qping(self, call: Call) -> None:
        call.count(2, 5)
        call.number(0, 1, 1)
        host = call.string(1)
        timeout = call.number(2, 1, 255, default=4)
        count = call.number(3, 1, 10, default=4)
        size = call.number(4, 32, 200, default=32)
        if not self.radio.attached:
            raise self._ip_error(561)
        self.after_final(self.radio.activity)
        self.network.resolve(host, lambda found: self._ping(found, timeout, count, size))

    def _ping(self, address: str | None, timeout: int, count: int, size: int) -> None:
        if address is None:
            self.after(0.1, lambda: self.urc("+QPING: 565"))
            return
        milliseconds = self.network.ping.get(address, self.network.ping_ms)
        if milliseconds is None or milliseconds > timeout * 1000:
            self.after(timeout, lambda: self.urc("+QPING: 569"))
            return
        ms, ttl = milliseconds, self.network.ping_ttl
        one = f'+QPING: 0,"{address}",{size},{ms},{ttl}'
        for number in range(1, count + 1):
            self.after(number * ms / 1000, lambda: self.urc(one))
        last = f"+QPING: 0,{count},{count},0,{ms},{ms},{ms}"
        self.after(count * ms / 1000 + 0.01, lambda: self.urc(last))


def _by_id(sock: Socket) -> int:
    return sock.id


class Fixed:
    """After a prompt: exactly so many bytes."""

    def __init__(self, modem: Mt2625Sockets, length: int, done: Callable[[bytes], None]) -> None:
        self._modem, self._length, self._done = modem, length, done
        self._data = bytearray()

    def __call__(self, data: bytes, /) -> tuple[int, bool]:
        piece = data[: self._length - len(self._data)]
        self._data += piece
        if self._modem.echo_data:
            self._modem.emit(piece, Kind.DATA)
        if len(self._data) < self._length:
            return len(piece), False
        self._done(bytes(self._data))
        return len(piece), True


class Typed:
    """After a prompt: bytes up to Ctrl-Z (send) or ESC (cancel, given as None)."""

    def __init__(self, modem: Mt2625Sockets, done: Callable[[bytes | None], None]) -> None:
        self._modem, self._done = modem, done
        self._data = bytearray()

    def __call__(self, data: bytes, /) -> tuple[int, bool]:
        ends = [place for place in (data.find(CTRL_Z), data.find(ESC)) if place >= 0]
        piece = data[: min(ends)] if ends else data
        self._data += piece
        if self._modem.echo_data:
            self._modem.emit(piece, Kind.DATA)
        if not ends:
            return len(piece), False
        self._done(bytes(self._data) if data[min(ends)] == CTRL_Z else None)
        return len(piece) + 1, True
