"""The driver over each kind of port, to a software modem on its pty."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from pathlib import Path

import pytest

from hil.emulator import Options, PtyModem
from nbiot.link.serial import TRANSPORT_VARIABLE
from nbiot.modem import Modem
from tests.link.ser2net import requires_ser2net, ser2net

IMEI = "867997030000017"


@pytest.mark.parametrize("model", ["bc95-g", "bc66"])
@pytest.mark.parametrize(
    ("scheme", "accepter"),
    [
        ("direct", None),
        ("pyserial-asyncio", None),
        pytest.param("socket", "", marks=requires_ser2net),
        pytest.param("rfc2217", "telnet(rfc2217)", marks=requires_ser2net),
    ],
)
async def test_imei(
    model: str,
    scheme: str,
    accepter: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with PtyModem(model, Options(imei=IMEI, speed=20)) as pty:
        with ExitStack() as stack:
            if accepter is None:
                monkeypatch.setenv(TRANSPORT_VARIABLE, scheme)
                url = pty.path
            else:
                port, _ = stack.enter_context(ser2net(tmp_path, pty.path, accepter))
                url = f"{scheme}://127.0.0.1:{port}"
            async with asyncio.timeout(10), Modem(url) as modem:
                assert modem.port == url
                assert await modem.imei() == IMEI


@requires_ser2net
async def test_rate_is_found_through_rfc2217(tmp_path: Path) -> None:
    """A modem set to 115200 baud hears noise at 9600: the far port's rate is what is changed."""
    options = Options(imei=IMEI, speed=20, rate=115200, check_baud=True)
    async with PtyModem("bc95-g", options) as pty:
        with ser2net(tmp_path, pty.path) as (port, _):
            async with asyncio.timeout(20), Modem(f"rfc2217://127.0.0.1:{port}") as modem:
                assert modem.channel.link.baudrate == 115200
                assert await modem.imei() == IMEI
