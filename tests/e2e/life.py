"""A device's life on a bench: a session, and what it told."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

from nbiot.coap.exchange import Timing
from nbiot.enos import AuthLimit, Device, EnosSession, Server, StateChange
from nbiot.signing import Secret, SecretSigner

from .conftest import IMEI, PRODUCT_KEY, SECRET, Bench

FAST = Timing(ack_timeout=0.3, response_timeout=3.0)
DEVICE = (PRODUCT_KEY, IMEI)


def half_minutes() -> Callable[[], float]:
    """A clock that is 30 s further each time it is looked at."""
    return partial(next, itertools.count(30.0, 30.0))


class Life:
    """A session on a bench, and what it told."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.cloud = bench.cloud
        self.states: list[StateChange] = []
        self.steps: list[Any] = []
        self.session: EnosSession

    def open(self, *, lifetime: int = 3600, secret: str = SECRET, **options: Any) -> EnosSession:
        device = Device(PRODUCT_KEY, IMEI, SecretSigner(Secret(secret)), lifetime)
        options = {"timing": FAST, "limit": AuthLimit()} | options
        server = options.pop("server", None) or Server(self.cloud.host, self.cloud.port)
        return EnosSession(
            options.pop("carrier", self.bench.modem),
            device,
            server,
            on_state=self.states.append,
            report=self.steps.append,
            **options,
        )

    @property
    def seen(self) -> list[str]:
        """The states, in order."""
        return [change.state.value for change in self.states]

    @property
    def authentications(self) -> int:
        return sum(request.path[0] == "auth" for request in self.cloud.requests)
