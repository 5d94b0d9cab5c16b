"""BC95 (HiSilicon Hi2110, "V100") and BC95-G, BC68, BC28, BC35-G (Hi2115, "V150").

Sources: captures named in the comments; Quectel BC95 AT manual V1.8 and V1.9; strings of the
V150 SDK. `from_manual` marks what no capture shows, `own choice` what no source states.
"""

from __future__ import annotations

from typing import ClassVar

from .engine import AtError, BadParameter, Call, Model, at, parse_hex
from .gsm07 import reading, setting
from .hisilicon_base import CONFIG_V150, WITHOUT_BAND, Identity
from .hisilicon_sockets import Datagram, HisiliconSockets, Socket


class Bc95(HisiliconSockets):
    """BC95, V100R100C10B657 generation."""

    # ------------------------------------------------- CDP (Huawei platform)

    MESSAGES: ClassVar[int] = 8  # own choice: no source says how many NMGR keeps

    @at("+NCDP?")
    def read_ncdp(self, call: Call) -> None:
        if self.nv.cdp is None:
            raise AtError(4)
        self.line(f"+NCDP:{self.nv.cdp[0]},{self.nv.cdp[1]}")

    @at("+NCDP=")
    def set_ncdp(self, call: Call) -> None:
        call.count(1, 2)
        port = call.number(1, 0, 65535, default=0) or 5683
        self.nv.cdp = (self.address(call, 0), port)

    @at("+NMGS=")
    def set_nmgs(self, call: Call) -> None:
        call.count(2, 2)
        length = call.number(0, 1, 512)
        if len(parse_hex(call.word(1))) != length:
            raise BadParameter
        self.need_platform()
        self.nmgs["SENT"] += 1
        if self.nsmi:  # captures hi2115-b300sp2-stats-nmgs, bc95-b657sp5-oceanconnect
            self.after(self.network.latency + 0.1, lambda: self.urc("+NSMI:SENT"))

    def need_platform(self) -> None:
        if self.nv.cdp is None:
            raise AtError(512)
        if not self.radio.attached:
            raise AtError(513)

    @at("+NMGR")
    def exec_nmgr(self, call: Call) -> None:
        if self.nmgr:
            data = self.nmgr.pop(0)
            self.line(f"{len(data)},{data.hex().upper()}")

    def platform_message(self, data: bytes) -> None:
        """A message from the platform arrives (NMGR, NNMI)."""
        self.nmgr_total += 1
        if self.nnmi == 1:
            self.urc(f"+NNMI:{len(data)},{data.hex().upper()}")
            return
        if len(self.nmgr) >= self.MESSAGES:  # own choice: the newest is dropped, as in sockets
            self.nmgr_dropped += 1
            return
        self.nmgr.append(data)
        if self.nnmi == 2:
            self.urc("+NNMI")

    set_nsmi = setting("+NSMI", "nsmi", 1)
    read_nsmi = reading("+NSMI", "nsmi")
    set_nnmi = setting("+NNMI", "nnmi", 2)
    read_nnmi = reading("+NNMI", "nnmi")

    @at("+NQMGS")
    def nqmgs(self, call: Call) -> None:
        self.line(",".join(f"{name}={count}" for name, count in self.nmgs.items()))

    @at("+NQMGR")
    def nqmgr(self, call: Call) -> None:
        counts = f"BUFFERED={len(self.nmgr)},RECEIVED={self.nmgr_total}"
        self.line(f"{counts},DROPPED={self.nmgr_dropped}")

    @at("+NMSTATUS?")
    def nmstatus(self, call: Call) -> None:
        if self.nv.cdp is None:
            state = "UNINITIALISED"
        else:
            state = "MO_DATA_ENABLED" if self.radio.attached else "NO_UE_IP"
        self.line(f"+NMSTATUS:{state}")


