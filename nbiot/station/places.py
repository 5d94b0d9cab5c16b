"""Where a board sits: its port, its supply, and how it is told whether one is in."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Protocol, Self

from nbiot.errors import NbiotError, PortError

if TYPE_CHECKING:
    from hil.power import PowerSwitch
    from hil.rig import Slot

log = logging.getLogger("nbiot.station")

USB = ("/dev/serial/", "/dev/nbiot/", "/dev/ttyUSB", "/dev/ttyACM")


class Place(Protocol):
    """Where a board sits. Entered for as long as the station lives.

    slot:    as in the rig file
    port:    what to open, once entered
    power:   the supply, where it can be switched
    detects: whether it is told when a board is put in or taken out
    fed:     whether its port may come and go with the supply
    """

    slot: Slot
    port: str
    power: PowerSwitch | None
    detects: bool
    fed: bool

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *_: object) -> None: ...

    def present(self) -> bool:
        """Is a board in? True where that is not told. Called in a thread."""

    def locked(self) -> Any:
        """A context manager, for a thread: nobody else uses the port meanwhile."""


class RigPlace:
    """A slot of the rig file. A board is in when its port is there."""

    def __init__(self, slot: Slot, *, detects: bool | None = None) -> None:
        self.slot = slot
        self.port = slot.port
        self.power: PowerSwitch | None = None
        self.fed = False
        # A board's own USB port comes and goes with it; a fixture's UART is always there.
        by_itself = slot.port.startswith(USB)
        self.detects = by_itself if detects is None else detects
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        from hil.hosting import hosted
        from hil.power import power_of

        async with AsyncExitStack() as stack:
            self.port = await stack.enter_async_context(hosted(self.slot, on_lost=self._lost))
            self.power = await stack.enter_async_context(power_of(self.slot))
            self.fed = self.power is not None
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def _lost(self, error: NbiotError) -> None:
        """labgrid took the place away; the next run finds that its port does not answer."""
        log.error("slot %s: %s", self.slot.name, error)

    def present(self) -> bool:
        """See Place."""
        return not self.port.startswith("/") or os.path.exists(self.port)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """See Place. Raises PortBusy."""
        from hil.lock import locked

        with locked(self.slot.port, unused=False):
            yield


async def is_gone(place: Place, error: NbiotError) -> bool:
    """Does ``error`` only say that the board was taken out?"""
    if not place.detects or not isinstance(error, PortError):
        return False
    return not await asyncio.to_thread(place.present)
