"""What the profile of a modem family must state (tables) and do (methods).

A profile is the only place that knows its modem's commands. Facts are tables with their evidence:
``captured: ID`` names a recorded dialogue that shows the fact, ``from_manual: SOURCE`` a document.
No profile here has been tried on hardware by its authors.

A sibling model subclasses its parent and replaces rows: see modems/bc95g.py. Profiles outside this
project register by the entry point group ``nbiot.modems``.
"""

from __future__ import annotations

import asyncio
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import Any, ClassVar

from nbiot.at import Command, Dialect, Fields, Template, UrcReceived
from nbiot.channel import Channel, Reply, UrcStream
from nbiot.errors import (
    BadInput,
    CommandRefused,
    CommandTimeout,
    DatagramTooLong,
    ModemError,
    ModemRebooted,
    ModemSilent,
    NbiotError,
    NotRegistered,
    PortLost,
    SimMissing,
    SocketError,
    Unsupported,
)

WAKE = Command(b"AT", seconds=2.5)  # a sleeping modem took 1.8 s (capture bc660k-30)
POLL = 2.0  # s between two questions for the registration, when no URC comes first
CLOSE_SECONDS = 6.0  # s for closing a socket, a dialogue out of step included
ADDRESS_PATIENCE = 20.0  # s that a registered modem may be without an address
DENIED_FOR = 30.0  # s that a refusal by the network must last to be final


class RegistrationState(IntEnum):
    """<stat> of +CEREG (3GPP TS 27.007, 10.1.22)."""

    IDLE = 0
    HOME = 1
    SEARCHING = 2
    DENIED = 3
    UNKNOWN = 4
    ROAMING = 5


@dataclass(frozen=True, slots=True)
class Registration:
    """Registration with the network; ``cause`` is the EMM cause of a refusal (TS 24.301)."""

    state: RegistrationState
    cause: int | None = None

    @property
    def registered(self) -> bool:
        """Home or roaming."""
        return self.state in (RegistrationState.HOME, RegistrationState.ROAMING)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the modem says it is."""

    manufacturer: str
    model: str
    firmware: str


@dataclass(frozen=True, slots=True)
class Signal:
    """Radio figures; None where the modem does not know. dBm, dB, coverage level 0...2."""

    rssi: float | None = None
    rsrp: float | None = None
    snr: float | None = None
    ecl: int | None = None
    earfcn: int | None = None
    pci: int | None = None

    def __str__(self) -> str:
        parts = [
            (self.rsrp, "RSRP {:g} dBm"),
            (self.rssi, "RSSI {:g} dBm"),
            (self.snr, "SNR {:g} dB"),
            (self.ecl, "ECL {}"),
        ]
        known = [text.format(value) for value, text in parts if value is not None]
        return ", ".join(known) or "no signal"


@dataclass(frozen=True, slots=True)
class Limits:
    """What one modem can take. ``datagram``: bytes of one UDP payload each way."""

    datagram: int
    sockets: int


class Release(Enum):
    """Release assistance: what the modem may tell the network about the traffic to come."""

    NO = "no"
    AFTER_THIS = "after this"  # no answer is expected
    AFTER_REPLY = "after the reply"


@dataclass(frozen=True, slots=True)
class NativeRequest:
    """One confirmable request for a modem's own CoAP client. ``method``: 1 GET, 2 POST, 3 PUT."""

    address: str
    port: int
    method: int
    path: tuple[str, ...]
    payload: bytes = field(repr=False)  # holds a signature
    mid: int
    token: bytes
    local_port: int
    content_format: int | None = None


@dataclass(frozen=True, slots=True)
class NativeResponse:
    """What a modem's own CoAP client tells of the response. ``code``: as "2.04"."""

    code: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Progress:
    """Something that happened on the way, for people and logs.

    ``step`` is one of: port, modem, sim, radio, searching, registered, denied, signal, address,
    restarting, resolved, sent, block, acknowledged, retransmitted, answered, authenticated,
    waiting; of a supervisor recovering, ready; of a session offline, command, dropped, failed.
    """

    step: str
    text: str
    data: Mapping[str, Any] = field(default_factory=dict)


