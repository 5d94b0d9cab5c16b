"""The suite on software modems that it takes for real ones: TCP and RFC 2217, in another process.

The whole of it takes minutes, as EnOS allows four authentications in two: see tests/hil/servers.py.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

from tests.hil.servers import KINDS, MODELS, served

CHECKS = "test_good or test_every_byte or test_attach_again or test_the_imei or test_without_power"


@pytest.mark.unhygienic  # two processes that both want a processor
async def test_the_suite_over_tcp_and_rfc_2217(tmp_path: Path) -> None:
    rig = tmp_path / "rig.toml"
    async with served(rig) as (echo, modems):
        run = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "nbiot", "hil", "run", "--rig", str(rig), "--echo", echo),
            *("-k", CHECKS, "--json", "r.json"),
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await run.communicate()
        assert run.returncode == 0, said.decode()
        assert all(modem.counters.restarts for modem in modems), "a supply was never switched"
    found = json.loads((tmp_path / "r.json").read_text())
    slots = {f"{model}-{kind}" for kind in KINDS for model in MODELS}
    assert {slot["name"] for slot in found["slots"]} == slots
    assert not any(slot["emulated"] for slot in found["slots"])
    assert found["counts"] == {"failed": 0, "passed": 5 * len(slots), "skipped": 0}
