"""A walk from the port to the cloud: what each step saw, a verdict, and the next thing to try.

Steps stand in the order in which they depend on each other; after the first that fails, those that
need it are skipped.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from enum import Enum
from typing import Any

from nbiot.errors import NbiotError, NoResponse
from nbiot.link.ports import holder_of, is_pty, port_missing
from nbiot.modem import AT, Modem, Resolved
from nbiot.profile import Progress, Report, silent

PING_TRIES = 3
PING_SECONDS = 10.0
WEAK_RSRP = -115.0  # dBm; below it NB-IoT repeats a lot and everything takes long


class Verdict(Enum):
    """How a step ended."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """One step: its name, verdict, what it saw, and the next thing to try (empty: nothing)."""

    step: str
    verdict: Verdict
    saw: str
    next: str = ""
    exit_code: int = 0

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "step": self.step,
            "verdict": self.verdict.value,
            "saw": self.saw,
            "next": self.next,
        }


@dataclass(frozen=True, slots=True)
class Cloud:
    """What the last steps need. ``device`` None: no signature is tried."""

    server: Any  # nbiot.enos.Server
    product_key: str | None = None
    device_key: str | None = None
    signer: Any = None
    lifetime: int = 3600


Saw = tuple[Verdict, str, str]


def _holders(port: str) -> list[tuple[int, str]]:
    """Programs that have ``port`` open. At the other end of a pty that is no intruder."""
    try:
        found = os.stat(port)
    except OSError:
        return []  # the next step says what is wrong
    return [] if is_pty(found) else holder_of(port)


class Doctor:
    """Iterate over ``examine()``: it yields each finding as soon as it stands."""

    def __init__(
        self,
        port: str,
        *,
        model: str = "auto",
        baudrate: int | None = None,
        apn: str | None = None,
        cloud: Cloud | None = None,
        attach_timeout: float = 120.0,
        report: Report = silent,
        tracer: Any = None,
    ) -> None:
        self._port = port
        self._apn = apn
        self._cloud = cloud
        self._attach_timeout = attach_timeout
        self._report = report
        self._modem = Modem(port, model=model, baudrate=baudrate, report=self._told, tracer=tracer)
        self._resolved: Resolved | None = None
        self._registered = ""

    async def examine(self) -> AsyncIterator[Finding]:
        """The findings, in order. The modem is left attached; its sockets are closed."""
        steps: list[tuple[str, Callable[[], Awaitable[Saw]]]] = [
            ("echo", self._echo),
            ("firmware", self._firmware),
            ("SIM", self._sim),
            ("bands", self._bands),
            ("registration", self._registration),
            ("signal", self._signal),
            ("APN", self._context),
            ("address", self._address),
            ("DNS", self._dns),
            ("UDP round trip", self._round_trip),
            ("CoAP and signature", self._authentication),
        ]
        failed = ""
        async with AsyncExitStack() as stack:
            for name, step in [
                ("port", self._owner),
                ("baud", lambda: self._open(stack)),
                *steps,
            ]:
                if failed:
                    yield Finding(name, Verdict.SKIPPED, f"needs {failed}")
                    continue
                finding = await self._finding(name, step)
                if finding.verdict is Verdict.FAILED:
                    failed = name
                yield finding

    async def _finding(self, name: str, step: Callable[[], Awaitable[Saw]]) -> Finding:
        try:
            return Finding(name, *await step())
        except NbiotError as error:
            return Finding(name, Verdict.FAILED, error.message, error.hint, error.exit_code)

    def _told(self, step: Progress) -> None:
        if step.step in ("registered", "denied", "searching"):
            self._registered = step.text
        self._report(step)

    # --- the steps --------------------------------------------------------------------------

    async def _owner(self) -> Saw:
        if ":" in self._port.partition("/")[0]:
            return Verdict.OK, self._port, ""
        if not await asyncio.to_thread(os.path.exists, self._port):
            raise await asyncio.to_thread(port_missing, self._port)
        holders = await asyncio.to_thread(_holders, self._port)
        if holders:
            names = ", ".join(f"{name} (pid {pid})" for pid, name in holders)
            return Verdict.WARNING, f"{self._port} is open in {names}", "Stop that program."
        return Verdict.OK, f"{self._port} is free", ""

    async def _open(self, stack: AsyncExitStack) -> Saw:
        modem = await stack.enter_async_context(self._modem)
        rate = modem.channel.link.baudrate
        return Verdict.OK, f"answers at {rate} baud" if rate else "answers", ""

    async def _echo(self) -> Saw:
        """The modem was told to send none; one that does so all the same doubles each byte."""
        if (await self._modem.channel.run(AT)).echoed:
            return Verdict.WARNING, "on, although ATE0 was sent", "Is this a modem's AT port?"
        return Verdict.OK, "off", ""

    async def _firmware(self) -> Saw:
        identity, profile = self._modem.identity, self._modem.profile
        saw = f"{identity.model}, firmware {identity.firmware} (profile {profile.name})"
        return Verdict.OK, saw, ""

    async def _sim(self) -> Saw:
        await self._modem.profile.radio_on()
        await self._modem.profile.check_sim()
        return Verdict.OK, f"ready, ICCID {await self._modem.profile.iccid()}", ""

    async def _bands(self) -> Saw:
        profile = self._modem.profile
        reply = await profile.try_ask("bands?") if "bands?" in profile.commands else None
        if reply is None or not reply.lines:
            return Verdict.OK, "not told by this modem", ""
        return Verdict.OK, str(reply["bands"]), ""

    async def _registration(self) -> Saw:
        await self._modem.attach(self._apn, timeout=self._attach_timeout)
        return Verdict.OK, self._registered or "registered", ""

    async def _signal(self) -> Saw:
        signal = await self._modem.signal()
        if signal.rsrp is not None and signal.rsrp < WEAK_RSRP:
            return Verdict.WARNING, str(signal), "Weak: mind the antenna; expect long times."
        return Verdict.OK, str(signal), ""

    async def _context(self) -> Saw:
        profile = self._modem.profile
        row = "contexts?" if "contexts?" in profile.commands else "default apn?"
        reply = await profile.ask(row)
        apns = [str(line["apn"]) for line in reply.lines if line.get("apn")]
        return Verdict.OK, ", ".join(apns) or "the network's own", ""

    async def _address(self) -> Saw:
        address = await self._modem.profile.address()
        if address is None:
            return Verdict.FAILED, "no IP address", "Is the APN right? Give it with --apn."
        return Verdict.OK, address, ""

    async def _dns(self) -> Saw:
        if self._cloud is None:
            return Verdict.SKIPPED, "no server given", "Name one with --enos or --server."
        self._resolved = await self._modem.resolve(self._cloud.server.host)
        by = "given" if self._resolved.by == "given" else f"by the {self._resolved.by}"
        return Verdict.OK, f"{self._cloud.server.host} is {self._resolved.address} ({by})", ""

    async def _round_trip(self) -> Saw:
        """A CoAP ping: an empty confirmable message, answered by RST (RFC 7252, 4.3)."""
        if self._cloud is None or self._resolved is None:
            return Verdict.SKIPPED, "no server given", ""
        from nbiot.coap.ping import ping

        port = self._cloud.server.port
        try:
            async with await self._modem.udp(self._resolved.address, port) as socket:
                seconds = await ping(socket, tries=PING_TRIES, seconds=PING_SECONDS)
        except NoResponse as error:
            return (
                Verdict.WARNING,
                error.message,
                "Some servers do not answer a ping; the next step tells.",
            )
        return Verdict.OK, f"{seconds * 1000:.0f} ms", ""

    async def _authentication(self) -> Saw:
        if self._cloud is None or self._cloud.product_key is None or self._cloud.signer is None:
            return Verdict.SKIPPED, "no product key and secret given", "Give --product-key."
        from nbiot.enos import Device, authenticate

        key = self._cloud.device_key or await self._modem.imei()
        device = Device(self._cloud.product_key, key, self._cloud.signer, self._cloud.lifetime)
        result = await authenticate(self._modem, device, self._cloud.server)
        return Verdict.OK, f"{result.code} for device {key} after {result.round_trip:.2f} s", ""
