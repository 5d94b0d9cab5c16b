"""Commands of 3GPP TS 27.007 that both families answer alike but for their spacing.

What differs is data of the family: `GAP`, `CIDS`, `TESTS`. A clause number below is one of
3GPP TS 27.007 Release 13, the release both manuals name; that a family has the command at all is
said by its captures and manuals (at-hisilicon.md, at-quectel.md).
"""

from __future__ import annotations

from datetime import timedelta
from operator import attrgetter
from typing import Any, ClassVar, Protocol

from .engine import BadParameter, Call, Handler, Modem, at


class Stored(Protocol):
    """What both families keep over a restart."""

    psm: tuple[int, str, str]


def setting(command: str, attribute: str, high: int, low: int = 0) -> Handler:
    """A set command with one number, kept in `attribute` (dots allowed)."""
    owner, _, last = attribute.rpartition(".")

    @at(f"{command}=")
    def keep(modem: Any, call: Call) -> None:
        call.count(1, 1)
        setattr(attrgetter(owner)(modem) if owner else modem, last, call.number(0, low, high))

    return keep


def reading(command: str, attribute: str) -> Handler:
    """A read command that tells `attribute`."""

    @at(f"{command}?")
    def tell(modem: Any, call: Call) -> None:
        modem.tell(command, attrgetter(attribute)(modem))

    return tell


def tests(gap: str, **more: str) -> dict[str, str]:
    """Answers to test commands common to both families, with the family's own."""
    values = _TESTS | more
    return {f"+{name}": f"+{name}:{gap}{value}" for name, value in values.items()}


_TESTS = {  # from_manual
    "CGSN": "(0,1,2,3)",  # capture bc35g-ident
    "CSCON": "(0,1)",
    "CGATT": "(0,1)",
    "CGACT": "(0,1)",
    "CPSMS": '(0,1,2),,,("00000000"-"11111111"),("00000000"-"11111111")',
}


class Gsm07(Modem):
    """Registration, signalling state, power saving, clock."""

    GAP: ClassVar[str] = ""
    """What stands between the colon and the value (facts 1.3 and at-quectel.md 1.2)."""
    CIDS: ClassVar[tuple[int, int]] = (0, 10)
    """Lowest and highest context; the lowest is the one that counts."""

    nv: Stored
    edrx: str
    cfun: int
    cereg: int
    cscon: int

    def tell(self, command: str, value: object) -> None:
        """An information line of a command."""
        self.line(f"{command}:{self.GAP}{value}")

    # --------------------------------------------------------- radio events

    def cereg_urc(self) -> str:
        raise NotImplementedError

    def cscon_urc(self) -> str:
        return f"+CSCON:{self.GAP}{int(self.radio.connected)}"

    def on_rrc(self) -> None:
        if self.cscon:
            self.urc(self.cscon_urc())

    def registration_urcs(self) -> list[str]:
        """Those the host has asked for, as they would read now."""
        asked = ((self.cscon, self.cscon_urc), (self.cereg, self.cereg_urc))
        return [text() for level, text in asked if level]

    def own_urc(self, name: str) -> str | None:
        texts = {"+CEREG": self.cereg_urc, "+CSCON": self.cscon_urc}
        return texts[name]() if name in texts else None

    # ------------------------------------------------------------- commands

    read_cmee = reading("+CMEE", "cmee")  # 9.1
    read_cfun = reading("+CFUN", "cfun")  # 8.2
    set_cereg = setting("+CEREG", "cereg", 5)  # 10.1.22
    set_cscon = setting("+CSCON", "cscon", 1)  # 10.1.30

    @at("+CSCON?")
    def read_cscon(self, call: Call) -> None:
        self.tell("+CSCON", f"{self.cscon},{int(self.radio.connected)}")

    @at("+CGATT?")
    def read_cgatt(self, call: Call) -> None:  # 10.1.9
        self.tell("+CGATT", int(self.radio.attached))

    @at("+CGACT=")
    def set_cgact(self, call: Call) -> None:  # 10.1.10
        call.count(1, 2)
        call.number(0, 0, 1)
        self.need_context(call.number(1, *self.CIDS, default=self.CIDS[0]))

    def need_context(self, cid: int) -> None:
        """Refuse a context that does not exist, if the family does."""

    @at("+CPSMS=")
    def set_cpsms(self, call: Call) -> None:  # 7.38
        call.count(1, 5)
        mode = call.number(0, 0, 2)
        tau = self.bits(call, 3, 8, self.nv.psm[1])
        self.nv.psm = (mode, tau, self.bits(call, 4, 8, self.nv.psm[2]))
        self.radio.power_saving = mode == 1

    def bits(self, call: Call, index: int, length: int, default: str) -> str:
        """A quoted string of binary digits."""
        if not call.given(index):
            return default
        bits = call.quoted(index)
        if len(bits) != length or set(bits) - {"0", "1"}:
            raise BadParameter
        return bits

    @at("+CEDRXS?")
    def read_cedrxs(self, call: Call) -> None:  # 7.40
        self.tell("+CEDRXS", f'5,"{self.edrx}"')

    @at("+CEDRXS=")
    def set_cedrxs(self, call: Call) -> None:
        call.count(1, 3)
        call.number(0, 0, 3)
        call.number(1, 5, 5, default=5)
        self.edrx = self.bits(call, 2, 4, self.edrx)

    @at("+CEDRXRDP")
    def cedrxrdp(self, call: Call) -> None:  # 7.41
        granted = self.network.edrx
        if granted is None or not self.radio.attached:
            self.tell("+CEDRXRDP", 0)
        else:
            self.tell("+CEDRXRDP", f'5,"{self.edrx}","{granted}","0011"')

    def local_time(self) -> str:
        """Date, time and time zone as +CCLK has them (8.15)."""
        quarters = self.network.zone_quarters
        local = self.network.now() + timedelta(minutes=15 * quarters)
        return f"{local:%y/%m/%d,%H:%M:%S}{quarters:+03d}"
