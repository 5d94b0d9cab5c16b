"""DTLS servers that others wrote, as processes: OpenSSL's, and libcoap's with GnuTLS."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import pytest

from nbiot.coap.dtls import Suite

HOST = "127.0.0.1"
IDENTITY = "KV315idW,tPbZGCdmaE,2,3600"
KEY = bytes.fromhex("43E307FFFCE19A0176803DE3445FE0E3")

requires_openssl = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="openssl is missing: Debian package openssl"
)
requires_coap_gnutls = pytest.mark.skipif(
    shutil.which("coap-server-gnutls") is None,
    reason="coap-server-gnutls is missing: Debian package libcoap3-bin",
)


@dataclass
class Server:
    port: int
    process: subprocess.Popen[bytes]

    def say(self, line: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line)
        self.process.stdin.flush()

    def hear(self, wanted: bytes) -> None:
        """Read until a line with ``wanted``; the test's time limit is that of the server."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if wanted in line:
                return
        raise AssertionError(f"the server did not say {wanted!r}")


@contextmanager
def started(words: list[str], bound: str, port: int | None = None) -> Iterator[Server]:
    process = subprocess.Popen(
        ["timeout", "60", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if found := re.search(bound, line.decode(errors="replace")):
                yield Server(port or int(found[1]), process)
                break
        else:
            raise RuntimeError(f"{words[0]} ended before it was bound")
    finally:
        process.terminate()
        process.wait()
        with suppress(BrokenPipeError):
            process.stdin.close()
        process.stdout.close()


@contextmanager
def openssl_server(suites: str = "", key: bytes = KEY) -> Iterator[Server]:
    """``openssl s_server``: its standard input is sent, what it receives is printed."""
    names = suites or ":".join([*Suite, "@SECLEVEL=0"])
    words = ["openssl", "s_server", "-dtls1_2", "-accept", f"{HOST}:0", "-nocert"]
    words += ["-psk", key.hex(), "-psk_identity", IDENTITY, "-psk_hint", "EnOS"]
    with started([*words, "-cipher", names], r"ACCEPT [\d.]+:(\d+)") as server:
        yield server


@contextmanager
def coap_server(key: bytes) -> Iterator[Server]:
    """libcoap takes its key as text and puts DTLS one port above CoAP, so port 0 will not do."""
    for _ in range(20):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind((HOST, 0))
            port = probe.getsockname()[1]
        words = ["coap-server-gnutls", "-A", HOST, "-p", str(port - 1), "-v", "7"]
        words += ["-h", "EnOS", "-k", key.decode()]
        with suppress(RuntimeError), started(words, r"created DTLS endpoint \S+:(\d+)") as server:
            assert server.port == port
            yield server
            return
    raise RuntimeError("coap-server-gnutls found no free pair of ports")
