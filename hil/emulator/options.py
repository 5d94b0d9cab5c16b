"""What a test may choose about one software modem (the module, not the network)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from .seam import Seam

Direction = Literal["in", "out"]
Trace = Callable[[Direction, bytes, float], None]


@dataclass(kw_only=True)
class Options:
    """Settings of one modem; None means "as the model does by itself"."""

    imei: str = "867726030047601"
    imsi: str = "460043193006443"
    iccid: str = "89860317492039000001"
    firmware: str | None = None
    """Version text: `V100R100C10B657SP3` (HiSilicon), `BC66NBR01A11` (MediaTek)."""

    baud: int | None = None
    """Pace the serial port as this many bit/s would (10 bits a byte); None: do not pace."""
    rate: int | None = None
    """The UART's rate, bit/s. None: `baud` when given, else the model's default."""
    check_baud: bool | None = None
    """Answer garbage to a host that set its port to another rate than the modem's, and hear
    garbage from it. None: wherever the port can tell the host's rate (pty, RFC 2217)."""
    wiring: Mapping[str, str] = field(default_factory=dict)
    """Which lines of an RFC 2217 port reach which pin: `{"dtr": "reset", "rts": "psm_eint"}`.
    A line that is on pulls its pin low, `!reset`: a line that is off does. See `pins.PINS`."""
    keep: int = 1000
    """How many commands and events the modem remembers; the plain counters count all."""
    nv: Path | MutableMapping[str, Any] | None = None
    """Where non-volatile settings live: a file or a dict; None: they end with the modem."""
    script: Path | None = None
    """A Python file with `setup(modem)` that adds or changes commands; it may do anything."""
    chunk_seed: int | None = None
    """Seed: output leaves in random pieces of 1..8 bytes."""
    urc_seed: int | None = None
    """Seed: harmless URCs appear at random line boundaries, also inside answers."""
    urc_rate: float = 0.15
    """Chance (0..1) of such a URC at each line boundary."""
    urc_pool: Sequence[str] | None = None
    """The URCs to choose from; None: those that are legal in the modem's present state."""
    early_urcs: bool = False
    """URCs raised while a command runs come before its answer, not after its final result."""
    faults: Callable[[], Seam] | None = None
    """Makes what stands between the modem and the world (`hil.faults.with_faults`)."""
    on_bytes: Trace | None = None
    """Called with ("in" | "out", bytes, clock time) for every piece on the port."""

    speed: float = 1.0
    """Every wait of modem and network is divided by this; 1 is real time."""
    turnaround: float = 0.0
    """Seconds from the end of a command to its answer (field: about 0.004)."""
    boot: Literal["ready", "cold", "off"] = "ready"
    """`ready`: booted long ago. `cold`: power comes on now, the banner is printed. `off`: nothing
    happens before `power_on` or its pin."""
    attached: bool = False
    """Start attached, with an address. Otherwise detached (BC66: searching)."""
    sim: Literal["ready", "absent", "pin"] = "ready"
    pin: str = "1234"
    strict_sim: bool = False
    """HiSilicon: CGATT=1 fails, as CIMI does, until the SIM is up (facts 6.4; not always seen)."""
    stale_input: bytes = b""
    """Junk already in the line buffer: the first command line fails because of it."""
    echo: bool | None = None
    cmee: int = 0
    autoconnect: bool | None = None
    """NCONFIG AUTOCONNECT at the start (HiSilicon); None: TRUE, the factory setting."""
    bands: tuple[int, ...] | None = None
    first_socket: int | None = None
    """Lowest id NSOCR gives; None: 0 on V100, 1 on V150."""
    boot_cause: str | None = None
    """Reboot cause printed by a cold boot; None: as the model does."""
    busy: Literal["queue", "error"] = "queue"
    """A command that arrives during another one waits, or is refused with 51 (open question)."""
    line_limit: int | None = None
    """Longest command line in characters; None: the model's."""
    qrst_ok: bool | None = None
    """BC66 family: does QRST=1 answer OK before the banner? None: as the variant's capture."""
    sleep: bool = False
    """BC66 family: let the UART fall asleep (QSCLK), swallowing the command that wakes it."""
    coap_send_urc: bool = False
    """BC66 family: print `+QCOAPSEND: 0` after the OK of QCOAPSEND (one driver waits for it)."""
