"""A modem on a port: found, identified, prepared, attached, ready for datagrams."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from ipaddress import IPv4Address
from typing import Literal

from nbiot.at import Command, Dialect, Shape
from nbiot.channel import Channel, Counters
from nbiot.errors import (
    BadInput,
    CommandRefused,
    CommandTimeout,
    ModemRebooted,
    ModemSilent,
    ModemUnknown,
    NameNotResolved,
    UnexpectedAnswer,
)
from nbiot.link import Link, open_link
from nbiot.profile import Identity, Profile, Progress, Report, Signal, UdpSocket, silent
from nbiot.trace import Tracer

WAKE_TRIES = 2  # the first AT may be lost or refused: junk in the modem's line buffer, auto-baud
WAKE_SECONDS = 0.3
ROUNDS, MORE_ROUNDS = 2, 6  # over all rates: on a silent port, and where something is heard
CLEANUP_SECONDS = 5.0

AT = Command(b"AT", seconds=WAKE_SECONDS)
# "ATI" is refused by a BC95 before B657SP2; what the three say together decides.
IDENTITY = tuple(
    Command(line, Shape("<text:line>"), 1, 12, seconds=2.0, size=250)
    for line in (b"ATI", b"AT+CGMM", b"AT+CGMR")
)


@dataclass(frozen=True, slots=True)
class Resolved:
    """An address and who found it: "modem", "host", or "given" when it was one already."""

    host: str
    address: str
    by: Literal["modem", "host", "given"]


@cache
def profiles() -> dict[str, type[Profile]]:
    """All installed profiles by name. Siblings stand before the parents they refine.

    The first call reads files: not in the event loop.
    """
    found: list[type[Profile]] = [e.load() for e in entry_points(group="nbiot.modems")]
    found.sort(key=lambda profile: -len(profile.__mro__))
    return {profile.name: profile for profile in found}


class Modem:
    """Use it with ``async with``: the port is opened on entry and released on exit.

    port:     a device path, or another URL that ``nbiot.link.open_link`` knows
    model:    name of a profile, or "auto"
    baudrate: bit/s; None tries the default rates
    report:   called with each Progress

    Entering raises PortMissing, PortBusy, PortNotPermitted, ModemSilent, ModemUnknown.
    """

    profile: Profile
    channel: Channel
    identity: Identity

    def __init__(
        self,
        port: str,
        *,
        model: str = "auto",
        baudrate: int | None = None,
        report: Report = silent,
        tracer: Tracer | None = None,
    ) -> None:
        self.port = port
        self.report = report
        self._profiles: dict[str, type[Profile]] = {}
        self._model = model
        self._baudrate = baudrate
        self._tracer = tracer

    async def __aenter__(self) -> Modem:
        self._profiles = await asyncio.to_thread(chosen_profiles, self._model)
        rates = try_rates(self._profiles, self._baudrate)
        link = await open_link(self.port, baudrate=rates[0])
        self.report(Progress("port", f"{self.port} is open"))
        try:
            await self._start(link, rates)
        except BaseException:
            await link.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.channel.close()

    async def _start(self, link: Link, rates: tuple[int, ...]) -> None:
        dialect = Dialect.union(profile.dialect for profile in self._profiles.values())
        self.channel = Channel(link, dialect, tracer=self._tracer)
        await find_rate(self.channel, rates, self._profiles)
        self.identity, text = await self._identify()
        profile = self._matching(text)
        self.profile = profile(self.channel)
        self.report(
            Progress(
                "modem",
                f"{self.identity.model}, firmware {self.identity.firmware}"
                f" (profile {profile.name})",
                {"model": self.identity.model, "firmware": self.identity.firmware},
            )
        )
        if self._tracer is not None:
            self._tracer.note(
                f"modem {self.identity.model}, firmware {self.identity.firmware},"
                f" profile {profile.name}"
            )
        await self.profile.prepare()

    # --- finding it -------------------------------------------------------------------------

    async def _identify(self) -> tuple[Identity, str]:
        said: dict[bytes, list[str]] = {}
        for command in IDENTITY:
            with suppress(CommandRefused, UnexpectedAnswer):
                reply = await self.channel.run(command)
                said[command.line] = [line["text"] for line in reply.lines]
        text = "\n".join(line for lines in said.values() for line in lines)
        return identity(said), text

    def _matching(self, text: str) -> type[Profile]:
        for profile in self._profiles.values():
            if re.search(profile.models, text):
                return profile
        if self._model != "auto":  # the user knows better
            return next(iter(self._profiles.values()))
        raise ModemUnknown(
            f"no profile for a modem that says {text.split(chr(10))[:3]}",
            hint=f"Name one with --modem: {', '.join(self._profiles)}.",
        )

    # --- using it ---------------------------------------------------------------------------

    async def attach(self, apn: str | None = None, *, timeout: float = 300.0) -> str:
        """Join the network; the IP address it gave. See ``Profile.attach``."""
        return await self.profile.attach(apn, timeout, self.report)

    async def imei(self) -> str:
        """The 15 digits of the IMEI."""
        try:
            return await self.profile.imei()
        except (CommandRefused, UnexpectedAnswer) as error:
            raise UnexpectedAnswer(
                f"the modem tells no IMEI: {error.message}",
                hint="Give the device key with --device-key.",
            ) from error

    async def signal(self) -> Signal:
        """Radio figures as of now."""
        return await self.profile.signal()

    async def resolve(self, host: str, *, by: str = "auto") -> Resolved:
        """The IPv4 address of ``host``: by the modem where it has DNS, else by this host.

        ``by``: "auto", "modem" or "host". Raises NameNotResolved, BadInput.
        """
        with suppress(ValueError):
            return Resolved(host, str(IPv4Address(host)), "given")
        if not re.fullmatch(r"(?=.{1,253}$)[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*", host, re.ASCII):
            raise BadInput("server", host, "a host name or an IPv4 address")
        if by == "modem" or (by == "auto" and self.profile.has_dns):
            return Resolved(host, await self.profile.resolve(host), "modem")
        return Resolved(host, await _resolve_on_host(host), "host")

    async def udp(self, address: str, port: int) -> UdpSocket:
        """A UDP socket inside the modem, towards an IPv4 address."""
        return await self.profile.udp(address, port)

    @property
    def counters(self) -> Counters:
        """What went over the serial line so far."""
        return self.channel.counters.copy()


async def answers(channel: Channel) -> bool:
    """Does anything answer AT? The first one may be lost, refused, or answered by a banner."""
    for _ in range(WAKE_TRIES):
        try:
            await channel.run(AT)
        except (CommandTimeout, CommandRefused, ModemSilent):
            continue
        except ModemRebooted:
            await channel.booted(channel.reboots - 1, channel.dialect.boot_seconds)
            continue
        return True
    return False


async def find_rate(
    channel: Channel, rates: tuple[int, ...], known: dict[str, type[Profile]]
) -> None:
    """Set the port to the first of ``rates`` at which a modem answers. Raises ModemSilent.

    Only the host's side changes; the modem keeps its rate. All rates are tried in turn, and then
    once more: a modem may be waking up, or have junk in its line buffer. Where something is heard,
    if only garbage or a booting modem, it is tried for longer. From the second round on a data mode
    is ended that a host may have left behind when it died.
    """
    link = channel.link
    for done in range(MORE_ROUNDS):
        if done >= ROUNDS and not channel.counters.received:
            break
        for rate in rates if link.baudrate else rates[:1]:
            if link.baudrate not in (0, rate):
                await link.set_baudrate(rate)
            if done and (count := _data_mode(known, rate)):
                await channel.fill_data_mode(count)
            if await answers(channel):
                return
    tried = f" (tried {', '.join(map(str, rates))} baud)" if link.baudrate else ""
    raise ModemSilent(
        f"nothing on {link.name} answers AT{tried}",
        hint="Is the modem powered, TX and RX crossed, its rate another one (--baud)?",
    )


def _data_mode(known: dict[str, type[Profile]], rate: int) -> int:
    """The longest data mode of the profiles that use ``rate``, in bytes."""
    return max((p.data_mode for p in known.values() if rate in p.baudrates), default=0)


def try_rates(known: dict[str, type[Profile]], baudrate: int | None) -> tuple[int, ...]:
    """The rates to try, in bit/s: the given one, or what the profiles name, defaults first.

    First of all those of modems that take any rate: at another one they would answer, too, but
    after a restart their banner comes at the default, and would not be understood.
    """
    if baudrate is not None:
        return (baudrate,)
    first = sorted(known.values(), key=lambda profile: not profile.takes_any_rate)
    defaults = [profile.baudrates[0] for profile in first]
    others = [rate for profile in known.values() for rate in profile.baudrates[1:]]
    return tuple(dict.fromkeys(defaults + others))


def chosen_profiles(model: str) -> dict[str, type[Profile]]:
    """The profiles that ``model`` names: one, or all for "auto". Raises BadInput."""
    known = profiles()
    if model == "auto":
        return known
    if model not in known:
        raise BadInput("modem", model, f"auto, {', '.join(known)}")
    return {model: known[model]}


def identity(said: dict[bytes, list[str]]) -> Identity:
    """Manufacturer, model and firmware from ATI, AT+CGMM and AT+CGMR, whichever said something."""
    ati, cgmm, cgmr = (said.get(command.line, []) for command in IDENTITY)
    revision = [line.partition(":")[2].strip() for line in ati if line.startswith("Revision:")]
    names = [line for line in ati if not line.startswith("Revision:")]
    model = (names[-1] if names else cgmm[0] if cgmm else "unknown").removeprefix("Quectel_")
    versions = [line.partition(",")[2] for line in cgmr if line.startswith("APPLICATION")]
    firmware = revision or versions or [line.removeprefix("Revision: ") for line in cgmr]
    manufacturer = names[0] if len(names) > 1 else "Quectel"
    return Identity(manufacturer, model, firmware[0] if firmware else "unknown")


async def _resolve_on_host(host: str) -> str:
    loop = asyncio.get_running_loop()
    try:
        infos = await loop.getaddrinfo(host, None, family=2)  # AF_INET: the modems' sockets are
    except OSError as error:
        raise NameNotResolved(
            f"this host finds no address of {host} ({error.strerror or error})",
            hint="Is the name right? `--server` takes an IPv4 address, too.",
        ) from error
    return str(infos[0][4][0])
