"""EnOS's DTLS end for tests: DTLS towards devices, plain CoAP towards the stand-in behind it.

Written from RFC 6347 and EnOS's documentation with OpenSSL's server, and without any of
nbiot/coap/dtls.py. The handshake is the authentication: the front posts /auth to the stand-in for a
device that has shaken hands, and then passes datagrams on, both ways.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from aiocoap import CON, GET, POST, Code, Message
from OpenSSL import SSL
from OpenSSL._util import ffi, lib

HOST = "127.0.0.1"
SUITES = "PSK-AES128-CCM8:PSK-AES128-CBC-SHA256"
PSK_SERVER = "unsigned int(SSL *, const char *, unsigned char *, unsigned int)"


def enos_key(secret: str) -> bytes:
    """Characters 17 to 48 of the hexadecimal digest, as EnOS's ancestor writes it."""
    return bytes.fromhex(hashlib.sha256(secret.encode()).hexdigest()[16:48])


def signature(pk: str, dk: str, lifetime: int, secret: str) -> str:
    text = f"deviceKey{dk}lifetime{lifetime}productKey{pk}secureMode2{secret}"
    return hashlib.sha256(text.encode()).hexdigest().upper()


@dataclass
class Passed:
    """A datagram that came ("in") or went ("out"), as it was on air."""

    way: str
    data: bytes
    lost: bool = False


class DtlsFront(asyncio.DatagramProtocol):
    """Use it with ``async with``.

    secrets:   of devices (mode 2) by product and device key
    products:  secrets of products (mode 3)
    lose:      called with "in" or "out" and the number of that datagram, from 1; True loses it
    activation: the answer to an activation, if not the documented one
    """

    def __init__(
        self,
        backend: tuple[str, int],
        secrets: dict[tuple[str, str], str],
        products: dict[str, str] | None = None,
        *,
        suites: str = SUITES,
    ) -> None:
        self.backend = backend
        self.secrets = secrets
        self.products = products or {}
        self.suites = suites
        self.lose: Callable[[str, int], bool] = lambda way, number: False
        self.activation: bytes | None = None
        self.associations: dict[Any, Association] = {}
        self.identities: list[str] = []  # of finished handshakes
        self.addresses: list[Any] = []  # and where they came from
        self.goodbyes = 0  # close_notify that came
        self.passed: list[Passed] = []
        self._counts = {"in": 0, "out": 0}

    async def __aenter__(self) -> DtlsFront:
        loop = asyncio.get_running_loop()
        self.transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=(HOST, 0))
        self.host, self.port = self.transport.get_extra_info("sockname")
        return self

    async def __aexit__(self, *_: object) -> None:
        self.restart(goodbye=False)
        self.transport.close()
        await asyncio.sleep(0)

    def restart(self, *, goodbye: bool) -> None:
        """Forget all associations, as a server that is started anew."""
        for association in self.associations.values():
            association.end(goodbye)
        self.associations.clear()

    async def joined(self) -> None:
        """Wait until the stand-in knows all devices that have shaken hands."""
        await asyncio.gather(*(task for a in self.associations.values() for task in a.tasks))

    def datagram_received(self, data: bytes, address: Any) -> None:
        if self._passes("in", data):
            if address not in self.associations:
                if data[0] != 22 or data[13] != 1:  # no ClientHello: nobody's
                    return
                self.associations[address] = Association(self, address)
            self.associations[address].datagram(data)

    def send(self, data: bytes, address: Any) -> None:
        if self._passes("out", data):
            self.transport.sendto(data, address)

    def _passes(self, way: str, data: bytes) -> bool:
        self._counts[way] += 1
        lost = self.lose(way, self._counts[way])
        self.passed.append(Passed(way, data, lost))
        return not lost


