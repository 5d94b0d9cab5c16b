"""Quectel BC95-G, BC68, BC28 and BC35-G (HiSilicon Hi2115, "V150"): what differs from the BC95."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

from modems.bc95 import BANNER, BC95, COMMANDS, ERRORS, PROBES, URCS
from nbiot.at import BootBanner, Dialect, Template, Urc
from nbiot.errors import NameNotResolved
from nbiot.profile import Limits

# The modem gives up after 100 s by itself (Hi2115 SDK, dns.h). Its answer names no host, so the
# line stays taken until it has come.
DNS_SECONDS = 110.0
QDNS = "notes of a driver's author on BC28 (bc28-qdns-tcp-driver)"

# Rows of the BC95 that dialogues of this family show, too.
CAPTURED = {
    "iccid": "bc95g-bestiot-bringup",
    "radio?": "bc95g-lupyuen-nsostf-release",
    "radio off": "bc95g-lupyuen-nsostf-release",
    "context": "bc68-boot-resetpin-attach",
    "address?": "bc95g-bestiot-bringup",
    "open": "bc68-attach-udp-echo",
    "send": "bc68-attach-udp-echo",
    "read": "bc68-attach-udp-echo",
    "close": "bc68-attach-udp-echo",
}
SEEN = COMMANDS | {
    name: replace(COMMANDS[name], evidence=f"captured: {capture}")
    for name, capture in CAPTURED.items()
}

CLONE_BANNER = BootBanner(
    lines=r"RDY", last=b"RDY", evidence="from_manual: notes of a driver's author on BC28-CNV"
)


class BC95G(BC95):
    """Quectel modems with Hi2115 ("V150") firmware."""

    name = "bc95-g"
    title = "Quectel BC95-G family"
    models = r"V150R100|BC95-?G|BC68|BC28|BC35-?G"
    baudrates = (9600, 115200, 57600, 4800)
    limits = Limits(datagram=1358, sockets=7)
    has_dns = True
    dialect = Dialect(
        urcs=(
            *URCS,
            Urc(
                "sent",
                "+NSOSTR: <socket:int>,<sequence:int>,<status:digit>",
                "captured: bc95g-lupyuen-coap-over-nsost",
            ),
            Urc("resolved", "+QDNS: <address>", f"from_manual: {QDNS}"),
            Urc("lwm2m", "+QLWEVTIND: <event:int>", "from_manual: BC95-G&BC68 V1.4"),
            Urc("lwm2m status", "+QLWULDATASTATUS: <status:line>", "captured: bc35g-tcp-nsosd"),
        ),
        banners=(BANNER, CLONE_BANNER),
        errors=ERRORS,
        probes=PROBES,
    )
    commands = SEEN | {
        "send and release": Template(
            "AT+NSOSTF={socket},{address},{port},{flag},{length},{hex}",
            "captured: bc95g-lupyuen-nsostf-release (flag 0x200)",
            "[+NSOST: ]{socket},<accepted:int>",
            seconds=10.0,
        ),
        "resolve": Template(
            "AT+QDNS=0,{host}",
            f"from_manual: {QDNS}",
            outcome="+QDNS: <address>",
            seconds=DNS_SECONDS,
        ),
    }
    notes = ("The LwM2M client of the firmware takes a socket unless AT+QREGSWT=2 is set.",)

    async def resolve(self, host: str) -> str:
        reply = await self.ask("resolve", host=host)
        address = str((reply.outcome or {}).get("address"))
        try:
            return str(IPv4Address(address))
        except ValueError:  # the firmware's words for a failure
            raise NameNotResolved(f"the modem finds no address of {host} ({address})") from None
