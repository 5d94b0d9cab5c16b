"""The AT protocol as a state machine: feed bytes, get events; describe a command, get bytes.

No I/O, no clock, no logging, no asyncio. ITU-T V.250 and 3GPP TS 27.007 give the terms.
"""

from __future__ import annotations

from nbiot.at.command import Command, Template
from nbiot.at.dialect import BootBanner, Dialect, Urc
from nbiot.at.events import (
    Answer,
    BootLine,
    Early,
    Echo,
    Event,
    Final,
    Orphan,
    Outcome,
    Overflow,
    Prompt,
    Truncated,
    Unknown,
    UrcReceived,
)
from nbiot.at.parser import Parser
from nbiot.at.shape import Fields, Shape

__all__ = [
    "Answer",
    "BootBanner",
    "BootLine",
    "Command",
    "Dialect",
    "Early",
    "Echo",
    "Event",
    "Fields",
    "Final",
    "Orphan",
    "Outcome",
    "Overflow",
    "Parser",
    "Prompt",
    "Shape",
    "Template",
    "Truncated",
    "Unknown",
    "Urc",
    "UrcReceived",
]
