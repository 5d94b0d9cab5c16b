"""Whatever is cut, and wherever: what was asked may be asked again, and nothing goes out twice."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest

from nbiot.errors import AlreadyProven, ImeiTaken, NbiotError, StationError, StoreUnavailable
from nbiot.signing import Secret
from nbiot.station.record import Outcome
from nbiot.station.store import Delivery, Store
from nbiot.station.vault import Vault
from tests.station.postgres import Server
from tests.station.store.line import (
    PLENTY,
    PRODUCT,
    Line,
    iccid,
    identities,
    imei,
    new_run,
    record,
    sql,
)

Stations = Callable[[str], Awaitable[Store]]
ON_A_SERVER = pytest.mark.parametrize("url", ["postgresql"], indirect=True)


# --- faults by the database's driver --------------------------------------------------------------


@dataclass
class Faults:
    """Lets the ``at``-th statement, or the commit, fail as if the connection had broken."""

    at: int = 0
    commit: str = ""
    """Fail "before" or "after" the transaction is committed."""
    seen: int = 0
    statements: list[str] = field(default_factory=list)


@contextmanager
def faulty(store: Store) -> Iterator[Faults]:
    """Faults to be set while the block runs."""
    assert store._opened is not None
    dialect: Any = store._opened.engine.sync_engine.dialect
    faults = Faults()
    execute, commit = dialect.do_execute, dialect.do_commit
    broken = (
        sqlite3.OperationalError("disk I/O error")
        if dialect.name == "sqlite"
        else psycopg.OperationalError("server closed the connection unexpectedly")
    )

    def do_execute(cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        faults.seen += 1
        faults.statements.append(statement)
        if faults.seen == faults.at:
            raise broken
        execute(cursor, statement, parameters, context)

    def do_commit(connection: Any) -> None:
        if faults.commit == "before":
            raise broken
        commit(connection)
        if faults.commit == "after":
            raise broken

    dialect.do_execute, dialect.do_commit = do_execute, do_commit
    try:
        yield faults
    finally:
        del dialect.do_execute, dialect.do_commit


async def _whole_run(store: Store, run: str) -> None:
    claim = await store.claim(run, "1", imei(1), iccid=iccid(1))
    await store.renew(claim)
    claim = await store.bind(claim, imei(1))
    await store.deliver(record(run, Outcome.PASS, claim))


async def _stubborn(work: Callable[[], Awaitable[Any]]) -> Any:
    while True:
        try:
            return await work()
        except StoreUnavailable:
            continue


async def test_a_run_that_is_cut_at_any_statement_can_be_repeated_from_its_beginning(
    line: Line, store: Store
) -> None:
    for at in range(1, 100):
        run, board = new_run(), 100 + at
        claim = None

        async def work(run: str = run, board: int = board) -> None:
            nonlocal claim
            claim = await store.claim(run, "1", imei(board), iccid=iccid(board))
            claim = await store.bind(claim, imei(board))
            await store.renew(claim)

        with faulty(store) as faults:
            faults.at = at
            await _stubborn(work)
            done = faults.seen < at
        assert claim is not None
        told = record(run, Outcome.PASS, claim)
        with faulty(store) as faults:
            faults.at = at
            await _stubborn(lambda told=told: store.deliver(told))
            done = done and faults.seen < at
        assert await store.deliver(told) is Delivery.KNOWN
        with pytest.raises(AlreadyProven):
            await store.claim(new_run(), "1", imei(board))
        await _pool_refilled(store, at)
        if done:
            break
    counts = await store.counts()
    assert (counts.proven, counts.claimed, counts.bound, counts.failed) == (at, 0, 0, 0)
    assert await store.contradictions() == []


async def _pool_refilled(store: Store, at: int) -> None:
    report = await store.add(identities(1, start=1000 + at))
    assert report.added == 1


Act = Callable[[Store, Line], Awaitable[tuple[Callable[[], Awaitable[Any]], str]]]


async def _claim(store: Store, line: Line) -> tuple[Callable[[], Awaitable[Any]], str]:
    run = new_run()
    return lambda: store.claim(run, "1", imei(1)), "claimed"


async def _reserve(store: Store, line: Line) -> tuple[Callable[[], Awaitable[Any]], str]:
    run = new_run()
    return lambda: store.reserve(run, "1", imei(1), PRODUCT), "claimed"


async def _registered(store: Store, line: Line) -> tuple[Callable[[], Awaitable[Any]], str]:
    reserved = await store.reserve(new_run(), "1", imei(1), PRODUCT)
    return lambda: store.registered(reserved, Secret("s")), "claimed"


async def _bind(store: Store, line: Line) -> tuple[Callable[[], Awaitable[Any]], str]:
    claim = await store.claim(new_run(), "1", imei(1), iccid=iccid(1))
    return lambda: store.bind(claim, imei(1)), "bound"


async def _renew(store: Store, line: Line) -> tuple[Callable[[], Awaitable[Any]], str]:
    claim = await store.claim(new_run(), "1", imei(1))
    return lambda: store.renew(claim), "claimed"


async def _release(store: Store, line: Line) -> tuple[Callable[[], Awaitable[Any]], str]:
    claim = await store.claim(new_run(), "1", imei(1))
    return lambda: store.release(claim), "free"


async def _deliver(store: Store, line: Line) -> tuple[Callable[[], Awaitable[Any]], str]:
    run = new_run()
    told = record(run, Outcome.PASS, await line.bound(1, run=run))
    return lambda: store.deliver(told), "proven"


async def _give_back(store: Store, line: Line) -> tuple[Callable[[], Awaitable[Any]], str]:
    claim = await line.ended(1, Outcome.FAIL)
    return lambda: store.give_back(claim.device_key, who="li", why="x"), "returned"


async def _allow_retry(store: Store, line: Line) -> tuple[Callable[[], Awaitable[Any]], str]:
    claim = await line.ended(1, Outcome.FAIL)
    return lambda: store.allow_retry(claim.device_key, who="li", why="x"), "failed"


async def _start(store: Store, line: Line) -> tuple[Callable[[], Awaitable[Any]], str]:
    await store.claim(new_run(), "1", imei(1))
    store.incarnation = new_run()
    return store.start, "free"


async def _add(store: Store, line: Line) -> tuple[Callable[[], Awaitable[Any]], str]:
    return lambda: store.add(identities(3, start=5000)), "free"


ACTS = [
    _claim, _reserve, _registered, _bind, _renew, _release, _deliver, _give_back, _allow_retry,
    _start, _add,
]  # fmt: skip


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.__name__.strip("_"))
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_lost_reply_is_made_good_by_asking_again(
    store: Store, line: Line, act: Act, when: str
) -> None:
    ask, state = await act(store, line)
    before = len(await store.audit())
    with faulty(store) as faults:
        faults.commit = when
        with pytest.raises(StoreUnavailable, match=r"database (.|\n)*\w+"):
            await ask()
    written = len(await store.audit()) - before
    await ask()
    rows = await sql(
        store, "SELECT state FROM credential WHERE state <> 'free' OR fence > 0 OR added > 0"
    )
    assert state in {row[0] for row in rows}
    again = len(await store.audit()) - before - written
    if act is not _renew:  # it leaves no line in the audit trail
        assert (written, again) == ((1, 0) if when == "after" else (0, 1))


# --- a server that is killed, and one behind a broken network -------------------------------------


@dataclass
class Proxy:
    """Between a station and the server: ``cut_commits`` replies to commits are lost."""

    port: int
    cut_commits: int = 0
    flows: asyncio.Event = field(default_factory=asyncio.Event)
    """Not set: nothing comes through, until somebody connects anew."""
    _open: set[asyncio.StreamWriter] = field(default_factory=set)

    def cut(self) -> None:
        """Every connection is lost."""
        for writer in self._open:
            writer.transport.abort()


@asynccontextmanager
async def proxied(socket: str) -> AsyncIterator[Proxy]:
    """A proxy in front of a Unix socket."""
    proxy = Proxy(0)
    proxy.flows.set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            upstream = await asyncio.open_unix_connection(socket)
        except OSError:
            writer.transport.abort()
            return
        proxy._open |= {writer, upstream[1]}
        proxy.flows.set()
        lost = asyncio.Event()
        with contextlib.suppress(OSError, ExceptionGroup):
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_pump(reader, upstream[1], proxy, lost, up=True))
                tasks.create_task(_pump(upstream[0], writer, proxy, lost, up=False))
        for end in (writer, upstream[1]):
            end.transport.abort()
            proxy._open.discard(end)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        proxy.cut()
        await server.wait_closed()
        while proxy._open:
            await asyncio.sleep(0.01)


async def _pump(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    proxy: Proxy,
    lost: asyncio.Event,
    *,
    up: bool,
) -> None:
    while data := await reader.read(65536):
        await proxy.flows.wait()
        if not up and lost.is_set():
            raise ConnectionError  # the server has committed, and nobody hears of it
        if up and b"COMMIT" in data and proxy.cut_commits > 0:
            proxy.cut_commits -= 1
            lost.set()
        writer.write(data)
        await writer.drain()
    raise ConnectionError


@pytest.fixture
async def far(url: str, vault: Vault, postgresql: Server) -> AsyncIterator[tuple[Store, Proxy]]:
    """A store behind a network that breaks, and the network."""
    name = url.partition("@/")[2].partition("?")[0]
    async with proxied(str(postgresql.socket)) as proxy:
        there = f"postgresql+psycopg://postgres@127.0.0.1:{proxy.port}/{name}"
        async with Store(there, vault, station="S1") as store:
            yield store, proxy


@ON_A_SERVER
async def test_a_reply_to_a_commit_that_the_network_lost(far: tuple[Store, Proxy]) -> None:
    store, proxy = far
    run = new_run()
    proxy.cut_commits = 1
    with pytest.raises(StoreUnavailable):
        await store.claim(run, "1", imei(1), iccid=iccid(1))
    claim = await store.claim(run, "1", imei(1), iccid=iccid(1))
    assert claim.fence == 1  # it had been committed
    proxy.cut_commits = 1
    with pytest.raises(StoreUnavailable):
        await store.bind(claim, imei(1))
    claim = await store.bind(claim, imei(1))
    told = record(run, Outcome.PASS, claim)
    proxy.cut_commits = 1
    with pytest.raises(StoreUnavailable):
        await store.deliver(told)
    assert await store.deliver(told) is Delivery.KNOWN
    assert (await store.counts()).proven == 1


@ON_A_SERVER
async def test_a_network_that_swallows_a_question_is_unavailable_in_time(
    far: tuple[Store, Proxy],
) -> None:
    store, proxy = far
    assert store._opened is not None
    store._opened._patience = 0.5
    run = new_run()
    await store.counts()
    proxy.flows.clear()  # until psycopg connects anew, to have the question cancelled
    async with asyncio.timeout(30):
        with pytest.raises(StoreUnavailable, match="no answer within"):
            await store.claim(run, "1", imei(1))
    store._opened._patience = 15
    assert (await store.claim(run, "1", imei(1))).fence == 1


@ON_A_SERVER
async def test_a_server_that_is_killed_and_comes_back(store: Store, postgresql: Server) -> None:
    run = new_run()
    claim = await store.claim(run, "1", imei(1), iccid=iccid(1))
    await asyncio.to_thread(postgresql.kill)
    try:
        for word in (store.bind(claim, imei(1)), store.counts(), store.records()):
            with pytest.raises(StoreUnavailable, match="the station goes on by itself"):
                await word
    finally:
        await asyncio.to_thread(postgresql.start)
    claim = await store.bind(claim, imei(1))
    assert await store.deliver(record(run, Outcome.PASS, claim)) is Delivery.APPLIED


@ON_A_SERVER
async def test_a_server_that_is_killed_under_load_gives_nothing_twice(
    station: Stations, postgresql: Server
) -> None:
    stores = [await station("S1"), await station("S2")]
    await stores[0].add(identities(40, start=100))
    given: dict[int, str] = {}

    async def slot(store: Store, boards: range) -> None:
        for board in boards:
            run = new_run()

            async def work(run: str = run, board: int = board) -> None:
                claim = await store.claim(run, f"{board % 4}", imei(board), iccid=iccid(board))
                given[board] = (await store.bind(claim, imei(board))).device_key

            while True:
                try:
                    await work()
                    break
                except StoreUnavailable:
                    await asyncio.sleep(0.05)

    async with asyncio.TaskGroup() as tasks:
        for number, store in enumerate(stores * 2):
            tasks.create_task(slot(store, range(number * 10, number * 10 + 10)))
        for _ in range(2):
            while len(given) < 10:
                await asyncio.sleep(0.01)
            await asyncio.to_thread(postgresql.kill)
            await asyncio.to_thread(postgresql.start)
    assert len(given) == len(set(given.values())) == 40
    assert await stores[0].contradictions() == []


# --- cancellation and rules -----------------------------------------------------------------------


async def test_a_claim_that_was_cancelled_at_any_moment_can_be_asked_for_again(
    store: Store,
) -> None:
    for steps in range(0, 120, 3):
        run = new_run()
        task = asyncio.create_task(store.claim(run, "1", imei(1)))
        for _ in range(steps):
            await asyncio.sleep(0)
        if steps % 2 == 0:
            await asyncio.sleep(steps / 20_000)  # somewhere inside the driver
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        claim = await store.claim(run, "1", imei(1))
        await store.release(claim)
    assert (await store.counts()).free == PLENTY


async def test_the_database_itself_refuses_what_must_never_be(line: Line, store: Store) -> None:
    claim = await line.ended(1, Outcome.FAIL)
    await line.bound(2, slot="2")
    for statement in (
        f"UPDATE credential SET imei = '{imei(9)}', fence = 9 WHERE id = {claim.credential}",
        f"UPDATE credential SET state = 'free', imei = NULL WHERE id = {claim.credential}",
        f"UPDATE credential SET fence = 0 WHERE id = {claim.credential}",
        f"UPDATE credential SET device_key = 'other' WHERE id = {claim.credential}",
        f"UPDATE credential SET imei = '{imei(2)}' WHERE id = {claim.credential}",
        f"DELETE FROM credential WHERE id = {claim.credential}",
        f"UPDATE credential SET state = 'claimed', imei = '{imei(9)}' WHERE device_key = 'dev0004'",
        f"UPDATE credential SET state = 'bound', imei = '{imei(9)}', fence = 1 "
        "WHERE device_key = 'dev0004'",
        "UPDATE credential SET state = 'lost'",
        "DELETE FROM audit",
        "UPDATE audit SET who = 'nobody'",
        "DELETE FROM run",
        "UPDATE run SET outcome = 'pass', body = '{}'",
    ):
        with pytest.raises(StationError, match="refuses") as raised:
            await sql(store, statement)
        assert not isinstance(raised.value, StoreUnavailable)


async def test_many_claims_at_once_for_one_board_give_one_identity(
    station: Stations,
) -> None:
    stores = [await station(f"S{number}") for number in range(3)]

    async def ask(store: Store, slot: int) -> object:
        try:
            return await store.claim(new_run(), str(slot), imei(1))
        except ImeiTaken as error:
            return error

    found = await asyncio.gather(*(ask(s, n) for s in stores for n in range(4)))
    claims = [one for one in found if not isinstance(one, NbiotError)]
    assert len(claims) == 1
    counts = await stores[0].counts()
    assert (counts.free, counts.claimed) == (PLENTY - 1, 1)


async def test_the_last_identities_are_not_missed_while_others_hold_and_let_go(
    store: Store,
) -> None:
    """Eight claims of one board lock all that is left; only one of them keeps what it locked."""
    for board in range(2, PLENTY):
        await store.claim(new_run(), str(board), imei(board))

    async def ask(board: int, slot: int) -> object:
        try:
            return await store.claim(new_run(), f"{board}-{slot}", imei(board))
        except ImeiTaken as error:
            return error

    found = await asyncio.gather(*(ask(b, n) for n in range(4) for b in (100, 101)))
    claims = [one for one in found if not isinstance(one, NbiotError)]
    assert len(claims) == 2
    assert (await store.counts()).free == 0


async def test_many_repeats_of_one_run_at_once_give_one_identity(store: Store) -> None:
    run = new_run()
    found = await asyncio.gather(*(store.claim(run, "1", imei(1)) for _ in range(6)))
    assert len({claim.credential for claim in found}) == 1
    assert (await store.counts()).free == PLENTY - 1


async def test_many_deliveries_of_one_record_at_once_count_once(line: Line, store: Store) -> None:
    run = new_run()
    told = record(run, Outcome.PASS, await line.bound(1, run=run))
    found = await asyncio.gather(*(store.deliver(told) for _ in range(6)))
    assert sorted(delivery.value for delivery in found) == ["applied"] + ["known"] * 5
    assert len(await store.records()) == 1
