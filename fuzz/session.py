"""A profile at work on a port where anything may come: it ends, with a result or an error of ours.

``bc66|mattach|<\\r\\nOK\\r\\n|+\\r\\n+CEREG: 1\\r\\n`` - profile; ``m`` what to do (see METHODS);
``<`` what the modem says to the next thing written, ``+`` what it adds a second later, ``r`` and
``R`` the same but in pieces of three bytes. When nothing is left to say, it is silent.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address
from typing import Any

from nbiot.at import Dialect
from nbiot.channel import Channel
from nbiot.coap.client import Identifiers, UdpClient
from nbiot.coap.exchange import Timing
from nbiot.coap.message import Method, Request
from nbiot.errors import NbiotError
from nbiot.link.memory import MemoryLink
from nbiot.modem import Modem, chosen_profiles
from nbiot.profile import NativeRequest, Profile, Progress
from tests.virtualtime import VirtualTimeLoop

from .script import PROFILES, chosen, fields

PEER = ("192.0.2.1", 5683)
NATIVE = NativeRequest(*PEER, 2, ("auth", "pk", "dk"), b"{}", 77, b"ab", 9999)
LONGEST = 24 * 3600.0  # s of the modem's time
TRIES = 2000  # things written


def _report(progress: Progress) -> None:
    str(progress)


async def _address(profile: Profile) -> None:
    address = await profile.address()
    assert address is None or IPv4Address(address)


async def _resolve(profile: Profile) -> None:
    if profile.has_dns:
        IPv4Address(await profile.resolve("coap.example"))


async def _udp(profile: Profile) -> None:
    async with await profile.udp(*PEER) as socket:
        await socket.send(b"ping")
        for _ in range(3):
            datagram = await socket.receive(5.0)
            assert isinstance(datagram, bytes)
            assert len(datagram) <= 8192


async def _coap(profile: Profile) -> None:
    request = Request(Method.POST, ("auth", "pk", "dk"), b"{}")
    async with await profile.udp(*PEER) as socket:
        client = UdpClient(socket, _Fixed(), Timing(max_retransmit=1, random_factor=1), _report)
        response = await client.request(request)
    assert response.code[0] in "245"
    assert response.stats.datagrams_down >= 1


async def _native(profile: Profile) -> None:
    if profile.has_native_coap:
        response = await profile.native_coap(NATIVE, 30.0)
        assert isinstance(response.code, str)
        assert isinstance(response.payload, bytes)


async def _identify(profile: Profile) -> None:
    modem = Modem("memory", model=profile.name)
    modem._profiles = chosen_profiles(profile.name)  # as entering it does
    modem.channel = profile.channel
    profile.channel.dialect = Dialect.union(known.dialect for known in PROFILES.values())
    identity, text = await modem._identify()
    assert issubclass(modem._matching(text), Profile)
    assert all(isinstance(v, str) for v in (identity.manufacturer, identity.model))


async def _signal(profile: Profile) -> None:
    str(await profile.signal())


class _Fixed(Identifiers):
    """Message id and token of the datagrams in the corpus."""

    def next(self) -> tuple[int, bytes]:
        return 0x4D49, b"Tk"


METHODS: dict[bytes, Callable[[Any], Awaitable[object]]] = {
    b"identify": _identify,
    b"prepare": lambda profile: profile.prepare(),
    b"imei": lambda profile: profile.imei(),
    b"imsi": lambda profile: profile.imsi(),
    b"iccid": lambda profile: profile.iccid(),
    b"sim": lambda profile: profile.check_sim(),
    b"signal": _signal,
    b"registration": lambda profile: profile.registration(),
    b"address": _address,
    b"apn": lambda profile: profile.set_apn("iot.example", _report),
    b"attach": lambda profile: profile.attach("iot.example", 60.0, _report),
    b"reboot": lambda profile: profile.reboot(),
    b"resolve": _resolve,
    b"udp": _udp,
    b"coap": _coap,
    b"native": _native,
}
TOKENS = (
    *(b"%b|m%b|<" % (name, method) for name in PROFILES for method in METHODS),
    *(b"|<\r\nOK\r\n", b"|<", b"|+", b"|r", b"|R", b"\r\nOK\r\n", b"\r\nERROR\r\n"),
    *(b"|<\r\n+CME ERROR: 50\r\n", b"|<\r\n+CFUN:1\r\n\r\nOK\r\n", b"\r\nSEND OK\r\n"),
    *(b"|<\r\n+CSQ:18,99\r\n\r\nOK\r\n", b"|<\r\n+CEREG:0,1\r\n\r\nOK\r\n", b"|<\r\n> "),
    *(b"|+\r\nREBOOT_CAUSE_APPLICATION_AT\r\nNeul \r\nOK\r\n", b"|+\n\rLeaving the BROM\n\r"),
    *(b'|+\r\n+QIURC: "recv",0,4\r\nping\r\n', b"\r\n+NSONMI:1,4\r\n", b"\r\n+QIOPEN: 0,0\r\n"),
)


class FarEnd:
    """What the modem says, from the script."""

    def __init__(self, todo: list[tuple[bytes, bytes]]) -> None:
        self.link = MemoryLink(on_write=self._written)
        self.writes = 0
        self._todo = deque(todo)
        self._timers: list[asyncio.TimerHandle] = []

    def _written(self, _: bytes) -> None:
        self.writes += 1
        if self.writes > TRIES:
            raise AssertionError(f"{TRIES} commands and no end")
        if self._todo:
            self._say(*self._todo.popleft())
            self._soon()

    def _soon(self) -> None:
        if self._todo and self._todo[0][0] in b"+R":
            self._timers.append(asyncio.get_running_loop().call_later(1.0, self._later))

    def _later(self) -> None:
        if self._todo and self._todo[0][0] in b"+R":
            self._say(*self._todo.popleft())
            self._soon()

    def _say(self, letter: bytes, text: bytes) -> None:
        size = 3 if letter in b"rR" else len(text) or 1
        for at in range(0, len(text), size):
            self.link.feed(text[at : at + size])

    def close(self) -> None:
        for timer in self._timers:
            timer.cancel()


async def _run(profile: type[Profile], method: bytes, todo: list[tuple[bytes, bytes]]) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    far = FarEnd(todo)
    channel = Channel(far.link, profile.dialect)
    try:
        async with asyncio.timeout(LONGEST) as limit:
            await chosen(METHODS, method)(profile(channel))
    except NbiotError as error:
        str(error)
    except TimeoutError:
        assert not limit.expired(), f"no end within {LONGEST:g} s"
    finally:
        far.close()
        await channel.close()
    assert loop.time() - began < LONGEST


def one(data: bytes) -> None:
    """See the top of this file."""
    name, todo = fields(data)
    method = todo.pop(0)[1] if todo and todo[0][0] == b"m" else b""
    todo = [(letter, text) for letter, text in todo if letter in (b"<", b"+", b"r", b"R")]
    loop = VirtualTimeLoop()
    try:
        loop.run_until_complete(_run(chosen(PROFILES, name), method, todo))
        assert not loop.problems, loop.problems
        assert not asyncio.all_tasks(loop), "tasks left over"
        left = [timer for timer in loop._scheduled if not timer.cancelled()]  # type: ignore[attr-defined]
        assert not left, f"timers left over: {left}"
    finally:
        loop.close()
