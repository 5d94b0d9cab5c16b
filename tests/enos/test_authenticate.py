"""A whole authentication through a modem that is only its sockets, to the EnOS stand-in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from hil.cloud import Behaviour, Cloud
from nbiot.channel import Counters
from nbiot.coap.client import Identifiers
from nbiot.coap.exchange import Timing
from nbiot.enos import AuthLimit, AuthResult, Device, Server, authenticate
from nbiot.enos.limits import DeviceId
from nbiot.errors import (
    AuthRefused,
    BadInput,
    NameNotResolved,
    NoResponse,
    RateLimited,
    ResponseReset,
    SecretUnavailable,
    ServerFault,
    SocketError,
    Unsupported,
)
from nbiot.modem import Modem, Resolved
from nbiot.profile import NativeRequest, NativeResponse, Progress, UdpSocket
from nbiot.signing import Secret, SecretSigner
from tests.coap.loopback import Loopback, connected
from tests.coap.wire import DK, PK, SECRET, SIGN_3600, TOPIC

PATIENT = Timing(ack_timeout=10.0, response_timeout=10.0)  # nothing is to be repeated
LOSSY = Timing(ack_timeout=0.15, random_factor=1.0, max_retransmit=6)
QUICK = Timing(ack_timeout=0.06, random_factor=1.0, max_retransmit=2)
DEVICE = Device(PK, DK, SecretSigner(Secret(SECRET)))


class FakeProfile:
    title = "Fake modem"
    native_payload = 1000

    def __init__(self) -> None:
        self.has_native_coap = False
        self.native: list[NativeRequest] = []
        self.native_answer = NativeResponse("2.04", b"")

    async def native_coap(self, request: NativeRequest, seconds: float) -> NativeResponse:
        self.native.append(request)
        return self.native_answer


class FakeModem:
    """What ``authenticate`` uses of a modem; its sockets are sockets of this host."""

    def __init__(self) -> None:
        self.profile = FakeProfile()
        self.told: list[Progress] = []
        self.resolved: list[tuple[str, str]] = []
        self.sockets: list[Loopback] = []
        self.error: Exception | None = None

    @property
    def counters(self) -> Counters:
        return Counters(10 * len(self.sockets), 100 * len(self.sockets), len(self.sockets))

    def report(self, progress: Progress) -> None:
        self.told.append(progress)

    async def resolve(self, host: str, *, by: str = "auto") -> Resolved:
        self.resolved.append((host, by))
        if host == "127.0.0.1":
            return Resolved(host, host, "given")
        if host == "coap-nowhere":
            raise NameNotResolved("no address")
        return Resolved(host, "127.0.0.1", "host" if by == "host" else "modem")

    async def udp(self, address: str, port: int) -> UdpSocket:
        if self.error is not None:
            raise self.error
        self.sockets.append(await connected(address, port))
        return self.sockets[-1].as_socket


class Counting(AuthLimit):
    """Remembers who asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[DeviceId] = []

    def take(self, device: DeviceId) -> None:
        self.asked.append(device)
        super().take(device)


@pytest.fixture
async def cloud() -> AsyncIterator[Cloud]:
    async with Cloud({(PK, DK): SECRET}) as cloud:
        yield cloud


@pytest.fixture
def modem() -> FakeModem:
    return FakeModem()


@pytest.fixture
def limit() -> Counting:
    return Counting()


@pytest.fixture
def authenticated(modem: FakeModem, cloud: Cloud, limit: Counting) -> Any:
    """Authenticates the device at the cloud, with options of its own."""

    async def authenticated(host: str = "127.0.0.1", **options: Any) -> AuthResult:
        server = Server(host, cloud.port)
        settings: dict[str, Any] = {"timing": PATIENT, "limit": limit} | options
        device = settings.pop("device", DEVICE)
        return await authenticate(cast("Modem", modem), device, server, **settings)

    return authenticated


def closed(modem: FakeModem) -> list[int]:
    return [socket.closed for socket in modem.sockets]


# --- success ------------------------------------------------------------------------------------


async def test_the_result_tells_what_happened(
    authenticated: Any, modem: FakeModem, cloud: Cloud
) -> None:
    found = await authenticated()
    (socket,) = modem.sockets
    address = f"127.0.0.1:{cloud.port}"
    assert (found.code, found.product_key, found.device_key) == ("2.04", PK, DK)
    assert (found.server, found.address, found.resolved_by) == (address, address, "given")
    assert (found.lifetime, found.path, found.retransmissions) == (3600, "udp", 0)
    assert (found.bytes_up, found.bytes_down) == (len(socket.sent[0]), len(socket.heard[0]))
    assert (found.at_round_trips, found.serial_bytes) == (1, 110)
    assert 0 <= found.round_trip < 5
    assert cloud.is_online(PK, DK)


