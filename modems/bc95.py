"""Quectel BC95 (HiSilicon Hi2110, "V100"), firmware B657 and older.

Sources: captures in tests/captures/bc95.jsonl; Quectel BC95 AT Commands Manual V1.8 and V1.9
("manual" below). The dialect has no blank after the colon and no echo before B657SP2; datagrams
travel as hexadecimal digits.
"""

from __future__ import annotations

import asyncio
import re
from typing import ClassVar

from nbiot.at import BootBanner, Command, Dialect, Shape, Template, Urc, UrcReceived
from nbiot.errors import (
    CommandRefused,
    ModemSilent,
    NbiotError,
    SimLocked,
    SimMissing,
    SocketError,
    UnexpectedAnswer,
)
from nbiot.profile import Limits, Profile, Release, Report, Signal, UdpSocket, csq_dbm

_FIGURE = re.compile(r"(?P<name>.+): *(?P<value>-?[0-9]{1,10}) *")
SIM_PATIENCE = 8.0  # s; AT+CIMI is refused for about 4 s after AT+CFUN=1 (manual V1.8, 9.1)
SIM_POLL = 0.5  # s
SOCKET_IDS = range(7)
RELEASE_FLAGS = {Release.NO: "0", Release.AFTER_THIS: "0x200", Release.AFTER_REPLY: "0x400"}

ERRORS = {
    3: "operation not allowed",
    4: "operation not supported now",
    10: "SIM not inserted",
    11: "SIM PIN required",
    12: "SIM PUK required",
    23: "memory failure",
    30: "no network service",
    50: "incorrect parameters",
    51: "command in progress",
    52: "aborted by user",
    159: "uplink busy",
    256: "required parameter not configured",
    257: "not registered with the CDP server",
    512: "required parameter not configured",
    513: "not registered with the CDP server",
    514: "AT internal error",
    515: "context is active",
    524: "radio is off (AT+CFUN=1 first)",
    525: "sequence number in use",
    529: "firmware update running",
    530: "no such socket",
    536: "AT line buffer overflow",
    537: "back-off timer running",
}

BANNER = BootBanner(
    lines=r"REBOOTING|Boot: \w+|(?:Security|Protocol|Apps)\b[ .\w]*"
    r"|REBOOT_CAUSE_\w+|Neul|u-blox|Lierda",
    last=b"OK",
    evidence="captured: bc95-b657sp1-reboot, bc68-boot-resetpin-attach",
    seconds=10.0,
)

URCS = (
    Urc("announced", "+NSONMI: <socket:int>,<length:int>", "captured: bc95-udp-2017-12-19"),
    Urc("registration", "+CEREG: <stat:digit>[,<rest:line>]", "from_manual: BC95 V1.9, 3"),
    Urc("connection", "+CSCON: <mode:digit>", "from_manual: BC95 V1.9, 3"),
    Urc("psm", "+NPSMR: <mode:digit>", "from_manual: BC95 V1.9, 5"),
    Urc("ping", "+NPING: <address:ip>,<ttl:int>,<rtt:int>", "from_manual: BC95 V1.9, 5"),
    Urc("ping failed", "+NPINGERR: <error:int>", "from_manual: BC95 V1.9, 5"),
    Urc("socket closed", "+NSOCLI: <socket:int>", "from_manual: Hi2115 SDK strings"),
    Urc("cdp sent", "+NSMI: <status>", "captured: bc95-b657sp5-oceanconnect"),
    Urc("cdp received", "+NNMI[: <data:line>]", "from_manual: BC95 V1.9, 6"),
    Urc("sim", "+NUSIM: <state:line>", "from_manual: Hi2115 SDK strings"),
    Urc("firmware", "FIRMWARE <state:line>", "from_manual: BC95 V1.9, table 1"),
)

