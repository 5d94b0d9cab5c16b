"""BC95 (HiSilicon Hi2110, "V100") and BC95-G, BC68, BC28, BC35-G (Hi2115, "V150").

Sources: captures named in the comments; Quectel BC95 AT manual V1.8 and V1.9; strings of the
V150 SDK. `from_manual` marks what no capture shows, `own choice` what no source states.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .engine import AtError, BadParameter, Call, Result, at
from .gsm07 import Gsm07, setting, tests
from .network import is_ipv4
from .radio import DENIED

WATCHDOG = "APPLICATION_WATCHDOG"
UNKNOWN = -32768
"""NUESTATS value of something not measured (N210 test double)."""

CONFIG_V100: dict[str, str] = {  # capture bc95-b657sp3-exact-bytes
    "AUTOCONNECT": "TRUE",
    "CR_0354_0338_SCRAMBLING": "TRUE",
    "CR_0859_SI_AVOID": "TRUE",
    "COMBINE_ATTACH": "FALSE",
    "CELL_RESELECTION": "FALSE",
    "ENABLE_BIP": "FALSE",
}
CONFIG_V150: dict[str, str] = CONFIG_V100 | {  # key names from the SDK; values from_manual
    "CELL_RESELECTION": "TRUE",
    "MULTITONE": "TRUE",
    "NAS_SIM_POWER_SAVING_ENABLE": "TRUE",
    "BARRING_RELEASE_DELAY": "64",
    "RELEASE_VERSION": "13",
    "RPM": "FALSE",
    "SYNC_TIME_PERIOD": "0",
    "IPV6_GET_PREFIX_TIME": "15",
    "NB_CATEGORY": "1",
    "RAI": "FALSE",
    "HEAD_COMPRESS": "FALSE",
    "RLF_UPDATE": "FALSE",
    "CONNECTION_REESTABLISHMENT": "FALSE",
    "TWO_HARQ": "FALSE",
    "PCO_IE_TYPE": "EPCO",
    "T3324_T3412_EXT_CHANGE_REPORT": "FALSE",
    "NON_IP_NO_SMS_ENABLE": "FALSE",
    "SUPPORT_SMS": "TRUE",
}


CONFIG_BEFORE_B657 = dict(list(CONFIG_V100.items())[:3])  # capture bc95-timestamps-2017-07

BEFORE_B657 = ("V100R100C10B650", "V100R100C10B656")
"""Beginnings of V100 version texts older than B657."""
WITHOUT_BAND = ("V150R100C20B300SP2",)
"""V150 releases whose NUESTATS has no CURRENT BAND (capture hi2115-b300sp2-stats-nmgs)."""


@dataclass(frozen=True)
class Identity:
    """Texts by which a variant names itself."""

    cgmm: str
    ati: tuple[str, ...]
    """Lines of ATI; empty: no ATI."""
    radio: str
    """RADIO line of CGMR."""
    release: str
    """Quectel's own version text (ATI, QGMR)."""
    ssb: str = ""
    cgmr_joined: bool = False
    bands: tuple[int, ...] = (8,)
    all_bands: tuple[int, ...] = (1, 3, 5, 8, 20, 28)


@dataclass
class Settings:
    """What a reboot keeps (non-volatile memory)."""

    config: dict[str, str]
    bands: tuple[int, ...]
    rate: int
    cdp: tuple[str, int] | None = None
    register_mode: int = 1
    psm: tuple[int, str, str] = (1, "01000011", "00000101")