Report = Callable[[Progress], None]


def silent(_: Progress) -> None:
    """A listener for those who want no progress."""


class UdpSocket(ABC):
    """One UDP socket inside the modem, towards one peer. Use it with ``async with``."""

    def __init__(self, profile: Profile, number: int, address: str, port: int) -> None:
        self.profile = profile
        self.number = number
        self.address = address
        self.port = port
        self.usable = True  # until the modem is known to have closed it
        self._in_modem = True  # until a restart has swept it away
        profile.open_sockets.add(number)
        self._datagrams: asyncio.Queue[bytes | NbiotError] = asyncio.Queue()
        self._stop_listening = [
            profile.channel.listen(self._heard),
            profile.channel.on_reboot(self._on_reboot),
            profile.channel.on_lost(self._gone),
        ]

    async def send(self, data: bytes, release: Release = Release.NO) -> None:
        """Send one datagram. ``release``: when the network may release the radio (ignored where
        the family has no such flag).

        Raises DatagramTooLong, CommandRefused, CommandTimeout, ModemRebooted.
        """
        if len(data) > self.profile.limits.datagram:
            raise DatagramTooLong(
                f"a datagram of {len(data)} bytes; {self.profile.title} takes"
                f" {self.profile.limits.datagram}"
            )
        await self._send(data, release)

    @abstractmethod
    async def receive(self, seconds: float) -> bytes:
        """The next datagram from the peer. Raises TimeoutError after ``seconds``, ModemRebooted,
        and SocketError when the modem has closed the socket.
        """

    async def close(self) -> None:
        """Give the socket back to the modem, within a few seconds. Never raises what the modem
        says about it: a socket that stays open is cleared away by the next one.
        """
        for stop in self._stop_listening:
            stop()
        self._stop_listening = []
        self.profile.open_sockets.discard(self.number)
        if not self._in_modem:
            return
        with suppress(TimeoutError, ModemError, PortLost):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._close()

    @abstractmethod
    async def _send(self, data: bytes, release: Release) -> None: ...

    @abstractmethod
    async def _close(self) -> None: ...

    @abstractmethod
    def _on_urc(self, urc: UrcReceived) -> None: ...

    def _on_reboot(self) -> None:
        self._gone(ModemRebooted("the modem restarted; this socket is gone"))

    def _heard(self, urc: UrcReceived) -> None:
        if urc.name == "socket closed" and urc.fields["socket"] == self.number:
            self._gone(SocketError("the modem closed the socket"))
        else:
            self._on_urc(urc)

    def _gone(self, error: NbiotError) -> None:
        """Whoever waits for a datagram, now or later, gets ``error`` behind those that came."""
        self.usable = False
        if not isinstance(error, SocketError):  # a closed one must still be given back
            self._in_modem = False
        self._datagrams.put_nowait(error)

    async def _next(self, seconds: float) -> bytes:
        """The next datagram that a URC brought."""
        async with asyncio.timeout(seconds):
            item = await self._datagrams.get()
        if isinstance(item, NbiotError):
            self._datagrams.put_nowait(item)
            raise item
        return item

    async def __aenter__(self) -> UdpSocket:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class Profile(ABC):
    """One modem family. Subclasses fill the tables and the abstract methods."""

    name: ClassVar[str]  # as given to --modem
    title: ClassVar[str]
    models: ClassVar[str]  # regular expression over what the modem says about itself
    baudrates: ClassVar[tuple[int, ...]]  # the default rate first
    takes_any_rate: ClassVar[bool] = False  # it keeps to the first at which it hears AT
    dialect: ClassVar[Dialect]
    commands: ClassVar[Mapping[str, Template]]
    limits: ClassVar[Limits]
    has_dns: ClassVar[bool] = False
    has_release_assistance: ClassVar[bool] = False
    has_native_coap: ClassVar[bool] = False
    native_payload: ClassVar[int] = 0  # bytes that the modem's own CoAP client takes
    notes: ClassVar[tuple[str, ...]] = ()  # what a user must know about the family
    boot_seconds: ClassVar[float] = 10.0
    sleeps_after: ClassVar[float] = math.inf  # s of silence after which a command may be lost
    data_mode: ClassVar[int] = 0  # bytes that its longest data mode waits for; 0: it has none

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.open_sockets: set[int] = set()  # numbers that this driver has in use
        self.may_sleep = False  # prepare() forbids it; see allow_sleep
        channel.dialect = self.dialect
        channel.on_reboot(self.open_sockets.clear)

    async def ask(self, row: str, *, payload: bytes = b"", **gaps: Any) -> Reply:
        """Run the command of table row ``row``. Errors as of ``Channel.run``."""
        return await self.channel.run(self.commands[row](payload=payload, **gaps))

    async def try_ask(self, row: str, **gaps: Any) -> Reply | None:
        """The same for a command that this firmware may refuse: None then."""
        try:
            return await self.ask(row, **gaps)
        except CommandRefused:
            return None

    async def wake(self) -> None:
        """Make sure that the next command is heard. Raises ModemSilent.

        A modem that may sleep gets an AT that may be lost; it is answered at the third at last.
        """
        if self.channel.idle < self.sleeps_after:
            return
        for _ in range(3):
            with suppress(CommandTimeout, CommandRefused):
                await self.channel.run(WAKE)
                return
        raise ModemSilent("the modem does not wake up", hint="Reset or power-cycle it.")

    async def allow_sleep(self) -> None:
        """Let the modem sleep between commands, until the next ``prepare``. Raises Unsupported."""
        raise Unsupported(f"the sleep of {self.title} is not under this driver's control")

    # --- who is it --------------------------------------------------------------------------

    async def imei(self) -> str:
        """The 15 digits of the IMEI. Raises UnexpectedAnswer, CommandRefused."""
        return str((await self.ask("imei"))["imei"])

    async def imsi(self) -> str:
        """The IMSI of the SIM."""
        return str((await self.ask("imsi"))["imsi"])

    async def iccid(self) -> str:
        """The ICCID of the SIM. Raises SimMissing when none can be read."""
        reply = await self.try_ask("iccid")
        if reply is None or not reply.lines:
            raise SimMissing("no ICCID", hint="Is a SIM in the holder, the right way round?")
        return str(reply["iccid"])

    # --- bring-up ---------------------------------------------------------------------------

    @abstractmethod
    async def prepare(self) -> None:
        """Bring the settings that this driver relies on into a known state; no radio."""

    @abstractmethod
    async def check_sim(self) -> None:
        """Raises SimMissing or SimLocked. The radio must be on where the family needs that."""

    @abstractmethod
    async def signal(self) -> Signal:
        """Radio figures as of now."""

    @abstractmethod
    async def set_apn(self, apn: str, report: Report) -> None:
        """Use ``apn`` from now on; detaches or restarts the modem only if it is another one."""

    async def registration(self) -> Registration:
        """The registration as of now."""
        return await self._registration(None)

    async def address(self) -> str | None:
        """The IP address that the network gave, or None."""
        reply = await self.ask("address?")
        return next((str(line["address"]) for line in reply.lines if line.get("address")), None)

    async def connected(self) -> bool:
        """Attached, registered, and with an IP address, as of now.

        A PDP context may be lost without a URC: only asking tells.
        """
        attached = bool((await self.ask("attached?"))["attached"])
        return attached and (await self.registration()).registered and bool(await self.address())

    async def radio_on(self) -> None:
        """Full functionality (AT+CFUN=1)."""
        reply = await self.ask("radio?")
        if reply["fun"] != 1:
            await self.ask("radio on")

    async def attach(self, apn: str | None, seconds: float, report: Report = silent) -> str:
        """Join the network; the address it gave. Does nothing when that is done already.

        ``apn`` None: whatever the modem or the network has. Raises SimMissing, SimLocked,
        NotRegistered (with the last reason and the signal), ModemRebooted.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        await self.radio_on()
        report(Progress("radio", "radio on"))
        await self.check_sim()
        report(Progress("sim", "SIM ready"))
        if apn is not None:
            await self.set_apn(_checked_apn(apn), report)
        if not (await self.ask("attached?"))["attached"]:
            await self.try_ask("attach")  # refused while an attach is running already
        await self._registered(until, seconds, report)
        return await self._addressed(until, seconds, report)

    async def _registered(self, until: float, seconds: float, report: Report) -> None:
        loop = asyncio.get_running_loop()
        last: Registration | None = None
        denied_since: float | None = None
        cause: int | None = None
        with self.channel.urcs() as urcs:
            while True:
                now = await self._registration(cause)
                if now != last:
                    _report_registration(now, report)
                    report(Progress("signal", str(signal := await self.signal()), vars_of(signal)))
                if now.registered:
                    return
                if now.state is not RegistrationState.DENIED:
                    denied_since = None
                elif denied_since is None:
                    denied_since = loop.time()
                last = now
                denied = denied_since is not None and loop.time() - denied_since >= DENIED_FOR
                if denied or loop.time() >= until:
                    raise not_registered(now, await self.signal(), seconds)
                cause = await _cause_from_urcs(urcs, min(POLL, until - loop.time())) or cause

    async def _registration(self, cause: int | None) -> Registration:
        """The registration as of now; ``cause`` is the last one a URC told, if any."""
        reply = await self.ask("registration?")
        found = registration(reply["stat"], reply["rest"])
        if found.state is RegistrationState.DENIED and found.cause is None:
            return Registration(found.state, cause)
        return found

    async def _addressed(self, until: float, seconds: float, report: Report) -> str:
        loop = asyncio.get_running_loop()
        rejoin = loop.time() + ADDRESS_PATIENCE
        while (address := await self.address()) is None:
            if loop.time() >= rejoin:
                rejoin = math.inf
                await self._rejoin(until, seconds, report)
            if loop.time() >= until:
                raise NotRegistered(
                    f"registered, but no IP address within {seconds:g} s",
                    hint="Is the APN right? Give it with --apn.",
                )
            await asyncio.sleep(POLL / 4)
        report(Progress("address", f"address {address}", {"address": address}))
        return address

    async def _rejoin(self, until: float, seconds: float, report: Report) -> None:
        """Leave the network and join it again: the PDP context was lost, the registration not."""
        report(Progress("searching", "registered, but without an address: joining anew"))
        await self.try_ask("detach")
        await asyncio.sleep(POLL)  # CGATT=1 is refused while the modem detaches
        await self.try_ask("attach")
        await self._registered(until, seconds, report)

    @abstractmethod
    async def reboot(self) -> None:
        """Restart the modem and wait until it takes commands. Raises ModemSilent."""

    # --- datagrams --------------------------------------------------------------------------

    @abstractmethod
    async def udp(self, address: str, port: int) -> UdpSocket:
        """Open a socket towards ``address`` (an IPv4 address) and ``port``.

        Raises SocketError.
        """

    async def resolve(self, host: str) -> str:
        """The IPv4 address of ``host`` by the modem. Raises NameNotResolved, Unsupported."""
        raise Unsupported(f"{self.title} has no DNS; let the host resolve {host}")

    async def native_coap(self, request: NativeRequest, seconds: float) -> NativeResponse:
        """One exchange by the modem's own CoAP client. Raises Unsupported, TimeoutError."""
        raise Unsupported(f"{self.title} has no CoAP client of its own", hint="Use --coap udp.")


