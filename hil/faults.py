"""Faults by name for the software modems: `late-final:delay=3,probability=0.1,seed=7`.

`with_faults` puts them around a modem: `PtyModem("bc95", with_faults("late-final", options))`.
What they did is in `modem.faults.log`, what the modem really did in `modem.truth`. Everything is
decided by the seed; times are seconds before division by `Options.speed`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import ClassVar

from hil.emulator import MODELS, Kind, Options, Piece, State
from hil.emulator.cells import Stat
from hil.emulator.clock import Handle
from hil.emulator.engine import AtError, Result
from hil.emulator.harm import (
    FAULTS,
    Effect,
    Fault,
    Faults,
    FaultSpec,
    Parameter,
    Value,
    bare,
    check,
    choice,
    command_name,
    fault,
    seconds,
    shown,
    whole,
)
from hil.emulator.network import Way

__all__ = ["FAULTS", "Fault", "FaultSpec", "Faults", "check", "parse", "usage", "with_faults"]

ANSWER = (Kind.LINE, Kind.FINAL, Kind.PROMPT)
WHERE = choice(
    "which pieces of output", "any", *(kind.value for kind in Kind if kind is not Kind.NOISE)
)
LINE_SIDE = choice("modem to host or host to modem", "out", "in")
AIR_WAY = choice("which datagrams", "both", "up", "down")

_BETWEEN = re.compile(r"(?:\s*\+\s*|\s+)(?=[a-z][a-z0-9-]*(?:[:+\s]|$))")


def parse(texts: str | Iterable[str]) -> list[FaultSpec]:
    """`late-final:delay=3,seed=7+split-chunks` to specs; ValueError says what is wrong.

    Several faults are separated by `+` or blanks, or given as several texts. A fault's own
    probability is that of its table entry, but 1 when `at` is given.
    """
    parts = [texts] if isinstance(texts, str) else texts
    names = [one for text in parts for one in _BETWEEN.split(text.strip())]
    return [_parse_one(text) for text in names]


def _parse_one(text: str) -> FaultSpec:
    name, _, rest = text.partition(":")
    kind = FAULTS.get(name)
    if kind is None:
        raise ValueError(f"fault {name!r}: unknown; allowed: {', '.join(FAULTS)}")
    given: dict[str, Value] = {}
    for part in rest.split(",") if rest else []:
        key, equals, value = part.partition("=")
        parameter = kind.parameters.get(key)
        if parameter is None or not equals:
            allowed = ", ".join(f"{known}=" for known in kind.parameters)
            raise ValueError(f"fault {name}: parameter {part!r}: unknown; allowed: {allowed}")
        try:
            given[key] = parameter.read(value)
        except ValueError:
            raise ValueError(
                f"fault {name}: {key} = {value!r}: allowed: {parameter.allowed}"
            ) from None
    if given.get("at"):
        given.setdefault("probability", 1.0)
    defaults = {key: parameter.default for key, parameter in kind.parameters.items()}
    return FaultSpec(name, defaults | given)


def with_faults(
    texts: str | Iterable[str], options: Options | None = None, *, model: str | None = None
) -> Options:
    """Options of a modem with these faults around it.

    With `model` a fault that does not apply to it is refused here (ValueError), else when the
    modem is made. The options may serve several modems: each gets faults of its own.
    """
    specs = parse(texts)
    if model is not None:
        check(specs, MODELS[model].engine.FAMILY)
    options = options or Options()
    if any(spec.name == "baud-mismatch" for spec in specs):
        options = replace(options, check_baud=True)
    return replace(options, faults=partial(Faults, specs))


def usage() -> str:
    """The table of faults as text, for a command's help."""
    lines = []
    for kind in FAULTS.values():
        lines.append(f"{kind.name}: {kind.about}")
        for key, parameter in kind.parameters.items():
            lines.append(f"    {key}={parameter.default}  {parameter.about} ({parameter.allowed})")
    return "\n".join(lines)


# ------------------------------------------------------------------ single bytes


