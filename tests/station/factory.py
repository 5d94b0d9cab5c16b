"""A factory line with bad luck: does it give an identity twice, lose a result, leave a lease stuck?

    python -m tests.station.factory --boards 1000 --slots 16 --stations 4

Real stations, each a process of its own, work on software modems that live in this
process, with one database behind a TCP proxy. A robot puts a board into a slot, waits for its
result and takes it out. Meanwhile stations are killed (SIGKILL) and stopped for longer than a
lease, the database crashes and restarts, the network to it is cut, and some boards carry an IMEI
that another board has.

What is true is read from the air, not from the station: which board put which device key into its
datagrams.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import psycopg

from hil.cloud import Cloud
from hil.emulator import Network, Options, PtyModem
from nbiot.errors import StoreUnavailable
from nbiot.signing import Secret
from nbiot.station.store import Identity, Store
from nbiot.station.vault import Vault
from tests.station.postgres import USER, Server, a_server

PRODUCT_KEY = "KV315idW"
DEVICE_KEY = re.compile(rb"LINE\d{7}")
SECRET = "secret-of-"
MODELS = ("bc95", "bc95-g", "bc66")
SPEED = 40.0
LEASE = 6.0  # s; short, so that it runs out while a station is stopped
PATIENCE = 90.0  # s until the robot takes a board out that gets no result, and puts it in again


@dataclass
class Piece:
    """A board as the factory's god sees it."""

    number: int
    model: str
    imei: str
    iccid: str
    twin_of: Piece | None = None
    """The board whose IMEI this one carries, too."""
    deaf: bool = False
    """Its antenna is missing: it never registers."""
    keys: set[str] = field(default_factory=set)
    """Device keys that it put on the air."""
    outcomes: list[str] = field(default_factory=list)


def luhn(body: str) -> str:
    """``body`` of 14 digits and its check digit."""
    digits = [int(c) for c in body]
    doubled = [d if i % 2 == 0 else d * 2 - 9 * (d > 4) for i, d in enumerate(digits)]
    return body + str(-sum(doubled) % 10)


def pieces(count: int, chance: random.Random, *, twins: float, deaf: float) -> list[Piece]:
    """``count`` boards; each twin has the IMEI of an earlier one."""
    made: list[Piece] = []
    for number in range(count):
        twin = chance.choice(made) if made and chance.random() < twins else None
        imei = twin.imei if twin else luhn(f"86772603{number:06}")
        made.append(
            Piece(
                number,
                chance.choice(MODELS),
                imei,
                f"898603174920{number:08}",
                twin,
                chance.random() < deaf,
            )
        )
    return made


# --- the misfortunes --------------------------------------------------------------------------


class Proxy:
    """Stands before the database, and can be cut: what is connected dies, what knocks is turned
    away. It listens in ``folder`` as the database does in its own.
    """

    def __init__(self, target: Path, folder: Path) -> None:
        self._target = target
        self.folder = folder
        self._writers: set[asyncio.StreamWriter] = set()
        self.whole = True

    async def __aenter__(self) -> Self:
        path = self.folder / self._target.name
        self._server = await asyncio.start_unix_server(self._accept, path)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()

    def cut(self) -> None:
        """Until ``mend``."""
        self.whole = False
        for writer in self._writers:
            writer.transport.abort()

    def mend(self) -> None:
        self.whole = True

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.whole:
            writer.transport.abort()
            return
        try:
            there, back = await asyncio.open_unix_connection(self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, back}
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_pump(reader, back))
                group.create_task(_pump(there, writer))
        finally:
            for end in (writer, back):
                self._writers.discard(end)
                end.transport.abort()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
    sink.transport.abort()  # a half-closed connection is of no use to anybody here


class StationProcess:
    """A station, as often as it is killed. It is ``run_station`` in a process of its own."""

    def __init__(self, config: Path) -> None:
        self._config = config
        self._log = config.with_suffix(".log")
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.station.factory", "--station", str(self._config)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def wait(self) -> int:
        assert self._process is not None
        return await self._process.wait()


