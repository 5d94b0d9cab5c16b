"""Many software modems in one event loop, each on a port of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from .engine import Modem
from .line import LineModem
from .network import Network
from .options import Options
from .port import PtyModem
from .rfc2217 import Rfc2217Modem
from .tcp import TcpModem

PortKind = Literal["pty", "tcp", "rfc2217"]
BREATH = 10
"""So many modems are started in one turn of the loop: it must not stand still."""


class Emulators:
    """Serve `count` modems: `async with Emulators("bc95", 200) as many: print(many.urls)`.

    Each has its own IMEI, IMSI and ICCID, counted on from those in `options`, and its own seeds.
    `network` is shared by all of them, unless it is a function that makes one for each. TCP ports
    count on from `first_port`; 0: any free ones.
    """

    def __init__(
        self,
        model: str,
        count: int,
        options: Options | None = None,
        network: Network | Callable[[int], Network] | None = None,
        *,
        port: PortKind = "pty",
        host: str = "127.0.0.1",
        first_port: int = 0,
    ) -> None:
        self._model, self._count = model, count
        self._options = options or Options()
        self._network = network or Network()
        self._kind, self._host, self._first_port = port, host, first_port
        self.ports: list[LineModem] = []

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            for index in range(self._count):
                self.ports.append(await stack.enter_async_context(self._make(index)))
                if index % BREATH == BREATH - 1:
                    await asyncio.sleep(0)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stack.aclose()
        self.ports.clear()

    def _make(self, index: int) -> LineModem:
        network = self._network
        network = network if isinstance(network, Network) else network(index)
        options = numbered(self._options, index)
        port = self._first_port + index if self._first_port else 0
        return serve(self._model, options, network, port=self._kind, host=self._host, number=port)

    def __len__(self) -> int:
        return len(self.ports)

    def __iter__(self) -> Iterator[LineModem]:
        return iter(self.ports)

    def __getitem__(self, index: int) -> LineModem:
        return self.ports[index]

    @property
    def urls(self) -> list[str]:
        """Where hosts find them."""
        return [port.url for port in self.ports]

    @property
    def modems(self) -> list[Modem]:
        return [port.modem for port in self.ports]


def serve(
    model: str,
    options: Options | None = None,
    network: Network | None = None,
    *,
    port: PortKind = "pty",
    host: str = "127.0.0.1",
    number: int = 0,
) -> LineModem:
    """One modem on a port of this kind, to be entered with `async with`."""
    if port == "pty":
        return PtyModem(model, options, network)
    kind = Rfc2217Modem if port == "rfc2217" else TcpModem
    return kind(model, options, network, host=host, port=number)


def numbered(options: Options, index: int) -> Options:
    """The same with the numbers, seeds and memory of another module; 0 = itself."""
    if index == 0:
        return options
    if options.nv is not None and not isinstance(options.nv, Path):
        raise ValueError("nv: a dict holds the settings of one modem; allowed for many: a file")
    return replace(
        options,
        imei=_next_imei(options.imei, index),
        imsi=_counted(options.imsi, index),
        iccid=_counted(options.iccid, index),
        nv=options.nv and options.nv.with_stem(f"{options.nv.stem}-{index}"),
        chunk_seed=_shifted(options.chunk_seed, index),
        urc_seed=_shifted(options.urc_seed, index),
    )


def _shifted(seed: int | None, index: int) -> int | None:
    return None if seed is None else seed + index


def _counted(digits: str, index: int) -> str:
    """`0099`, 2 -> `0101`: as many digits as before."""
    size = len(digits)
    return f"{(int(digits) + index) % 10**size:0{size}}" if digits.isdigit() else digits


def _next_imei(imei: str, index: int) -> str:
    """The last digit checks the others (Luhn)."""
    if not imei.isdigit() or len(imei) != 15:
        return imei
    body = _counted(imei[:14], index)
    return body + str(_luhn(body))


def _luhn(body: str) -> int:
    doubled = [int(digit) * 2 for digit in body[::-1][::2]]
    total = sum(value // 10 + value % 10 for value in doubled)
    total += sum(int(digit) for digit in body[::-1][1::2])
    return -total % 10