class HisiliconBase(Gsm07):
    """Boot, identity, registration, contexts, statistics, ping, UART rate; as on V100."""

    FAMILY = "hisilicon"
    BAD_PARAMETER = 50
    NO_SUCH_FORM = 50  # capture bc35g-ident
    OK_PER_COMMAND = True  # facts 1.5: BC68 and SARA-N210 field logs
    LINE_LIMIT = 1100  # own choice: NSOSTF with 512 bytes needs about 1070
    RATES: ClassVar[tuple[int, ...]] = (4800, 9600, 57600, 115200)
    CONFIG: ClassVar[dict[str, str]] = CONFIG_V100
    NOT_POWERED: ClassVar[int] = 4
    NO_SIM: ClassVar[int] = 4
    SIM_LOCKED: ClassVar[int] = 4
    BOOT_TIME: ClassVar[float] = 4.5
    """RTT waits 5 s before it polls."""
    SIM_TIME: ClassVar[float] = 4.0
    """CIMI fails this long after CFUN=1 (Quectel BC95 AT manual V1.8, 9.1)."""
    CFUN_TIME: ClassVar[float] = 0.5
    JUNK: ClassVar[bytes] = b"0\xc0\xfe\x9f"  # capture bc95-b657sp1-reboot: `0???`
    DEFAULT_CONTEXT: ClassVar[str] = "IP"
    CONTEXT_TAIL: ClassVar[str] = ",,0,0"  # capture calliope-bc95-cgdcont

    TESTS: ClassVar[dict[str, str]] = {
        **tests(
            "",  # from_manual
            CFUN="(0,1),(0,1)",
            CSQ="(0-31,99),(99)",
            CEREG="(0,1,2,3,4,5)",
            CMEE="(0,1)",
            NPSMR="(0,1)",
            CGPADDR="(0)",
            CGDCONT='(0-10),("IP","NONIP"),,,(0),(0),,,,,(0,1)',
            CEDRXS='(0,1,2,3),(5),("0000"-"1111")',
            NSMI="(0,1)",
            NNMI="(0,1,2)",
        ),
        "+NUESTATS": "NUESTATS:(RADIO,CELL,BLER,THP,APPSMEM,ALL)",
    }
    ACCEPTED = frozenset(
        {"+NEARFCN", "+NLOGLEVEL", "+NPOWERCLASS", "+NTSETID", "+QSECSWT", "+QSETPSK"}
    )

    nv: Settings

    def setup(self) -> None:
        options, identity = self.options, self.identity
        old = self.firmware.startswith(BEFORE_B657)
        config = dict(CONFIG_BEFORE_B657 if old else self.CONFIG)
        if options.autoconnect is not None:
            config["AUTOCONNECT"] = str(options.autoconnect).upper()
        self.nv = Settings(config, options.bands or identity.bands, self.rate or self.model.rate)
        self.cfun = 0
        self.sim_ready = False
        self.reset_volatile()

    def start_ready(self) -> None:
        options = self.options
        if options.attached:
            self.cfun = 1
            self.sim_ready = options.sim == "ready"
            self.radio.already_attached()
            self.context_up()

    @property
    def identity(self) -> Identity:
        assert isinstance(self.model.identity, Identity)
        return self.model.identity

    def reset_volatile(self) -> None:
        """Settings every boot starts with."""
        self.echo = self.ECHO if self.options.echo is None else self.options.echo
        self.cereg = self.cscon = self.npsmr = 0
        self.nsonmi = 1
        self.nsmi = self.nnmi = 0
        self.nmgs = {"PENDING": 0, "SENT": 0, "ERROR": 0}
        self.nmgr: list[bytes] = []
        self.nmgr_total = self.nmgr_dropped = 0
        self.contexts: dict[int, tuple[str, str]] = {}
        self.bearer: int | None = None
        self.attaching = False
        self.cops_mode = 0
        self.cops_plmn = ""
        self.edrx = "0101"
        self.server_ready = False
        self.active_config = dict(self.nv.config)
        self.radio.power_saving = self.nv.psm[0] == 1
        if self.autoconnect:
            self.contexts[0] = (self.DEFAULT_CONTEXT, "")

    @property
    def autoconnect(self) -> bool:
        return self.active_config["AUTOCONNECT"] == "TRUE"

    # ---------------------------------------------------------------- boot

    def cold_boot(self) -> None:
        cause = self.options.boot_cause or self.power_on_cause()
        self.after(self.BOOT_TIME, lambda: self._print_banner(cause))

    def power_on_cause(self) -> str | None:
        return None  # Quectel BC95 AT manual V1.9, ch. 8: none after power-up

    def warm_boot(self, cause: str | None) -> None:
        full = f"REBOOT_CAUSE_{(cause or WATCHDOG).removeprefix('REBOOT_CAUSE_')}"
        self.after(self.BOOT_TIME * 0.2, lambda: self.emit(self.JUNK))
        self.after(self.BOOT_TIME, lambda: self._print_banner(full))

    def _print_banner(self, cause: str | None) -> None:
        self.rate = self.nv.rate
        for block in self._banner_blocks(cause):
            self.emit(block)
        self.cmee = self.options.cmee
        self.reset_volatile()
        self.booted()
        self.cfun, self.sim_ready = 0, False
        if self.autoconnect and self.options.sim != "absent":
            self._switch_on()
            self._auto_search()

    def banner(self, cause: str | None) -> list[list[str]]:
        """Blocks of the boot banner; each is framed by CR LF."""
        return [*([[cause]] if cause else []), ["Neul "], ["OK"]]

    def _banner_blocks(self, cause: str | None) -> list[bytes]:
        return [b"\r\n" + "\r\n".join(lines).encode() + b"\r\n" for lines in self.banner(cause)]

    def boot_text(self) -> list[bytes]:
        return [self.JUNK, *self._banner_blocks(f"REBOOT_CAUSE_{WATCHDOG}")]

    @at("+NRB")
    def nrb(self, call: Call) -> Result:
        self.line("REBOOTING")
        self.reboot("APPLICATION_AT")
        return Result.SILENT

    # ------------------------------------------------------- radio events

    def on_stat(self) -> None:
        if self.radio.attached or self.radio.stat == DENIED:
            self.attaching = False
        if self.radio.stat == 0:
            self.bearer = None
        if self.cereg:
            self.urc(self.cereg_urc())

    def on_address(self) -> None:
        self.context_up()

    def context_up(self) -> None:
        """The address goes to context 0, or to the lowest one the host defined."""
        if not self.contexts:
            self.contexts[0] = (self.DEFAULT_CONTEXT, "")
        self.bearer = min(self.contexts)

    def on_psm(self) -> None:
        if self.npsmr:
            self.urc(f"+NPSMR:{int(self.radio.psm)}")

    def harmless_urcs(self) -> list[str]:
        # The first: facts 6.11, a late ping result, seen inside NSORF.
        urcs = ["+NPINGERR:1", *self.registration_urcs()]
        if self.npsmr:
            urcs.append(f"+NPSMR:{int(self.radio.psm)}")
        return urcs

    def own_urc(self, name: str) -> str | None:
        if name == "+NPSMR":
            return f"+NPSMR:{int(self.radio.psm)}"
        return super().own_urc(name)

    # ------------------------------------------------------------ identity

    @at("E0", "E1")
    def ate(self, call: Call) -> None:
        self.echo = call.name == "E1"

    @at("E")
    def ate_default(self, call: Call) -> None:
        self.echo = False

    @at("I")
    def ati(self, call: Call) -> None:
        self.lines([text.format(release=self.identity.release) for text in self.identity.ati])

    @at("+CGMI")
    def cgmi(self, call: Call) -> None:
        self.line("Quectel")

    @at("+CGMM")
    def cgmm(self, call: Call) -> None:
        self.line(self.identity.cgmm)

    @at("+CGMR")
    def cgmr(self, call: Call) -> None:
        texts = [f"{part},{version}" for part, version in self.versions()]
        if self.identity.cgmr_joined:  # capture bc35g-ident
            self.lines(texts)
            return
        for text in texts:  # capture bc95-b657sp3-exact-bytes
            self.line(text)

    def versions(self) -> list[tuple[str, str]]:
        parts = ("SECURITY", "PROTOCOL", "APPLICATION", "SEC_UPDATER", "APP_UPDATER")
        return [*((part, self.firmware) for part in parts), ("RADIO", self.identity.radio)]

    @at("+CGSN=")
    def cgsn(self, call: Call) -> None:
        call.count(1, 1)
        if call.number(0, 0, 3) == 0:
            raise BadParameter  # Quectel BC95 AT manual V1.9, 3.6: no serial number
        self.line(f"+CGSN:{self.options.imei}")

    @at("+CGSN")
    def cgsn_exec(self, call: Call) -> None:
        raise BadParameter

    @at("+CIMI")
    def cimi(self, call: Call) -> None:
        if self.options.sim == "pin" and self.cfun:
            raise AtError(self.SIM_LOCKED)
        if self.options.sim == "absent":
            raise AtError(self.NO_SIM)
        if not self.sim_ready:
            raise AtError(4)
        self.line(self.options.imsi)

    @at("+NCCID", "+NCCID?")
    def nccid(self, call: Call) -> None:
        if self.options.sim != "absent":  # else no data line: BC95 AT manual V1.9, 5.15
            self.line(f"+NCCID:{self.options.iccid}")

    # -------------------------------------------------------------- radio

    @at("+CFUN=")
    def set_cfun(self, call: Call) -> Result | None:
        call.count(1, 2)
        wanted = call.number(0, 0, 1)
        call.number(1, 0, 1, default=0)
        if wanted == self.cfun:
            return None  # capture bc95g-lupyuen-reopen-while-attached
        if not wanted:
            self._switch_off()
            return None
        if self.options.sim == "absent":
            raise AtError(self.NO_SIM)
        self.after(self.CFUN_TIME, self._cfun_on)
        return Result.PENDING

    def _cfun_on(self) -> None:
        self._switch_on()
        self.tell_cfun_on()
        self._auto_search()
        self.finish()

    def _auto_search(self) -> None:
        if self.autoconnect and self.options.sim == "ready":
            self.radio.search()

    def tell_cfun_on(self) -> None:
        """What CFUN=1 prints before its OK."""

    def _switch_on(self) -> None:
        self.cfun = 1
        self.radio.switch_on()
        if self.options.sim == "ready":
            self.after(self.SIM_TIME, self._sim_up)

    def _sim_up(self) -> None:
        self.sim_ready = self.cfun == 1

    def _switch_off(self) -> None:
        self.cfun, self.sim_ready, self.attaching = 0, False, False
        self.radio.switch_off()

    @at("+CGATT=")
    def set_cgatt(self, call: Call) -> None:
        call.count(1, 1)
        wanted = call.number(0, 0, 1)
        if not self.cfun:
            raise AtError(self.NOT_POWERED)
        if self.attaching or (self.options.strict_sim and not self.sim_ready):
            raise AtError(4)  # Quectel BC95 AT manual V1.9, 3.13 note 4
        if not wanted:
            self.radio.detach()
            return
        self.cops_mode = 0
        self._attach()

    def _attach(self) -> None:
        if self.radio.attached or self.options.sim != "ready":
            return
        self.attaching = not self.radio.searching
        self.radio.search()

    @at("+CEREG?")
    def read_cereg(self, call: Call) -> None:
        self.line(f"+CEREG:{self.cereg},{self._cereg_fields()}")

    def cereg_urc(self) -> str:
        return f"+CEREG:{self._cereg_fields()}"

    def _cereg_fields(self) -> str:
        radio, network = self.radio, self.network
        fields = str(radio.stat)
        if self.cereg >= 2:  # captures bc68-attach-udp-echo, bc28-mbed-cereg-urc-race
            tac, ci = (network.tac, network.ci) if radio.cell_known else (0, 0)
            fields += f",{tac:04X},{ci:08X},9"
        if self.cereg in (3, 5):
            fields += f",0,{radio.cause}" if radio.stat == DENIED else ",,"
        if self.cereg == 4:
            fields += ",,"
        if self.cereg >= 4:  # four empty fields: fixture korean-cereg-nuestats-fixture
            granted = network.active_time is not None and radio.attached
            fields += f",{network.t3324},{network.t3412}" if granted else ",,"
        return fields

    @at("+NPSMR?")
    def read_npsmr(self, call: Call) -> None:
        mode = f",{int(self.radio.psm)}" if self.npsmr else ""
        self.line(f"+NPSMR:{self.npsmr}{mode}")

    set_npsmr = setting("+NPSMR", "npsmr", 1)

    @at("+COPS?")
    def read_cops(self, call: Call) -> None:
        if self.radio.attached:
            self.line(f'+COPS:{self.cops_mode},2,"{self.network.plmn}"')
        else:
            self.line(f"+COPS:{self.cops_mode}")  # from_manual

    @at("+COPS=?")
    def test_cops(self, call: Call) -> None:
        known = f'(1,,,"{self.network.plmn}"),' if self.network.covered else ","
        self.line(f"+COPS:{known},(0-2),(2)")

    @at("+COPS=")
    def set_cops(self, call: Call) -> None:
        call.count(1, 3)
        mode = call.number(0, 0, 2)
        if mode == 1:  # capture bc68-attach-udp-echo: OK at once, then the URCs
            call.number(1, 2, 2)
            self.cops_plmn = call.quoted(2)
            if not (self.cops_plmn.isdigit() and len(self.cops_plmn) in (5, 6)):
                raise BadParameter
        if not self.cfun:
            raise AtError(self.NOT_POWERED)
        self.cops_mode = mode
        if mode == 2:
            self.radio.detach()
        elif self.options.sim == "ready":
            self.radio.search()

    @at("+CSQ")
    def csq(self, call: Call) -> None:
        known = self.cfun and self.network.covered and self.radio.cell_known
        self.line(f"+CSQ:{self.network.signal.csq if known else 99},99")

    @at("+CPSMS?")
    def read_cpsms(self, call: Call) -> None:
        mode, tau, active = self.nv.psm
        self.line(f"+CPSMS:{mode},,,{tau},{active}" if mode else "+CPSMS:0")

    @at("+CCLK?")
    def cclk(self, call: Call) -> None:
        if not self.radio.attached:
            return  # only OK while there is no time: BC95 AT manual V1.9, 3.19
        self.line(f"+CCLK:{self.local_time()}")

    @at("+NBAND?")
    def read_nband(self, call: Call) -> None:
        self.line("+NBAND:" + ",".join(map(str, self.nv.bands)))

    @at("+NBAND=?")
    def test_nband(self, call: Call) -> None:  # capture bc35g-tcp-nsosd
        self.line("+NBAND:(" + ",".join(map(str, self.identity.all_bands)) + ")")

    @at("+NBAND=")
    def set_nband(self, call: Call) -> None:
        call.count(1, len(self.identity.all_bands))
        bands = tuple(call.number(index, 1, 85) for index in range(len(call)))
        if not set(bands) <= set(self.identity.all_bands):
            raise BadParameter
        if self.cfun:
            raise AtError(4)  # from_manual: with CFUN=0 only
        self.nv.bands = bands

    @at("+NCONFIG?")
    def read_nconfig(self, call: Call) -> None:
        self.lines([f"+NCONFIG:{key},{value}" for key, value in self.nv.config.items()])

    @at("+NCONFIG=?")
    def test_nconfig(self, call: Call) -> None:  # BC95 AT manual V1.9: joined list
        flags = [key for key, value in self.nv.config.items() if value in ("TRUE", "FALSE")]
        self.lines([f"+NCONFIG:({key},(FALSE,TRUE))" for key in flags])

    @at("+NCONFIG=")
    def set_nconfig(self, call: Call) -> None:
        call.count(2, 2)
        key, value = call.word(0).upper(), call.word(1).upper()
        old = self.nv.config.get(key)
        if old is None or (old in ("TRUE", "FALSE")) != (value in ("TRUE", "FALSE")):
            raise BadParameter
        self.nv.config[key] = value  # takes effect at the next boot

    @at("+NCSEARFCN")
    def ncsearfcn(self, call: Call) -> None:
        return None

    # ------------------------------------------------------------- contexts

    @at("+CGDCONT?")
    def read_cgdcont(self, call: Call) -> None:  # joined: capture bc28-mbed-cereg-urc-race
        self.lines([self._context_line(cid) for cid in sorted(self.contexts)])

    def _context_line(self, cid: int) -> str:
        kind, apn = self.contexts[cid]
        if cid == self.bearer and not apn:
            apn = self.network.apn
        shown = f'"{apn}"' if apn else ""
        return f'+CGDCONT:{cid},"{kind}",{shown}{self.CONTEXT_TAIL}'

    @at("+CGDCONT=")
    def set_cgdcont(self, call: Call) -> None:
        cid = call.number(0, 0, 10)
        if cid == 0 and self.autoconnect:
            raise AtError(4)  # BC95 AT manual V1.9, 3.11 note 4: read-only
        if len(call) == 1:
            self.contexts.pop(cid, None)
            return
        kind = call.quoted(1).upper()
        if kind not in ("IP", "IPV6", "IPV4V6", "NONIP"):
            raise BadParameter
        self.contexts[cid] = (kind, call.quoted(2, default=""))

    @at("+CGACT?")
    def read_cgact(self, call: Call) -> None:
        self.lines([f"+CGACT:{cid},{int(cid == self.bearer)}" for cid in sorted(self.contexts)])

    def need_context(self, cid: int) -> None:
        if cid not in self.contexts:
            raise AtError(4)

    @at("+CGPADDR")
    def cgpaddr(self, call: Call) -> None:
        self._print_addresses(sorted(self.contexts))

    @at("+CGPADDR=")
    def cgpaddr_of(self, call: Call) -> None:
        cids = [call.number(index, 0, 10) for index in range(len(call))]
        self._print_addresses([cid for cid in cids if cid in self.contexts])

    def _print_addresses(self, cids: list[int]) -> None:
        texts = []
        for cid in cids:
            if cid == self.bearer and self.radio.address:
                texts.append(f"+CGPADDR:{cid},{self.radio.address}")
            elif not (cid == 0 and self.autoconnect):
                texts.append(f"+CGPADDR:{cid}")  # facts 3: mbed-os#9046
        self.print_address_lines(texts)

    def print_address_lines(self, texts: list[str]) -> None:
        self.lines(texts)

    # ----------------------------------------------------------- statistics

    @at("+NUESTATS")
    def nuestats(self, call: Call) -> None:
        self.lines([f"{name}:{value}" for name, value in self.radio_stats()])

    def radio_stats(self) -> list[tuple[str, int]]:
        signal = self.network.signal
        if not (self.cfun and self.radio.cell_known and self.network.covered):
            return self._no_stats()
        return [
            ("Signal power", signal.power),
            ("Total power", signal.total),
            ("TX power", signal.tx_power),
            ("TX time", signal.tx_time),
            ("RX time", signal.rx_time),
            ("Cell ID", signal.cell_id),
            ("ECL", signal.ecl),
            ("SNR", signal.snr),
            ("EARFCN", signal.earfcn),
            ("PCI", signal.pci),
            ("RSRQ", signal.rsrq),
        ]

    def _no_stats(self) -> list[tuple[str, int]]:
        """Nothing measured yet (N210 test double)."""
        return [
            ("Signal power", UNKNOWN),
            ("Total power", UNKNOWN),
            ("TX power", UNKNOWN),
            ("TX time", 0),
            ("RX time", 0),
            ("Cell ID", 4294967295),
            ("ECL", 255),
            ("SNR", UNKNOWN),
            ("EARFCN", 4294967295),
            ("PCI", 65535),
            ("RSRQ", UNKNOWN),
        ]

    @at("+NUESTATS=")
    def nuestats_of(self, call: Call) -> None:
        call.count(1, 1)
        kind = call.word(0).upper()
        if kind == "CELL":
            self._cell_stats()
        elif kind == "ALL":
            self.lines(self._typed_stats("RADIO"))
            self._cell_stats()
            for name in ("BLER", "THP"):
                self.lines(self._typed_stats(name))
        elif kind in ("RADIO", "BLER", "THP", "APPSMEM"):
            self.lines(self._typed_stats(kind))
        else:
            raise BadParameter

    def _cell_stats(self) -> None:
        signal = self.network.signal
        if not self.radio.cell_known:
            return
        # Wrapped, serving cell first: captures bc68-magenta-public and -gateway.
        self.line(
            f"NUESTATS:CELL,{signal.earfcn},{signal.pci},1,{signal.power},{signal.rsrq},"
            f"{signal.total},{signal.snr}"
        )
        for cell in self.network.neighbours:
            self.line(
                f"NUESTATS:CELL,{cell.earfcn},{cell.pci},0,{cell.power},{cell.rsrq},"
                f"{cell.total},{cell.snr}"
            )

    def _typed_stats(self, kind: str) -> list[str]:
        """Typed statistics; RADIO per facts 3, the others from_manual (V1.9 example values)."""
        if kind == "RADIO":
            return [f"NUESTATS:RADIO,{name}:{value}" for name, value in self.radio_stats()]
        return [f"NUESTATS:{kind},{name},{value}" for name, value in _STATS[kind]]

    # ----------------------------------------------------------------- ping

    @at("+NPING=")
    def nping(self, call: Call) -> None:
        call.count(1, 3)
        address = self.address(call, 0)
        call.number(1, 8, 1460, default=12)
        timeout = call.number(2, 10, 60000, default=10000)
        milliseconds = self.network.ping.get(address, self.network.ping_ms)
        if not self.radio.attached:
            self.after(0.1, lambda: self.urc("+NPINGERR:2"))
        elif milliseconds is None or milliseconds > timeout:
            self.radio.activity()
            self.after(timeout / 1000, lambda: self.urc("+NPINGERR:1"))
        else:
            text = f"+NPING:{address},{self.network.ping_ttl},{milliseconds}"
            self.after_final(self.radio.activity)
            self.after(milliseconds / 1000, lambda: self.urc(text))

    # -------------------------------------------------------------- UART

    @at("+NATSPEED?")
    def read_natspeed(self, call: Call) -> None:
        self.line(f"+NATSPEED:{self.rate},2,1")

    @at("+NATSPEED=?")
    def test_natspeed(self, call: Call) -> None:
        rates = ",".join(map(str, self.RATES))
        self.line(f"+NATSPEED:({rates}),(0-30),(0,1),(0-3),(1,2)")

    @at("+NATSPEED=")
    def set_natspeed(self, call: Call) -> None:
        call.count(1, 7)
        rate = call.number(0, 1, 10**6)
        timeout = call.number(1, 0, 30, default=3) or 3
        store = bool(call.number(2, 0, 1, default=1))
        for index, high in ((3, 3), (5, 2), (6, 1)):
            call.number(index, 0, high, default=0)
        call.number(4, 1, 2, default=1)
        if rate not in self.RATES:
            raise BadParameter
        self.after_final(lambda: self._try_rate(rate, timeout, store))

    def _try_rate(self, rate: int, timeout: int, store: bool) -> None:
        """Switch after OK; fall back unless a command arrives at the new rate in time."""
        old, self.rate = self.rate, rate
        understood = self.counters.understood

        def check() -> None:
            if self.counters.understood == understood:
                self.rate = old
            elif store:
                self.nv.rate = rate

        self.after(timeout, check)

    def address(self, call: Call, index: int) -> str:
        address = call.word(index)
        if not is_ipv4(address):
            raise BadParameter
        return address


_STATS: dict[str, list[tuple[str, int]]] = {
    "THP": [("RLC UL", 100), ("RLC DL", 98), ("MAC UL", 103), ("MAC DL", 100)],
    "BLER": [
        ("RLC UL BLER", 10),
        ("RLC DL BLER", 5),
        ("MAC UL BLER", 8),
        ("MAC DL BLER", 3),
        ("Total TX bytes", 1080),
        ("Total RX bytes", 900),
        ("Total TX blocks", 80),
        ("Total RX blocks", 80),
        ("Total RTX blocks", 100),
        ("Total ACK/NACK RX", 100),
    ],
    "APPSMEM": [  # from_manual
        ("Current Allocated", 46108),
        ("Total Free", 18872),
        ("Max Free", 17496),
        ("Num Allocs", 1340),
        ("Num Frees", 1110),
    ],
}
