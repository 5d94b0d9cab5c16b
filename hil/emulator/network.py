"""What the radio network and the internet behind it decide for a software modem.

All times are in seconds and are divided by `Options.speed` like the modem's own.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import AddressValueError, IPv4Address
from typing import Literal, Protocol

Address = tuple[str, int]
Deliver = Callable[[bytes, Address], None]
Stat = Literal[1, 5, "denied", "none"]


class Endpoint(Protocol):
    """One open UDP socket on the internet side."""

    def send(self, data: bytes, address: Address) -> None: ...

    def close(self) -> None: ...


class Wire(Protocol):
    """What carries datagrams beyond the radio."""

    def open(self, deliver: Deliver) -> Endpoint: ...


class UdpWire:
    """Real UDP (IPv4). The local port is chosen by the host, as behind a carrier's NAT."""

    def open(self, deliver: Deliver) -> Endpoint:
        return _UdpEndpoint(deliver)


class _UdpEndpoint:
    def __init__(self, deliver: Deliver) -> None:
        self._deliver = deliver
        self._loop = asyncio.get_running_loop()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(("0.0.0.0", 0))
        self._loop.add_reader(self._socket.fileno(), self._readable)

    def send(self, data: bytes, address: Address) -> None:
        try:
            self._socket.sendto(data, address)
        except OSError:
            return  # lost on the way, as UDP may be

    def _readable(self) -> None:
        while True:
            try:
                data, address = self._socket.recvfrom(65536)
            except OSError:
                return  # nothing more for now, or an ICMP error of an earlier datagram
            self._deliver(data, address)
            if self._socket.fileno() < 0:
                return

    def close(self) -> None:
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()


class ScriptedWire:
    """No internet at all: peers are functions, datagrams are kept in `sent`."""

    def __init__(self) -> None:
        self.sent: list[tuple[Address, bytes]] = []
        self.endpoints: list[ScriptedEndpoint] = []
        self.peers: dict[Address, Callable[[bytes], list[bytes]]] = {}

    def open(self, deliver: Deliver) -> Endpoint:
        endpoint = ScriptedEndpoint(self, deliver)
        self.endpoints.append(endpoint)
        return endpoint

    def inject(self, data: bytes, address: Address, index: int = -1) -> None:
        """Deliver a datagram from `address` to the endpoint opened as number `index`."""
        self.endpoints[index].deliver(data, address)


class ScriptedEndpoint:
    """Endpoint of a `ScriptedWire`."""

    def __init__(self, wire: ScriptedWire, deliver: Deliver) -> None:
        self._wire, self.deliver = wire, deliver

    def send(self, data: bytes, address: Address) -> None:
        self._wire.sent.append((address, data))
        peer = self._wire.peers.get(address)
        for answer in peer(data) if peer is not None else []:
            self.deliver(answer, address)

    def close(self) -> None:
        if self in self._wire.endpoints:
            self._wire.endpoints.remove(self)


