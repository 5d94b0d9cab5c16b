"""A slot of the rig with what surrounds it: modem, EnOS or its stand-in, echo server, supply.

A real slot is taken as it is. For an emulated one a software modem is made here, in this event
loop, so that a test can set conditions: ``bench.open(sim="absent")``, ``bench.pty.modem.reboot()``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest

from hil.cloud import Cloud
from hil.emulator import LineModem, Network, Options
from hil.faults import with_faults
from hil.hosting import hosted, modem_of
from hil.link import emulator_settings
from hil.plugin import RECORD, hide, rig_of
from hil.record import capabilities, not_this_modem
from nbiot.at import Command
from nbiot.coap.exchange import Timing
from nbiot.enos import AuthLimit, AuthResult, Device, EnosSession, Server, authenticate
from nbiot.enos.auth import COAP_PORT
from nbiot.errors import NbiotError, RateLimited
from nbiot.modem import Modem
from nbiot.signing import Secret, SecretSigner, secret_from
from nbiot.supervisor import Policy, Supervisor

if TYPE_CHECKING:
    from hil.rig import Slot
    from nbiot.trace import Tracer

# An example from the EnOS documents. It opens nothing.
PRODUCT_KEY = "KV315idW"
SECRET = "M3yy874uGY8INjEGddTR"

SPEED = 100.0  # of software modems where no rig file says otherwise
# The host's patience with them.
FAST = Timing(ack_timeout=0.3, response_timeout=3.0)
PATIENCE: dict[str, Any] = {
    "nbiot.profile.CLOSE_SECONDS": 0.2,
    "nbiot.profile.WAKE": Command(b"AT", seconds=0.3),
    "nbiot.profile.POLL": 0.4,
    "modems.bc95.SIM_PATIENCE": 1.0,
    "modems.bc95.SIM_POLL": 0.05,
}
QUICK = Policy(backoff=0.02, most_backoff=0.1, attach=20.0, off_time=0.05)
_OPTIONS = frozenset(field.name for field in fields(Options))


class Bench:
    """Use it with ``async with``, in the event loop of the test."""

    def __init__(self, slot: Slot, tracer: Tracer, request: pytest.FixtureRequest) -> None:
        self.slot = slot
        self.tracer = tracer
        self.record = request.node.stash[RECORD]
        self._request = request
        self._stack = AsyncExitStack()
        self._cloud: Cloud | None = None
        self._port: str | None = None
        self._opener: asyncio.Task[Any] | None = None
        self._power: Any = None
        self._skipped = 0.0  # s by which the loop's clock is ahead

    async def __aenter__(self) -> Bench:
        if self.emulated:
            for name, value in PATIENCE.items():
                self._stack.enter_context(mock.patch(name, value))
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await self._stack.aclose()
        finally:
            vars(asyncio.get_running_loop()).pop("time", None)

    # --- what the slot can do ---------------------------------------------------------------

    @property
    def emulated(self) -> bool:
        """Is it a software modem?"""
        return self.slot.emulated

    def need(self, what: str) -> None:
        """Skip the test, by name, where the slot has not got ``what``."""
        if why := capabilities(self.slot, self._request.config)(what):
            pytest.skip(f"{self.slot.name}: {why}")

    @property
    def timing(self) -> Timing | None:
        """How patient CoAP is: like the world, but with a software modem."""
        return FAST if self.emulated else None

    @property
    def pty(self) -> LineModem:
        """The software modem, once its port is open. Skips on real slots."""
        self.need("emulator")
        pty = modem_of(self.slot)
        assert pty is not None, "open the modem first"
        return pty

    @property
    def speed(self) -> float:
        """By what a software modem divides its own waiting times."""
        return self._settings()[1].speed

    def _settings(self) -> tuple[str, Options, Network]:
        """Model, options and network of the slot's software modem."""
        model, options, network = emulator_settings(self.slot.port.partition(":")[2])
        if rig_of(self._request.config).path is None:
            options = replace(options, speed=SPEED)
        return model, options, network

    # --- the modem --------------------------------------------------------------------------

    async def port(self, **conditions: Any) -> str:
        """The port to open. ``conditions``: options of a software modem, of its network,
        or ``fault``: see hil.faults.
        """
        if self._port is None:
            settings = self._changed(conditions) if self.emulated else None
            if settings is None and conditions.keys() - {"attached"}:  # a real modem is as it is
                self.need("emulator")
            self._opener = asyncio.current_task()
            self._port = await self._stack.enter_async_context(
                hosted(self.slot, settings=settings, on_lost=self._lost)
            )
        return self._port

    def _changed(self, conditions: dict[str, Any]) -> tuple[str, Options, Network]:
        """The settings of the slot's software modem, but for ``conditions``."""
        model, options, network = self._settings()
        if "attached=" not in self.slot.port:  # a real modem mostly is, when a test begins
            options = replace(options, attached=True)
        for name, value in conditions.items():
            if name == "fault":
                options = with_faults(value, options, model=model)
            elif name in _OPTIONS:
                options = replace(options, **{name: value})
            else:
                setattr(network, name, value)
        return model, options, network

    def _lost(self, error: NbiotError) -> None:
        """The slot was taken from us: the test cannot go on, nor the fixture that opens it."""
        self.record.lost = str(error)
        task = self.record.task or self._opener
        if task is not None:
            task.cancel()

    @asynccontextmanager
    async def open(self, *, attach: bool = True, **conditions: Any) -> AsyncIterator[Modem]:
        """The slot's modem, attached unless told otherwise. ``conditions``: see ``port``."""
        async with Modem(
            await self.port(**conditions),
            model=self.slot.modem,
            baudrate=self.slot.baud,
            report=self.record.report,
            tracer=self.tracer,
        ) as modem:
            self.met(modem)
            if attach:
                await modem.attach(self.slot.apn, timeout=20.0 if self.emulated else 300.0)
            yield modem

    def met(self, modem: Modem) -> None:
        """Note who the modem is, and skip the test where it is for others."""
        record, item = self.record, self._request.node
        if not record.model:
            record.model, record.firmware = modem.identity.model, modem.identity.firmware
            record.profile = modem.profile.name
            item.user_properties.append(("model", record.model))
            item.user_properties.append(("firmware", record.firmware))
        for mark in item.iter_markers("modem"):
            if why := not_this_modem(self.slot, mark.args, record.profile):
                pytest.skip(f"{self.slot.name}: {why}")

    @asynccontextmanager
    async def supervised(self, **conditions: Any) -> AsyncIterator[Supervisor]:
        """The slot's modem, kept in use through restarts and lost networks."""
        async with Supervisor(
            await self.port(**conditions),
            apn=self.slot.apn,
            model=self.slot.modem,
            baudrate=self.slot.baud,
            policy=QUICK if self.emulated else None,
            report=self.record.report,
            tracer=self.tracer,
        ) as keeper:
            yield keeper

    async def power(self, **conditions: Any) -> Any:
        """The supply. Skips where the rig has none. ``conditions``: see ``port``."""
        self.need("power")
        if self._power is None:
            from hil.power import power_of

            await self.port(**conditions)
            self._power = await self._stack.enter_async_context(power_of(self.slot))
        return self._power

    async def restart(self) -> None:
        """Let the modem restart by itself, or as if. Skips where the rig cannot do it."""
        self.need("reset")
        if self.emulated:
            self.pty.modem.reboot()
        elif self.slot.reset:
            from hil.power import reset_of

            async with reset_of(self.slot) as reset:
                assert reset is not None
                await reset.pulse()
        else:
            power = await self.power()
            await power.off()
            await asyncio.sleep(2.0)
            await power.on()

    async def later(self, seconds: float) -> None:
        """Let so many seconds pass: with a software modem in no time, all clocks included."""
        self.record.allow(seconds)
        if not self.emulated:
            await asyncio.sleep(seconds)
            return
        loop = asyncio.get_running_loop()
        self._skipped += seconds
        real = type(loop).time
        vars(loop)["time"] = lambda: real(loop) + self._skipped
        for _ in range(20):  # whatever is due now gets its turn
            await asyncio.sleep(0)

    # --- EnOS -------------------------------------------------------------------------------

    async def cloud(self, **options: Any) -> Cloud:
        """The stand-in; with ``options`` when it is made. Skips on slots with another server."""
        self.need("cloud")
        if self._cloud is None:
            device_key = self.slot.device_key or self._settings()[1].imei
            product_key = self.slot.product_key or PRODUCT_KEY
            secret = await self._secret()
            loop = asyncio.get_running_loop()
            self._cloud = await self._stack.enter_async_context(
                Cloud(
                    {(product_key, device_key): secret.reveal()},
                    clock=lambda: loop.time(),
                    **options,
                )
            )
        return self._cloud

    async def server(self) -> Server:
        """The server that the slot talks to."""
        self.need("enos")
        if self.slot.server is None:
            cloud = await self.cloud()
            return Server(cloud.host, cloud.port)
        return Server.parse(self.slot.server)

    async def dead_server(self) -> Server:
        """A place where nobody answers."""
        server = await self.server()
        return Server(server.host, 9 if server.port == COAP_PORT else server.port ^ 1)

    async def _secret(self) -> Secret:
        if self.slot.secret is None:
            return Secret(SECRET)
        secret = await asyncio.to_thread(secret_from, self.slot.secret)
        hide(self._request.config, secret.reveal)
        return secret

    async def device(
        self,
        modem: Modem,
        *,
        lifetime: int = 3600,
        secret: str | None = None,
        product_key: str | None = None,
    ) -> Device:
        """The device as EnOS knows it, or one that it does not know."""
        self.need("enos")
        return Device(
            product_key or self.slot.product_key or PRODUCT_KEY,
            self.slot.device_key or await modem.imei(),
            SecretSigner(await self._secret() if secret is None else Secret(secret)),
            lifetime,
        )

    async def authenticate(
        self,
        modem: Modem,
        *,
        server: Server | None = None,
        path: Any = "udp",
        timing: Timing | None = None,
        **device: Any,
    ) -> AuthResult:
        """One authentication; a real server's limit of 4 in 2 minutes is waited for."""
        wanted = await self.device(modem, **device)
        to = server or await self.server()
        while True:
            try:
                return await authenticate(
                    modem,
                    wanted,
                    to,
                    path=path,
                    timing=timing or self.timing,
                    limit=AuthLimit() if self.emulated else None,
                )
            except RateLimited as error:
                self.record.allow(error.wait)
                await asyncio.sleep(error.wait)

    async def session(
        self, carrier: Modem | Supervisor, *, device: dict[str, Any] | None = None, **options: Any
    ) -> EnosSession:
        """A session, not yet entered. ``device``: see ``device``; ``options``: of EnosSession."""

        async def found(modem: Modem) -> Device:
            self.met(modem)
            return await self.device(modem, **(device or {}))

        who = await (
            found(carrier) if isinstance(carrier, Modem) else carrier.call(found, repeat=True)
        )
        if self.emulated:
            options.setdefault("limit", None)
        options.setdefault("timing", self.timing)
        return EnosSession(carrier, who, await self.server(), report=self.record.report, **options)

    # --- echo -------------------------------------------------------------------------------

    @asynccontextmanager
    async def echo(self) -> AsyncIterator[tuple[str, int]]:
        """Address and port of a UDP echo server that the modem reaches."""
        self.need("echo")
        given = self._request.config.getoption("--echo")
        if given and not self.emulated:
            server = Server.parse(given)
            yield server.host, server.port
            return
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(_Echo, local_addr=("127.0.0.1", 0))
        try:
            yield transport.get_extra_info("sockname")[:2]
        finally:
            transport.close()


class _Echo(asyncio.DatagramProtocol):
    """Sends back what comes."""

    transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.transport.sendto(data, addr)


async def until(seconds: float, condition: Callable[[], bool]) -> bool:
    """Wait until ``condition`` holds; False when it did not within ``seconds``."""
    try:
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110  # of things that tell nobody
                await asyncio.sleep(0.01)
    except TimeoutError:
        return False
    return True
