"""Fail a test whose event loop stood still for over 50 ms, or that left a file descriptor open.

In a conftest.py: ``from tests.hygiene import hygiene, pytest_configure  # noqa: F401``. A test that
may do either is marked ``@pytest.mark.unhygienic``.

How: each callback of a loop in the main thread is timed (1 us); a watchdog thread notes where one
is that takes long. The test itself may block: only what stands still inside ``nbiot``, ``modems``
or ``hil`` counts. Time in which the thread was ready but had no processor does not count, nor what
the garbage collector needs to look through all the objects of a test session.

A virtual machine whose processor the host takes away looks just like a blocked loop: 88 ms were
seen in a non-blocking os.write. So such a test runs again (``--only-rerun`` in pyproject.toml):
what blocks does so each time, and three times is a failure.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytest

LIMIT = 0.05  # s that one callback may take
CLOSING_GRACE = 0.5  # s in which threads may still close what they have
_ROOT = Path(__file__).resolve().parents[1]
_OURS = tuple(f"{_ROOT / room}{os.sep}" for room in ("nbiot", "modems", "hil"))
_TESTS = f"{_ROOT / 'tests'}{os.sep}"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "unhygienic: may block the event loop and keep descriptors")


@pytest.fixture(autouse=True)
def hygiene(request: pytest.FixtureRequest) -> Iterator[None]:
    """Watch the test, its fixtures included."""
    if request.node.get_closest_marker("unhygienic"):
        yield
        return
    before = open_files()
    with watched_loop() as blocks:
        yield
    leaks = _left_open(before)
    if blocks:
        pytest.fail("the event loop stood still:\n" + "\n".join(blocks), pytrace=False)
    if leaks:
        pytest.fail(f"left open: {', '.join(sorted(leaks))}", pytrace=False)


# --- the loop -----------------------------------------------------------------------------------


@contextmanager
def watched_loop(limit: float = LIMIT) -> Iterator[list[str]]:
    """The list gets a description of each callback that took over ``limit`` seconds."""
    blocks: list[str] = []
    watch = _Watch(limit, blocks)
    plain = asyncio.Handle._run
    main = threading.get_ident()

    def timed(handle: asyncio.Handle) -> None:
        if threading.get_ident() != main:
            plain(handle)
            return
        busy, collected = time.thread_time(), watch.collected
        watch.began = began = time.perf_counter()
        try:
            plain(handle)
        finally:
            watch.began = 0.0
            if (took := time.perf_counter() - began) > limit:
                collected -= watch.collected
                busy -= time.thread_time()
                watch.stood_still(began, took + collected, -busy + collected, repr(handle))

    setattr(asyncio.Handle, "_run", timed)  # noqa: B010  # mypy: it is not in typeshed
    watch.start()
    try:
        yield blocks
    finally:
        setattr(asyncio.Handle, "_run", plain)  # noqa: B010
        watch.stop()


class _Watch:
    """Notes where the main thread is when a callback takes long, for only then can it be seen."""

    def __init__(self, limit: float, blocks: list[str]) -> None:
        self.began = 0.0
        self._limit = limit
        self._blocks = blocks
        self._place: tuple[float, bool, str] = (0.0, False, "")  # of which callback
        self._main = threading.get_ident()
        self.collected = self._collecting_since = 0.0
        self._schedstat = -1  # kept open: tests count descriptors
        with contextlib.suppress(OSError):
            path = f"/proc/self/task/{threading.get_native_id()}/schedstat"
            self._schedstat = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._waited = self._waited_for_processor()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hygiene", daemon=True)

    def start(self) -> None:
        gc.callbacks.append(self._collector)
        self._thread.start()

    def stop(self) -> None:
        gc.callbacks.remove(self._collector)
        self._end.set()
        self._thread.join()
        if self._schedstat >= 0:
            os.close(self._schedstat)

    def _collector(self, phase: str, _: dict[str, int]) -> None:
        if phase == "start":
            self._collecting_since = time.perf_counter()
        else:
            self.collected += time.perf_counter() - self._collecting_since

    def _run(self) -> None:
        while not self._end.wait(self._limit / 4):
            began = self.began
            if began and time.perf_counter() - began > self._limit / 2:
                frame = sys._current_frames().get(self._main)
                if frame is not None and self.began == began:
                    self._place = began, _is_ours(frame), _stack(frame)
            else:
                self._waited = self._waited_for_processor()

    def stood_still(self, began: float, seconds: float, busy: float, what: str) -> None:
        """A callback took ``seconds``, and ``busy`` seconds of processor time."""
        if self._end.is_set():  # the callback in which the watch ended
            return
        seconds -= self._waited_for_processor() - self._waited
        noted, ours, stack = self._place
        if noted != began:  # the watchdog was kept out: by this callback, or by other programs
            ours, stack = busy > self._limit, "(no stack: something kept the interpreter)"
        if ours and seconds > self._limit:
            self._blocks.append(f"{seconds * 1000:.0f} ms in {what}\n{stack}")

    def _waited_for_processor(self) -> float:
        """Seconds that the main thread was ready to run and was not let; 0 where none tells."""
        if self._schedstat < 0:
            return 0.0
        return int(os.pread(self._schedstat, 100, 0).split()[1]) / 1e9


def _is_ours(frame: FrameType | None) -> bool:
    """Whether the innermost frame of this project is in the product, not in a test."""
    while frame is not None:
        file = frame.f_code.co_filename
        if file == threading.__file__ and frame.f_code.co_name == "start":
            return False  # a new thread must get a processor before this one goes on
        if file.startswith(_OURS):
            return True
        if file.startswith(_TESTS) and file != __file__:
            return False
        frame = frame.f_back
    return False


def _stack(frame: FrameType) -> str:
    return "".join(traceback.format_stack(frame)[-6:])


# --- file descriptors ---------------------------------------------------------------------------


def open_files() -> set[str]:
    """``number -> what`` of each open file descriptor."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{number} -> {os.readlink(f'/proc/self/fd/{number}')}")
        except OSError:  # the listing's own
            continue
    return found


def _left_open(before: set[str]) -> set[str]:
    until = time.monotonic() + CLOSING_GRACE
    while leaks := open_files() - before:
        if time.monotonic() > until:
            gc.collect()  # or the next test would be blamed for what is closed then
            return leaks
        time.sleep(0.005)
    return leaks
