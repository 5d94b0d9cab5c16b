"""Cells, what a modem measures of them, and how that changes in the course of time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Stat = Literal[1, 5, "denied", "none"]
NO_SIGNAL = -140.0
"""A cell at or below this RSRP (dBm) is not heard (own choice)."""
ECL_LIMITS = (-110.0, -120.0)
"""RSRP (dBm) above which a cell is of coverage level 0, and of level 1 (own choice)."""


@dataclass(kw_only=True)
class Signal:
    """Radio measurements of the serving cell (capture hi2115-b300sp2-stats-nmgs)."""

    power: int = -819
    """RSRP in 0.1 dBm."""
    total: int = -761
    """RSSI in 0.1 dBm."""
    tx_power: int = 230
    """0.1 dBm."""
    tx_time: int = 1144
    """ms since boot."""
    rx_time: int = 76193
    """ms since boot."""
    cell_id: int = 125414482
    ecl: int = 0
    """Coverage level 0..2."""
    snr: int = 234
    """0.1 dB."""
    earfcn: int = 2509
    earfcn_offset: int = 2
    pci: int = 226
    rsrq: int = -108
    """0.1 dB."""
    band: int = 8
    operator_mode: int = 4
    ber: int = 0

    @property
    def csq(self) -> int:
        """RSSI as AT+CSQ counts it, 0..31 (3GPP TS 27.007)."""
        return max(0, min(31, (self.total + 1130) // 20))


@dataclass(kw_only=True)
class Neighbour:
    """A neighbour cell; dBm and dB values in tenths."""

    earfcn: int
    pci: int
    power: int
    rsrq: int
    total: int = -1354
    snr: int = 200


@dataclass(kw_only=True)
class Cell:
    """One cell; dBm and dB."""

    earfcn: int
    pci: int
    cell_id: int
    tac: int
    band: int
    rsrp: float = -82.0
    snr: float = 23.0
    rsrq: float = -10.8
    ecl: int | None = None
    """Coverage level; None: by RSRP."""
    course: list[tuple[float, float, float]] = field(default_factory=list)
    """(time in s, RSRP, SNR): what they are from that time on."""

    def move_to(self, time: float) -> None:
        """Take the values of this time."""
        for at, rsrp, snr in self.course:
            if at <= time:
                self.rsrp, self.snr = rsrp, snr

    @property
    def heard(self) -> bool:
        return self.rsrp > NO_SIGNAL

    @property
    def _total(self) -> float:
        return self.rsrp + 5.8  # RSSI is as much above RSRP in the capture named at Signal

    @property
    def signal(self) -> Signal:
        """What a modem in this cell measures."""
        level = sum(self.rsrp <= limit for limit in ECL_LIMITS)
        return Signal(
            power=round(self.rsrp * 10),
            total=round(self._total * 10),
            cell_id=self.cell_id,
            ecl=level if self.ecl is None else self.ecl,
            snr=round(self.snr * 10),
            earfcn=self.earfcn,
            pci=self.pci,
            rsrq=round(self.rsrq * 10),
            band=self.band,
        )

    @property
    def as_neighbour(self) -> Neighbour:
        """What a modem in another cell measures of this one."""
        return Neighbour(
            earfcn=self.earfcn,
            pci=self.pci,
            power=round(self.rsrp * 10),
            rsrq=round(self.rsrq * 10),
            total=round(self._total * 10),
            snr=round(self.snr * 10),
        )


def strongest(cells: list[Cell]) -> Cell | None:
    """The cell that serves; None: none is heard."""
    heard = [cell for cell in cells if cell.heard]
    return max(heard, key=lambda cell: cell.rsrp, default=None)


@dataclass(frozen=True, kw_only=True)
class Registration:
    """From the time `at` (s) on, a registration has this outcome."""

    at: float
    stat: Stat
    cause: int = 15
