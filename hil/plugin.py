"""The pytest plugin: tests on modems in a rig, or on software modems where there is no rig.

Installed with this package (entry point group ``pytest11``), so nothing here may cost a test run
that does not use it: fixtures are in hil/fixtures.py, and whatever is heavy is imported in them.
See docs/hil.md.
"""

from __future__ import annotations

import functools
import inspect
import re
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from hil.record import Record
    from hil.rig import Rig, Slot

RECORD = pytest.StashKey["Record"]()
RIG = pytest.StashKey["Rig"]()
HIDDEN = pytest.StashKey[dict[str, "Callable[[], str]"]]()
"""Secrets that no report may show, in closures."""

WITHIN = 30.0  # s that a test marked ``hil`` may take with a software modem, unless it says
REAL = 20.0  # how many times that with a real one, which searches its network

MARKERS = (
    "hil(within=SECONDS): runs on the slots of a rig; fails after so many seconds (30), with a"
    " real modem after 20 times that",
    "needs(*what): skipped on slots that have not got it: power, reset, emulator, cloud, enos,"
    " echo, or a tag of the rig file",
    "modem(*profiles): runs on modems of these profiles only",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("hil", "modems in a rig (nbiot-driver)")
    group.addoption("--rig", metavar="FILE", help="rig file; without it, software modems")
    group.addoption(
        "--slot",
        action="append",
        default=[],
        metavar="NAME",
        help="this slot of the rig only; may be given several times",
    )
    group.addoption(
        "--soak",
        type=float,
        metavar="SECONDS",
        help="run soak tests, for so long (they are meant for 3600)",
    )
    group.addoption("--echo", metavar="HOST:PORT", help="a UDP echo server that real modems reach")
    group.addoption(
        "--slot-repeat", type=int, default=1, metavar="N", help="run each test N times on each slot"
    )
    group.addoption(
        "--at-traces",
        default="at-traces",
        metavar="FOLDER",
        help="where AT traces of failed tests go (default: at-traces)",
    )


def pytest_configure(config: pytest.Config) -> None:
    for line in MARKERS:
        config.addinivalue_line("markers", line)
    if not config.pluginmanager.hasplugin("xdist"):
        config.addinivalue_line("markers", "xdist_group(name): as of pytest-xdist")
    from hil import fixtures

    config.pluginmanager.register(fixtures, "hil.fixtures")
    if config.getoption("--rig") or config.getoption("--slot"):
        slots_of(config)  # a wrong name is told before anything runs
    if config.getoption("--slot-repeat") < 1:
        raise pytest.UsageError("--slot-repeat: 1 or more")
    soak = config.getoption("--soak")
    if soak is not None and not 0 < soak <= 30 * 86400:
        raise pytest.UsageError("--soak: seconds, above 0")


def rig_of(config: pytest.Config) -> Rig:
    """The rig of ``--rig``, or the one of software modems. Raises UsageError."""
    if RIG not in config.stash:
        from pathlib import Path

        from hil import rig
        from nbiot.errors import NbiotError

        file = config.getoption("--rig")
        try:
            found = rig.load(Path(file), ports=False) if file else rig.emulated_rig()
            if file:
                rig.check_ports(found, config.getoption("--slot") or None)
        except NbiotError as error:
            raise pytest.UsageError(str(error)) from None
        config.stash[RIG] = found
    return config.stash[RIG]


def slots_of(config: pytest.Config) -> list[Slot]:
    """The slots that tests run on. Raises UsageError."""
    rig = rig_of(config)
    wanted = config.getoption("--slot")
    names = [slot.name for slot in rig.slots]
    if unknown := [name for name in wanted if name not in names]:
        raise pytest.UsageError(f"--slot {unknown[0]}: unknown; there are {', '.join(names)}")
    return [slot for slot in rig.slots if not wanted or slot.name in wanted]


# --- a test for each slot -----------------------------------------------------------------------


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "slot" not in metafunc.fixturenames or not _is_ours(metafunc):
        return
    repeat = metafunc.config.getoption("--slot-repeat")
    values = [
        pytest.param(
            slot,
            id=slot.name if repeat == 1 else f"{slot.name}-{number}",
            # With xdist's `--dist loadgroup`, one worker owns a slot.
            marks=pytest.mark.xdist_group(slot.name),
        )
        for slot in slots_of(metafunc.config)
        for number in range(1, repeat + 1)
    ]
    metafunc.parametrize("slot", values, indirect=True, scope="session")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """``--dist loadgroup`` keeps a slot on one worker, by the slot's name in the test's.

    xdist 3.8 looks for the group where pytest 9.2 does not keep it any more, and so spreads a
    group over all workers, without a word.
    """
    if config.getoption("dist", "no") != "loadgroup":
        return None
    from xdist.scheduler import LoadGroupScheduling

    names = sorted((slot.name for slot in slots_of(config)), key=len, reverse=True)
    patterns = [(name, re.compile(rf".*\[(.*-)?{re.escape(name)}(-.*)?\]")) for name in names]

    class SlotScheduling(LoadGroupScheduling):  # type: ignore[misc, unused-ignore]
        def _split_scope(self, nodeid: str) -> str:
            found = (name for name, pattern in patterns if pattern.fullmatch(nodeid))
            return next(found, None) or str(super()._split_scope(nodeid))

    return SlotScheduling(config, log)


def _is_ours(metafunc: pytest.Metafunc) -> bool:
    """Is ``slot`` the fixture of this plugin, and not something else that has its name?"""
    for mark in metafunc.definition.iter_markers("parametrize"):
        names = mark.args[0] if mark.args else mark.kwargs.get("argnames", "")
        if "slot" in (names.replace(",", " ").split() if isinstance(names, str) else names):
            return False
    found = metafunc._arg2fixturedefs.get("slot", ())
    return bool(found) and found[-1].func.__module__ == "hil.fixtures"


def slot_of(item: pytest.Item) -> Slot | None:
    """The slot that ``item`` runs on, if it is a test on a slot."""
    callspec = getattr(item, "callspec", None)
    slot = callspec.params.get("slot") if callspec is not None else None
    return slot if type(slot).__module__ == "hil.rig" else None


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    slot = slot_of(item)
    if slot is None:
        return
    from hil.record import Record, capabilities, not_this_modem

    item.stash[RECORD] = Record(slot)
    lacking = capabilities(slot, item.config)
    for mark in item.iter_markers("needs"):
        for need in mark.args:
            if why := lacking(need):
                pytest.skip(f"{slot.name}: {why}")
    for mark in item.iter_markers("modem"):
        if why := not_this_modem(slot, mark.args):
            pytest.skip(f"{slot.name}: {why}")
    mark = item.get_closest_marker("hil")  # type: ignore[assignment]
    function = getattr(item, "obj", None)
    if inspect.iscoroutinefunction(function):
        seconds = None
        if mark is not None:
            seconds = float(mark.kwargs.get("within", WITHIN)) * (1 if slot.emulated else REAL)
        item.obj = _within(seconds, function, item.stash[RECORD])  # type: ignore[attr-defined]


def _within(seconds: float | None, test: Any, record: Record) -> Any:
    """``test``, which fails in plain words when it takes longer."""
    import asyncio

    @functools.wraps(test)
    async def limited(*args: Any, **kwargs: Any) -> None:
        record.task = asyncio.current_task()
        record.limit = limit = asyncio.timeout(seconds)
        try:
            async with limit:
                await test(*args, **kwargs)
        except TimeoutError:
            if not limit.expired():
                raise
            last = f"the last step was: {record.steps[-1].text}" if record.steps else "no step"
            pytest.fail(f"not done within {seconds:g} s; {last}", pytrace=False)
        finally:
            record.task = None

    return limited


# --- what a test leaves behind ------------------------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    record = item.stash.get(RECORD, None)
    if record is None:
        return report
    if report.when == "setup":
        item.user_properties.append(("slot", record.slot.name))
        report.user_properties = list(item.user_properties)
    if report.failed:
        record.failed = True
        if record.lost:  # what the test was cancelled for tells more than where it was
            report.longrepr = record.lost
        if record.tracer is not None:
            report.sections.append(("AT trace", record.shown_trace()))
    if report.when == "teardown":
        record.finish()
        report.nbiot = record.as_dict(item)  # type: ignore[attr-defined]  # xdist carries it
    _hide(report, item.config)
    return report


def hide(config: pytest.Config, text: Callable[[], str]) -> None:
    """Let no report show what ``text`` returns."""
    config.stash.setdefault(HIDDEN, {})[str(len(config.stash.get(HIDDEN, {})))] = text


def _hide(report: Any, config: pytest.Config) -> None:
    """The last defence: a secret that got into a message by someone's doing."""
    for text in config.stash.get(HIDDEN, {}).values():
        if report.longrepr is not None and text() in str(report.longrepr):
            report.longrepr = str(report.longrepr).replace(text(), "***")
        report.sections = [(name, body.replace(text(), "***")) for name, body in report.sections]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Leave no empty folder behind."""
    from contextlib import suppress

    if RIG in session.config.stash:
        with suppress(OSError):
            traces_folder(session.config).rmdir()


def traces_folder(config: pytest.Config) -> Any:
    """The folder of ``--at-traces``."""
    return config.invocation_params.dir / config.getoption("--at-traces")
