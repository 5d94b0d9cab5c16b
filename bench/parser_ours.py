"""How fast is this project's parser?  ../.venv/bin/python parser_ours.py

MB/s of CPU time by size of the chunks, the best of five, without a command in flight: the stream of
parser_limit.py (19 bytes a line), lines with 512 bytes in hexadecimal, and bytes without a line end.
"""

from __future__ import annotations

import time

import parser_limit

from modems.bc95g import BC95G
from nbiot.at import Parser

SIZE = 1 << 18
LONG = b"\r\n0,47.96.1.2,5683,512," + b"5A" * 512 + b",0\r\n\r\nOK\r\n"
STREAMS = {
    "short lines": parser_limit.S[:SIZE],
    "long lines": LONG * (SIZE // len(LONG)),
    "no line end": b"x" * SIZE,
}
CHUNKS = (1, 64, 4096)


def speed(stream: bytes, size: int) -> float:
    """MB/s for chunks of ``size`` bytes."""
    parser = Parser(BC95G.dialect)
    chunks = [stream[at : at + size] for at in range(0, len(stream), size)]
    began = time.process_time()
    for chunk in chunks:
        parser.feed(chunk)
    return len(stream) / (time.process_time() - began) / 1e6


if __name__ == "__main__":
    for name, stream in STREAMS.items():
        best = (f"{size} B: {max(speed(stream, size) for _ in range(5)):.1f}" for size in CHUNKS)
        print(f"{name:12}", ", ".join(best), "MB/s")
