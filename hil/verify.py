"""A capture against a software modem: what is the same, what differs in values, what in form.

The host's side of the capture is played to a software modem on a hand-turned clock, so a dialogue
of minutes takes milliseconds. Answers are compared byte by byte where the capture has bytes, line
by line where its source has lines only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from enum import IntEnum
from typing import Any
from urllib.parse import parse_qsl

from hil.emulator import MODELS, ManualClock, Network, Options, ScriptedWire, State, create
from hil.link import emulator_settings
from nbiot.capture import Capture, Exchange
from nbiot.errors import BadInput

PATIENCE = 300.0  # virtual s for a result
URC_PATIENCE = 30.0
BOOT_PATIENCE = 60.0
MORE_PATIENCE = 10.0  # after a result, for lines that the capture has behind it
PAUSE = 3.0  # between commands, where the capture has no times
LONGEST_PAUSE = 120.0

_FINAL = re.compile(r"OK|ERROR|\+CM[ES] ERROR: ?.*|NO CARRIER")
_BANNER = re.compile(r"REBOOT|Boot: |RDY$|Neul|[0-9A-Z]{2}: [0-9A-F]{4} |Leaving the BROM")
_PLACEHOLDER = re.compile(r'<\w+( \w+)*>|\bIP,PORT\b|\.\.\."?|^\(any\)')
_TOKEN = re.compile(r'"[^"]*"|(?<![\w.])-?\d+(?!\w)|[\w*]+|[^\w*"]')
_MASK = re.compile(r"[X*]+|[NYZ]")
_LONG = 4  # hexadecimal digits of an identity, padded with zeros or not
_IDENTITY = re.compile(rb"ATI\d?|AT\+(?:C?GM[IMR]|QGMR)", re.IGNORECASE)
_READ = re.compile(r"(?:\+NSORF: ?)?\d,([\d.]+),(\d+),\d+,((?:[0-9A-Fa-f]{2})+),\d+")


class Level(IntEnum):
    """How far an answer is from the captured one. The higher, the worse."""

    SKIPPED = 0
    EQUAL = 1
    VALUES = 2
    FORM = 3


@dataclass(frozen=True, slots=True)
class Line:
    """One line with the line ends around it."""

    lead: str
    text: str
    trail: str

    @property
    def shown(self) -> str:
        r"""With ``\r`` and ``\n`` to be seen, and nothing that drives a terminal."""
        whole = f"{self.lead}{self.text}{self.trail}"
        return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in whole)


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the capture and what the software modem said in its place; None: nothing."""

    captured: Line | None
    emulated: Line | None
    level: Level
    why: str = ""


@dataclass(slots=True)
class Compared:
    """One exchange. ``why`` it was skipped, if it was."""

    exchange: Exchange
    rows: list[Row] = field(default_factory=list)
    why: str = ""

    @property
    def level(self) -> Level:
        return max((row.level for row in self.rows), default=Level.SKIPPED)

    @property
    def title(self) -> str:
        """What the host sent."""
        tx = self.exchange.tx
        return Line("", tx.decode("latin-1"), "").shown if tx is not None else "(by itself)"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        rows = [
            {
                "captured": row.captured.shown if row.captured else None,
                "emulated": row.emulated.shown if row.emulated else None,
                "level": row.level.name.lower(),
                "why": row.why,
            }
            for row in self.rows
        ]
        found: dict[str, Any] = {"number": self.exchange.number, "tx": self.title}
        return found | {"level": self.level.name.lower(), "why": self.why, "lines": rows}


@dataclass(slots=True)
class Verdict:
    """What came of one capture. ``model`` is empty where no software modem was found for it."""

    capture: Capture
    model: str
    compared: list[Compared] = field(default_factory=list)
    more: list[Line] = field(default_factory=list)
    """What the software modem said by itself, and the capture does not have."""

    def count(self, level: Level) -> int:
        """Exchanges of this level."""
        return sum(compared.level is level for compared in self.compared)

    @property
    def same_form(self) -> bool:
        return not self.count(Level.FORM)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "id": self.capture.id,
            "line": self.capture.line,
            "model": self.model,
            "same_form": self.same_form if self.model else None,
            **{level.name.lower(): self.count(level) for level in Level},
            "only_emulated": [line.shown for line in self.more],
            "exchanges": [compared.as_dict() for compared in self.compared],
        }


