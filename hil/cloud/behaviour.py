"""How a request is treated on purpose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass
class Behaviour:
    """How a request is treated.  The default is a healthy server.

    What the answer says:

    - ``success_code``: of /auth; EnOS does not document it.
    - ``code``: answer with this code whatever was asked; with 2.xx the request takes effect.
    - ``strict_case``: accept the signature in uppercase only, as documented.
    - ``fault``: fail inside, which gives 5.00.
    - ``big_payload``: that many bytes of payload in the answer (block-wise if they are many).
    - ``options``: (number, value) pairs added to the answer, such as 2100 and 2102; to every
      block of it.  Commands of the queue are not touched by this.

    When it comes:

    - ``slow``: seconds until the answer; above 0.1 s an empty ACK goes ahead of it.
    - ``separate``: the empty ACK goes at once, the answer follows as a CON after ``slow``.

    What happens to the datagrams of this request:

    - ``lose_requests``: the first n which arrive are dropped, so that it must be sent again.
    - ``lose_answers``: the first n which should leave are dropped, empty ACKs included.
    - ``silent``: nothing is ever answered, not even an ACK.
    - ``reset``: answered by RST.
    - ``duplicate``: the answer is sent twice, byte for byte the same.
    - ``corrupt``: True puts a broken option behind the answer's header; bytes are sent instead,
      b"" as an empty datagram.
    - ``wrong_token``, ``wrong_mid``: the answer carries another token; the ACK another message ID.

    With ``lose_requests``, ``silent`` and ``reset`` the server itself never sees the datagram.
    """

    success_code: str = "2.04"
    code: str | None = None
    strict_case: bool = True
    fault: bool = False
    big_payload: int = 0
    options: Sequence[tuple[int, bytes]] = ()
    slow: float = 0.0
    separate: bool = False
    lose_requests: int = 0
    lose_answers: int = 0
    silent: bool = False
    reset: bool = False
    duplicate: bool = False
    corrupt: bool | bytes = False
    wrong_token: bool = False
    wrong_mid: bool = False


def filler(size: int) -> bytes:
    """The payload of ``big_payload``: bytes that count up."""
    return (bytes(range(256)) * (size // 256 + 1))[:size]


_ACK = 2
_RESPONSES = range(2 << 5, 6 << 5)


def is_response(datagram: bytes) -> bool:
    return datagram[1] in _RESPONSES


def spoil(data: bytes, behaviour: Behaviour) -> bytes:
    """The datagram as this behaviour sends it."""
    if behaviour.corrupt is not False:
        if isinstance(behaviour.corrupt, bytes):
            return behaviour.corrupt
        # delta 14 lacks its second byte, length 15 is reserved
        return data[: 4 + (data[0] & 0x0F)] + b"\xef\x00"
    if behaviour.wrong_mid and data[0] >> 4 & 3 == _ACK:
        data = data[:2] + bytes([data[2] ^ 0xFF, data[3] ^ 0xFF]) + data[4:]
    if behaviour.wrong_token and is_response(data):
        if data[0] & 0x0F:
            data = data[:4] + bytes([data[4] ^ 0xFF]) + data[5:]
        else:
            data = bytes([data[0] | 1]) + data[1:4] + b"\xa5" + data[4:]
    return data
