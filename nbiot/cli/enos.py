"""What the subcommands that talk to EnOS share: who the device is, where EnOS is, and how long to
wait. All that can be wrong without a modem is found here, before the port is opened.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from nbiot.cli.common import Decorator, stack
from nbiot.errors import BadInput

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from nbiot.coap.exchange import Timing
    from nbiot.enos.auth import Device, Server
    from nbiot.enos.limits import AuthLimit
    from nbiot.modem import Modem
    from nbiot.signing import Secret

SECRET_VARIABLE = "NBIOT_DEVICE_SECRET"
MOST_FILE = 64 * 1024  # bytes of a JSON file; EnOS takes 1 KB a message


def _sources(_: click.Context, __: click.Parameter, begun: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    known = (f"env:{SECRET_VARIABLE}", "file:", "keyring:", "prompt")
    return [CompletionItem(source) for source in known if source.startswith(begun)]


SECRET_OPTION = click.option(
    "--secret-from",
    default=None,
    metavar="SOURCE",
    shell_complete=_sources,
    help=f"env:NAME, file:PATH, keyring:SERVICE/USER or prompt. Default: env:{SECRET_VARIABLE} if"
    " set, else prompt.",
)
SERVER_HELP = "Any CoAP server instead; coaps://HOST[:PORT] for DTLS."
_WHO = (
    click.option(
        "--product-key",
        required=True,
        envvar="NBIOT_PRODUCT_KEY",
        show_envvar=True,
        help="From EnOS.",
    ),
    click.option("--device-key", default=None, help="Default: the modem's IMEI."),
    SECRET_OPTION,
    click.option("--enos", default=None, metavar="HOSTNAME", help="EnOS environment: abc.def.com"),
    click.option("--server", default=None, metavar="HOST[:PORT]", help=SERVER_HELP),
)
_HOW = (
    click.option(
        "--lifetime",
        type=int,
        default=3600,
        show_default=True,
        help="Seconds of silence until EnOS calls the device offline: 30 to 86400.",
    ),
    click.option("--apn", default=None, help="Default: what modem and network have."),
    click.option("--attach-timeout", type=float, default=300.0, show_default=True, help="Seconds."),
    click.option(
        "--ack-timeout",
        type=float,
        default=15.0,
        show_default=True,
        help="Seconds until the request is sent again for the first time.",
    ),
    click.option("--retransmissions", type=int, default=3, show_default=True),
    click.option(
        "--content-format", type=int, default=None, help="50 is JSON. Default: none is sent."
    ),
    click.option(
        "--resolve",
        type=click.Choice(["auto", "modem", "host"]),
        default="auto",
        show_default=True,
        help="Who looks the server's name up.",
    ),
)
NO_WAIT = click.option(
    "--no-wait",
    is_flag=True,
    help="Fail at once when EnOS's limit of 4 authentications in 2 minutes is reached.",
)


def enos_options(*between: Decorator, no_wait: bool = True) -> Decorator:
    """Who the device is, where EnOS is, how to get there. ``between``: options in the middle."""
    return stack((*_WHO, *between, *_HOW, *((NO_WAIT,) if no_wait else ())))


_AS_GIVEN = (
    "product_key",
    "device_key",
    "secret_from",
    "lifetime",
    "apn",
    "attach_timeout",
    "content_format",
    "resolve",
)


@dataclass(frozen=True, slots=True)
class Target:
    """The options of ``enos_options``, checked."""

    server: Server
    secret: Secret
    timing: Timing
    product_key: str
    device_key: str | None
    secret_from: str | None
    lifetime: int
    apn: str | None
    attach_timeout: float
    content_format: int | None
    resolve: str
    no_wait: bool

    @classmethod
    def of(cls, options: dict[str, Any]) -> Target:
        """Takes its options out of ``options``. Raises BadInput, SecretUnavailable.

        Reads the secret, which may ask a person: not for the event loop.
        """
        from nbiot.coap.exchange import Timing
        from nbiot.signing import check_device_key, check_lifetime, check_product_key

        server = server_of(options.pop("enos"), options.pop("server"))
        timing = Timing(
            ack_timeout=options.pop("ack_timeout"), max_retransmit=options.pop("retransmissions")
        )
        check_product_key(options["product_key"])
        check_lifetime(options["lifetime"])
        if options["device_key"] is not None:
            check_device_key(options["device_key"])
        in_range("attach timeout", options["attach_timeout"], 1, 86400)
        if options["content_format"] is not None:
            in_range("content format", options["content_format"], 0, 65535)
        return cls(
            server=server,
            secret=secret_of(options["secret_from"]),
            timing=timing,
            no_wait=options.pop("no_wait", False),
            **{name: options.pop(name) for name in _AS_GIVEN},
        )

    async def device(self, modem: Modem) -> Device:
        """The device; its key is the modem's IMEI unless another one was given."""
        return self.device_of(self.device_key or await modem.imei())

    def device_of(self, key: str) -> Device:
        """The device with this key."""
        from nbiot.enos.auth import Device
        from nbiot.signing import SecretSigner

        return Device(self.product_key, key, SecretSigner(self.secret), self.lifetime)


