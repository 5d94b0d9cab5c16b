"""NB-IoT modem driver: from a serial port to a device authenticated with EnOS over CoAP."""

from __future__ import annotations

__version__ = "0.1.0"