def registration(stat: int, rest: str | None) -> Registration:
    """The registration from the fields of +CEREG.

    The cause of a refusal is the second of two numbers, cause type and cause: firmware differs in
    the number of fields before them (capture bc66-10 has one more than bc66-04).
    """
    known = stat in (0, 1, 2, 3, 5)
    state = RegistrationState(stat) if known else RegistrationState.UNKNOWN
    if state is not RegistrationState.DENIED or not rest:
        return Registration(state)
    # Behind tac, ci and AcT; timers are eight binary digits.
    tail = [field.strip() for field in rest.split(",")[3:]]
    numbers = [int(field) for field in tail if field.isdecimal() and len(field) < 8]
    return Registration(state, numbers[-1] if len(numbers) >= 2 else None)


async def _cause_from_urcs(urcs: UrcStream, seconds: float) -> int | None:
    """Wait for a +CEREG URC, for ``seconds`` at most; the cause of a refusal if it brings one."""
    try:
        async with asyncio.timeout(max(seconds, 0)):
            async for urc in urcs:
                if urc.name == "registration":
                    return registration(urc.fields["stat"], urc.fields["rest"]).cause
    except TimeoutError:
        pass
    return None


_STATE_WORDS = {
    RegistrationState.IDLE: ("searching", "not searching for a network yet"),
    RegistrationState.HOME: ("registered", "registered (home network)"),
    RegistrationState.SEARCHING: ("searching", "searching for a network"),
    RegistrationState.DENIED: ("denied", "the network refuses this SIM"),
    RegistrationState.UNKNOWN: ("searching", "out of coverage"),
    RegistrationState.ROAMING: ("registered", "registered (roaming)"),
}

