"""The cheapest way to read and write a serial port in an event loop: its file descriptor itself.

pyserial opens the port and sets it up; what is read and written goes past it. It must be set to
VMIN 1 (``inter_byte_timeout=0``): then an empty read means a hang-up and nothing else.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Protocol

_READ_SIZE = 4096


class Port(Protocol):
    """What is asked of a port: a file descriptor that never blocks."""

    def fileno(self) -> int: ...
    def close(self) -> None: ...


class DirectTransport:
    """Reader and writer of ``port``, with those methods of asyncio's transports that are used.

    ``received`` gets what came. ``failed`` is told why reading or writing failed, at once, and is
    to call :meth:`abort`; ``released`` is called one turn after that.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        port: Port,
        *,
        received: Callable[[bytes], None],
        failed: Callable[[str], None],
        released: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._port = port
        self._fd = port.fileno()
        self._received = received
        self._failed = failed
        self._released = released
        self._unsent = bytearray()
        self._reading = True  # once closed, the descriptor's number may be another port's
        self._writing = False
        loop.add_reader(self._fd, self._read_ready)

    def get_write_buffer_size(self) -> int:
        """Bytes that wait for the kernel to take them."""
        return len(self._unsent)

    def write(self, data: bytes) -> None:
        """Give ``data`` to the kernel now, or keep what it does not take until it does."""
        if self._unsent:
            self._unsent += data
            return
        taken = self._give(data)
        if 0 <= taken < len(data):
            self._unsent += data[taken:]
            self._writing = True
            self._loop.add_writer(self._fd, self._write_ready)

    def pause_reading(self) -> None:
        """Hear nothing more."""
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._fd)

    def flush(self) -> None:
        """Drop what was not sent, as pyserial-asyncio's method of this name does."""
        self._unsent.clear()
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._fd)

    def abort(self) -> None:
        """Release the port. Call it once."""
        self.pause_reading()
        self.flush()
        self._port.close()
        self._loop.call_soon(self._released)

    def _give(self, data: bytes | bytearray) -> int:
        """How many bytes the kernel took; -1 after a failure."""
        try:
            return os.write(self._fd, data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            self._failed(f"writing failed: {error.strerror}")
            return -1

    def _read_ready(self) -> None:
        try:
            data = os.read(self._fd, _READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._failed(f"reading failed: {error.strerror}")
            return
        if data:
            self._received(data)
        else:
            self._failed("hang-up")

    def _write_ready(self) -> None:
        taken = self._give(self._unsent)
        if taken < 0:
            return
        del self._unsent[:taken]
        if not self._unsent:
            self.flush()
