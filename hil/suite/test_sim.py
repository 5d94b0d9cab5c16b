"""What is wrong with a SIM is told as that."""

from __future__ import annotations

import pytest

from hil.bench import Bench
from nbiot.errors import SimLocked, SimMissing

pytestmark = [pytest.mark.hil, pytest.mark.asyncio, pytest.mark.needs("emulator")]


async def test_no_sim(bench: Bench) -> None:
    """No SIM is told as that, with what to try"""
    async with bench.open(attach=False, attached=False, sim="absent") as modem:
        with pytest.raises(SimMissing) as caught:
            await modem.attach(timeout=5)
        assert caught.value.hint


async def test_sim_with_pin(bench: Bench) -> None:
    """A SIM that wants its PIN is told as that, and no PIN is tried"""
    async with bench.open(attach=False, attached=False, sim="pin") as modem:
        # The oldest BC95 firmware says no more than that it cannot read the SIM.
        with pytest.raises((SimLocked, SimMissing)):
            await modem.attach(timeout=5)
        sent = [line for line in bench.pty.modem.counters.commands if "+CPIN=" in line]
        assert not sent, f"the driver tried a PIN: {sent}"
