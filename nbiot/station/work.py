"""What the phases of a run share: the board's modem and session, its identity, what was found."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from nbiot.enos import Device, EnosSession
from nbiot.errors import (
    CommandTimeout,
    ModemRebooted,
    ModemSilent,
    NbiotError,
    StoreUnavailable,
)
from nbiot.modem import Modem
from nbiot.profile import Progress
from nbiot.signing import SecretSigner
from nbiot.station import recipe as recipes
from nbiot.station.reasons import NotGood, reason_of
from nbiot.station.record import Measurement, Reason, Value

if TYPE_CHECKING:
    from nbiot.coap.exchange import Timing
    from nbiot.enos import AuthLimit, Server
    from nbiot.station.outbox import Outbox
    from nbiot.station.places import Place
    from nbiot.station.store import Claim, Store
    from nbiot.trace import Tracer

T = TypeVar("T")

LEASE = 300.0
"""Seconds that an identity stays this run's without being renewed."""
BOOT = 15.0
"""Seconds that a modem may be silent after its supply came on."""
PORT_POLL = 0.1  # s
TO_FINISH = 5.0  # s for a statement to the database that a cancellation finds under way
TO_LEAVE = 5.0  # s for leaving the network at the end
MOST_HOLD = 5.0  # s between two tries while the database is away


@dataclass
class Services:
    """What a run needs of the station.

    outbox:    holds results that the store does not have yet
    registrar: None: identities come out of the pool
    print:     prints (label data, copies); None: there is no printer
    """

    station: str
    store: Store
    outbox: Outbox
    server: Server | None
    product_key: str | None = None
    registrar: Any = None
    lifetime: int = 3600
    timing: Timing | None = None
    limit: AuthLimit | None = None
    print: Callable[[dict[str, Any], int], Awaitable[None]] | None = None
    traces: Path | None = None
    lease: float = LEASE
    boot: float = BOOT
    imeis: dict[str, str] = field(default_factory=dict)
    """Which slot has the board with which IMEI, at this station, now."""


