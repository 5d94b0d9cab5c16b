from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from hil.enos_rest import RestStandIn
from nbiot.signing import Secret
from nbiot.station.rest import EnosRest


@pytest.fixture
async def cloud() -> AsyncIterator[RestStandIn]:
    async with RestStandIn(most_devices=2000) as cloud:
        yield cloud


async def no_sleep(seconds: float) -> None:
    assert 0 < seconds < 10


def client(cloud: RestStandIn, **changes: Any) -> EnosRest:
    settings: dict[str, Any] = {
        "address": cloud.address,
        "org_id": cloud.org,
        "access_key": cloud.access_key,
        "secret_key": Secret(cloud.secret_key),
        "sleep": no_sleep,
        "clock": time.time,
        **changes,
    }
    names = ("address", "org_id", "access_key", "secret_key")
    positional = [settings.pop(name) for name in names]
    return EnosRest(*positional, **settings)
