"""One confirmable request and its response as a state machine (RFC 7252, sections 4 and 5).

No I/O and no clock: datagrams and times go in, datagrams come out. It acknowledges a duplicate of a
separate response again, stops repeating once the response is in, whatever became of the ACK, and
stops at once when it is dropped.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field

from aiocoap.numbers.types import Type

from nbiot.coap.message import Datagram, decode, encode_empty
from nbiot.errors import BadDatagram, BadInput, NoResponse, ResponseReset

NBIOT_ACK_TIMEOUT = 15.0
EXCHANGE_LIFETIME = 247.0  # s that a server remembers a message id (RFC 7252, 4.8.2)


@dataclass(frozen=True, slots=True)
class Timing:
    """Transmission parameters (RFC 7252, 4.8) with times for NB-IoT, all in seconds.

    RFC 7252's own 2 s would repeat every request of a device in bad coverage, where one round trip
    takes up to 10 s. ``response_timeout``: how long a separate response may take after the empty
    ACK. ``backoff``: each wait is so many times the one before; RFC 7252 doubles.

    A repetition that comes when the server has forgotten the message id is a new request to it: a
    report would count twice. So all repetitions must lie within EXCHANGE_LIFETIME.
    """

    ack_timeout: float = NBIOT_ACK_TIMEOUT
    random_factor: float = 1.5
    max_retransmit: int = 3
    response_timeout: float = 90.0
    backoff: float = 2.0

    @property
    def span(self) -> float:
        """Seconds from the first transmission to the last, at most (MAX_TRANSMIT_SPAN)."""
        waits = (self.backoff**n for n in range(self.max_retransmit))
        return self.ack_timeout * self.random_factor * sum(waits)

    def __post_init__(self) -> None:
        for name, least, most in (
            ("ack_timeout", 0.05, 600),
            ("random_factor", 1, 10),
            ("max_retransmit", 0, 20),
            ("response_timeout", 0.05, 3600),
            ("backoff", 1, 3),
        ):
            value = getattr(self, name)
            if not least <= value <= most:  # false for NaN, too
                raise BadInput(name, value, f"{least:g} to {most:g}")
        if type(self.max_retransmit) is not int:
            raise BadInput("max_retransmit", self.max_retransmit, "an integer from 0 to 20")
        if self.span > EXCHANGE_LIFETIME:
            raise BadInput(
                "max_retransmit",
                self.max_retransmit,
                f"fewer, or a shorter ack_timeout ({self.ack_timeout:g} s): the last repetition"
                f" could come {self.span:.0f} s after the request, and a server that forgets it"
                f" after {EXCHANGE_LIFETIME:g} s takes it twice",
            )


@dataclass(slots=True)
class Dropped:
    """Datagrams that were not for this exchange, counted by reason."""

    reasons: dict[str, int] = field(default_factory=dict)

    def add(self, reason: str) -> None:
        self.reasons[reason] = self.reasons.get(reason, 0) + 1

    def __str__(self) -> str:
        return ", ".join(f"{count} {reason}" for reason, count in self.reasons.items())


Answered = deque[tuple[int, bytes]]
"""Message id and token of the separate responses that were acknowledged, the latest ones."""


class Exchange:
    """Feed it with ``received`` and ``timed_out``; send what they return; read ``response``.

    ``answered`` is handed from one exchange with a server to the next: when the ACK of a separate
    response was lost, the server repeats that response into the next exchange.
    """

    def __init__(
        self,
        datagram: bytes,
        mid: int,
        token: bytes,
        timing: Timing,
        *,
        answered: Answered | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.datagram = datagram
        self.response: Datagram | None = None
        self.acknowledged = False
        self.retransmissions = 0
        self.dropped = Dropped()
        self.deadline = float("inf")
        self._mid = mid
        self._token = token
        self._timing = timing
        self._answered = Answered(maxlen=8) if answered is None else answered
        spread = (rng or random).uniform(1.0, timing.random_factor)
        self._timeout = timing.ack_timeout * spread

    def sent(self, now: float) -> None:
        """The modem has taken the request: its time begins."""
        if not self.acknowledged:
            self.deadline = now + self._timeout * self._timing.backoff**self.retransmissions

    def timed_out(self, now: float) -> list[bytes]:
        """``deadline`` has passed. The request again, or NoResponse."""
        if now < self.deadline:
            return []
        heard = f" (dropped: {self.dropped})" if self.dropped.reasons else ""
        if self.acknowledged:
            raise NoResponse(
                "the server acknowledged the request, but its response did not come within"
                f" {self._timing.response_timeout:g} s{heard}",
                hint="The server is alive but slow; try again.",
            )
        if self.retransmissions >= self._timing.max_retransmit:
            tries = self.retransmissions + 1
            words = "1 transmission" if tries == 1 else f"{tries} transmissions"
            raise NoResponse(
                f"no answer from the server to {words}{heard}",
                hint="Check the server's name and port, and whether this SIM's APN reaches it.",
            )
        self.retransmissions += 1
        return [self.datagram]

    def received(self, data: bytes, now: float) -> list[bytes]:
        """What to send after ``data`` came. Raises ResponseReset."""
        try:
            message = decode(data)
        except BadDatagram as error:
            self.dropped.add(f"malformed: {error.message}")
            # A confirmable one is rejected, so that the server stops repeating it (4.2).
            confirmable = len(data) >= 4 and data[0] >> 4 == 0b0100
            return [encode_empty(Type.RST, data[2] << 8 | data[3])] if confirmable else []
        if message.type in (Type.ACK, Type.RST):
            self._acknowledgement(message, now)
            return []
        return self._separate(message)

    def _acknowledgement(self, message: Datagram, now: float) -> None:
        if message.mid != self._mid:
            self.dropped.add("acknowledgement of another message")
        elif message.type is Type.RST and not message.is_empty:
            self.dropped.add("reset that is not empty")
        elif message.type is Type.RST:
            raise ResponseReset(
                "the server rejected the request (RST)",
                hint="Is this an EnOS CoAP server? Check the port (plain CoAP is 5683).",
            )
        elif message.is_empty:
            self._acknowledge(now)
        else:
            self._take(message)

    def _acknowledge(self, now: float) -> None:
        if not self.acknowledged and self.response is None:
            self.acknowledged = True
            self.deadline = now + self._timing.response_timeout

    def _separate(self, message: Datagram) -> list[bytes]:
        """A response, ping or request in a message of its own."""
        confirmable = message.type is Type.CON
        identity = (message.mid, message.token)
        ours = message.is_response and message.token == self._token
        if ours and self._take(message):
            if not confirmable:
                return []
            self._answered.append(identity)
            return [encode_empty(Type.ACK, message.mid)]
        if not ours:
            self.dropped.add("message that is no response to ours")
        if not confirmable:
            return []
        known = message.is_response and identity in self._answered
        return [encode_empty(Type.ACK if known else Type.RST, message.mid)]

    def _take(self, message: Datagram) -> bool:
        """Is ``message`` the response? A duplicate is, too, and changes nothing."""
        if not message.is_response or message.token != self._token:
            self.dropped.add("response with another token")
            return False
        if message.not_understood:
            self.dropped.add(f"response with critical option {message.not_understood[0]}")
            return False
        if self.response is None:
            self.response = message
        return True
