"""A line without hardware: emulated boards in emulated slots, and EnOS's stand-in.

The slots tell when a board is put in, as a board's own USB port does::

    async with Line(folder, slots=8) as line, Station(line.config, recipe, places=line.places) as s:
        await line.places[0].insert(line.board())
"""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections.abc import Collection, Sequence
from contextlib import AsyncExitStack, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from hil.cloud import Cloud, Request
from hil.emulator import Network, Options, PtyModem
from hil.emulator.cells import Signal
from hil.rig import Slot
from nbiot.enos import Server
from nbiot.errors import NbiotError
from nbiot.signing import Secret
from nbiot.station import recipe as recipes
from nbiot.station.board import Board, SlotState
from nbiot.station.config import Config, Screen
from nbiot.station.runner import store_of
from nbiot.station.store import Identity
from nbiot.station.vault import Vault

PRODUCT_KEY = "KV315idW"
SERVICE = "identify"
MODELS = ("bc95", "bc95-g", "bc66")
TAC = "86772603"
FAILURES = ("signal", "sim", "firmware", "imei", "twin", "silent")
"""What may be wrong with a board: weak signal, no SIM, a firmware that is not allowed, an IMEI with
a wrong check digit, the IMEI of another board, no answer at all."""
TO_LOOK = 2.0  # s that results stay in the slots
_ENDS = (SlotState.PASSED, SlotState.FAILED, SlotState.ERROR, SlotState.OFF)
WEAK = -1290  # 0.1 dBm
SPEED = 4.0  # by what the boards' own waiting times are divided

RECIPE = f"""\
# The recipe of `nbiot station demo`; docs/station.md tells each key.
name = "demo"

[[phase]]
kind = "identify"
firmware = ["BC95B8HBR01A02W16", "BC95GJBR01A07", "BC66NBR01A11"]

[[phase]]
kind = "claim"

[[phase]]
kind = "attach"
seconds = 60

[[phase]]
kind = "radio"
rsrp = {{ low = -115 }}
snr = {{ low = -5 }}
seconds = 10
may_skip = true

[[phase]]
kind = "authenticate"

[[phase]]
kind = "report"
points = {{ rsrp = "$rsrp", firmware = "$firmware" }}

[[phase]]
kind = "command"
service = "{SERVICE}"
seconds = 30

[[phase]]
kind = "release"
"""


@dataclass
class EmulatedBoard:
    """A board that can be put into a slot."""

    model: str
    options: Options
    network: Network = field(default_factory=Network)
    silent: bool = False
    """Its modem answers nothing."""

    @property
    def imei(self) -> str:
        """Its modem's IMEI."""
        return self.options.imei


class EmulatedPlace:
    """A slot (see nbiot.station.places.Place) that boards are put into by ``insert``."""

    detects = True
    fed = False

    def __init__(self, name: str) -> None:
        self.slot = Slot(name, "emulator:bc95")
        self.port = ""
        self.power: Any = _Supply(self)
        self.pty: PtyModem | None = None
        self._turn = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    def present(self) -> bool:
        """See Place."""
        return self.pty is not None

    def locked(self) -> Any:
        """See Place. Nobody else knows of it."""
        return nullcontext()

    async def insert(self, board: EmulatedBoard) -> None:
        """Put ``board`` in, instead of the one that is in."""
        await self.remove()
        async with self._turn:
            options = replace(board.options, boot="off")
            pty = PtyModem(board.model, options, board.network)
            await pty.__aenter__()
            self.port = pty.path
            self.power = _Supply(self, dead=board.silent)
            self.pty = pty

    async def remove(self) -> None:
        """Take the board out."""
        async with self._turn:
            pty, self.pty = self.pty, None
            if pty is not None:
                await pty.__aexit__(None, None, None)


class _Supply:
    """The slot's supply; ``dead``: the board takes none."""

    def __init__(self, place: EmulatedPlace, *, dead: bool = False) -> None:
        self._place = place
        self._dead = dead

    async def on(self) -> None:
        pty = self._place.pty
        if pty is not None and not pty.modem.powered and not self._dead:
            pty.modem.power_on()

    async def off(self) -> None:
        pty = self._place.pty
        if pty is not None and pty.modem.powered:
            pty.modem.power_off()


