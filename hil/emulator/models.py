"""The software modems by name."""

from __future__ import annotations

from collections.abc import Callable

from .clock import Clock
from .engine import Model, Modem
from .hisilicon import HISILICON_MODELS
from .mt2625 import MT2625_MODELS
from .network import Network
from .options import Options

MODELS: dict[str, Model] = {model.name: model for model in (*HISILICON_MODELS, *MT2625_MODELS)}


def build(
    model: str, options: Options, network: Network, send: Callable[[bytes], None], clock: Clock
) -> Modem:
    """Make a modem that is still switched off."""
    kind = MODELS[model]
    return kind.engine(kind, options, network, send, clock)


def create(
    model: str,
    options: Options | None = None,
    network: Network | None = None,
    *,
    send: Callable[[bytes], None],
    clock: Clock,
) -> Modem:
    """Make a modem without a port and switch it on; `receive` takes the host's bytes.

    `clock` is asyncio's running loop or a `ManualClock`; `send` gets what the modem writes.
    """
    modem = build(model, options or Options(), network or Network(), send, clock)
    try:
        modem.start()
    except BaseException:
        modem.close()
        raise
    return modem
