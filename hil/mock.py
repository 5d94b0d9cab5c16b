"""A modem for unit tests of programs: it answers from a record, and a test may change its words.

Unlike ``replay:FILE`` (nbiot/link/replay.py), which wants the whole dialogue in its order, it takes
commands in any order, each as often as the program likes.
"""

from __future__ import annotations

import re
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

from nbiot.link.memory import MemoryLink
from nbiot.trace import read_trace

if TYPE_CHECKING:
    from nbiot.link import Link


class ModemMock:
    """``dialogue``: a file of ``--trace``, or a capture as FILE#ID; None: it knows nothing yet.

    A command is answered as in the record; what was recorded several times comes in that order, the
    last one from then on. Datagrams and whatever else is random need the emulator instead.
    A command that is not in the record gets ERROR, and is in ``unknown``.
    """

    def __init__(self, dialogue: str | Path | None = None, folder: Path | None = None) -> None:
        self.sent: list[str] = []
        """What the program sent, without its CR."""
        self.unknown: list[str] = []
        """Those of them that nobody recorded."""
        self._answers: dict[str, deque[bytes]] = {}
        self._link: MemoryLink | None = None
        self._partial = b""
        if dialogue is not None:
            self._learn((folder or Path()) / dialogue)

    def _learn(self, path: Path) -> None:
        command: str | None = None
        for record in read_trace(path).records:
            if record.dir == ">":
                command = _text(record.raw)
                self._answers.setdefault(command, deque()).append(b"")
            elif record.dir == "<" and command is not None:
                self._answers[command][-1] += record.raw

    def answer(self, command: str, *lines: str, final: str = "OK") -> None:
        """From now on ``command`` is answered with ``lines``, and with ``final``."""
        said = "".join(f"\r\n{line}\r\n" for line in (*lines, final) if line)
        self._answers[command] = deque([said.encode("latin-1")])

    def say(self, line: str) -> None:
        """Say ``line`` by itself, as a URC. In the event loop of the program."""
        assert self._link is not None, "nobody has opened the port yet"
        self._link.feed(f"\r\n{line}\r\n".encode("latin-1"))

    def unplug(self) -> None:
        """Let the port go away."""
        assert self._link is not None, "nobody has opened the port yet"
        self._link.lose("unplugged")

    async def open_link(self, port: str, *, baudrate: int) -> Link:
        """In the place of nbiot.link.open_link."""
        self._partial = b""
        self._link = MemoryLink(port, baudrate, on_write=self._heard)
        return self._link

    def _heard(self, data: bytes) -> None:
        *lines, self._partial = re.split(rb"[\r\n]+", self._partial + data)
        for line in lines:
            if line:
                self._take(line.decode("latin-1"))

    def _take(self, command: str) -> None:
        assert self._link is not None
        self.sent.append(command)
        found = self._answers.get(command)
        if found is None:
            self.unknown.append(command)
            said = b"\r\nERROR\r\n"
        else:
            said = found.popleft() if len(found) > 1 else found[0]
        self._link.feed(said)


def _text(raw: bytes) -> str:
    return raw.rstrip(b"\r\n").decode("latin-1")
