"""Keeps a modem in use through unplugging, restarts and lost networks.

One task owns the modem: it opens the port, attaches, watches, and starts again when something goes
wrong. Callers ask for the modem with ``call`` and wait while it is being recovered.

The ladder, from cheap to dear; each rung is tried when the one before did not help:

1. the dialogue is brought back into step (the channel does that by itself);
2. the modem is prepared and attached again on the same open port;
3. the modem is restarted by command;
4. the port is closed and looked for again, by its serial number, not by its name;
5. the supply is switched off and on, where the rig can do that.

Between two rounds it waits, longer each time and never equally long.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from itertools import count
from typing import Any, NoReturn, Protocol, TypeVar

from nbiot.at import UrcReceived
from nbiot.errors import (
    BadInput,
    CommandRefused,
    ModemError,
    ModemRebooted,
    NbiotError,
    NoResponse,
    NotRegistered,
    PortError,
    PortLost,
    PortNotPermitted,
    SimError,
    SocketError,
    UnexpectedAnswer,
    Unsupported,
)
from nbiot.link.ports import PortInfo, list_ports_async
from nbiot.modem import Modem
from nbiot.profile import Progress, RegistrationState, Report, silent
from nbiot.trace import Tracer

T = TypeVar("T")

# Errors after which the modem may be fit again by itself or by our doing.
RECOVERABLE = (PortError, ModemError, NotRegistered, SocketError)
# Errors that no waiting mends.
FINAL = (BadInput, PortNotPermitted, SimError)


class Power(Protocol):
    """The modem's supply, where the rig can switch it."""

    async def off(self) -> None:
        """Take the supply away."""

    async def on(self) -> None:
        """Give it back."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How patiently a modem is recovered. Times in seconds.

    backoff:    the first pause; it doubles up to ``most_backoff``
    jitter:     part of each pause that is random, 0 to 1
    restart_after, power_after: failed rounds before the modem is restarted by command, and before
                its supply is switched
    off_time:   how long the supply stays off
    attach:     how long one attach may take
    """

    backoff: float = 1.0
    most_backoff: float = 60.0
    jitter: float = 0.5
    restart_after: int = 2
    power_after: int = 4
    off_time: float = 5.0
    attach: float = 300.0

    def pause(self, failures: int, rng: random.Random) -> float:
        """How long to wait after ``failures`` failed rounds in a row."""
        doublings = min(max(0, failures - 1), 32)
        whole = min(self.backoff * float(1 << doublings), self.most_backoff)
        return whole * (1 - self.jitter * rng.random())


class State(Enum):
    """What the supervisor is at."""

    STARTING = "starting"
    READY = "ready"
    RECOVERING = "recovering"
    CLOSED = "closed"