def verify(capture: Capture, model: str = "") -> Verdict:
    """Play ``capture`` to the software modem ``model`` (with options: ``bc66?sim=absent``).

    Without one it is guessed from the capture. Raises BadInput.
    """
    model = model or guess_model(capture)
    if not model:
        return Verdict(capture, "")
    return _Player(capture, model).play()


def guess_model(capture: Capture) -> str:
    """The software modem that a capture's ``modem`` and ``firmware`` name; empty: none."""
    text = capture.modem.lower()
    named = [name for name in MODELS if re.search(rf"(?<!\w){name}(?!\w)", text)]
    model = max(named, key=len, default="")
    if "V150R" in capture.firmware and model in ("", "bc95"):
        return "bc95-g"
    return model or ("bc95" if "V100R" in capture.firmware else "")


# --- playing --------------------------------------------------------------------------------


class _Player:
    def __init__(self, capture: Capture, model: str) -> None:
        self._capture = capture
        try:
            name, options, network = emulator_settings(model)
        except BadInput as error:
            raise BadInput("model", model, error.allowed) from None
        given = {key for key, _ in parse_qsl(model.partition("?")[2], keep_blank_values=True)}
        self._prepare = _set_up(capture, name, options, network, given)
        self._clock = ManualClock()
        self._wire = ScriptedWire()
        network.wire = self._wire
        self._out = bytearray()
        noisy = not all(e.rx.isascii() for e in capture.exchanges)
        # Noise between two speeds, which most sources do not show.
        self._junk = None if noisy else getattr(MODELS[name].engine, "JUNK", None)
        self._modem = create(name, options, network, send=self._heard, clock=self._clock)
        self._verdict = Verdict(capture, name)
        self._more: list[Line] = []
        self._t: float | None = None
        self._blank = b""  # line ends that the capture keeps as an exchange of their own

    def _heard(self, data: bytes) -> None:
        if data != self._junk:
            self._out += data

    def play(self) -> Verdict:
        try:
            for command in self._prepare:
                self._modem.receive(command + b"\r")
                self._clock.advance(1.0)
                self._out.clear()
            for place, exchange in enumerate(self._capture.exchanges):
                self._verdict.compared.append(self._exchange(exchange, place))
            self._drain()
        finally:
            self._modem.close()
        self._verdict.more = self._more
        return self._verdict

    def _exchange(self, exchange: Exchange, place: int) -> Compared:
        compared = Compared(exchange)
        if exchange.tx is None:
            self._by_itself(compared, place)
            return compared
        if _PLACEHOLDER.search(exchange.tx.decode("latin-1")):
            compared.why = "its source shows a placeholder"
            return compared
        self._pass_time(exchange)
        self._drain()
        wanted = lines_of(exchange.rx)
        self._modem.receive(exchange.tx)
        got = self._answer(wanted, prompt=exchange.rx.rstrip(b" ").endswith(b">"))
        if not exchange.answered:
            compared.why = "the capture has no result of it"
            return compared
        compared.rows = self._without_urcs(align(wanted, got, exchange), exchange)
        return compared

    def _pass_time(self, exchange: Exchange) -> None:
        if exchange.t is not None and self._t is not None:
            pause = min(max(exchange.t - self._t, 0.0), LONGEST_PAUSE)
        else:
            pause = PAUSE if self._t is not None or exchange.number > 1 else 0.0
        self._clock.advance(pause)
        self._t = exchange.t
        end = self._clock.time() + BOOT_PATIENCE
        while self._modem.state is not State.READY and self._clock.step(end):
            pass

    def _drain(self) -> None:
        """Whole lines only: the rest may come later."""
        end = max(self._out.rfind(b"\r"), self._out.rfind(b"\n")) + 1
        self._more += lines_of(bytes(self._out[:end]))
        del self._out[:end]

    def _answer(self, wanted: Sequence[Line], *, prompt: bool) -> list[Line]:
        """What the modem says until its result, and a little more where more is wanted."""
        end = self._clock.time() + PATIENCE
        done = False
        while True:
            got = lines_of(bytes(self._out))
            if prompt and bytes(self._out).rstrip(b" ").endswith(b">"):
                break
            if not done and any(_FINAL.fullmatch(line.text) for line in got):
                done = True
                end = min(end, self._clock.time() + MORE_PATIENCE)
            if done and len(got) >= len(wanted):
                break
            if wanted and len(got) >= len(wanted) and _BANNER.match(wanted[-1].text):
                break
            if wanted and len(got) >= len(wanted) and not _has_result(wanted):
                end = min(end, self._clock.time() + MORE_PATIENCE)
            if not self._clock.step(end):
                break
        self._out.clear()
        return got

    def _without_urcs(self, rows: list[Row], exchange: Exchange) -> list[Row]:
        """What came by itself, behind the result or as a URC in between, is no difference."""
        kept: list[Row] = []
        done = False
        for row in rows:
            line = row.emulated or row.captured
            assert line is not None
            lone = row.emulated is None or row.captured is None
            if lone and (_is_urc(line.text, exchange) or (done and row.captured is None)):
                if row.captured is None:
                    self._more.append(line)
                else:
                    kept.append(Row(line, None, Level.SKIPPED, "came by itself"))
                continue
            left_out = ("OK", _text(exchange.tx))  # by many sources that have lines only
            if row.captured is None and not exchange.exact and line.text in left_out:
                continue
            done = done or (row.emulated is not None and bool(_FINAL.fullmatch(line.text)))
            kept.append(row)
        return kept

    def _by_itself(self, compared: Compared, place: int) -> None:
        exchange = compared.exchange
        wanted_lines = lines_of(self._blank + exchange.rx)
        self._blank = b"" if wanted_lines else self._blank + exchange.rx
        for wanted in wanted_lines:
            self._bring_about(wanted.text, place)
            got = self._await(wanted.text, exchange)
            if got is None:
                compared.why = "it was brought about by what only the real network knows"
            else:
                compared.rows.append(compare(wanted, got, exchange))

    def _await(self, text: str, exchange: Exchange) -> Line | None:
        end = self._clock.time() + URC_PATIENCE
        while True:
            self._drain()
            for line in self._more:
                if _key(line.text, exchange) == _key(text, exchange):
                    self._more.remove(line)
                    return line
            if not self._clock.step(end):
                return None

    def _bring_about(self, urc: str, place: int) -> None:
        """Let a datagram come in that the capture announces and shows when it is read."""
        if not re.match(r"\+NSONMI:", urc) or not self._wire.endpoints:
            return
        for later in self._capture.exchanges[place + 1 :]:
            for line in lines_of(later.rx):
                if found := _READ.fullmatch(line.text):
                    address, port, digits = found.groups()
                    self._wire.inject(bytes.fromhex(digits), (address, int(port)))
                    return


