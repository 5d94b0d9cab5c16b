"""Making a slot's port usable: running its software modem, or acquiring its labgrid place."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from nbiot.errors import NbiotError, PortBusy

if TYPE_CHECKING:
    from hil.emulator import LineModem, Network, Options
    from hil.rig import Slot

_running: dict[tuple[str, str], LineModem] = {}


@asynccontextmanager
async def hosted(
    slot: Slot,
    *,
    settings: tuple[str, Options, Network] | None = None,
    on_lost: Callable[[NbiotError], None] | None = None,
) -> AsyncIterator[str]:
    """The port of ``slot`` for a Modem, as long as this is entered.

    An emulated slot: its modem runs in this process, and ``power_of`` and ``reset_of`` reach it;
    with ``settings`` (model, options, network) instead of those that the slot's port names.
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
    from hil.emulator import serve
    from hil.link import emulator_settings, port_kind

    key = (slot.name, slot.port)
    if key in _running:
        raise PortBusy(f"the modem of slot {slot.name} is running already in this process")
    rest = slot.port.partition(":")[2]
    async with serve(*(settings or emulator_settings(rest)), port=port_kind(rest)) as modem:
        _running[key] = modem
        try:
            yield modem.url
        finally:
            del _running[key]


def modem_of(slot: Slot) -> LineModem | None:
    """The software modem that ``hosted`` runs for this slot: its truth, its faults."""
    return _running.get((slot.name, slot.port))
