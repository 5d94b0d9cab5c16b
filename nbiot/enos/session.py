"""A device's life with EnOS: it reports, answers commands, stays online and comes back.

async with Supervisor("/dev/ttyUSB0") as keeper, EnosSession(keeper, device, server) as enos:
    enos.handle("service", reboot_pump, name="reboot")
    await enos.report({"temperature": 21.5})

With a nbiot.enos.dtls.DtlsServer instead of a Server, all of it is encrypted.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from nbiot.cloud import Downlink
from nbiot.coap.message import Method, Request
from nbiot.enos import things
from nbiot.enos.auth import COMMAND_OPTIONS, Device, Server, auth_request, refusal
from nbiot.enos.commands import (
    EXECUTION_LIMIT,
    FAILED,
    NO_HANDLER,
    Command,
    CommandFailed,
    Kind,
    Record,
    answer,
    read_command,
)
from nbiot.enos.dtls import PER_DEVICE, DtlsServer, psk_holder, psk_identity, shake_hands
from nbiot.enos.limits import PROCESS_LIMIT
from nbiot.errors import BadInput, BadReply, NbiotError
from nbiot.profile import Progress, Report, UdpSocket, silent
from nbiot.session import Cost, Session

if TYPE_CHECKING:
    from nbiot.coap.dtls_socket import DtlsSocket
    from nbiot.coap.exchange import Timing
    from nbiot.coap.message import Response
    from nbiot.modem import Modem
    from nbiot.session import Carrier

UPLINK_RATE = 10 * 1024  # bytes/s of one device (EnOS 2.4.4, limitations)
MOST_WAITING = 64  # commands in hand; EnOS queues 50 and sends them one by one

Handler = Callable[[Command], Awaitable[Any]]


class EnosCloud:
    """EnOS without DTLS, as documented since September 2019 (no token, no option 2101)."""

    def __init__(
        self,
        device: Device,
        server: Server,
        *,
        content_format: int | None = None,
        raw_keep_alive: bytes | None = None,
    ) -> None:
        self.device = device
        self.server = server
        self.content_format = content_format
        self._raw_keep_alive: Request | None = None
        if raw_keep_alive is not None:
            payload = things.checked_size(raw_keep_alive)
            self._raw_keep_alive = self.uplink("thing/model/up_raw", payload)

    @property
    def host(self) -> str:
        return self.server.host

    @property
    def port(self) -> int:
        return self.server.port

    @property
    def lifetime(self) -> float:
        return float(self.device.lifetime)

    @property
    def identity(self) -> tuple[str, str, str]:
        return str(self.server).lower(), self.device.product_key, self.device.device_key

    def auth_request(self) -> Request:
        return auth_request(self.device, self.content_format)

    def refusal(self, response: Response) -> NbiotError | None:
        return None if response.ok else refusal(response.code, self.device)

    def uplink(self, topic: str, payload: bytes) -> Request:
        """A POST to ``/topic/sys/{pk}/{dk}/`` and ``topic``."""
        return Request(Method.POST, self.path(topic), payload, self.content_format)

    def path(self, topic: str) -> tuple[str, ...]:
        """The CoAP path of a topic of this device."""
        sys = ("topic", "sys", self.device.product_key, self.device.device_key)
        return (*sys, *topic.split("/"))

    def keep_alive(self) -> Request | None:
        """None: an authentication and its empty response are fewer bytes (150) than any JSON
        message and its answer. But not where that would break the limit of 4 in 120 s: the shortest
        JSON message, then, a query for a tag that does not exist.
        """
        if self._raw_keep_alive is None and self.device.lifetime >= 60:
            return None
        return self.shortest()

    def shortest(self) -> Request:
        """The shortest message that changes nothing: the raw one that was given, or a query for a
        tag that does not exist.
        """
        if self._raw_keep_alive is not None:
            return self._raw_keep_alive
        return self.uplink("thing/tag/query", things.query_tags(["_"]).encode("0"))

    def needs_auth(self, response: Response) -> bool:
        return response.code == "4.01"

    def downlinks(self, response: Response) -> list[Downlink]:
        """Options 2100 and 2102, paired in order: a topic without a payload is to be fetched.

        Several pairs in one response are not documented; CoAP sorts options by number, so the first
        topic belongs to the first payload.
        """
        topics, payloads = (
            [value for number, value in response.options if number == wanted]
            for wanted in COMMAND_OPTIONS
        )
        return [
            Downlink(_segments(topic or b""), payload)
            for topic, payload in itertools.zip_longest(topics, payloads)
        ]


class EnosDtlsCloud(EnosCloud):
    """EnOS with DTLS: the handshake authenticates, and says the lifetime.

    Raises Unsupported if the device's signer has no key for DTLS.
    """

    server: DtlsServer

    def __init__(self, device: Device, server: DtlsServer, **options: Any) -> None:
        super().__init__(device, server, **options)
        self._holder = psk_holder(device.signer)

    async def handshake(
        self, socket: UdpSocket, timing: Timing | None, report: Report
    ) -> DtlsSocket:
        """See nbiot.session.Handshaking. Raises AuthRefused."""
        device = self.device
        keys = (device.product_key, device.device_key)
        identity = psk_identity(*keys, PER_DEVICE, device.lifetime)
        return await shake_hands(socket, identity, self._holder, self.server, timing, report)

    def keep_alive(self) -> Request | None:
        """A message: a handshake would be three times as many bytes, and is counted."""
        return self.shortest()


def _cloud(device: Device, server: Server, **options: Any) -> EnosCloud:
    if isinstance(server, DtlsServer):
        return EnosDtlsCloud(device, server, **options)
    return EnosCloud(device, server, **options)


def _segments(topic: bytes) -> tuple[str, ...]:
    text = topic.decode("utf-8", "backslashreplace").strip("/")
    return tuple(segment for segment in text.split("/") if segment)


@dataclass(frozen=True, slots=True)
class Answer:
    """What EnOS answered. ``data``: of the JSON answer, or the bytes for a raw message."""

    data: Any
    cost: Cost


class CommandStream:
    """Commands in the order in which they came. A wait may be cancelled and taken up again."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Command | None] = asyncio.Queue()
        self.put = self._queue.put_nowait  # None: there will be no more

    def __aiter__(self) -> CommandStream:
        return self

    async def __anext__(self) -> Command:
        command = await self._queue.get()
        if command is None:
            self.put(None)  # for the next one who asks
            raise StopAsyncIteration
        return command


