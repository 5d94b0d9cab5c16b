"""The command queue of a device, and its replies.

Documented ("Cached issuing" and "Viewing command status" for the queue, "Invoking Service, Setting
Measure Point (Non-DTLS)" for the delivery):

- A command is cached and goes out with the answer to the device's next request: option 2100 is the
  topic with /topic in front, option 2102 the payload.  With DTLS, and before September 2019, there
  is only option 2100, and the device gets the payload by GET on that path.
- One at a time: the next is handed over after the reply to the last one, or its time-out.
- At most 50 cached; pending time 0..172800 s (0 is instant); time-out 1..60 s, 30 by default,
  counted from the delivery.  After a time-out a command may be sent again.
- The reply is a POST to that path with "_reply" appended; a JSON reply has the id of the command.

Assumed, because nothing is written about it:

- An instant command is handed over if a request of the device is waiting for its answer right now
  (a slow one, see `Behaviour`); if not, it expires at once, for the cloud cannot push.
- A command may be queued before the first /auth (the REST API says 11888, not activated), and the
  queue outlives sessions.
- A command being handed over by GET is announced by option 2100 in each answer until it is
  fetched; it counts as sent, and its time-out runs, from the first GET.  Another GET for it gets
  the payload again until the reply is there.
- A reply to a command that is finished, or to none, gets 2.04 and is only recorded; a JSON reply
  that cannot be read is 4.00; a reply on the topic of another kind of command too.
- A reply of down_raw has no id: it is that of the raw command which was sent; it means success.
- Of a JSON reply 200 means success and any other code failure.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import chain
from typing import Any, Literal, NamedTuple

from hil.cloud.records import DeviceId, Kept, Refused
from hil.cloud.things import OK, dump, load

DOWN_RAW = "thing/model/down_raw"
SET = "thing/service/measurepoint/set"
GET = "thing/service/measurepoint/get"
SERVICE = "thing/service/"
REPLY = "_reply"

TOPIC_OPTION = 2100
PAYLOAD_OPTION = 2102
TIMEOUTS = (1.0, 60.0)
PENDING = (0.0, 172800.0)
RECORDS_KEPT = 100  # replies and history entries of one command
_POLL = 0.01  # s between two looks of `Command.done` at the clock
_SERVICE_ID = re.compile(r"[A-Za-z0-9_.\-]{1,128}")


class CommandState(IntEnum):
    """The numbers are EnOS's."""

    CREATED = 1
    CANCELLED = 2
    EXPIRED = 3
    SENT = 4
    SUCCESS = 5
    FAILED = 6
    TIMED_OUT = 7

    @property
    def is_final(self) -> bool:
        return self not in (CommandState.CREATED, CommandState.SENT)


class QueueFull(Exception):
    """11902: as many commands as allowed are cached for this device."""


class CommandReply(NamedTuple):
    """One reply; ``code`` and ``data`` are None for down_raw."""

    time: float
    code: int | None
    data: Any
    payload: bytes


@dataclass(frozen=True)
class Downlink:
    """How commands are handed over.

    - ``dialect``: "2100+2102" is the documented one of today; with "2100+get" the answer has only
      option 2100, and the device fetches the payload by GET (2.05).
    - ``on_auth``: the answer to /auth may carry commands.  Undocumented for CoAP; EnOS does so over
      HTTP.
    - ``at_once``: how many commands may be with the device at the same time, in one answer or in
      several; EnOS says 1.  More of them test the pairing of repeated options: the n-th 2102
      belongs to the n-th 2100.
    - ``option_max``: bytes of payload up to which option 2102 is used; a longer command is handed
      over by GET, alone.  Undocumented; 255 keeps an answer below the 512 bytes that the smallest
      modems take in one datagram.
    """

    dialect: Literal["2100+2102", "2100+get"] = "2100+2102"
    on_auth: bool = True
    at_once: int = 1
    option_max: int = 255