# 3GPP TS 24.301, annex A.
EMM_CAUSES = {
    2: "IMSI unknown in HSS: the operator does not know this SIM",
    3: "illegal UE: the SIM failed authentication",
    5: "IMEI not accepted: the operator blocks this modem",
    6: "illegal ME: the operator blocks this modem",
    7: "EPS services not allowed: the subscription has no NB-IoT",
    8: "EPS and non-EPS services not allowed: the subscription has no data",
    11: "PLMN not allowed: no roaming agreement with this network",
    12: "tracking area not allowed",
    13: "roaming not allowed in this tracking area",
    14: "EPS services not allowed in this PLMN",
    15: "no suitable cells in this tracking area",
    17: "network failure",
    19: "ESM failure: wrong APN?",
    22: "congestion",
    27: "missing or unknown APN",
    33: "requested service option not subscribed: wrong APN?",
}


def _cause_words(cause: int | None) -> str:
    if cause is None:
        return ""
    return f"; EMM cause {cause}, {EMM_CAUSES.get(cause, 'see 3GPP TS 24.301, annex A')}"


def _report_registration(now: Registration, report: Report) -> None:
    step, text = _STATE_WORDS[now.state]
    report(
        Progress(step, text + _cause_words(now.cause), {"stat": int(now.state), "cause": now.cause})
    )


def not_registered(last: Registration, signal: Signal, seconds: float) -> NotRegistered:
    """The error of an attach that failed, with the last reason and the signal."""
    text = _STATE_WORDS[last.state][1] + _cause_words(last.cause)
    if last.state is RegistrationState.DENIED:
        hint = "Ask the operator about this SIM; check the APN (--apn)."
    elif signal.rsrp is None and signal.rssi is None:
        hint = "No cell is heard: check antenna, band and place."
    else:
        hint = "Give it more time (--attach-timeout): a first attach may take 10 minutes."
    return NotRegistered(f"not registered within {seconds:g} s: {text} ({signal})", hint=hint)


def _checked_apn(apn: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9.-]{1,100}", apn, re.ASCII):
        raise BadInput("apn", apn, "1 to 100 letters, digits, dots and hyphens")
    return apn


def vars_of(signal: Signal) -> dict[str, Any]:
    """The figures of ``signal`` by name."""
    return {name: getattr(signal, name) for name in Signal.__slots__}


def csq_dbm(fields: Fields) -> float | None:
    """<rssi> of +CSQ in dBm (3GPP TS 27.007, 8.5); None for 99."""
    rssi = int(fields["rssi"])
    return None if rssi == 99 else -113.0 + 2 * rssi