# --- what the database says -----------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """A stored record, as far as the robot and the verdict need it."""

    id: str
    station: str
    slot: str
    imei: str | None
    iccid: str | None
    outcome: str
    device_key: str | None
    applied: bool
    started: float
    seconds: float


class Found:
    """Reads stored records past the proxy, so that misfortunes do not hide them."""

    def __init__(self, database: Callable[[str], list[Any]]) -> None:
        self._ask = database
        self.rows: dict[str, Row] = {}
        self._more = asyncio.Condition()

    async def watch(self) -> None:
        """Read what is new, for ever."""
        while True:
            with contextlib.suppress(psycopg.Error):
                rows = await asyncio.to_thread(self._read)
                async with self._more:
                    self.rows |= {row.id: row for row in rows}
                    self._more.notify_all()
            await asyncio.sleep(0.2)

    def _read(self) -> list[Row]:
        columns = "id, station, slot, imei, device_key, outcome, applied, started, ended, body"
        known = ", ".join(f"'{key}'" for key in self.rows) or "''"
        found = self._ask(f"SELECT {columns} FROM run WHERE id NOT IN ({known})")
        return [
            Row(i, st, sl, im, json.loads(b).get("iccid"), out, dk, ok, start, end - start)
            for i, st, sl, im, dk, out, ok, start, end, b in found
        ]

    async def outcome(self, slot: str, since: float) -> str:
        """How the first run in this slot ended that began after ``since`` and was not cut; "none":
        there was no such run for long.
        """

        def ended() -> str:
            of_slot = (row for row in self.rows.values() if row.slot == slot)
            rows = [row for row in of_slot if row.started >= since and row.outcome != "aborted"]
            return min(rows, key=lambda row: row.started).outcome if rows else ""

        try:
            async with asyncio.timeout(PATIENCE), self._more:
                return await self._more.wait_for(ended)
        except TimeoutError:
            return "none"


def identities(database: Callable[[str], list[Any]]) -> dict[str, tuple[str, str | None]]:
    """State and IMEI of each device key."""
    rows = database("SELECT device_key, state, imei FROM credential")
    return {key: (state, imei) for key, state, imei in rows}


# --- the line -------------------------------------------------------------------------------------


class Line:
    """Slots with software modems in them, and the robot that changes boards."""

    def __init__(self, folder: Path, slots: list[str], found: Found) -> None:
        self._folder = folder
        self.slots = slots
        self._found = found

    def path(self, slot: str) -> Path:
        """Where the station looks for the slot's modem: it comes and goes with the board."""
        return self._folder / slot

    @contextlib.asynccontextmanager
    async def inserted(self, slot: str, piece: Piece) -> AsyncIterator[None]:
        """The board is in the slot."""

        def heard(way: str, data: bytes) -> bool:
            if way == "up":
                piece.keys.update(key.decode() for key in DEVICE_KEY.findall(data))
            return False

        network = Network(lose=heard, attach_delay=1.0, stat="none" if piece.deaf else 1)
        options = Options(imei=piece.imei, iccid=piece.iccid, speed=SPEED)
        async with PtyModem(piece.model, options, network) as pty:
            self.path(slot).symlink_to(pty.path)
            try:
                yield
            finally:
                self.path(slot).unlink()

    async def work(self, slot: str, waiting: asyncio.Queue[Piece]) -> None:
        """The robot of one slot, until no board is left.

        What could not be told, or got no result, is put in again, five times at most.
        """
        while not waiting.empty():
            piece = waiting.get_nowait()
            for _ in range(5):
                since = time.time()
                async with self.inserted(slot, piece):
                    piece.outcomes.append(await self._found.outcome(slot, since))
                await asyncio.sleep(1.0)  # the station looks twice a second whether it is gone
                if piece.outcomes[-1] in ("pass", "fail"):
                    break


# --- bad luck ---------------------------------------------------------------------------------