@dataclass
class Association:
    """One device's, from its first ClientHello on."""

    front: DtlsFront
    address: Any
    identity: str = ""
    up: bool = False
    waiting: list[bytes] = field(default_factory=list)
    backend: asyncio.DatagramTransport | None = None
    timer: asyncio.TimerHandle | None = None
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        context = SSL.Context(SSL.DTLS_SERVER_METHOD)
        context.set_cipher_list(f"{self.front.suites}:@SECLEVEL=0".encode())
        context.set_options(SSL.OP_NO_QUERY_MTU | SSL.OP_NO_TICKET | SSL.OP_COOKIE_EXCHANGE)
        cookie = hmac.digest(b"cookie", repr(self.address).encode(), "sha256")
        context.set_cookie_generate_callback(lambda _: cookie)
        context.set_cookie_verify_callback(lambda _, given: given == cookie)
        self.callback = ffi.callback(PSK_SERVER, self.key)
        lib.SSL_CTX_set_psk_server_callback(context._context, self.callback)
        self.dtls = SSL.Connection(context, None)
        self.dtls.set_ciphertext_mtu(1200)
        self.dtls.set_accept_state()

    def key(self, _: Any, identity: Any, room: Any, size: int) -> int:
        self.identity = ffi.string(identity).decode()
        pk, dk, mode, _lifetime = self.identity.split(",")
        secret = self.front.secrets.get((pk, dk)) if mode == "2" else self.front.products.get(pk)
        if secret is None:
            return 0
        ffi.memmove(room, enos_key(secret), 16)
        return 16

    # --- towards the device -----------------------------------------------------------------

    def datagram(self, data: bytes) -> None:
        self.dtls.bio_write(data)
        try:
            if not self.up:
                self.dtls.do_handshake()
                self.established()
            while True:
                self.from_device(self.dtls.recv(16384))
        except SSL.WantReadError:
            pass
        except SSL.ZeroReturnError:
            self.front.goodbyes += 1
            self.leave()
        except SSL.Error:
            self.leave()
        self.flush()
        self.set_timer()

    def leave(self) -> None:
        self.flush()
        self.front.associations.pop(self.address, None)
        self.end(goodbye=False)

    def end(self, goodbye: bool) -> None:
        if goodbye and self.up:
            with suppress(SSL.Error):
                self.dtls.shutdown()
            self.flush()
        if self.timer is not None:
            self.timer.cancel()
        if self.backend is not None:
            self.backend.close()
        for task in self.tasks:
            task.cancel()

    def flush(self) -> None:
        """Each record in a datagram of its own."""
        with suppress(SSL.WantReadError):
            while True:
                data = self.dtls.bio_read(65536)
                while data:
                    size = 13 + int.from_bytes(data[11:13], "big")
                    self.front.send(data[:size], self.address)
                    data = data[size:]

    def set_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
        left = None if self.up else self.dtls.DTLSv1_get_timeout()
        if left is not None:
            self.timer = asyncio.get_running_loop().call_later(left, self.again)

    def again(self) -> None:
        with suppress(SSL.Error):
            self.dtls.DTLSv1_handle_timeout()
        self.flush()
        self.set_timer()

    def to_device(self, data: bytes) -> None:
        self.dtls.send(data)
        self.flush()

    # --- towards the stand-in ---------------------------------------------------------------

    def established(self) -> None:
        self.up = True
        self.front.identities.append(self.identity)
        self.front.addresses.append(self.address)
        if ",2," in self.identity:
            task = asyncio.get_running_loop().create_task(self.join())
            self.tasks.add(task)

    def from_device(self, data: bytes) -> None:
        if ",3," in self.identity:
            self.activate(Message.decode(data))
        elif self.backend is None:
            self.waiting.append(data)
        else:
            self.backend.sendto(data)

    async def join(self) -> None:
        """Authenticate the device with the stand-in, which knows nothing of DTLS."""
        pk, dk, mode, lifetime = self.identity.split(",")
        sign = signature(pk, dk, int(lifetime), self.front.secrets[pk, dk])
        body = {"secureMode": int(mode), "lifetime": int(lifetime), "sign": sign}
        message = Message(code=POST, payload=json.dumps(body).encode())
        message.opt.uri_path = ("auth", pk, dk)
        message.mtype, message.mid, message.token = CON, 1, b"front"
        behind = Behind(self)
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: behind, remote_addr=self.front.backend
        )
        try:
            transport.sendto(message.encode())
            await behind.authenticated.wait()
        except BaseException:
            transport.close()
            raise
        self.backend = transport
        for data in self.waiting:
            transport.sendto(data)
        self.waiting.clear()

    def activate(self, asked: Message) -> None:
        pk, dk, _mode, _lifetime = self.identity.split(",")
        path = ("topic", "ext", "session", pk, dk, "thing", "activate", "info")
        right = asked.code is GET and asked.opt.uri_path == path
        params = {"assetId": "a1", "productKey": pk, "deviceKey": dk}
        params["deviceSecret"] = self.front.secrets.get((pk, dk), "")
        method = "thing.activate.info"
        body = {"id": "1", "version": "1.0", "method": method, "params": params}
        payload = self.front.activation or json.dumps(body).encode()
        answer = Message(code=Code.CONTENT if right else Code.NOT_FOUND)
        answer.payload = payload if right else b""
        answer.mtype, answer.mid, answer.token = 2, asked.mid, asked.token
        self.to_device(answer.encode())


class Behind(asyncio.DatagramProtocol):
    """The socket on which the stand-in knows one device."""

    def __init__(self, association: Association) -> None:
        self.association = association
        self.authenticated = asyncio.Event()

    def datagram_received(self, data: bytes, _: Any) -> None:
        if self.authenticated.is_set():
            self.association.to_device(data)
        elif Message.decode(data).code.is_successful():
            self.authenticated.set()