def server_of(enos: str | None, server: str | None) -> Server:
    """The server that one of the two options names."""
    from nbiot.enos.auth import Server

    if (enos is None) == (server is None):
        raise BadInput("server", None, "either --enos HOSTNAME or --server HOST[:PORT]")
    if enos is not None:
        return Server.of_enos(enos)
    if str(server).startswith("coaps://"):
        from nbiot.enos.dtls import DtlsServer

        return DtlsServer.parse(str(server))
    return Server.parse(str(server))


def secret_of(source: str | None) -> Secret:
    """The device secret, from the variable or a prompt if ``source`` is None."""
    from nbiot.signing import secret_from

    if source is None:
        source = f"env:{SECRET_VARIABLE}" if SECRET_VARIABLE in os.environ else "prompt"
    return secret_from(source)


def limit_of(server: Server) -> AuthLimit:
    """EnOS counts across processes, and so do we; a stand-in on this host has no such limit."""
    from nbiot.enos.limits import PROCESS_LIMIT, AuthLimit, state_folder

    if server.host == "localhost" or server.host.startswith("127."):
        return PROCESS_LIMIT
    return AuthLimit(state_folder())


# --- values -----------------------------------------------------------------------------------


def in_range(field: str, given: float, least: float, most: float) -> None:
    """Raises BadInput unless ``least <= given <= most``; false for NaN, too."""
    if not least <= given <= most:
        raise BadInput(field, given, f"{least:g} to {most:g}")


def assignments(
    texts: tuple[str, ...], read: Callable[[str, str], Any], *, what: str
) -> dict[str, Any]:
    """The values of ``NAME=VALUE`` texts. Raises BadInput, also for a name that comes twice."""
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise BadInput(what, text, "NAME=VALUE, such as temperature=21.5")
        if name in found:
            raise BadInput(what, text, f"each name once ({name} was given before)")
        found[name] = read(name, value)
    return found


def json_or_text(name: str, text: str) -> Any:
    """``text`` if it is no JSON, else what it says. Raises BadInput where it is neither for sure:
    NaN and other numbers that JSON does not have, null, True, and JSON that is broken.
    """
    try:
        found = _read_json(text)
    except ValueError as error:
        if text[:1] in ("{", "[", '"'):
            raise BadInput(name, text, f"JSON, or text ({error})", hint=_quoted(name, text)) from (
                None
            )
    else:
        if found is None:
            raise BadInput(name, text, "a value; EnOS takes no null", hint=_quoted(name, text))
        return found
    if text.lower() in ("true", "false", "null", "none"):
        raise BadInput(name, text, "true or false, in lower case", hint=_quoted(name, text))
    if _looks_like_a_number(text):
        allowed = "a finite number as JSON writes it: 0.5, not .5; 7, not 007; no NaN, no Infinity"
        raise BadInput(name, text, allowed, hint=_quoted(name, text))
    return text


def plain_text(_: str, text: str) -> str:
    """The value of a tag: always text."""
    return text


def _quoted(name: str, text: str) -> str:
    return f"If it is meant as text: '{name}={json.dumps(text)}'"


def _looks_like_a_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def json_file(path: str) -> dict[str, Any]:
    """The JSON object in a file, or on standard input for "-". Raises BadInput with the place."""
    field = "json file"
    where = "standard input" if path == "-" else path
    text = read_file(field, path, MOST_FILE)
    try:
        found = _read_json(text.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise BadInput(field, where, f"UTF-8 (byte {error.start} is none)") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}: {error.msg}"
        raise BadInput(field, where, f"a JSON object ({place})") from None
    except ValueError as error:
        raise BadInput(field, where, f"a JSON object ({error})") from None
    if not isinstance(found, dict):
        raise BadInput(field, where, 'a JSON object such as {"temperature": 21.5}')
    for name, value in found.items():
        if value is None:
            raise BadInput(name, None, "a value; EnOS takes no null")
    return found


def read_file(field: str, path: str, most: int) -> bytes:
    """At most ``most`` bytes of a file or of standard input. Raises BadInput."""
    try:
        with click.open_file(path, "rb") as file:
            data: bytes = file.read(most + 1)
    except OSError as error:
        raise BadInput(field, path, f"a file that can be read ({error.strerror})") from None
    if len(data) > most:
        raise BadInput(field, path, f"at most {most} bytes")
    return data


def _read_json(text: str) -> Any:
    """Raises ValueError: not JSON, a name twice in one object, NaN, a number beyond a double."""
    try:
        return json.loads(
            text, object_pairs_hook=_once, parse_constant=_no_constant, parse_float=_finite
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the name {name!r} stands twice in one object")
        found[name] = value
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _finite(digits: str) -> float:
    if not math.isfinite(value := float(digits)):
        raise ValueError(f"{digits} is too large for a number")
    return value


def hex_bytes(field: str, text: str) -> bytes:
    """The bytes that pairs of hexadecimal digits say, spaces between them allowed."""
    try:
        return bytes.fromhex(text)
    except ValueError:
        allowed = "pairs of hexadecimal digits, such as 01A2FF"
        raise BadInput(field, text[:100], allowed) from None