class Supervisor:
    """Use it with ``async with``: entering returns at once, ``call`` waits for the modem.

    port, model, baudrate, tracer: as for Modem
    apn:    as for Modem.attach
    power:  the supply, if it can be switched
    report: called with each Progress; its steps "recovering" and "ready" are the supervisor's own
    """

    def __init__(
        self,
        port: str,
        *,
        apn: str | None = None,
        model: str = "auto",
        baudrate: int | None = None,
        power: Power | None = None,
        policy: Policy | None = None,
        report: Report = silent,
        tracer: Tracer | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.state = State.STARTING
        self.recoveries = 0
        self._port = port
        self._apn = apn
        self._options: dict[str, Any] = {"model": model, "baudrate": baudrate, "tracer": tracer}
        self._adapter: PortInfo | None = None  # the USB adapter behind the port
        self._power = power
        self._policy = policy or Policy()
        self._report = report
        self._rng = rng or random.Random()
        self._modem: Modem | None = None
        self._failures = 0  # rounds in a row that did not end in a ready modem
        self._failed: NbiotError | None = None  # final: no recovery
        self._trouble: asyncio.Future[NbiotError] | None = None
        self._changed = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Supervisor:
        self._task = asyncio.create_task(self._supervise(), name=f"supervisor of {self._port}")
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        await self._enter(State.CLOSED, None)

    # --- for callers ------------------------------------------------------------------------

    async def call(self, operation: Callable[[Modem], Awaitable[T]], *, repeat: bool = False) -> T:
        """Run ``operation`` with a modem that is attached, waiting for one if need be.

        When it fails because of port, modem or network, recovery begins. With ``repeat`` the
        operation is then run again from its beginning, after a pause that grows: say so only if
        doing it twice does no harm. Otherwise its error is raised, and it says whether the
        operation may have had an effect. What a connected modem refuses is never repeated.
        """
        for tries in count(1):
            modem = await self._ready()
            try:
                await modem.profile.wake()
                return await operation(modem)
            except (*RECOVERABLE, NoResponse) as error:
                if not await _explains(modem, error):
                    raise
                self._in_trouble(modem, error)
                if not repeat:
                    error.add_note("Not repeated by the supervisor: it may have had an effect.")
                    raise
                self._report(Progress("recovering", f"{error.message}; trying again"))
            await asyncio.sleep(self._policy.pause(tries, self._rng))
        raise AssertionError("counting does not end")

    async def _ready(self) -> Modem:
        async with self._changed:
            await self._changed.wait_for(lambda: self._modem or self._failed or self._closed)
        if self._failed is not None:
            raise self._failed
        if self._modem is None:
            raise PortLost(f"the supervisor of {self._port} is closed")
        return self._modem

    @property
    def _closed(self) -> bool:
        return self.state is State.CLOSED

    def _in_trouble(self, modem: Modem, error: NbiotError) -> None:
        """``modem`` needs recovery. Only the first to say so counts."""
        if self._modem is modem and self._trouble is not None and not self._trouble.done():
            self._modem = None
            self._trouble.set_result(error)

    # --- the task ---------------------------------------------------------------------------

    async def _supervise(self) -> None:
        while True:
            try:
                await self._round()
            except FINAL as error:
                self._failed = error
                await self._enter(State.CLOSED, None)
                return
            except RECOVERABLE as error:
                self._failures += 1
                await self._recovering(error)
                await self._switch_supply()
                await asyncio.sleep(self._policy.pause(self._failures, self._rng))

    async def _round(self) -> NoReturn:
        """Open the port and keep the modem in use until it cannot be helped on this port."""
        port = await self._port_now()
        async with Modem(port, report=self._report, **self._options) as modem:
            self._adapter = self._adapter or await _adapter_of(port)
            if self._failures > self._policy.restart_after:
                await modem.profile.reboot()
            while True:
                await modem.attach(self._apn, timeout=self._policy.attach)
                error = await self._in_use(modem)
                if isinstance(error, PortLost):
                    raise error
                await self._recovering(error)
                if isinstance(error, ModemRebooted):
                    await modem.channel.booted(
                        modem.channel.reboots - 1, modem.profile.boot_seconds
                    )
                await modem.profile.prepare()

    async def _port_now(self) -> str:
        """Where the port is now: a USB adapter that comes back may have another name."""
        if self._adapter is None:
            return self._port
        ports = await list_ports_async()
        same = (port.path for port in ports if _identity(port) == _identity(self._adapter))
        return next(same, self._port)

    async def _in_use(self, modem: Modem) -> NbiotError:
        """Lend ``modem`` to callers until there is trouble with it."""
        trouble: asyncio.Future[NbiotError] = asyncio.get_running_loop().create_future()
        self._trouble = trouble

        def on_reboot() -> None:
            self._in_trouble(modem, ModemRebooted("the modem restarted by itself"))

        def on_lost(error: PortLost) -> None:
            self._in_trouble(modem, error)

        def on_urc(urc: UrcReceived) -> None:
            if urc.name == "registration" and not _registered(urc):
                self._in_trouble(modem, NotRegistered("the network was lost"))

        stops = [
            modem.channel.on_reboot(on_reboot),
            modem.channel.on_lost(on_lost),
            modem.channel.listen(on_urc),
        ]
        try:
            await self._enter(State.READY, modem)
            return await trouble
        finally:
            self._modem = None
            for stop in stops:
                stop()

    async def _recovering(self, error: NbiotError) -> None:
        self.recoveries += 1
        self._report(Progress("recovering", error.message))
        await self._enter(State.RECOVERING, None)

    async def _switch_supply(self) -> None:
        """The last rung: at every ``power_after`` failed rounds."""
        if self._power is None or self._failures % self._policy.power_after:
            return
        self._report(Progress("recovering", "switching the modem's supply off and on"))
        await self._power.off()
        try:
            await asyncio.sleep(self._policy.off_time)
        finally:
            await self._power.on()

    async def _enter(self, state: State, modem: Modem | None) -> None:
        async with self._changed:
            self.state = state
            self._modem = modem
            self._changed.notify_all()
        if state is State.READY:
            self._failures = 0
            self._report(Progress("ready", "the modem is ready"))


async def _adapter_of(port: str) -> PortInfo | None:
    """The USB adapter behind ``port``, if it can be told from others of its kind."""
    path = await asyncio.to_thread(os.path.realpath, port)
    ports = await list_ports_async()
    return next((p for p in ports if p.path == path and p.serial_number), None)


async def _explains(modem: Modem, error: NbiotError) -> bool:
    """Whether trouble with modem or network explains ``error``, or it is the operation's own."""
    if isinstance(error, Unsupported):
        return False
    if not isinstance(error, (CommandRefused, UnexpectedAnswer, SocketError, NoResponse)):
        return True
    try:
        return not await modem.profile.connected()
    except RECOVERABLE:
        return True


def _identity(port: PortInfo) -> tuple[int | None, int | None, str]:
    return port.vid, port.pid, port.serial_number


def _registered(urc: UrcReceived) -> bool:
    return urc.fields["stat"] in (RegistrationState.HOME, RegistrationState.ROAMING)
