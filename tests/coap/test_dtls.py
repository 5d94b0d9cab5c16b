"""DTLS over memory buffers against servers that others wrote: OpenSSL's and libcoap with GnuTLS."""

from __future__ import annotations

import pickle
import random
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import pytest

from nbiot.coap.dtls import (
    MTU,
    DtlsClosed,
    DtlsError,
    DtlsRefused,
    DtlsSession,
    Suite,
)
from nbiot.coap.exchange import Timing
from nbiot.coap.message import Method, Request, code_text, decode, encode_request
from nbiot.errors import BadInput, DatagramTooLong, NoResponse, Unsupported

from .dtls_peers import (
    HOST,
    IDENTITY,
    KEY,
    coap_server,
    openssl_server,
    requires_coap_gnutls,
    requires_openssl,
)

TIMING = Timing(ack_timeout=1.05, random_factor=1.0, max_retransmit=3)
PATIENT = Timing(ack_timeout=15.0, random_factor=1.0)


def test_without_pyopenssl_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "OpenSSL.SSL", None)
    with pytest.raises(Unsupported, match=r"nbiot-driver\[dtls\]"):
        DtlsSession(IDENTITY, KEY)


def test_an_openssl_without_pre_shared_keys_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lib:
        Cryptography_HAS_PSK = 0

    monkeypatch.setattr("OpenSSL._util.lib", Lib)
    with pytest.raises(Unsupported, match="no pre-shared keys"):
        DtlsSession(IDENTITY, KEY)


def test_the_key_shows_nowhere() -> None:
    session = DtlsSession(IDENTITY, KEY)
    shown = f"{session!r} {session} {vars(session)}"
    for form in (KEY.hex(), KEY.hex().upper(), repr(KEY), repr(list(KEY))):
        assert form not in shown
    with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):
        pickle.dumps(session)
    with pytest.raises(BadInput) as caught:
        DtlsSession(IDENTITY, b"very secret" * 6)
    assert "secret" not in str(caught.value)
    assert "key" not in {n for t in traceback_frames(caught.value) for n in t}


def traceback_frames(error: BaseException) -> Iterator[set[str]]:
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_name == "__init__":
            yield set(trace.tb_frame.f_locals) - {"self"}
        trace = trace.tb_next


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("identity", {"identity": ""}),
        ("identity", {"identity": "a\0b"}),
        ("identity", {"identity": "a" * 129}),
        ("key", {"key": b""}),
        ("suites", {"suites": ()}),
        ("mtu", {"mtu": 100}),
    ],
)
def test_unusable_settings_are_named(name: str, settings: dict[str, object]) -> None:
    with pytest.raises(BadInput, match=f"^{name}:"):
        DtlsSession(**({"identity": IDENTITY, "key": KEY} | settings))  # type: ignore[arg-type]


def test_only_the_two_suites_and_only_dtls_1_2_are_offered() -> None:
    (hello,) = DtlsSession(IDENTITY, KEY).start(0.0)
    assert len(hello) < 150
    assert hello[13] == 1  # ClientHello
    assert hello[25:27] == b"\xfe\xfd"
    after_random = hello[27 + 32 :]
    assert after_random[:2] == b"\0\0"  # neither session nor cookie
    count = int.from_bytes(after_random[2:4], "big")
    suites = after_random[4 : 4 + count].hex(" ", 2).split()
    assert [s for s in suites if s != "00ff"] == ["c0a8", "00ae"]  # 00ff: RFC 5746's signal


def test_time_runs_out() -> None:
    session = DtlsSession(IDENTITY, KEY, timing=Timing(15.0, 1.0, max_retransmit=0))
    session.start(100.0)
    assert session.deadline == 115.0
    session.sent(103.0)
    assert session.deadline == 118.0
    assert session.timed_out(117.9) == []
    with pytest.raises(NoResponse, match="in 1 transmission"):
        session.timed_out(118.0)
    assert session.closed
    with pytest.raises(DtlsClosed):
        session.feed(b"late", 119.0)


def test_the_first_wait_is_spread() -> None:
    session = DtlsSession(
        IDENTITY, KEY, timing=Timing(10.0, random_factor=1.5), rng=random.Random(7)
    )
    session.start(0.0)
    assert session.deadline == 10.0 * random.Random(7).uniform(1.0, 1.5)


def test_a_flight_is_not_repeated_before_openssl_does() -> None:
    session = DtlsSession(IDENTITY, KEY, timing=Timing(0.05, 1.0))
    session.start(0.0)
    assert session.timed_out(0.05) == []
    assert 0.5 < session.deadline < 1.1
    assert session.retransmissions == 0