class ByteEffect(Effect):
    """Goes over bytes one by one; every byte is an opportunity."""

    BYTES = True

    def changed(self, data: bytes) -> bytes:
        raise NotImplementedError

    def output(self, piece: Piece) -> list[Piece]:
        where = self.value.get("where", "any")
        if self.value.get("direction", "out") != "out" or where not in ("any", piece.kind.value):
            return [piece]
        return self.harm(piece)

    def harm(self, piece: Piece) -> list[Piece]:
        data = self.changed(piece.data)
        if data == piece.data:
            return [piece]
        self.note(f"{piece.kind.value} {shown(piece.data)} left as {shown(data)}")
        return [piece.with_damage(data)] if data else self.nothing(piece)

    def nothing(self, piece: Piece) -> list[Piece]:
        piece.suppress()
        return []

    def input(self, data: bytes) -> bytes:
        if self.value.get("direction", "out") != "in":
            return data
        heard = self.changed(data)
        if heard != data:
            self.note(f"input {shown(data)} came as {shown(heard)}")
        return heard


@fault(
    "byte-loss",
    "Bytes are lost on the line. A lost digit cannot be told from truth.",
    probability=0.001,
    tellable=False,
    length=whole(1, 1, 1024, "bytes lost together"),
    where=WHERE,
    direction=LINE_SIDE,
)
class ByteLoss(ByteEffect):
    def changed(self, data: bytes) -> bytes:
        kept, losing = bytearray(), 0
        for byte in data:
            if losing == 0 and self.strikes():
                losing = self.value["length"]
            if losing:
                losing -= 1
            else:
                kept.append(byte)
        return bytes(kept)


@fault(
    "noise",
    "Random bytes come in between, 0x00 and 0xFF among them. Within data not in hex (BC66 family) "
    "they cannot be told from truth.",
    probability=0.001,
    length=whole(1, 1, 4096, "bytes together"),
    bytes=choice("0x00 and 0x80..0xFF; `any` can look like truth", "high", "any"),
    where=WHERE,
    direction=LINE_SIDE,
)
class Noise(ByteEffect):
    def changed(self, data: bytes) -> bytes:
        out = bytearray()
        for byte in data:
            if self.strikes():
                out += self.burst()
            out.append(byte)
        return bytes(out)

    def burst(self) -> bytes:
        size = self.value["length"]
        if self.value["bytes"] == "any":
            return self.random.randbytes(size)
        return high_bytes(self.random, size)

    def harm(self, piece: Piece) -> list[Piece]:
        """Noise before the CR LF of a line leaves the line whole."""
        if not piece.data.startswith(b"\r\n"):
            return super().harm(piece)
        before = []
        if self.strikes():
            burst = self.burst()
            self.note(f"{shown(burst)} before {piece.kind.value} {shown(piece.data)}")
            before = [Piece(Kind.NOISE, burst, damaged=True)]
        data = piece.data[:1] + self.changed(piece.data[1:])
        if data == piece.data:
            return [*before, piece]
        self.note(f"{piece.kind.value} {shown(piece.data)} left as {shown(data)}")
        return [*before, piece.with_damage(data)]


def high_bytes(source: random.Random, size: int) -> bytes:
    """Bytes no modem text has; a quarter of them 0x00, a quarter 0xFF."""
    pick = [0x00, 0xFF, *([None] * 2)]
    chosen = (source.choice(pick) for _ in range(size))
    return bytes(source.randint(0x80, 0xFE) if byte is None else byte for byte in chosen)


@fault(
    "bit-flip",
    "One bit of a byte is wrong. Cannot be told from truth: leave it out of tables.",
    probability=0.001,
    tellable=False,
    where=WHERE,
    direction=LINE_SIDE,
)
class BitFlip(ByteEffect):
    def changed(self, data: bytes) -> bytes:
        return bytes(
            byte ^ 1 << self.random.randrange(8) if self.strikes() else byte for byte in data
        )


# --------------------------------------------------------------------- the wire