def _set_up(
    capture: Capture, name: str, options: Options, network: Network, given: set[str]
) -> list[bytes]:
    """Make ``options`` and ``network`` what the capture shows; commands to give before it."""
    texts = [line.text for e in capture.exchanges for line in lines_of(e.rx)]
    asked = [e for e in capture.exchanges if e.tx is not None and e.rx]
    found: dict[str, Any] = {"attached": True, "firmware": _firmware(capture, name)}
    first = capture.exchanges[0] if capture.exchanges else None
    if first is not None and first.tx is None and any(map(_BANNER.match, texts[:1])):
        found |= {"boot": "cold", "attached": False}
    if asked:
        shown = [e for e in asked if not re.match(rb"ATE", e.tx or b"", re.IGNORECASE)]
        found["echo"] = any(e.rx.lstrip(b"\r\n").startswith(_bare(e.tx)) for e in shown[:3])
    joined = "\n".join(texts)
    for pattern, values in _SHOWN:
        if match := re.search(pattern, joined):
            found |= values(match)
    for exchange in asked:
        if exchange.tx == b"AT+CIMI\r" and (imsi := re.search(rb"\d{14,15}", exchange.rx)):
            found["imsi"] = imsi[0].decode()
    if match := re.search(r'\+CGDCONT: ?\d+,"[^"]*","([^"<]+)"', joined):
        network.apn = match[1]
    for key, value in found.items():
        if key not in given and value is not None:
            setattr(options, key, value)
    return _preparation(asked)