def test_nothing_is_sent_before_the_handshake() -> None:
    session = DtlsSession(IDENTITY, KEY)
    with pytest.raises(DtlsError, match="not finished"):
        session.send(b"early")
    session.start(0.0)
    assert session.close() == []
    assert session.close() == []
    assert repr(session) == "<DtlsSession closed>"


# --- with a server ----------------------------------------------------------------------------


@dataclass
class Wire:
    """A UDP socket and a session; ``lose`` and ``heard`` may change what passes."""

    session: DtlsSession
    port: int
    lose_sent: Callable[[int], bool] = lambda number: False
    heard: Callable[[bytes], list[bytes]] = lambda datagram: [datagram]
    copies: int = 1
    sent: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.connect((HOST, self.port))

    def put(self, datagrams: list[bytes]) -> None:
        for datagram in datagrams:
            self.sent.append(datagram)
            if not self.lose_sent(len(self.sent)):
                for _ in range(self.copies):
                    self.socket.send(datagram)
        if datagrams:
            self.session.sent(time.monotonic())

    def get(self, until: float) -> list[bytes]:
        """The plain texts in the next datagram; empty after ``until``, too."""
        left = until - time.monotonic()
        if left <= 0:
            return []
        self.socket.settimeout(left)
        try:
            datagram = self.socket.recv(2048)
        except TimeoutError:
            return []
        texts: list[bytes] = []
        for part in self.heard(datagram):
            texts += self.session.feed(part, time.monotonic())
        self.put(self.session.outgoing())
        return texts

    def shake(self) -> None:
        end = time.monotonic() + 20
        self.put(self.session.start(time.monotonic()))
        while not self.session.established:
            assert time.monotonic() < end
            self.get(self.session.deadline)
            if time.monotonic() >= self.session.deadline:
                self.put(self.session.timed_out(time.monotonic()))

    def await_text(self, seconds: float = 5) -> list[bytes]:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if texts := self.get(end):
                return texts
        return []


@contextmanager
def wire(port: int, session: DtlsSession, **settings: object) -> Iterator[Wire]:
    connection = Wire(session, port, **settings)  # type: ignore[arg-type]
    try:
        yield connection
    finally:
        with suppress(OSError):
            connection.put(session.close())
        connection.socket.close()


def session_of(**settings: object) -> DtlsSession:
    wanted = {"identity": IDENTITY, "key": KEY, "timing": TIMING} | settings
    return DtlsSession(**wanted)  # type: ignore[arg-type]


@requires_openssl
@pytest.mark.parametrize("suite", Suite)
def test_openssl_and_we_talk(suite: Suite) -> None:
    with openssl_server() as server, wire(server.port, session_of(suites=[suite])) as line:
        line.shake()
        assert line.session.suite is suite
        assert line.session.deadline == float("inf")
        server.hear(f"CIPHER is {suite}".encode())
        line.put(line.session.send(b"from us\n"))
        server.hear(b"from us")
        server.say(b"from the server\n")
        assert line.await_text() == [b"from the server\n"]
        line.put(line.session.send(bytes(line.session.max_plaintext)))
        assert MTU - 16 < len(line.sent[-1]) <= MTU
        with pytest.raises(DatagramTooLong):
            line.session.send(bytes(line.session.max_plaintext + 1))
        with pytest.raises(BadInput, match="plaintext"):
            line.session.send(b"")
    assert max(map(len, line.sent)) <= MTU
    with pytest.raises(DtlsClosed):
        line.session.send(b"late")


@requires_coap_gnutls
@pytest.mark.parametrize("suite", Suite)
def test_libcoap_with_gnutls_answers_a_request(suite: Suite) -> None:
    key = b"0123456789abcdef"
    session = session_of(key=key, suites=[suite])
    with coap_server(key) as server, wire(server.port, session) as line:
        line.shake()
        assert line.session.suite is suite
        asked = encode_request(Request(Method.GET, ()), mid=0x1234, token=b"\xab\xcd")
        line.put(line.session.send(asked))
        (text,) = line.await_text()
    answer = decode(text)
    assert (answer.mid, answer.token, code_text(answer.code)) == (0x1234, b"\xab\xcd", "2.05")


@requires_openssl
def test_both_suites_offered_the_short_one_is_taken() -> None:
    with openssl_server() as server, wire(server.port, session_of()) as line:
        line.shake()
        assert line.session.suite is Suite.CCM_8


