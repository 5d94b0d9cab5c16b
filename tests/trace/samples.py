"""Recorded dialogues for the tests: those of ``replays``, and ones made of a few lines."""

from __future__ import annotations

from pathlib import Path

from nbiot.trace import FORMAT, VERSION, Record, Trace

FOLDER = Path(__file__).with_name("replays")
REPLAYS = {path.stem: path for path in sorted(FOLDER.glob("*.jsonl"))}


def trace_of(*lines: str | bytes, **header: object) -> Trace:
    """A trace of lines such as "> AT", "< OK [final]" and "- a note", a second apart.

    Bytes are the host's if they begin with b">", else the modem's, behind that sign and a blank.
    """
    trace = Trace("made", {"format": FORMAT, "version": VERSION, **header})
    for number, line in enumerate(lines, start=2):
        t = float(number)
        if isinstance(line, bytes):
            trace.records.append(Record(number, t, chr(line[0]), line[2:], ""))
            continue
        way, _, text = line.partition(" ")
        text, _, event = text.partition(" [")
        if way == "-":
            trace.records.append(Record(number, t, way, note=text))
        else:
            framed = f"{text}\r" if way == ">" else f"\r\n{text}\r"
            trace.records.append(Record(number, t, way, framed.encode(), event.rstrip("]")))
    return trace
