"""The station: slots, board, store and outbox in one asyncio process.

async with Station(config, recipe) as station:
    await station.run()

The operator's page and the terminal look at ``station.board`` and call the methods here.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AsyncExitStack, suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from nbiot.coap.exchange import Timing
from nbiot.errors import BadInput, NbiotError, PrinterError, StationError, StoreUnavailable
from nbiot.signing import Secret, secret_from
from nbiot.station import recipe as recipes
from nbiot.station.board import Board, StationView
from nbiot.station.places import Place, RigPlace
from nbiot.station.reasons import reason as why
from nbiot.station.record import Outcome, Record
from nbiot.station.slots import SlotRunner
from nbiot.station.work import Services, finished

if TYPE_CHECKING:
    from nbiot.station.config import Config, Rest
    from nbiot.station.labels import Printer
    from nbiot.station.outbox import Outbox
    from nbiot.station.rest import EnosRest
    from nbiot.station.store import StationRow, Store

log = logging.getLogger("nbiot.station")

POLL = 0.5  # s between two looks at the ports
HEALTH = 5.0  # s between two looks at the database
PRUNE_AFTER = 200  # runs
SELECTED = 30.0  # s for which a slot's own barcode chooses the slot


class Station:
    """One station. Entering takes the state folder, opens store and outbox, and cleans up after a
    station that was killed.

    places: where boards sit, instead of the configuration's slots
    clock:  seconds since 1970
    poll:   s between two looks at the ports

    Entering raises StationError (the station runs already), VaultError, StoreUnavailable,
    BadInput, SecretUnavailable.
    """

    board: Board
    store: Store

    def __init__(
        self,
        config: Config,
        recipe: recipes.Recipe,
        *,
        places: Sequence[Place] | None = None,
        operator: str = "",
        clock: Callable[[], float] = time.time,
        poll: float = POLL,
        health: float = HEALTH,
        lease: float | None = None,
    ) -> None:
        check_together(config, recipe)
        self.config = config
        self.recipe = recipe
        self.recipe_name = recipe.name
        self.may_skip = frozenset(phase.name for phase in recipe.phases if phase.may_skip)
        self.operator = operator
        self._places = list(places) if places is not None else places_of(config)
        self._clock = clock
        self._poll = poll
        self._health = health
        self._lease = lease
        self._stack = AsyncExitStack()
        self._slots: dict[str, SlotRunner] = {}
        self._selected: tuple[str, float] = ("", 0.0)
        self._refresh = asyncio.Event()
        self._runs = 0  # since traces were pruned
        self._printer: Printer | None = None
        self._outbox: Outbox

    # --- opening ----------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await self._open(stack)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _open(self, stack: AsyncExitStack) -> None:
        from nbiot.station.outbox import Outbox

        config = self.config
        outbox = Outbox(config.state / "outbox.db", station=config.name, clock=self._clock)
        self._outbox = await stack.enter_async_context(outbox)
        self.store = await stack.enter_async_context(await asyncio.to_thread(store_of, config))
        await self.store.start()
        for record in outbox.cut:
            log.warning("the run %s in slot %s was cut", record.id, record.slot)
        self._printer = await asyncio.to_thread(printer_of, config)
        services = await self._services(stack)
        self.board = Board(
            StationView(config.name, self.recipe.name), [p.slot.name for p in self._places]
        )
        self._slots = {
            place.slot.name: SlotRunner(
                place,
                services,
                self.recipe,
                self._outbox,
                self.board,
                clock=self._clock,
                ended=self._ended,
            )
            for place in self._places
        }
        await self._prune()

    async def _services(self, stack: AsyncExitStack) -> Services:
        config = self.config
        registrar = None
        if config.rest is not None:
            made = await asyncio.to_thread(registrar_of, config.rest)
            registrar = await stack.enter_async_context(made)
        timing = None
        if config.ack_timeout is not None:
            response = max(1.0, 6 * config.ack_timeout)
            timing = Timing(ack_timeout=config.ack_timeout, response_timeout=response)
        services = Services(
            station=config.name,
            store=self.store,
            outbox=self._outbox,
            server=config.server,
            product_key=config.product_key,
            registrar=registrar,
            lifetime=config.lifetime,
            timing=timing,
            print=self._print if self._printer is not None else None,
            traces=config.state / "traces" if config.traces else None,
        )
        if self._lease is not None:
            services.lease = self._lease
        return services

    # --- running ----------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled. Runs that are on are stopped then, and their boards let go."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._deliver(), name="outbox")
            tasks.create_task(self._watch_ports(), name="ports")
            tasks.create_task(self._look_after(), name="health")
            for slot in self._slots.values():
                tasks.create_task(slot.live(), name=f"slot {slot.name}")

    async def _deliver(self) -> None:
        """The outbox, which must never end the station."""
        while True:
            try:
                await self._outbox.run(_Unhurried(self.store), self.board)
            except NbiotError as error:
                log.error("the outbox: %s", error)
            except Exception:
                log.exception("the outbox")
            await asyncio.sleep(self._health)

    async def _watch_ports(self) -> None:
        while True:
            found = await asyncio.to_thread(_looked, self._places)
            for name, present in found.items():
                self._slots[name].look(present)
            await asyncio.sleep(self._poll)

    async def _look_after(self) -> None:
        """Keep the station's view true, and tell the line that this station is there."""
        while True:
            self._refresh.clear()
            try:
                await finished(self._look_at_store())
                self.board.update_station(database=True)
                if self._runs >= PRUNE_AFTER:
                    await self._prune()
            except StoreUnavailable:
                self.board.update_station(database=False)
            except NbiotError as error:
                log.error("the database: %s", error)
            except Exception:
                log.exception("the database")
            with suppress(TimeoutError):
                async with asyncio.timeout(self._health):
                    await self._refresh.wait()
            await asyncio.sleep(min(0.2, self._health))  # many boards may end at once

    async def _prune(self) -> None:
        self._runs = 0
        if self.config.traces:
            folder = self.config.state / "traces"
            await asyncio.to_thread(_pruned, folder, self.config.traces)

    async def _look_at_store(self) -> None:
        free = None
        if self.config.rest is None:
            free = await self.store.free(product_key=self.config.product_key)
        today = await self.store.today(_midnight(self._clock()))
        self.board.update_station(
            passed=today.passed,
            failed=today.failed,
            seconds_per_unit=today.seconds,
            free=free,
        )
        await self.store.report_in(self.board.station, list(self.board.slots.values()))

    def _ended(self, record: Record) -> None:
        """A run ended; the database hears of it through the outbox."""
        code = record.reason.code if record.reason else "-"
        who = (record.imei or "no IMEI", record.device_key or "no identity", code)
        log.info("slot %s: %s, %s, %s, %s", record.slot, record.outcome.value, *who)
        self._runs += 1
        if not self.board.station.database:  # count by ourselves meanwhile
            passed = record.outcome is Outcome.PASS
            view = self.board.station
            self.board.update_station(
                passed=view.passed + passed, failed=view.failed + (not passed)
            )
        self._refresh.set()

    # --- what operators do ------------------------------------------------------------------

    async def scan(self, text: str, slot: str | None = None) -> str:
        """A serial number was scanned; the name of the slot that it went to.

        Without ``slot`` it goes to the slot whose own barcode (its name) was scanned just before,
        or to the one that waits. Raises BadInput, StationError.
        """
        text = text.strip()
        if slot is None and text in self._slots:
            self._selected = (text, self._clock() + SELECTED)
            return text
        serial_number = self.recipe.check_serial_number(text)
        name = slot or self._scanned_for()
        for other in self._slots.values():
            used = self.board.slots[other.name]
            busy = other.run is not None or other.serial_number
            if other.name != name and busy and used.serial_number == serial_number:
                raise StationError(
                    f"the board in slot {other.name} has the serial number {serial_number}",
                    hint="Scan the label of the board in your hand.",
                )
        self._slot(name).scan(serial_number)
        self._selected = ("", 0.0)
        return name

    def _scanned_for(self) -> str:
        name, until = self._selected
        if name and self._clock() < until:
            return name
        waiting = [slot.name for slot in self._slots.values() if slot.waiting]
        if len(waiting) == 1:
            return waiting[0]
        if not waiting:
            raise StationError(
                "no board waits for a serial number", hint="Put a board in first, then scan it."
            )
        raise StationError(
            f"boards in slots {', '.join(waiting)} wait for their serial numbers",
            hint="Scan the slot's own barcode first, then the board's.",
        )

    async def start(self, slot: str) -> None:
        """Run the board in ``slot``. Raises StationError, BadInput."""
        found = self._slot(slot)
        found.operator = self.operator
        found.start()

    async def retry(self, slot: str) -> None:
        """Run the board in ``slot`` again. Raises StationError, BadInput."""
        await self.start(slot)

    async def stop(self, slot: str) -> None:
        """End the run in ``slot``. Raises StationError, BadInput."""
        self._slot(slot).stop(why("stopped", "the operator stopped it", "Press Retry."))

    async def skip(self, slot: str, reason: str, phase: str | None = None) -> None:
        """Leave a phase of the run in ``slot`` out, the present one when none is named.

        Only phases that the recipe allows to be skipped. Raises StationError, BadInput.
        """
        words = reason.strip()
        if not words:
            raise BadInput("reason", reason, "some words: why is it skipped?")
        said = why("skipped", f"skipped: {words[:200]}", reason=words[:200])
        self._slot(slot).skip(phase, said)

    async def switch_off(self, slot: str) -> None:
        """Take ``slot`` out of use. Raises BadInput."""
        self._slot(slot).switch(False, why("stopped", "the slot was switched off"))

    async def switch_on(self, slot: str) -> None:
        """Take ``slot`` into use again. Raises BadInput."""
        self._slot(slot).switch(True, why("stopped", ""))

    async def print_label(self, record_id: str, copies: int = 1) -> None:
        """Print the label of a run. Raises PrinterError, BadInput, StoreUnavailable."""
        if self._printer is None:
            raise _no_printer()
        if type(copies) is not int or not 1 <= copies <= 20:
            raise BadInput("copies", copies, "1 to 20")
        labels = await _labels()
        await self._printer.print(labels.Label.of(await self._known_record(record_id)), copies)

    async def label_png(self, record_id: str) -> bytes:
        """What the label of a run looks like. Raises BadInput, StoreUnavailable."""
        labels, paper = await _labels(), self.config.paper
        label = labels.Label.of(await self._known_record(record_id))
        size = labels.Size(paper.width, paper.height)
        picture: bytes = await asyncio.to_thread(labels.png, label, size, paper.dpi)
        return picture

    async def history(self, search: str = "", limit: int = 50, before: Any = None) -> list[Record]:
        """Records, newest first; ``before``: id of the last one of the page before.

        Raises StoreUnavailable.
        """
        return await self.store.records(search=search, limit=limit, before=before)

    async def record(self, record_id: str) -> Record | None:
        """One record, also one that is not delivered yet. Raises StoreUnavailable."""
        waiting = await self._outbox.find(record_id)
        return waiting if waiting is not None else await self.store.record(record_id)

    async def stations(self) -> list[StationRow]:
        """All stations of the line, as they last reported. Raises StoreUnavailable."""
        return await self.store.stations()

    async def _known_record(self, record_id: str) -> Record:
        found = await self.record(record_id)
        if found is None:
            raise BadInput("record", record_id, "the id of a run of this line")
        return found

    def _slot(self, name: str) -> SlotRunner:
        found = self._slots.get(name)
        if found is None:
            raise BadInput("slot", name, ", ".join(self._slots))
        return found

    async def _print(self, facts: dict[str, Any], copies: int) -> None:
        """The label of a run that is not over yet."""
        from datetime import datetime

        if self._printer is None:
            raise _no_printer()
        label = (await _labels()).Label(
            imei=str(facts["imei"]),
            device_key=str(facts.get("device_key") or ""),
            product_key=str(facts.get("product_key") or ""),
            serial_number=str(facts.get("serial_number") or ""),
            model=str(facts.get("model") or ""),
            firmware=str(facts.get("firmware") or ""),
            when=datetime.fromtimestamp(self._clock()).astimezone(),
        )
        await self._printer.print(label, copies)


