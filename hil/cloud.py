"""A stand-in for the EnOS CoAP server (non-DTLS), to be run on a loopback port.

It shares no code with the driver: it computes signatures by itself, so that a mistake in one of
the two shows as a disagreement.  CoAP itself is aiocoap's; the datagrams pass a small border of
our own, where they can be lost, doubled or spoiled on purpose.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self, cast

import aiocoap  # type: ignore[import-untyped, unused-ignore]
from aiocoap import (  # type: ignore[import-untyped, unused-ignore]
    error,
    interfaces,
    resource,
)
from aiocoap.numbers import (  # type: ignore[import-untyped, unused-ignore]
    ACK,
    OptionNumber,
    TransportTuning,
)

Address = tuple[str, int]
DeviceId = tuple[str, str]

SECURE_MODE = 2
LIFETIMES = range(30, 86400 + 1)

_EXCHANGES_KEPT = 1024
_SEPARATE_PAUSE = 0.02
_LONGEST_TOKEN = 8
_SIGN_IN_JSON = re.compile(rb'("sign"\s*:\s*"[^"]{0,8})[^"]*')

logger = logging.getLogger(__name__)


def sign(
    product_key: str, device_key: str, secret: str, lifetime: int, secure_mode: int = SECURE_MODE
) -> str:
    """The signature a device has to send: SHA-256 over names and values, then the secret."""
    named = f"deviceKey{device_key}lifetime{lifetime}productKey{product_key}secureMode{secure_mode}"
    return hashlib.sha256((named + secret).encode()).hexdigest().upper()


@dataclass
class Device:
    """A registered device.  ``enabled`` may be changed while the cloud runs."""

    product_key: str
    device_key: str
    secret: str = field(repr=False)
    enabled: bool = True


@dataclass
class Behaviour:
    """How a request is treated.  The default is a healthy server.

    What the answer says:

    - ``success_code``: of /auth; EnOS does not document it.
    - ``code``: answer with this code whatever was asked.
    - ``strict_case``: accept the signature in uppercase only, as documented.
    - ``fault``: fail inside, which gives 5.00.
    - ``big_payload``: that many bytes of payload in the answer (block-wise if they are many).
    - ``options``: (number, value) pairs added to the answer, such as 2100 and 2102.

    When it comes:

    - ``slow``: seconds until the answer; above 0.1 s an empty ACK goes ahead of it.
    - ``separate``: the empty ACK goes at once, the answer follows as a CON after ``slow``.

    What happens to the datagrams of this request:

    - ``lose_requests``: the first n which arrive are dropped, so that it must be sent again.
    - ``lose_answers``: the first n which should leave are dropped, empty ACKs included.
    - ``silent``: nothing is ever answered, not even an ACK.
    - ``reset``: answered by RST.
    - ``duplicate``: the answer is sent twice, byte for byte the same.
    - ``corrupt``: True puts a broken option behind the answer's header; bytes are sent instead.
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
    (they hold no nonce, so a whole one could be used again).
    """

    time: float
    peer: Address
    method: str
    path: tuple[str, ...]
    options: tuple[tuple[int, bytes], ...]
    payload: bytes
    verdict: str
    code: str


@dataclass
class _Session:
    peer: Address
    lifetime: int
    last: float


@dataclass
class _Exchange:
    """A request and its retransmissions: one peer, one message ID, one token."""

    token: bytes
    behaviour: Behaviour
    arrived: int = 0
    answered: int = 0


@dataclass(frozen=True)
class _Claim:
    """What the payload of /auth says."""

    secure_mode: int
    lifetime: int
    sign: str


class _Refused(Exception):
    def __init__(self, code: str, verdict: str) -> None:
        super().__init__(verdict)
        self.code = code
        self.verdict = verdict


class Cloud:
    """The EnOS CoAP server as far as it is documented, on a UDP port of its own.

    Documented ("CoAP-based Connection and Communication (Non-DTLS)", section "Authentication and
    Connection"; codes from the table in "Reporting Data"):

    - ``POST /auth/{productKey}/{deviceKey}`` with the JSON object secureMode, lifetime, sign;
      secureMode is 2, lifetime an integer in 30..86400 seconds; the signature is the uppercase
      SHA-256 of deviceKey, lifetime, productKey and secureMode with their values, then the secret.
    - The answer is a code and nothing else: 4.00 illegal payload, 4.01 unauthorized,
      4.03 forbidden, 4.04 no such path, 4.05 illegal method, 5.00 internal error.
    - The first success activates the device.  It is offline when no message was exchanged for
      ``lifetime`` seconds.
    - ``POST /topic/sys/{productKey}/{deviceKey}/thing/model/up_raw`` is answered by 2.04.

    Assumed, because nothing is written about it:

    - /auth succeeds with 2.04, as an uplink does (``Behaviour.success_code``).
    - A wrong signature, an unknown device, another secureMode and a missing session are 4.01; a
      disabled device (with the right signature) is 4.03; a number in quotes is 4.00.
    - A session belongs to the source address and port that authenticated; from another one an
      uplink is 4.01.  Only accepted messages prolong it, and a refused /auth does not end it.
    - Content-Format is not looked at, NON requests are answered.

    Not done yet: replies of up_raw, JSON topics, limits on the number of connections.

    ``behaviours`` holds the behaviour of single devices, ``queue`` those of the next requests
    (see `next`); the queue goes first, then the device's, then ``behaviour``.  All may be changed
    while the cloud runs.  A retransmission keeps the behaviour of its request, and the later
    blocks of a block-wise transfer keep that of the first.

    ``datagrams`` has the times of `time.monotonic`, ``requests`` those of ``clock``.  What is
    exchanged is kept whole in ``datagrams``, signatures too.
    """

    def __init__(
        self,
        devices: Mapping[DeviceId, str] | Iterable[Device],
        behaviour: Behaviour | None = None,
        clock: Callable[[], float] = time.monotonic,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        ack_timeout: float = 2.0,
        on_request: Callable[[Request], None] | None = None,
    ) -> None:
        self.devices = {(d.product_key, d.device_key): d for d in _devices(devices)}
        self.behaviour = behaviour or Behaviour()
        self.behaviours: dict[DeviceId, Behaviour] = {}
        self.queue: deque[Behaviour] = deque()
        self.requests: list[Request] = []
        self.datagrams: list[Datagram] = []
        self.on_request = on_request
        self.address: Address = (host, port)
        self._clock = clock
        self._tuning = _tuning(ACK_TIMEOUT=ack_timeout)
        self._sessions: dict[DeviceId, _Session] = {}
        self._activated: set[DeviceId] = set()
        self._answering: set[asyncio.Task[Any]] = set()
        self._context: Any = None
        self._border: _Border | None = None

    def __repr__(self) -> str:
        return f"<Cloud {self.host}:{self.port}, {len(self.devices)} devices>"

    @property
    def host(self) -> str:
        return self.address[0]

    @property
    def port(self) -> int:
        return self.address[1]

    async def start(self) -> None:
        """Bind the socket and begin to answer."""
        loop = asyncio.get_running_loop()
        transport, border = await loop.create_datagram_endpoint(
            lambda: _Border(self._choose, self.datagrams), local_addr=self.address
        )
        self.address = transport.get_extra_info("sockname")[:2]
        self._border = border
        self._context = aiocoap.Context(loop=loop, serversite=_Site(self), loggername=__name__)
        # aiocoap has no public way to bring a transport of one's own (its issue 39).
        await self._context._append_tokenmanaged_messagemanaged_transport(border.attach)

    async def stop(self) -> None:
        """Stop answering and release the socket; what was recorded stays."""
        if self._border is None:
            return
        self._border.close()
        await asyncio.sleep(0)  # answers just begun must have run once before they are cancelled
        await self._context.shutdown()
        await asyncio.gather(*self._answering, return_exceptions=True)
        self._border = self._context = None

    async def serve_forever(self) -> None:
        """Wait until cancelled, between start() and stop()."""
        await asyncio.get_running_loop().create_future()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    def next(self, behaviour: Behaviour, n: int = 1) -> None:
        """Treat the next n requests this way (retransmissions are no requests of their own)."""
        self.queue.extend([behaviour] * n)

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

    def _choose(self, path: tuple[str, ...]) -> Behaviour:
        if self.queue:
            return self.queue.popleft()
        route = self._route(path)
        return self.behaviours.get(route[1], self.behaviour) if route else self.behaviour

    def _route(self, path: tuple[str, ...]) -> tuple[_Handler, DeviceId] | None:
        match path:
            case ("auth", pk, dk):
                return self._auth, (pk, dk)
            case ("topic", "sys", pk, dk, "thing", "model", "up_raw"):
                return self._up_raw, (pk, dk)
        return None

    async def _answer(self, request: Any) -> Any:
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)
        behaviour = self._border.behaviour_of(request) if self._border else self.behaviour
        code = self._judge_and_record(request, behaviour)
        pause = max(behaviour.slow, _SEPARATE_PAUSE if behaviour.separate else 0.0)
        if pause:
            await asyncio.sleep(pause)
        return self._reply(code, behaviour)

    def _judge_and_record(self, request: Any, behaviour: Behaviour) -> str:
        code, verdict = self._judge(request, behaviour)
        entry = Request(
            time=self._clock(),
            peer=request.remote.address,
            method=str(request.code),
            path=request.opt.uri_path,
            options=tuple((int(o.number), o.encode()) for o in request.opt.option_list()),
            payload=self._without_secrets(request.payload),
            verdict=verdict,
            code=code,
        )
        self.requests.append(entry)
        logger.info("%s /%s: %s, %s", entry.method, "/".join(entry.path), code, verdict)
        if self.on_request is not None:
            self.on_request(entry)
        return code

    def _judge(self, request: Any, behaviour: Behaviour) -> tuple[str, str]:
        """The code to answer with, and in words why."""
        try:
            return self._handle(request, behaviour)
        except _Refused as refused:
            return behaviour.code or refused.code, refused.verdict
        except Exception as fault:
            logger.exception("internal fault")
            return "5.00", f"internal fault: {fault!r}"

    def _handle(self, request: Any, behaviour: Behaviour) -> tuple[str, str]:
        route = self._route(request.opt.uri_path)
        if route is None:
            raise _Refused("4.04", "no such path")
        if request.code != aiocoap.POST:
            raise _Refused("4.05", f"{request.code} is not POST")
        if behaviour.fault:
            raise RuntimeError("asked for by Behaviour.fault")
        handler, device_id = route
        return handler(device_id, request, behaviour)

    def _auth(self, device_id: DeviceId, request: Any, behaviour: Behaviour) -> tuple[str, str]:
        claim = _read_claim(request.payload)
        device = self.devices.get(device_id)
        if device is None:
            raise _Refused("4.01", "unknown device")
        _check_signature(claim, device, behaviour.strict_case)
        if not device.enabled:
            raise _Refused("4.03", "signature ok, but the device is disabled")
        code = behaviour.code or behaviour.success_code
        if code.startswith("2."):
            self._activated.add(device_id)
            self._sessions[device_id] = _Session(
                request.remote.address, claim.lifetime, self._clock()
            )
        return code, "signature ok"

    def _up_raw(self, device_id: DeviceId, request: Any, behaviour: Behaviour) -> tuple[str, str]:
        device = self.devices.get(device_id)
        if device is None:
            raise _Refused("4.01", "unknown device")
        if not device.enabled:
            raise _Refused("4.03", "the device is disabled")
        session = self._sessions.get(device_id)
        if session is None or not self.is_online(*device_id):
            raise _Refused("4.01", "the device is not online")
        if session.peer != request.remote.address:
            raise _Refused("4.01", "the session belongs to another address")
        code = behaviour.code or "2.04"
        if code.startswith("2."):
            session.last = self._clock()
        return code, "online"

    def _reply(self, code: str, behaviour: Behaviour) -> Any:
        size = behaviour.big_payload
        payload = (bytes(range(256)) * (size // 256 + 1))[:size]
        reply = aiocoap.Message(code=_code(code), payload=payload, transport_tuning=self._tuning())
        for number, value in behaviour.options:
            reply.opt.add_option(OptionNumber(number).create_option(decode=value))
        return reply

    def _without_secrets(self, payload: bytes) -> bytes:
        for device in self.devices.values():
            if device.secret:
                payload = payload.replace(device.secret.encode(), b"<secret>")
        return _SIGN_IN_JSON.sub(rb"\1...", payload)


_Handler = Callable[[DeviceId, Any, Behaviour], tuple[str, str]]


class _Site(resource.Resource):  # type: ignore[misc, unused-ignore]
    """Takes every path: a Site of aiocoap would answer 4.04 before we see the request."""

    def __init__(self, cloud: Cloud) -> None:
        super().__init__()
        self._cloud = cloud

    async def render(self, request: Any) -> Any:
        return await self._cloud._answer(request)


@dataclass(frozen=True)
class _Peer(interfaces.EndpointAddress):  # type: ignore[misc, unused-ignore]
    """A client's address in the form aiocoap wants."""

    address: Address

    scheme = "coap"
    is_multicast = False
    is_multicast_locally = False
    maximum_block_size_exp = 6
    hostinfo_local = "cloud"
    uri_base_local = "coap://cloud"

    @property
    def hostinfo(self) -> str:
        return f"{self.address[0]}:{self.address[1]}"

    @property
    def uri_base(self) -> str:
        return f"coap://{self.hostinfo}"

    @property
    def blockwise_key(self) -> Address:
        return self.address


class _Border(asyncio.DatagramProtocol, interfaces.MessageInterface):  # type: ignore[misc, unused-ignore]
    """Where datagrams enter and leave; the only place which loses, doubles or spoils them."""

    def __init__(self, choose: Callable[[tuple[str, ...]], Behaviour], log: list[Datagram]) -> None:
        self._choose = choose
        self._log = log
        self._manager: Any = None
        self._exchanges: dict[tuple[Address, int], _Exchange] = {}
        self._latest: dict[Address, Behaviour] = {}
        self._transport: asyncio.DatagramTransport | None = None
        self._gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def attach(self, manager: Any) -> _Border:
        """Take the message manager of an aiocoap context."""
        self._manager = manager
        return self

    def behaviour_of(self, message: Any) -> Behaviour:
        """The behaviour chosen when this request first arrived."""
        exchange = self._exchanges.get((message.remote.address, message.mid))
        return exchange.behaviour if exchange else self._latest[message.remote.address]

    # from the network

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._gone.done():
            self._gone.set_result(None)

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        peer: Address = (addr[0], addr[1])
        self._log.append(Datagram("in", time.monotonic(), data, peer))
        message = _decode(data, _Peer(peer))
        if message is None or self._manager is None:
            return
        if message.code.is_request() and not self._admit(message, peer):
            return
        try:
            self._manager.dispatch_message(message)
        except Exception:
            logger.exception("a datagram of %d bytes was not digested", len(data))

    def _admit(self, message: Any, peer: Address) -> bool:
        """Whether this request goes on to the server."""
        exchange = self._exchange(message, peer)
        behaviour = exchange.behaviour
        exchange.arrived += 1
        if behaviour.silent or exchange.arrived <= behaviour.lose_requests:
            return False
        if behaviour.reset:
            self._put(bytes([0x70, 0]) + message.mid.to_bytes(2), peer)
            return False
        if behaviour.separate:
            message.transport_tuning = _tuning(EMPTY_ACK_DELAY=0.0)()
        return True

    def _exchange(self, message: Any, peer: Address) -> _Exchange:
        key = (peer, message.mid)
        known = self._exchanges.get(key)
        if known is not None and known.token == message.token:
            return known
        if not _is_later_block(message) or peer not in self._latest:
            self._latest[peer] = self._choose(message.opt.uri_path)
        exchange = _Exchange(message.token, self._latest[peer])
        self._exchanges[key] = exchange
        if len(self._exchanges) > _EXCHANGES_KEPT:
            del self._exchanges[next(iter(self._exchanges))]
        return exchange

    # from the server; names and signatures are those of aiocoap's MessageInterface

    def send(self, message: Any) -> None:
        data, peer = message.encode(), message.remote.address
        mid = message.request.mid if message.request is not None else message.mid
        exchange = self._exchanges.get((peer, mid))
        if exchange is None:
            self._put(data, peer)
            return
        exchange.answered += 1
        if exchange.answered <= exchange.behaviour.lose_answers:
            return
        copies = 2 if exchange.behaviour.duplicate and message.code.is_response() else 1
        for _ in range(copies):
            self._put(_spoil(data, message, exchange.behaviour), peer)

    def _put(self, data: bytes, peer: Address) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        self._log.append(Datagram("out", time.monotonic(), data, peer))
        self._transport.sendto(data, peer)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    async def shutdown(self) -> None:
        self.close()
        await self._gone

    async def recognize_remote(self, remote: Any) -> bool:
        return isinstance(remote, _Peer)

    async def determine_remote(self, message: Any) -> None:
        """A server asks for nothing, so there is nobody to be found."""


def _devices(given: Mapping[DeviceId, str] | Iterable[Device]) -> Iterable[Device]:
    if isinstance(given, Mapping):
        return [Device(pk, dk, secret) for (pk, dk), secret in given.items()]
    return given


def _tuning(**constants: float) -> type[Any]:
    return type("Tuning", (TransportTuning,), constants)


def _code(dotted: str) -> Any:
    kind, detail = dotted.split(".")
    return aiocoap.Code(int(kind) << 5 | int(detail))


def _decode(data: bytes, peer: _Peer) -> Any:
    """The message, or None: what cannot be parsed is ignored (RFC 7252, section 4.2)."""
    if data and data[0] & 0x0F > _LONGEST_TOKEN:
        return None
    try:
        return aiocoap.Message.decode(data, peer)
    except (error.UnparsableMessage, ValueError, IndexError) as fault:
        logger.info("ignored %d bytes which are no CoAP: %r", len(data), fault)
        return None


def _is_later_block(message: Any) -> bool:
    blocks = (message.opt.block1, message.opt.block2)
    return any(block is not None and block.block_number > 0 for block in blocks)


def _spoil(data: bytes, message: Any, behaviour: Behaviour) -> bytes:
    if behaviour.corrupt:
        if isinstance(behaviour.corrupt, bytes):
            return behaviour.corrupt
        # delta 14 lacks its second byte, length 15 is reserved
        return data[: 4 + len(message.token)] + b"\xef\x00"
    if behaviour.wrong_mid and message.mtype == ACK:
        data = data[:2] + bytes([data[2] ^ 0xFF, data[3] ^ 0xFF]) + data[4:]
    if behaviour.wrong_token and message.code.is_response():
        if message.token:
            data = data[:4] + bytes([data[4] ^ 0xFF]) + data[5:]
        else:
            data = bytes([data[0] | 1]) + data[1:4] + b"\xa5" + data[4:]
    return data


def _read_claim(payload: bytes) -> _Claim:
    if not payload:
        raise _Refused("4.00", "the payload is empty")
    try:
        body = json.loads(payload.decode())
    except (ValueError, RecursionError):
        raise _Refused("4.00", "the payload is not JSON") from None
    if not isinstance(body, dict):
        raise _Refused("4.00", "the payload is not a JSON object")
    for name, kind, words in (
        ("secureMode", int, "an integer"),
        ("lifetime", int, "an integer"),
        ("sign", str, "a string"),
    ):
        if name not in body:
            raise _Refused("4.00", f"{name} is missing")
        if type(body[name]) is not kind:
            raise _Refused("4.00", f"{name} is not {words}")
    if body["lifetime"] not in LIFETIMES:
        raise _Refused(
            "4.00", f"lifetime {body['lifetime']} is outside {LIFETIMES[0]}..{LIFETIMES[-1]}"
        )
    return _Claim(body["secureMode"], body["lifetime"], body["sign"])


def _check_signature(claim: _Claim, device: Device, strict_case: bool) -> None:
    if claim.secure_mode != SECURE_MODE:
        raise _Refused("4.01", f"secureMode {claim.secure_mode} is not {SECURE_MODE}")
    wanted = sign(device.product_key, device.device_key, device.secret, claim.lifetime)
    if claim.sign.upper() != wanted:
        raise _Refused("4.01", "signature differs")
    if strict_case and claim.sign != wanted:
        raise _Refused("4.01", "signature is right, but not in uppercase")
