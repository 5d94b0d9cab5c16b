"""A driver, a software modem on a real pseudo-terminal, and an EnOS stand-in over real UDP."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from hil.cloud import Cloud
from hil.emulator import Network, Options, PtyModem
from nbiot.coap.exchange import Timing
from nbiot.enos import AuthLimit, AuthResult, Device, Server, authenticate
from nbiot.modem import Modem
from nbiot.profile import Progress
from nbiot.signing import Secret, SecretSigner

PRODUCT_KEY = "KV315idW"
IMEI = "867726030047601"
SECRET = "M3yy874uGY8INjEGddTR"
SPEED = 100.0  # the modem's own waiting times are divided by this

MODELS = ("bc95", "bc95-g", "bc66")
PATHS = (("bc95", "udp"), ("bc95-g", "udp"), ("bc66", "udp"), ("bc66", "native"))


@dataclass
class Bench:
    """One modem with its driver, and the server it talks to."""

    modem: Modem
    pty: PtyModem
    cloud: Cloud
    steps: list[Progress] = field(default_factory=list)

    async def authenticate(self, *, secret: str = SECRET, **options: Any) -> AuthResult:
        device = Device(PRODUCT_KEY, await self.modem.imei(), SecretSigner(Secret(secret)))
        server = options.pop("server", Server(self.cloud.host, self.cloud.port))
        options.setdefault("timing", Timing(ack_timeout=0.3, response_timeout=3.0))
        return await authenticate(self.modem, device, server, limit=AuthLimit(), **options)

    def open_sockets(self) -> list[Any]:
        return [s for s in self.pty.modem.sockets.values() if s is not None]


class Dialogue:
    """Prints the AT dialogue; pytest shows it when the test fails."""

    def sent(self, data: bytes) -> None:
        print(f"{time.monotonic():.4f} > {data!r}")

    def heard(self, raw: bytes, kind: str) -> None:
        print(f"{time.monotonic():.4f} < {raw!r} {kind}")

    def note(self, text: str) -> None:
        print(f"{time.monotonic():.4f} - {text}")


OpenBench = Callable[..., AbstractAsyncContextManager[Bench]]


@pytest.fixture
def bench() -> OpenBench:
    @asynccontextmanager
    async def open_bench(
        model: str,
        *,
        network: Network | None = None,
        profile: str = "auto",
        baudrate: int | None = None,
        **options: Any,
    ) -> AsyncIterator[Bench]:
        steps: list[Progress] = []
        options = {"imei": IMEI, "speed": SPEED} | options
        async with (
            Cloud({(PRODUCT_KEY, IMEI): SECRET}) as cloud,
            PtyModem(model, Options(**options), network or Network()) as pty,
            Modem(
                pty.path, model=profile, baudrate=baudrate, report=steps.append, tracer=Dialogue()
            ) as modem,
        ):
            yield Bench(modem, pty, cloud, steps)

    return open_bench
