"""The fixtures of hil/plugin.py. Every test run of whoever installed us pays for imports here."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from hil.plugin import RECORD, rig_of, traces_folder

try:
    from pytest_asyncio import fixture as async_fixture
except ImportError:  # the plugin is installed with the driver, its extra may be not

    def async_fixture(function: Any) -> Any:  # type: ignore[no-redef]
        """A fixture that says what is missing."""

        def missing() -> None:
            pytest.fail("needs pytest-asyncio: pip install 'nbiot-driver[hil]'", pytrace=False)

        return pytest.fixture(name=function.__name__)(missing)


if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from hil.bench import Bench
    from hil.cloud import Cloud
    from hil.mock import ModemMock
    from hil.rig import Rig, Slot
    from nbiot.enos import EnosSession
    from nbiot.modem import Modem
    from nbiot.trace import FileTracer


@pytest.fixture(scope="session")
def rig(pytestconfig: pytest.Config) -> Rig:
    """The rig of ``--rig``; without it, one slot for each kind of software modem."""
    return rig_of(pytestconfig)


@pytest.fixture(scope="session")
def slot(request: pytest.FixtureRequest) -> Iterator[Slot]:
    """The slot under test: the test runs on each of the rig's. It is this process's alone."""
    slot: Slot = request.param
    if slot.emulated:
        yield slot
        return
    from hil.lock import locked
    from nbiot.errors import NbiotError

    try:
        lock = locked(slot.port)
        lock.__enter__()
    except NbiotError as error:
        pytest.fail(f"slot {slot.name}: {error}", pytrace=False)
    try:
        yield slot
    finally:
        lock.__exit__(None, None, None)


@pytest.fixture
def trace(slot: Slot, request: pytest.FixtureRequest) -> Iterator[FileTracer]:
    """The record of the AT dialogue, kept if the test fails. A remark: ``trace.note("...")``."""
    import time

    from nbiot.trace import FileTracer

    folder = traces_folder(request.config)
    folder.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^\w.-]+", "-", f"{request.node.path.stem}-{request.node.name}").strip("-")
    path = folder / f"{name[:150]}.jsonl"
    tracer = FileTracer(
        path,
        time.monotonic,
        port=slot.port,
        baudrate=slot.baud,
        about={"slot": slot.name, "test": request.node.name},
    )
    record = request.node.stash[RECORD]
    record.tracer, record.trace = tracer, path
    yield tracer
    tracer.close()


@async_fixture
async def bench(
    slot: Slot, trace: FileTracer, request: pytest.FixtureRequest
) -> AsyncIterator[Bench]:
    """The slot with what surrounds it: to open its modem in other ways than ``modem`` does."""
    from hil.bench import Bench

    async with Bench(slot, trace, request) as bench:
        yield bench


@async_fixture
async def modem(bench: Bench) -> AsyncIterator[Modem]:
    """The slot's modem, attached."""
    async with bench.open() as modem:
        yield modem


@async_fixture
async def cloud(bench: Bench) -> Cloud:
    """The EnOS stand-in that the slot talks to. Skips on slots that talk to another server."""
    return await bench.cloud()


@async_fixture
async def session(bench: Bench, modem: Modem) -> AsyncIterator[EnosSession]:
    """The device of the slot, authenticated with EnOS or with the stand-in."""
    async with await bench.session(modem) as session:
        yield session


@async_fixture
async def power(bench: Bench) -> Any:
    """The modem's supply: ``await power.off()``, ``await power.on()``. Skips where it has none."""
    return await bench.power()


@pytest.fixture
def modem_mock(request: pytest.FixtureRequest) -> Any:
    """A modem for unit tests, without hardware and without an emulator: see hil.mock.ModemMock.

    ``mock = modem_mock("dialogue.jsonl")`` makes every ``Modem(port)`` open a modem that answers
    from this record.
    """
    try:
        mocker = request.getfixturevalue("mocker")
    except pytest.FixtureLookupError:
        pytest.fail("needs pytest-mock: pip install 'nbiot-driver[hil]'", pytrace=False)
    from hil.mock import ModemMock

    def mock(dialogue: Any = None) -> ModemMock:
        found = ModemMock(dialogue, request.path.parent)
        mocker.patch("nbiot.modem.open_link", found.open_link)
        return found

    return mock
