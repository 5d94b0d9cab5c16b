"""Authentication of a device, and the answer in plain words.

``POST /auth/{ProductKey}/{DeviceKey}`` with ``{"secureMode":2,"lifetime":...,"sign":"..."}``.
Source: EnOS documentation, "CoAP-based Connection and Communication (Non-DTLS)". Undocumented there
and decided here: the code of a success (any 2.xx is taken), no Content-Format unless asked for,
numbers for secureMode and lifetime.
"""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from nbiot.enos.limits import PROCESS_LIMIT, AuthLimit
from nbiot.errors import AuthRefused, BadInput, ServerFault, Unsupported
from nbiot.profile import Progress
from nbiot.signing import (
    SECURE_MODE,
    Signer,
    check_device_key,
    check_lifetime,
    check_product_key,
)

if TYPE_CHECKING:
    from nbiot.coap.client import Client, Identifiers
    from nbiot.coap.exchange import Timing
    from nbiot.coap.message import Request, Response
    from nbiot.modem import Modem, Resolved

COAP_PORT = 5683
DEFAULT_LIFETIME = 3600
COMMAND_OPTIONS = (2100, 2102)  # topic and payload of a command that EnOS has for the device

Path = Literal["udp", "native"]


@dataclass(frozen=True, slots=True)
class Server:
    """Where the EnOS CoAP server is. ``host``: a name or an IPv4 address. ``port``: 1 to 65535."""

    secure: ClassVar[bool] = False
    host: str
    port: int = COAP_PORT

    def __post_init__(self) -> None:
        _check_host("server", self.host)
        if type(self.port) is not int or not 1 <= self.port <= 65535:
            raise BadInput("server", self.port, "a port from 1 to 65535")

    @classmethod
    def of_enos(cls, hostname: str) -> Server:
        """``coap-<hostname>`` of an EnOS environment, e.g. ``abc.def.com``."""
        host = hostname.removeprefix("https://").removeprefix("http://").removesuffix("/")
        if host.lower().startswith("coap-") or ":" in host or _numeric(host):
            raise BadInput(
                "enos",
                hostname,
                "the host name of an EnOS environment, such as abc.def.com",
                hint="For another server, or another port, use --server HOST[:PORT].",
            )
        _check_host("enos", host)
        return cls(f"coap-{host}")

    @classmethod
    def parse(cls, text: str) -> Server:
        """``HOST`` or ``HOST:PORT``."""
        rest = text.removeprefix("coap://").removesuffix("/")
        host, colon, port = rest.rpartition(":") if rest.count(":") == 1 else (rest, "", "")
        if not colon:
            return cls(rest)
        if not re.fullmatch(r"[0-9]{1,5}", port):
            raise BadInput("server", text, "HOST or HOST:PORT, with a port from 1 to 65535")
        return cls(host, int(port))

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def _check_host(name: str, host: str) -> None:
    if _numeric(host):
        try:
            IPv4Address(host)
        except ValueError as error:
            raise BadInput(name, host, f"an IPv4 address ({error})") from None
    if not re.fullmatch(r"(?=.{1,247}$)[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})*", host, re.ASCII):
        raise BadInput(
            name, host, "a host name or an IPv4 address (the modems' sockets know no IPv6)"
        )


def _numeric(host: str) -> bool:
    """Does ``host`` look like an IPv4 address? No name ends in a label of digits (RFC 3696, 2)."""
    return host.rpartition(".")[2].isdigit()


@dataclass(frozen=True, slots=True)
class Device:
    """A device as EnOS knows it. The device key is often the modem's IMEI.

    ``lifetime``: seconds without traffic after which EnOS calls the device offline, 30 to 86400.
    """

    product_key: str
    device_key: str
    signer: Signer = field(repr=False)
    lifetime: int = DEFAULT_LIFETIME

    def __post_init__(self) -> None:
        check_product_key(self.product_key)
        check_device_key(self.device_key)
        check_lifetime(self.lifetime)


@dataclass(frozen=True, slots=True)
class AuthResult:
    """A device is authenticated.

    bytes_up, bytes_down: CoAP datagrams, without IP and UDP headers (28 bytes each); None where
    only the modem knows. round_trip: seconds. at_round_trips, serial_bytes: what the exchange took
    on the serial line, both ways.
    """

    code: str
    product_key: str
    device_key: str
    lifetime: int
    server: str
    address: str
    resolved_by: str
    path: Path
    round_trip: float
    bytes_up: int | None
    bytes_down: int | None
    retransmissions: int
    at_round_trips: int
    serial_bytes: int
    commands_waiting: bool

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


def auth_payload(device: Device) -> bytes:
    """The signed payload: compact JSON, numbers for secureMode and lifetime."""
    body = {
        "secureMode": SECURE_MODE,
        "lifetime": device.lifetime,
        "sign": device.signer.sign(
            device.product_key, device.device_key, device.lifetime, SECURE_MODE
        ),
    }
    return json.dumps(body, separators=(",", ":")).encode()


