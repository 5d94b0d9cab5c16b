"""What a family of modems says on its own: unsolicited result codes, boot banner, error numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from nbiot.at.command import Command
from nbiot.at.shape import Fields, Shape

_HEAD = re.compile(rb"[^: ]{0,32}")


@dataclass(frozen=True, slots=True)
class Urc:
    """A row in the table of unsolicited result codes.

    ``data`` names the field that holds the length of raw bytes which follow the line (after its
    CR LF, or after the last comma when ``notation`` ends with one). They are read by length.
    """

    name: str
    notation: str
    evidence: str
    data: str = ""


@dataclass(frozen=True, slots=True)
class BootBanner:
    """How a modem says that it has just started.

    ``lines`` fits every line of the banner; ``last`` is the line after which commands are taken.
    On HiSilicon that last line is an ``OK`` which must never complete a command.
    ``seconds``: how long the rest of a banner that has begun may take.
    """

    lines: str
    last: bytes
    evidence: str
    seconds: float = 10.0


@dataclass(frozen=True, slots=True)
class DataRule:
    """A URC whose header is followed by counted raw bytes."""

    name: str
    length: str
    shape: Shape
    header: re.Pattern[bytes]
    inline: bool  # the data follows the last comma, not the line end


@dataclass(frozen=True)
class Dialect:
    """The tables of one family.

    ``probes`` are two harmless queries with answers that cannot be mixed up; the channel uses them
    to find the beginning of its own answers again. ``gap``: seconds of silence the modem needs
    before a command. ``settle``: seconds between its prompt and the payload.
    """

    urcs: tuple[Urc, ...] = ()
    banners: tuple[BootBanner, ...] = ()
    errors: Mapping[int, str] = field(default_factory=dict)
    probes: tuple[Command, ...] = ()
    gap: float = 0.0
    settle: float = 0.0
    data_rules: tuple[DataRule, ...] = field(init=False, repr=False, compare=False)
    data_prefixes: tuple[bytes, ...] = field(init=False, repr=False, compare=False)
    _rules: dict[bytes, list[tuple[str, Shape]]] = field(init=False, repr=False, compare=False)
    boot_ends: frozenset[bytes] = field(init=False, repr=False, compare=False)
    _boot: re.Pattern[bytes] | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        rules: dict[bytes, list[tuple[str, Shape]]] = {}
        for urc in self.urcs:
            if not urc.data:
                shape = Shape(urc.notation)
                rules.setdefault(shape.prefix, []).append((urc.name, shape))
        data_rules = tuple(_data_rule(urc) for urc in self.urcs if urc.data)
        boot = b"|".join(banner.lines.encode() for banner in self.banners)
        object.__setattr__(self, "_rules", rules)
        object.__setattr__(self, "data_rules", data_rules)
        object.__setattr__(self, "data_prefixes", tuple({r.shape.prefix for r in data_rules}))
        object.__setattr__(self, "boot_ends", frozenset(banner.last for banner in self.banners))
        object.__setattr__(self, "_boot", re.compile(boot) if boot else None)

    def urc(self, line: bytes) -> tuple[str, Fields] | None:
        """Name and fields of the URC that ``line`` is, or None."""
        head = _HEAD.match(line)
        for name, shape in self._rules.get(head[0], ()) if head else ():
            fields = shape.match(line)
            if fields is not None:
                return name, fields
        return None

    def may_announce(self, answer: Shape) -> bool:
        """Does a URC begin like ``answer``?"""
        return answer.prefix in self._rules

    def is_boot(self, line: bytes) -> bool:
        """Is this a line of a boot banner?"""
        return self._boot is not None and self._boot.fullmatch(line) is not None

    @property
    def boot_seconds(self) -> float:
        """The longest that a banner which has begun may take."""
        return max((banner.seconds for banner in self.banners), default=0.0)

    @classmethod
    def union(cls, dialects: Iterable[Dialect]) -> Dialect:
        """All tables together but the probes, for a modem that is not identified yet."""
        dialects = list(dialects)
        return cls(
            urcs=tuple(dict.fromkeys(urc for d in dialects for urc in d.urcs)),
            banners=tuple(dict.fromkeys(banner for d in dialects for banner in d.banners)),
            gap=max((d.gap for d in dialects), default=0.0),
        )


def _data_rule(urc: Urc) -> DataRule:
    inline = urc.notation.endswith(",")
    shape = Shape(urc.notation.removesuffix(","))
    header = rb"(?P<line>[^\r\n]*+)[\r\n]"
    if inline:  # the header ends at the comma behind the length, not at one inside the data
        commas = urc.notation.count(",") - 1
        header = rb"(?P<line>[^\r\n,]{0,40}(?:,[^\r\n,]{0,40}){%d})," % commas
    return DataRule(urc.name, urc.data, shape, re.compile(header), inline)
