"""An event loop whose clock jumps to the next timer instead of waiting for it."""

from __future__ import annotations

import asyncio
import gc
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
REAL_PATIENCE = 2.0  # s of real time for threads and sockets when no timer is left


class _Selector(selectors.DefaultSelector):
    """Never sleeps: when nothing is ready, the loop's clock moves on instead."""

    now = 1000.0
    threads = 0  # that work for the loop: time stands still for them

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None or self.threads:
            ready = super().select(REAL_PATIENCE)
            if not ready:
                raise RuntimeError("the test hangs: no timer is left and nothing is ready")
            return ready
        self.now += max(timeout, 0)
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Timers cost no time. ``problems`` gathers what went to the exception handler."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)
        self.problems: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _, context: self.problems.append(context))

    def time(self) -> float:
        return self._virtual.now

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Any, *args: Any
    ) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = super().run_in_executor(executor, func, *args)
        self._virtual.threads += 1
        future.add_done_callback(self._thread_done)
        return future

    def _thread_done(self, _: asyncio.Future[Any]) -> None:
        self._virtual.threads -= 1


def run_virtual(main: Coroutine[Any, Any, T], *, strict: bool = False) -> T:
    """Run ``main`` on a new loop in virtual time.

    Fails when something went to the loop's exception handler. ``strict``: also when a task is left
    over, or a future's exception was never fetched.
    """
    loop: VirtualTimeLoop
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        loop = runner.get_loop()  # type: ignore[assignment]
        result = runner.run(main)
        left = asyncio.all_tasks(loop)
        if strict:
            gc.collect()
            assert not left, f"tasks left over: {left}"
        assert not loop.problems, loop.problems
    return result
