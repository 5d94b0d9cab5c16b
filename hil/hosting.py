"""Making a slot's port usable: running its software modem, or acquiring its labgrid place."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from nbiot.errors import NbiotError, PortBusy

if TYPE_CHECKING:
    from hil.emulator import PtyModem
    from hil.rig import Slot

_running: dict[tuple[str, str], PtyModem] = {}


@asynccontextmanager
async def hosted(
    slot: Slot, *, on_lost: Callable[[NbiotError], None] | None = None
) -> AsyncIterator[str]:
    """The port of ``slot`` for a Modem, as long as this is entered.

    An emulated slot: its modem runs on a pty, and ``power_of`` and ``reset_of`` reach it.
    ``labgrid:PLACE``: the place is acquired; when labgrid takes it away meanwhile, ``on_lost`` is
    told, or else the task that entered is cancelled and gets the error (hil.labgrid.PlaceLost).
    Any other: the port as it stands.
    """
    if slot.port.startswith("labgrid:"):
        from hil.labgrid import acquired

        async with acquired(slot.port.removeprefix("labgrid:"), on_lost=on_lost) as url:
            yield url
        return
    if not slot.emulated:
        yield slot.port
        return
    from hil.emulator import PtyModem
    from hil.link import emulator_settings

    key = (slot.name, slot.port)
    if key in _running:
        raise PortBusy(f"the modem of slot {slot.name} is running already in this process")
    async with PtyModem(*emulator_settings(slot.port.removeprefix("emulator:"))) as pty:
        _running[key] = pty
        try:
            yield pty.path
        finally:
            del _running[key]


def modem_of(slot: Slot) -> PtyModem | None:
    """The software modem that ``hosted`` runs for this slot: its truth, its faults."""
    return _running.get((slot.name, slot.port))
