"""``nbiot cloud``: the stand-in for EnOS alone, to try a device against."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import json
import os
import shlex
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from nbiot.cli.common import errors, output_options_as, run
from nbiot.cli.demo import DEVICE_SECRET, IMEI, PRODUCT_KEY
from nbiot.cli.enos import SECRET_OPTION, SECRET_VARIABLE, hex_bytes, in_range, secret_of
from nbiot.errors import BadInput, BadReply

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from hil.cloud import Cloud, Command, Request

WRITTEN = ("service NAME [JSON]", "set JSON", "get [JSON]", "raw HEX")
TEXTS = ("success_code", "code")  # fields of Behaviour that are texts
LOOK = 0.05  # s between two looks at a command
NOT_HERE = ("options", "strict_case")  # fields of Behaviour that have no words on a command line


def _behaviours(_: click.Context, __: click.Parameter, begun: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    return [CompletionItem(name) for name in _fields() if name.startswith(begun)]


@click.command("cloud", short_help="Run a stand-in for EnOS, to try things without an account.")
@click.option(
    "--port", type=int, default=5683, show_default=True, help="UDP port; 0 takes one that is free."
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen at; 0.0.0.0 lets real modems in, if this host is on the Internet.",
)
@click.option(
    "--device",
    default=f"{PRODUCT_KEY}/{IMEI}",
    show_default=True,
    metavar="PRODUCT_KEY/DEVICE_KEY",
    help="The device that may connect. The default one is for trying: its secret"
    f" {DEVICE_SECRET} is an example from EnOS's documents, and no secret.",
)
@SECRET_OPTION
@click.option(
    "--send",
    "sends",
    multiple=True,
    metavar="COMMAND",
    help="Send this command to the device, such as 'service reboot {\"delay\": 1}'; may be given"
    " several times. More can be typed on standard input.",
)
@click.option(
    "--timeout",
    type=float,
    default=30.0,
    show_default=True,
    help="Seconds that a device may take to answer a command: 1 to 60.",
)
@click.option(
    "--resend", type=int, default=0, show_default=True, help="How often a command is sent again."
)
@click.option(
    "--dialect",
    type=click.Choice(["2100+2102", "2100+get"]),
    default="2100+2102",
    show_default=True,
    help="How commands are handed over: with the answer, or to be fetched.",
)
@click.option(
    "--behaviour",
    multiple=True,
    metavar="NAME[=VALUE]",
    shell_complete=_behaviours,
    help="How every request is treated: separate, slow=3, code=4.03, silent, lose_requests=1,"
    " duplicate ...; a wrong name lists all.",
)
@click.option("--loss", type=float, default=0.0, help="Share of datagrams that are lost, 0 to 1.")
@click.option("--duplicate", type=float, default=0.0, help="Share that comes twice.")
@click.option("--reorder", type=float, default=0.0, help="Share that is held back.")
@click.option("--delay", type=float, default=1.0, show_default=True, help="Held back for seconds.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of loss and the like.")
@click.option(
    "--limit-logins", is_flag=True, help="Refuse the fifth authentication in 2 minutes, as EnOS."
)
@click.option(
    "--log",
    type=click.Path(dir_okay=False, path_type=Path),
    default=None,
    help="Add each request to this file, one JSON object a line. No secrets, no whole signatures.",
)
@output_options_as("JSON objects, one a line, on standard output.")
def command(**options: Any) -> None:
    """Run a stand-in for EnOS's CoAP server (without DTLS) until Ctrl-C.

    It checks signatures, takes measurepoints, events, attributes, tags and raw data, and sends
    commands. Type commands while it runs:

    \b
        service reboot {"delay": 1}
        set {"temperature_limit": 80}
        get ["temperature"]
        raw 0102

    A command waits until the device sends something. In another terminal type what is printed at
    the start: it plays a device on an emulated modem, and needs no board and no account.
    """
    with errors(as_json=options["as_json"]):
        cloud, log = _cloud(options)
        sends = [Sent.read(text) for text in options["sends"]]
        with _opened(log) as file:
            run(
                _serve(cloud, sends, Teller(file, options["as_json"]), options),
                as_json=options["as_json"],
            )


# --- options ----------------------------------------------------------------------------------


def _cloud(options: dict[str, Any]) -> tuple[Cloud, Path | None]:
    from hil.cloud import Cloud, Device, Downlink, Impairment, Limits
    from nbiot.signing import check_device_key, check_product_key

    in_range("port", options["port"], 0, 65535)
    in_range("timeout", options["timeout"], 1, 60)
    in_range("resend", options["resend"], 0, 100)
    for name in ("loss", "duplicate", "reorder"):
        in_range(name, options[name], 0, 1)
    in_range("delay", options["delay"], 0, 60)
    product_key, _, device_key = options["device"].partition("/")
    check_product_key(product_key)
    check_device_key(device_key)
    weather = {name: options[name] for name in ("loss", "duplicate", "reorder", "delay", "seed")}
    is_bad = any(weather[name] for name in ("loss", "duplicate", "reorder"))
    return Cloud(
        [Device(product_key, device_key, _secret(options))],
        _behaviour(options["behaviour"]),
        host=options["host"],
        port=options["port"],
        limits=Limits(connections=options["limit_logins"]),
        downlink=Downlink(dialect=options["dialect"]),
        impair=Impairment(**weather) if is_bad else None,
    ), options["log"]


def _is_demo(options: dict[str, Any]) -> bool:
    return options["device"] == f"{PRODUCT_KEY}/{IMEI}" and options["secret_from"] is None


def _secret(options: dict[str, Any]) -> str:
    """The demo device has one that everybody may know; others bring theirs."""
    return DEVICE_SECRET if _is_demo(options) else secret_of(options["secret_from"]).reveal()


def _fields() -> dict[str, Any]:
    """The fields of Behaviour with their defaults."""
    from hil.cloud import Behaviour

    usual = Behaviour()
    names = (field.name for field in dataclasses.fields(Behaviour))
    return {name: getattr(usual, name) for name in names if name not in NOT_HERE}


def _behaviour(texts: Sequence[str]) -> Any:
    from hil.cloud import Behaviour

    known = _fields()
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if name not in known:
            raise BadInput("behaviour", text, ", ".join(known))
        found[name] = _setting(text, name, value if equals else None, known[name])
    return Behaviour(**found)


def _setting(text: str, name: str, value: str | None, usual: Any) -> Any:
    """``value`` as the kind of thing that the field is."""
    if name in TEXTS:
        if value and len(value) == 4 and value[0] in "245" and value[1] == ".":
            return value
        raise BadInput("behaviour", text, f"{name}=4.03 or another code")
    if isinstance(usual, bool):
        if value is None:
            return True
        raise BadInput("behaviour", text, f"{name}, without a value")
    try:
        number = (float if isinstance(usual, float) else int)(value or "")
        in_range("behaviour", number, 0, 10_000)
    except (ValueError, BadInput):
        raise BadInput("behaviour", text, f"{name}= and a number from 0 to 10000") from None
    return number


@contextmanager
def _opened(log: Path | None) -> Iterator[IO[str] | None]:
    if log is None:
        yield None
        return
    try:
        file = log.open("a", encoding="utf-8")
    except OSError as error:
        raise BadInput("log", str(log), f"a file that can be written ({error.strerror})") from None
    with file:
        yield file


# --- commands that a person sends -------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class Sent:
    """A command as it was typed: a topic for the stand-in, and params or bytes."""

    topic: str
    params: Any = None
    raw: bytes | None = None

    @classmethod
    def read(cls, text: str) -> Sent:
        """Raises BadInput."""
        kind, _, rest = text.strip().partition(" ")
        rest = rest.strip()
        if kind == "raw":
            return cls("down_raw", raw=hex_bytes("raw", rest))
        if kind == "set":
            return cls("set", _json(text, rest, dict, '{"NAME": VALUE}'))
        if kind == "get":
            return cls("get", _json(text, rest or "[]", list, '["NAME", ...]'))
        name, _, params = rest.partition(" ")
        if kind != "service" or not name or name[0] in "{[":
            raise BadInput("command", text.strip(), "; ".join(WRITTEN))
        found = _json(text, params.strip() or "{}", dict, '{"NAME": VALUE}')
        return cls(f"thing/service/{name}", found)

    def queue(self, cloud: Cloud, options: dict[str, Any]) -> Command:
        """Hand it to the stand-in. Raises BadInput."""
        from hil.cloud import QueueFull

        (device,) = cloud.devices
        try:
            return cloud.send_command(
                *device,
                self.topic,
                self.params,
                raw=self.raw,
                timeout=options["timeout"],
                resend=options["resend"],
            )
        except (ValueError, QueueFull) as error:
            raise BadInput("command", self.topic, f"what EnOS takes ({error})") from None


def _json(text: str, part: str, kind: type, example: str) -> Any:
    from nbiot.enos.things import from_json

    try:
        found = from_json(part.encode("utf-8", "surrogateescape"))
    except BadReply as error:
        raise BadInput("command", text.strip(), f"{example} ({error.message})") from None
    if not isinstance(found, kind):
        raise BadInput("command", text.strip(), example)
    return found


# --- what is told -----------------------------------------------------------------------------


class Teller:
    """Prints requests and what became of commands: in words, or as JSON lines. Keeps the log."""

    def __init__(self, log: IO[str] | None, as_json: bool) -> None:
        self._log = log
        self._as_json = as_json

    def request(self, request: Request) -> None:
        """A request was answered."""
        record = {"time": _stamp(), **request_dict(request)}
        if self._log is not None:
            self._log.write(json.dumps(record) + "\n")
            self._log.flush()
        self.tell(request_words(request), record)

    def queued(self, command: Command) -> None:
        """A command waits for the device."""
        record = {**_about(command), "state": "waiting"}
        self.tell(f"{_title(command)}: waits for the device", record)

    async def follow(self, command: Command) -> None:
        """Tell what becomes of a command, until nothing more happens to it."""
        handed_over = 0
        while True:
            state = command.state
            if command.deliveries > handed_over:
                again = "again " if handed_over else ""
                handed_over = command.deliveries
                record = {**_about(command), "state": "sent", "deliveries": handed_over}
                self.tell(f"{_title(command)}: handed over {again}to the device", record)
            if state.is_final:
                break
            await asyncio.sleep(LOOK)
        record = {**_about(command), "state": state.name.lower()}
        words = state.name.lower().replace("_", " ")
        for reply in command.replies:
            if reply.code is None:
                record["hex"] = reply.payload.hex()
                words += f", answered {reply.payload.hex() or 'with no bytes'}"
            else:
                record |= {"code": reply.code, "data": reply.data}
                words += f", answered {reply.code} {json.dumps(reply.data)}"
        self.tell(f"{_title(command)}: {words}", record)

    def tell(self, words: str, record: dict[str, Any]) -> None:
        """One line."""
        if self._as_json:
            click.echo(json.dumps(record))
        else:
            click.echo(f"{time.strftime('%H:%M:%S')} {words}")
        sys.stdout.flush()


def _stamp() -> str:
    now = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03}Z"


def _about(command: Command) -> dict[str, Any]:
    return {"time": _stamp(), "command": command.id, "topic": command.topic}


def _title(command: Command) -> str:
    name = command.topic.removeprefix("thing/service/")
    kinds = {"measurepoint/set": "set", "measurepoint/get": "get", "thing/model/down_raw": "raw"}
    return f"command {command.id}, {kinds.get(name, f'service {name}')}"


def request_dict(request: Request) -> dict[str, Any]:
    """A request for JSON. The stand-in has cut the signature and blotted out secrets."""
    try:
        body = {"payload": request.payload.decode()}
    except UnicodeDecodeError:
        body = {"hex": request.payload.hex()}
    host, port = request.peer
    return {
        "peer": f"{host}:{port}",
        "method": request.method,
        "path": "/" + "/".join(request.path),
        **body,
        "code": request.code,
        "body_code": request.body_code,
        "verdict": request.verdict,
    }


def request_words(request: Request) -> str:
    """A request for people."""
    match request.path:
        case ("auth", product_key, device_key):
            what = f"{device_key} of {product_key} authenticates"
        case ("topic", "sys", _, device_key, *topic):
            what = f"{device_key} {_topic_words(request, '/'.join(topic))}"
        case path:
            what = f"{request.method} /{'/'.join(path)}"
    return _plain(f"{what}: {request.code}, {request.verdict}")


def _topic_words(request: Request, topic: str) -> str:
    if topic == "thing/model/up_raw":
        return f"sends raw data {request.payload.hex()}"
    if request.method == "GET":
        return f"fetches the command at {topic}"
    if topic == "thing/model/down_raw_reply":
        return f"answers a raw command with {request.payload.hex() or 'no bytes'}"
    try:
        body = json.loads(request.payload)
        found = body["params"] if "params" in body else body["data"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return f"sends {len(request.payload)} bytes to {topic}"
    words = json.dumps(_inner(found), ensure_ascii=False)
    match topic.split("/"):
        case ["thing", "measurepoint", "post"]:
            return f"reports {words}"
        case ["thing", "event", name, "post"]:
            return f"reports event {name} {words}"
        case ["thing", ("attribute" | "tag") as kind, verb]:
            return f"{ {'query': 'asks for'}.get(verb, f'{verb}s') } {kind}s {words}"
        case ["thing", "service", *name] if topic.endswith("_reply"):
            return f"answers {'/'.join(name).removesuffix('_reply')} with {words}"
    return f"sends {words} to {topic}"


def _inner(params: Any) -> Any:
    """The values themselves, where they are all there is."""
    if isinstance(params, dict) and len(params) == 1:
        name, value = next(iter(params.items()))
        if name in ("measurepoints", "events", "attributes", "tags"):
            return value
    return params


def _plain(text: str) -> str:
    """What a device sends must not move the cursor."""
    return "".join(c if c.isprintable() else "?" for c in text)


# --- running ----------------------------------------------------------------------------------


async def _serve(
    cloud: Cloud, sends: Sequence[Sent], teller: Teller, options: dict[str, Any]
) -> None:
    cloud.on_request = teller.request
    try:
        await cloud.start()
    except OSError as error:
        field = "host" if error.errno == errno.EADDRNOTAVAIL else "port"
        words = f"an address and a UDP port that this user may listen at ({error.strerror})"
        raise BadInput(
            field, f"{cloud.host}:{cloud.port}", words, hint="--port 0 takes one that is free."
        ) from None
    waiting: set[asyncio.Task[None]] = set()

    def send(sent: Sent) -> None:
        command = sent.queue(cloud, options)
        teller.queued(command)
        task = asyncio.get_running_loop().create_task(teller.follow(command))
        waiting.add(task)
        task.add_done_callback(waiting.discard)

    def typed(line: str) -> None:
        if not line.strip():
            return
        try:
            send(Sent.read(line))
        except BadInput as error:
            click.echo(f"nbiot: {error}", err=True)

    try:
        _greet(cloud, options)
        for sent in sends:
            send(sent)
        _listen_to_stdin(typed)
        await cloud.serve_forever()
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await cloud.stop()


def _greet(cloud: Cloud, options: dict[str, Any]) -> None:
    (device,) = cloud.devices
    if options["as_json"]:
        about = {"listening": f"{cloud.host}:{cloud.port}", "device": "/".join(device)}
        click.echo(json.dumps(about))
        sys.stdout.flush()
        return
    where = f"coap://{cloud.host}:{cloud.port}"
    click.echo(f"EnOS stand-in: {where}, device {device[1]} of product {device[0]}")
    sys.stdout.flush()
    if options["quiet"]:
        return
    host = "127.0.0.1" if cloud.host == "0.0.0.0" else cloud.host
    demo = _is_demo(options)
    args = ["--port", "emulator:bc95?attached=1", "--product-key", device[0]]
    args += ["--device-key", device[1]] if device[1] != IMEI else []
    args += ["--server", f"{host}:{cloud.port}"]
    secret = f"{SECRET_VARIABLE}={DEVICE_SECRET} " if demo else ""
    known = " (its secret is an example from EnOS's documents)" if demo else ""
    click.echo(
        f"In another terminal, be a device{known}:\n"
        f"  {secret}nbiot report {shlex.join(args)} temperature=21.5\n"
        f"  {secret}nbiot commands {shlex.join(args)} --poll 5\n"
        f"Type commands here: {'; '.join(WRITTEN)}",
        err=True,
    )


def _listen_to_stdin(typed: Any) -> None:
    """Hand each line to ``typed``. In a thread: files and terminals have no other way in common,
    and it is one that dies with the process.
    """
    try:
        if os.isatty(0) and os.tcgetpgrp(0) != os.getpgrp():
            return  # in the background: reading would stop the process
    except OSError:
        return
    loop = asyncio.get_running_loop()

    def read() -> None:
        rest = b""
        while True:
            try:
                chunk = os.read(0, 4096)
            except OSError:
                return
            *lines, rest = (rest + chunk).split(b"\n")
            if not chunk and rest:
                lines, rest = [rest], b""
            try:
                for line in lines:
                    loop.call_soon_threadsafe(typed, line.decode("utf-8", "replace"))
            except RuntimeError:  # the loop is closed
                return
            if not chunk:
                return

    threading.Thread(target=read, name="standard input", daemon=True).start()
