"""Software modems as a real rig has them: elsewhere, on TCP and RFC 2217 ports, with a relay each.

    python -m tests.hil.servers rig.toml    # prints what to type elsewhere; Ctrl-C ends it

To whom tests them they are real modems: nothing of them is in reach but port, supply, EnOS's
stand-in and an echo server.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from hil.cloud import Cloud
from hil.emulator import Emulators, Options
from hil.emulator.engine import Modem

MODELS = ("bc95", "bc95-g", "bc66")
KINDS = {"tcp": "socket", "rfc2217": "rfc2217"}
IMEIS = [f"86772603004{number:04}" for number in range(1, 7)]
PRODUCT_KEY = "KV315idW"
SECRET = "M3yy874uGY8INjEGddTR"
SPEED = 100.0

SLOT = """
[slot.{name}]
port = "{port}"
modem = "{model}"
server = "{server}"
product_key = "{product_key}"
secret = "file:{secret}"
power = {{ backend = "http", on_url = "{relay}/{index}/1", off_url = "{relay}/{index}/0" }}
"""


class Echo(asyncio.DatagramProtocol):
    """Sends back what comes."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, peer: Any) -> None:
        self.transport.sendto(data, peer)


@asynccontextmanager
async def echo() -> AsyncIterator[str]:
    """Where it is."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Echo, local_addr=("127.0.0.1", 0))
    try:
        yield "{}:{}".format(*transport.get_extra_info("sockname"))
    finally:
        transport.close()


@asynccontextmanager
async def relay(modems: list[Modem]) -> AsyncIterator[str]:
    """The URL of an HTTP relay that switches them: /3/0 takes the fourth one's supply away."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode()
        _, index, value = path.split("/")
        modem = modems[int(index)]
        if (value == "1") != modem.powered:
            modem.power_on() if value == "1" else modem.power_off()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@asynccontextmanager
async def served(rig: Path) -> AsyncIterator[tuple[str, list[Modem]]]:
    """Write ``rig``, and run what it names. The address of the echo server, and the modems."""
    secret = rig.with_name("secret")
    secret.write_text(SECRET)
    async with AsyncExitStack() as stack:
        cloud = await stack.enter_async_context(
            Cloud({(PRODUCT_KEY, imei): SECRET for imei in IMEIS})
        )
        slots: list[tuple[str, str, str]] = []
        modems: list[Modem] = []
        for kind in KINDS:
            for model in MODELS:
                options = Options(imei=IMEIS[len(modems)], speed=SPEED, attached=True)
                many = Emulators(model, 1, options, port=kind)  # type: ignore[arg-type]
                (port,) = await stack.enter_async_context(many)
                slots.append((f"{model}-{kind}", port.url, model))
                modems.append(port.modem)
        url = await stack.enter_async_context(relay(modems))
        text = "".join(
            SLOT.format(
                name=name,
                port=port,
                model=model,
                server=f"{cloud.host}:{cloud.port}",
                product_key=PRODUCT_KEY,
                secret=secret,
                relay=url,
                index=index,
            )
            for index, (name, port, model) in enumerate(slots)
        )
        rig.write_text(text)
        for file in (rig, secret):
            file.chmod(0o600)
        yield await stack.enter_async_context(echo()), modems


async def main(rig: Path) -> None:
    async with served(rig) as (address, _):
        print(f"nbiot hil run --rig {rig} --echo {address}", flush=True)
        await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main(Path(sys.argv[1]).absolute()))
