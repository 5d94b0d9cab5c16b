"""A host that is killed at any moment leaves a modem that the next one can use."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys

import pytest

from hil.cloud import Cloud
from hil.emulator import Network, Options, PtyModem
from nbiot.modem import Modem

from .conftest import IMEI, MODELS, PRODUCT_KEY, SECRET

KILLS = int(os.environ.get("NBIOT_KILLS", "6"))  # of each modem
HOST = [sys.executable, "-m", "nbiot", "auth", "--product-key", PRODUCT_KEY, "--quiet"]


@pytest.mark.parametrize("seed", range(KILLS))
@pytest.mark.parametrize("model", MODELS)
async def test_a_fresh_start_works_after_a_kill(model: str, seed: int) -> None:
    environment = os.environ | {"NBIOT_DEVICE_SECRET": SECRET}
    rng = random.Random(f"{model} {seed}")
    async with (
        Cloud({(PRODUCT_KEY, IMEI): SECRET}) as cloud,
        PtyModem(model, Options(imei=IMEI, attached=True, speed=3.0), Network(latency=0.1)) as pty,
    ):
        args = ["--port", pty.path, "--server", f"{cloud.host}:{cloud.port}"]
        pipe = subprocess.PIPE
        first = await asyncio.create_subprocess_exec(
            *HOST, *args, env=environment, stdout=pipe, stderr=pipe
        )
        at = rng.randint(1, 22)  # the command before which it dies
        while len(pty.modem.counters.commands) < at and first.returncode is None:
            await asyncio.sleep(0.001)
        await asyncio.sleep(rng.random() * 0.01)
        if first.returncode is None:
            first.kill()
        await first.communicate()
        again = await asyncio.create_subprocess_exec(
            *HOST, *args, env=environment, stdout=pipe, stderr=pipe
        )
        said, told = await again.communicate()
        assert again.returncode == 0, told.decode()
        assert b"2.04" in said


async def test_a_data_mode_that_was_left_open_is_ended() -> None:
    async with PtyModem("bc66", Options(imei=IMEI, attached=True, speed=100), Network()) as pty:
        pty.modem.receive(b'AT+QIOPEN=1,0,"UDP","127.0.0.1",9,0,1\r')
        await asyncio.sleep(0.1)
        pty.modem.receive(b"AT+QISEND=0,1024\r")
        async with Modem(pty.path, model="bc66") as modem:
            assert await modem.imei() == IMEI
