"""What keeps a device online is the cheapest message there is."""

from __future__ import annotations

import pytest

from nbiot.coap.message import Request, encode_request
from nbiot.enos import Device, EnosSession, Server, things
from nbiot.enos.session import EnosCloud
from nbiot.signing import Secret, SecretSigner

SERVER = Server("127.0.0.1")


def cloud(lifetime: int = 3600) -> EnosCloud:
    device = Device("KV315idW", "867726030047601", SecretSigner(Secret("s" * 20)), lifetime)
    return EnosCloud(device, SERVER)


def size(request: Request | None) -> int:
    assert request is not None
    return len(encode_request(request, 1, b"tk"))


def json_messages() -> dict[str, int]:
    """The shortest message of each topic, in bytes."""
    enos = cloud()
    messages = [
        things.query_attributes(["_"]),
        things.query_tags(["_"]),
        things.measurepoints({"_": 0}),
        things.event("_", {}),
    ]
    return {m.topic: size(enos.uplink(m.topic, m.encode("0"))) for m in messages}


def test_an_authentication_and_its_answer_are_shorter_than_any_json_message_and_its() -> None:
    header = len(b"\x62\x44idtk")
    answer = len(b'\xff{"id":"0","code":200,"data":{}}')
    assert cloud().keep_alive() is None  # authenticate again
    assert size(cloud().auth_request()) + header == 150
    assert min(json_messages().values()) + header + answer > 150


@pytest.mark.parametrize("lifetime", [30, 59])
def test_short_lifetimes_do_not_use_the_authentications_up(lifetime: int) -> None:
    assert size(cloud(lifetime).keep_alive()) == min(json_messages().values())


def test_authentications_as_keep_alives_stay_within_four_in_two_minutes() -> None:
    assert 120 / (0.75 * 60) < 4


async def test_a_raw_keep_alive_is_cheaper_than_all() -> None:
    class NoModem:
        recoveries = 0

        async def call(self, operation: object, *, repeat: bool = False) -> None: ...

    session = EnosSession(
        NoModem(),  # type: ignore[arg-type]
        cloud().device,
        SERVER,
        raw_keep_alive=b"\x00",
    )
    assert size(session.cloud.keep_alive()) <= 70 < size(cloud().auth_request())
