"""EnOS over DTLS: where, who, and a device's first contact (dynamic activation).

Source: EnOS documentation, "CoAP-based Connection and Communication (DTLS)". Not documented there
and assumed here: that the handshake is the whole authentication, since identity and key hold all
that POST /auth would say. See docs/enos-dtls.md.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from nbiot.coap.client import PROCESS_IDENTIFIERS, Identifiers, UdpClient
from nbiot.coap.dtls import DtlsRefused, Suite
from nbiot.coap.dtls_socket import DtlsSocket, secure
from nbiot.coap.message import Method, Request
from nbiot.enos.auth import DEFAULT_LIFETIME, Server
from nbiot.enos.limits import PROCESS_LIMIT, AuthLimit
from nbiot.errors import (
    AuthRefused,
    BadInput,
    BadReply,
    RequestRefused,
    SecretUnavailable,
    Unsupported,
)
from nbiot.profile import Report, UdpSocket, silent
from nbiot.session import carrier_of
from nbiot.signing import (
    PskHolder,
    Secret,
    SecretSigner,
    Signer,
    check_device_key,
    check_lifetime,
    check_product_key,
    secret_from,
)

if TYPE_CHECKING:
    from nbiot.coap.exchange import Timing
    from nbiot.modem import Modem
    from nbiot.session import Carrier

DTLS_PORT = 5684
PER_DEVICE, PER_PRODUCT = 2, 3
"""Secure modes: the key is made of the device's secret, or of the product's."""

Store = Callable[[Secret], Awaitable[None] | None]


@dataclass(frozen=True, slots=True)
class DtlsServer(Server):
    """Where EnOS's CoAP server listens for DTLS. ``suites``: what is offered to it, best first.

    Give it to EnosSession instead of a Server, and the session is encrypted.
    """

    secure: ClassVar[bool] = True
    port: int = DTLS_PORT
    suites: tuple[Suite, ...] = tuple(Suite)

    def __post_init__(self) -> None:
        Server.__post_init__(self)
        if not self.suites or not all(isinstance(suite, Suite) for suite in self.suites):
            raise BadInput("suites", self.suites, "one or more of Suite")

    @classmethod
    def of_enos(cls, hostname: str) -> DtlsServer:
        """``coap-<hostname>`` of an EnOS environment, e.g. ``abc.def.com``."""
        return cls(Server.of_enos(hostname).host)

    @classmethod
    def parse(cls, text: str) -> DtlsServer:
        """``HOST`` or ``HOST:PORT``, with or without ``coaps://``."""
        rest = text.removeprefix("coaps://")
        if "://" in rest:
            raise BadInput("server", text, "HOST, HOST:PORT, coaps://HOST or coaps://HOST:PORT")
        server = Server.parse(rest)
        return cls(server.host, server.port) if ":" in rest else cls(server.host)


def psk_identity(
    product_key: str, device_key: str, mode: int = PER_DEVICE, lifetime: int = DEFAULT_LIFETIME
) -> str:
    """How a device names itself in the handshake. Raises BadInput naming the field."""
    if type(mode) is not int or mode not in (PER_DEVICE, PER_PRODUCT):
        raise BadInput("secureMode", mode, "2 (one secret per device) or 3 (one per product)")
    keys = f"{check_product_key(product_key)},{check_device_key(device_key)}"
    return f"{keys},{mode},{check_lifetime(lifetime)}"


def psk_holder(signer: Signer) -> PskHolder:
    """``signer``, which has the key for DTLS. Raises Unsupported."""
    if isinstance(signer, PskHolder):
        return signer
    raise Unsupported(
        f"{type(signer).__name__} signs, but has no key for DTLS (method psk)",
        hint="DTLS needs the secret itself, or a key made of it, in this process: use SecretSigner,"
        " or plain CoAP.",
    )


async def shake_hands(
    socket: UdpSocket,
    identity: str,
    holder: PskHolder,
    server: DtlsServer,
    timing: Timing | None = None,
    report: Report = silent,
) -> DtlsSocket:
    """``socket``, secured. Raises AuthRefused when EnOS says no; else as ``secure``."""
    try:
        return await secure(
            socket, identity, holder.psk, suites=server.suites, timing=timing, report=report
        )
    except DtlsRefused as error:
        raise AuthRefused(
            f"EnOS does not accept the device: {error.message} (identity {identity})",
            code="",
            hint="The product key, the device key or the secret is wrong, the device is not"
            " registered in this environment, or the server has none of the cipher suites.",
        ) from None


# --- dynamic activation -----------------------------------------------------------------------


