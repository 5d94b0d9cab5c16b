"""EnosSession for scripts without asyncio.

with BlockingEnosSession("/dev/ttyUSB0", device, server, apn="iot") as enos:
    enos.report({"temperature": 21.5})
    for command in enos.commands(seconds=60):
        command.reply({"done": True})
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, Self, TypeVar

from nbiot.enos.auth import Device, Server
from nbiot.enos.commands import Command, Kind
from nbiot.enos.session import Answer, CommandStream, EnosSession
from nbiot.session import SessionState
from nbiot.supervisor import Supervisor

T = TypeVar("T")


class BlockingCommand:
    """A command of ``commands``: see nbiot.enos.commands.Command for what it has."""

    def __init__(self, command: Command, session: BlockingEnosSession) -> None:
        self._command = command
        self._session = session

    def __getattr__(self, name: str) -> Any:
        return getattr(self._command, name)

    def reply(self, data: Any = None, *, code: int = 200, message: str = "") -> None:
        """Answer it. Raises as Command.reply."""
        self._session._run(self._command.reply(data, code=code, message=message))


class BlockingEnosSession:
    """The methods of EnosSession, each of which waits until it is done.

    A supervisor and an event loop run in a thread of their own for as long as the ``with`` block
    lasts. port, apn, model, baudrate: as for Supervisor; further options as for EnosSession.
    Ctrl-C in a call cancels that call; the session stays usable.
    """

    def __init__(
        self,
        port: str,
        device: Device,
        server: Server,
        *,
        apn: str | None = None,
        model: str = "auto",
        baudrate: int | None = None,
        **options: Any,
    ) -> None:
        self._make = partial(Supervisor, port, apn=apn, model=model, baudrate=baudrate)
        self._about = (device, server, options)
        self._handlers: list[tuple[Kind | str, Callable[[Command], Any], str]] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="EnOS session")
        self._stack = AsyncExitStack()
        self._session: EnosSession

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self._session = self._run(self._open())
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._run(self._stack.aclose())
        finally:
            self._stop()

    async def _open(self) -> EnosSession:
        device, server, options = self._about
        async with AsyncExitStack() as stack:
            keeper = await stack.enter_async_context(self._make())
            session = EnosSession(keeper, device, server, **options)
            for kind, handler, name in self._handlers:
                session.handle(kind, _in_thread(handler), name=name)
            await stack.enter_async_context(session)
            self._stack = stack.pop_all()
        return session

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    # --- as of EnosSession ------------------------------------------------------------------

    @property
    def state(self) -> SessionState:
        """Where the device stands with EnOS."""
        return self._session.state

    def report(self, points: Mapping[str, Any], *, time: int | None = None) -> Answer:
        """Report measurepoints."""
        return self._run(self._session.report(points, time=time))

    def event(
        self, name: str, outputs: Mapping[str, Any] | None = None, *, time: int | None = None
    ) -> Answer:
        """Report event ``name``."""
        return self._run(self._session.event(name, outputs, time=time))

    def raw(self, payload: bytes) -> Answer:
        """Pass ``payload`` through to the product's parser script."""
        return self._run(self._session.raw(payload))

    def update_attributes(self, values: Mapping[str, Any]) -> Answer:
        """Set attributes."""
        return self._run(self._session.update_attributes(values))

    def attributes(self, names: Iterable[str] = ()) -> Answer:
        """Attributes as EnOS has them."""
        return self._run(self._session.attributes(names))

    def delete_attributes(self, names: Iterable[str]) -> Answer:
        """Delete attributes."""
        return self._run(self._session.delete_attributes(names))

    def update_tags(self, tags: Mapping[str, str]) -> Answer:
        """Set tags."""
        return self._run(self._session.update_tags(tags))

    def tags(self, keys: Iterable[str] = ()) -> Answer:
        """Tags as EnOS has them."""
        return self._run(self._session.tags(keys))

    def delete_tags(self, keys: Iterable[str]) -> Answer:
        """Delete tags."""
        return self._run(self._session.delete_tags(keys))

    def post(self, topic: str, params: Any, *, repeat: bool = False) -> Answer:
        """A JSON message to any other topic of this device."""
        return self._run(self._session.post(topic, params, repeat=repeat))

    def handle(
        self, kind: Kind | str, handler: Callable[[Command], Any], *, name: str = ""
    ) -> None:
        """Let a plain function carry out commands; it runs in a thread of its own.

        Give handlers before entering, too: commands may come with the first response.
        """
        self._handlers.append((kind, handler, name))
        if hasattr(self, "_session"):
            self._loop.call_soon_threadsafe(
                lambda: self._session.handle(kind, _in_thread(handler), name=name)
            )

    def commands(self, *, seconds: float | None = None) -> Iterator[BlockingCommand]:
        """The commands that have no handler, for ``seconds`` or for ever."""
        until = None if seconds is None else time.monotonic() + seconds
        stream = self._session.commands()
        while True:
            left = None if until is None else until - time.monotonic()
            if left is not None and left <= 0:
                return
            command = self._run(_next(stream, left))
            if command is None:
                return
            yield BlockingCommand(command, self)

    def settled(self) -> None:
        """Wait until every command that came was carried out."""
        self._run(self._session.settled())


async def _next(stream: CommandStream, seconds: float | None) -> Command | None:
    try:
        async with asyncio.timeout(seconds):
            return await anext(stream)
    except (TimeoutError, StopAsyncIteration):
        return None


def _in_thread(handler: Callable[[Command], Any]) -> Callable[[Command], Any]:
    async def run(command: Command) -> Any:
        return await asyncio.to_thread(handler, command)

    return run
