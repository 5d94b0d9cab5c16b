"""The cloud on a UDP port: from a datagram's request to the datagrams of its answer."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self, cast

import aiocoap  # type: ignore[import-untyped, unused-ignore]
from aiocoap import resource  # type: ignore[import-untyped, unused-ignore]
from aiocoap.numbers import OptionNumber  # type: ignore[import-untyped, unused-ignore]

from hil.cloud.auth import Device
from hil.cloud.behaviour import Behaviour, filler
from hil.cloud.blocks import Block, Downloads, Slice, Uploads, read_block
from hil.cloud.border import Border, Impairment, tuning
from hil.cloud.commands import Downlink
from hil.cloud.limits import Limits
from hil.cloud.records import Address, Answer, Asked, Datagram, DeviceId, Kept, Refused, Request
from hil.cloud.service import Service, device_of, refusal
from hil.cloud.things import ThingModel

_SEPARATE_PAUSE = 0.02
_SIGN_IN_JSON = re.compile(rb'("sign"\s*:\s*"[^"]{0,8})[^"]*')
_BLOCK_OPTIONS = [OptionNumber.BLOCK1, OptionNumber.BLOCK2, OptionNumber.SIZE1, OptionNumber.SIZE2]

logger = logging.getLogger("hil.cloud")


class Cloud(Service):
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
    - ``POST /topic/sys/{productKey}/{deviceKey}/thing/model/up_raw`` is answered by 2.04; the
      payload is what the product's script makes of it (``parser``).
    - The JSON topics of MQTT for measurepoints, events, attributes, tags: `hil.cloud.things`.
    - Commands ride on answers: `hil.cloud.commands`.  Limits: `hil.cloud.limits`.
    - "Device Protocol Selection" excludes batches, offline data, files, OTA, registration and
      sub-devices from CoAP: 4.04.

    Assumed, because nothing is written about it:

    - /auth succeeds with 2.04, as an uplink does (``Behaviour.success_code``).
    - A wrong signature, an unknown device, another secureMode and a missing session are 4.01; a
      disabled device (with the right signature) is 4.03; a number in quotes is 4.00.
    - A session belongs to the source address and port that authenticated; from another one an
      uplink is 4.01.  Only accepted messages prolong it (answered by 2.xx, whatever the code in a
      JSON envelope), and a refused /auth does not end it.
    - Content-Format is not looked at, NON requests are answered.  An unknown critical option is
      4.02 (RFC 7252, 5.4.1); option 2101 of 2019 is such a one.
    - A parser that raises ValueError makes 4.00 of up_raw.
    - Commands are given with answers of 2.xx to a device that is online, on the last block only.

    ``behaviours`` holds the behaviour of single devices, ``queue`` those of the next requests
    (see `next`); the queue goes first, then the device's, then ``behaviour``.  All may be changed
    while the cloud runs, as may ``limits``, ``downlink``, ``model``, ``parser`` and ``impair``.  A
    retransmission keeps the behaviour of its request, and the later blocks of a block-wise transfer
    keep that of the first.

    ``datagrams`` has the times of `time.monotonic`, everything else those of ``clock``.  What is
    exchanged is kept whole in ``datagrams``, signatures too.  ``requests``, ``datagrams`` and
    ``reports`` hold the last ``keep`` each, ``counters`` count all.  ``exchanges`` message IDs are
    remembered for de-duplication.  Whatever expires does so by ``clock``, which is looked at when
    something arrives or is asked for.
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
        limits: Limits | None = None,
        downlink: Downlink | None = None,
        model: ThingModel | None = None,
        parser: Callable[[bytes], bytes] | None = None,
        impair: Impairment | None = None,
        block_size: int = 1024,
        keep: int = 10_000,
        exchanges: int = 20_000,
    ) -> None:
        if block_size not in (16 << exponent for exponent in range(7)):
            raise ValueError(f"{block_size} is no block size: 16, 32, 64 ... 1024")
        super().__init__(
            devices,
            clock,
            limits=limits,
            downlink=downlink,
            model=model,
            parser=parser,
            keep=keep,
        )
        self.behaviour = behaviour or Behaviour()
        self.behaviours: dict[DeviceId, Behaviour] = {}
        self.queue: deque[Behaviour] = deque()
        self.requests: Kept[Request] = Kept(keep)
        self.datagrams: Kept[Datagram] = Kept(keep)
        self.on_request = on_request
        self.address: Address = (host, port)
        self._exchanges = exchanges
        self._tuning = tuning(ACK_TIMEOUT=ack_timeout)()
        self._impair = impair
        self._largest_block = block_size.bit_length() - 5
        self._uploads = Uploads()
        self._downloads: Downloads[Answer] = Downloads(self._largest_block)
        self._answering: set[asyncio.Task[Any]] = set()
        self._context: Any = None
        self._border: Border | None = None

    def __repr__(self) -> str:
        return f"<Cloud {self.host}:{self.port}, {len(self.devices)} devices>"

    @property
    def host(self) -> str:
        return self.address[0]

    @property
    def port(self) -> int:
        return self.address[1]

    @property
    def impair(self) -> Impairment | None:
        """The bad network in front of the cloud; setting it begins at its seed."""
        return self._impair

    @impair.setter
    def impair(self, impairment: Impairment | None) -> None:
        self._impair = impairment
        if self._border is not None:
            self._border.impair(impairment)

    # --- start and stop

    async def start(self) -> None:
        """Bind the socket and begin to answer."""
        loop = asyncio.get_running_loop()
        transport, border = await loop.create_datagram_endpoint(
            lambda: Border(
                self._choose, self._clock, self.datagrams, self.counters, self._exchanges
            ),
            local_addr=self.address,
        )
        self.address = transport.get_extra_info("sockname")[:2]
        self._border = border
        border.impair(self._impair)
        self._context = aiocoap.Context(loop=loop, serversite=_Site(self), loggername="hil.cloud")
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

    def _choose(self, path: tuple[str, ...]) -> Behaviour:
        if self.queue:
            return self.queue.popleft()
        device_id = device_of(path)
        return self.behaviours.get(device_id, self.behaviour) if device_id else self.behaviour

    def next(self, behaviour: Behaviour, n: int = 1) -> None:
        """Treat the next n requests this way (retransmissions are no requests of their own)."""
        self.queue.extend([behaviour] * n)

    # --- from a request of aiocoap to its answer

    async def _render(self, request: Any) -> Any:
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)
        behaviour = self._border.behaviour_of(request) if self._border else self.behaviour
        call = _Call(_asked(request, self._clock()), _transfer_key(request), behaviour)
        try:
            call.block1 = read_block(request.opt.block1)
            call.block2 = read_block(request.opt.block2)
            if call.block2 is not None and call.block2.number > 0:
                return self._further_block(call, call.block2)
            if call.block1 is not None:
                body = self._body(call, call.block1, request.opt.size1 or 0)
                if body is None:
                    return self._continue(call.block1)
                call.asked = replace(call.asked, payload=body)
        except Refused as refused:
            answer = self._record(call.asked, refusal(refused, behaviour))
            return self._message(answer, Slice(answer.payload), call)
        return await self._answer(call)

    def _body(self, call: _Call, block1: Block, size1: int) -> bytes | None:
        chunk, limit = call.asked.payload, self.limits.message_size
        return self._uploads.take(call.key, block1, chunk, size1, limit, self._clock())

    def _continue(self, block1: Block) -> Any:
        """2.31; a smaller exponent than the client's asks for smaller blocks (RFC 7959, 2.3)."""
        self.counters.blocks += 1
        message = aiocoap.Message(code=aiocoap.CONTINUE, transport_tuning=self._tuning)
        message.opt.block1 = (block1.number, True, min(block1.exponent, self._largest_block))
        return message

    def _further_block(self, call: _Call, block2: Block) -> Any:
        part, answer = self._downloads.go_on(call.key, block2, self._clock())
        self.counters.blocks += 1
        return self._message(answer, part, call)

    async def _answer(self, call: _Call) -> Any:
        behaviour = call.behaviour
        answer = self._record(call.asked, self.judge(call.asked, behaviour))
        pause = max(behaviour.slow, _SEPARATE_PAUSE if behaviour.separate else 0.0)
        queue = self.queue_of(answer.device) if answer.device else None
        with queue.request_open() if queue else nullcontext():
            if pause:
                await asyncio.sleep(pause)
            payload = filler(behaviour.big_payload) if behaviour.big_payload else answer.payload
            part = self._downloads.begin(call.key, payload, call.block2, answer, self._clock())
            return self._message(answer, part, call)

    def _message(self, answer: Answer, part: Slice, call: _Call) -> Any:
        message = aiocoap.Message(
            code=_code(answer.code), payload=part.chunk, transport_tuning=self._tuning
        )
        if call.block1 is not None:
            message.opt.block1 = call.block1._replace(more=False)
        if part.block is not None:
            message.opt.block2 = part.block
        message.opt.max_age = answer.max_age
        message.opt.size1 = answer.size1
        options = [*call.behaviour.options]
        if part.is_final and answer.device is not None:
            options += self.hand_over(answer.device)
        for number, value in options:
            message.opt.add_option(OptionNumber(number).create_option(decode=value))
        return message

    def _record(self, asked: Asked, answer: Answer) -> Answer:
        payload = self.without_secrets(asked.payload)
        if asked.path[:1] != ("topic",):  # there, something called "sign" is the device's own
            payload = _SIGN_IN_JSON.sub(rb"\1...", payload)
        entry = Request(
            time=asked.time,
            peer=asked.peer,
            method=asked.method,
            path=asked.path,
            options=asked.options,
            payload=payload,
            verdict=self.without_secrets(answer.verdict.encode()).decode(),
            code=answer.code,
            body_code=answer.body_code,
        )
        self.requests.append(entry)
        self.counters.requests += 1
        path = "/".join(entry.path).encode("ascii", "backslashreplace").decode()
        logger.info("%s /%s: %s, %s", entry.method, path, entry.code, entry.verdict)
        if self.on_request is not None:
            self.on_request(entry)
        return answer


@dataclass
class _Call:
    """A request on its way through, with what the answer must know of it."""

    asked: Asked
    key: Any
    behaviour: Behaviour
    block1: Block | None = None
    block2: Block | None = None


class _Site(resource.Resource):  # type: ignore[misc, unused-ignore]
    """Takes every path and every block: a Site of aiocoap would answer 4.04 before us."""

    def __init__(self, cloud: Cloud) -> None:
        super().__init__()
        self._cloud = cloud

    async def needs_blockwise_assembly(self, request: Any) -> bool:
        return False

    async def render(self, request: Any) -> Any:
        return await self._cloud._render(request)


def _asked(request: Any, now: float) -> Asked:
    return Asked(
        time=now,
        peer=request.remote.address,
        method=str(request.code),
        path=request.opt.uri_path,
        options=tuple((int(o.number), o.encode()) for o in request.opt.option_list()),
        payload=request.payload,
    )


def _transfer_key(request: Any) -> Any:
    """What the blocks of one transfer have in common."""
    return request.remote.address, request.get_cache_key(_BLOCK_OPTIONS)


def _code(dotted: str) -> Any:
    kind, detail = dotted.split(".")
    return aiocoap.Code(int(kind) << 5 | int(detail))
