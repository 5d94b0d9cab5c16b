"""A link over a serial port: opened and set up by pyserial, read and written in one of two ways.

``direct``, the default, reads and writes the file descriptor itself; ``pyserial-asyncio`` takes
about twice the CPU for an exchange and stays as the well-known alternative.

The traps of pyserial 3.5 and pyserial-asyncio 0.6, as measured: ``close()`` with unsent bytes never
ends; writes after a loss vanish; the write buffer has no bound; tcdrain runs in the event loop;
opening, setting up and closing the port block.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import termios
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import serial

from nbiot.errors import BadInput, NbiotError, PortError, Unsupported
from nbiot.link import BUFFER_LIMIT, Receiver, check_baudrate, port_lost
from nbiot.link.direct import DirectTransport
from nbiot.link.ports import check_port, is_pty, port_busy, port_missing, port_not_permitted

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

TRANSPORT_VARIABLE = "NBIOT_SERIAL_TRANSPORT"
"""Environment variable that names the transport of serial ports."""
TRANSPORTS = ("direct", "pyserial-asyncio")
_FLUSH_LIMIT = 0.5  # s
_CLOSE_LIMIT = 0.3  # s
_TTY_ERRORS = (OSError, ValueError, termios.error)


async def open_serial(
    path: str, *, baudrate: int = 9600, transport: str | None = None
) -> SerialLink:
    """Open a serial port in a thread; see :func:`nbiot.link.open_link`. Cancelling is safe.

    transport: "direct" or "pyserial-asyncio"; None asks the environment variable
               NBIOT_SERIAL_TRANSPORT, and takes "direct" when it is not set
    """
    check_baudrate(baudrate)
    chosen = transport or os.environ.get(TRANSPORT_VARIABLE) or TRANSPORTS[0]
    if chosen not in TRANSPORTS:
        raise BadInput("transport of serial ports", chosen, " or ".join(TRANSPORTS))
    opening = _Opening(path, baudrate)
    loop = asyncio.get_running_loop()
    executor = ThreadPoolExecutor(1, "nbiot-open")  # asyncio's own would keep its threads
    try:
        port = await loop.run_in_executor(executor, opening.run)
    except asyncio.CancelledError:
        opening.abandon()
        loop.run_in_executor(None, executor.shutdown)  # asyncio.run waits for this
        raise
    finally:
        executor.shutdown(wait=False)
    return SerialLink(path, port, chosen)


class _Opening:
    """An opening in a thread that may be abandoned: then whoever is last closes the port."""

    def __init__(self, path: str, baudrate: int) -> None:
        self._path = path
        self._baudrate = baudrate
        self._lock = threading.Lock()
        self._abandoned = False
        self._port: _Port | None = None

    def run(self) -> _Port:
        port = _open_port(self._path, self._baudrate)
        with self._lock:
            self._port = port
            if self._abandoned:
                port.close()
        return port

    def abandon(self) -> None:
        with self._lock:
            self._abandoned = True
            if self._port is not None:
                self._port.close()


def _open_port(path: str, baudrate: int) -> _Port:
    check_port(path)
    try:
        # inter_byte_timeout=0 is VMIN 1: a read of nothing fails, and is no hang-up.
        port = _Port(
            path, baudrate, timeout=0, write_timeout=0, inter_byte_timeout=0, exclusive=True
        )
    except _TTY_ERRORS as error:
        raise _explain(path, error) from error
    # The lock (flock) keeps out those who ask for it; TIOCEXCL everybody but root. It ends with
    # the last close of a real port, but would outlive us on a pty that an emulator keeps open.
    if not is_pty(os.fstat(port.fileno())):
        with contextlib.suppress(OSError):
            fcntl.ioctl(port.fileno(), termios.TIOCEXCL)
    return port


def _explain(path: str, error: Exception) -> NbiotError:
    code = getattr(error, "errno", None)
    if code in (errno.EBUSY, errno.EWOULDBLOCK):
        return port_busy(path)
    if code in (errno.EACCES, errno.EPERM):
        return port_not_permitted(path)
    if code in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return port_missing(path)
    return PortError(f"{path} cannot be used as a serial port: {error}", hint="Is it one?")


class _Port(serial.Serial):
    """pyserial's port. Closing it twice, in two threads, is safe.

    For pyserial-asyncio its reading and writing never wait and report a loss once, to us.
    """

    on_loss: Callable[[str], None]

    def __init__(self, *args: Any, **options: Any) -> None:
        self._closed_by_somebody = threading.Lock()
        super().__init__(*args, **options)

    def close(self) -> None:
        """Close it, unless another thread does."""
        if self._closed_by_somebody.acquire(blocking=False):
            super().close()

    def read(self, size: int = 1) -> bytes:
        try:
            data = os.read(self.fileno(), size)
        except (BlockingIOError, InterruptedError):
            return b""
        except OSError as error:
            self.on_loss(f"reading failed: {error.strerror}")
            return b""
        if not data:
            self.on_loss("hang-up")
        return data

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return os.write(self.fileno(), data)
        except (BlockingIOError, InterruptedError):
            raise
        except OSError as error:
            self.on_loss(f"writing failed: {error.strerror}")
            raise BlockingIOError from error  # what pyserial-asyncio takes in silence

    def flush(self) -> None:
        """Nothing: pyserial-asyncio would wait here, in the event loop, for bytes to go out."""


class _Protocol(asyncio.Protocol):
    """pyserial-asyncio's way to call the link."""

    def __init__(self, link: SerialLink) -> None:
        self._link = link

    def data_received(self, data: bytes) -> None:
        self._link._received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._link._released()