class _Unhurried:
    """The store, for the outbox: what is being delivered when the station stops is delivered."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def deliver(self, record: Record) -> Any:
        """See Store.deliver."""
        return await finished(self._store.deliver(record))


# --- parts ------------------------------------------------------------------------------------


def places_of(config: Config) -> list[Place]:
    """The slots of the configuration as places."""
    detects = {"auto": None, "detected": True, "operator": False}[config.boards]
    return [RigPlace(slot, detects=detects) for slot in config.slots]


def check_together(config: Config, recipe: recipes.Recipe) -> None:
    """Raises BadInput where recipe and station file do not fit."""
    if recipe.first(recipes.Authenticate) and config.server is None:
        raise BadInput(
            "enos",
            "no table [enos] in the station file",
            "where EnOS is",
            hint=f'The recipe {recipe.name} authenticates. Write: [enos] host = "abc.def.com"',
        )
    if recipe.first(recipes.Label) and config.printer is None:
        raise BadInput(
            "printer",
            "no printer in the station file",
            "zpl://HOST, cups://QUEUE or file:FOLDER",
            hint=f"The recipe {recipe.name} prints labels.",
        )


def store_of(config: Config, *, create: bool = False) -> Store:
    """The store of the configuration, not entered. Blocks. Raises BadInput, VaultError."""
    from sqlalchemy import make_url

    from nbiot.station.store import Store, database_url
    from nbiot.station.vault import Vault

    password: Secret | None = secret_from(config.password) if config.password else None
    if config.path is None:  # made by a program: no environment variable goes before it
        url = make_url(config.database)
    else:
        url = database_url(config.database, password=password)
    return Store(url, Vault.open(config.vault), station=config.name, create=create)


def registrar_of(rest: Rest) -> EnosRest:
    """EnOS's REST interface, not entered. Blocks (imports, a secret). Raises SecretUnavailable."""
    from nbiot.station.rest import EnosRest

    return EnosRest(rest.address, rest.org_id, rest.access_key, secret_from(rest.secret_key))


