"""What the host sends, and what it must get back before the command counts as done."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from nbiot.at.shape import Shape
from nbiot.errors import BadInput

OK = (b"OK",)
_CONTROL = re.compile(rb"[^\x20-\x7e]")


@dataclass(frozen=True, slots=True, repr=False)
class Command:
    """One AT command and the answer it declares.

    line:     the command without its CR, e.g. ``b"AT+CSQ"``
    answer:   shape of its information lines; None: it has none
    least, most: how many information lines it must and may bring
    success:  final result codes that mean yes (whole lines)
    failure:  final result codes that mean no, beside ERROR, +CME ERROR and +CMS ERROR
    outcome:  shape of a second result after OK (``SEND OK``, ``+QIOPEN: 0,0``): the command is not
              done, and the line not free, before it has come
    prompt:   the text after which the modem wants ``payload``; empty: no prompt
    seconds:  the modem's own time for this command, without the time of its bytes on the wire
    size:     bytes that the answer may have, for the time they need on the wire
    repeatable: asking twice does no harm (queries)
    shown:    what traces and messages print instead of ``line`` when that holds a secret
    """

    line: bytes
    answer: Shape | None = None
    least: int = 0
    most: int = 0
    success: tuple[bytes, ...] = OK
    failure: tuple[bytes, ...] = ()
    outcome: Shape | None = None
    prompt: bytes = b""
    payload: bytes = b""
    seconds: float = 1.0
    size: int = 100
    repeatable: bool = False
    shown: str = ""

    def __post_init__(self) -> None:
        if _CONTROL.search(self.line):  # a CR inside would make two commands of it
            raise BadInput("command", str(self), "one line of printable ASCII")

    def __str__(self) -> str:
        return self.shown or self.line.decode("ascii", "backslashreplace")

    def __repr__(self) -> str:
        return f"Command({self})"


@dataclass(frozen=True, slots=True)
class Template:
    """A row in a profile's command table: a command with gaps, and where its facts come from.

    ``text`` and ``answer`` may have gaps in braces, filled when the template is called:
    ``Template("AT+NSOCL={socket}")(socket=1)`` is ``AT+NSOCL=1``. ``evidence`` is ``captured: ID``
    with the identifier of a capture, or ``from_manual: document, section``.
    """

    text: str
    evidence: str
    answer: str = ""
    least: int = 1
    most: int = 1
    success: tuple[bytes, ...] = OK
    failure: tuple[bytes, ...] = ()
    outcome: str = ""
    prompt: bytes = b""
    seconds: float = 1.0
    size: int = 100
    repeatable: bool = False

    def __call__(self, *, payload: bytes = b"", **gaps: Any) -> Command:
        """The command with its gaps filled. ``payload`` is what follows the prompt."""
        answer = Shape(self.answer.format(**gaps)) if self.answer else None
        return Command(
            line=self.text.format(**gaps).encode("ascii"),
            answer=answer,
            least=self.least if answer else 0,
            most=self.most if answer else 0,
            success=self.success,
            failure=self.failure,
            outcome=Shape(self.outcome.format(**gaps)) if self.outcome else None,
            prompt=self.prompt,
            payload=payload,
            seconds=self.seconds,
            size=self.size + 2 * gaps.get("length", 0),
            repeatable=self.repeatable or self.text.endswith("?"),
        )