class Misfortune:
    """Kills, stops, cuts and restarts at random."""

    def __init__(
        self,
        stations: list[StationProcess],
        proxy: Proxy,
        server: Server,
        chance: random.Random,
        every: float,
    ) -> None:
        self._stations = stations
        self._proxy = proxy
        self._server = server
        self._chance = chance
        self._every = every
        self.happened: Counter[str] = Counter()

    async def rage(self, over: asyncio.Event) -> None:
        """Until ``over``. What was begun is brought to its end: all that was killed runs again."""
        kinds = {self._kill: 6, self._stop: 2, self._cut: 3, self._crash: 1}
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._chance.expovariate(1 / self._every)):
                    await over.wait()
                    return
            (kind,) = self._chance.choices(list(kinds), list(kinds.values()))
            await kind()
            self.happened[kind.__name__.strip("_")] += 1

    async def _kill(self) -> None:
        station = self._chance.choice(self._stations)
        station.send(signal.SIGKILL)
        await station.wait()
        await station.start()

    async def _stop(self) -> None:
        """For longer than a lease: when it wakes, its identities may be another's."""
        station = self._chance.choice(self._stations)
        station.send(signal.SIGSTOP)
        await asyncio.sleep(self._chance.uniform(0.5, 1.5) * LEASE)
        station.send(signal.SIGCONT)

    async def _cut(self) -> None:
        self._proxy.cut()
        await asyncio.sleep(self._chance.uniform(0.2, 4.0))
        self._proxy.mend()

    async def _crash(self) -> None:
        await asyncio.to_thread(self._server.kill)
        await asyncio.to_thread(self._server.start)


# --- the verdict ------------------------------------------------------------------------------


def verdict(
    boards: list[Piece], rows: dict[str, Row], states: dict[str, tuple[str, str | None]]
) -> dict[str, list[str]]:
    """What must not be, by name, each with what was found."""
    bad: dict[str, list[str]] = defaultdict(list)
    users: dict[str, set[int]] = defaultdict(set)
    for piece in boards:
        for key in piece.keys:
            users[key].add(piece.number)
    for key, numbers in users.items():
        if len(numbers) > 1:
            bad["identity given twice"].append(f"{key}: boards {sorted(numbers)}")
        if key not in states or states[key][0] not in ("bound", "proven", "failed"):
            bad["identity used that is not given"].append(f"{key}: {states.get(key)}")
    passed = [row for row in rows.values() if row.outcome == "pass"]
    by_iccid = {piece.iccid: piece for piece in boards}
    for piece in boards:
        if len(piece.keys) > 1:
            bad["board with two identities"].append(f"board {piece.number}: {sorted(piece.keys)}")
        mine = [row for row in passed if row.iccid == piece.iccid]
        if "pass" in piece.outcomes and not mine:
            bad["result lost"].append(f"board {piece.number}: {piece.outcomes}")
    for row in passed:
        tried = by_iccid.get(row.iccid or "")
        if tried is None or row.device_key not in tried.keys:
            bad["pass without proof"].append(f"{row}")
        if not row.applied:
            bad["pass that changed nothing"].append(f"{row}")
        if states[row.device_key or ""] != ("proven", row.imei):
            bad["pass, but not proven"].append(f"{row}: {states[row.device_key or '']}")
    for proven, count in Counter(row.device_key for row in passed).items():
        if count > 1:
            bad["passed twice"].append(f"{proven}: {count} times")
    for key, (state, imei) in states.items():
        if state == "claimed":
            bad["lease stuck"].append(key)
        if state == "proven" and not any(row.device_key == key for row in passed):
            bad["result lost"].append(f"{key} is proven for {imei}, without a record")
        if state == "free" and key in users:
            bad["identity free again after use"].append(key)
    return dict(bad)


def files_with(text: bytes, folder: Path) -> list[str]:
    """Files of logs, traces, databases, outboxes that hold ``text``."""
    found = []
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # a file that is gone, a socket
            if path.is_file() and text in path.read_bytes():
                found.append(str(path.relative_to(folder)))
    return found