@dataclass(kw_only=True)
class Signal:
    """Radio measurements of the serving cell (capture hi2115-b300sp2-stats-nmgs)."""

    power: int = -819
    """RSRP in 0.1 dBm."""
    total: int = -761
    """RSSI in 0.1 dBm."""
    tx_power: int = 230
    """0.1 dBm."""
    tx_time: int = 1144
    """ms since boot."""
    rx_time: int = 76193
    """ms since boot."""
    cell_id: int = 125414482
    ecl: int = 0
    """Coverage level 0..2."""
    snr: int = 234
    """0.1 dB."""
    earfcn: int = 2509
    earfcn_offset: int = 2
    pci: int = 226
    rsrq: int = -108
    """0.1 dB."""
    band: int = 8
    operator_mode: int = 4
    ber: int = 0

    @property
    def csq(self) -> int:
        """RSSI as AT+CSQ counts it, 0..31 (3GPP TS 27.007)."""
        return max(0, min(31, (self.total + 1130) // 20))


@dataclass(kw_only=True)
class Neighbour:
    """A neighbour cell; dBm and dB values in tenths."""

    earfcn: int
    pci: int
    power: int
    rsrq: int
    total: int = -1354
    snr: int = 200


@dataclass(kw_only=True)
class Network:
    """The network a software modem lives in; change it while running through `change`."""

    attach_delay: float = 2.0
    """From the start of the search to registration, s."""
    stat: Stat = 1
    """Outcome: 1 home, 5 roaming, "denied" with `reject_cause`, "none" = no coverage."""
    reject_cause: int = 15
    """EMM cause of a denied attach (capture-backed example: 15)."""
    address: str = "10.0.0.7"
    apn: str = ""
    plmn: str = "46000"
    tac: int = 0x7871
    ci: int = 0x0D09F951
    latency: float = 0.0
    """Radio latency each way, s."""
    uplink_queue: int = 8
    """Datagrams the modem holds for the radio before it is busy (159)."""
    rrc_idle: float | None = 10.0
    """Silence after which the radio connection is released (CSCON 0), s; None: never."""
    active_time: float | None = None
    """T3324: from release to power saving, s; None: the network grants no power saving."""
    t3412: str = "01000011"
    t3324: str = "00000101"
    """Granted PSM timers, as 8 bits (3GPP TS 24.008), shown by CEREG 4 and 5 when active."""
    edrx: str | None = None
    """Granted eDRX value as 4 bits; None: not granted."""
    ping: dict[str, int | None] = field(default_factory=dict)
    """Ping times by address, ms; None: no answer."""
    ping_ms: int = 962
    """Ping time of every other address."""
    ping_ttl: int = 54
    dns: dict[str, str] = field(default_factory=dict)
    """Names the network knows, beside literal addresses and localhost."""
    host_resolver: bool = False
    """Ask this computer's resolver (in a thread) for names not in `dns`."""
    dns_servers: tuple[str, ...] = ("10.0.0.1", "10.0.0.2")
    dns_delay: float = 0.1
    routes: dict[Address, Address] = field(default_factory=dict)
    """Where datagrams to an address really go; answers come back under the first one."""
    lose: Callable[[Literal["up", "down"], bytes], bool] | None = None
    """Called for every datagram; True: it is lost on the air."""
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    """Network time (NITZ), UTC."""
    zone_quarters: int = 32
    signal: Signal = field(default_factory=Signal)
    neighbours: list[Neighbour] = field(default_factory=list)
    wire: Wire = field(default_factory=UdpWire)
    watchers: list[Callable[[], None]] = field(default_factory=list, repr=False)

    def change(self, stat: Stat) -> None:
        """Change coverage or admission now; attached modems notice."""
        self.stat = stat
        for watcher in list(self.watchers):
            watcher()

    @property
    def covered(self) -> bool:
        """Is there a cell?"""
        return self.stat != "none"

    def open(self, deliver: Deliver) -> Endpoint:
        """Open a UDP socket on the internet side; applies `routes`."""
        back = {real: seen for seen, real in self.routes.items()}
        return _Routed(self, self.wire.open(lambda d, a: deliver(d, back.get(a, a))))

    def resolve(self, name: str, found: Callable[[str | None], None]) -> None:
        """Look a name up; `found` gets an IPv4 address or None, possibly later."""
        answer = name if is_ipv4(name) else self.dns.get(name)
        if answer is None and name == "localhost":
            answer = "127.0.0.1"
        if answer is not None or not self.host_resolver:
            found(answer)
            return
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(None, _host_lookup, name)
        future.add_done_callback(lambda done: None if done.cancelled() else found(done.result()))


class _Routed:
    def __init__(self, network: Network, endpoint: Endpoint) -> None:
        self._network, self._endpoint = network, endpoint

    def send(self, data: bytes, address: Address) -> None:
        self._endpoint.send(data, self._network.routes.get(address, address))

    def close(self) -> None:
        self._endpoint.close()


def _host_lookup(name: str) -> str | None:
    try:
        found = socket.getaddrinfo(name, None, socket.AF_INET, socket.SOCK_DGRAM)
    except OSError:
        return None
    return str(found[0][4][0]) if found else None


def is_ipv4(text: str) -> bool:
    """Is this a dotted IPv4 address?"""
    try:
        IPv4Address(text)
    except AddressValueError:
        return False
    return True