PROBES = (
    Command(b"AT+CSQ", Shape("+CSQ: <rssi:int>,<ber:int>"), 1, 1, seconds=2.0, repeatable=True),
    Command(b"AT+CGATT?", Shape("+CGATT: <attached:digit>"), 1, 1, seconds=2.0, repeatable=True),
    Command(b"AT+CFUN?", Shape("+CFUN: <fun:int>"), 1, 1, seconds=2.0, repeatable=True),
)

COMMANDS = {
    "echo off": Template("ATE0", "from_manual: BC95 V1.9, 3.2 (from B657SP2)"),
    "numeric errors": Template("AT+CMEE=1", "captured: bc95-b657sp3-exact-bytes"),
    "registration urcs": Template("AT+CEREG={n}", "captured: bc95-timestamps-2017-07"),
    "imei": Template("AT+CGSN=1", "captured: bc95-b657sp3-exact-bytes", "+CGSN: <imei:digits>"),
    "imsi": Template("AT+CIMI", "captured: bc95-b657sp3-exact-bytes", "<imsi:digits>"),
    "iccid": Template("AT+NCCID", "from_manual: BC95 V1.9, 5.15", "+NCCID: <iccid:alnum>", least=0),
    "radio?": Template("AT+CFUN?", "from_manual: BC95 V1.9, 3", "+CFUN: <fun:int>"),
    "radio on": Template("AT+CFUN=1", "captured: bc95-b657sp3-exact-bytes", seconds=60.0),
    "radio off": Template("AT+CFUN=0", "from_manual: BC95 V1.9, 3", seconds=30.0),
    "attached?": Template(
        "AT+CGATT?", "captured: bc95-b657sp3-exact-bytes", "+CGATT: <attached:digit>"
    ),
    "attach": Template("AT+CGATT=1", "captured: bc95-b657sp3-exact-bytes", seconds=10.0),
    "detach": Template("AT+CGATT=0", "captured: bc95-b657sp3-exact-bytes", seconds=30.0),
    "registration?": Template(
        "AT+CEREG?",
        "captured: bc95-b657sp3-exact-bytes",
        "+CEREG: <n:digit>,<stat:digit>[,<rest:line>]",
    ),
    "bands?": Template(
        "AT+NBAND?", "captured: bc95-b657sp3-exact-bytes", "+NBAND: <bands:line>", least=0
    ),
    "contexts?": Template(
        "AT+CGDCONT?",
        "captured: calliope-bc95-cgdcont",
        "+CGDCONT: <cid:int>,<type>,<apn>[,<rest:line>]",
        least=0,
        most=8,
    ),
    "context": Template('AT+CGDCONT=1,"IP","{apn}"', "from_manual: BC95 V1.9, 3.16"),
    "address?": Template(
        "AT+CGPADDR",
        "from_manual: BC95 V1.9, 3",
        "+CGPADDR: <cid:int>[,<address:ip>]",
        least=0,
        most=8,
    ),
    "signal": Template(
        "AT+CSQ", "captured: bc95-b657sp3-exact-bytes", "+CSQ: <rssi:int>,<ber:int>"
    ),
    "statistics": Template(
        "AT+NUESTATS",
        "captured: bc95-b657sp5-oceanconnect",
        "<line:line>",
        least=0,
        most=20,
        size=300,
        repeatable=True,
    ),
    "reboot": Template(
        "AT+NRB", "captured: bc95-b657sp1-reboot", success=(b"REBOOTING", b"OK"), seconds=5.0
    ),
    "open": Template(
        "AT+NSOCR=DGRAM,17,0",
        "captured: bc95-b657sp3-exact-bytes",
        "[+NSOCR: ]<socket:digit>",
        seconds=3.0,
    ),
    "send": Template(
        "AT+NSOST={socket},{address},{port},{length},{hex}",
        "captured: bc95-udp-2017-12-19",
        "[+NSOST: ]{socket},<accepted:int>",
        seconds=10.0,
    ),
    "send and release": Template(
        "AT+NSOSTF={socket},{address},{port},{flag},{length},{hex}",
        "from_manual: BC95 V1.9, 5.6",
        "[+NSOST: ]{socket},<accepted:int>",
        seconds=10.0,
    ),
    "read": Template(
        "AT+NSORF={socket},{length}",
        "captured: bc95-udp-2017-12-19",
        "[+NSORF: ]{socket},<address:ip>,<port:int>,<length:int>,<data:hex>,<remaining:int>",
        least=0,
        seconds=3.0,
    ),
    "close": Template(
        "AT+NSOCL={socket}", "from_manual: BC95 V1.8, 9 (bc95-manual-udp-coap)", seconds=3.0
    ),
}


