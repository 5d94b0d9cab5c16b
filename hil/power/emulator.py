"""Backend ``emulator``: supply or reset pin of the software modem that ``hosted`` runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hil.hosting import modem_of
from nbiot.errors import BadInput

if TYPE_CHECKING:
    from hil.emulator import LineModem
    from hil.rig import Slot


@dataclass
class EmulatorPower:
    """Supply or reset pin of the software modem that ``hosted`` runs in this process."""

    slot: Slot
    role: str = "power"

    def __post_init__(self) -> None:
        if not self.slot.emulated:
            raise BadInput("backend", "emulator", "emulator for ports emulator:... only")

    @staticmethod
    def is_for(slot: Slot) -> bool:
        """Whether there is something to be switched now."""
        return slot.emulated and modem_of(slot) is not None

    async def on(self) -> None:
        """Supply on, or RESET pulled."""
        line = self._line()
        if self.role == "reset":
            line.modem.pins.pull("reset", True)
        elif not line.modem.powered:
            line.modem.power_on()

    async def off(self) -> None:
        """Supply off, or RESET let go."""
        line = self._line()
        if self.role == "reset":
            line.modem.pins.pull("reset", False)
        elif line.modem.powered:
            line.modem.power_off()

    def _line(self) -> LineModem:
        from hil.power import PowerError

        line = modem_of(self.slot)
        if line is None:
            raise PowerError(
                f"the modem of slot {self.slot.name} is not running in this process",
                hint="An emulated modem lives as long as hosted(slot) is entered.",
            )
        return line
