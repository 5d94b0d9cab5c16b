"""Backend ``usb-hub``: a USB hub that can switch its ports, by the program uhubctl."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hil.power import MOST_SECONDS, PowerError, positive
from hil.power.programs import run
from nbiot.errors import BadInput


@dataclass
class UsbHubPower:
    """``location`` and ``port`` as `uhubctl` without arguments prints them: "1-1.4" and 2."""

    location: str
    port: int
    program: str = "uhubctl"
    timeout: float = 10.0

    def __post_init__(self) -> None:
        positive("timeout", self.timeout, MOST_SECONDS)
        if not re.fullmatch(r"\d+(-\d+(\.\d+)*)?", self.location, re.ASCII):
            raise BadInput("location", self.location, 'a hub as uhubctl names it: "1-1.4"')
        if not 1 <= self.port <= 32:
            raise BadInput("port", self.port, "1 to 32")

    async def check(self) -> None:
        """See hil.power."""
        said = await self._uhubctl()
        if not re.search(rf"^\s*Port {self.port}:", said, re.M):
            raise PowerError(
                f"uhubctl knows no port {self.port} of hub {self.location}",
                hint="`uhubctl` without arguments lists the ports that can be switched.",
            )

    async def on(self) -> None:
        """See hil.power.PowerSwitch."""
        await self._uhubctl("-a", "on")

    async def off(self) -> None:
        """See hil.power.PowerSwitch. Many hubs need to be told several times."""
        await self._uhubctl("-a", "off", "-r", "100")

    async def _uhubctl(self, *what: str) -> str:
        command = [self.program, "-l", self.location, "-p", str(self.port), *what]
        return await run(command, seconds=self.timeout)
