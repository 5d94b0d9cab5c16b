"""What stands on a label, and the text in its QR code."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from nbiot.errors import BadInput
from nbiot.signing import check_device_key, check_product_key
from nbiot.station.record import Record

_CODE = re.compile(r"IMEI:(\d{14,16});DK:([A-Za-z0-9._:-]{4,64})")


@dataclass(frozen=True, slots=True)
class Label:
    """One board's label. Only IMEI and device key must be there; empty texts are left out.

    Raises BadInput, naming the field.
    """

    imei: str
    """14 to 16 digits."""
    device_key: str
    product_key: str = ""
    serial_number: str = ""
    model: str = ""
    firmware: str = ""
    when: datetime | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[0-9]{14,16}", self.imei):
            raise BadInput("IMEI", self.imei, "14 to 16 digits")
        check_device_key(self.device_key)
        if self.product_key:
            check_product_key(self.product_key)

    @classmethod
    def of(cls, record: Record) -> Label:
        """The label for the board of ``record``. Raises BadInput when it got no identity."""
        if record.imei is None or record.device_key is None:
            raise BadInput(
                "record",
                record.id,
                "a run that read the IMEI and claimed a device key",
                hint="Run the board again; this run ended before it had an identity.",
            )
        return cls(
            imei=record.imei,
            device_key=record.device_key,
            product_key=record.product_key or "",
            serial_number=record.serial_number,
            model=record.model or "",
            firmware=record.firmware or "",
            when=datetime.fromtimestamp(record.ended).astimezone(),
        )

    @property
    def code(self) -> str:
        """The text in the QR code. Neither field can contain the semicolon."""
        return f"IMEI:{self.imei};DK:{self.device_key}"


def read_code(text: str) -> tuple[str, str] | None:
    """IMEI and device key from what a scanner read off a label; None: this is no such code."""
    found = _CODE.fullmatch(text.strip())
    return (found[1], found[2]) if found else None
