"""Commands from EnOS: what came, what to answer, and what was answered before.

EnOS hands a command over with a response of its own: option 2100 holds the topic, 2102 the payload
("Invoking Services and Setting Measurement Points", non-DTLS). The device answers with a POST to
the topic with ``_reply`` behind it. EnOS waits 60 s at most (30 s if nothing else was asked for)
and sends the command again when no answer came.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from nbiot.cloud import Downlink
from nbiot.enos.things import checked_size, checked_value, from_json, to_json
from nbiot.errors import BadInput, BadReply, NbiotError

EXECUTION_LIMIT = 60.0  # s that EnOS waits for the answer at most
MOST_RECORDS = 128  # EnOS queues 50 commands for a device
RECORD_SECONDS = 3600.0  # an id that comes back later than that is a new command
NO_HANDLER, FAILED = 1101, 1102  # codes of EnOS's own SDKs


class Kind(StrEnum):
    """What a command wants."""

    RAW = "raw"
    SET = "set"
    GET = "get"
    SERVICE = "service"


class CommandFailed(NbiotError):
    """Raise it in a handler: the command is answered with ``code`` (user-defined: 2000 and up)."""

    def __init__(self, message: str, *, code: int = 2000) -> None:
        super().__init__(message)
        self.code = code


@dataclass(slots=True)
class Command:
    """A command to this device.

    kind:     raw, set or get (of measurepoints), service
    service:  the service's identifier; empty for the others
    params:   set: values by identifier; get: identifiers; service: its input; raw: None
    payload:  as it came
    id:       EnOS's own; None for raw
    deadline: event-loop time after which EnOS surely does not wait any more
    """

    path: tuple[str, ...]
    kind: Kind
    service: str
    id: str | None
    params: Any = field(repr=False)
    payload: bytes = field(repr=False)
    deadline: float
    _send: Callable[[Command, bytes], Awaitable[None]] = field(repr=False)

    async def reply(self, data: Any = None, *, code: int = 200, message: str = "") -> None:
        """Answer it: ``data`` is bytes for a raw command, else what JSON can say.

        Once only; a command that EnOS sends again is answered again with the same. Raises
        BadInput, RequestRefused, NoResponse and what the modem raises.
        """
        await self._send(self, answer(self, data, code, message))

    @property
    def reply_path(self) -> tuple[str, ...]:
        """The topic with ``_reply`` behind it."""
        return (*self.path[:-1], f"{self.path[-1]}_reply")


def answer(command: Command, data: Any, code: int = 200, message: str = "") -> bytes:
    """The payload of the answer. Raises BadInput."""
    if command.kind is Kind.RAW:
        if not isinstance(data, bytes | bytearray | None):
            raise BadInput("reply", type(data).__name__, "bytes for a raw command")
        return checked_size(bytes(data or b""))
    if type(code) is not int:
        raise BadInput("code", code, "an integer: 200, or 2000 and up for a failure")
    body: dict[str, Any] = {"id": command.id, "code": code}
    if message:
        body["message"] = message
    body["data"] = {} if data is None else checked_value("data", data)
    return checked_size(to_json("data", body))


def read_command(
    downlink: Downlink,
    product_key: str,
    device_key: str,
    deadline: float,
    send: Callable[[Command, bytes], Awaitable[None]],
) -> Command:
    """The command in ``downlink``. Raises BadReply, saying what is wrong with it."""
    kind, service = _kind(downlink.path, product_key, device_key)
    payload = downlink.payload or b""
    if kind is Kind.RAW:
        return Command(downlink.path, kind, service, None, None, payload, deadline, send)
    body = from_json(payload)
    if not isinstance(body, dict):
        raise BadReply("the command is no JSON object")
    number = body.get("id")
    if type(number) not in (str, int):
        raise BadReply("the command has no id, so it cannot be answered")
    params = body.get("params")
    wanted = list if kind is Kind.GET else dict
    if not isinstance(params, wanted) and not (kind is Kind.SERVICE and params is None):
        raise BadReply(f"the params of the command are no {'list' if wanted is list else 'object'}")
    return Command(downlink.path, kind, service, str(number), params, payload, deadline, send)


def _kind(path: tuple[str, ...], product_key: str, device_key: str) -> tuple[Kind, str]:
    match path:
        case ("topic", "sys", pk, dk, "thing", *_) if (pk, dk) != (product_key, device_key):
            raise BadReply(f"a command for another device ({pk}, {dk})")
        case (*_, "thing", "model", "down_raw") if len(path) == 7:
            return Kind.RAW, ""
        case (*_, "thing", "service", "measurepoint", "set") if len(path) == 8:
            return Kind.SET, ""
        case (*_, "thing", "service", "measurepoint", "get") if len(path) == 8:
            return Kind.GET, ""
        case ("topic", "sys", _, _, "thing", "service", name) if name:
            return Kind.SERVICE, name
    raise BadReply(f"a command to an unknown topic: /{'/'.join(path)[:120]}")


@dataclass(slots=True)
class Recorded:
    """A command that came, and its answer once there is one."""

    params: Any
    since: float
    answer: bytes | None = None


class Record:
    """Which commands were carried out, so that none is carried out twice.

    A command is known by topic, id and params. A raw command has no id: it is the same one as
    before if its bytes are, and if EnOS has not confirmed the answer yet.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[Any, ...], Recorded] = OrderedDict()

    def find(self, command: Command, now: float) -> Recorded | None:
        """What is known of ``command``."""
        found = self._known.get(_key(command))
        if found is None or found.params != command.params or now - found.since > RECORD_SECONDS:
            return None
        return found

    def add(self, command: Command, now: float) -> None:
        """``command`` is about to be carried out."""
        key = _key(command)
        self._known.pop(key, None)
        self._known[key] = Recorded(command.params, now)
        while len(self._known) > MOST_RECORDS:
            self._known.popitem(last=False)

    def answered(self, command: Command, payload: bytes) -> None:
        """``payload`` is the answer from now on."""
        if found := self._known.get(_key(command)):
            found.answer = payload

    def confirmed(self, command: Command) -> None:
        """EnOS has the answer."""
        if command.kind is Kind.RAW:
            self._known.pop(_key(command), None)


def _key(command: Command) -> tuple[Any, ...]:
    return command.path, command.payload if command.id is None else command.id
