"""``nbiot cost``: what a message takes on the air and on the serial line, by measurement."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from nbiot.cli.common import errors, models, output_options, progress, run
from nbiot.cli.demo import DEVICE_SECRET, IMEI, PRODUCT_KEY
from nbiot.errors import BadInput
from nbiot.profile import Progress

if TYPE_CHECKING:
    from hil.cloud import Cloud
    from nbiot.profile import Report
    from nbiot.session import Cost

HEADERS = 28  # bytes of IPv4 and UDP headers around each datagram
BITS = 10  # on the serial line for a byte: start, eight, stop
LEAST = 7  # bytes of {"v":1}

ABOUT = """\
Measured: today's driver against the emulated modem and the EnOS stand-in on this host, for a device
with a product key of 8 and a device key of 15 characters that is online, its socket open. "IP
bytes" are those of CoAP and 28 of IPv4 and UDP for each datagram. "serial" counts both directions,
at the modem's usual rate without its pauses. "report N" is a message whose measurepoints, written
as JSON, take N bytes; "raw N" is N bytes for a product of data type Custom.
Not in here: headers and signalling of LTE, repetitions by the network or by CoAP, waiting times,
and how EnOS itself words its answers. "release" tells whether the last datagram asks the network to
let the radio go at once; without that it is kept for some 10 to 20 s."""


@dataclass(frozen=True, slots=True)
class Row:
    """One message through one modem."""

    profile: str
    message: str
    cost: Cost
    baudrate: int
    has_release: bool

    @property
    def with_headers(self) -> tuple[int, int]:
        """Bytes up and down, IP and UDP included."""
        cost = self.cost
        return (
            cost.up + HEADERS * cost.datagrams_up,
            cost.down + HEADERS * cost.datagrams_down,
        )

    @property
    def serial_seconds(self) -> float:
        """How long the serial line is busy."""
        return self.cost.serial_bytes * BITS / self.baudrate

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        up, down = self.with_headers
        cost = dataclasses.asdict(self.cost)
        del cost["connected"]  # this computer's, not the network's
        return {
            "profile": self.profile,
            "message": self.message,
            **cost,
            "up_with_headers": up,
            "down_with_headers": down,
            "baudrate": self.baudrate,
            "serial_seconds": round(self.serial_seconds, 3),
        }


@click.command("cost", short_help="Measure what authentications and reports cost, per modem.")
@click.option(
    "--bytes",
    "sizes",
    type=int,
    multiple=True,
    default=(100,),
    show_default=True,
    metavar="N",
    help='Of the values, written as JSON: {"temperature":21.5} is 20. May be given several times.',
)
@click.option(
    "--modem",
    "chosen",
    multiple=True,
    metavar="PROFILE",
    shell_complete=models,
    help="Only this profile; may be given several times. Default: bc95, bc95-g, bc66.",
)
@output_options
def command(sizes: tuple[int, ...], chosen: tuple[str, ...], as_json: bool, quiet: bool) -> None:
    """Measure what an authentication and a report take: bytes, round trips, serial time.

    Nothing is sent anywhere: modems and EnOS are stand-ins on this host. Example:

    \b
        nbiot cost --bytes 20 --bytes 500 --modem bc95
    """
    with errors(as_json=as_json):
        known = _known()
        for name in chosen:
            if name not in known:
                raise BadInput("modem", name, ", ".join(known))
        messages = [message for size in sizes for message in _messages(size)]
    with progress(quiet=quiet) as report:
        rows = run(_measure(chosen or known, messages, report), as_json=as_json)
    if as_json:
        click.echo(json.dumps({"ok": True, "rows": [row.as_dict() for row in rows]}))
    else:
        click.echo("\n".join([*_table(rows), "", ABOUT]))


def _known() -> tuple[str, ...]:
    """The modems of which there is both a profile and an emulator."""
    from hil.emulator import MODELS
    from nbiot.modem import profiles

    order = ("bc95", "bc95-g", "bc66")
    both = [name for name in profiles() if name in MODELS]
    return tuple(sorted(both, key=lambda name: order.index(name) if name in order else 9))


@dataclass(frozen=True, slots=True)
class _Message:
    kind: str
    size: int

    @property
    def name(self) -> str:
        return f"{self.kind} {self.size}"


def _messages(size: int) -> Iterator[_Message]:
    """A report and raw data of that size. Raises BadInput."""
    from nbiot.enos import things

    if size < LEAST:
        raise BadInput("bytes", size, f'{LEAST} or more: {{"v":1}} is the shortest')
    try:
        things.measurepoints(_points(size)).encode("1")
    except BadInput as error:
        raise BadInput("bytes", size, f"{error.allowed}, with some 80 around them") from None
    yield _Message("report", size)
    yield _Message("raw", size)


def _points(size: int) -> dict[str, Any]:
    """Measurepoints that take that many bytes as JSON: {"v":1111...}."""
    return {"v": "1" * (size - 8)} if size > 8 else {"v": int("1" * (size - 6))}


async def _measure(names: Iterable[str], messages: list[_Message], report: Report) -> list[Row]:
    from hil.cloud import Cloud

    rows: list[Row] = []
    async with Cloud({(PRODUCT_KEY, IMEI): DEVICE_SECRET}) as cloud:
        for name in names:
            report(Progress("modem", f"measuring {name}"))
            rows += await _one_modem(name, cloud, messages)
    return rows


async def _one_modem(name: str, cloud: Cloud, messages: list[_Message]) -> list[Row]:
    from nbiot.enos import AuthLimit, Device, EnosSession, Server
    from nbiot.modem import Modem
    from nbiot.signing import Secret, SecretSigner

    server = Server(cloud.host, cloud.port)
    device = Device(PRODUCT_KEY, IMEI, SecretSigner(Secret(DEVICE_SECRET)))
    port = f"emulator:{name}?attached=1&speed=1000&imei={IMEI}"
    async with Modem(port, model=name) as modem:
        await modem.attach()

        def row(message: str, cost: Cost) -> Row:
            profile = modem.profile
            return Row(name, message, cost, profile.baudrates[0], profile.has_release_assistance)

        async with EnosSession(modem, device, server, limit=AuthLimit()) as enos:
            rows = [row("auth", (await enos.authenticate()).cost)]
            for message in messages:
                if message.kind == "raw":
                    answer = await enos.raw(bytes(message.size))
                else:
                    answer = await enos.report(_points(message.size))
                rows.append(row(message.name, answer.cost))
    return rows


COLUMNS = (
    ("", "modem"),
    ("", "message"),
    ("CoAP bytes", "up"),
    ("", "down"),
    ("IP bytes", "up"),
    ("", "down"),
    ("datagrams", "up/down"),
    ("round", "trips"),
    ("AT", "lines"),
    ("serial", "bytes"),
    ("", "time"),
    ("", "release"),
)
PAIRED = 6  # columns before this one share their upper headings


def _table(rows: list[Row]) -> list[str]:
    lines = [*zip(*COLUMNS, strict=True), *map(_cells, rows)]
    widths = [
        max(len(line[column]) for line in (lines if column >= PAIRED else lines[1:]))
        for column in range(len(COLUMNS))
    ]
    return [_line(line, widths) for line in lines]


def _line(cells: Sequence[str], widths: list[int]) -> str:
    """Words to the left, numbers to the right."""
    text = ""
    for column, (cell, width) in enumerate(zip(cells, widths, strict=True)):
        is_left = column in (0, 1, len(widths) - 1) or len(cell) > width
        text = text.ljust(sum(widths[:column]) + 2 * column) if cell else text
        text += (cell if is_left else cell.rjust(width)) if cell else ""
    return text.rstrip()


def _cells(row: Row) -> tuple[str, ...]:
    cost, (up, down) = row.cost, row.with_headers
    release = "yes" if cost.released else ("no" if row.has_release else "unknown how")
    return (
        row.profile,
        row.message,
        str(cost.up),
        str(cost.down),
        str(up),
        str(down),
        f"{cost.datagrams_up}/{cost.datagrams_down}",
        str(cost.round_trips),
        str(cost.at_round_trips),
        str(cost.serial_bytes),
        f"{row.serial_seconds:.3f} s",
        release,
    )
