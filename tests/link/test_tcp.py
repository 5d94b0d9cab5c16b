"""``socket://``: connecting, and what only TCP can do wrong."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from nbiot.errors import BadInput, PortError, PortLost, PortMissing
from nbiot.link import open_link, tcp
from tests.link.far import Ear, SocketFar
from tests.link.ser2net import free_port, requires_ser2net, ser2net


@pytest.fixture
async def far(tmp_path: Path) -> AsyncIterator[SocketFar]:
    far = SocketFar(tmp_path)
    yield far
    far.destroy()


SCHEMES = pytest.mark.parametrize("scheme", ["socket", "rfc2217"])


@SCHEMES
async def test_nobody_listens(scheme: str) -> None:
    port = free_port()
    with pytest.raises(PortMissing, match=f"nothing listens at 127.0.0.1:{port}") as caught:
        await open_link(f"{scheme}://127.0.0.1:{port}")
    assert "ser2net" in caught.value.hint


@SCHEMES
async def test_no_such_host(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(PortMissing, match=r"no address of pi\.invalid .Name or service") as caught:
        await open_link(f"{scheme}://pi.invalid:2000")
    assert "IP address" in caught.value.hint


async def test_dns_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp, "CONNECT_LIMIT", 0.02)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(0.1))
    with pytest.raises(PortError, match="no answer from DNS about pi"):
        await open_link("socket://pi.invalid:2000")


async def test_host_that_does_not_answer(far: SocketFar, monkeypatch: pytest.MonkeyPatch) -> None:
    """A listener whose queue is full answers nobody."""
    before = os.listdir("/proc/self/fd")
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        where = full.getsockname()
        waiting = [socket.create_connection(where)]
        monkeypatch.setattr(tcp, "CONNECT_LIMIT", 0.05)
        with pytest.raises(PortError, match=r"no answer within 0\.05 s") as caught:
            await open_link(f"socket://127.0.0.1:{where[1]}")
        waiting[0].close()
    assert not isinstance(caught.value, PortMissing)
    assert "ping 127.0.0.1" in caught.value.hint
    assert os.listdir("/proc/self/fd") == before


async def test_next_address_is_tried(far: SocketFar, monkeypatch: pytest.MonkeyPatch) -> None:
    """localhost is ::1 first on many machines, where ser2net may not listen."""
    real = socket.getaddrinfo
    nobody = free_port()

    def two(host: str, port: int, *args: object, **options: object) -> list[object]:
        assert host == "pi.invalid"
        return [
            found
            for number in (nobody, port)
            for found in real("127.0.0.1", number, type=socket.SOCK_STREAM)
        ]

    monkeypatch.setattr(socket, "getaddrinfo", two)
    link = await open_link(f"socket://pi.invalid:{far.port}")
    assert link.name == f"socket://pi.invalid:{far.port}"
    await link.close()


async def test_cancelled_open_leaks_nothing(far: SocketFar) -> None:
    before = os.listdir("/proc/self/fd")
    for turns in range(6):
        opening = asyncio.ensure_future(open_link(f"socket://127.0.0.1:{far.port}"))
        for _ in range(turns * 10):
            await asyncio.sleep(0.0002)
        opening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await (await opening).close()
    await asyncio.sleep(0.01)
    assert os.listdir("/proc/self/fd") == before


@SCHEMES
@pytest.mark.parametrize("place", ["", "host", "host:", "host:0", "host:70000", "host:x", ":2000"])
@pytest.mark.parametrize("before", ["//", "//user@", "//[::1", ""])
async def test_bad_url(scheme: str, before: str, place: str) -> None:
    with pytest.raises(BadInput, match=f"{scheme}://HOST:PORT"):
        await open_link(f"{scheme}:{before}{place}")


@SCHEMES
@pytest.mark.parametrize("rest", ["//user@host:2000", "//host:2000/path", "host:2000"])
async def test_url_with_too_much(scheme: str, rest: str) -> None:
    with pytest.raises(BadInput, match=f"{scheme}://HOST:PORT"):
        await open_link(f"{scheme}:{rest}")


async def test_bad_option() -> None:
    with pytest.raises(BadInput, match="ign_set_control"):
        await open_link("rfc2217://host:2000?ignore")
    with pytest.raises(BadInput, match="logging"):
        await open_link("socket://host:2000?timeout=1")
    for seconds in ("0", "-1", "nan", "61", "soon"):
        with pytest.raises(BadInput, match="timeout=SECONDS"):
            await open_link(f"rfc2217://host:2000?timeout={seconds}")


async def test_ipv6() -> None:
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no IPv6")
    with listener:
        port = listener.getsockname()[1]
        link = await open_link(f"socket://[::1]:{port}")
        await link.close()
    with pytest.raises(PortMissing, match=rf"nothing listens at \[::1\]:{port}"):
        await open_link(f"socket://[::1]:{port}")


async def test_socket_options(far: SocketFar) -> None:
    """Small segments leave at once; the kernel asks a silent peer whether it still lives."""
    link = await far.open()
    transport = link._transport  # type: ignore[attr-defined]
    option = transport.get_extra_info("socket").getsockopt
    assert option(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert option(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert option(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 10
    assert option(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000
    await link.close()


TCP_REPAIR = 19  # linux/tcp.h; Python has no name for it


async def test_peer_that_died_in_silence(far: SocketFar, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that lost its power says nothing. Its connection is gone when it is back."""
    monkeypatch.setattr(tcp, "IDLE_BEFORE_PROBE", 1)
    link = await far.open()
    ear = Ear()
    link.start(ear)
    assert far.peer is not None
    try:
        far.peer.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    except PermissionError:
        await link.close()
        pytest.skip("only root can let a connection end in silence (TCP_REPAIR)")
    far.peer.close()
    await asyncio.sleep(0.1)
    assert not ear.losses
    await ear.until(lambda: bool(ear.losses), limit=2)
    await link.close()