class Bc95G(Bc95):
    """BC95-G, BC68, BC28, BC35-G: V150R100C20B300 generation."""

    LINE_LIMIT = 2800  # own choice: NSOSTF with 1358 bytes needs about 2770
    MAX_DATA = 1358
    FIRST_SOCKET = 1  # captures bc95g-lupyuen-*, bc68-attach-udp-echo
    RX_BUFFER = 4 * 1358  # own choice
    RATES = (2400, 4800, 9600, 57600, 115200, 230400, 460800, 921600)
    CONFIG = CONFIG_V150
    BAD_SOCKET = 530
    NOT_POWERED = 524
    NO_SIM = 10
    SIM_LOCKED = 11
    SEQUENCES = True
    JUNK = b"\xff\x1c\x80"
    DEFAULT_CONTEXT = "IPV4V6"
    CONTEXT_TAIL = ",,0,0,,,,,0"  # capture bc28-mbed-cereg-urc-race
    FLAGS = (0, 0x100, 0x200, 0x400, 0x800)

    TESTS: ClassVar[dict[str, str]] = {
        **Bc95.TESTS,
        "+NSONMI": "+NSONMI:(0,1,2,3)",
        "+NPTWEDRXS": '+NPTWEDRXS:(0,1,2,3),(5),("0000"-"1111"),("0000"-"1111")',
        "+QREGSWT": "+QREGSWT:(0,1,2)",
    }

    def reset_volatile(self) -> None:
        super().reset_volatile()
        self.dns_servers = list(self.network.dns_servers)
        self.paging_window = "0011"

    def power_on_cause(self) -> str | None:
        return "REBOOT_CAUSE_SECURITY_PMU_POWER_ON_RESET"  # capture bc28-production-poweron

    def reset_boot(self) -> None:
        cause = "REBOOT_CAUSE_SECURITY_RESET_PIN"  # facts 1.6: BC68 field log
        self.after(self.BOOT_TIME, lambda: self._print_banner(cause))

    def banner(self, cause: str | None) -> list[list[str]]:
        verified = [
            "Boot: Unsigned",
            "Security B.. Verified",
            "Protocol A.. Verified",
            "Apps A...... Verified",
        ]
        return [verified, *super().banner(cause)]

    def versions(self) -> list[tuple[str, str]]:
        parts = ("SECURITY_A", "PROTOCOL_A", "APPLICATION_A", "SECURITY_B")
        return [
            ("SSB", self.identity.ssb),
            *((part, self.firmware) for part in parts),
            ("RADIO", self.identity.radio),
        ]

    def tell_cfun_on(self) -> None:
        if self.options.sim == "pin":
            self.urc("+NUSIM: PIN REQUIRED")
        if self.cereg:  # capture bc68-attach-udp-echo: before the OK
            self.urc(self.cereg_urc(), early=True)

    def print_address_lines(self, texts: list[str]) -> None:
        self.open_lines(texts)  # capture bc95g-bestiot-bringup: no empty line before OK

    def radio_stats(self) -> list[tuple[str, int]]:
        signal = self.network.signal
        stats = [*super().radio_stats(), ("OPERATOR MODE", signal.operator_mode)]
        if not self.firmware.startswith(WITHOUT_BAND):
            stats.append(("CURRENT BAND ", signal.band))  # the blank: capture bc68-magenta-public
        return stats

    @at("+QGMR")
    def qgmr(self, call: Call) -> None:
        self.line(self.identity.release)

    # -------------------------------------------------------------- receive

    read_nsonmi = reading("+NSONMI", "nsonmi")
    set_nsonmi = setting("+NSONMI", "nsonmi", 3)

    def deliver_directly(self, sock: Socket, datagram: Datagram) -> bool:
        size, hexa = len(datagram.data), datagram.data.hex().upper()
        if self.nsonmi == 2:
            ip, port = datagram.address
            self.urc(f"+NSONMI:{sock.id},{ip},{port},{size},{hexa}")
        elif self.nsonmi == 3:
            self.urc(f"+NSONMI:{sock.id},{size},{hexa}")
        return self.nsonmi in (2, 3)

    @at("+NSOSTATUS=")
    def nsostatus(self, call: Call) -> None:
        call.count(1, 1)
        ident = call.number(0, 0, self.MAX_SOCKETS - 1)
        status = 0 if ident in self.sockets else 1  # SDK format; numbers own choice
        self.line(f"+NSOSTATUS:{ident},{status}")

    @at("+NQSOS=")
    def nqsos(self, call: Call) -> None:
        call.count(1, 1)
        sock = self._socket(call)
        self.lines([f"+NQSOS:{sock.id},{number}" for number in sorted(sock.in_flight)])

    # ------------------------------------------------------------------ DNS

    @at("+QDNS=")
    def qdns(self, call: Call) -> None:
        call.count(2, 2)
        call.number(0, 0, 1)
        name = call.string(1)
        if not 1 <= len(name) <= 256:
            raise BadParameter
        if not self.radio.attached:
            raise AtError(30)
        self.after_final(self.radio.activity)
        self.after(self.network.dns_delay, lambda: self.network.resolve(name, self._resolved))

    def _resolved(self, address: str | None) -> None:
        self.urc(f"+QDNS:{address or 'FAIL'}")

    @at("+QIDNSCFG=")
    def set_qidnscfg(self, call: Call) -> None:
        call.count(1, 2)
        self.dns_servers = [param.text for param in call.params]

    @at("+QIDNSCFG?")
    def read_qidnscfg(self, call: Call) -> None:  # from_manual
        names = ("PrimaryDns", "SecondaryDns")
        self.lines([f"{n}:{s}" for n, s in zip(names, self.dns_servers, strict=False)])

    # ---------------------------------------------------------------- LwM2M

    read_qregswt = reading("+QREGSWT", "nv.register_mode")
    set_qregswt = setting("+QREGSWT", "nv.register_mode", 2)

    @at("+QLWSREGIND=")
    def qlwsregind(self, call: Call) -> None:
        call.count(1, 1)
        wanted = call.number(0, 0, 1) == 0
        if self.nv.cdp is None:
            raise AtError(512)
        self.server_ready = wanted
        if wanted and self.radio.attached:
            self.after(1.0, lambda: self.urc("+QLWEVTIND:0"))
            self.after(1.5, lambda: self.urc("+QLWEVTIND:3"))

    @at("+QLWULDATA=")
    def qlwuldata(self, call: Call) -> None:
        call.count(2, 3)
        self._lwm2m_data(call)

    @at("+QLWULDATAEX=")
    def qlwuldataex(self, call: Call) -> None:
        call.count(3, 4)
        self._lwm2m_data(call)
        if call.word(2).lower() == "0x0100":  # capture bc35g-tcp-nsosd
            self.after(1.0, lambda: self.urc("+QLWULDATASTATUS:4"))

    def _lwm2m_data(self, call: Call) -> None:
        length = call.number(0, 1, 512)
        if len(parse_hex(call.word(1))) != length:
            raise BadParameter
        self.need_platform()

    # ---------------------------------------------------------------- eDRX

    @at("+NPTWEDRXS=")
    def set_nptwedrxs(self, call: Call) -> None:
        call.count(1, 4)
        call.number(0, 0, 3)
        call.number(1, 5, 5, default=5)
        self.paging_window = self.bits(call, 2, 4, self.paging_window)
        self.edrx = self.bits(call, 3, 4, self.edrx)

    @at("+NPTWEDRXS?")
    def read_nptwedrxs(self, call: Call) -> None:
        self.line(f'+NPTWEDRXS:5,"{self.paging_window}","{self.edrx}"')