@dataclass(eq=False)
class Command:
    """One command.  ``deliveries`` counts how often it was handed over, retransmissions of the same
    answer aside; ``announced`` how often by option 2100 alone.  ``replies`` has the accepted reply
    (or none), ``ignored`` those that came too late or again; ``history`` (time, state).
    """

    id: str
    device: DeviceId
    topic: str
    payload: bytes = field(repr=False)
    timeout: float
    pending: float
    resend: int
    created: float
    _queue: CommandQueue = field(repr=False)
    deliveries: int = 0
    announced: int = 0
    replies: list[CommandReply] = field(default_factory=list)
    ignored: Kept[CommandReply] = field(default_factory=lambda: Kept(RECORDS_KEPT))
    history: Kept[tuple[float, CommandState]] = field(default_factory=lambda: Kept(RECORDS_KEPT))
    _state: CommandState = CommandState.CREATED
    _due: float = 0.0
    _resends_left: int = 0
    _finished: asyncio.Event = field(default_factory=asyncio.Event, repr=False)

    def __post_init__(self) -> None:
        self._resends_left = self.resend
        self.history.append((self.created, self._state))

    @property
    def state(self) -> CommandState:
        """As it is now by the cloud's clock."""
        self._queue.settle()
        return self._state

    @property
    def path(self) -> str:
        """The value of option 2100."""
        return "/".join(("/topic/sys", *self.device, self.topic))

    @property
    def is_raw(self) -> bool:
        return self.topic == DOWN_RAW

    def cancel(self) -> bool:
        """Take it back; False if it was sent or finished before."""
        return self._queue.cancel(self)

    async def done(self, timeout: float | None = None) -> CommandState:
        """Wait for a final state; TimeoutError after ``timeout`` seconds of real time."""
        async with asyncio.timeout(timeout):
            while not self.state.is_final:  # an injected clock tells nobody that it moved on
                try:
                    await asyncio.wait_for(self._finished.wait(), _POLL)
                except TimeoutError:
                    continue
        return self.state


class CommandQueue:
    """The commands of one device.  Nothing here waits: time is looked at when somebody asks."""

    def __init__(self, device: DeviceId, clock: Callable[[], float], kept: int) -> None:
        self.device = device
        self.all: Kept[Command] = Kept(kept)
        self._open_requests = 0
        self._clock = clock
        self._waiting: deque[Command] = deque()
        self._with_device: list[Command] = []
        self._last_id = 0

    @property
    def unfinished(self) -> int:
        self.settle()
        return len(self._waiting) + len(self._with_device)

    @contextmanager
    def request_open(self) -> Iterator[None]:
        """While a request of the device waits for its answer, instant commands may wait for it."""
        self._open_requests += 1
        try:
            yield
        finally:
            self._open_requests -= 1

    def next_id(self) -> str:
        self._last_id += 1
        return str(self._last_id)

    def add(self, command: Command) -> None:
        self.all.append(command)
        self._waiting.append(command)
        self.settle()

    def settle(self) -> None:
        """Let happen what the time has brought."""
        now = self._clock()
        for command in list(self._with_device):
            if now >= command._due:
                self._time_out(command)
        for command in list(self._waiting):
            until = command.created + command.pending
            if now < until or (command.pending == 0 and self._open_requests):
                continue
            if command._state is CommandState.CREATED:
                self._finish(command, CommandState.EXPIRED, until)
            else:  # it was to be sent again
                self._finish(command, CommandState.TIMED_OUT, max(until, command._due))

    def hand_over(
        self, downlink: Downlink, may_send: Callable[[int], bool]
    ) -> list[tuple[int, bytes]]:
        """The options for the answer that is about to leave."""
        self.settle()
        options: list[tuple[int, bytes]] = []
        while self._waiting and len(self._with_device) < downlink.at_once:
            command = self._waiting[0]
            topic = (TOPIC_OPTION, command.path.encode())
            if downlink.dialect == "2100+get" or len(command.payload) > downlink.option_max:
                if not options:
                    command.announced += 1
                    options = [topic]
                break
            if not may_send(len(command.payload)):
                break
            self._sent(command)
            options += [topic, (PAYLOAD_OPTION, command.payload)]
        return options

    def fetch(self, topic: str, may_send: Callable[[int], bool]) -> Command | None:
        """The command that a GET asks for: one announced, or one fetched before."""
        self.settle()
        for command in chain(self._waiting, self._with_device):
            if command.topic == topic and command.announced and may_send(len(command.payload)):
                self._sent(command)
                return command
        return None

    def reply(self, topic: str, payload: bytes) -> tuple[bool, str]:
        """Take a reply on the topic of a command: whether it was accepted, and in words."""
        self.settle()
        if topic == DOWN_RAW:
            identity, reply = None, CommandReply(self._clock(), None, None, payload)
        else:
            identity, reply = _read_reply(payload, self._clock())
        command = self._addressee(topic, identity)
        if command is None:
            return False, "a reply to no command that was sent"
        if command._state is not CommandState.SENT:
            command.ignored.append(reply)
            return False, f"a reply to command {command.id}, which is finished"
        command.replies.append(reply)
        ok = reply.code in (None, OK)
        state = CommandState.SUCCESS if ok else CommandState.FAILED
        self._finish(command, state, reply.time)
        return True, f"the reply to command {command.id}" + ("" if ok else f": {reply.code}")

    def cancel(self, command: Command) -> bool:
        self.settle()
        if command._state is not CommandState.CREATED:
            return False
        self._finish(command, CommandState.CANCELLED, self._clock())
        return True

    def _addressee(self, topic: str, identity: str | None) -> Command | None:
        """The unfinished command rather than a finished one, the newest of several."""
        found = None
        for command in self._sent_ones():
            if identity is None:
                if command.is_raw:
                    found = command
            elif command.id == identity and not command.is_raw:
                found = command
            if found is not None and found._state is CommandState.SENT:
                break
        if found is not None and found.topic != topic:
            raise Refused("4.00", f"a reply to command {found.id} on the topic of another")
        return found

    def _sent_ones(self) -> Iterator[Command]:
        """The finished ones last; those which never left cannot be replied to."""
        unfinished = chain(self._with_device, self._waiting)
        return (c for c in chain(unfinished, reversed(self.all)) if c.deliveries)

    def _sent(self, command: Command) -> None:
        now = self._clock()
        if command not in self._with_device:
            self._waiting.remove(command)
            self._with_device.append(command)
        command.deliveries += 1
        command._due = now + command.timeout
        _enter(command, CommandState.SENT, now)

    def _time_out(self, command: Command) -> None:
        if not command._resends_left:
            self._finish(command, CommandState.TIMED_OUT, command._due)
            return
        command._resends_left -= 1
        self._with_device.remove(command)
        self._waiting.appendleft(command)  # before those that wait

    def _finish(self, command: Command, state: CommandState, time: float) -> None:
        for place in (self._waiting, self._with_device):
            if command in place:
                place.remove(command)
        _enter(command, state, time)
        command._finished.set()


