"""Software NB-IoT modems that behave as captures of the real ones do.

`PtyModem` serves one on a pseudo terminal; `create` makes one without a port. The emulator
shares nothing with the driver: it is written from captures and vendor manuals alone, and what
no capture shows is marked `from_manual` in its source.
"""

from .clock import Clock, ManualClock
from .engine import Counters, Model, Modem, State
from .models import MODELS, create
from .network import Neighbour, Network, ScriptedWire, Signal, UdpWire
from .options import Options
from .port import PtyModem
from .seam import Executed, Happening, Kind, Piece, Restart, Seam, Traffic, Truth, Urc

__all__ = [
    "MODELS",
    "Clock",
    "Counters",
    "Executed",
    "Happening",
    "Kind",
    "ManualClock",
    "Model",
    "Modem",
    "Neighbour",
    "Network",
    "Options",
    "Piece",
    "PtyModem",
    "Restart",
    "ScriptedWire",
    "Seam",
    "Signal",
    "State",
    "Traffic",
    "Truth",
    "UdpWire",
    "Urc",
    "create",
]