async def activate(
    carrier: Modem | Carrier,
    product_key: str,
    device_key: str,
    product_secret: Secret,
    server: DtlsServer,
    *,
    store: Store,
    lifetime: int = DEFAULT_LIFETIME,
    timing: Timing | None = None,
    limit: AuthLimit | None = None,
    identifiers: Identifiers | None = None,
    resolve_by: str = "auto",
    report: Report = silent,
) -> Secret:
    """Get this device's secret by means of its product's; ``store`` has it before this returns.

    Afterwards connect with it: ``EnosSession`` with a ``SecretSigner`` of the result. The product
    must allow dynamic activation. ``lifetime`` in seconds; ``limit`` None: that of the process.

    Raises BadInput, AuthRefused, RequestRefused, BadReply, RateLimited, NoResponse, DtlsError, what
    the modem raises and what ``store`` raises.
    """
    keys = (check_product_key(product_key), check_device_key(device_key))
    identity = psk_identity(*keys, PER_PRODUCT, lifetime)
    counted = (str(server).lower(), *keys)

    async def fetch(modem: Modem) -> Secret:
        found = await modem.resolve(server.host, by=resolve_by)
        await asyncio.to_thread((limit or PROCESS_LIMIT).take, counted)
        socket = await modem.udp(found.address, server.port)
        try:
            holder = SecretSigner(product_secret)
            secured = await shake_hands(socket, identity, holder, server, timing, report)
        except BaseException:
            await socket.close()
            raise
        async with secured:
            client = UdpClient(secured, identifiers or PROCESS_IDENTIFIERS, timing, report)
            return await _ask_for_secret(client, keys)

    secret = await carrier_of(carrier).call(fetch, repeat=True)
    stored = store(secret)
    if stored is not None:
        await stored
    return secret


async def _ask_for_secret(client: UdpClient, keys: tuple[str, str]) -> Secret:
    path = ("topic", "ext", "session", *keys, "thing", "activate", "info")
    response = await client.request(Request(Method.GET, path))
    if not response.ok:
        raise RequestRefused(
            f"EnOS refused the activation ({response.code}; product {keys[0]}, device {keys[1]})",
            code=response.code,
            hint="Is dynamic activation enabled for the product, and the device registered?",
        )
    found = _read_activation(response.payload, keys)
    del response  # its payload may hold a secret, and tracebacks may show variables
    if isinstance(found, str):
        raise BadReply(f"the answer to the activation {found}")
    return found


def _read_activation(payload: bytes, keys: tuple[str, str]) -> Secret | str:
    """The secret, or what is wrong with ``payload``. Raises nothing: an error's traceback, and what
    stands in it, would hold the payload.
    """
    body: Any = None
    with suppress(ValueError, RecursionError):
        body = json.loads(payload)
    params = body.get("params") if isinstance(body, dict) else None
    if not isinstance(params, dict):
        return "is no JSON object with params"
    if (params.get("productKey"), params.get("deviceKey")) != keys:
        return "is for another device"
    with suppress(BadInput):
        return Secret(params.get("deviceSecret"))  # type: ignore[arg-type]  # it checks that
    return "holds no device secret that can be used"


# --- where the secret is kept -----------------------------------------------------------------


def store_in_file(path: str | os.PathLike[str]) -> Callable[[Secret], Awaitable[None]]:
    """For ``activate``: keep the secret in a file that only this user may read.

    It is written whole or not at all, and is on the disk when the store is done. A file that exists
    is left alone: raises BadInput if it holds something else. Raises SecretUnavailable when it
    cannot be written; at once, if its folder is missing or not writable.
    """
    wanted = Path(path).expanduser()
    if not os.access(wanted.parent, os.W_OK | os.X_OK):
        raise SecretUnavailable(
            f"{wanted.parent} is no folder that this user may write to",
            hint="Make it (mkdir -p), or name another one.",
        )

    async def store(secret: Secret) -> None:
        await asyncio.to_thread(_write_file, wanted, secret)

    return store


def _write_file(path: Path, secret: Secret) -> None:
    try:
        _write_new(path, secret)
    except FileExistsError:
        if secret_from(f"file:{path}") != secret:
            raise BadInput(
                "secret file",
                str(path),
                "a new file, or one that holds this secret",
                hint="It holds another secret, which is not overwritten: move it away first.",
            ) from None
    except OSError as error:
        raise SecretUnavailable(
            f"the secret cannot be written to {path}: {error.strerror}",
            hint="Choose a place on a disk with Unix permissions and free space.",
        ) from None


def _write_new(path: Path, secret: Secret) -> None:
    """Write a file of another name first, and give it ``path`` when it is whole: a link, unlike a
    renaming, never replaces a file. Raises OSError.
    """
    fd, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 0600
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(secret.reveal().encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
    finally:
        os.unlink(draft)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