# (pattern over the lines of a capture, options of the software modem)
_SHOWN: tuple[tuple[str, Callable[[re.Match[str]], dict[str, Any]]], ...] = (
    (r'\+CGSN: ?"?(\d{15})\b', lambda m: {"imei": m[1]}),
    (r"\+[NQ]CCID: ?(\w{19,20})\b", lambda m: {"iccid": m[1]}),
    (r"\+CGATT: ?(\d)", lambda m: {"attached": m[1] == "1"}),
    (r"\+CPIN: ?SIM PIN", lambda m: {"sim": "pin", "attached": False}),
    (r"\+CME ERROR: ?10\b|SIM not inserted", lambda m: {"sim": "absent", "attached": False}),
    (r"\+CME ERROR: ?\d", lambda m: {"cmee": 1}),
)


def _firmware(capture: Capture, name: str) -> str | None:
    pattern = r"BC\w+" if name.startswith(("bc66", "bc26")) else r"V1[05]0R\d+C\d+B\w+"
    found = re.search(pattern, capture.firmware)
    return found[0] if found else None


def _preparation(asked: Sequence[Exchange]) -> list[bytes]:
    """Settings that the first answer to their query shows, unless the capture makes them itself."""
    commands = []
    for name, pattern in (
        (b"+CEREG", rb"\+CEREG: ?(\d),\d"),
        (b"+CSCON", rb"\+CSCON: ?(\d),\d"),
        (b"+CFUN", rb"\+CFUN: ?(0)"),
    ):
        for exchange in asked:
            assert exchange.tx is not None
            if exchange.tx.upper().startswith(b"AT%s=" % name) and b"=?" not in exchange.tx:
                break
            if exchange.tx.upper().startswith(b"AT%s?" % name):
                if found := re.search(pattern, exchange.rx):
                    commands.append(b"AT%s=%s" % (name, found[1]))
                break
    return commands


def _bare(tx: bytes | None) -> bytes:
    return (tx or b"").rstrip(b"\r\n")


def _text(tx: bytes | None) -> str:
    return _bare(tx).decode("latin-1")


def _has_result(lines: Sequence[Line]) -> bool:
    return any(_FINAL.fullmatch(line.text) for line in lines)


def _is_urc(text: str, exchange: Exchange) -> bool:
    """Does a line begin with the name of something else than what was asked?"""
    found = re.match(r"[+^#][A-Z]\w*(?=:)", text)
    return found is not None and found[0].encode() not in (exchange.tx or b"").upper()


# --- comparing ------------------------------------------------------------------------------


def lines_of(raw: bytes) -> list[Line]:
    """The lines in ``raw``; of the line ends between two, the first belongs to the one before."""
    pieces = re.findall(r"[\r\n]+|[^\r\n]+", raw.decode("latin-1"))
    found: list[Line] = []
    lead = ""
    for piece in pieces:
        if piece[0] in "\r\n":
            if not found:
                lead = piece
                continue
            end = re.match(r"\r\n|\n\r|\r|\n", piece)
            assert end is not None
            last = found[-1]
            found[-1] = Line(last.lead, last.text, end[0])
            lead = piece[end.end() :]
        else:
            found.append(Line(lead, piece, ""))
            lead = ""
    return found


def align(wanted: Sequence[Line], got: Sequence[Line], exchange: Exchange) -> list[Row]:
    """Pair the lines of both, by what they begin with."""
    keys = [_key(line.text, exchange) for line in wanted]
    others = [_key(line.text, exchange) for line in got]
    rows: list[Row] = []

    def moved(line: Line) -> str:
        key = _key(line.text, exchange)
        return "in another order" if keys.count(key) == others.count(key) else ""

    for what, a, b, c, d in SequenceMatcher(None, keys, others, autojunk=False).get_opcodes():
        if what == "equal":
            rows += [compare(*pair, exchange) for pair in zip(wanted[a:b], got[c:d], strict=True)]
            continue
        for line in wanted[a:b]:
            rows.append(Row(line, None, Level.FORM, moved(line) or "missing"))
        for line in got[c:d]:
            rows.append(Row(None, line, Level.FORM, moved(line) or "not in the capture"))
    return rows