def _enter(command: Command, state: CommandState, time: float) -> None:
    command._state = state
    command.history.append((time, state))


def _read_reply(payload: bytes, now: float) -> tuple[str, CommandReply]:
    try:
        body = load(payload)
    except ValueError:
        raise Refused("4.00", "the reply is not JSON") from None
    if not isinstance(body, dict):
        raise Refused("4.00", "the reply is not a JSON object")
    identity, code = body.get("id"), body.get("code")
    if isinstance(identity, bool) or not isinstance(identity, str | int):
        raise Refused("4.00", "the reply has no id")
    if type(code) is not int:
        raise Refused("4.00", "the reply has no code")
    return str(identity), CommandReply(now, code, body.get("data"), payload)


def topic_of(name: str, device: DeviceId) -> str:
    """The topic of a command, given as topic, method, path, or as down_raw, set, get."""
    for start in ("/topic", ""):
        name = name.removeprefix("/".join((f"{start}/sys", *device, "")))
    if name in ("down_raw", "thing.model.down_raw", DOWN_RAW):
        return DOWN_RAW
    if name in ("set", "thing.service.measurepoint.set", SET):
        return SET
    if name in ("get", "thing.service.measurepoint.get", GET):
        return GET
    service = name.removeprefix("thing.service.").removeprefix(SERVICE)
    if service == name or not _SERVICE_ID.fullmatch(service):
        raise ValueError(f"{name!a} is no topic or method of a command")
    return SERVICE + service


def is_topic(topic: str) -> bool:
    if topic in (DOWN_RAW, SET, GET):
        return True
    service = topic.removeprefix(SERVICE)
    return service != topic and _SERVICE_ID.fullmatch(service) is not None


def method_of(topic: str) -> str:
    if topic in (DOWN_RAW, SET, GET):
        return topic.replace("/", ".")
    return "thing.service." + topic.removeprefix(SERVICE)


def request_payload(identity: str, topic: str, params: Any) -> bytes:
    return dump(
        {"id": identity, "version": "1.0", "method": method_of(topic), "params": params},
    )


def check_times(timeout: float, pending: float) -> None:
    for name, value, (least, most) in (
        ("timeout", timeout, TIMEOUTS),
        ("pending", pending, PENDING),
    ):
        if not least <= value <= most:
            raise ValueError(f"{name} {value:g} s is outside {least:g}..{most:g}")
