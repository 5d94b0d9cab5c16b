"""Backend ``gpio``: pins of a Raspberry Pi, by gpiozero (``pip install 'nbiot-driver[gpio]'``)."""

from __future__ import annotations

import asyncio
import re
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hil.power import MOST_SECONDS, PowerError, positive
from nbiot.errors import BadInput

if TYPE_CHECKING:
    from hil.rig import Slot

# Seconds that PWRKEY is pulled, by profile. For a BC66 0.5 is the least that counts, as the
# emulators have it (hil/emulator/pins.py: Quectel's hardware manuals, from memory). HiSilicon
# has none (facts/at-hisilicon.md 1.11).
PWRKEY_SECONDS = {"bc66": 0.7}


@dataclass
class GpioPower:
    """One pin, which is ``active`` "high" or "low" when on; its state ends with the process.

    ``pwrkey``: a second pin, active high like a transistor's base; pulled after each on.
    """

    pin: str
    slot: Slot
    active: str = "high"
    pwrkey: str | None = None
    pwrkey_seconds: float | None = None
    role: str = "power"

    lasting = False

    def __post_init__(self) -> None:
        for key in ("pin", "pwrkey"):
            value = getattr(self, key)
            if value is not None and not re.fullmatch(r"(GPIO|BCM|BOARD)\d{1,2}", value):
                allowed = '"GPIO17" (number of the chip) or "BOARD11" (number on the board)'
                raise BadInput(key, value, allowed)
        if self.active not in ("high", "low"):
            raise BadInput("active", self.active, '"high" or "low": what switches on')
        if self.pwrkey_seconds is not None:
            positive("pwrkey_seconds", self.pwrkey_seconds, MOST_SECONDS)
        elif self.pwrkey is not None and self.slot.modem not in PWRKEY_SECONDS:
            known = ", ".join(PWRKEY_SECONDS)
            allowed = f"no pwrkey, or pwrkey_seconds beside it, or modem = one of {known}"
            raise BadInput("pwrkey", self.pwrkey, allowed)
        self._held = ExitStack()
        self._output: Any = None
        self._key: Any = None

    async def __aenter__(self) -> GpioPower:
        try:
            await asyncio.to_thread(self._take)
        except BaseException:
            await asyncio.to_thread(self._held.close)
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self._held.close)

    def _take(self) -> None:
        try:
            from gpiozero import DigitalOutputDevice, GPIOZeroError
        except ImportError:
            raise PowerError(
                "the gpiozero package is not installed",
                hint="Type: pip install 'nbiot-driver[gpio]'",
            ) from None

        def output(pin: str, *, high: bool, on: bool | None) -> Any:
            device = DigitalOutputDevice(pin, active_high=high, initial_value=on)
            return self._held.enter_context(device)

        try:
            # A supply is taken as on, a reset line as let go: nothing changes by looking at it.
            self._output = output(self.pin, high=self.active == "high", on=self.role == "power")
            if self.pwrkey is not None:
                self._key = output(self.pwrkey, high=True, on=False)
        except (GPIOZeroError, OSError, ValueError) as error:
            raise PowerError(
                f"the pin {self.pin} cannot be used: {error}",
                hint="Is this a Raspberry Pi, the pin's name right and no other program using it?",
            ) from error

    async def on(self) -> None:
        """See hil.power.PowerSwitch."""
        self._output.on()
        if self._key is not None:
            seconds = self.pwrkey_seconds or PWRKEY_SECONDS[self.slot.modem]
            try:
                self._key.on()
                await asyncio.sleep(seconds)
            finally:
                self._key.off()

    async def off(self) -> None:
        """See hil.power.PowerSwitch."""
        self._output.off()