class Work:
    """One board in its slot while a run lasts: modem, session, claim, what was found.

    show:    told what the slot's view is to show
    claimed: called when there is a claim, whose lease must then be kept
    """

    def __init__(
        self,
        run: str,
        place: Place,
        services: Services,
        recipe: recipes.Recipe,
        *,
        serial_number: str = "",
        tracer: Tracer | None = None,
        show: Callable[..., None] = lambda **_: None,
        hold: Callable[[Reason | None], None] = lambda _: None,
        claimed: Callable[[], None] = lambda: None,
    ) -> None:
        self.run = run
        self.place = place
        self.slot = place.slot
        self.services = services
        self.recipe = recipe
        self.facts: dict[str, Value] = {"station": services.station}
        if serial_number:
            self.facts["serial_number"] = serial_number
        self.measured: list[Measurement] = []
        self.claim: Claim | None = None
        self.bound = False
        self.said = ""  # the modem's or session's last word, for people
        self._tracer = tracer
        self._show = show
        self._hold = hold
        self._claimed = claimed
        self._limit: asyncio.Timeout | None = None
        self._modem: Modem | None = None
        self._modem_stack = AsyncExitStack()
        self._session: EnosSession | None = None
        self._came: dict[str, asyncio.Event] = {}
        self._powered = False

    # --- measuring and showing --------------------------------------------------------------

    def measure(
        self,
        name: str,
        value: Value,
        unit: str = "",
        within: recipes.Range = recipes.ANY,
        allowed: tuple[Value, ...] = (),
    ) -> bool:
        """Note a measurement; whether it is within its limits."""
        found = Measurement(name, value, unit, within.low, within.high, allowed or None)
        self.measured = [other for other in self.measured if other.name != name] + [found]
        return found.passed

    def fact(self, **found: Value) -> None:
        """Note what belongs into the record; the slot's view shows some of it."""
        self.facts.update(found)
        shown = {name: found[name] for name in ("imei", "device_key") if found.get(name)}
        if shown:
            self._show(**shown)

    def text_of(self, name: str) -> str | None:
        """A fact that is a text."""
        found = self.facts.get(name)
        return None if found is None else str(found)

    @property
    def imei(self) -> str:
        """The board's IMEI; identify comes first, says the recipe."""
        return str(self.facts["imei"])

    # --- time and the database --------------------------------------------------------------

    async def limited(self, seconds: float, work: Awaitable[None]) -> None:
        """``work`` within ``seconds``, time on hold not counted. Raises NotGood."""
        try:
            async with asyncio.timeout(seconds) as self._limit:
                await work
        except TimeoutError:
            if self._limit is None or not self._limit.expired():
                raise
            raise NotGood(
                "timeout",
                f"not done within {seconds:g} s{self.said and '; the last step: '}{self.said}",
                seconds=seconds,
            ) from None
        finally:
            self._limit = None

    async def ask(self, question: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Ask the database, again and again for as long as it is away. The slot is held then.

        A cancellation waits, for a moment, until a question under way is answered.
        """
        pause, left = 0.25, None
        while True:
            try:
                found = await finished(question())
            except StoreUnavailable as error:
                self._hold(reason_of(error))
                left = self._stop_clock() if left is None else left
            else:
                if left is not None:
                    self._hold(None)
                    self._go_on(left)
                return found
            await asyncio.sleep(pause * (0.5 + random.random()))
            pause = min(2 * pause, MOST_HOLD)

    def _stop_clock(self) -> float:
        """The seconds that the phase has left, which stay that many."""
        when = self._limit.when() if self._limit is not None else None
        if self._limit is None or when is None:
            return 0.0
        self._limit.reschedule(None)
        return max(1.0, when - asyncio.get_running_loop().time())

    def _go_on(self, left: float) -> None:
        if self._limit is not None and left:
            self._limit.reschedule(asyncio.get_running_loop().time() + left)

    # --- the identity -----------------------------------------------------------------------

    async def take_identity(self) -> Claim:
        """A claim for this board: out of the pool, or registered at EnOS."""
        services, store = self.services, self.services.store
        who: tuple[str, str, str] = (self.run, self.slot.name, self.imei)
        more = {"iccid": self.text_of("iccid"), "lease": services.lease}

        async def from_pool() -> None:
            await self._earlier_results_delivered()
            key = services.product_key
            self.claim = await store.claim(*who, product_key=key, **cast("Any", more))

        async def registered() -> None:
            key = services.product_key
            assert key is not None, "the configuration asks for it"
            await self._earlier_results_delivered()
            reservation = await store.reserve(*who, key, **cast("Any", more))
            secret = await services.registrar.register(key, self.imei, self.imei)
            self.claim = await store.registered(reservation, secret)

        await self.ask(from_pool if services.registrar is None else registered)
        assert self.claim is not None
        self.fact(product_key=self.claim.product_key, device_key=self.claim.device_key)
        self._claimed()
        return self.claim

    async def _earlier_results_delivered(self) -> None:
        """A board whose result waits in the outbox, maybe a pass, must not be run as if it had
        none. Raises StoreUnavailable.
        """
        if await self.services.outbox.holds(self.imei):
            raise StoreUnavailable(
                f"the last result of the board with IMEI {self.imei} is not in the database yet",
                hint="It goes on by itself.",
            )

    @property
    def given(self) -> bool:
        """Has the board an identity: by this run, or an earlier one?"""
        return self.claim is not None and (self.bound or self.claim.retry)

    async def bind(self) -> Claim:
        """Give the identity to this board, for ever. To be done before it is used or told."""
        assert self.claim is not None, "claim comes first, says the recipe"
        if not self.bound:

            async def given() -> None:
                assert self.claim is not None
                self.claim = await self.services.store.bind(
                    self.claim, self.imei, iccid=self.text_of("iccid")
                )
                self.bound = True

            await self.ask(given)
        return self.claim

    # --- modem and session ------------------------------------------------------------------

    def tell(self, step: Progress) -> None:
        """A listener for Modem and EnosSession."""
        self.said = step.text

    async def modem(self) -> Modem:
        """The board's modem, with its supply on and its port open."""
        if self._modem is None:
            await self.switch_on()
            self._modem = await self._opened()
        return self._modem

    async def _opened(self) -> Modem:
        """A modem that has just got its supply may say nothing for a while."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self.services.boot
        while True:
            modem = Modem(
                self.place.port,
                model=self.slot.modem,
                baudrate=self.slot.baud,
                report=self.tell,
                tracer=self._tracer,
            )
            try:
                return await self._modem_stack.enter_async_context(modem)
            except (ModemSilent, ModemRebooted, CommandTimeout):
                if loop.time() >= until:
                    raise

    async def switch_on(self) -> None:
        """The supply on, and the port there."""
        if self.place.power is not None and not self._powered:
            await self.place.power.on()
            self._powered = True
        while not await asyncio.to_thread(self.place.present):  # noqa: ASYNC110  # no such event
            await asyncio.sleep(PORT_POLL)  # a port that is fed by the board

    async def session(self) -> EnosSession:
        """The board's session with EnOS, authenticated."""
        if self._session is not None:
            return self._session
        claim = await self.bind()
        services = self.services
        assert services.server is not None, "the configuration asks for it"
        device = Device(
            claim.product_key, claim.device_key, SecretSigner(claim.secret), services.lifetime
        )
        options: dict[str, Any] = {} if services.limit is None else {"limit": services.limit}
        modem = await self.modem()
        session = EnosSession(
            modem, device, services.server, timing=services.timing, report=self.tell, **options
        )
        for phase in self.recipe.phases:
            if isinstance(phase, recipes.Command):
                came = self._came[phase.service] = asyncio.Event()
                session.handle("service", _noting(came), name=phase.service)
        self._session = await self._modem_stack.enter_async_context(session)
        return self._session

    def came(self, service: str) -> asyncio.Event:
        """Set when a command for ``service`` came."""
        return self._came[service]

    async def let_modem_go(self, *, detach: bool = False) -> None:
        """Close session and port. Never raises but when cancelled."""
        modem, self._modem, self._session = self._modem, None, None
        stack, self._modem_stack = self._modem_stack, AsyncExitStack()
        if modem is not None and detach:
            with suppress(NbiotError, TimeoutError):
                async with asyncio.timeout(TO_LEAVE):
                    await modem.profile.try_ask("detach")
        with suppress(NbiotError, TimeoutError):
            async with asyncio.timeout(TO_LEAVE):
                await stack.aclose()

    async def leave(self) -> None:
        """Let the board go as the recipe's release says: leave the network, close the port, switch
        its supply off. May be repeated. Raises PowerError.
        """
        release = self.recipe.first(recipes.Release)
        detach = power_off = True
        if isinstance(release, recipes.Release):
            detach, power_off = release.detach, release.power_off
        await self.let_modem_go(detach=detach)
        if power_off and self.place.power is not None and self._powered:
            await self.place.power.off()
            self._powered = False

    async def give_back(self) -> None:
        """An identity that was not bound goes back to the pool. Never raises."""
        if self.claim is not None and not self.bound:
            claim = self.claim
            with suppress(NbiotError, TimeoutError):  # else the lease runs out
                async with asyncio.timeout(TO_FINISH):
                    await self.services.store.release(claim)


async def finished(work: Coroutine[Any, Any, T]) -> T:
    """The result of ``work``; a cancellation is raised when it is done, or after TO_FINISH.

    For what the database is asked: a statement that is cut leaves its connection in doubt.
    """
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task], timeout=TO_FINISH)
        task.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await task
        raise


def _noting(came: asyncio.Event) -> Callable[[Any], Awaitable[None]]:
    async def handler(_: Any) -> None:
        came.set()

    return handler