class BC95(Profile):
    """Quectel BC95 with Hi2110 ("V100") firmware."""

    name = "bc95"
    title = "Quectel BC95"
    models = r"BC95|V100R100"
    baudrates = (9600, 57600, 115200, 4800)
    dialect = Dialect(urcs=URCS, banners=(BANNER,), errors=ERRORS, probes=PROBES)
    commands = COMMANDS
    limits = Limits(datagram=512, sockets=7)
    has_release_assistance = True
    notes: ClassVar[tuple[str, ...]] = (
        "No DNS: the host resolves the server's name.",
        "Local port 5683 is refused by the firmware; the driver lets the modem choose one.",
    )

    async def radio_on(self) -> None:
        """AT+CFUN=1, which later firmware refuses without a SIM (from B650SP8 on)."""
        try:
            await super().radio_on()
        except CommandRefused as error:
            raise sim_error(error) from error

    async def prepare(self) -> None:
        await self.try_ask("echo off")
        await self.ask("numeric errors")
        if await self.try_ask("registration urcs", n=5) is None:
            await self.ask("registration urcs", n=1)

    async def check_sim(self) -> None:
        """The SIM answers AT+CIMI, a few seconds after the radio came on."""
        loop = asyncio.get_running_loop()
        until = loop.time() + SIM_PATIENCE
        while True:
            try:
                await self.ask("imsi")
            except CommandRefused as error:
                if error.code in (10, 11, 12) or loop.time() >= until:
                    raise sim_error(error) from error
            else:
                return
            await asyncio.sleep(SIM_POLL)

    async def signal(self) -> Signal:
        rssi = csq_dbm((await self.ask("signal")).lines[0])
        reply = await self.try_ask("statistics")
        values = statistics([line["line"] for line in reply.lines]) if reply else {}
        return Signal(
            rssi=rssi,
            rsrp=_tenths(values.get("Signal power")),
            snr=_tenths(values.get("SNR")) if "Signal power" in values else None,
            ecl=_known(values.get("ECL"), 255),
            earfcn=_known(values.get("EARFCN"), 4294967295),
            pci=_known(values.get("PCI"), 65535),
        )

    async def set_apn(self, apn: str, report: Report) -> None:
        contexts = (await self.ask("contexts?")).lines
        if any(context["apn"] == apn for context in contexts):
            return
        if (await self.ask("attached?"))["attached"]:
            await self.ask("detach")
        await self.ask("context", apn=apn)

    async def reboot(self) -> None:
        before = self.channel.reboots
        await self.ask("reboot")
        if not await self.channel.booted(before, self.boot_seconds):
            raise ModemSilent(
                f"no boot banner within {self.boot_seconds:g} s of AT+NRB",
                hint="Power-cycle the modem.",
            )
        await self.prepare()

    async def udp(self, address: str, port: int) -> UdpSocket:
        try:
            number = await self._open_socket()
        except (CommandRefused, UnexpectedAnswer):
            # A host that died leaves its sockets behind; the table has seven places.
            for old in set(SOCKET_IDS) - self.open_sockets:
                await self.try_ask("close", socket=old)
            try:
                number = await self._open_socket()
            except (CommandRefused, UnexpectedAnswer) as error:
                raise SocketError(
                    f"the modem opens no socket: {error.message}",
                    hint="Is it attached? Restart it with `nbiot at AT+NRB`.",
                ) from error
        return HiSiliconSocket(self, number, address, port)

    async def _open_socket(self) -> int:
        """The number of a new socket. A cancelled caller leaves none behind in the modem."""
        opening = asyncio.ensure_future(self.ask("open"))
        try:
            return int((await asyncio.shield(opening))["socket"])
        except asyncio.CancelledError:
            number = (await opening)["socket"]
            await self.try_ask("close", socket=number)
            raise