@fault(
    "split-chunks",
    "A piece of output arrives in several reads.",
    probability=0.5,
    gap=seconds(0.02, "longest pause between two of them"),
    parts=whole(4, 2, 64, "at most so many"),
)
class SplitChunks(Effect):
    def wire(self, piece: Piece) -> list[Piece]:
        if len(piece.data) < 2 or not self.strikes():
            return [piece]
        size = len(piece.data)
        number = self.random.randint(2, min(self.value["parts"], size))
        cuts = sorted(self.random.sample(range(1, size), number - 1))
        parts = [piece.data[a:b] for a, b in zip([0, *cuts], [*cuts, size], strict=True)]
        self.note(f"{piece.kind.value} {shown(piece.data)} cut at {cuts}")
        delays = [piece.delay, *(self.random.uniform(0, self.value["gap"]) for _ in cuts)]
        pieces = [
            replace(piece, data=part, delay=delay, texts=())
            for part, delay in zip(parts, delays, strict=True)
        ]
        pieces[-1].texts = piece.texts
        return pieces


@fault(
    "merged-chunks",
    "Output is kept back a little and arrives in one read with what follows.",
    probability=0.5,
    window=seconds(0.05, "kept back so long"),
)
class MergedChunks(Effect):
    def attached(self) -> None:
        self.seam.wire.joins = True

    def wire(self, piece: Piece) -> list[Piece]:
        if not self.seam.wire.waiting and self.strikes():
            self.note(f"{piece.kind.value} {shown(piece.data)} kept back")
            piece.delay += self.value["window"]
        return [piece]


@fault(
    "lf-only",
    "A line has LF where CR LF belongs.",
    where=WHERE,
)
class LfOnly(Effect):
    def output(self, piece: Piece) -> list[Piece]:
        if piece.kind not in (Kind.LINE, Kind.FINAL, Kind.REFUSAL, Kind.TRAILER, Kind.URC):
            return [piece]
        if self.value["where"] not in ("any", piece.kind.value) or not self.strikes():
            return [piece]
        body = piece.data.removeprefix(b"\r\n").removesuffix(b"\r\n")
        self.note(f"{piece.kind.value} {shown(piece.data)}")
        return [replace(piece, data=b"\n" + body + b"\n")]


# ----------------------------------------------------------------- URCs, echo


@fault(
    "urc-anywhere",
    "A URC comes at a line boundary, also within an answer and after its final result.",
    probability=0.15,
    own=Parameter(0.3, "chance that it begins as the pending command's answer does", 0, 1),
    gap=seconds(0.003, "longest time after a final result"),
)
class UrcAnywhere(Effect):
    def output(self, piece: Piece) -> list[Piece]:
        if piece.kind not in (*ANSWER, Kind.TRAILER, Kind.URC):
            return [piece]
        if self.modem.state is not State.READY:
            return [piece]
        pieces = [piece]
        if self.strikes():
            pieces[:0] = self.urc(piece, own=piece.kind in ANSWER)
        if piece.kind is Kind.FINAL and self.strikes():
            later = self.urc(piece, own=False)
            for one in later:
                one.delay = self.random.uniform(0, self.value["gap"])
            pieces += later
        return pieces

    def urc(self, piece: Piece, own: bool) -> list[Piece]:
        text = None
        if own and self.random.random() < self.value["own"]:
            text = self.modem.own_urc(command_name(self.seam.last_command))
        pool = self.modem.harmless_urcs()
        if text is None and pool:
            text = self.random.choice(pool)
        if text is None:
            return []
        self.note(f"{text} beside {piece.kind.value} {shown(piece.data)}")
        return [Piece(Kind.URC, f"\r\n{text}\r\n".encode(), ((Kind.URC, text),))]


@fault("echo-flips", "Echo turns itself on or off when a command comes.")
class EchoFlips(Effect):
    def command(self, line: str) -> None:
        if self.strikes():
            self.modem.echo = not self.modem.echo
            self.note(f"echo {'on' if self.modem.echo else 'off'} after {line}")


# -------------------------------------------------------------- results, answers


