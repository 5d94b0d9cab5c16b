"""What the radio network and the internet behind it decide for a software modem.

All times are in seconds and are divided by `Options.speed` like the modem's own.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import AddressValueError, IPv4Address, IPv4Network
from pathlib import Path
from random import Random
from typing import Literal, Protocol

from .cells import Cell, Neighbour, Registration, Signal, Stat, strongest
from .clock import Clock, Handle
from .recent import Recent

Address = tuple[str, int]
Deliver = Callable[[bytes, Address], None]
Way = Literal["up", "down"]


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
        self.sent: Recent[tuple[Address, bytes]] = Recent(10_000)
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
class Air:
    """What befalls the datagrams of one direction; chances are 0..1."""

    latency: float | None = None
    """s; None: as `Network.latency`."""
    jitter: float = 0.0
    """Up to so many seconds more, at random; the order stays."""
    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    """Chance of being held back for `hold` seconds while others pass."""
    hold: float = 2.0

    @property
    def calm(self) -> bool:
        return not (self.loss or self.duplicate or self.reorder)


@dataclass(kw_only=True)
class Network:
    """The network a software modem lives in; change it while running through `change`."""

    seed: int = 0
    """Of all that happens by chance here."""
    attach_delay: float = 2.0
    """From the start of the search to registration, s."""
    attach_spread: float = 0.0
    """Up to so many seconds more, at random."""
    stat: Stat = 1
    """Outcome: 1 home, 5 roaming, "denied" with `reject_cause`, "none" = no coverage."""
    reject_cause: int = 15
    """EMM cause of a denied attach (capture-backed example: 15)."""
    address: str = "10.0.0.7"
    """Of a modem that is attached, unless `addresses` has more."""
    addresses: IPv4Network | None = None
    """Each attach takes the next address of it."""
    nat_timeout: float | None = None
    """Silence after which the carrier's NAT forgets a socket: the next datagram leaves from
    another port, and what still comes to the old one is lost. None: never."""
    apn: str = ""
    plmn: str = "46000"
    tac: int = 0x7871
    ci: int = 0x0D09F951
    latency: float = 0.0
    """Radio latency each way, s."""
    up: Air = field(default_factory=Air)
    down: Air = field(default_factory=Air)
    uplink_queue: int = 8
    """Datagrams the modem holds for the radio before it is busy (159)."""
    rrc_idle: float | None = 10.0
    """Silence after which the radio connection is released (CSCON 0), s; None: never."""
    active_time: float | None = None
    """T3324: from release to power saving, s; None: the network grants no power saving."""
    t3412: str = "01000011"
    t3324: str = "00000101"
    """Granted PSM timers, as 8 bits (3GPP TS 24.008), shown by CEREG 4 and 5 when active."""
    tau: float | None = None
    """T3412: the modem wakes this long after the release, s; None: never by itself."""
    edrx: str | None = None
    """Granted eDRX value as 4 bits; None: not granted."""
    edrx_cycle: float | None = None
    """An idle modem listens once in so many seconds; None: always."""
    paging_window: float = 2.56
    """How long it listens then, s."""
    buffer: int = 0
    """Datagrams the network keeps for a modem in power saving; the others are lost."""
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
    cells: list[Cell] = field(default_factory=list)
    """When there are any, the strongest one decides `signal`, `tac`, `ci` and `neighbours`."""
    registrations: list[Registration] = field(default_factory=list)
    """What `stat` and `reject_cause` become, and when."""
    repeat: float | None = None
    """The time of `cells` and `registrations` starts again after so many seconds."""
    wire: Wire = field(default_factory=UdpWire)
    watchers: list[Callable[[], None]] = field(default_factory=list, repr=False)

    _clock: Clock | None = field(default=None, init=False, repr=False)
    _speed: float = field(default=1.0, init=False, repr=False)
    _start: float = field(default=0.0, init=False, repr=False)
    _users: list[object] = field(default_factory=list, init=False, repr=False)
    _timer: Handle | None = field(default=None, init=False, repr=False)
    _given: int = field(default=0, init=False, repr=False)

    @classmethod
    def from_toml(cls, path: str | Path) -> Network:
        """The network that a file describes. Raises `netfile.BadNetwork`."""
        from .netfile import read_network  # it needs this module first

        return read_network(Path(path))

    def change(self, stat: Stat) -> None:
        """Change coverage or admission now; attached modems notice."""
        self.stat = stat
        self._tell()

    def _tell(self) -> None:
        for watcher in list(self.watchers):
            watcher()

    # ------------------------------------------------------------------ time

    def begin(self, user: object, clock: Clock, speed: float) -> None:
        """A modem is in this network; the time of the network starts with the first one."""
        self._users.append(user)
        if self._clock is None:
            self._clock, self._speed, self._start = clock, speed, clock.time()
            self._turn(0.0, 0.0)

    def end(self, user: object) -> None:
        """A modem leaves; after the last one nothing happens any more."""
        if user in self._users:
            self._users.remove(user)
        if not self._users:
            self._clock = None
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    @property
    def time(self) -> float:
        """Seconds since the first modem came."""
        if self._clock is None:
            return 0.0
        return (self._clock.time() - self._start) * self._speed

    def _turn(self, began: float, lap: float) -> None:
        """Make everything as it is `lap` seconds into the round that began at `began`."""
        self._timer = None
        before = self.outcome()
        for entry in self.registrations:
            if entry.at <= lap:
                self.stat, self.reject_cause = entry.stat, entry.cause
        self._choose_cell(lap)
        if self.outcome() != before:
            self._tell()
        later = min((entry for entry in self._turns() if entry > lap), default=None)
        if later is not None and self._clock is not None:
            delay = self._start + (began + later) / self._speed - self._clock.time()
            again = (began + later, 0.0) if later == self.repeat else (began, later)
            self._timer = self._clock.call_later(max(delay, 0.0), lambda: self._turn(*again))

    def _turns(self) -> list[float]:
        """The times of a round at which something changes."""
        times = [entry.at for entry in self.registrations]
        times += [entry[0] for cell in self.cells for entry in cell.course]
        if times and self.repeat:
            return [*(entry for entry in times if entry < self.repeat), self.repeat]
        return times

    def _choose_cell(self, lap: float) -> None:
        for cell in self.cells:
            cell.move_to(lap)
        if not self.cells:
            return
        serving = strongest(self.cells)
        if serving is not None:
            self.signal, self.tac, self.ci = serving.signal, serving.tac, serving.cell_id
        others = [cell for cell in self.cells if cell is not serving and cell.heard]
        self.neighbours = [cell.as_neighbour for cell in others]

    # -------------------------------------------------------------- coverage

    def outcome(self, bands: tuple[int, ...] = ()) -> Stat:
        """What comes of a registration of a modem with these bands now."""
        usable = [c for c in self.cells if c.heard and (not any(bands) or c.band in bands)]
        return "none" if self.cells and not usable else self.stat

    @property
    def covered(self) -> bool:
        """Is there a cell?"""
        return self.outcome() != "none"

    def take_address(self) -> str:
        """The address of a modem that attaches now."""
        if self.addresses is None:
            return self.address
        usable = max(self.addresses.num_addresses - 2, 1)
        self._given += 1
        return str(self.addresses.network_address + (self._given - 1) % usable + 1)

    def air(self, way: Way) -> Air:
        return self.up if way == "up" else self.down

    def delay(self, way: Way, chance: Random) -> float:
        """How long a datagram is on the air, s."""
        air = self.air(way)
        latency = self.latency if air.latency is None else air.latency
        return latency + (chance.uniform(0, air.jitter) if air.jitter else 0.0)

    # -------------------------------------------------------------- internet

    def open(self, deliver: Deliver) -> Endpoint:
        """Open a UDP socket on the internet side; applies `routes` and the NAT."""
        return _Routed(self, deliver)

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
    """A socket behind the carrier's NAT."""

    def __init__(self, network: Network, deliver: Deliver) -> None:
        self._network, self._deliver = network, deliver
        self._back = {real: seen for seen, real in network.routes.items()}
        self._used = network.time
        self._endpoint = network.wire.open(self._heard)

    def _forgotten(self) -> bool:
        limit = self._network.nat_timeout
        return limit is not None and self._network.time - self._used > limit

    def _heard(self, data: bytes, address: Address) -> None:
        if not self._forgotten():
            self._used = self._network.time
            self._deliver(data, self._back.get(address, address))

    def send(self, data: bytes, address: Address) -> None:
        if self._forgotten():
            self._endpoint.close()
            self._endpoint = self._network.wire.open(self._heard)
        self._used = self._network.time
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
