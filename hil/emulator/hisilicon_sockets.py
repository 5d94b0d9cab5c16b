"""UDP sockets of the HiSilicon dialect: NSOCR, NSOST, NSOSTF, NSORF, NSONMI, NSOCL.

Sources: Quectel BC95 AT manual V1.9, ch. 5; captures named in the comments.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from .engine import AtError, BadParameter, Call, at, parse_hex
from .hisilicon_base import HisiliconBase
from .network import Address, Endpoint


@dataclass
class Datagram:
    """A received datagram, as far as it has not been read."""

    address: Address
    data: bytes


@dataclass
class Socket:
    """One socket of the AT user."""

    id: int
    port: int
    receives: bool
    endpoint: Endpoint | None
    queue: list[Datagram] = field(default_factory=list)
    announced: bool = False
    in_flight: set[int] = field(default_factory=set)
    """Sequence numbers whose NSOSTR is still to come."""

    @property
    def buffered(self) -> int:
        return sum(len(datagram.data) for datagram in self.queue)


class HisiliconSockets(HisiliconBase):
    """The socket commands, as on V100."""

    MAX_DATA: ClassVar[int] = 512
    MAX_SOCKETS: ClassVar[int] = 7
    FIRST_SOCKET: ClassVar[int] = 0
    RX_BUFFER: ClassVar[int] = 2048  # own choice, bytes a socket
    BAD_SOCKET: ClassVar[int] = 4  # own choice between 4 and 530 (SDK table: 530 is V150)
    SEQUENCES: ClassVar[bool] = False
    FLAGS: ClassVar[tuple[int, ...]] = (0, 0x100, 0x200, 0x400)

    def setup(self) -> None:
        self.sockets: dict[int, Socket] = {}
        super().setup()

    def lose_state(self) -> None:
        for sock in list(self.sockets.values()):
            self.close_socket(sock)

    def _socket(self, call: Call, index: int = 0) -> Socket:
        sock = self.sockets.get(call.number(index, 0, 255))
        if sock is None:
            raise AtError(self.BAD_SOCKET)
        return sock

    @at("+NSOCR=")
    def nsocr(self, call: Call) -> None:
        call.count(3, 6)
        kind, protocol = call.word(0).upper(), call.number(1, 0, 255)
        if (kind, protocol) not in (("DGRAM", 17), ("STREAM", 6), ("RAW", 6)):
            raise BadParameter
        port = call.number(2, 0, 65535)
        receives = bool(call.number(3, 0, 1, default=1))
        if call.string(4, default="AF_INET").upper() not in ("AF_INET", "AF_INET6", ""):
            raise BadParameter
        if port == 5683:  # FAQ 2.7
            raise BadParameter
        if port and any(sock.port == port for sock in self.sockets.values()):
            raise BadParameter  # capture bc95g-bestiot-bringup: ERROR
        sock = self.open_socket(kind, port, receives)
        self.line(str(sock.id))

    def open_socket(self, kind: str, port: int, receives: bool) -> Socket:
        """Take the lowest free id; V100 takes STREAM and RAW without supporting them."""
        first = self.FIRST_SOCKET
        if self.options.first_socket is not None:
            first = self.options.first_socket
        free = [n for n in range(first, self.MAX_SOCKETS) if n not in self.sockets]
        if not free:
            raise AtError(4)
        used = {sock.port for sock in self.sockets.values()}
        port = port or next(n for n in range(49152, 65536) if n not in used)
        sock = Socket(free[0], port, receives, None)
        if kind == "DGRAM":
            sock.endpoint = self.network.open(lambda data, peer: self._heard(sock, data, peer))
        self.sockets[sock.id] = sock
        return sock

    @at("+NSOCL=")
    def nsocl(self, call: Call) -> None:
        call.count(1, 1)
        self.close_socket(self._socket(call))

    def close_socket(self, sock: Socket) -> None:
        """Close; pending data and URCs are gone."""
        self.sockets.pop(sock.id, None)
        if sock.endpoint is not None:
            sock.endpoint.close()

    def open_sockets(self) -> list[int]:
        return sorted(self.sockets)

    def lose_socket(self, ident: int) -> None:
        self.close_socket(self.sockets[ident])

    @at("+NSOST=")
    def nsost(self, call: Call) -> None:
        call.count(5, 6 if self.SEQUENCES else 5)
        self._send_datagram(call, 3, 0)

    @at("+NSOSTF=")
    def nsostf(self, call: Call) -> None:
        call.count(6, 7 if self.SEQUENCES else 6)
        self._send_datagram(call, 4, self._flags(call))

    def _flags(self, call: Call) -> int:
        """Flags are hex with 0x (capture bc95g-lupyuen-nsostf-release)."""
        text = call.word(3).lower()
        try:
            flags = int(text, 16)
        except ValueError:
            raise BadParameter from None
        if flags not in self.FLAGS or (flags and not text.startswith("0x")):
            raise BadParameter
        return flags

    def _send_datagram(self, call: Call, index: int, flags: int) -> None:
        sock = self._socket(call)
        address = self.address(call, 1)
        port = call.number(2, 1, 65535)
        length = call.number(index, 1, self.MAX_DATA)
        data = parse_hex(call.word(index + 1))  # quoted hex is refused: mbed-os#14918
        if len(data) != length:
            raise BadParameter
        sequence = call.number(index + 2, 1, 255, default=0)
        if not self.radio.attached or sock.endpoint is None:
            raise AtError(30)
        if sequence in sock.in_flight:
            raise AtError(525)
        self._queue(sock, (address, port), data, sequence, flags)
        self.line(f"{sock.id},{length}")

    def _queue(self, sock: Socket, peer: Address, data: bytes, sequence: int, flags: int) -> None:
        endpoint = sock.endpoint

        def transmit() -> None:
            if endpoint is not None:
                self.uplink(data, peer, lambda: endpoint.send(data, peer))

        def done(sent: bool) -> None:
            sock.in_flight.discard(sequence)
            if sequence and self.sockets.get(sock.id) is sock:
                self.urc(f"+NSOSTR:{sock.id},{sequence},{int(sent)}")

        release = {0x200: "now", 0x400: "reply"}.get(flags, "")
        if not self.radio.send(transmit, done, release):
            raise AtError(159)
        if sequence:
            sock.in_flight.add(sequence)

    def _heard(self, sock: Socket, data: bytes, peer: Address) -> None:
        """A datagram for the socket reached the network."""
        if self.sockets.get(sock.id) is sock:
            self.downlink(data, peer, lambda: self._arrived(sock, Datagram(peer, data)))

    def _arrived(self, sock: Socket, datagram: Datagram) -> None:
        if self.sockets.get(sock.id) is not sock or not sock.receives or not datagram.data:
            return
        if self.deliver_directly(sock, datagram):
            self.record("received", datagram.address, datagram.data)
            return
        size = len(datagram.data)
        if size > self.MAX_DATA or sock.buffered + size > self.RX_BUFFER:
            return  # the newest is dropped: BC95 AT manual V1.9, 5.7
        self.record("received", datagram.address, datagram.data)
        sock.queue.append(datagram)
        self.announce(sock)

    def deliver_directly(self, sock: Socket, datagram: Datagram) -> bool:
        """Print a datagram at once instead of keeping it (NSONMI modes 2 and 3)."""
        return False

    def announce(self, sock: Socket) -> None:
        """One NSONMI for the first datagram, no more until it is read."""
        if sock.queue and not sock.announced and self.nsonmi == 1:
            sock.announced = True
            self.urc(f"+NSONMI:{sock.id},{len(sock.queue[0].data)}")

    @at("+NSORF=")
    def nsorf(self, call: Call) -> None:
        call.count(2, 2)
        sock = self._socket(call)
        limit = call.number(1, 1, 65535)
        if not sock.queue:
            return  # bare OK: capture bc95g-bestiot-nsorf-empty
        first = sock.queue[0]
        data, first.data = first.data[:limit], first.data[limit:]
        if not first.data:
            sock.queue.pop(0)
            sock.announced = False
            self.announce(sock)
        ip, port = first.address
        hexa = data.hex().upper()
        self.line(f"{sock.id},{ip},{port},{len(data)},{hexa},{len(first.data)}")