def auth_request(device: Device, content_format: int | None = None) -> Request:
    """``POST /auth/{pk}/{dk}``. May block: a signer may ask a remote one."""
    from nbiot.coap.message import Method, Request

    path = ("auth", device.product_key, device.device_key)
    return Request(Method.POST, path, auth_payload(device), content_format)


async def authenticate(
    modem: Modem,
    device: Device,
    server: Server,
    *,
    path: Path = "udp",
    timing: Timing | None = None,
    content_format: int | None = None,
    resolve_by: str = "auto",
    limit: AuthLimit | None = None,
    identifiers: Identifiers | None = None,
) -> AuthResult:
    """Authenticate ``device`` through an attached modem. One call, one authentication.

    Raises AuthRefused, ServerFault, RateLimited, NoResponse, ResponseReset, NameNotResolved, and
    what the modem raises. The modem's socket is closed whatever happens.
    """
    from nbiot.coap.client import PROCESS_IDENTIFIERS

    if path not in get_args(Path):
        raise BadInput("path", path, " or ".join(get_args(Path)))
    if server.secure:
        raise Unsupported(
            "with DTLS the handshake is the authentication, and it ends with its socket",
            hint="Send something: EnosSession, or `nbiot report`, authenticates by itself.",
        )
    if path == "native" and not modem.profile.has_native_coap:
        raise Unsupported(
            f"{modem.profile.title} has no CoAP client of its own", hint="Use --coap udp."
        )
    request = await asyncio.to_thread(auth_request, device, content_format)
    resolved = await modem.resolve(server.host, by=resolve_by)
    if resolved.by != "given":
        words = f"{server.host} is {resolved.address} (resolved by the {resolved.by})"
        modem.report(Progress("resolved", words, {"address": resolved.address}))
    key = (str(server).lower(), device.product_key, device.device_key)
    await asyncio.to_thread((limit or PROCESS_LIMIT).take, key)
    before = modem.counters
    response = await _exchange(
        modem, request, resolved, server.port, path, timing, identifiers or PROCESS_IDENTIFIERS
    )
    used = modem.counters.since(before)
    if not response.ok:
        raise refusal(response.code, device)
    modem.report(Progress("authenticated", f"authenticated ({response.code})"))
    return AuthResult(
        code=response.code,
        product_key=device.product_key,
        device_key=device.device_key,
        lifetime=device.lifetime,
        server=str(server),
        address=f"{resolved.address}:{server.port}",
        resolved_by=resolved.by,
        path=path,
        round_trip=round(response.stats.round_trip, 4),
        bytes_up=response.stats.up,
        bytes_down=response.stats.down,
        retransmissions=response.stats.retransmissions,
        at_round_trips=used.commands,
        serial_bytes=used.sent + used.received,
        commands_waiting=any(number in COMMAND_OPTIONS for number, _ in response.options),
    )


async def _exchange(
    modem: Modem,
    request: Request,
    resolved: Resolved,
    port: int,
    path: Path,
    timing: Timing | None,
    identifiers: Identifiers,
) -> Response:
    from nbiot.coap.client import NativeClient, UdpClient

    client: Client
    if path == "native":
        client = NativeClient(
            modem.profile, resolved.address, port, identifiers, timing, modem.report
        )
        return await client.request(request)
    async with await modem.udp(str(IPv4Address(resolved.address)), port) as socket:
        client = UdpClient(socket, identifiers, timing, modem.report)
        return await client.request(request)


_REFUSALS = {
    "4.00": (
        "EnOS could not read the request",
        "Check the lifetime (30 to 86400 s); the environment may want Content-Format 50"
        " (--content-format 50).",
    ),
    "4.01": (
        "EnOS does not accept the signature",
        "The signature holds no clock, so time is not the cause: the product key, the device key or"
        " the device secret is wrong, the device is not registered in this environment, or the"
        " lifetime was changed on the way.",
    ),
    "4.03": (
        "EnOS forbids this device to connect",
        "The device may be disabled: look at it in the EnOS console.",
    ),
    "4.04": (
        "EnOS has no such path",
        "Is this the CoAP server of the environment (coap-<hostname>), with plain CoAP (port"
        " 5683)? EnOS 3.x may have no CoAP any more.",
    ),
    "4.05": (
        "EnOS does not allow the method",
        "Something between rewrites the request, or this is no EnOS CoAP server.",
    ),
}


def refusal(code: str, device: Device) -> AuthRefused:
    """The error for response ``code``, saying what to check."""
    who = f"product {device.product_key}, device {device.device_key}"
    if code.startswith("5."):
        return ServerFault(
            f"EnOS failed inside ({code}; {who})",
            code=code,
            hint="Nothing is wrong on this side as far as can be seen; try again in a minute.",
        )
    words, hint = _REFUSALS.get(
        code, ("EnOS refused the authentication", "See RFC 7252, 12.1.2 for the code.")
    )
    return AuthRefused(f"{words} ({code}; {who})", code=code, hint=hint)