# --- all of it --------------------------------------------------------------------------------

STATION = """\
name = "{name}"
database = "{url}"
vault = "file:{folder}/vault.key"
state = "{folder}/{name}"
recipe = "{folder}/recipe.toml"
boards = "detected"
[enos]
server = "{server}"
ack_timeout = 2.0
[identities]
from = "pool"
"""

SLOT = """\
[slot.{slot}]
port = "{path}"
"""

RECIPE = """\
name = "under test"
[[phase]]
kind = "identify"
[[phase]]
kind = "attach"
seconds = 10
[[phase]]
kind = "claim"
[[phase]]
kind = "authenticate"
seconds = 30
[[phase]]
kind = "report"
seconds = 30
points = { rsrp = "$rsrp" }
[[phase]]
kind = "release"
"""


def run_station(config: Path) -> None:
    """One station, with short times; leaves as on Ctrl-C when it is asked to."""
    from nbiot.station import config as configs
    from nbiot.station import recipe as recipes
    from nbiot.station.runner import Station

    async def work() -> None:
        found = configs.load(config)
        recipe = recipes.load(found.recipe)
        me = asyncio.current_task()
        assert me is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, me.cancel)
        while True:
            try:
                async with Station(found, recipe, lease=LEASE, poll=0.1, health=1.0) as station:
                    await station.run()
            except StoreUnavailable:  # as systemd would: it was started while the database is away
                await asyncio.sleep(0.3)

    logging.basicConfig(level=logging.INFO)
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(work())


@dataclass(frozen=True)
class Result:
    """What a run of the line came to."""

    boards: list[Piece]
    rows: dict[str, Row]
    happened: Counter[str]
    bad: dict[str, list[str]]
    seconds: float


