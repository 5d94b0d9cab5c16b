"""What the stand-in keeps to be read afterwards, and the few words its rooms share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar

Address = tuple[str, int]
DeviceId = tuple[str, str]
T = TypeVar("T")


class Kept(list[T]):
    """A list that holds the last ``size`` items appended; ``total`` counts all there ever were."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.total = 0

    def append(self, item: T, /) -> None:
        super().append(item)
        self.total += 1
        if len(self) > self.size:
            del self[0]


class Datagram(NamedTuple):
    """One datagram at the border: "in" as it arrived, "out" as it left (lost ones did not)."""

    direction: Literal["in", "out"]
    time: float
    data: bytes
    peer: Address


@dataclass(frozen=True)
class Request:
    """One request as the server understood it, and what it thought of it.

    Device secrets are blotted out of the payload, signatures are cut to their first 8 digits
    (they hold no nonce, so a whole one could be used again).  A request in blocks is one request,
    its options are those of the last block.  ``body_code`` is the "code" of a JSON answer.
    """

    time: float
    peer: Address
    method: str
    path: tuple[str, ...]
    options: tuple[tuple[int, bytes], ...]
    payload: bytes
    verdict: str
    code: str
    body_code: int | None = None


@dataclass(frozen=True)
class Report:
    """An uplink that was accepted.  ``topic`` is without /topic/sys/{productKey}/{deviceKey}/.

    ``params`` are those of a JSON report, None for up_raw.
    """

    time: float
    device: DeviceId
    topic: str
    payload: bytes
    params: Any = None


@dataclass
class Counters:
    """What happened since the Cloud was made; nothing is ever forgotten here.

    Datagrams: ``received`` and ``sent`` at the border; of the received ones ``unreadable`` (no
    CoAP) and ``not_requests`` (empty messages, answers, and what nobody may send); ``lost``,
    ``doubled`` and ``held`` by an `Impairment`; ``spoiled`` by a `Behaviour` (requests ignored and
    answers withheld on purpose).

    Requests: ``requests`` were judged, ``blocks`` only continued a transfer.  ``duplicates`` had a
    message ID seen before (``answered_again``: the answer was sent once more); ``mid_reused`` of
    them were not the same bytes, which a client must not do within EXCHANGE_LIFETIME.

    Outcome: ``accepted`` reports, ``rejected`` ones (4.xx, or a JSON answer with another code than
    200); ``deliveries`` of commands, ``replies`` taken, ``stray_replies`` that fit no command or
    came late or again.
    """

    received: int = 0
    sent: int = 0
    unreadable: int = 0
    not_requests: int = 0
    lost: int = 0
    doubled: int = 0
    held: int = 0
    spoiled: int = 0
    requests: int = 0
    blocks: int = 0
    duplicates: int = 0
    answered_again: int = 0
    mid_reused: int = 0
    accepted: int = 0
    rejected: int = 0
    deliveries: int = 0
    replies: int = 0
    stray_replies: int = 0


@dataclass(frozen=True)
class Asked:
    """A whole request in plain data, as the handlers see it."""

    time: float
    peer: Address
    method: str
    path: tuple[str, ...]
    options: tuple[tuple[int, bytes], ...]
    payload: bytes


@dataclass(frozen=True)
class Answer:
    """What is to be answered.  ``device`` is the one that may be given commands along with it."""

    code: str
    verdict: str
    payload: bytes = b""
    device: DeviceId | None = None
    body_code: int | None = None
    max_age: int | None = None
    size1: int | None = None

    @property
    def is_success(self) -> bool:
        return self.code.startswith("2.")


class Refused(Exception):
    """Answered by this code; ``max_age`` and ``size1`` are options that explain it."""

    def __init__(
        self, code: str, verdict: str, *, max_age: int | None = None, size1: int | None = None
    ) -> None:
        super().__init__(verdict)
        self.code = code
        self.verdict = verdict
        self.max_age = max_age
        self.size1 = size1