@pytest.mark.parametrize("code", ["2.01", "2.03", "2.04", "2.05"])
async def test_any_code_of_class_2_is_success(authenticated: Any, cloud: Cloud, code: str) -> None:
    cloud.behaviour = Behaviour(success_code=code)
    assert (await authenticated()).code == code


@pytest.mark.parametrize(
    ("options", "waiting"),
    [
        ([], False),
        ([(2100, TOPIC)], True),
        ([(2102, b"\x01")], True),
        ([(2100, TOPIC), (2102, b"\x01")], True),
        ([(2104, b"")], False),
    ],
)
async def test_a_command_that_rides_on_the_answer_is_told(
    authenticated: Any, cloud: Cloud, options: list[tuple[int, bytes]], waiting: bool
) -> None:
    cloud.behaviour = Behaviour(options=options)
    assert (await authenticated()).commands_waiting is waiting


async def test_lifetime_and_content_format_are_the_callers(
    authenticated: Any, cloud: Cloud
) -> None:
    device = Device(PK, DK, SecretSigner(Secret(SECRET)), lifetime=30)
    assert (await authenticated(device=device, content_format=50)).lifetime == 30
    (request,) = cloud.requests
    assert b'"lifetime":30,' in request.payload
    assert (12, b"\x32") in request.options


@pytest.mark.parametrize(
    ("host", "asked_by", "found_by"),
    [("127.0.0.1", "auto", "given"), ("coap-x", "auto", "modem"), ("coap-x", "host", "host")],
)
async def test_the_name_is_resolved_as_asked(
    authenticated: Any, modem: FakeModem, host: str, asked_by: str, found_by: str
) -> None:
    found = await authenticated(host, resolve_by=asked_by)
    assert modem.resolved == [(host, asked_by)]
    assert found.resolved_by == found_by
    steps = [p.step for p in modem.told]
    assert ("resolved" in steps) is (found_by != "given")
    assert steps[-2:] == ["sent", "authenticated"]


async def test_neither_secret_nor_signature_is_shown_anywhere(
    authenticated: Any, modem: FakeModem
) -> None:
    found = await authenticated("coap-x")
    shown = repr((found, found.as_dict(), modem.told, DEVICE))
    assert SECRET not in shown
    assert SIGN_3600 not in shown


async def test_each_authentication_has_identifiers_of_its_own(
    authenticated: Any, modem: FakeModem
) -> None:
    for _ in range(4):
        await authenticated()
    sent = [socket.sent[0] for socket in modem.sockets]
    mids, tokens = [data[2:4] for data in sent], [data[4:6] for data in sent]
    assert len(set(mids)) == len(set(tokens)) == 4
    numbers = [int.from_bytes(mid, "big") for mid in mids]  # they count through the process
    assert [(n - numbers[0]) % 65536 for n in numbers] == [0, 1, 2, 3]


async def test_the_caller_may_bring_the_identifiers(authenticated: Any, modem: FakeModem) -> None:
    class Fixed(Identifiers):
        def next(self) -> tuple[int, bytes]:
            return 0x1234, b"\xab\xcd"

    await authenticated(identifiers=Fixed())
    assert modem.sockets[0].sent[0][2:6] == b"\x12\x34\xab\xcd"


# --- failure ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [
        (Behaviour(code="4.00"), AuthRefused),
        (Behaviour(code="4.01"), AuthRefused),
        (Behaviour(code="4.03"), AuthRefused),
        (Behaviour(fault=True), ServerFault),
        (Behaviour(reset=True), ResponseReset),
        (Behaviour(silent=True), NoResponse),
        (Behaviour(wrong_token=True), NoResponse),
        (Behaviour(wrong_mid=True), NoResponse),
        (Behaviour(corrupt=True), NoResponse),
    ],
    ids=lambda value: "" if isinstance(value, type) else None,
)
async def test_every_failure_is_told_and_leaves_no_socket_open(
    authenticated: Any,
    modem: FakeModem,
    cloud: Cloud,
    limit: Counting,
    behaviour: Behaviour,
    error: type[Exception],
) -> None:
    cloud.behaviour = behaviour
    with pytest.raises(error):
        await authenticated(timing=QUICK if error is NoResponse else PATIENT)
    assert closed(modem) == [1]
    assert len(limit.asked) == 1  # whatever was sent again
    assert "authenticated" not in [p.step for p in modem.told]


async def test_a_wrong_secret_is_refused_with_4_01(authenticated: Any, cloud: Cloud) -> None:
    device = Device(PK, DK, SecretSigner(Secret("another")))
    with pytest.raises(AuthRefused) as caught:
        await authenticated(device=device)
    assert caught.value.code == "4.01"
    assert not cloud.is_activated(PK, DK)


