"""BC66, BC66-NA and BC26 (MediaTek MT2625).

Sources: captures named in the comments; facts 0 and 1 (Quectel BC26 AT manual V1.0, drivers,
the Xinyi firmware with the same commands). `from_manual` marks what no capture shows, `own
choice` what no source states.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import ClassVar

from .clock import Handle
from .engine import (
    AtError,
    BadParameter,
    Call,
    Param,
    Result,
    State,
    at,
    split_outside_quotes,
)
from .gsm07 import reading, tests
from .mt2625_gsm import Mt2625Gsm
from .radio import DENIED
from .seam import Kind

BANNER = (  # capture bc66-06
    "F1: 0000 0000",
    "V0: 0000 0000 [0001]",
    "00: 0006 000C",
    "01: 0000 0000",
    "U0: 0000 0001 [0000]",
    "T0: 0000 00B4",
    "Leaving the BROM",
)
_AT = re.compile("AT", re.IGNORECASE | re.ASCII)
_BASIC = re.compile(r"(&?[A-Z])(\d*)", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True)
class Quirks:
    """Ways in which firmware releases differ in captures."""

    cgpaddr: str = "+CGPADDR: "
    qeng_mode: bool = True
    """Does QENG=0 end with the operator mode?"""
    cereg_rac: bool = True
    """Is there a RAC field after AcT in CEREG 4 and 5?"""


QUIRKS: dict[str, Quirks] = {
    # captures bc66-04, bc66-05
    "BC66NBR01A06": Quirks("+CGPADDR:", qeng_mode=False, cereg_rac=False),
}


@dataclass(frozen=True)
class Identity:
    """Texts by which a variant names itself."""

    product: str
    qrst_ok: bool
    """Does QRST=1 answer OK before the banner?"""
    echo: bool


@dataclass
class Settings:
    """What a restart keeps."""

    rate: int | None
    echo: bool
    default_context: tuple[str, ...] = ("IP", "")
    bands: tuple[int, ...] = (0,)
    psm: tuple[int, str, str] = (1, "01000001", "00100011")
    edrx: str = "0011"
    wakeup: int = 0
    time_zone: int = 0
    config: dict[str, str] = field(
        default_factory=lambda: {
            "epco": "1",
            "combinedattach": "0",
            "up": "1",
            "upopt": "1",
            "multidrb": "0",
            "autopdn": "1",
            "ripin": "0",
            "initlocktime": "10",
            "dsevent": "0",
            "atlocktime": "10",
            "urc/ri/mask": "0",
            "vbattimes": "1",
            "activetimer": "0",
        }
    )


class Mt2625Base(Mt2625Gsm):
    """Boot, sleep, parsing, identity, registration, contexts, power saving, UART rate."""

    FAMILY = "mt2625"
    GAP = " "
    CIDS = (1, 15)
    LINE_TOO_LONG = None  # own choice: 536 belongs to HiSilicon
    LINE_LIMIT = 2400  # own choice: QISENDEX with 1024 bytes needs about 2070
    CMEE_LEVELS = (0, 1, 2)
    ECHO = True
    AUTOBAUD = True  # facts 0.1, capture bc66-01: AT again and again until the OK
    BOOT_TIME: ClassVar[float] = 1.7
    """First AT accepted 1.78 s after the banner (capture bc66-06)."""
    BROM_TIME: ClassVar[float] = 0.1
    SEND_OK_TIME: ClassVar[float] = 0.05
    BROM_RATE: ClassVar[int] = 115200
    RATES: ClassVar[tuple[int, ...]] = (0, 2400, 4800, 9600, 19200, 38400, 57600, 115200, 460800)
    SLEEP_LOCK: ClassVar[float] = 10.0
    """The UART stays awake this long after a command."""

    ERROR_TEXTS: ClassVar[dict[int, str]] = {
        3: "operation not allowed",
        4: "operation not supported",
        10: "SIM not inserted",
        11: "SIM PIN required",
        13: "SIM failure",
        14: "SIM busy",
        16: "incorrect password",
        20: "memory full",
        23: "memory failure",
        24: "text string too long",
        25: "invalid characters in text string",
        30: "no network service",
        31: "network timeout",
        32: "network not allowed - emergency calls only",
        50: "incorrect parameters",
        51: "command in progress",
        100: "unknown",
        330: "SMSC address unknown",  # a CMS error
    }
    TESTS: ClassVar[dict[str, str]] = {
        **tests(
            " ",  # from_manual
            CFUN="(0,1,4,7),(0-2)",
            CEREG="(0-5)",
            CMEE="(0,1,2)",
            CSQ="(0-31,99),(0-7,99)",
            CESQ="(0-63,99),(0-7,99),(255),(255),(0-34,255),(0-97,255)",
            QSCLK="(0-2)",
            QRST="(1)",
            QPOWD="(0-2)",
            QATWAKEUP="(0,1)",
            QNBIOTEVENT="(0,1),(1)",
            QIOPEN='(1),(0-4),"UDP","<remote_ip>",<remote_port>,<local_port>,(0,1)',
            QICLOSE="(0-4)",
            QISEND="(0-4),(0-1024)",
            QIRD="(0-4),(1-512)",
            CEDRXS='(0-3),(5),("0000"-"1111")',
        ),
        "+CPIN": "",
    }
    ACCEPTED = frozenset(  # taken with OK in captures bc66-03, bc26-12, bc26-14
        {"+QLWSERV", "+QMTCFG", "+CTZR", "+CTZU", "+IFC", "+ICF"}
    )
    RAW_TAIL: ClassVar[tuple[str, ...]] = ("+QISEND=", "+QCOAPOPTION=")
    """Commands whose last parameter runs to the end of the line, `;` included."""

    # ---------------------------------------------------------------- life

    nv: Settings

    def setup(self) -> None:
        super().setup()
        self.nv = Settings(self.rate, self.echo)
        self.saved_cmee = self.options.cmee
        self.quirks = QUIRKS.get(self.firmware, Quirks())
        self._lock: Handle | None = None
        self.pin_open = self.options.sim == "ready"
        self.reset_volatile()

    @property
    def identity(self) -> Identity:
        assert isinstance(self.model.identity, Identity)
        return self.model.identity

    def reset_volatile(self) -> None:
        """Settings every boot starts with."""
        super().reset_volatile()
        self.cfun = 1
        self.cereg = self.cscon = 0
        self.cops_mode, self.cops_format = 0, 2
        self.sclk = 1
        self.psm_events = 0
        self.contexts: dict[int, tuple[str, str]] = {}
        self.radio.power_saving = self.nv.psm[0] == 1

    def start_ready(self) -> None:
        if self.options.attached:
            self.radio.already_attached()
        elif self.pin_open:
            self.radio.switch_on()
            self.radio.search()

    def cold_boot(self) -> None:
        self.after(self.BROM_TIME, self._print_banner)

    def warm_boot(self, cause: str | None) -> None:
        self.cold_boot()

    def _print_banner(self) -> None:
        self.rate = self.BROM_RATE
        for block in self.boot_text():
            self.emit(block)
        self.after(self.BOOT_TIME, self._up)

    def boot_text(self) -> list[bytes]:
        return [b"\n\r", *(text.encode() + b"\n\r" for text in (*BANNER, ""))]

    def _up(self) -> None:
        self.rate = self.nv.rate
        self.cmee, self.echo = self.saved_cmee, self.nv.echo
        self.reset_volatile()
        self.booted()
        self.pin_open = self.options.sim == "ready"
        self._touch()
        if self.pin_open:
            self.radio.switch_on()
            self.radio.search()

    # --------------------------------------------------------------- sleep

    def _touch(self) -> None:
        """A command holds the UART awake for a while."""
        if self._lock is not None:
            self._lock.cancel()
            self._lock = None
        if self.options.sleep and self.sclk:
            lock = float(self.nv.config["atlocktime"])
            self._lock = self.after(lock, self.fall_asleep)

    def fall_asleep(self) -> None:
        """Let the UART sleep, if nothing runs."""
        self._lock = None
        if self.state is not State.READY or self._busy or not self.sclk:
            return
        if self.deep and self.nv.config["dsevent"] == "1":
            self.urc('+QNBIOTEVENT: "ENTER DEEPSLEEP"')
        self.state = State.ASLEEP

    @property
    def deep(self) -> bool:
        """Would sleep be deep now (only the PSM_EINT pin wakes)?"""
        return self.sclk == 1 and self.radio.psm

    def woken_by_uart(self, data: bytes) -> None:
        """Light sleep: the UART wakes by the bytes, which are lost."""
        if not self.deep:
            self.state = State.READY
            self._touch()

    def wake(self) -> None:
        """Pulse on PSM_EINT."""
        if self.state is not State.ASLEEP:
            return
        self.state = State.READY
        if self.nv.config["dsevent"] == "1" and self.deep:
            self.urc('+QNBIOTEVENT: "EXIT DEEPSLEEP"')
        if self.nv.wakeup:
            self.urc("+QATWAKEUP")  # manual example bc26doc-26
        self._touch()

    def emit(self, data: bytes, kind: Kind = Kind.BANNER, text: str | None = None) -> None:
        if self.state is State.ASLEEP:
            self.state = State.READY  # the modem wakes by itself to report
            self._touch()
        super().emit(data, kind, text)

    # --------------------------------------------------------- radio events

    def on_stat(self) -> None:
        if self.cereg:
            self.urc(self.cereg_urc())
        super().on_stat()

    def cereg_urc(self) -> str:
        return self._cereg_text(f"+CEREG: {self.radio.stat}")

    def on_address(self) -> None:
        self.urc(f"+IP: {self.radio.address}")  # captures bc66-03, bc66-04

    def on_psm(self) -> None:
        if self.psm_events:
            word = "ENTER" if self.radio.psm else "EXIT"
            self.urc(f'+QNBIOTEVENT: "{word} PSM"')

    def urc(self, text: str | bytes, *, early: bool = False, kind: Kind = Kind.URC) -> None:
        if self.state is State.ASLEEP:
            self.state = State.READY
            self._touch()
        super().urc(text, early=early, kind=kind)

    def harmless_urcs(self) -> list[str]:
        urcs = ["+QPING: 569"]  # a late ping result
        if self.radio.address:
            urcs.append(f"+IP: {self.radio.address}")
        return urcs + self.registration_urcs()

    # -------------------------------------------------------------- parsing

    def find_at(self, text: str) -> int | None:
        """V.250: what stands before AT does not count; without AT there is no answer."""
        found = _AT.search(text)
        return found.start() if found else None

    def split_commands(self, text: str) -> list[Call]:
        """V.250: basic commands follow each other, extended ones are separated by `;`."""
        self._touch()
        calls: list[Call] = []
        rest = text.strip(" ")
        while rest:
            if rest[0] in "+*^$#":
                head, rest = self._cut_extended(rest)
                calls.append(self.parse_command(head))
            elif rest[0] == ";":
                rest = rest[1:].strip(" ")
            else:
                call, rest = self._cut_basic(rest)
                calls.append(call)
        return calls

    def _cut_extended(self, text: str) -> tuple[str, str]:
        if text.upper().startswith(self.RAW_TAIL):
            return text, ""
        head = split_outside_quotes(text, ";")[0]
        return head.strip(" "), text[len(head) + 1 :].strip(" ")

    def _cut_basic(self, text: str) -> tuple[Call, str]:
        match = _BASIC.match(text)
        if match is None:
            return Call("?"), ""
        name = match[1].upper()
        rest = text[match.end() :].strip(" ")
        if name == "S" and rest[:1] in ("=", "?"):
            return Call("S=", "exec", rest), ""
        return Call(name, "exec", match[2]), rest

    def parse_arguments(self, name: str, text: str) -> tuple[Param, ...]:
        if name in ("+QISEND", "+QCOAPOPTION"):
            return tuple(Param(part.strip(" ")) for part in text.split(",", 2)[:2])
        return super().parse_arguments(name, text)

    # ------------------------------------------------------- basic commands

    @at("E")
    def ate(self, call: Call) -> None:
        self.echo = call.text == "1"

    @at("V", "X", "&C", "&D", "&K", "Q", "L", "M", "S=")
    def accept_basic(self, call: Call) -> None:
        if call.name in ("V", "Q") and call.text != {"V": "1", "Q": "0"}[call.name]:
            raise AtError()  # numeric or no results: not imitated

    @at("Z", "&F")
    def restore(self, call: Call) -> None:
        if call.name == "&F":
            self.nv.echo, self.saved_cmee = self.ECHO, 0
        self.echo, self.cmee = self.nv.echo, self.saved_cmee

    @at("&W")
    def store(self, call: Call) -> None:
        self.nv.echo, self.saved_cmee = self.echo, self.cmee

    @at("I")
    def ati(self, call: Call) -> None:
        if call.text not in ("", "0"):
            raise AtError()
        self.lines(["Quectel_Ltd", self.identity.product, f"Revision: {self.firmware}"])

    # -------------------------------------------------------------- identity

    @at("+CGMI", "+GMI")
    def cgmi(self, call: Call) -> None:
        self.line("Quectel_Ltd")

    @at("+CGMM", "+GMM")
    def cgmm(self, call: Call) -> None:
        self.line(self.identity.product)

    @at("+CGMR", "+GMR")
    def cgmr(self, call: Call) -> None:
        self.line(f"Revision: {self.firmware}")

    @at("+GSN", "+CGSN")
    def gsn(self, call: Call) -> None:
        self.line(self.options.imei)

    @at("+CGSN=")
    def cgsn(self, call: Call) -> None:
        kind = call.number(0, 0, 3)
        suffix = {0: "", 1: "", 2: "01", 3: "01"}[kind]
        self.line(f"+CGSN: {self.options.imei}{suffix}")

    @at("+CIMI")
    def cimi(self, call: Call) -> None:
        self._need_sim()
        self.line(self.options.imsi)

    @at("+QCCID")
    def qccid(self, call: Call) -> None:
        if self.options.sim == "absent":
            raise AtError(10)
        self.line(f"+QCCID: {self.options.iccid}")

    def _need_sim(self) -> None:
        if self.options.sim == "absent":
            raise AtError(10)
        if not self.pin_open:
            raise AtError(11)

    @at("+CPIN?")
    def read_cpin(self, call: Call) -> None:
        if self.options.sim == "absent":
            raise AtError(10)
        self.line("+CPIN: READY" if self.pin_open else "+CPIN: SIM PIN")

    @at("+CPIN=")
    def set_cpin(self, call: Call) -> None:
        call.count(1, 2)
        if self.options.sim == "absent":
            raise AtError(10)
        if self.pin_open:
            raise AtError(3)
        if call.string(0) != self.options.pin:
            raise AtError(16)
        self.pin_open = True
        if self.cfun == 1:
            self.radio.switch_on()
            self.after_final(self.radio.search)

    @at("+CBC")
    def cbc(self, call: Call) -> None:
        self.line("+CBC: 0,0,3379")

    # ----------------------------------------------------------------- radio

    @at("+CFUN=")
    def set_cfun(self, call: Call) -> Result | None:
        call.count(1, 2)
        wanted, reset = call.number(0, 0, 7), call.number(1, 0, 1, default=0)
        if wanted not in (0, 1, 4, 7):
            raise BadParameter
        if reset:
            self.after_final(self.reboot)
            return None
        if wanted == self.cfun:
            return None
        self.cfun = wanted
        if wanted != 1:
            self.radio.switch_off()
            return None
        if self.options.sim == "absent":
            raise AtError(10)
        if not self.pin_open:  # facts 1.1: OK, then the URC
            self.after_final(lambda: self.urc("+CPIN: SIM PIN"))
            return None
        self.radio.switch_on()
        self.after_final(self.radio.search)
        return None

    @at("+CGATT=")
    def set_cgatt(self, call: Call) -> None:
        wanted = call.number(0, 0, 1)
        self._need_sim()
        if not wanted:
            self.radio.detach()
        elif self.cfun != 1 or self.radio.stat == DENIED:
            raise AtError(3)  # facts 1.2: ERROR after a denied attach
        else:
            self.after_final(self.radio.search)

    @at("+CEREG?")
    def read_cereg(self, call: Call) -> None:
        self.line(self._cereg_text(f"+CEREG: {self.cereg},{self.radio.stat}"))

    def _cereg_text(self, start: str) -> str:
        radio, network, level = self.radio, self.network, self.cereg
        rac = [""] if level >= 4 and self.quirks.cereg_rac else []
        if level < 2:
            return start
        if radio.attached:
            fields = [f'"{network.tac:04X}"', f'"{network.ci:08X}"', "9", *rac]
        elif level == 2:
            return start
        else:  # `2,,,,,0,0` and `3,,,,,0,15` with n=5 (facts 1.2)
            fields = ["", "", "", *rac]
        if level in (3, 5):
            fields += ["0", str(radio.cause)]
        elif level == 4:
            fields += ["", ""]
        if level >= 4 and radio.attached:
            granted = network.active_time is not None
            fields += [f'"{network.t3324}"', f'"{network.t3412}"'] if granted else ["", ""]
        return ",".join([start, *fields])

    @at("+COPS?")
    def read_cops(self, call: Call) -> None:
        if self.radio.attached:
            self.line(f'+COPS: {self.cops_mode},{self.cops_format},"{self.network.plmn}",9')
        else:
            self.line(f"+COPS: {self.cops_mode}")

    @at("+COPS=?")
    def test_cops(self, call: Call) -> None:
        plmn = self.network.plmn
        known = f'(2,"{plmn}","{plmn}","{plmn}",9)' if self.network.covered else ""
        self.line(f"+COPS: {known},,(0-4),(0-2)")

    @at("+COPS=")
    def set_cops(self, call: Call) -> None:
        call.count(1, 4)
        mode = call.number(0, 0, 4)
        self.cops_format = call.number(1, 0, 2, default=self.cops_format)
        if mode == 3:
            return
        if mode in (1, 4) and not call.string(2).isdigit():
            raise BadParameter
        self.cops_mode = mode
        if mode == 2:
            self.radio.detach()
        else:
            self.after_final(self.radio.search)

    @property
    def _camped(self) -> bool:
        return self.cfun == 1 and self.radio.cell_known and self.network.covered

    @at("+CSQ")
    def csq(self, call: Call) -> None:
        signal = self.network.signal
        self.line(f"+CSQ: {signal.csq},{signal.ber}" if self._camped else "+CSQ: 99,99")

    @at("+CESQ")
    def cesq(self, call: Call) -> None:
        signal = self.network.signal
        if not self._camped:
            self.line("+CESQ: 0,0,255,255,0,0")
            return
        level = max(0, min(63, signal.total // 10 + 110))
        rsrq = max(0, min(34, (signal.rsrq + 195) // 5 + 1))
        rsrp = max(0, min(97, signal.power // 10 + 140))
        self.line(f"+CESQ: {level},{signal.ber},255,255,{rsrq},{rsrp}")

    @at("+QENG=")
    def qeng(self, call: Call) -> None:
        kind = call.number(0, 0, 3)
        if kind == 2:
            self.line("+QENG: 3,1000,20,10")  # REN: sleep, rx, tx in 0.1 s
        if kind != 0 or not self._camped:
            return
        signal, network = self.network.signal, self.network
        values = [0, signal.earfcn, signal.earfcn_offset, signal.pci, f'"{network.ci:X}"']
        values += [signal.power // 10, signal.rsrq // 10, signal.total // 10, signal.snr // 10]
        values += [signal.band, f'"{network.tac:04X}"', signal.ecl, signal.tx_power]
        if self.quirks.qeng_mode:
            values.append(2)
        texts = ["+QENG: " + ",".join(map(str, values))]
        for cell in network.neighbours:
            record = f"{cell.earfcn},{cell.pci},{cell.power // 10},{cell.rsrq // 10}"
            texts.append(f"+QENG: 1,{record}")
        self.lines(texts)

    @at("+CCLK?")
    def cclk(self, call: Call) -> None:
        self.line(f'+CCLK: "{self.local_time()}"')

    @at("+QBAND?")
    def read_qband(self, call: Call) -> None:
        self.line("+QBAND: " + ",".join(map(str, self.nv.bands)))

    @at("+QBAND=")
    def set_qband(self, call: Call) -> None:
        count = call.number(0, 0, 20)
        call.count(count + 1, count + 1)
        self.nv.bands = tuple(call.number(index, 1, 85) for index in range(1, count + 1)) or (0,)

    # -------------------------------------------------------------- contexts

    @at("+QCGDEFCONT?")
    def read_default_context(self, call: Call) -> None:
        fields = ",".join(f'"{text}"' for text in self.nv.default_context)
        self.line(f"+QCGDEFCONT: {fields}")  # capture bc66-02

    @at("+QCGDEFCONT=")
    def set_default_context(self, call: Call) -> None:
        call.count(1, 4)
        if call.quoted(0).upper() not in ("IP", "IPV6", "IPV4V6", "NON-IP"):
            raise BadParameter
        self.nv.default_context = tuple(call.quoted(index) for index in range(len(call)))

    @at("+CGDCONT?")
    def read_cgdcont(self, call: Call) -> None:
        contexts = dict(self.contexts)
        kind, apn = (*self.nv.default_context, "")[:2]
        contexts.setdefault(1, (kind, apn or self.network.apn))
        self.lines([self._context_line(cid, *contexts[cid]) for cid in sorted(contexts)])

    def _context_line(self, cid: int, kind: str, apn: str) -> str:
        address = self.radio.address if cid == 1 and self.radio.address else ""
        return f'+CGDCONT: {cid},"{kind}","{apn}","{address}",0,0,0,,,,,,0,,0'

    @at("+CGDCONT=?")
    def test_cgdcont(self, call: Call) -> None:  # manual example bc26doc-20
        tail = ",,,(0-2),(0-4),(0),,,,,,(0-1),,(0-1)"
        kinds = ("IP", "IPV6", "IPV4V6", "Non-IP")
        self.lines([f'+CGDCONT: (1-15), "{kind}"{tail}' for kind in kinds])

    @at("+CGDCONT=")
    def set_cgdcont(self, call: Call) -> None:
        cid = call.number(0, 1, 15)
        if len(call) == 1:
            self.contexts.pop(cid, None)
            return
        self.contexts[cid] = (call.quoted(1), call.quoted(2, default=""))

    @at("+CGPADDR", "+CGPADDR?", "+CGPADDR=")
    def cgpaddr(self, call: Call) -> None:
        cid = call.number(0, 1, 15, default=1) if call.form == "set" else 1
        if cid == 1 and self.radio.address:
            self.line(f"{self.quirks.cgpaddr}1,{self.radio.address}")
        elif call.form == "set":
            self.line(f"{self.quirks.cgpaddr}{cid}")

    @at("+CGPADDR=?")
    def test_cgpaddr(self, call: Call) -> None:
        self.line("+CGPADDR: (1)" if self.radio.address else "+CGPADDR: ()")

    @at("+CGACT?")
    def read_cgact(self, call: Call) -> None:
        self.line(f"+CGACT: 1,{int(self.radio.attached)}")

    @at("+QGACT=")
    def qgact(self, call: Call) -> None:  # facts 1.2; manual example bc26doc-24
        call.count(2, 5)
        wanted, cid = call.number(0, 0, 1), call.number(1, 1, 15)
        self.line(f"+QGACT: {cid}")
        if wanted:
            result = int(self.radio.attached)
            self.after(0.1, lambda: self.urc(f"+QGACT: {cid},1,{result}"))
        else:
            self.after(0.1, lambda: self.urc(f"+QGACT: {cid},0,1"))

    # ---------------------------------------------------------- power saving

    @at("+CPSMS?")
    def read_cpsms(self, call: Call) -> None:
        mode, tau, active = self.nv.psm
        self.line(f'+CPSMS: {mode},,,"{tau}","{active}"')

    @property
    def edrx(self) -> str:
        return self.nv.edrx

    @edrx.setter
    def edrx(self, bits: str) -> None:
        self.nv.edrx = bits

    read_qsclk = reading("+QSCLK", "sclk")

    @at("+QSCLK=")
    def set_qsclk(self, call: Call) -> None:
        call.count(1, 1)
        self.sclk = call.number(0, 0, 2)
        self._touch()

    @at("+QRELLOCK")
    def qrellock(self, call: Call) -> None:
        if self.options.sleep:
            self.after_final(self._release_lock)

    def _release_lock(self) -> None:
        if self._lock is not None:
            self._lock.cancel()
        self._lock = self.after(0.0, self.fall_asleep)

    read_qatwakeup = reading("+QATWAKEUP", "nv.wakeup")

    @at("+QATWAKEUP=")
    def set_qatwakeup(self, call: Call) -> None:
        self.nv.wakeup = call.number(0, 0, 1)

    @at("+QNBIOTEVENT?")
    def read_event(self, call: Call) -> None:
        self.line(f"+QNBIOTEVENT: {self.psm_events},1")

    @at("+QNBIOTEVENT=")
    def set_event(self, call: Call) -> None:
        call.count(1, 2)
        call.number(1, 0, 1, default=1)
        self.psm_events = call.number(0, 0, 1)

    @at("+QCFG=")
    def qcfg(self, call: Call) -> None:
        name = call.quoted(0).lower()
        if name not in self.nv.config:
            raise AtError()
        if len(call) == 1:
            self.line(f'+QCFG: "{name}",{self.nv.config[name]}')
            return
        value = ",".join(param.text for param in call.params[1:])
        if not value.replace(",", "").isdigit():
            raise BadParameter
        self.nv.config[name] = value

    @at("+QRST=")
    def qrst(self, call: Call) -> Result | None:
        call.number(0, 1, 1)
        says_ok = self.options.qrst_ok
        if self.identity.qrst_ok if says_ok is None else says_ok:  # capture bc26-12
            self.after_final(self.reboot)
            return None
        self.reboot()  # capture bc66-02: the banner comes at once
        return Result.SILENT

    @at("+QPOWD=")
    def qpowd(self, call: Call) -> None:
        call.number(0, 0, 2)
        self.after_final(self.power_off)

    @at("+IPR?")
    def read_ipr(self, call: Call) -> None:
        self.line(f"+IPR: {self.nv.rate or 0}")

    @at("+IPR=?")
    def test_ipr(self, call: Call) -> None:
        self.line(f"+IPR: ({','.join(map(str, self.RATES))})")

    @at("+IPR=")
    def set_ipr(self, call: Call) -> None:
        rate = call.number(0, 0, 10**6)
        if rate not in self.RATES:
            raise BadParameter

        def switch() -> None:
            self.nv.rate = rate or None
            self.rate = rate or None

        self.after_final(switch)
