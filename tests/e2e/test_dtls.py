"""EnOS over DTLS: driver, software modem, and a DTLS server in front of the stand-in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from hil.cloud import Behaviour, CommandState, Downlink
from nbiot.coap.dtls import DtlsError, Suite
from nbiot.coap.dtls_socket import DtlsSocket, secure
from nbiot.coap.exchange import Timing
from nbiot.coap.message import Method, Request, Response
from nbiot.enos import AuthLimit, Command, Device, EnosSession, SessionState
from nbiot.enos.dtls import DtlsServer, activate, store_in_file
from nbiot.errors import (
    AuthRefused,
    BadReply,
    NbiotError,
    NoResponse,
    RateLimited,
    RequestRefused,
    Unsupported,
)
from nbiot.profile import Release, UdpSocket
from nbiot.session import Session
from nbiot.signing import Secret, SecretSigner, secret_from
from tests.coap.dtls_peers import (
    IDENTITY,
    KEY,
    coap_server,
    openssl_server,
    requires_coap_gnutls,
    requires_openssl,
)

from . import life as plain
from .conftest import IMEI, MODELS, PRODUCT_KEY, SECRET, Bench
from .dtls_front import DtlsFront, enos_key
from .life import DEVICE, FAST, half_minutes

PRODUCT_SECRET = "Pr0ductSecretOf20chr"
WHOLE = ["authenticating", "online"]


class Life(plain.Life):
    """A session on a bench behind a front."""

    def __init__(self, bench: Bench, front: DtlsFront) -> None:
        super().__init__(bench)
        self.front = front

    def open(self, *, suites: tuple[Suite, ...] = tuple(Suite), **options: Any) -> EnosSession:
        return super().open(server=DtlsServer(self.front.host, self.front.port, suites), **options)

    @property
    def handshakes(self) -> int:
        return len(self.front.identities)


@asynccontextmanager
async def behind_dtls(bench: Any, model: str, **options: Any) -> AsyncIterator[Life]:
    """A bench whose modem is attached, and a front; no session yet."""
    async with (
        bench(model, attached=True, **options) as on,
        DtlsFront((on.cloud.host, on.cloud.port), {DEVICE: SECRET}) as front,
    ):
        front.products[PRODUCT_KEY] = PRODUCT_SECRET
        await on.modem.attach()
        yield Life(on, front)


@pytest.fixture
def life(bench):
    @asynccontextmanager
    async def opened(model: str, **options: Any) -> AsyncIterator[Life]:
        emulator = options.pop("emulator", {})
        async with behind_dtls(bench, model, **emulator) as at, AsyncExitStack() as stack:
            at.session = await stack.enter_async_context(at.open(**options))
            await at.front.joined()
            yield at

    return opened


# --- the handshake is the authentication --------------------------------------------------------


@pytest.mark.parametrize("suite", Suite)
@pytest.mark.parametrize("model", MODELS)
async def test_the_handshake_authenticates_and_reports_go_through(
    life, model: str, suite: Suite
) -> None:
    async with life(model, suites=(suite,)) as at:
        assert at.front.identities == [f"{PRODUCT_KEY},{IMEI},2,3600"]
        assert at.session.is_online
        answer = await at.session.report({"t": 1})
        assert answer.cost.round_trips == 1
        assert (await at.session.attributes()).data == {}
        assert at.cloud.counters.accepted >= 1
        # A handshake, and no POST /auth from the device: the one is the front's.
        assert sum(request.path[0] == "auth" for request in at.cloud.requests) == 1
        assert at.session.authentications == 1
        assert at.session._line.socket.suite is suite
    assert at.seen == [*WHOLE, "closed"]
    assert at.bench.open_sockets() == []
    assert at.front.goodbyes == 1


async def test_both_suites_are_offered_and_the_short_one_wins(life) -> None:
    async with life("bc66") as at:
        assert at.session._line.socket.suite is Suite.CCM_8


@pytest.mark.parametrize("suite", Suite)
@pytest.mark.parametrize(("model", "datagrams"), [("bc95", 4), ("bc95-g", 1), ("bc66", 2)])
async def test_blocks_are_sized_to_what_dtls_leaves(
    life, model: str, datagrams: int, suite: Suite
) -> None:
    """A BC66 takes 1024 bytes: without DTLS this report would be one datagram."""
    async with life(model, suites=(suite,)) as at:
        points = {f"point{n:02}": "x" * 58 for n in range(12)}
        before = len(at.front.passed)
        answer = await at.session.report(points)
        assert at.cloud.counters.accepted == 1
        assert set(at.cloud.thing(*DEVICE).measurepoints) == set(points)
        assert answer.cost.round_trips == datagrams
        limit = at.bench.modem.profile.limits.datagram
        sent = [d for d in at.front.passed[before:] if d.way == "in"]
        assert max(len(d.data) for d in sent) <= limit
        assert answer.cost.up == sum(len(d.data) for d in sent)


async def test_the_cost_counts_all_that_dtls_sends(life) -> None:
    async with life("bc95-g") as at:
        shaken = await at.session.authenticate()
        report = await at.session.report({"t": 1})

    def total(way: str, first: int, last: int | None) -> tuple[int, int]:
        found = [d.data for d in at.front.passed[first:last] if d.way == way]
        return len(found), sum(map(len, found))

    hellos = [n for n, d in enumerate(at.front.passed) if d.way == "in" and d.data[13] == 1]
    second = hellos[2]  # each handshake has two, because of the cookie
    end = len(at.front.passed) - 1  # close_notify
    assert (shaken.response.code, shaken.cost.round_trips) == ("", 0)
    cost = shaken.cost
    ups = [cost.datagrams_up + report.cost.datagrams_up, cost.up + report.cost.up]
    downs = [cost.datagrams_down + report.cost.datagrams_down, cost.down + report.cost.down]
    assert tuple(ups) == total("in", second, end)
    assert tuple(downs) == total("out", second, end)
    assert report.cost.datagrams_up == 1


async def test_the_radio_is_released_after_the_report_and_not_in_the_handshake(
    life, capsys: pytest.CaptureFixture[str]
) -> None:
    async with life("bc95") as at:
        assert "NSOSTF" not in capsys.readouterr().out
        assert (await at.session.report({"t": 1})).cost.released
        assert "NSOSTF" in capsys.readouterr().out


LOST = [("in", n) for n in (1, 2, 3, 4)] + [("out", n) for n in range(1, 6)]


@pytest.mark.parametrize(("way", "number"), LOST, ids=[f"{way} {n}" for way, n in LOST])
async def test_a_handshake_with_a_loss_ends_well(bench, way: str, number: int) -> None:
    async with behind_dtls(bench, "bc95-g") as at:
        at.front.lose = lambda where, n: (where, n) == (way, number)
        async with at.open() as enos:
            await enos.report({"t": 1})
        assert at.cloud.counters.accepted == 1
        assert enos.authentications == 1
        assert any(d.lost for d in at.front.passed)


async def test_a_wrong_key_is_told_in_plain_words_and_leaves_nothing_open(bench) -> None:
    async with behind_dtls(bench, "bc95") as at:
        timing = Timing(ack_timeout=0.3, max_retransmit=1)
        at.front.lose = lambda way, number: way == "out" and number > 3  # its repetitions
        with pytest.raises(NoResponse, match="did not answer our key") as caught:
            async with at.open(secret="another-secret-than-1", timing=timing):
                raise AssertionError("not to be entered")
        assert "secret or the identity is wrong" in caught.value.hint
        assert at.bench.open_sockets() == []
        assert at.handshakes == 0
    assert at.seen == ["authenticating", "offline", "closed"]


async def test_an_unknown_device_is_refused(bench) -> None:
    async with behind_dtls(bench, "bc66") as at:
        at.front.secrets.clear()
        with pytest.raises(AuthRefused, match="does not accept the device") as caught:
            async with at.open():
                raise AssertionError("not to be entered")
        assert IMEI in caught.value.message
        assert at.bench.open_sockets() == []


async def test_a_server_without_our_suites_refuses(bench) -> None:
    async with behind_dtls(bench, "bc66") as at:
        at.front.suites = "PSK-AES256-GCM-SHA384"
        with pytest.raises(AuthRefused, match="handshake failure"):
            async with at.open():
                raise AssertionError("not to be entered")


async def test_nobody_there_is_not_taken_for_a_wrong_key(bench) -> None:
    async with behind_dtls(bench, "bc66") as at:
        at.front.lose = lambda way, number: True
        with pytest.raises(NoResponse, match="no answer to the DTLS handshake") as caught:
            async with at.open(timing=Timing(ack_timeout=0.3, max_retransmit=0)):
                raise AssertionError("not to be entered")
        assert "APN" in caught.value.hint


async def test_a_signer_without_a_key_is_named_before_anything_is_sent(bench) -> None:
    class Elsewhere:
        def sign(self, *_: object) -> str:
            return "0" * 64

    device = Device(PRODUCT_KEY, IMEI, Elsewhere())
    async with bench("bc66") as on:
        with pytest.raises(Unsupported, match="Elsewhere signs, but has no key"):
            EnosSession(on.modem, device, DtlsServer("127.0.0.1"))


async def test_a_handshake_that_is_cancelled_leaves_nothing_open(bench) -> None:
    async with behind_dtls(bench, "bc95") as at:
        at.front.lose = lambda way, number: way == "out"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5), at.open():
                raise AssertionError("not to be entered")
        assert at.bench.open_sockets() == []
        at.front.lose = lambda way, number: False
        async with at.open() as enos:
            await enos.report({"t": 1})


# --- staying online -----------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
async def test_4_01_makes_one_new_handshake_and_the_report_counts_once(life, model: str) -> None:
    async with life(model) as at:
        at.cloud.forget_session(*DEVICE)
        answer = await at.session.report({"t": 1})
        assert at.cloud.counters.accepted == 1
        assert at.handshakes == at.session.authentications == 2
        assert answer.cost.round_trips == 2
        assert answer.cost.datagrams_up >= 5  # 2 + 3 of the handshake
        assert len(at.bench.open_sockets()) == 1
    assert at.seen == [*WHOLE, "offline", *WHOLE, "closed"]


async def test_4_01_again_is_told_and_not_tried_for_ever(life) -> None:
    async with life("bc66") as at:
        for behaviour in (Behaviour(code="4.01"), Behaviour(), Behaviour(code="4.01")):
            at.cloud.next(behaviour)  # to the report, to /auth and to the report again
        with pytest.raises(RequestRefused, match=r"4\.01"):
            await at.session.report({"t": 1})
        assert at.handshakes == 2


@pytest.mark.parametrize("model", MODELS)
async def test_a_server_that_said_goodbye_gets_the_report_over_a_new_association(
    life, model: str
) -> None:
    async with life(model) as at:
        await at.session.report({"t": 1})
        at.front.restart(goodbye=True)
        await asyncio.sleep(0.2)
        await at.session.report({"t": 2})  # sent once only, so not repeated: it was not sent yet
        assert at.cloud.counters.accepted == 2
        assert at.handshakes == 2
    assert "the server ended the DTLS association" in [change.reason for change in at.states]


async def test_a_server_that_lost_the_association_gets_what_may_be_repeated(life) -> None:
    timing = Timing(ack_timeout=0.1, max_retransmit=1)
    async with life("bc95", timing=timing) as at:
        at.front.restart(goodbye=False)
        await at.session.update_attributes({"a": 1})
        assert at.cloud.thing(*DEVICE).attributes == {"a": 1}
        assert at.handshakes == 2


async def test_a_report_that_may_have_arrived_is_not_repeated_but_the_next_gets_through(
    life,
) -> None:
    timing = Timing(ack_timeout=0.1, max_retransmit=1)
    async with life("bc95", timing=timing) as at:
        at.front.restart(goodbye=False)
        with pytest.raises(NoResponse):
            await at.session.report({"t": 1})
        assert at.session.state is SessionState.OFFLINE
        assert at.bench.open_sockets() == []
        await at.session.report({"t": 2})
        assert at.cloud.counters.accepted == 1
        assert at.handshakes == 2


async def test_a_server_that_stays_away_is_not_asked_for_ever(life) -> None:
    timing = Timing(ack_timeout=0.1, max_retransmit=1)
    async with life("bc66", timing=timing) as at:
        at.front.lose = lambda way, number: True
        with pytest.raises(NoResponse, match="handshake"):
            await at.session.attributes()
        assert at.session.authentications == 2
        at.front.lose = lambda way, number: False
        await at.session.attributes()


@pytest.mark.parametrize("model", MODELS)
async def test_a_modem_that_restarts_gets_a_new_association(bench, model: str) -> None:
    from nbiot.supervisor import Supervisor

    from .test_supervisor import FAST as PATIENCE

    async with behind_dtls(bench, model) as at:
        await at.bench.modem.channel.close()
        async with (
            Supervisor(at.bench.pty.path, model=model, policy=PATIENCE) as keeper,
            at.open(carrier=keeper) as enos,
        ):
            await enos.report({"t": 1})
            at.bench.pty.modem.reboot()
            await asyncio.sleep(0.05)
            await enos.attributes()  # repeated, because it does no harm
            await enos.report({"t": 2})
            assert at.cloud.counters.accepted >= 2
            assert at.handshakes == enos.authentications == 2


async def test_after_sleep_silence_and_the_lifetime_a_handshake_comes_first(life) -> None:
    async with life("bc66", nat_timeout=3600.0) as at:
        profile = at.bench.modem.profile
        profile.may_sleep, profile.sleeps_after = True, 0.0
        await at.session.report({"t": 1})
        profile.may_sleep = False
        at.session._nat_timeout = 0.0
        await at.session.report({"t": 2})
        at.session._nat_timeout = 3600.0
        at.session._alive_until = 0.0
        await at.session.report({"t": 3})
        assert at.cloud.counters.accepted == 3
        assert at.handshakes == 4
        assert len(set(at.front.addresses)) == 4
    reasons = [change.reason for change in at.states if change.state is SessionState.OFFLINE]
    assert reasons[0] == "the modem may have slept"
    assert "silent for so long" in reasons[1]


async def test_the_limit_of_authentications_counts_handshakes(life) -> None:
    async with life("bc66", limit=AuthLimit(clock=half_minutes())) as at:
        for _ in range(3):
            await at.front.joined()
            at.cloud.forget_session(*DEVICE)
            await at.session.report({"t": 1})
        assert at.handshakes == 4


async def test_the_limit_is_waited_for(life) -> None:
    class Full:
        taken = 0

        def take(self, device: object) -> None:
            self.taken += 1
            if self.taken == 2:
                raise RateLimited("four of them", wait=0.01)

    async with life("bc66", limit=Full()) as at:
        at.cloud.forget_session(*DEVICE)
        await at.session.report({"t": 1})
    assert at.seen[2:5] == ["offline", "waiting", "authenticating"]


async def test_what_keeps_a_device_online_is_a_message_and_no_handshake(life) -> None:
    async with life("bc66", lifetime=30, keep_online=True) as at:
        at.session._alive_until = asyncio.get_running_loop().time() + 7.6
        at.session._keeper.cancel()
        at.session._keeper = asyncio.create_task(at.session._keep())
        await asyncio.sleep(0.6)
        assert at.session.seconds_left > 29
        assert at.handshakes == 1


async def test_after_a_long_silence_the_handshake_alone_keeps_a_device_online(life) -> None:
    async with life("bc66", keep_online=True) as at:
        at.session._nat_timeout = 0.0
        at.session._alive_until = asyncio.get_running_loop().time() + 900.1
        at.session._keeper.cancel()
        at.session._keeper = asyncio.create_task(at.session._keep())
        await asyncio.sleep(0.6)
        await at.front.joined()
        assert at.session.seconds_left > 3500
        assert at.handshakes == 2
        assert [request.path[0] for request in at.cloud.requests] == ["auth", "auth"]


async def test_a_call_that_is_cancelled_leaves_the_association_usable(life) -> None:
    async with life("bc95") as at:
        at.cloud.next(Behaviour(silent=True))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await at.session.report({"t": 1})
        await at.session.report({"t": 2})
        assert at.cloud.counters.accepted == 1
        assert at.handshakes == 1


async def test_rubbish_is_dropped_and_counted(life) -> None:
    async with life("bc95-g") as at:
        (address,) = at.front.associations
        mine = at.front.passed[-1].data
        for rubbish in (b"\x01", b"GET / HTTP/1.1", b"\x17\xfe\xfd" + bytes(40), mine, bytes(9)):
            at.front.transport.sendto(rubbish, address)
        await asyncio.sleep(0.2)
        await at.session.report({"t": 1})
        assert at.session._line.socket.dropped.reasons["no DTLS record"] == 4
        assert at.session._line.socket.dropped.reasons["no record of this association"] == 1
        assert at.handshakes == 1


# --- down ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
async def test_commands_are_announced_and_fetched(life, model: str) -> None:
    async with life(model) as at:
        at.cloud.downlink = Downlink("2100+get")
        done: list[Any] = []

        async def carry_out(command: Command) -> dict[str, bool]:
            done.append(command.params)
            return {"ok": True}

        at.session.handle("service", carry_out)
        command = at.cloud.send_command(*DEVICE, "thing/service/turn", {"to": "on"})
        await at.session.report({"t": 1})
        await at.session.settled()
        assert command.state is CommandState.SUCCESS
        assert done == [{"to": "on"}]


# --- servers of others --------------------------------------------------------------------------


class CoapsCloud:
    """Any CoAP server with a pre-shared key, for the session."""

    host = "127.0.0.1"
    lifetime = 3600.0
    identity = ("server", "a", "b")

    def __init__(self, port: int, key: bytes, suite: Suite) -> None:
        self.port = port
        self.key = key
        self.suite = suite

    async def handshake(self, socket: UdpSocket, timing: Any, report: Any) -> DtlsSocket:
        return await secure(
            socket, IDENTITY, lambda: self.key, suites=[self.suite], timing=timing, report=report
        )

    def auth_request(self) -> Request:
        raise AssertionError("the handshake is all")

    def refusal(self, response: Response) -> NbiotError | None:
        return None

    def uplink(self, topic: str, payload: bytes) -> Request:
        return Request(Method.PUT, (topic,), payload, content_format=0)

    def keep_alive(self) -> Request | None:
        return Request(Method.GET, ())

    def needs_auth(self, response: Response) -> bool:
        return response.code == "4.01"

    def downlinks(self, response: Response) -> list[Any]:
        return []


@requires_coap_gnutls
@pytest.mark.parametrize("suite", Suite)
@pytest.mark.parametrize("model", ["bc95", "bc95-g"])
async def test_libcoap_with_gnutls_takes_blocks_through_a_modem(
    bench, model: str, suite: Suite
) -> None:
    key = b"0123456789abcdef"
    with coap_server(key) as server:
        async with bench(model, attached=True) as on:
            await on.modem.attach()
            cloud = CoapsCloud(server.port, key, suite)
            async with Session(on.modem, cloud, timing=FAST) as session:
                done = await session.request(cloud.uplink("example_data", b"0123456789" * 90))
                assert done.response.ok
                assert done.cost.round_trips == (4 if model == "bc95" else 1)
                if model != "bc95":
                    got = await session.request(Request(Method.GET, ("example_data",)))
                    assert got.response.payload == b"0123456789" * 90


@requires_openssl
@pytest.mark.parametrize("suite", Suite)
async def test_openssl_talks_with_a_modem(bench, suite: Suite) -> None:
    with openssl_server() as server:
        async with bench("bc95", attached=True) as on:
            await on.modem.attach()
            plain = await on.modem.udp("127.0.0.1", server.port)
            async with await secure(plain, IDENTITY, lambda: KEY, suites=[suite]) as line:
                assert line.usable
                most = line.profile.limits.datagram
                assert 512 - 80 < most < 512 - 28
                await line.send(b"from us" + bytes(most - 9) + b"\n\n", Release.NO)
                await asyncio.to_thread(server.hear, b"from us")
                server.say(b"from the server\n")
                assert await line.receive(2.0) == b"from the server\n"
                with pytest.raises(TimeoutError):
                    await line.receive(0.05)
            assert not line.usable
            with pytest.raises(DtlsError, match="closed"):
                await line.receive(1.0)
            assert on.open_sockets() == []


# --- dynamic activation -------------------------------------------------------------------------


def activation(at: Life, **options: Any) -> Any:
    options = {"timing": FAST, "limit": AuthLimit()} | options
    return activate(
        at.bench.modem,
        PRODUCT_KEY,
        IMEI,
        Secret(options.pop("product_secret", PRODUCT_SECRET)),
        DtlsServer(at.front.host, at.front.port),
        **options,
    )


async def test_a_device_is_activated_keeps_its_secret_and_comes_back_with_it(
    bench, tmp_path: Path
) -> None:
    async with behind_dtls(bench, "bc95") as at:
        path = tmp_path / "secret"
        found = await activation(at, store=store_in_file(path))
        assert found == Secret(SECRET)
        assert path.stat().st_mode & 0o777 == 0o600
        assert at.bench.open_sockets() == []
        device = Device(PRODUCT_KEY, IMEI, SecretSigner(secret_from(f"file:{path}")))
        server = DtlsServer(at.front.host, at.front.port)
        async with EnosSession(
            at.bench.modem, device, server, timing=FAST, limit=AuthLimit()
        ) as enos:
            await enos.report({"t": 1})
        assert at.front.identities == [
            f"{PRODUCT_KEY},{IMEI},3,3600",
            f"{PRODUCT_KEY},{IMEI},2,3600",
        ]


async def test_a_secret_that_cannot_be_kept_is_not_used(bench) -> None:
    async with behind_dtls(bench, "bc66") as at:

        def full(_: Secret) -> None:
            raise OSError("disk full")

        with pytest.raises(OSError, match="disk full"):
            await activation(at, store=full)
        assert at.bench.open_sockets() == []


OTHER = b'{"params":{"productKey":"KV315idW","deviceKey":"other","deviceSecret":"a0b1c2d3e4f5"}}'
MINE = f'{{"params":{{"productKey":"{PRODUCT_KEY}","deviceKey":"{IMEI}"'.encode()


@pytest.mark.parametrize(
    "answer",
    [
        b"nonsense a0b1c2d3e4f5",
        b'["a0b1c2d3e4f5"]',
        b'{"params":null}',
        b"\xff\xfea0b1c2d3e4f5",
        b"[" * 900,
        OTHER,
        MINE + b"}}",
        MINE + b',"deviceSecret":7}}',
        MINE + b',"deviceSecret":" a0b1c2d3e4f5 "}}',
    ],
)
async def test_an_answer_that_is_none_is_said_without_its_words(bench, answer: bytes) -> None:
    import traceback

    async with behind_dtls(bench, "bc66") as at:
        at.front.activation = answer
        kept: list[Secret] = []
        with pytest.raises(BadReply, match="activation") as caught:
            await activation(at, store=kept.append)
        shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
        ours = [str(frame) for frame in shown.stack if "/nbiot/" in frame.filename]
        locals_of_ours = [f.locals for f in shown.stack if "/nbiot/" in f.filename]
        assert "a0b1c2d3e4f5" not in f"{ours} {locals_of_ours} {caught.value}"
        assert kept == []
        assert at.bench.open_sockets() == []


async def test_a_product_that_does_not_allow_it_is_named(bench) -> None:
    async with behind_dtls(bench, "bc66") as at:
        at.front.products.clear()
        with pytest.raises(AuthRefused):
            await activation(at, store=lambda _: None)


async def test_activations_are_counted_with_the_authentications(bench) -> None:
    async with behind_dtls(bench, "bc66") as at:
        limit = AuthLimit()
        server = f"{at.front.host}:{at.front.port}"
        for _ in range(4):
            limit.take((server, *DEVICE))
        with pytest.raises(RateLimited):
            await activation(at, store=lambda _: None, limit=limit)
        assert at.front.passed == []


# --- secrets ------------------------------------------------------------------------------------


async def test_neither_secret_nor_key_is_in_the_trace_the_steps_or_on_air(
    bench, capsys: pytest.CaptureFixture[str]
) -> None:
    async with behind_dtls(bench, "bc95") as at:
        found = await activation(at, store=lambda _: None, report=at.steps.append)
        async with at.open() as enos:
            await enos.report({"t": 1})
            told = f"{at.steps} {at.states} {found} {enos._line} {vars(enos)} {vars(enos.enos)}"
            told += f" {vars(enos._line.socket)}"
        dialogue = capsys.readouterr().out
        assert "NSOST" in dialogue
        air = b"".join(d.data for d in at.front.passed)
        for secret in (SECRET, PRODUCT_SECRET):
            for hidden in (secret.encode(), enos_key(secret)):
                assert hidden not in air
                for form in (hidden.hex(), hidden.hex().upper(), repr(hidden)[2:-1]):
                    assert form not in told + dialogue