@fault("double-final", "The final result comes twice.", gap=seconds(0, "between the two"))
class DoubleFinal(Effect):
    def output(self, piece: Piece) -> list[Piece]:
        if piece.kind is not Kind.FINAL or not self.strikes():
            return [piece]
        self.note(f"{shown(piece.data)} after {self.seam.last_command}")
        again = Piece(Kind.FINAL, piece.data, delay=self.value["gap"])
        return [piece, again]


class Without(Effect):
    """Keeps one kind of piece back for ever."""

    KIND: ClassVar[Kind] = Kind.FINAL

    def wanted(self, piece: Piece) -> bool:
        return piece.kind is self.KIND

    def output(self, piece: Piece) -> list[Piece]:
        if not self.wanted(piece) or not self.strikes():
            return [piece]
        piece.suppress()
        self.note(f"{shown(piece.data)} after {self.seam.last_command}")
        return []


class Late(Without):
    """Keeps one kind of piece back for a time, and with it everything after."""

    def output(self, piece: Piece) -> list[Piece]:
        if self.wanted(piece) and self.strikes():
            piece.delay += self.value["delay"]
            self.note(f"{shown(piece.data)} of {self.seam.last_command}")
        return [piece]


@fault("missing-final", "The command is done, its final result never comes.")
class MissingFinal(Without): ...


@fault("late-final", "The final result, and all after it, come late.", delay=seconds(3, "so late"))
class LateFinal(Late): ...


@fault("lost-prompt", "The prompt for data never comes; the modem waits.", families=("mt2625",))
class LostPrompt(Without):
    KIND = Kind.PROMPT


@fault(
    "late-prompt",
    "The prompt for data comes late.",
    families=("mt2625",),
    delay=seconds(3, "so late"),
)
class LatePrompt(Late):
    KIND = Kind.PROMPT


@fault("send-ok-missing", "The report that a datagram left (SEND OK, +NSOSTR) never comes.")
class SendOkMissing(Without):
    def wanted(self, piece: Piece) -> bool:
        return any(text.startswith(("SEND ", "+NSOSTR:")) for _, text in piece.texts)


class AnswerEffect(Effect):
    """Every command is an opportunity; acts on the first piece of its answer, or on all."""

    def __init__(self, seam: Faults, values: Mapping[str, Value]) -> None:
        super().__init__(seam, values)
        self.armed = False

    def booting(self) -> None:
        self.armed = False

    def command(self, line: str) -> AtError | Result | None:
        self.armed = self.strikes()
        return None

    def output(self, piece: Piece) -> list[Piece]:
        return self.answer(piece) if self.armed and piece.kind in ANSWER else [piece]

    def answer(self, piece: Piece) -> list[Piece]:
        raise NotImplementedError


@fault(
    "late-answer",
    "The whole answer, and all after it, come late.",
    delay=seconds(3, "so late"),
    echo=choice("`at-once`: the next command's echo does not wait", "queued", "at-once"),
)
class LateAnswer(AnswerEffect):
    def attached(self) -> None:
        self.seam.echo_at_once |= self.value["echo"] == "at-once"

    def answer(self, piece: Piece) -> list[Piece]:
        self.armed = False
        self.note(f"answer of {self.seam.last_command}")
        piece.delay += self.value["delay"]
        return [piece]


@fault("no-answer", "The command is done, nothing of its answer comes.")
class NoAnswer(AnswerEffect):
    def answer(self, piece: Piece) -> list[Piece]:
        piece.suppress()
        self.note(f"{shown(piece.data)} of {self.seam.last_command}")
        return []


