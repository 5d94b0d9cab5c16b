"""A link without a port, for tests and simulators: the far end is Python code."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from nbiot.errors import PortError, Unsupported
from nbiot.link import BUFFER_LIMIT, Receiver, check_baudrate, port_lost


class MemoryLink:
    """A link whose far end is this object's other half: ``sent``, ``feed``, ``lose``, ``stalled``.

    ``on_write`` gets each write's bytes as they reach the far end. ``sent`` gathers them.
    Use the methods of the far end in the event loop too.
    """

    def __init__(
        self,
        name: str = "memory",
        baudrate: int = 0,
        *,
        on_write: Callable[[bytes], None] | None = None,
        limit: int = BUFFER_LIMIT,
    ) -> None:
        self.name = name
        self.baudrate = baudrate
        self.on_write = on_write
        self.sent = bytearray()
        self._limit = limit
        self._receiver: Receiver | None = None
        self._incoming: list[bytes] = []
        self._unsent: list[bytes] = []
        self._stalled = False
        self._started = False
        self._closed = False
        self._lost: str | None = None  # why

    # --- the far end

    def feed(self, data: bytes) -> None:
        """Let ``data`` arrive, on the loop's next turn; what comes before ``start()`` waits."""
        if data and self._lost is None:
            self._incoming.append(bytes(data))
            self._wake()

    def lose(self, reason: str = "hang-up") -> None:
        """Let the port go away, after what was fed."""
        if self._lost is None:
            self._lost = reason
            self._wake()

    @property
    def stalled(self) -> bool:
        """Whether the far end takes no bytes. Set it to False and it takes those that waited."""
        return self._stalled

    @stalled.setter
    def stalled(self, stalled: bool) -> None:
        self._stalled = stalled
        while self._unsent and not self._stalled:
            self._deliver(self._unsent.pop(0))

    # --- the link

    def start(self, receiver: Receiver) -> None:
        """See :class:`nbiot.link.Link`."""
        if self._started or self._closed:
            raise PortError(f"{self.name} was started or closed before", hint="Open it again.")
        self._started = True
        self._receiver = receiver
        self._wake()

    def write(self, data: bytes) -> None:
        """See :class:`nbiot.link.Link`."""
        self._check_usable()
        if not self._started:
            raise PortError(f"{self.name} is not started", hint="Call start() first.")
        if sum(map(len, self._unsent)) + len(data) > self._limit:
            raise PortError(
                f"{self.name} takes no bytes: {self._limit} are waiting",
                hint="Is the far end reading?",
            )
        if self._stalled:
            self._unsent.append(bytes(data))
        else:
            self._deliver(bytes(data))

    async def set_baudrate(self, baudrate: int) -> None:
        """See :class:`nbiot.link.Link`."""
        check_baudrate(baudrate)
        self._check_usable()
        self.baudrate = baudrate

    async def set_lines(self, *, dtr: bool | None = None, rts: bool | None = None) -> None:
        """See :class:`nbiot.link.Link`."""
        self._check_usable()
        if dtr is not None or rts is not None:
            raise Unsupported(f"{self.name} has no modem lines")

    async def close(self) -> None:
        """See :class:`nbiot.link.Link`."""
        self._closed = True
        self._receiver = None
        self._unsent.clear()

    def _check_usable(self) -> None:
        if self._lost is not None:
            raise port_lost(self.name, self._lost)
        if self._closed:
            raise PortError(f"{self.name} is closed", hint="Open it again.")

    def _deliver(self, data: bytes) -> None:
        self.sent += data
        if self.on_write is not None:
            self.on_write(data)

    def _wake(self) -> None:
        if self._receiver is not None:
            asyncio.get_running_loop().call_soon(self._hand_over)

    def _hand_over(self) -> None:
        while self._receiver is not None and self._incoming:
            self._receiver.received(self._incoming.pop(0))
        if self._receiver is not None and self._lost is not None:
            receiver, self._receiver = self._receiver, None
            receiver.lost(port_lost(self.name, self._lost))