def printer_of(config: Config) -> Printer | None:
    """The printer of the configuration. Raises BadInput."""
    if config.printer is None:
        return None
    from nbiot.station.labels import Size, printer_from

    paper = config.paper
    return printer_from(config.printer, size=Size(paper.width, paper.height), dpi=paper.dpi)


async def _labels() -> Any:
    """The package of labels, which takes a while and 10 MB to load."""
    return await asyncio.to_thread(import_module, "nbiot.station.labels")


def _no_printer() -> PrinterError:
    return PrinterError(
        "this station has no printer",
        hint='Name one in the station file: printer = "zpl://HOST:9100"',
    )


def _looked(places: Iterable[Place]) -> dict[str, bool]:
    found = {}
    for place in places:
        try:
            found[place.slot.name] = place.present()
        except Exception:  # whatever it is: the other slots go on
            log.exception("slot %s cannot be looked at", place.slot.name)
            found[place.slot.name] = False
    return found


def _midnight(now: float) -> float:
    """When the local day began."""
    today = time.localtime(now)
    return time.mktime((today.tm_year, today.tm_mon, today.tm_mday, 0, 0, 0, 0, 0, -1))


def _pruned(folder: Path, kept: int) -> None:
    """Delete all traces but the newest."""
    traces = sorted(folder.glob("*.jsonl"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in traces[kept:]:
        path.unlink(missing_ok=True)


__all__ = [
    "Station",
    "check_together",
    "places_of",
    "printer_of",
    "registrar_of",
    "store_of",
]