class Line:
    """What a station needs around it, without hardware: slots, boards, EnOS, identities.

    folder: for everything that is written
    slots:  how many
    boards: how many identities the pool has
    speed:  by what the boards' own waiting times are divided
    models: their modems, in turn
    """

    def __init__(
        self,
        folder: Path,
        *,
        slots: int = 8,
        boards: int = 100,
        speed: float = SPEED,
        name: str = "demo",
        screen: Screen | None = None,
        ack_timeout: float = 2.0,
        models: Sequence[str] = MODELS,
    ) -> None:
        self.folder = folder
        self.places = [EmulatedPlace(str(number)) for number in range(1, slots + 1)]
        self.secrets = {device_key(n): secret(n) for n in range(boards)}
        devices = {(PRODUCT_KEY, key): secret for key, secret in self.secrets.items()}
        self.cloud = Cloud(devices, on_request=self._on_request)
        self._speed = speed
        self._name = name
        self._screen = screen or Screen()
        self._ack_timeout = ack_timeout
        self._models = models
        self._made = 0

    async def __aenter__(self) -> Self:
        """Starts EnOS's stand-in, fills the pool."""
        await self.cloud.start()
        self.config = Config(
            name=self._name,
            slots=tuple(place.slot for place in self.places),
            database=f"sqlite+aiosqlite:///{self.folder / 'station.db'}",
            vault=f"file:{self.folder / 'vault.key'}",
            state=self.folder / "state",
            server=Server(self.cloud.host, self.cloud.port),
            screen=self._screen,
            printer=f"file:{self.folder / 'labels'}",
            ack_timeout=self._ack_timeout,
        )
        (self.folder / "labels").mkdir(exist_ok=True)
        if not (self.folder / "vault.key").exists():
            await asyncio.to_thread(Vault.create, self.folder / "vault.key")
        store = await asyncio.to_thread(lambda: store_of(self.config, create=True))
        async with store:
            identities = [
                Identity(PRODUCT_KEY, key, Secret(secret)) for key, secret in self.secrets.items()
            ]
            await store.add(identities)
        return self

    async def __aexit__(self, *_: object) -> None:
        for place in self.places:
            await place.remove()
        await self.cloud.stop()

    def board(self, failure: str = "", *, number: int | None = None) -> EmulatedBoard:
        """The next board of the line, or that of ``number``; ``failure``: one of FAILURES."""
        at = self._made if number is None else number
        self._made += number is None
        options = Options(imei=imei(at), iccid=iccid(at), speed=self._speed)
        signal = Signal(power=-780 - 40 * (at * 7 % 8), snr=60 + at * 31 % 150)
        network = Network(latency=0.3, signal=signal)
        made = EmulatedBoard(self._models[at % len(self._models)], options, network)
        match failure:
            case "signal":
                signal.power, signal.snr, signal.ecl = WEAK, -90, 2
            case "sim":
                options.sim = "absent"
            case "firmware":
                options.firmware = {"bc66": "BC66NBR01A04"}.get(made.model, "V100R100C10B656")
            case "imei":
                options.imei = f"{options.imei[:-1]}{(int(options.imei[-1]) + 1) % 10}"
            case "silent":
                made.silent, options.check_baud = True, False  # what it hears does not matter
            case "twin":
                options.imei = imei(at - 1 if at else 1)
        return made

    def _on_request(self, request: Request) -> None:
        """EnOS sends each device that reports a command, which rides on the answer."""
        match request.path:
            case ("topic", "sys", product, device, "thing", "measurepoint", "post"):
                if request.code.startswith("2."):
                    self.cloud.send_command(product, device, f"thing/service/{SERVICE}", {})
            case _:
                pass


class Through(NbiotError):
    """All boards are through."""


class Feeder:
    """What a line operator does: puts boards in, takes them out. ``failed``: how many did not pass.

    wrong: what is wrong with boards, see FAILURES; one board each
    """

    def __init__(self, line: Line, board: Board, wrong: list[str]) -> None:
        self.failed = 0
        self._line = line
        self._board = board
        self._wrong = wrong

    async def feed(self, boards: int, *, once: bool) -> None:
        """So many boards through each slot. Then wait for ever or, ``once``, raise Through."""
        for turn in range(boards):
            if turn:
                await asyncio.sleep(TO_LOOK)
                for place in self._line.places:
                    await place.remove()
                await self._all((SlotState.EMPTY, SlotState.OFF))
            for place in self._line.places:
                await place.insert(self._line.board(self._wrong.pop() if self._wrong else ""))
                await asyncio.sleep(0.1)
            states = await self._all(_ENDS)
            self.failed += sum(state is not SlotState.PASSED for state in states)
        if once:
            raise Through("all boards are through")
        await asyncio.get_running_loop().create_future()

    async def _all(self, wanted: Collection[SlotState]) -> list[SlotState]:
        """Wait until all slots are in such states; which."""
        async for _ in self._board.changes():
            states = [view.state for view in self._board.slots.values()]
            if all(state in wanted for state in states):
                return states
        raise AssertionError("changes do not end")


def device_key(number: int) -> str:
    """The device key of an identity of the demo's pool."""
    return f"demo-{number:06d}"


def secret(number: int) -> str:
    """Its secret, which opens nothing but the stand-in."""
    return hashlib.sha256(f"demo {number}".encode()).hexdigest()[:24]


def imei(number: int) -> str:
    """The IMEI of the demo's board ``number`` (3GPP TS 23.003): its check digit is right."""
    digits = f"{TAC}{number:06d}"
    doubled = (int(digit) * (1 + at % 2) for at, digit in enumerate(digits))
    return f"{digits}{-sum(value // 10 + value % 10 for value in doubled) % 10}"


def iccid(number: int) -> str:
    """The ICCID of the SIM in the demo's board ``number``."""
    return f"89860317492039{number:06d}"


def demo_recipe(folder: Path) -> recipes.Recipe:
    """The demo's recipe, written to ``folder`` and read from there. Blocks."""
    path = folder / "recipe.toml"
    path.write_text(RECIPE, encoding="utf-8")
    return recipes.load(path)


def temporary(stack: AsyncExitStack) -> Path:
    """A folder that ends with ``stack``."""
    return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nbiot-station-")))