async def run_line(
    folder: Path,
    server: Server,
    *,
    boards: int,
    slots: int,
    stations: int,
    every: float,
    seed: int = 1,
    twins: float = 0.05,
    deaf: float = 0.03,
    tell: Callable[[str], None] = lambda _: None,
) -> Result:
    """Bring all boards through; ``every``: mean seconds between two misfortunes."""
    chance = random.Random(seed)
    line = pieces(boards, chance, twins=twins, deaf=deaf)
    keys = [f"LINE{number:07}" for number in range(boards + 50)]
    secrets = {(PRODUCT_KEY, key): f"{SECRET}{key}" for key in keys}
    began = time.monotonic()
    async with contextlib.AsyncExitStack() as stack:
        cloud = await stack.enter_async_context(Cloud(secrets, limits=None))
        proxy = await stack.enter_async_context(Proxy(server.socket, folder))
        name = await asyncio.to_thread(server.new_database)
        await _prepare(folder, server.url(name), secrets)

        def database(statement: str) -> list[Any]:
            return server.sql(statement, database=name)

        where = f"postgresql+psycopg://{USER}@/{name}?host={proxy.folder}"
        processes, all_slots = [], []
        for number in range(stations):
            own = [f"S{number + 1}-{n + 1}" for n in range(slots // stations)]
            text = STATION.format(
                name=f"S{number + 1}", folder=folder, url=where, server=f"{cloud.host}:{cloud.port}"
            )
            text += "".join(SLOT.format(slot=slot, path=folder / slot) for slot in own)
            config = folder / f"S{number + 1}.toml"
            config.write_text(text)
            config.chmod(0o600)
            processes.append(StationProcess(config))
            all_slots += own
        found = Found(database)
        bench = Line(folder, all_slots, found)
        for process in processes:
            await process.start()
            stack.push_async_callback(_ended, process)
        misfortune = Misfortune(processes, proxy, server, chance, every)
        waiting: asyncio.Queue[Piece] = asyncio.Queue()
        for piece in line:
            waiting.put_nowait(piece)
        watcher = asyncio.create_task(found.watch())
        teller = asyncio.create_task(_tell(tell, found, misfortune, boards))
        over = asyncio.Event()
        raging = asyncio.create_task(misfortune.rage(over))
        try:
            async with asyncio.TaskGroup() as group:
                for slot in bench.slots:
                    group.create_task(bench.work(slot, waiting))
            over.set()
            await raging
            await _calm(proxy, processes, found, database)
        finally:
            for task in (raging, watcher, teller):
                task.cancel()
            await asyncio.wait([raging, watcher, teller])
        states = await asyncio.to_thread(identities, database)
        bad = verdict(line, found.rows, states)
        for place in (folder, server.folder):
            if leaks := await asyncio.to_thread(files_with, SECRET.encode(), place):
                bad["secret on the disk"] = leaks
        return Result(line, found.rows, misfortune.happened, bad, time.monotonic() - began)


async def _prepare(folder: Path, url: str, secrets: dict[tuple[str, str], str]) -> None:
    """Recipe, key, schema, and the pool."""
    (folder / "recipe.toml").write_text(RECIPE)
    vault = await asyncio.to_thread(Vault.create, folder / "vault.key")
    async with Store(url, vault, station="office", create=True) as store:
        report = await store.add(Identity(pk, dk, Secret(s)) for (pk, dk), s in secrets.items())
        assert report.added == len(secrets), report


async def _calm(
    proxy: Proxy, processes: list[StationProcess], found: Found, database: Callable[[str], Any]
) -> None:
    """Everything works again: wait until outboxes are delivered and leases have run out."""
    proxy.mend()
    for process in processes:
        process.send(signal.SIGCONT)
    with contextlib.suppress(TimeoutError):  # then the verdict says what is stuck
        async with asyncio.timeout(2 * LEASE + 10):
            quiet = 0
            while quiet < 5:
                before = len(found.rows)
                await asyncio.sleep(0.5)
                states = await asyncio.to_thread(identities, database)
                claimed = any(state == "claimed" for state, _ in states.values())
                quiet = 0 if claimed or len(found.rows) > before else quiet + 1


async def _ended(process: StationProcess) -> None:
    process.send(signal.SIGCONT)
    process.send(signal.SIGTERM)
    try:
        async with asyncio.timeout(20):
            await process.wait()
    except TimeoutError:
        process.send(signal.SIGKILL)
        await process.wait()
        raise


async def _tell(
    tell: Callable[[str], None], found: Found, misfortune: Misfortune, boards: int
) -> None:
    while True:
        await asyncio.sleep(10)
        outcomes = Counter(row.outcome for row in found.rows.values())
        tell(f"{boards} boards; records {dict(outcomes)}; bad luck {dict(misfortune.happened)}")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--station", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--boards", type=int, default=100)
    parser.add_argument("--slots", type=int, default=16)
    parser.add_argument("--stations", type=int, default=4)
    parser.add_argument("--every", type=float, default=2.0, help="s between two misfortunes")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    if given.station:
        run_station(given.station)
        return
    with tempfile.TemporaryDirectory(prefix="nbiot-line-") as name, a_server() as server:
        result = asyncio.run(
            run_line(
                Path(name), server, boards=given.boards, slots=given.slots,
                stations=given.stations, every=given.every, seed=given.seed, tell=print,
            )
        )  # fmt: skip
        logs = "".join(log.read_text(errors="replace") for log in Path(name).glob("*.log"))
    ends = Counter(re.findall(r"^Traceback.*\n(?:[ +|].*\n)*(.*)", logs, re.MULTILINE))
    outcomes = Counter(row.outcome for row in result.rows.values())
    print(
        f"{given.boards} boards in {result.seconds:.0f} s; records {dict(outcomes)};"
        f" bad luck {dict(result.happened)}; boards without a verdict"
        f" {sum(p.outcomes[-1] not in ('pass', 'fail') for p in result.boards)};"
        f" tracebacks in logs {ends.total()}"
    )
    for end, count in ends.items():
        print(f"{count} x {end}")
    for what, where in result.bad.items():
        print(f"{what}: {len(where)}, such as {where[0]}")
    sys.exit(1 if result.bad else 0)


if __name__ == "__main__":
    main()