class SerialLink:
    """A serial port as a :class:`nbiot.link.Link`. Made by :func:`open_serial`."""

    def __init__(
        self,
        name: str,
        port: _Port,
        transport: str = TRANSPORTS[0],
        *,
        limit: int = BUFFER_LIMIT,
    ) -> None:
        self.name = name
        self.baudrate: int = port.baudrate
        self._port = port
        self._kind = transport
        self._limit = limit
        self._receiver: Receiver | None = None
        self._transport: Any = None
        self._lost = ""  # why
        self._aborted = False
        self._gone = asyncio.Event()
        self._jobs: set[asyncio.Future[None]] = set()
        self._closing: asyncio.Task[None] | None = None

    def start(self, receiver: Receiver) -> None:
        """See :class:`nbiot.link.Link`."""
        if self._transport is not None or self._closing is not None or self._lost:
            raise PortError(f"{self.name} was started or closed before", hint="Open it again.")
        self._receiver = receiver
        loop = asyncio.get_running_loop()
        try:
            self._transport = self._make_transport(loop)
        except _TTY_ERRORS as error:  # pyserial-asyncio sets up the port again, and it is gone
            self._lost = str(error)
            self._port.close()
            loop.call_soon(self._released)

    def _make_transport(self, loop: asyncio.AbstractEventLoop) -> Any:
        if self._kind == "direct":
            return DirectTransport(
                loop,
                self._port,
                received=self._received,
                failed=self._on_loss,
                released=self._released,
            )
        import serial_asyncio

        self._port.on_loss = self._on_loss
        return serial_asyncio.SerialTransport(loop, _Protocol(self), self._port)

    def write(self, data: bytes) -> None:
        """See :class:`nbiot.link.Link`."""
        self._check_usable()
        if self._transport is None:
            raise PortError(f"{self.name} is not started", hint="Call start() first.")
        if not data:
            return
        if self._transport.get_write_buffer_size() + len(data) > self._limit:
            raise PortError(
                f"{self.name} takes no bytes: more than {self._limit} would wait",
                hint="Is the modem powered, and nothing holding the line (flow control)?",
            )
        self._transport.write(bytes(data))

    async def set_baudrate(self, baudrate: int) -> None:
        """See :class:`nbiot.link.Link`."""
        check_baudrate(baudrate)
        self._check_usable()
        try:
            await self._in_thread(partial(setattr, self._port, "baudrate", baudrate))
        except _TTY_ERRORS as error:
            self._check_usable()
            raise PortError(f"{self.name}: {baudrate} bit/s refused: {error}") from error
        self._check_usable()  # pyserial takes it in silence when the port is closed
        self.baudrate = baudrate

    async def set_lines(self, *, dtr: bool | None = None, rts: bool | None = None) -> None:
        """See :class:`nbiot.link.Link`."""
        self._check_usable()
        try:
            for line, on in (("dtr", dtr), ("rts", rts)):
                if on is not None:
                    await self._in_thread(partial(setattr, self._port, line, on))
        except _TTY_ERRORS as error:
            self._check_usable()
            if getattr(error, "errno", None) in (errno.ENOTTY, errno.EINVAL):
                raise Unsupported(f"{self.name} has no modem lines (DTR, RTS)") from error
            raise PortError(f"{self.name}: DTR or RTS cannot be set: {error}") from error

    async def close(self) -> None:
        """See :class:`nbiot.link.Link`."""
        self._receiver = None
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        try:
            if not self._lost:
                if self._transport is not None:
                    self._transport.pause_reading()
                    self._transport.flush()  # or it would fill the kernel's buffer again
                self._job(self._drop_unsent)
            # A driver may take its time to close a port: that is no work for the event loop.
            if await self._jobs_done(_FLUSH_LIMIT):
                self._job(self._port.close)
                await self._jobs_done(_CLOSE_LIMIT)
        finally:
            self._abort()
        if self._transport is not None:
            await self._gone.wait()

    async def _jobs_done(self, limit: float) -> bool:
        if self._jobs:
            await asyncio.wait(self._jobs, timeout=limit)
        return not self._jobs

    def _drop_unsent(self) -> None:
        """Otherwise the kernel may wait, in close, for bytes that cannot go out."""
        if self._port.is_open:
            termios.tcflush(self._port.fileno(), termios.TCOFLUSH)

    def _abort(self) -> None:
        if self._transport is None:
            self._port.close()
        elif not self._aborted:  # the transport bears only one
            self._aborted = True
            self._transport.abort()

    def _check_usable(self) -> None:
        if self._lost:
            raise port_lost(self.name, self._lost)
        if self._closing is not None:
            raise PortError(f"{self.name} is closed", hint="Open it again.")

    # --- work that may block

    async def _in_thread(self, work: Callable[[], None]) -> None:
        await asyncio.shield(self._job(work))

    def _job(self, work: Callable[[], None]) -> asyncio.Future[None]:
        """Start ``work``. It runs on when its caller is cancelled; ``close()`` waits for it."""
        job = asyncio.get_running_loop().run_in_executor(None, work)
        self._jobs.add(job)
        job.add_done_callback(self._job_done)
        return job

    def _job_done(self, job: asyncio.Future[None]) -> None:
        self._jobs.discard(job)
        if not job.cancelled():
            job.exception()  # seen, also when nobody waits any more

    # --- from the transport

    def _received(self, data: bytes) -> None:
        if self._receiver is not None:
            self._receiver.received(data)

    def _on_loss(self, reason: str) -> None:
        self._lost = self._lost or reason
        self._abort()

    def _released(self) -> None:
        self._gone.set()
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.lost(port_lost(self.name, self._lost))
