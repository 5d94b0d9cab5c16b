"""Labels: what stands on one, as ZPL for the printer, as a PNG to look at, and the printers.

    printer = printer_from("zpl://192.0.2.20", size=Size(50, 30), dpi=203)
    await printer.print(Label.of(record))

``zpl`` and ``png`` draw the same layout. They take some 10 ms: from an event loop call them in a
thread (printers do).
"""

from nbiot.station.labels.label import Label, read_code
from nbiot.station.labels.layout import DOTS_PER_MM, Size
from nbiot.station.labels.png import png
from nbiot.station.labels.printers import Printer, printer_from
from nbiot.station.labels.zpl import zpl

__all__ = ["DOTS_PER_MM", "Label", "Printer", "Size", "png", "printer_from", "read_code", "zpl"]
