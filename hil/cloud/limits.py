"""The documented limits of EnOS, each with a switch.

From the limitations page of EnOS 2.4.4 ("default, expandable per environment"), where nothing
else is said.  How the server answers to a limit is documented nowhere: see `Limits`.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

CONNECTIONS = 4  # requests within
CONNECTIONS_WINDOW = 120.0  # s, and after one more
CONNECTIONS_LIMITED = 300.0  # s without
CONNECTION_SPACING = 1.0  # s


@dataclass(frozen=True)
class Limits:
    """None (or False) switches a limit off.

    - ``message_size``: "single CoAP publish max 1 KB", read as 1024 bytes of payload, block-wise or
      not.  A JSON topic answers 1008 in its envelope; whatever has no envelope (up_raw, /auth,
      replies) and whatever comes in blocks is 4.13 with Size1 (RFC 7252, 5.9.2.9).
    - ``up_rate``, ``down_rate``: bytes of payload per second and device, up and down; bursts of one
      second's worth pass.  Too much up is ``limited_code``; too much down waits for a later answer.
      Seconds are those of the cloud's clock: nothing drains while an injected one stands still.
    - ``names``: attributes, tags, measurepoints in one message.
    - ``string_length``: of an attribute's value.
    - ``identifiers``: 1..128 letters, digits, "-", "_", "." for attributes and the like (64 before
      2.3 CU3); of a tag key the union of two pages: 1..100 letters, digits, "_", "-", "/".
    - ``connections``: one /auth per second and device; after 4 within 2 minutes, the next begins
      5 minutes in which every one is refused.  OFF unless asked for, because tests authenticate
      often.  Every /auth of a known device counts, the refused ones do too, but they do not prolong
      the 5 minutes.  Retransmissions do not count.
    - ``lifetime``: a device that was quiet for its lifetime is offline, its uplinks are 4.01.
    - ``source_address``: a session belongs to the address and port that authenticated.
    - ``cached_commands``: commands of a device not finished yet; one more is `QueueFull`.
    - ``command_times``: time-out 1..60 s, pending time 0..172800 s.
    - ``limited_code``: what is answered above a rate.  Undocumented; 4.29 (RFC 8516) is one
      reading and has Max-Age to tell when, 4.03 is another.
    """

    message_size: int | None = 1024
    up_rate: int | None = 10 * 1024
    down_rate: int | None = 10 * 1024
    names: int | None = 200
    string_length: int | None = 4000
    identifiers: bool = True
    connections: bool = False
    lifetime: bool = True
    source_address: bool = True
    cached_commands: int | None = 50
    command_times: bool = True
    limited_code: str = "4.29"


class Rate:
    """Bytes in the last moments, which drain at the rate that is allowed."""

    def __init__(self) -> None:
        self._level = 0.0
        self._at = -math.inf

    def take(self, size: int, rate: int | None, now: float) -> bool:
        """Whether that many bytes may pass now; if so they are counted."""
        if rate is None:
            return True
        if now > self._at:
            self._level = max(0.0, self._level - (now - self._at) * rate)
            self._at = now
        if self._level > 0 and self._level + size > rate:
            return False
        self._level += size
        return True


class Connections:
    """The times of one device's connection requests."""

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=CONNECTIONS)
        self._limited_until = -math.inf

    def ask(self, now: float) -> float:
        """Seconds which the device must wait; 0 lets it connect."""
        if now < self._limited_until:
            return self._limited_until - now
        times = self._times
        if len(times) == CONNECTIONS and now - times[0] < CONNECTIONS_WINDOW:
            times.clear()
            self._limited_until = now + CONNECTIONS_LIMITED
            return CONNECTIONS_LIMITED
        too_soon = bool(times) and now - times[-1] < CONNECTION_SPACING
        wait = times[-1] + CONNECTION_SPACING - now if too_soon else 0.0
        times.append(now)
        return wait
