"""BC66, BC66-NA and BC26 (MediaTek MT2625).

Sources: captures named in the comments; facts 0 and 1 (Quectel BC26 AT manual V1.0, drivers,
the Xinyi firmware with the same commands). `from_manual` marks what no capture shows, `own
choice` what no source states.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from .engine import AtError, BadParameter, Call, Model, Result, at, parse_hex
from .mt2625_base import Identity
from .mt2625_coap import MAX_PAYLOAD, NONE, CoapClient, parse_send
from .mt2625_sockets import PROMPT, Mt2625Sockets, Typed
from .network import Address

T = TypeVar("T")


class Mt2625(Mt2625Sockets):
    """The BC66 family: everything, with the CoAP client, LwM2M and MQTT stubs."""

    def setup(self) -> None:
        self.coap = CoapClient(self)
        super().setup()

    def reset_volatile(self) -> None:
        super().reset_volatile()
        self.lwm2m_server = self.lwm2m_auto = False

    def lose_state(self) -> None:
        super().lose_state()
        self.coap.close()

    def on_address(self) -> None:
        super().on_address()
        if self.lwm2m_server and self.lwm2m_auto:  # capture bc66-03
            self.after(1.0, lambda: self.urc("+QLWURC: reg,0"))
            self.after(1.5, lambda: self.urc("+QLWOBSERVE: 0,19,0,0"))

    # ------------------------------------------------------------------ CoAP

    @at("+QCOAPCREATE=")
    def qcoapcreate(self, call: Call) -> None:
        call.count(1, 4)
        self._coap(lambda: self.coap.create(call.number(0, 1, 65535)))

    @at("+QCOAPDEL")
    def qcoapdel(self, call: Call) -> None:
        self.coap.delete()

    @at("+QCOAPHEAD=")
    def qcoaphead(self, call: Call) -> None:
        self._coap(lambda: self.coap.set_head(call))

    @at("+QCOAPOPTION=")
    def qcoapoption(self, call: Call) -> None:
        self._coap(lambda: self.coap.set_options(call))

    @at("+QCOAPSEND=")
    def qcoapsend(self, call: Call) -> Result | None:
        self.coap.need()
        if len(call) == 4:
            kind, code, peer = self._coap(lambda: parse_send(call))
            return self.ask_data(
                PROMPT, Typed(self, lambda data: self._coap_typed(kind, code, peer, data))
            )
        self._coap(lambda: self._coap_inline(call))
        return None

    def _coap_inline(self, call: Call) -> None:
        call.count(5, 6)
        kind, code, peer = parse_send(call)
        length = call.number(4, 0, MAX_PAYLOAD)
        data = parse_hex(call.string(5, default=""))
        if len(data) != length:
            raise BadParameter
        self._coap_send(kind, code, peer, data)

    def _coap_typed(self, kind: int, code: int, peer: Address, data: bytes | None) -> None:
        try:
            if data is not None:
                if len(data) > MAX_PAYLOAD:
                    raise AtError(50)
                self._coap_send(kind, code, peer, data)
        except AtError as error:
            self.finish(error)
        else:
            self.finish()

    def _coap_send(self, kind: int, code: int, peer: Address, data: bytes) -> None:
        self.coap.send(kind, code, peer, data)
        if self.options.coap_send_urc:
            self.after_final(lambda: self.urc("+QCOAPSEND: 0"))

    @at("+QCOAPDATASTATUS?")
    def qcoapdatastatus(self, call: Call) -> None:
        context = self.coap.context
        self.line(f"+QCOAPDATASTATUS: {context.status if context else NONE}")

    @at("+QCOAPCFG=")
    def qcoapcfg(self, call: Call) -> None:
        name = call.quoted(0)
        attribute = {"showra": "show_address", "showrspopt": "show_options"}.get(name.lower())
        if attribute is None:
            raise AtError(50)
        if len(call) == 1:
            self.line(f'+QCOAPCFG: "{name}",{int(getattr(self.coap, attribute))}')
        else:
            setattr(self.coap, attribute, bool(call.number(1, 0, 1)))

    @at("+QCOAPADDRES=")
    def qcoapaddres(self, call: Call) -> None:
        def add() -> None:
            call.count(2, 2)
            resource = call.quoted(1)
            if len(resource) != call.number(0, 1, 255):
                raise BadParameter
            self.coap.need().resources.append(resource)

        self._coap(add)

    def _coap(self, action: Callable[[], T]) -> T:
        """CoAP commands give code 50 for bad parameters."""
        try:
            return action()
        except BadParameter:
            raise AtError(50) from None

    # ----------------------------------------------------------- LwM2M, MQTT

    @at("+QLWCONFIG=")
    def qlwconfig(self, call: Call) -> None:  # capture bc66-03
        call.count(4, 8)
        self.lwm2m_server = True

    @at("+QLWCFG=")
    def qlwcfg(self, call: Call) -> None:
        if call.quoted(0).lower() == "auto_reg":
            self.lwm2m_auto = bool(call.number(1, 0, 1))

    @at("+QMTOPEN=")
    def qmtopen(self, call: Call) -> None:  # capture bc26-14
        ident = call.number(0, 0, 0)
        self.after(self.network.latency + 0.1, lambda: self.urc(f"+QMTOPEN: {ident},0"))

    @at("+QMTCONN=")
    def qmtconn(self, call: Call) -> None:
        ident = call.number(0, 0, 0)
        self.after(self.network.latency + 0.1, lambda: self.urc(f"+QMTCONN: {ident},0,0"))


MT2625_MODELS: tuple[Model, ...] = (
    Model("bc66", Mt2625, 115200, "BC66NBR01A11", Identity("Quectel_BC66", False, True)),
    Model("bc66-na", Mt2625, 115200, "BC66NAR01A03", Identity("Quectel_BC66-NA", False, True)),
    Model("bc26", Mt2625, 115200, "BC26NBR01A03", Identity("Quectel_BC26", True, True)),
)
