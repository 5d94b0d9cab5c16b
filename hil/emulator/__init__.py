"""Software NB-IoT modems that behave as captures of the real ones do.

`PtyModem` serves one on a pseudo terminal, `TcpModem` and `Rfc2217Modem` on a TCP port,
`Emulators` many of them; `create` makes one without a port. The emulator shares nothing with the
driver: it is written from captures and vendor manuals alone, and what no capture shows is marked
`from_manual` in its source.
"""

from .cells import Cell, Neighbour, Registration, Signal
from .clock import Clock, ManualClock
from .engine import AtError, BadParameter, Call, Counters, Model, Modem, State
from .line import LineModem
from .many import Emulators, serve
from .memory import BadMemory
from .models import MODELS, create
from .netfile import BadNetwork
from .network import Air, Network, ScriptedWire, UdpWire
from .options import Options
from .pins import PINS, BadWiring
from .port import PtyModem
from .recent import Recent
from .rfc2217 import Rfc2217Modem
from .script import Script, ScriptError
from .seam import Executed, Happening, Kind, Piece, Restart, Seam, Traffic, Truth, Urc
from .tcp import TcpModem

__all__ = [
    "MODELS",
    "PINS",
    "Air",
    "AtError",
    "BadMemory",
    "BadNetwork",
    "BadParameter",
    "BadWiring",
    "Call",
    "Cell",
    "Clock",
    "Counters",
    "Emulators",
    "Executed",
    "Happening",
    "Kind",
    "LineModem",
    "ManualClock",
    "Model",
    "Modem",
    "Neighbour",
    "Network",
    "Options",
    "Piece",
    "PtyModem",
    "Recent",
    "Registration",
    "Restart",
    "Rfc2217Modem",
    "Script",
    "ScriptError",
    "ScriptedWire",
    "Seam",
    "Signal",
    "State",
    "TcpModem",
    "Traffic",
    "Truth",
    "UdpWire",
    "Urc",
    "create",
    "serve",
]