@requires_openssl
def test_a_server_without_our_suites_refuses() -> None:
    with (
        openssl_server("PSK-AES256-GCM-SHA384") as server,
        wire(server.port, session_of()) as line,
    ):
        with pytest.raises(DtlsRefused, match="handshake failure") as caught:
            line.shake()
        assert caught.value.exit_code == 50
        with pytest.raises(DtlsClosed, match="handshake failure"):
            line.session.send(b"late")


@requires_openssl
def test_a_wrong_key_gets_no_session() -> None:
    timing = Timing(1.05, 1.0, max_retransmit=1)
    session = session_of(key=b"another key", timing=timing)
    with openssl_server() as server, wire(server.port, session) as line:
        with pytest.raises((NoResponse, DtlsRefused)) as caught:
            line.shake()
        assert "secret" in caught.value.hint
        assert not session.established


@requires_openssl
def test_each_flight_of_ours_lost_once() -> None:
    """Flights: ClientHello, ClientHello with cookie, and keys with Finished."""
    with openssl_server() as server:
        lost = {1, 3, 5}
        with wire(server.port, session_of(), lose_sent=lost.__contains__) as line:
            line.shake()
            assert len(line.sent) == 6
            line.put(line.session.send(b"from us\n"))
            server.hear(b"from us")


@requires_openssl
def test_each_answer_lost_once() -> None:
    seen: set[int] = set()

    def lose_first(datagram: bytes) -> list[bytes]:
        kind = datagram[13] if datagram[0] == 22 else datagram[0]
        fresh = kind not in seen
        seen.add(kind)
        return [] if fresh else [datagram]

    with openssl_server() as server, wire(server.port, session_of(), heard=lose_first) as line:
        line.shake()
        assert len(line.sent) > 3
        server.say(b"from the server\n")
        assert line.get(time.monotonic() + 5) == []  # lost, too: DTLS does not mind
        server.say(b"and once more\n")
        assert line.await_text() == [b"and once more\n"]


@requires_openssl
def test_duplicates_and_rubbish_are_ignored() -> None:
    rng = random.Random(1)

    def noisy(datagram: bytes) -> list[bytes]:
        rubbish = [b"", b"\x16", rng.randbytes(60), b"\x16\xfe\xfd" + rng.randbytes(40)]
        bent = datagram[:-1] + bytes([datagram[-1] ^ 1])
        late = [bent] if line.session.established else []  # before, there is no key to tell by
        return [*rubbish, *late, datagram, datagram, *rubbish, datagram[:9]]

    with openssl_server() as server:
        with wire(server.port, session_of(timing=PATIENT), heard=noisy, copies=2) as line:
            line.shake()
            line.copies = 1  # s_server stands still in its read after a duplicate
            line.put(line.session.send(b"from us\n"))
            server.hear(b"from us")
            server.say(b"from the server\n")
            assert line.await_text() == [b"from the server\n"]
            assert line.await_text(0.2) == []
            assert line.session.retransmissions == 0
        assert max(map(len, line.sent)) <= MTU


@requires_openssl
def test_a_slow_network_makes_no_repetitions() -> None:
    """OpenSSL would repeat after 1 s; each answer here comes later than that."""

    def slow(datagram: bytes) -> list[bytes]:
        time.sleep(1.1)
        return [datagram]

    with (
        openssl_server() as server,
        wire(server.port, session_of(timing=PATIENT), heard=slow) as line,
    ):
        line.shake()
        assert len(line.sent) == 3
        line.put(line.session.send(b"from us\n"))
        server.hear(b"from us")


@requires_openssl
def test_a_finished_that_comes_twice_is_not_answered() -> None:
    held: list[bytes] = []

    def hold_first_finished(datagram: bytes) -> list[bytes]:
        if datagram[0] == 20 and not held:  # ChangeCipherSpec, and Finished with it
            held.append(datagram)
            return []
        return [datagram]

    with (
        openssl_server() as server,
        wire(server.port, session_of(), heard=hold_first_finished) as line,
    ):
        line.shake()
        before = len(line.sent)
        assert line.session.feed(held[0], time.monotonic()) == []
        assert line.session.outgoing() == []
        assert line.await_text(0.3) == []
        assert len(line.sent) == before
        server.say(b"from the server\n")
        assert line.await_text() == [b"from the server\n"]


@requires_coap_gnutls
def test_the_server_closes() -> None:
    key = b"0123456789abcdef"
    with coap_server(key) as server, wire(server.port, session_of(key=key)) as line:
        line.shake()
        server.process.send_signal(signal.SIGINT)
        with pytest.raises(DtlsClosed, match="the server closed"):
            line.await_text()
        assert line.session.closed
        assert line.session.close() == []