@fault("cut-answer", "The answer stops in the middle of its first line.")
class CutAnswer(AnswerEffect):
    cut = False

    def command(self, line: str) -> AtError | Result | None:
        self.cut = False
        return super().command(line)

    def answer(self, piece: Piece) -> list[Piece]:
        if self.cut:
            piece.suppress()
            return []
        self.cut = True
        half = piece.data[: max(1, len(piece.data) // 2)]
        self.note(f"{shown(piece.data)} of {self.seam.last_command} ended as {shown(half)}")
        return [piece.with_damage(half)]


@fault(
    "flood",
    "Junk text comes before the answer.",
    size=whole(65536, 1, 2**24, "bytes"),
    lines=choice("in lines or without line ends", "yes", "no"),
)
class Flood(AnswerEffect):
    def answer(self, piece: Piece) -> list[Piece]:
        self.armed = False
        size = self.value["size"]
        end = b"\r\n" if self.value["lines"] == "yes" else b"xy"
        block = b"abcdefghijklmnopqrstuvwxyz" * 2 + b"abcdefghij" + end
        self.note(f"{size} bytes before {shown(piece.data)}")
        data = (block * (size // len(block) + 1))[:size]
        return [Piece(Kind.NOISE, data, damaged=True), piece]


@fault(
    "refused-command",
    "The command is not done but answered with an error.",
    code=whole(4, -1, 999, "CME number; -1: plain ERROR"),
)
class RefusedCommand(Effect):
    def command(self, line: str) -> AtError | None:
        if not self.strikes():
            return None
        self.note(line)
        code: int = self.value["code"]
        return AtError(None if code < 0 else code)


@fault("full-line-buffer", "The command line is refused as too long (536 or ERROR).")
class FullLineBuffer(Effect):
    def command(self, line: str) -> AtError | None:
        if not self.strikes():
            return None
        self.note(line)
        return AtError(self.modem.LINE_TOO_LONG)


# --------------------------------------------------------------- boot, line, life


@fault(
    "banner-mid-command",
    "A boot banner comes instead of the final result; the modem did not reboot.",
    final=choice("does the final result follow?", "no", "yes"),
)
class BannerMidCommand(Effect):
    def output(self, piece: Piece) -> list[Piece]:
        if piece.kind is not Kind.FINAL or not self.strikes():
            return [piece]
        self.note(f"before {shown(piece.data)} of {self.seam.last_command}")
        banner = [Piece(Kind.BANNER, block) for block in self.modem.boot_text()]
        if self.value["final"] == "yes":
            return [*banner, piece]
        piece.suppress()
        return banner


@fault(
    "reboot-mid-command",
    "The modem restarts by itself: after the command is done, or before.",
    probability=0.02,
    when=choice("before its final result or before it is done", "final", "command"),
)
class RebootMidCommand(Effect):
    def command(self, line: str) -> Result | None:
        if self.value["when"] != "command" or not self.strikes():
            return None
        self._reboot(f"instead of {line}")
        return Result.SILENT

    def output(self, piece: Piece) -> list[Piece]:
        if self.value["when"] != "final" or piece.kind is not Kind.FINAL or not self.strikes():
            return [piece]
        piece.suppress()
        self._reboot(f"before {shown(piece.data)} of {self.seam.last_command}")
        return []

    def _reboot(self, detail: str) -> None:
        self.note(detail)
        self.modem.reboot()


@fault(
    "stuck-peer",
    "When a command comes the modem stops reading and answering, for a time or for ever.",
    probability=0.02,
    duration=seconds(0, "so long; 0: until it restarts"),
    input=choice("is what comes meanwhile read later or lost?", "keep", "lose"),
)
class StuckPeer(Effect):
    stuck = False

    def __init__(self, seam: Faults, values: Mapping[str, Value]) -> None:
        super().__init__(seam, values)
        self._kept = bytearray()

    def command(self, line: str) -> None:
        if self.stuck or not self.strikes():
            return
        self.note(f"stuck at {line}")
        self.stuck = self.seam.late.held = True
        if self.seam.port is not None and self.value["input"] == "keep":
            self.seam.port.pause()
        if self.value["duration"]:
            self.modem.after(self.value["duration"], self.resume)

    def input(self, data: bytes) -> bytes:
        if not self.stuck:
            return data
        if self.value["input"] == "keep":
            self._kept += data
        else:
            self.note(f"input {shown(data)} lost")
        return b""

    def resume(self) -> None:
        self.booting()
        self.note("goes on")
        kept, self._kept = bytes(self._kept), bytearray()
        self.seam.late.run()
        self.modem.hear(kept)

    def booting(self) -> None:
        self.stuck = self.seam.late.held = False
        if self.seam.port is not None:
            self.seam.port.resume()


@fault(
    "hang-up",
    "The line goes dead for good, as an unplugged adapter.",
    probability=0.02,
    when=choice("when a command comes or within its answer", "command", "answer"),
    delay=seconds(0.02, "from the cut answer to the end of the line"),
)
class HangUp(AnswerEffect):
    def command(self, line: str) -> Result | None:
        super().command(line)
        if not self.armed or self.value["when"] == "answer":
            return None
        self.note(f"at {line}")
        self.seam.hang_up()
        return Result.SILENT

    def answer(self, piece: Piece) -> list[Piece]:
        half = piece.data[: max(1, len(piece.data) // 2)]
        self.armed = False
        self.note(f"within {shown(piece.data)} of {self.seam.last_command}")
        self.seam.late.push(piece.with_damage(half))
        self.seam.gone = True
        self.modem.after(self.value["delay"], self.seam.hang_up)
        return []


@fault(
    "baud-mismatch",
    "The modem uses another UART rate from the start, or from command number `at` on.",
    probability=1.0,
    rate=whole(57600, 300, 921600, "bit/s; on the pty a host at another rate sees garbage"),
)
class BaudMismatch(Effect):
    def started(self) -> None:
        if not self.value["at"] and self.strikes():
            self._change()

    def command(self, line: str) -> Result | None:
        if not self.value["at"] or not self.strikes():
            return None
        self._change()
        return None

    def _change(self) -> None:
        self.note(f"{self.modem.rate} -> {self.value['rate']} bit/s")
        self.modem.rate = self.value["rate"]


@fault(
    "first-command-lost",
    "The first command after a pause only wakes the modem.",
    probability=1.0,
    families=("mt2625",),
    idle=seconds(10, "length of that pause; the start counts as one"),
)
class FirstCommandLost(Effect):
    _last: float | None = None
    _losing = False

    def input(self, data: bytes) -> bytes:
        now, last = self.modem.clock.time(), self._last
        pause = None if last is None else (now - last) * self.modem.options.speed
        if data and not self._losing and (pause is None or pause >= self.value["idle"]):
            self._losing = self.strikes()
        if data:
            self._last = now
        if not self._losing:
            return data
        end = data.find(b"\r") + 1
        self._losing = not end
        lost = data[: end or None]
        self.note(f"{shown(lost)} lost")
        return data[len(lost) :]


@fault(
    "garbage-after-boot",
    "Junk bytes come after the banner, or stand in the modem's line buffer.",
    probability=1.0,
    length=whole(4, 1, 4096, "bytes"),
    direction=LINE_SIDE,
)
class GarbageAfterBoot(Effect):
    def booted(self) -> None:
        if not self.strikes():
            return
        junk = high_bytes(self.random, self.value["length"])
        self.note(f"{shown(junk)} {self.value['direction']}")
        if self.value["direction"] == "in":
            self.modem.spoil_input(junk)
        else:
            self.seam.late.push(Piece(Kind.NOISE, junk, damaged=True))


@fault(
    "deaf-after-boot",
    "The modem ignores its input for a while after the banner.",
    probability=1.0,
    duration=seconds(5, "so long"),
)
class DeafAfterBoot(Effect):
    deaf = False

    def booting(self) -> None:
        self.deaf = False

    def booted(self) -> None:
        if self.strikes():
            self.deaf = True
            self.note("deaf")
            self.modem.after(self.value["duration"], self.booting)

    def input(self, data: bytes) -> bytes:
        if self.deaf and data:
            self.note(f"input {shown(data)} lost")
        return b"" if self.deaf else data


# ------------------------------------------------------------- the radio network


@fault(
    "slow-attach",
    "Registration takes longer.",
    probability=1.0,
    delay=seconds(60, "so much longer"),
)
class SlowAttach(Effect):
    def attach_delay(self, seconds: float) -> float:
        if not self.strikes():
            return seconds
        self.note(f"{self.value['delay']} s more")
        return seconds + float(self.value["delay"])


@fault(
    "denied-registration",
    "The network denies registration; `count=2`: twice.",
    probability=1.0,
    cause=whole(15, 0, 255, "EMM reject cause"),
)
class DeniedRegistration(Effect):
    def registration(self, stat: Stat, cause: int) -> tuple[Stat, int]:
        if stat == "none" or not self.strikes():
            return stat, cause
        self.note(f"cause {self.value['cause']}")
        return "denied", self.value["cause"]


@fault("uplink-busy", "The radio takes no datagram: error 159, or SEND FAIL.")
class UplinkBusy(Effect):
    def uplink_busy(self) -> bool:
        busy = self.strikes()
        if busy:
            self.note(f"during {self.seam.last_command}")
        return busy


class AirEffect(Effect):
    """Every datagram of the chosen direction is an opportunity."""

    def datagram(self, way: Way, data: bytes, pass_on: Callable[[], None]) -> Callable[[], None]:
        if self.value["direction"] not in ("both", way):
            return pass_on
        return self.chosen(way, data, pass_on)

    def chosen(self, way: Way, data: bytes, pass_on: Callable[[], None]) -> Callable[[], None]:
        if not self.strikes():
            return pass_on
        self.note(f"{way} {data.hex()}")
        return self.harm(pass_on)

    def harm(self, pass_on: Callable[[], None]) -> Callable[[], None]:
        raise NotImplementedError


@fault("drop-datagrams", "Datagrams are lost on the air.", direction=AIR_WAY)
class DropDatagrams(AirEffect):
    def harm(self, pass_on: Callable[[], None]) -> Callable[[], None]:
        return _nothing


def _nothing() -> None:
    return None


@fault(
    "duplicate-datagrams",
    "Datagrams arrive twice.",
    direction=AIR_WAY,
    gap=seconds(0.5, "until the copy"),
)
class DuplicateDatagrams(AirEffect):
    def harm(self, pass_on: Callable[[], None]) -> Callable[[], None]:
        def twice() -> None:
            pass_on()
            self.modem.after(self.value["gap"], pass_on)

        return twice


@fault(
    "delay-datagrams",
    "Datagrams are late; others may overtake them.",
    direction=AIR_WAY,
    delay=seconds(5, "so late"),
)
class DelayDatagrams(AirEffect):
    def harm(self, pass_on: Callable[[], None]) -> Callable[[], None]:
        return lambda: _ignore(self.modem.after(self.value["delay"], pass_on))


def _ignore(handle: Handle) -> None:
    return None


@fault(
    "reorder-datagrams",
    "A datagram is overtaken by the next one of its direction.",
    direction=AIR_WAY,
    wait=seconds(5, "it waits so long for a next one"),
)
class ReorderDatagrams(AirEffect):
    def __init__(self, seam: Faults, values: Mapping[str, Value]) -> None:
        super().__init__(seam, values)
        self._waiting: dict[Way, Callable[[], None]] = {}

    def booting(self) -> None:
        self._waiting.clear()

    def chosen(self, way: Way, data: bytes, pass_on: Callable[[], None]) -> Callable[[], None]:
        if way in self._waiting:
            return lambda: self._overtake(way, pass_on)
        if not self.strikes():
            return pass_on
        self.note(f"{way} {data.hex()}")
        return lambda: self._hold(way, pass_on)

    def _hold(self, way: Way, pass_on: Callable[[], None]) -> None:
        self._waiting[way] = pass_on

        def expired() -> None:
            if self._waiting.get(way) is pass_on:
                self._release(way)

        self.modem.after(self.value["wait"], expired)

    def _overtake(self, way: Way, pass_on: Callable[[], None]) -> None:
        pass_on()
        self._release(way)

    def _release(self, way: Way) -> None:
        waiting = self._waiting.pop(way, None)
        if waiting is not None:
            waiting()


# ------------------------------------------------------------ data and sockets

_HEX = re.compile(rb'(?=(?<![0-9])([0-9]+),("?)([0-9A-Fa-f]{2,})\2(?:[,\r]|$))')
_RAW = re.compile(rb'(?:\+QIURC: "recv",[0-9]+,|\+QIRD: )([1-9][0-9]*)[,\r]')
_ACCEPTED = re.compile(rb"\r\n[0-9]+,([0-9]+)\r\n$")


def find_hex(data: bytes) -> re.Match[bytes] | None:
    """The longest `<length>,<hex digits>` in a line, where the length fits."""
    found = [m for m in _HEX.finditer(data) if 2 * int(m[1]) == len(m[3])]
    return max(found, key=lambda match: len(match[3]), default=None)


@fault(
    "truncated-hex",
    "Hex digits are missing at the end of received data; its length says otherwise.",
    digits=whole(0, 0, 4096, "so many; 0: random, 1..8"),
)
class TruncatedHex(Effect):
    def output(self, piece: Piece) -> list[Piece]:
        match = find_hex(piece.data) if piece.kind in (Kind.LINE, Kind.URC) else None
        if match is None or not self.strikes():
            return [piece]
        size = len(match[3])
        cut = min(size, self.value["digits"] or self.random.randint(1, min(8, size)))
        self.note(f"{cut} digits of {shown(piece.data)}")
        end = match.end(3)
        return [piece.with_damage(piece.data[: end - cut] + piece.data[end:])]


@fault(
    "wrong-length",
    "The length printed with received data (or taken for sending) is wrong. On the BC66 family a "
    "shorter one of data not in hex cannot be told from truth.",
    by=whole(0, -4096, 4096, "so much; 0: random, -3..3"),
    of=choice("data received, or what NSOST says it took", "data", "sent"),
)
class WrongLength(Effect):
    def output(self, piece: Piece) -> list[Piece]:
        match = self._find(piece)
        if match is None or not self.strikes():
            return [piece]
        true = int(match[1])
        by = self.value["by"] or self.random.choice([-3, -2, -1, 1, 2, 3])
        false = true + (by if true + by > 0 else abs(by))
        self.note(f"{true} -> {false} in {shown(piece.data)}")
        start, end = match.span(1)
        data = piece.data[:start] + str(false).encode() + piece.data[end:]
        return [piece.with_damage(data)]

    def _find(self, piece: Piece) -> re.Match[bytes] | None:
        if piece.kind not in (Kind.LINE, Kind.URC):
            return None
        if self.value["of"] == "data":
            return find_hex(piece.data) or _RAW.search(piece.data)
        sending = bare(self.seam.last_command).startswith("NSOST")
        return _ACCEPTED.match(piece.data) if sending and piece.kind is Kind.LINE else None


@fault(
    "id-reuse",
    "A socket is closed by itself, so its id is given again; or an id in use is given.",
    mode=choice("close an open socket at a command, or answer an open with one", "close", "give"),
)
class IdReuse(Effect):
    def command(self, line: str) -> AtError | None:
        if self.value["mode"] == "close":
            self._close()
            return None
        if not bare(line).startswith("QIOPEN=") or not self.strikes():
            return None
        self.note(f"in use: {line}")
        return self.modem.id_in_use()

    def _close(self) -> None:
        open_now = self.modem.open_sockets()
        if open_now and self.strikes():
            ident = self.random.choice(open_now)
            self.note(f"socket {ident} closed")
            self.modem.lose_socket(ident)

    def output(self, piece: Piece) -> list[Piece]:
        opening = bare(self.seam.last_command).startswith("NSOCR=")
        if self.value["mode"] != "give" or piece.kind is not Kind.LINE or not opening:
            return [piece]
        others = [ident for ident in self.modem.open_sockets() if b"%d" % ident != piece.data[2:-2]]
        if not others or not self.strikes():
            return [piece]
        ident = self.random.choice(others)
        self.note(f"{shown(piece.data)} left as {ident}")
        return [piece.with_damage(b"\r\n%d\r\n" % ident)]