def _v150(name: str, cgmm: str, product: str, release: str, radio: str, **more: bool) -> Model:
    ati = ("Quectel", product, "Revision:{release}")
    ssb = "V150R100C10B200SP1"
    identity = Identity(cgmm, ati, radio, release, ssb, cgmr_joined=more.get("joined", False))
    firmware = "V150R100C20B300SP7" if more.get("joined") else "V150R100C20B300SP5"
    return Model(name, Bc95G, 9600, firmware, identity)


HISILICON_MODELS: tuple[Model, ...] = (
    Model(
        "bc95",
        Bc95,
        9600,
        "V100R100C10B657SP3",
        Identity(
            cgmm="BC95HB-02-STD_900",
            ati=("Quectel", "BC95-B8", "Revision:{release}"),  # from_manual, B8 for B5
            radio="BC95HB-02-STD_900",
            release="BC95B8HBR01A02W16",
            all_bands=(8,),
        ),
    ),
    _v150("bc95-g", "BC95GJB-02-STD", "BC95-G", "BC95GJBR01A07", "Hi2115_RF0"),
    _v150("bc68", "BC68JB-02-STD", "BC68", "BC68JAR01A08", "Hi2115_RF0"),
    _v150("bc28", "BC28JB-02-STD", "BC28", "BC28JAR01A03", "Hi2115_RF0"),
    _v150("bc35-g", "BC35GJB-02-STDW", "BC35-G", "BC35GJBR01A04W", "Hi2115_RF7", joined=True),
)
