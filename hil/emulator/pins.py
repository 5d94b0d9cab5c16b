"""The pins of a modem that are not its UART, and which serial line is wired to which of them.

Every pin is active while it is pulled low, as by a transistor behind DTR or RTS.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .clock import Handle

if TYPE_CHECKING:
    from .engine import Modem

LINES = ("dtr", "rts")
PINS: dict[str, dict[str, float]] = {
    # HiSilicon has no PWRKEY and no wake pin (facts 1.11); 100 ms: Quectel's hardware manuals,
    # from memory.
    "hisilicon": {"reset": 0.1, "power": 0.0},
    # PSM_EINT: a driver that wakes genuine modules pulls it for 100 ms (facts 1.1). PWRKEY and
    # RESET: Quectel's hardware manuals, from memory.
    "mt2625": {"reset": 0.05, "psm_eint": 0.1, "pwrkey": 0.5, "power": 0.0},
}
"""Pins by family, with the shortest pulse that counts, in s."""


class BadWiring(ValueError):
    """A wiring that this model cannot have."""


class Pins:
    """The pins of one modem.

    `reset`: held low, the modem is off; let go, it boots. `psm_eint`: ends deep sleep. `pwrkey`:
    switches a modem on that is off, and ends deep sleep. `power`: the supply, on while active.
    """

    def __init__(self, modem: Modem) -> None:
        self._modem = modem
        self.known = PINS.get(modem.FAMILY, {})
        self._wires = [self._wire(*pair) for pair in modem.options.wiring.items()]
        self._low: dict[str, bool] = {}
        self._waits: dict[str, Handle] = {}

    def _wire(self, line: str, target: str) -> tuple[str, str, bool]:
        pin = target.lower().removeprefix("!")
        if line.lower() not in LINES:
            raise BadWiring(f"wiring {line}={target}: allowed lines: {', '.join(LINES)}")
        if pin not in self.known:
            name = self._modem.model.name
            raise BadWiring(f"wiring {line}={target}: pins of {name}: {', '.join(self.known)}")
        return line.lower(), pin, target.startswith("!")

    def set_line(self, line: str, on: bool) -> None:
        """A control line of the port changed."""
        for wired, pin, inverted in self._wires:
            if wired == line:
                self.pull(pin, on is not inverted)

    def pull(self, pin: str, low: bool) -> None:
        """Pull a pin low, or let it go."""
        if self._low.get(pin, False) == low:
            return
        self._low[pin] = low
        wait = self._waits.pop(pin, None)
        if wait is not None:
            wait.cancel()
        if low and self.known[pin]:
            clock, speed = self._modem.clock, self._modem.options.speed
            self._waits[pin] = clock.call_later(self.known[pin] / speed, lambda: self._long(pin))
        elif low:
            self._long(pin)
        else:
            self._let_go(pin, was_long=wait is None)

    def _long(self, pin: str) -> None:
        """A pin was low for long enough."""
        self._waits.pop(pin, None)
        modem = self._modem
        if pin == "reset":
            modem.power_off()
        elif pin == "psm_eint":
            modem.wake()
        elif not modem.powered:
            modem.power_on()
        elif pin == "pwrkey":
            modem.wake()

    def _let_go(self, pin: str, *, was_long: bool) -> None:
        if pin == "reset" and was_long:
            self._modem.reset()
        elif pin == "power":
            self._modem.power_off()

    def close(self) -> None:
        for wait in self._waits.values():
            wait.cancel()
        self._waits.clear()