async def test_the_socket_is_closed_after_success(authenticated: Any, modem: FakeModem) -> None:
    await authenticated()
    assert closed(modem) == [1]


async def test_the_socket_is_closed_on_cancellation(
    authenticated: Any, modem: FakeModem, cloud: Cloud
) -> None:
    cloud.behaviour = Behaviour(silent=True)
    task = asyncio.create_task(authenticated(timing=Timing()))
    async with asyncio.timeout(2):
        while not (modem.sockets and modem.sockets[0].sent):
            await asyncio.sleep(0.005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert closed(modem) == [1]
    assert len(modem.sockets[0].sent) == 1


async def test_a_modem_without_coap_is_not_asked_for_it(
    authenticated: Any, modem: FakeModem, limit: Counting
) -> None:
    with pytest.raises(Unsupported, match=r"Fake modem has no CoAP client[^!]*--coap udp"):
        await authenticated(path="native")
    assert (modem.resolved, modem.profile.native, limit.asked) == ([], [], [])


async def test_a_path_that_is_none_is_named(authenticated: Any, modem: FakeModem) -> None:
    with pytest.raises(BadInput, match="udp or native"):
        await authenticated(path="tcp")
    assert modem.resolved == []


async def test_nothing_is_touched_when_the_signer_fails(
    authenticated: Any, modem: FakeModem, limit: Counting
) -> None:
    class Broken:
        def sign(self, *_: object) -> str:
            raise SecretUnavailable("the smart card is out")

    with pytest.raises(SecretUnavailable):
        await authenticated(device=Device(PK, DK, Broken()))
    assert (modem.resolved, limit.asked, modem.sockets) == ([], [], [])


async def test_a_content_format_that_is_none_is_refused_before_the_modem_is_asked(
    authenticated: Any, modem: FakeModem, limit: Counting
) -> None:
    with pytest.raises(BadInput, match="content_format"):
        await authenticated(content_format=65536)
    assert (modem.resolved, limit.asked) == ([], [])


async def test_a_name_without_address_does_not_count(authenticated: Any, limit: Counting) -> None:
    with pytest.raises(NameNotResolved):
        await authenticated("coap-nowhere")
    assert limit.asked == []


async def test_a_socket_that_does_not_open_is_told(authenticated: Any, modem: FakeModem) -> None:
    modem.error = SocketError("no socket")
    with pytest.raises(SocketError):
        await authenticated()


# --- the limit ----------------------------------------------------------------------------------


async def test_the_fifth_authentication_sends_nothing(
    authenticated: Any, modem: FakeModem, cloud: Cloud
) -> None:
    for _ in range(4):
        await authenticated()
    with pytest.raises(RateLimited) as caught:
        await authenticated()
    assert 0 < caught.value.wait <= 120
    assert (len(modem.sockets), len(cloud.requests)) == (4, 4)


async def test_a_request_that_was_sent_again_counts_once(
    authenticated: Any, cloud: Cloud, limit: Counting
) -> None:
    cloud.behaviour = Behaviour(lose_requests=2)
    assert (await authenticated(timing=LOSSY)).retransmissions == 2
    assert len(limit.asked) == 1


async def test_upper_and_lower_case_name_the_same_server(
    authenticated: Any, limit: Counting
) -> None:
    await authenticated("coap-X.def")
    await authenticated("COAP-x.DEF")
    assert len(set(limit.asked)) == 1


async def test_without_a_limit_that_of_the_process_counts(
    authenticated: Any, limit: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nbiot.enos.auth.PROCESS_LIMIT", limit)
    await authenticated(limit=None)
    assert len(limit.asked) == 1


# --- the modem's own client ---------------------------------------------------------------------


async def test_the_modems_own_client_gets_the_same_request(
    authenticated: Any, modem: FakeModem, limit: Counting
) -> None:
    modem.profile.has_native_coap = True
    found = await authenticated(path="native")
    (request,) = modem.profile.native
    assert (request.address, request.method, request.path) == ("127.0.0.1", 2, ("auth", PK, DK))
    assert SIGN_3600.encode() in request.payload
    assert (found.path, found.bytes_down, found.commands_waiting) == ("native", None, False)
    assert (modem.sockets, len(limit.asked)) == ([], 1)


async def test_a_refusal_through_the_modems_own_client_is_a_refusal(
    authenticated: Any, modem: FakeModem
) -> None:
    modem.profile.has_native_coap = True
    modem.profile.native_answer = NativeResponse("4.01", b"")
    with pytest.raises(AuthRefused, match=r"4\.01"):
        await authenticated(path="native")
