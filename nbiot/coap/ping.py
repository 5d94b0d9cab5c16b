"""A CoAP ping: is anything that speaks CoAP there? (RFC 7252, 4.3)"""

from __future__ import annotations

import asyncio
import secrets

from aiocoap.numbers.types import Type

from nbiot.coap.message import decode, encode_empty
from nbiot.errors import BadDatagram, NoResponse
from nbiot.profile import Release, UdpSocket


async def ping(socket: UdpSocket, *, tries: int, seconds: float) -> float:
    """The round trip in seconds. Each of ``tries`` waits ``seconds``. Raises NoResponse."""
    loop = asyncio.get_running_loop()
    for _ in range(tries):
        mid = secrets.randbits(16)
        begin = loop.time()
        await socket.send(encode_empty(Type.CON, mid), Release.AFTER_REPLY)
        while (left := begin + seconds - loop.time()) > 0:
            try:
                data = await socket.receive(left)
            except TimeoutError:
                break
            if _answers(data, mid):
                return loop.time() - begin
    raise NoResponse(f"no answer to {tries} pings of {seconds:g} s")


def _answers(data: bytes, mid: int) -> bool:
    try:
        message = decode(data)
    except BadDatagram:
        return False
    return message.mid == mid and message.type in (Type.RST, Type.ACK)