class EnosSession(Session):
    """A device that is authenticated to EnOS for as long as the ``async with`` block lasts.

    The options are those of Session; ``limit`` is EnOS's own unless another one is given. With a
    DtlsServer, entering and everything that sends may raise DtlsError, too.

    leave_commands: commands without a handler are told of (step "command") and neither fetched nor
                    answered, so that EnOS keeps or repeats them for a program that takes them
    raw_keep_alive: for products of data type Custom: the bytes that the parser script takes for "I
                    am alive", cheaper than an authentication
    """

    def __init__(
        self,
        carrier: Modem | Carrier,
        device: Device,
        server: Server,
        *,
        content_format: int | None = None,
        leave_commands: bool = False,
        raw_keep_alive: bytes | None = None,
        report: Report = silent,
        **options: Any,
    ) -> None:
        self.enos = _cloud(
            device, server, content_format=content_format, raw_keep_alive=raw_keep_alive
        )
        options.setdefault("limit", PROCESS_LIMIT)
        super().__init__(
            carrier, self.enos, report=report, on_downlink=self._take_downlink, **options
        )
        self.dropped: Counter[str] = Counter()
        """Commands that were not carried out, by reason."""
        self._tell = report
        self._leave_commands = leave_commands
        self._numbers = itertools.count(1)
        self._sizes: deque[tuple[float, int]] = deque()  # what was sent in the last second
        self._handlers: dict[tuple[Kind, str], Handler] = {}
        self._record = Record()
        self._inbox: asyncio.Queue[Downlink] = asyncio.Queue()
        self._in_hand = 0
        self._settled = asyncio.Event()
        self._settled.set()
        self._iterated: CommandStream | None = None
        self._worker: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self._worker = asyncio.create_task(self._work(), name="commands from EnOS")
        return self

    async def close(self) -> None:
        """As of Session; a handler that runs is cancelled, and iterators end."""
        if self._worker is not None:
            self._worker.cancel()
            with suppress(asyncio.CancelledError):
                await self._worker
        if self._iterated is not None:
            self._iterated.put(None)
        await super().close()

    # --- up ---------------------------------------------------------------------------------

    async def report(self, points: Mapping[str, Any], *, time: int | None = None) -> Answer:
        """Report measurepoints: values by identifier, plain or as Measurepoint(value, quality).

        ``time``: ms since 1970; None: when EnOS gets it. Sent once: after NoResponse or an error of
        the modem, EnOS may have it. Raises BadInput before anything is sent; RequestRefused,
        AuthRefused, NoResponse, BadReply and what the modem raises.
        """
        return await self._post(things.measurepoints(points, time))

    async def event(
        self, name: str, outputs: Mapping[str, Any] | None = None, *, time: int | None = None
    ) -> Answer:
        """Report event ``name``. Sent once. Raises as ``report``."""
        return await self._post(things.event(name, outputs or {}, time))

    async def update_attributes(self, values: Mapping[str, Any]) -> Answer:
        """Set attributes. Repeated after a recovery. Raises as ``report``."""
        return await self._post(things.update_attributes(values), repeat=True)

    async def attributes(self, names: Iterable[str] = ()) -> Answer:
        """Attributes as EnOS has them; all when none is named. Repeated after a recovery."""
        return await self._post(things.query_attributes(names), repeat=True)

    async def delete_attributes(self, names: Iterable[str]) -> Answer:
        """Delete attributes. Repeated after a recovery. Raises as ``report``."""
        return await self._post(things.delete_attributes(names), repeat=True)

    async def update_tags(self, tags: Mapping[str, str]) -> Answer:
        """Set tags. Repeated after a recovery. Raises as ``report``."""
        return await self._post(things.update_tags(tags), repeat=True)

    async def tags(self, keys: Iterable[str] = ()) -> Answer:
        """Tags as EnOS has them; all when none is named. Repeated after a recovery."""
        return await self._post(things.query_tags(keys), repeat=True)

    async def delete_tags(self, keys: Iterable[str]) -> Answer:
        """Delete tags. Repeated after a recovery. Raises as ``report``."""
        return await self._post(things.delete_tags(keys), repeat=True)

    async def raw(self, payload: bytes) -> Answer:
        """Pass ``payload`` through to the product's parser script (data type Custom). Sent once.

        ``data`` of the answer is what the script answered, often nothing.
        """
        if not isinstance(payload, bytes | bytearray) or not payload:
            raise BadInput("payload", payload, "one or more bytes")
        size = len(things.checked_size(bytes(payload)))
        return await self._exchange(
            self.enos.uplink("thing/model/up_raw", bytes(payload)), size, bytes
        )

    async def post(self, topic: str, params: Any, *, repeat: bool = False) -> Answer:
        """A JSON message to any other topic of this device, from "thing/" on.

        Raises Unsupported for what EnOS does not take over CoAP: batches, resume, OTA, files,
        sub-devices.
        """
        return await self._post(things.other(topic, params), repeat=repeat)

    async def _post(self, message: things.Message, *, repeat: bool = False) -> Answer:
        number = str(next(self._numbers))
        payload = message.encode(number)
        request = self.enos.uplink(message.topic, payload)
        return await self._exchange(
            request, len(payload), lambda found: things.read_answer(found, number), repeat=repeat
        )

    async def _exchange(
        self, request: Request, size: int, read: Callable[[bytes], Any], *, repeat: bool = False
    ) -> Answer:
        await self._pace(size)
        done = await self.request(request, repeat=repeat)
        things.check_code(done.response.code)
        return Answer(read(done.response.payload), done.cost)

    async def _pace(self, size: int) -> None:
        """Wait while this message would be too much for EnOS's limit of 10 KB in a second."""
        loop = asyncio.get_running_loop()
        while True:
            now = loop.time()
            while self._sizes and now - self._sizes[0][0] >= 1.0:
                self._sizes.popleft()
            if size + sum(sent for _, sent in self._sizes) <= UPLINK_RATE:
                self._sizes.append((now, size))
                return
            await asyncio.sleep(self._sizes[0][0] + 1.0 - now)

    # --- down -------------------------------------------------------------------------------

    def handle(self, kind: Kind | str, handler: Handler, *, name: str = "") -> None:
        """Let ``handler`` carry out commands: its result is the answer's data.

        ``kind``: "raw" (the result is bytes), "set", "get" or "service"; ``name``: the service's
        identifier; empty for every service without a handler of its own. CommandFailed answers with
        a code; another exception, or 60 s without a result, with 1102.
        """
        try:
            self._handlers[Kind(kind), name] = handler
        except ValueError:
            raise BadInput("kind", kind, ", ".join(Kind)) from None

    def commands(self) -> CommandStream:
        """The commands that have no handler, as they come. Answer each with ``command.reply``.

        Ends when the session is closed. Without a handler, and before this was called, commands are
        answered with 1101, as by EnOS's own SDKs.
        """
        if self._iterated is None:
            self._iterated = CommandStream()
        return self._iterated

    async def settled(self) -> None:
        """Wait until every command that came was carried out (or is with an iterator)."""
        await self._settled.wait()

    def _take_downlink(self, downlink: Downlink) -> None:
        if self._in_hand >= MOST_WAITING:
            self._drop("too many at once")
            return
        self._in_hand += 1
        self.to_come += 1
        self._settled.clear()
        self._inbox.put_nowait(downlink)

    async def _work(self) -> None:
        while True:
            downlink = await self._inbox.get()
            try:
                await self._carry_out(downlink)
            except BadReply as error:
                self._drop(error.message)
            except NbiotError as error:  # EnOS sends the command again
                self._drop(f"not answered: {error.message}")
            finally:
                self._in_hand -= 1
                self.to_come = self._in_hand
                if not self._in_hand:
                    self._settled.set()

    def _drop(self, reason: str) -> None:
        self.dropped[reason] += 1
        self._tell(Progress("dropped", f"a command was dropped: {reason}"))

    async def _carry_out(self, downlink: Downlink) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + EXECUTION_LIMIT
        if self._leave_commands and not self._handlers and self._iterated is None:
            topic = "/".join(downlink.path[4:])
            self._tell(Progress("command", f"EnOS has a command: {topic}", {"topic": topic}))
            return
        if downlink.payload is None:
            downlink = await self._fetch(downlink)
        device = self.enos.device
        command = read_command(
            downlink, device.product_key, device.device_key, deadline, self._answer
        )
        known = self._record.find(command, loop.time())
        if known is not None:
            if known.answer is not None:
                await self._send_answer(command, known.answer)
            return  # it is being carried out: its answer is on the way
        self._record.add(command, loop.time())
        handler = self._handlers.get((command.kind, command.service)) or self._handlers.get(
            (command.kind, "")
        )
        if handler is not None:
            await self._answer(command, await self._run(handler, command))
        elif self._iterated is not None:
            self._iterated.put(command)
        else:
            self._drop(f"no handler for {command.kind}")
            await self._answer(command, _failure(command, NO_HANDLER, "no handler"))

    async def _fetch(self, downlink: Downlink) -> Downlink:
        """The command that EnOS has announced without its payload."""
        if not downlink.path:
            raise BadReply("a payload without a topic")
        done = await self.request(Request(Method.GET, downlink.path), repeat=True)
        things.check_code(done.response.code)
        return Downlink(downlink.path, done.response.payload)

    async def _run(self, handler: Handler, command: Command) -> bytes:
        """The answer that ``handler`` makes."""
        try:
            async with asyncio.timeout_at(command.deadline):
                return answer(command, await handler(command))
        except CommandFailed as error:
            return _failure(command, error.code, error.message)
        except TimeoutError:
            words = f"not done within {EXECUTION_LIMIT:g} s"
        except Exception as error:
            # The cloud gets no more than its type: the text may hold what is nobody's business.
            words = type(error).__name__
            self._tell(Progress("failed", f"the handler of {command.kind} failed: {error!r}"))
        return _failure(command, FAILED, words)

    async def _answer(self, command: Command, payload: bytes) -> None:
        self._record.answered(command, payload)
        await self._send_answer(command, payload)

    async def _send_answer(self, command: Command, payload: bytes) -> None:
        """Repeated after a recovery: EnOS takes the first answer with this id."""
        self.to_come = max(0, self._in_hand - 1)
        request = Request(Method.POST, command.reply_path, payload, self.enos.content_format)
        done = await self.request(request, repeat=True)
        things.check_code(done.response.code)
        self._record.confirmed(command)


def _failure(command: Command, code: int, words: str) -> bytes:
    """An answer that says no. A raw one can only say it in the parser script's own words."""
    if command.kind is Kind.RAW:
        return b""
    return json.dumps(
        {"id": command.id, "code": code, "message": words[:200], "data": {}},
        separators=(",", ":"),
    ).encode()
