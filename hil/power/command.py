"""Backend ``command``: programs of the user's own."""

from __future__ import annotations

from dataclasses import dataclass

from hil.power import MOST_SECONDS, positive
from hil.power.programs import find, run


@dataclass
class CommandPower:
    """Runs one program for on, another for off: each a list of program and arguments, no shell."""

    on_command: tuple[str, ...]
    off_command: tuple[str, ...]
    timeout: float = 10.0

    def __post_init__(self) -> None:
        positive("timeout", self.timeout, MOST_SECONDS)

    async def check(self) -> None:
        """See hil.power."""
        find(self.on_command[0])
        find(self.off_command[0])

    async def on(self) -> None:
        """See hil.power.PowerSwitch."""
        await run(self.on_command, seconds=self.timeout)

    async def off(self) -> None:
        """See hil.power.PowerSwitch."""
        await run(self.off_command, seconds=self.timeout)