async def test_reset_by_the_peer_tells_why(far: SocketFar) -> None:
    link = await far.open()
    ear = Ear()
    link.start(ear)
    link.write(b"AT\r")
    await asyncio.sleep(0.01)
    far.hang_up()  # with bytes unread: the kernel sends RST
    await ear.until(lambda: bool(ear.losses))
    assert "Connection reset by peer" in str(ear.losses[0])
    assert "ser2net" in ear.losses[0].hint
    await link.close()


async def test_bytes_before_start_are_bounded(far: SocketFar) -> None:
    link = await far.open()
    sent = 0
    async with asyncio.timeout(5):
        while True:
            try:
                sent += far.peer.send(b"x" * 65536)  # type: ignore[union-attr]
            except BlockingIOError:
                await asyncio.sleep(0.05)
                try:
                    sent += far.peer.send(b"x")  # type: ignore[union-attr]
                except BlockingIOError:
                    break
            await asyncio.sleep(0)
    assert len(b"".join(link._early)) < 512 * 1024  # type: ignore[attr-defined]
    ear = Ear()
    link.start(ear)
    await ear.until(lambda: len(ear.data) == sent)
    await link.close()


async def test_stalled_peer_is_reset_at_close(far: SocketFar) -> None:
    """An orderly end would stand in line behind bytes that nobody takes."""
    link = await far.open()
    link.start(Ear())
    link.write(b"x" * 65536)
    await asyncio.sleep(0.01)
    assert link._transport.get_write_buffer_size()  # type: ignore[attr-defined]
    await link.close()
    with pytest.raises(ConnectionResetError):
        await far.take(65536)


async def test_what_was_written_before_close_arrives(far: SocketFar) -> None:
    link = await far.open()
    link.start(Ear())
    link.write(b"AT+CFUN=0\r")
    await link.close()
    assert await far.take(10) == b"AT+CFUN=0\r"


@pytest.mark.parametrize("greeting", ["fffb03fffd03fffb00", "fffd2c", "fffb01"])
async def test_telnet_is_told(far: SocketFar, greeting: str) -> None:
    link = await far.open()
    ear = Ear()
    link.start(ear)
    far.send(bytes.fromhex(greeting))
    await ear.until(lambda: bool(ear.losses))
    assert "RFC 2217 port" in ear.losses[0].message
    assert f"rfc2217://127.0.0.1:{far.port}" in ear.losses[0].hint
    assert not ear.data
    with pytest.raises(PortLost, match="rfc2217://"):
        link.write(b"AT\r")
    await link.close()


async def test_noise_is_no_telnet(far: SocketFar) -> None:
    link = await far.open()
    ear = Ear()
    link.start(ear)
    noise = [b"\xff\xfb", b"\xff\xfb\x03", b"\xff\xff\xfd"]
    for piece in noise:
        far.send(piece)
        await asyncio.sleep(0.005)
    await ear.until(lambda: len(ear.data) == 8)
    assert ear.data == b"".join(noise)
    await link.close()


@requires_ser2net
async def test_ser2net_speaks_telnet_first(tmp_path: Path) -> None:
    master, slave = os.openpty()
    with ser2net(tmp_path, os.ttyname(slave)) as (port, _):
        link = await open_link(f"socket://127.0.0.1:{port}")
        ear = Ear()
        link.start(ear)
        await ear.until(lambda: bool(ear.losses))
        await link.close()
    os.close(master)
    os.close(slave)
    assert "use rfc2217://" in str(ear.losses[0]).lower()


@requires_ser2net
async def test_bare_bytes_of_ser2net(tmp_path: Path) -> None:
    master, slave = os.openpty()
    with ser2net(tmp_path, os.ttyname(slave), accepter="") as (port, _):
        link = await open_link(f"socket://127.0.0.1:{port}")
        ear = Ear()
        link.start(ear)
        data = bytes(range(256))
        link.write(data)
        await asyncio.sleep(0.05)
        assert os.read(master, 1000) == data
        os.write(master, data)
        await ear.until(lambda: len(ear.data) == 256)
        await link.close()
    os.close(master)
    os.close(slave)
    assert ear.data == data
