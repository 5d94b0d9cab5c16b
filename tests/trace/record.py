"""Records the dialogues of ``replays`` anew: ``python -m tests.trace.record [NAME...]``.

For a driver that speaks differently on purpose. They are dialogues with the emulator, not with real
modems; real ones that users send stay as they are.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hil.cloud import Behaviour, Cloud
from hil.emulator import Network, Options, PtyModem
from hil.faults import with_faults
from nbiot.cli.trace import command
from nbiot.coap.exchange import Timing
from nbiot.enos import AuthLimit, Device, Server, authenticate
from nbiot.errors import NbiotError
from nbiot.modem import Modem
from nbiot.signing import Secret, SecretSigner
from nbiot.trace import FileTracer

from .samples import FOLDER

PRODUCT_KEY, SECRET = "KV315idW", "M3yy874uGY8INjEGddTR"
TIMING = Timing(ack_timeout=0.3, response_timeout=3.0)


@dataclass
class Scene:
    model: str
    options: dict[str, Any] = field(default_factory=dict)
    fault: str = ""
    behaviour: Behaviour = field(default_factory=Behaviour)
    secret: str = SECRET
    path: Literal["udp", "native"] = "udp"


SCENES = {
    "bc95-cold-auth": Scene("bc95", {"attached": False, "boot": "cold"}),
    "bc95-g-double-final": Scene("bc95-g", fault="double-final:probability=0.2,seed=2"),
    "bc95-g-late-final": Scene("bc95-g", fault="late-final:probability=0.1,delay=3,seed=1"),
    "bc95-g-sent-again": Scene("bc95-g", behaviour=Behaviour(lose_answers=1)),
    "bc66-attach-auth": Scene("bc66", {"attached": False}),
    "bc66-late-final": Scene("bc66", fault="late-final:probability=0.1,delay=3,seed=1"),
    "bc66-missing-final": Scene("bc66", fault="missing-final:probability=0.05,seed=2"),
    "bc66-native-refused": Scene("bc66", secret="another-secret", path="native"),
    "bc66-no-response": Scene("bc66", behaviour=Behaviour(silent=True)),
    "bc66-no-sim": Scene("bc66", {"sim": "absent"}),
    "bc66-urcs": Scene(
        "bc66", {"urc_seed": 5, "chunk_seed": 5, "urc_rate": 0.5, "early_urcs": True}
    ),
}


async def record(scene: Scene, path: Path) -> None:
    """Play ``scene`` once and trace it."""
    options = Options(**({"speed": 5.0, "attached": True} | scene.options))
    if scene.fault:
        options = with_faults(scene.fault, options, model=scene.model)
    rate = 115200 if scene.model == "bc66" else 9600
    tracer = FileTracer(path, time.monotonic, port=f"emulator:{scene.model}", baudrate=rate)
    async with (
        Cloud({(PRODUCT_KEY, options.imei): SECRET}) as cloud,
        PtyModem(scene.model, options, Network()) as pty,
    ):
        cloud.behaviour = scene.behaviour
        with suppress(NbiotError):
            async with Modem(pty.path, baudrate=rate, tracer=tracer) as modem:
                await modem.attach(timeout=20)
                signer = SecretSigner(Secret(scene.secret))
                device = Device(PRODUCT_KEY, await modem.imei(), signer)
                server = Server(cloud.host, cloud.port)
                await authenticate(
                    modem, device, server, path=scene.path, timing=TIMING, limit=AuthLimit()
                )
    tracer.close()


def main(names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name in names or SCENES:
            path = Path(folder) / f"{name}.jsonl"
            asyncio.run(record(SCENES[name], path))
            out = str(FOLDER / path.name)
            command.main(["to-test", str(path), out], standalone_mode=False)


if __name__ == "__main__":
    main(sys.argv[1:])
