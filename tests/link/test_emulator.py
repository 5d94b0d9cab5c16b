"""`emulator:MODEL?...`: what its options do, and what is refused."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from hil.link import FILES, OPTIONS, emulator_settings
from nbiot.errors import BadInput
from nbiot.link import open_link
from tests.link.far import Ear


async def heard(port: str, command: bytes, *, baudrate: int, seconds: float) -> bytes:
    """What comes within so many seconds."""
    link = await open_link(port, baudrate=baudrate)
    ear = Ear()
    link.start(ear)
    try:
        link.write(command)
        await asyncio.sleep(seconds)
    finally:
        await link.close()
    return bytes(ear.data)


@pytest.mark.parametrize("check", ["", "?check_baud=1"])
async def test_a_host_at_another_rate_sees_no_answer(check: str) -> None:
    assert b"OK" not in await heard(f"emulator:bc95{check}", b"AT\r", baudrate=115200, seconds=0.2)


async def test_the_rate_check_can_be_switched_off() -> None:
    said = await heard("emulator:bc95?check_baud=0", b"AT\r", baudrate=115200, seconds=0.2)
    assert said == b"\r\nOK\r\n"


async def test_a_modem_that_is_off_says_nothing() -> None:
    assert await heard("emulator:bc95?boot=off", b"AT\r", baudrate=9600, seconds=0.2) == b""


@pytest.mark.parametrize("name", [*OPTIONS, *FILES])
def test_every_option_names_what_is_allowed(name: str) -> None:
    with pytest.raises(BadInput) as refused:
        emulator_settings(f"bc95?{name}=\x00")
    allowed = FILES[name] if name in FILES else OPTIONS[name][1]
    assert refused.value.allowed == allowed
    assert refused.value.field == (name if name in FILES else "port")


def test_options_of_the_network_win_over_its_file(tmp_path: Path) -> None:
    path = tmp_path / "net.toml"
    path.write_text('[network]\nplmn = "26201"\nattach_delay = 3\n')
    for port in (f"latency=0.5&network={path}", f"network={path}&latency=0.5"):
        network = emulator_settings(f"bc95?{port}")[2]
        assert (network.plmn, network.attach_delay, network.latency) == ("26201", 3, 0.5)
