"""The session for scripts without asyncio, against a software modem in a process of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from hil.cloud import Cloud, CommandState
from nbiot.coap.exchange import Timing
from nbiot.enos import AuthLimit, Device, Server
from nbiot.enos.blocking import BlockingEnosSession
from nbiot.errors import AuthRefused, BadInput
from nbiot.signing import Secret, SecretSigner
from tests.background import BackgroundLoop

from .conftest import IMEI, PRODUCT_KEY, SECRET

PORT = f"emulator:bc66?attached=1&speed=100&imei={IMEI}"


@pytest.fixture
def cloud() -> Iterator[tuple[Cloud, BackgroundLoop]]:
    with BackgroundLoop() as loop:
        cloud = Cloud({(PRODUCT_KEY, IMEI): SECRET})
        loop.run(cloud.start())
        yield cloud, loop
        loop.run(cloud.stop())


def session(cloud: Cloud, secret: str = SECRET, **options: Any) -> BlockingEnosSession:
    device = Device(PRODUCT_KEY, IMEI, SecretSigner(Secret(secret)))
    options = {"timing": Timing(ack_timeout=0.5), "limit": AuthLimit()} | options
    return BlockingEnosSession(PORT, device, Server(cloud.host, cloud.port), **options)


@contextmanager
def no_thread_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    until = time.monotonic() + 2
    while set(threading.enumerate()) - before and time.monotonic() < until:
        time.sleep(0.01)
    assert set(threading.enumerate()) <= before


def test_a_script_reports_reads_and_answers_commands(cloud: Any) -> None:
    server, loop = cloud
    with no_thread_left(), session(server) as enos:
        enos.report({"t": 21.5})
        enos.update_attributes({"place": "roof"})
        assert enos.attributes(["place"]).data == {"place": "roof"}
        with pytest.raises(BadInput):
            enos.report({"t": float("inf")})

        threads: list[str] = []

        def turn(command: Any) -> dict[str, Any]:
            threads.append(threading.current_thread().name)
            return {"was": command.params}

        enos.handle("service", turn, name="turn")
        command = loop.call(
            lambda: server.send_command(PRODUCT_KEY, IMEI, "thing/service/turn", {"to": 1})
        )
        enos.report({"t": 22})
        enos.settled()
        assert command.state is CommandState.SUCCESS
        assert command.replies[0].data == {"was": {"to": 1}}
        assert threads[0] != "EnOS session"  # a slow handler must not stop the loop

        assert list(enos.commands(seconds=0.01)) == []  # from now on they are iterated
        command = loop.call(lambda: server.send_command(PRODUCT_KEY, IMEI, "set", {"t": 5}))
        enos.report({"t": 23})
        for asked in enos.commands(seconds=5):
            assert asked.params == {"t": 5}
            asked.reply({})
            break
        assert command.state is CommandState.SUCCESS


def test_a_refusal_on_entry_ends_the_thread(cloud: Any) -> None:
    server, _ = cloud
    with no_thread_left(), pytest.raises(AuthRefused), session(server, "another-secret-than-1"):
        raise AssertionError("not to be entered")
