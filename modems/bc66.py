"""Quectel BC66, BC66-NA and BC26 (MediaTek MT2625).

Sources: captures in tests/captures/bc66.jsonl; Quectel BC26 AT Commands Manual V1.0; drivers
that work on these modems where no manual was to be had ("driver" below). A datagram goes out as raw
bytes behind a prompt and comes in as raw bytes behind a URC, both counted.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from ipaddress import IPv4Address

from nbiot.at import BootBanner, Command, Dialect, Shape, Template, Urc, UrcReceived
from nbiot.errors import (
    CommandRefused,
    CommandTimeout,
    ModemError,
    ModemSilent,
    NameNotResolved,
    SimLocked,
    SimMissing,
    SocketError,
    Unsupported,
)
from nbiot.profile import (
    CLOSE_SECONDS,
    Limits,
    NativeRequest,
    NativeResponse,
    Profile,
    Progress,
    Release,
    Report,
    Signal,
    UdpSocket,
    csq_dbm,
)

CTRL_Z = b"\x1a"
CONTEXT = 1
SOCKET_IDS = range(5)
DNS_SECONDS = 60.0
NATIVE_OPTIONS = 10

ERRORS = {
    3: "operation not allowed",
    4: "operation not supported",
    10: "SIM not inserted",
    13: "SIM failure",
    14: "SIM busy",
    20: "memory full",
    23: "memory failure",
    30: "no network service",
    31: "network timeout",
    32: "emergency calls only",
    50: "incorrect parameters",
    100: "unknown",
    765: "invalid input value",
    766: "unsupported value or mode",
    767: "operation failed",
    840: "no service",
    841: "in cell search",
    846: "in PSM",
}

# TCP/IP result codes of +QIOPEN (Quectel TCP/IP application notes).
OPEN_ERRORS = {
    552: "invalid parameter",
    553: "no memory",
    554: "socket not created",
    556: "bind failed",
    561: "no PDP context",
    563: "socket number in use",
    566: "connect failed",
    568: "busy",
    569: "timeout",
    570: "PDP context broken",
    572: "not allowed",
}

BANNERS = (
    BootBanner(
        lines=r"(?:F1|V0|00|01|U0|T0): [0-9A-F]{4} [0-9A-F]{4}(?: \[[0-9A-F]{4}\])?"
        r"|Leaving the BROM",
        last=b"Leaving the BROM",
        evidence="captured: bc66-06, bc66na-11, bc26-12",
        seconds=5.0,
    ),
    BootBanner(lines=r"RDY", last=b"RDY", evidence="from_manual: newer firmware, unproven"),
)

URCS = (
    Urc(
        "datagram",
        '+QIURC: "recv",<socket:int>,<length:int>',
        "from_manual: BC26 TCP/IP (driver: RT-Thread at_device bc26)",
        data="length",
    ),
    Urc(  # as it comes with viewmode 1: after a restart, or left so by another host
        "datagram",
        '+QIURC: "recv",<socket:int>,<length:int>,',
        "from_manual: BC26 TCP/IP",
        data="length",
    ),
    Urc(
        "announced",
        '+QIURC: "recv",<socket:int>',
        "from_manual: BC26 TCP/IP (captured for BC660K: bc660k-40)",
    ),
    Urc("socket closed", '+QIURC: "closed",<socket:int>', "from_manual: BC26 TCP/IP"),
    Urc(
        "names",
        '+QIURC: "dnsgip",<error:int>[,<count:int>[,<ttl:int>]]',
        "from_manual: BC26 TCP/IP (driver: RT-Thread at_device bc26)",
    ),
    Urc(
        "name",
        '+QIURC: "dnsgip",<address:ip>',
        "from_manual: BC26 TCP/IP (driver: RT-Thread at_device bc26)",
    ),
    Urc(
        "opened",
        "+QIOPEN: <socket:int>,<error:int>",
        "from_manual: BC26 TCP/IP (captured for BC260Y: bc260y-51)",
    ),
    Urc("registration", "+CEREG: <stat:digit>[,<rest:line>]", "captured: bc66-03, bc66-04"),
    Urc("connection", "+CSCON: <mode:digit>", "captured: bc66-03"),
    Urc("address", "+IP: <address:line>", "captured: bc66-03, bc66-04"),
    Urc("sim", "+CPIN: <state:line>", "captured: bc66-06"),
    Urc(
        "radio", "+CFUN: <fun:int>", "from_manual: 3GPP TS 27.007 (captured for BC660K: bc660k-41)"
    ),
    Urc("sleep", "+QNBIOTEVENT: <event:line>", "from_manual: BC26 V1.0"),
    Urc("awake", "+QATWAKEUP", "from_manual: BC26 V1.0 (bc26doc-26)"),
    Urc("lwm2m", "+QLWURC: <event:line>", "captured: bc66-03"),
    Urc("lwm2m observe", "+QLWOBSERVE: <event:line>", "captured: bc66-03"),
    Urc(
        "ping", "+QPING: <result:line>", "from_manual: BC26 TCP/IP (captured for BC660K: bc660k-36)"
    ),
    Urc("context", "+QGACT: <event:line>", "from_manual: BC26 V1.0"),
    Urc("coap sent", "+QCOAPSEND: <error:int>", "from_manual: driver BC66LINK"),
    Urc(
        "coap response",
        '+QCOAPURC: "rsp",<type:digit>,<code>,<mid:int>[,<length:int>,<payload:hex>]',
        "from_manual: driver BC66LINK (bc66coap-27)",
    ),
    Urc("coap request", '+QCOAPURC: "req",<request:line>', "from_manual: Xinyi firmware source"),
    Urc("mqtt opened", "+QMTOPEN: <result:line>", "captured: bc26-14"),
    Urc("mqtt connected", "+QMTCONN: <result:line>", "captured: bc26-14"),
)

PROBES = (
    Command(b"AT+CESQ", Shape("+CESQ: <values:line>"), 1, 1, seconds=2.0, repeatable=True),
    Command(b"AT+CGATT?", Shape("+CGATT: <attached:digit>"), 1, 1, seconds=2.0, repeatable=True),
    Command(b"AT+CSQ", Shape("+CSQ: <rssi:int>,<ber:int>"), 1, 1, seconds=2.0, repeatable=True),
)

COMMANDS = {
    "echo off": Template("ATE0", "captured: bc26-12"),
    "numeric errors": Template("AT+CMEE=1", "captured: bc66-06"),
    "registration urcs": Template("AT+CEREG=5", "captured: bc66-04"),
    "no light sleep": Template("AT+QSCLK=0", "captured: bc66-02"),
    # 1 is deep sleep, too, out of which only a pulse on PSM_EINT wakes an MT2625.
    "light sleep": Template("AT+QSCLK=2", "from_manual: allIoT BC66 guide"),
    "plain datagrams": Template('AT+QICFG="dataformat",0,0', "from_manual: BC26 TCP/IP"),
    "datagram on a line of its own": Template('AT+QICFG="viewmode",0', "from_manual: BC26 TCP/IP"),
    "no length shown": Template('AT+QICFG="showlength",0', "captured: bc66-06 (there 1)"),
    "imei": Template(
        "AT+CGSN=1",
        "from_manual: 3GPP TS 27.007 (captured for BC660K: bc660k-31)",
        "+CGSN: <imei:digits>",
    ),
    "imsi": Template(
        "AT+CIMI", "from_manual: 3GPP TS 27.007 (captured for BC660K: bc660k-32)", "<imsi:digits>"
    ),
    "iccid": Template(
        "AT+QCCID",
        "from_manual: BC26 V1.0 (captured for BC660K: bc660k-32)",
        "+QCCID: <iccid:alnum>",
        least=0,
    ),
    "sim?": Template("AT+CPIN?", "captured: bc66-06", "+CPIN: <state:line>", seconds=5.0),
    "radio?": Template("AT+CFUN?", "captured: bc26-12", "+CFUN: <fun:int>"),
    "radio on": Template("AT+CFUN=1", "captured: bc66-07", seconds=85.0),
    "radio off": Template("AT+CFUN=0", "from_manual: BC26 V1.0", seconds=85.0),
    "attached?": Template("AT+CGATT?", "captured: bc26-12", "+CGATT: <attached:digit>"),
    "attach": Template("AT+CGATT=1", "from_manual: BC26 V1.0", seconds=85.0),
    "detach": Template("AT+CGATT=0", "from_manual: BC26 V1.0", seconds=85.0),
    "registration?": Template(
        "AT+CEREG?", "captured: bc66-07", "+CEREG: <n:digit>,<stat:digit>[,<rest:line>]"
    ),
    "default apn?": Template(
        "AT+QCGDEFCONT?", "captured: bc66-02", "+QCGDEFCONT: <type>[,<apn>...]", least=0
    ),
    "default apn": Template('AT+QCGDEFCONT="IP","{apn}"', "captured: bc66-02", seconds=5.0),
    "address?": Template(
        f"AT+CGPADDR={CONTEXT}",
        "captured: bc66-05",
        "+CGPADDR: <cid:int>[,<address:ip>]",
        least=0,
    ),
    "signal": Template(
        "AT+CSQ",
        "from_manual: 3GPP TS 27.007 (captured for BC660K: bc660k-35)",
        "+CSQ: <rssi:int>,<ber:int>",
    ),
    "cell": Template(
        "AT+QENG=0",
        "captured: bc66-05",
        "+QENG: 0,<earfcn:int>,<offset>,<pci:int>,<cell>,<rsrp:int>,<rsrq:int>,<rssi:int>,"
        "<sinr:int>,<band:int>,<tac>,<ecl:int>,<power:int>...",
        least=0,
        seconds=3.0,
    ),
    "reboot": Template("AT+QRST=1", "captured: bc26-12", success=(b"OK",), seconds=5.0),
    "open": Template(
        f'AT+QIOPEN={CONTEXT},{{socket}},"UDP","{{address}}",{{port}},0,1',
        "from_manual: BC26 TCP/IP (captured for BG95: bg95-54)",
        outcome="+QIOPEN: {socket},<error:int>",
        seconds=60.0,
    ),
    "send": Template(
        "AT+QISEND={socket},{length}",
        "from_manual: BC26 TCP/IP (captured for BG77: bg77-56)",
        outcome="SEND <result>",
        prompt=b">",
        seconds=20.0,
    ),
    "close": Template(
        "AT+QICLOSE={socket}",
        "from_manual: BC26 TCP/IP (captured for BC660K: bc660k-38)",
        outcome="CLOSE OK",
        seconds=10.0,
    ),
    "resolve": Template(
        f'AT+QIDNSGIP={CONTEXT},"{{host}}"',
        "from_manual: BC26 TCP/IP (driver: RT-Thread at_device bc26)",
        seconds=10.0,
    ),
    "coap delete": Template("AT+QCOAPDEL", "from_manual: driver BC66LINK", seconds=5.0),
    "coap create": Template("AT+QCOAPCREATE={port}", "from_manual: driver BC66LINK", seconds=5.0),
    "coap header": Template(
        "AT+QCOAPHEAD=5,{mid},{token_length},{token}", "from_manual: Xinyi firmware source"
    ),
    "coap options": Template("AT+QCOAPOPTION={options}", "from_manual: driver BC66LINK"),
    "coap send": Template(
        "AT+QCOAPSEND={type},{method},{address},{port}",
        "from_manual: drivers BC66LINK and BC28 CoAP application",
        prompt=b">",
        seconds=20.0,
    ),
}


class BC66(Profile):
    """Quectel modems with MT2625."""

    name = "bc66"
    title = "Quectel BC66 family"
    models = r"BC66|BC26"
    baudrates = (115200, 9600, 57600)
    takes_any_rate = True  # public guides: the host repeats AT after a reset until it answers
    dialect = Dialect(urcs=URCS, banners=BANNERS, errors=ERRORS, probes=PROBES, settle=0.002)
    commands = COMMANDS
    limits = Limits(datagram=1024, sockets=5)
    has_dns = True
    has_native_coap = True
    native_payload = 1000  # Xinyi firmware source, unproven for MT2625
    boot_seconds = 15.0
    sleeps_after = 9.0  # it holds its sleep lock for 10 s after a command
    data_mode = 1024
    _restarts = 0  # after which of them it has answered again
    notes = (
        "No release-assistance command is known for this family.",
        "Datagrams come in as raw bytes, without a checksum on the serial line: noise inside one is"
        " not noticed here. Keep the line short and shielded.",
        "Native CoAP (--coap native): no options beside Uri-Path and Content-Format reach the"
        " server or the host, so commands that EnOS puts into options 2100 and 2102 are not seen;"
        " payload at most 1000 bytes; the modem repeats by its own times.",
    )

    async def prepare(self) -> None:
        if self.channel.reboots != self._restarts:
            await self._answers_again()
        await self.ask("echo off")
        await self.ask("numeric errors")
        await self._stay_awake()
        await self.ask("registration urcs")
        # These three keep the framing of datagrams as this driver reads it.
        await self.ask("plain datagrams")
        await self.try_ask("datagram on a line of its own")
        await self.try_ask("no length shown")

    async def allow_sleep(self) -> None:
        await self.ask("light sleep")
        self.may_sleep = True

    async def _stay_awake(self) -> None:
        """AT+QSCLK=0 may answer ERROR once while the modem wakes up (T:bc66-08)."""
        if await self.try_ask("no light sleep") is None:
            await self.try_ask("no light sleep")
        self.may_sleep = False

    async def check_sim(self) -> None:
        try:
            state = str((await self.ask("sim?"))["state"])
        except CommandRefused as error:
            raise SimMissing(
                f"no usable SIM ({error.result})",
                hint="Is a SIM in the holder, the right way round?",
            ) from error
        if state != "READY":
            raise SimLocked(
                f"the SIM wants its {state.removeprefix('SIM ')}",
                hint="Take the PIN off in a phone; this driver never sends one.",
            )

    async def signal(self) -> Signal:
        rssi = csq_dbm((await self.ask("signal")).lines[0])
        reply = await self.try_ask("cell")
        if reply is None or not reply.lines or reply["rsrp"] in (0, -157):
            return Signal(rssi=rssi)
        return Signal(
            rssi=rssi,
            rsrp=reply["rsrp"],
            snr=reply["sinr"],
            ecl=reply["ecl"],
            earfcn=reply["earfcn"],
            pci=reply["pci"],
        )

    async def set_apn(self, apn: str, report: Report) -> None:
        reply = await self.ask("default apn?")
        if reply.lines and reply["apn"] == apn:
            return
        await self.ask("default apn", apn=apn)
        report(Progress("restarting", f"restarting the modem to use APN {apn}"))
        await self.reboot()
        await self.radio_on()

    async def reboot(self) -> None:
        before = self.channel.reboots
        try:
            await self.ask("reboot")  # some firmware says OK before the banner, some does not
        except (ModemError, CommandTimeout):
            if self.channel.reboots == before:
                raise
        if not await self.channel.booted(before, self.boot_seconds):
            raise ModemSilent(
                f"no boot banner within {self.boot_seconds:g} s of AT+QRST=1",
                hint="Power-cycle the modem.",
            )
        await self.prepare()

    async def _answers_again(self) -> None:
        """After the banner the modem finds the baud rate anew: ask until it answers."""
        self._restarts = self.channel.reboots
        for _ in range(20):
            try:
                await self.channel.run(Command(b"AT", seconds=0.5))
            except (CommandTimeout, CommandRefused, ModemSilent):
                continue
            return
        raise ModemSilent("the modem does not answer after its restart")

    async def resolve(self, host: str) -> str:
        with self.channel.urcs() as urcs:
            await self.ask("resolve", host=host)
            begun = False  # addresses before the header belong to an earlier question
            try:
                async with asyncio.timeout(DNS_SECONDS):
                    async for urc in urcs:
                        if urc.name == "names":
                            begun = True
                            if urc.fields["error"] != 0:
                                break
                        elif urc.name == "name" and begun:
                            return str(urc.fields["address"])
            except TimeoutError:
                pass
        raise NameNotResolved(f"the modem finds no address of {host}")

    # --- UDP --------------------------------------------------------------------------------

    async def udp(self, address: str, port: int) -> UdpSocket:
        free = min(set(SOCKET_IDS) - self.open_sockets, default=None)
        if free is None:
            raise SocketError(f"all {len(SOCKET_IDS)} sockets of the modem are in use")
        socket = _Socket(self, free, address, port)
        try:
            await socket.open()
        except BaseException:
            await socket.close()
            raise
        return socket

    # --- the modem's own CoAP client --------------------------------------------------------

    async def native_coap(self, request: NativeRequest, seconds: float) -> NativeResponse:
        """One confirmable request by the QCOAPCREATE family.

        Raises Unsupported (beyond the client's limits), TimeoutError, CommandRefused.
        """
        options = _option_list(request)
        await self.try_ask("coap delete")
        await self.ask("coap create", port=request.local_port)
        try:
            await self.ask(
                "coap header",
                mid=request.mid,
                token_length=len(request.token),
                token=request.token.hex(),
            )
            await self.ask("coap options", options=options)
            return await self._native_exchange(request, seconds)
        finally:
            with suppress(TimeoutError, ModemError):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await self.ask("coap delete")

    async def _native_exchange(self, request: NativeRequest, seconds: float) -> NativeResponse:
        with self.channel.urcs() as urcs:
            await self.ask(
                "coap send",
                type=0,
                method=request.method,
                address=request.address,
                port=request.port,
                payload=request.payload + CTRL_Z,
            )
            async with asyncio.timeout(seconds):
                async for urc in urcs:
                    if urc.name == "coap sent" and urc.fields["error"] != 0:
                        raise SocketError("the modem could not send the request")
                    if urc.name == "coap response" and _answers(urc, request):
                        return NativeResponse(urc.fields["code"], urc.fields["payload"] or b"")
        raise TimeoutError


class _Socket(UdpSocket):
    """A socket in push mode: datagrams come behind +QIURC: "recv"."""

    async def open(self) -> None:
        """AT+QIOPEN. After an error the number is closed (a host that died may have left it open)
        and tried once more. Raises SocketError.
        """
        refusal = await self._try_open()
        if refusal:
            await self.profile.try_ask("close", socket=self.number)
            refusal = await self._try_open()
        if refusal:
            raise SocketError(f"the modem opens no socket: {refusal}", hint="Is it attached?")

    async def _try_open(self) -> str:
        """Why the socket did not open; empty when it did."""
        try:
            reply = await self.profile.ask(
                "open", socket=self.number, address=IPv4Address(self.address), port=self.port
            )
        except CommandRefused as error:
            return error.result
        code = (reply.outcome or {})["error"]
        return f"{code}, {OPEN_ERRORS.get(code, 'unknown')}" if code else ""

    async def _send(self, data: bytes, release: Release) -> None:
        reply = await self.profile.ask("send", payload=data, socket=self.number, length=len(data))
        result = (reply.outcome or {})["result"]
        if result != "OK":
            raise SocketError(f"the modem did not send the datagram: SEND {result}")

    async def receive(self, seconds: float) -> bytes:
        return await self._next(seconds)

    def _on_urc(self, urc: UrcReceived) -> None:
        if urc.name == "datagram" and urc.fields["socket"] == self.number:
            self._datagrams.put_nowait(urc.data or b"")

    async def _close(self) -> None:
        await self.profile.ask("close", socket=self.number)


def _option_list(request: NativeRequest) -> str:
    """The argument of AT+QCOAPOPTION: the whole list in one command."""
    if CTRL_Z in request.payload:
        raise Unsupported(
            "the payload holds byte 0x1A, which ends the input of the modem's CoAP client",
            hint="Use --coap udp.",
        )
    options = [f'11,"{segment}"' for segment in request.path]
    if request.content_format is not None:
        options.append(f"12,{request.content_format}")
    if len(options) > NATIVE_OPTIONS or any("," in s or '"' in s for s in request.path):
        raise Unsupported("the modem's CoAP client cannot carry this path", hint="Use --coap udp.")
    return f"{len(options)},{','.join(options)}"


def _answers(urc: UrcReceived, request: NativeRequest) -> bool:
    """Is this the response to our request?

    A separate response has the server's own message id, and the URC tells no token: it is ours
    because the client, made anew for each request, has matched it.
    """
    piggybacked = urc.fields["type"] == 2
    return not piggybacked or urc.fields["mid"] == request.mid
