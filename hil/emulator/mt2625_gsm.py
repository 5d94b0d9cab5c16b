"""GSM commands that the MT2625 answers beside those of the BC66 manual.

Programs written for GSM modems ask them. No capture of a BC66 shows them; the sources are of the
same chip, or of Quectel without an example. Formats are those of the standards.

- +CREG, +CGREG: SIM7020, the same MT2625 with MediaTek's own command names, which older BC66
  firmware answers too (AT*MCGDEFCONT: github Wiz-IO/Arduino-Quectel-BC66 issue 8).
  +CREG with level 2 tells area and cell: blog.csdn.net/ssd_list/article/details/109739255.
  +CGREG tells the registration: github vshymanskyy/TinyGSM issue 278.
  Format: 3GPP TS 27.007, 7.2 and 10.1.20.
- +CMGF, +CSCA: forums.quectel.com topic 6392, "How to use BC66 to send SMS". Format:
  3GPP TS 27.005, 3.2.3 and 3.3.1. Nothing else of SMS is imitated, and +CSCS is not, though
  named there: with it every string would have to be told in that character set.

What no source names is unknown here: +GCAP, +CSCS, +WS46, +CLAC, +CPMS, +CNMI, ATH and so on.
"""

from __future__ import annotations

from .engine import AtError, BadParameter, Call, at
from .gsm07 import Gsm07, reading, setting

SMSC_UNKNOWN = 330
"""3GPP TS 27.005, 3.2.5."""


class CmsError(AtError):
    """`+CMS ERROR: code`: a message command failed."""


class Mt2625Gsm(Gsm07):
    """Registration as GSM tells it, message format and service centre."""

    text_mode: int

    def setup(self) -> None:
        self.service_centre = ""  # stored; no SIM of ours brings one

    def reset_volatile(self) -> None:
        self.creg = self.cgreg = self.text_mode = 0  # own choice: as 27.005 wants after a reset

    # --------------------------------------------------------- registration

    def on_stat(self) -> None:
        for name, level in (("+CREG", self.creg), ("+CGREG", self.cgreg)):
            if level:
                self.urc(f"{name}: {self._registration(level)}")

    def _registration(self, level: int) -> str:
        stat, network = str(self.radio.stat), self.network
        if level < 2 or not self.radio.attached:
            return stat
        return f'{stat},"{network.tac:04X}","{network.ci:08X}"'

    set_creg = setting("+CREG", "creg", 2)
    set_cgreg = setting("+CGREG", "cgreg", 2)

    @at("+CREG?")
    def read_creg(self, call: Call) -> None:
        self.tell("+CREG", f"{self.creg},{self._registration(self.creg)}")

    @at("+CGREG?")
    def read_cgreg(self, call: Call) -> None:
        self.tell("+CGREG", f"{self.cgreg},{self._registration(self.cgreg)}")

    @at("+CREG=?", "+CGREG=?")
    def test_creg(self, call: Call) -> None:
        self.tell(call.name, "(0-2)")

    # ------------------------------------------------------------- messages

    set_cmgf = setting("+CMGF", "text_mode", 1)
    read_cmgf = reading("+CMGF", "text_mode")

    @at("+CMGF=?")
    def test_cmgf(self, call: Call) -> None:
        self.tell("+CMGF", "(0,1)")

    @at("+CSCA?")
    def read_csca(self, call: Call) -> None:
        if not self.service_centre:
            raise CmsError(SMSC_UNKNOWN)
        kind = 145 if self.service_centre.startswith("+") else 129  # 27.005, 3.1: <tosca>
        self.tell("+CSCA", f'"{self.service_centre}",{kind}')

    @at("+CSCA=")
    def set_csca(self, call: Call) -> None:
        call.count(1, 2)
        number = call.quoted(0)
        if not number.removeprefix("+").isdigit():
            raise BadParameter
        call.number(1, 128, 255, default=129)
        self.service_centre = number

    @at("+CSCA=?")
    def test_csca(self, call: Call) -> None:
        """Only OK (27.005, 3.3.1)."""

    def result_text(self, error: AtError | None) -> str:
        text = super().result_text(error)
        return text.replace("+CME", "+CMS", 1) if isinstance(error, CmsError) else text