def _key(text: str, exchange: Exchange) -> str:
    """What a line is, whatever its values."""
    if _FINAL.fullmatch(text):
        return "result"
    if exchange.tx is not None and text == _text(exchange.tx):
        return "echo"
    if found := re.match(r'([^:"]{1,40}?) *: *("[a-z_]+")?', text):
        return f"{found[1]}:{found[2] or ''}".replace(" ", "").upper()
    return "text" if exchange.tx is not None else re.split(r"[\s_]", text)[0]


def compare(wanted: Line, got: Line, exchange: Exchange) -> Row:
    """One pair of lines."""
    level, why = _compare_text(wanted.text, got.text, exchange)
    if exchange.exact and (wanted.lead, wanted.trail) != (got.lead, got.trail):
        why = f"{why}, line ends" if level is Level.FORM else "line ends"
        level = Level.FORM
    return Row(wanted, got, level, why)


def _compare_text(a: str, b: str, exchange: Exchange) -> tuple[Level, str]:
    if a == b:
        return Level.EQUAL, ""
    if _FINAL.fullmatch(a) and _FINAL.fullmatch(b):
        if a.partition(":")[0] != b.partition(":")[0]:
            return Level.FORM, "another result"
        if a.replace(" ", "") != b.replace(" ", "") and alike(a, b):
            return Level.VALUES, "error code"
    if _PLACEHOLDER.search(a) or alike(a, b):
        return Level.VALUES, "values"
    if ":" not in a and _IDENTITY.fullmatch(_bare(exchange.tx)):
        return Level.VALUES, "identity"
    bare, other = (re.sub(r"\s", "", text) for text in (a, b))
    if bare == other or alike(bare, other):
        return Level.FORM, "spacing"
    if a.lower() == b.lower():
        return Level.FORM, "upper and lower case"
    if (fields := a.count(",") + 1) != (others := b.count(",") + 1):
        return Level.FORM, f"{fields} fields against {others}"
    return Level.FORM, "quotes" if a.count('"') != b.count('"') else "text"


def alike(a: str, b: str) -> bool:
    """Do two lines differ in their values only?

    The name before the colon and everything between values must be the same; a number stands for
    a number, hexadecimal digits for as many, a text in quotes for another.
    """
    ones, others = _TOKEN.findall(a), _TOKEN.findall(b)
    if len(ones) != len(others):
        return False
    colon = ones.index(":") if ":" in ones else -1
    pairs = list(zip(ones, others, strict=True))
    if any(one != other for one, other in pairs[: colon + 1]):
        return False
    return all(one == other or _same_kind(one, other) for one, other in pairs[colon + 1 :])


def _same_kind(a: str, b: str) -> bool:
    if _MASK.fullmatch(a):
        return bool(re.fullmatch(r'[\w-]+|"[^"]*"', b))
    if a[0] == '"' or b[0] == '"':
        return a[0] == b[0]
    numbers = [re.fullmatch(r"-?\d+", text) is not None for text in (a, b)]
    digits = [re.fullmatch(r"[0-9A-Fa-f]+", text) is not None for text in (a, b)]
    if all(numbers):
        return True
    if all(digits) and min(len(a), len(b)) >= _LONG:
        return len(a) == len(b)
    words = [re.fullmatch(r"\w+", text) is not None for text in (a, b)]
    return all(words) and (not any(numbers) or (all(digits) and len(a) == len(b)))


def unified(compared: Compared) -> Iterator[tuple[str, str]]:
    """(sign, text) of each line of a diff: ``-`` the capture, ``+`` the software modem."""
    for row in compared.rows:
        if row.level is Level.EQUAL and row.captured is not None:
            yield " ", row.captured.shown
            continue
        why = f"   ({row.why})" if row.why else ""
        sign = {Level.VALUES: "~", Level.FORM: ""}.get(row.level, "")
        if row.captured is not None:
            yield f"{sign}-", row.captured.shown + (why if row.emulated is None else "")
        if row.emulated is not None:
            yield f"{sign}+", row.emulated.shown + why
