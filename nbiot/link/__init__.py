"""The way to the modem's bytes: a five-method seam over serial ports and what stands for them.

``open_link("/dev/ttyUSB0")`` opens a serial port; ``open_link("name:rest")`` asks the link that a
package registered as ``name`` in the entry point group ``nbiot.links``. Such an entry is a callable
``async (rest: str, *, baudrate: int) -> Link``. docs/ports.md tells which there are.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from nbiot.errors import BadInput, PortError, PortLost

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = [
    "BUFFER_LIMIT",
    "Link",
    "LinkOpener",
    "Receiver",
    "check_baudrate",
    "open_link",
    "port_lost",
]

BUFFER_LIMIT = 64 * 1024
"""Bytes a link keeps for a peer that does not take them."""
BAUDRATE_MIN, BAUDRATE_MAX = 50, 4_000_000


class Receiver(Protocol):
    """What a link calls, always from the event loop and never from inside one of its methods."""

    def received(self, data: bytes) -> None:
        """Bytes came, at least one."""
        ...

    def lost(self, error: PortLost) -> None:
        """The port went away: called once, nothing follows. Never called after ``close()``."""
        ...


class Link(Protocol):
    """An open port. Use it from one event loop only."""

    name: str
    """As the user gave it, for messages."""

    @property
    def baudrate(self) -> int:
        """bit/s; 0 where there is no such thing (TCP, memory)."""
        ...

    def start(self, receiver: Receiver) -> None:
        """Begin reading, once. A port that is gone by now is reported as ``lost``."""
        ...

    def write(self, data: bytes) -> None:
        """Queue ``data`` and return at once: all of it, or none when this raises.

        Raises PortLost after a loss, PortError when the buffer (64 KiB) would overflow because
        the peer does not take bytes, before ``start()`` and after ``close()``.
        """
        ...

    async def set_baudrate(self, baudrate: int) -> None:
        """Change the speed (bit/s, 50 to 4,000,000) now; drain first what must go out at the old.

        Raises BadInput, PortLost, PortError when the driver refuses, or Unsupported where the far
        end decides (``baudrate`` is 0 there).
        """
        ...

    async def set_lines(self, *, dtr: bool | None = None, rts: bool | None = None) -> None:
        """Set modem control lines; None leaves a line alone.

        Raises Unsupported where there are none (a pty, memory), PortLost, PortError.
        """
        ...

    async def close(self) -> None:
        """Drop unsent bytes and release the port, within 1 s whatever the peer does.

        Idempotent. When cancelled the port is released all the same, in the background.
        """
        ...


class LinkOpener(Protocol):
    """An entry of ``nbiot.links``. ``rest`` is the URL after ``name:``."""

    async def __call__(self, rest: str, /, *, baudrate: int) -> Link: ...


def port_lost(name: str, reason: str) -> PortLost:
    """The error for a port that went away; for writers of links."""
    hint = "Check cable and power, then open it again; /dev/serial/by-id paths stay the same."
    return PortLost(f"{name} went away: {reason}", hint=hint)


def check_baudrate(value: object) -> int:
    """Return ``value`` if it is an integer from 50 to 4,000,000 (bit/s), else raise BadInput."""
    if type(value) is int and BAUDRATE_MIN <= value <= BAUDRATE_MAX:
        return value
    raise BadInput("baudrate", value, f"an integer from {BAUDRATE_MIN} to {BAUDRATE_MAX} (bit/s)")


async def open_link(url: str, *, baudrate: int = 9600) -> Link:
    """Open ``url``: a device path, or ``name:rest`` for a link from the group ``nbiot.links``.

    A serial port is opened exclusively, 8N1, without flow control, and bytes that waited in it are
    dropped. Raises BadInput, PortMissing, PortBusy, PortNotPermitted or PortError.
    """
    check_baudrate(baudrate)
    if not url or not url.isprintable():
        raise BadInput("port", url, "a device path such as /dev/ttyUSB0, or name:rest")
    name, colon, rest = url.partition(":")
    if not colon or "/" in name:  # a path may have colons: /dev/serial/by-path/pci-0000:00:14.0
        from nbiot.link.serial import open_serial

        return await open_serial(url, baudrate=baudrate)
    opener = await asyncio.to_thread(_load_opener, url, name)
    return await opener(rest, baudrate=baudrate)


def _load_opener(url: str, name: str) -> LinkOpener:
    from importlib.metadata import entry_points

    known: dict[str, EntryPoint] = {
        entry.name: entry for entry in entry_points(group="nbiot.links")
    }
    if name not in known:
        schemes = "".join(f", {scheme}:..." for scheme in sorted(known))
        raise BadInput("port", url, f"a device path such as /dev/ttyUSB0{schemes}")
    try:
        opener: LinkOpener = known[name].load()
    except Exception as error:
        raise PortError(
            f"the link {name}: ({known[name].value}) cannot be loaded: {error}",
            hint="Install again the package that brings it.",
        ) from error
    return opener