class HiSiliconSocket(UdpSocket):
    """A socket of the NSOCR family: announced by +NSONMI, read with AT+NSORF."""

    profile: BC95

    def __init__(self, profile: BC95, number: int, address: str, port: int) -> None:
        self._announced = asyncio.Event()
        super().__init__(profile, number, address, port)

    def _on_urc(self, urc: UrcReceived) -> None:
        if urc.name == "announced" and urc.fields["socket"] == self.number:
            self._announced.set()

    def _gone(self, error: NbiotError) -> None:
        super()._gone(error)
        self._announced.set()

    async def _send(self, data: bytes, release: Release) -> None:
        reply = await self.profile.ask(
            "send" if release is Release.NO else "send and release",
            flag=RELEASE_FLAGS[release],
            socket=self.number,
            address=self.address,
            port=self.port,
            length=len(data),
            hex=data.hex().upper(),
        )
        if reply["accepted"] != len(data):
            raise SocketError(f"the modem took {reply['accepted']} of {len(data)} bytes")

    async def receive(self, seconds: float) -> bytes:
        """As in UdpSocket. A lost +NSONMI costs time but no datagram: the modem is asked at the
        end of the wait, too.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while True:
            if not self._datagrams.empty():
                return await self._next(0.0)
            announced = await _set_before(self._announced, until)
            self._announced.clear()
            if not self._datagrams.empty():  # the socket is gone
                continue
            datagram = await self._read()
            if datagram is not None:
                return datagram
            if not announced:
                raise TimeoutError

    async def _read(self) -> bytes | None:
        """One datagram of the peer from the modem's queue, in as many pieces as it comes."""
        whole = b""
        while True:
            reply = await self.profile.ask(
                "read", socket=self.number, length=self.profile.limits.datagram
            )
            if not reply.lines:
                return whole or None
            if reply["length"] != len(reply["data"]):
                raise UnexpectedAnswer(
                    f"the modem announced {reply['length']} bytes and gave {len(reply['data'])}"
                )
            if (reply["address"], reply["port"]) != (self.address, self.port):
                self._announced.set()  # not our peer's; look for the next one
                return None
            whole += bytes(reply["data"])
            if reply["remaining"] == 0:
                return whole

    async def _close(self) -> None:
        await self.profile.ask("close", socket=self.number)


def sim_error(error: CommandRefused) -> SimMissing | SimLocked:
    """Why the SIM cannot be used, from the refusal of a command that needs it."""
    if error.code in (11, 12):
        return SimLocked(
            "the SIM wants its PIN" if error.code == 11 else "the SIM wants its PUK",
            hint="Take the PIN off in a phone; this driver never sends one.",
        )
    return SimMissing(
        f"no usable SIM ({error.result})", hint="Is a SIM in the holder, the right way round?"
    )


def statistics(lines: list[str]) -> dict[str, int]:
    """The figures of AT+NUESTATS by name. Firmware puts blanks before the colon at times."""
    figures = map(_FIGURE.fullmatch, lines)
    return {found["name"].strip(): int(found["value"]) for found in figures if found}


def _tenths(value: int | None) -> float | None:
    return None if value is None or value == -32768 else value / 10


def _known(value: int | None, unknown: int) -> int | None:
    return None if value == unknown else value


async def _set_before(event: asyncio.Event, until: float) -> bool:
    """Wait for ``event`` until the loop's time ``until``."""
    try:
        async with asyncio.timeout_at(until):
            await event.wait()
    except TimeoutError:
        return False
    return True
