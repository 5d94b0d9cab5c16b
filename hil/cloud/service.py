"""What the cloud answers, without a network: who is known, and which path is handled by whom."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from hil.cloud import commands, things
from hil.cloud.auth import Device, check_signature, read_claim
from hil.cloud.behaviour import Behaviour
from hil.cloud.commands import Command, CommandQueue, Downlink, QueueFull
from hil.cloud.limits import Connections, Limits, Rate
from hil.cloud.records import Address, Answer, Asked, Counters, DeviceId, Kept, Refused, Report
from hil.cloud.things import Thing, ThingModel

UP_RAW = "thing/model/up_raw"
NOT_OVER_COAP = {
    "thing/measurepoint/post/batch": "batches of measurepoints",
    "thing/measurepoint/resume": "offline measurepoints",
    "ota": "OTA",
    "ext/file": "files",
    "ext/session": "sub-devices and activation",
    "thing/device": "registration of devices",
    "thing/topo": "sub-devices",
    "thing/tsltemplate": "thing models",
}

# If-Match, Uri-Host, If-None-Match, Uri-Port, Uri-Path, Uri-Query, Accept, Block2, Block1
_CRITICAL_OPTIONS = {1, 3, 5, 7, 11, 15, 17, 23, 27}

logger = logging.getLogger("hil.cloud")


@dataclass
class _Session:
    peer: Address | None  # None: an address that nobody has
    lifetime: int
    last: float


class _Meters:
    """The rates of one device."""

    def __init__(self) -> None:
        self.up = Rate()
        self.down = Rate()
        self.connections = Connections()


class Service:
    """Devices, sessions, reports and commands.  `Cloud` says what is documented and what not."""

    def __init__(
        self,
        devices: Mapping[DeviceId, str] | Iterable[Device],
        clock: Callable[[], float] = time.monotonic,
        *,
        limits: Limits | None = None,
        downlink: Downlink | None = None,
        model: ThingModel | None = None,
        parser: Callable[[bytes], bytes] | None = None,
        keep: int = 10_000,
    ) -> None:
        self.devices = {(d.product_key, d.device_key): d for d in _devices(devices)}
        self.limits = limits or Limits()
        self.downlink = downlink or Downlink()
        self.model = model
        self.parser = parser
        self.reports: Kept[Report] = Kept(keep)
        self.counters = Counters()
        self._clock = clock
        self._keep = keep
        self._sessions: dict[DeviceId, _Session] = {}
        self._activated: set[DeviceId] = set()
        self._things: dict[DeviceId, Thing] = {}
        self._commands: dict[DeviceId, CommandQueue] = {}
        self._meters: dict[DeviceId, _Meters] = {}

    # --- what a test or an application may ask for

    def is_activated(self, product_key: str, device_key: str) -> bool:
        """Whether the device ever authenticated."""
        return (product_key, device_key) in self._activated

    def is_online(self, product_key: str, device_key: str) -> bool:
        """Whether the last accepted message is younger than the lifetime the device asked for."""
        device = self.devices.get((product_key, device_key))
        session = self._sessions.get((product_key, device_key))
        if device is None or session is None or not device.enabled:
            return False
        return self._clock() < session.last + session.lifetime

    def forget_session(self, product_key: str, device_key: str) -> None:
        """As if the device had never authenticated: its uplinks are 4.01 until it does."""
        self._sessions.pop((product_key, device_key), None)

    def forget_address(self, product_key: str, device_key: str) -> None:
        """As if a NAT had given the device another address: its uplinks are 4.01, it is online."""
        session = self._sessions.get((product_key, device_key))
        if session is not None:
            session.peer = None

    def thing(self, product_key: str, device_key: str) -> Thing:
        """What the cloud knows of a registered device: attributes, tags, measurepoints, events."""
        device_id = self._registered(product_key, device_key)
        if device_id not in self._things:
            self._things[device_id] = Thing(device_id)
        return self._things[device_id]

    def commands(self, product_key: str, device_key: str) -> list[Command]:
        """The commands of a registered device, oldest first."""
        return list(self.queue_of(self._registered(product_key, device_key)).all)

    def send_command(
        self,
        product_key: str,
        device_key: str,
        topic: str,
        params: Any = None,
        *,
        raw: bytes | None = None,
        timeout: float = 30.0,
        pending: float = 172800.0,
        resend: int = 0,
        id: str | None = None,
    ) -> Command:
        """Queue a command for a registered device.

        ``topic`` is ``down_raw``, ``set``, ``get``, or a topic or method such as
        ``thing/service/reboot``, ``thing.service.reboot``.  ``params`` go into the JSON request;
        ``raw`` is the payload of down_raw, and of another topic if it must be just so.  The time of
        reply is ``timeout`` seconds from the delivery; ``pending`` seconds the command waits for
        its delivery; ``resend`` times it is sent again after a time-out.

        QueueFull if 50 are unfinished, ValueError for anything EnOS would not take.
        """
        device_id = self._registered(product_key, device_key)
        queue = self.queue_of(device_id)
        topic = commands.topic_of(topic, device_id)
        if self.limits.command_times:
            commands.check_times(timeout, pending)
        most = self.limits.cached_commands
        if most is not None and queue.unfinished >= most:
            raise QueueFull(f"11902: {queue.unfinished} commands are cached")
        identity = queue.next_id() if id is None else id
        command = Command(
            identity,
            device_id,
            topic,
            self._command_payload(identity, topic, params, raw),
            timeout,
            pending,
            resend,
            self._clock(),
            queue,
        )
        queue.add(command)
        return command

    def _command_payload(self, identity: str, topic: str, params: Any, raw: bytes | None) -> bytes:
        if topic == commands.DOWN_RAW and (raw is None or params is not None):
            raise ValueError("down_raw takes raw bytes and no params")
        if raw is not None:
            return bytes(raw)
        service = topic.removeprefix(commands.SERVICE)
        if self.model is not None and "/" not in service and service not in self.model.services:
            raise ValueError(f"no service {service!a} in the model")
        if params is None:
            params = [] if topic == commands.GET else {}
        return commands.request_payload(identity, topic, params)

    def _registered(self, product_key: str, device_key: str) -> DeviceId:
        if (product_key, device_key) not in self.devices:
            raise KeyError(f"no device {product_key}/{device_key}")
        return product_key, device_key

    def queue_of(self, device_id: DeviceId) -> CommandQueue:
        if device_id not in self._commands:
            self._commands[device_id] = CommandQueue(device_id, self._clock, self._keep)
        return self._commands[device_id]

    def _meters_of(self, device_id: DeviceId) -> _Meters:
        return self._meters.setdefault(device_id, _Meters())

    # --- what an answer says

    def judge(self, asked: Asked, behaviour: Behaviour) -> Answer:
        """What is answered to this request, all its effects done."""
        try:
            return self._handle(asked, behaviour)
        except Refused as refused:
            return refusal(refused, behaviour)
        except Exception as fault:
            logger.exception("internal fault")
            return Answer("5.00", f"internal fault: {fault!r}")

    def _handle(self, asked: Asked, behaviour: Behaviour) -> Answer:
        handler, device_id, topic, methods = self._route(asked.path)
        unknown = sorted({n for n, _ in asked.options if n & 1} - _CRITICAL_OPTIONS)
        if unknown:
            raise Refused("4.02", f"critical options nobody knows: {unknown}")
        if asked.method not in methods:
            raise Refused("4.05", f"{asked.method} is not {' or '.join(methods)}")
        if behaviour.fault:
            raise RuntimeError("asked for by Behaviour.fault")
        return handler(device_id, topic, asked, behaviour)

    def _route(self, path: tuple[str, ...]) -> _Route:
        match path:
            case ("auth", pk, dk):
                return self._auth, (pk, dk), "", ("POST",)
            case ("topic", "sys", pk, dk, *rest):
                topic = "/".join(rest)
            case ("topic", *rest):
                raise Refused("4.04", _no_topic("/".join(rest)))
            case _:
                raise Refused("4.04", "no such path")
        is_plain = not any("/" in segment for segment in rest)
        if is_plain and (topic == UP_RAW or things.is_topic(topic)):
            return self._uplink, (pk, dk), topic, ("POST",)
        if is_plain and commands.is_topic(topic.removesuffix(commands.REPLY)):
            # a service may be called "..._reply" too: the method tells
            methods = ("POST", "GET") if topic.endswith(commands.REPLY) else ("GET",)
            return self._command, (pk, dk), topic, methods
        raise Refused("4.04", _no_topic(topic))

    def _auth(self, device_id: DeviceId, _: str, asked: Asked, behaviour: Behaviour) -> Answer:
        device = self.devices.get(device_id)
        if device is not None:
            self._check_connections(device_id)
        self._check_size(asked.payload)
        claim = read_claim(asked.payload)
        if device is None:
            raise Refused("4.01", "unknown device")
        check_signature(claim, device, behaviour.strict_case)
        if not device.enabled:
            raise Refused("4.03", "signature ok, but the device is disabled")
        answer = Answer(behaviour.code or behaviour.success_code, "signature ok")
        if not answer.is_success:
            return answer
        self._activated.add(device_id)
        self._sessions[device_id] = _Session(asked.peer, claim.lifetime, self._clock())
        return replace(answer, device=device_id) if self.downlink.on_auth else answer

    def _check_connections(self, device_id: DeviceId) -> None:
        if not self.limits.connections:
            return
        wait = self._meters_of(device_id).connections.ask(self._clock())
        if wait:
            raise self._limited(f"too many connection requests: wait {wait:g} s", wait)

    def _check_size(self, payload: bytes) -> None:
        limit = self.limits.message_size
        if limit is not None and len(payload) > limit:
            raise Refused("4.13", f"{len(payload)} bytes are more than {limit}", size1=limit)

    def _limited(self, verdict: str, wait: float) -> Refused:
        code = self.limits.limited_code
        return Refused(code, verdict, max_age=math.ceil(wait) if code == "4.29" else None)

    def _session(self, device_id: DeviceId, asked: Asked) -> _Session:
        """The session of this device, or why it has none."""
        device, session = self.devices.get(device_id), self._sessions.get(device_id)
        if device is None:
            raise Refused("4.01", "unknown device")
        if not device.enabled:
            raise Refused("4.03", "the device is disabled")
        if session is None or (self.limits.lifetime and not self.is_online(*device_id)):
            raise Refused("4.01", "the device is not online")
        if self.limits.source_address and session.peer != asked.peer:
            raise Refused("4.01", "the session belongs to another address")
        return session

    def _uplink(
        self, device_id: DeviceId, topic: str, asked: Asked, behaviour: Behaviour
    ) -> Answer:
        try:
            answer = self._in_session(device_id, asked, behaviour, self._take_report, topic)
        except Refused:
            self._rejected(device_id)
            raise
        if answer.is_success and answer.body_code in (None, things.OK):
            self.thing(*device_id).accepted += 1
            self.counters.accepted += 1
        else:
            self._rejected(device_id)
        return answer

    def _rejected(self, device_id: DeviceId) -> None:
        self.counters.rejected += 1
        if device_id in self.devices:
            self.thing(*device_id).rejected += 1

    def _command(
        self, device_id: DeviceId, topic: str, asked: Asked, behaviour: Behaviour
    ) -> Answer:
        take = self._fetch if asked.method == "GET" else self._take_reply
        return self._in_session(device_id, asked, behaviour, take, topic)

    def _in_session(
        self,
        device_id: DeviceId,
        asked: Asked,
        behaviour: Behaviour,
        take: Callable[[DeviceId, str, Asked], Answer],
        topic: str,
    ) -> Answer:
        """What all requests but /auth have in common; ``take`` is what they have not."""
        session = self._session(device_id, asked)
        if behaviour.code and not behaviour.code.startswith("2."):
            return Answer(behaviour.code, "online")
        if not self._meters_of(device_id).up.take(
            len(asked.payload), self.limits.up_rate, self._clock()
        ):
            raise self._limited(f"more than {self.limits.up_rate} bytes per second", 1.0)
        answer = take(device_id, topic, asked)
        if behaviour.code:
            answer = replace(answer, code=behaviour.code)
        session.last = self._clock()
        return replace(answer, device=device_id)

    def _take_report(self, device_id: DeviceId, topic: str, asked: Asked) -> Answer:
        if topic == UP_RAW:
            return self._take_raw(device_id, asked)
        context = things.Context(
            self.thing(*device_id), self.limits, self.model, round(asked.time * 1000)
        )
        outcome = things.report(topic, asked.payload, context)
        if outcome.code == things.OK:
            self._keep_report(device_id, topic, asked, outcome.params)
        return Answer("2.04", outcome.verdict, outcome.payload, body_code=outcome.code)

    def _take_raw(self, device_id: DeviceId, asked: Asked) -> Answer:
        self._check_size(asked.payload)
        try:
            reply = self.parser(asked.payload) if self.parser is not None else b""
        except ValueError:
            raise Refused("4.00", "the parser does not take the payload") from None
        self._keep_report(device_id, UP_RAW, asked, None)
        return Answer("2.04", "online", reply)

    def _keep_report(self, device_id: DeviceId, topic: str, asked: Asked, params: Any) -> None:
        payload = self.without_secrets(asked.payload)
        if params is not None and payload != asked.payload:
            try:
                params = things.load(payload)["params"]
            except (ValueError, KeyError):
                params = None  # the secret was a part of the syntax
        self.reports.append(Report(asked.time, device_id, topic, payload, params))

    def hand_over(self, device_id: DeviceId) -> list[tuple[int, bytes]]:
        """The options that carry this device's next command, if there is one to be sent."""
        if device_id not in self._commands:
            return []
        options = self._commands[device_id].hand_over(self.downlink, self._may_send(device_id))
        self.counters.deliveries += sum(number == commands.PAYLOAD_OPTION for number, _ in options)
        return options

    def _may_send(self, device_id: DeviceId) -> Callable[[int], bool]:
        rate = self._meters_of(device_id).down
        return lambda size: rate.take(size, self.limits.down_rate, self._clock())

    def _take_reply(self, device_id: DeviceId, topic: str, asked: Asked) -> Answer:
        self._check_size(asked.payload)
        topic = topic.removesuffix(commands.REPLY)
        accepted, verdict = self.queue_of(device_id).reply(
            topic, self.without_secrets(asked.payload)
        )
        if accepted:
            self.counters.replies += 1
        else:
            self.counters.stray_replies += 1
        return Answer("2.04", verdict)

    def _fetch(self, device_id: DeviceId, topic: str, _: Asked) -> Answer:
        command = self.queue_of(device_id).fetch(topic, self._may_send(device_id))
        if command is None:
            raise Refused("4.04", "no command to be fetched here")
        self.counters.deliveries += 1
        return Answer("2.05", f"command {command.id}", command.payload)

    def without_secrets(self, payload: bytes) -> bytes:
        for device in self.devices.values():
            if device.secret:
                payload = payload.replace(device.secret.encode(), b"<secret>")
        return payload


_Handler = Callable[[DeviceId, str, Asked, Behaviour], Answer]
_Route = tuple[_Handler, DeviceId, str, tuple[str, ...]]


def _devices(given: Mapping[DeviceId, str] | Iterable[Device]) -> Iterable[Device]:
    if isinstance(given, Mapping):
        return [Device(pk, dk, secret) for (pk, dk), secret in given.items()]
    return given


def device_of(path: tuple[str, ...]) -> DeviceId | None:
    match path:
        case ("auth", pk, dk) | ("topic", "sys", pk, dk, *_):
            return pk, dk
    return None


def _no_topic(topic: str) -> str:
    for start, what in NOT_OVER_COAP.items():
        if f"{topic}/".startswith(f"{start}/"):
            return f"not over CoAP: {what}"
    return "no such path"


def refusal(refused: Refused, behaviour: Behaviour) -> Answer:
    return Answer(
        behaviour.code or refused.code,
        refused.verdict,
        max_age=refused.max_age,
        size1=refused.size1,
    )
