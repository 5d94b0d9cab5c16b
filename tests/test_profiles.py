"""The tables of the profiles: honest about their evidence, and complete."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from nbiot.modem import profiles
from nbiot.profile import Profile

CAPTURES = Path(__file__).parent / "captures"
NAMES = ("bc95", "bc95-g", "bc66")

Fact = tuple[str, str]


def captures() -> dict[str, dict[str, Any]]:
    lines = [line for file in CAPTURES.glob("*.jsonl") for line in file.read_text().splitlines()]
    return {record["id"]: record for record in map(json.loads, lines)}


def said(record: dict[str, Any]) -> str:
    """All that went over the line in a capture."""
    parts: list[str] = []
    for exchange in record["exchanges"]:
        parts += [exchange.get("tx", ""), exchange.get("urc", ""), *exchange.get("rx", [])]
    return "\n".join(parts)


def facts(profile: type[Profile]) -> list[Fact]:
    """(what it says, its evidence) of every row."""
    commands = [(row.text, row.evidence) for row in profile.commands.values()]
    urcs = [(urc.notation, urc.evidence) for urc in profile.dialect.urcs]
    banners = [("", banner.evidence) for banner in profile.dialect.banners]
    return commands + urcs + banners


@pytest.mark.parametrize("name", NAMES)
def test_what_is_called_captured_stands_in_a_capture(name: str) -> None:
    known = captures()
    for text, evidence in facts(profiles()[name]):
        tier, _, where = evidence.partition(": ")
        assert tier in ("captured", "from_manual")
        assert where
        if tier == "from_manual":
            continue
        head = re.split(r"[=:?]", text)[0]
        for identifier in re.findall(r"\w+(?:-\w+)+", where.partition("(")[0]):
            assert identifier in known, f"{text}: no capture {identifier}"
            assert head in said(known[identifier]), f"{text} is not in {identifier}"


@pytest.mark.parametrize("name", NAMES)
def test_what_a_manual_prints_is_not_called_captured(name: str) -> None:
    known = captures()
    for text, evidence in facts(profiles()[name]):
        if not evidence.startswith("captured"):
            continue
        for identifier in re.findall(r"\w+(?:-\w+)+", evidence.partition("(")[0]):
            record = known[identifier]
            kind = record.get("evidence", record.get("note", ""))
            assert not kind.startswith("vendor"), f"{text}: {identifier}"


def test_siblings_come_before_their_parents() -> None:
    order = list(profiles())
    assert order.index("bc95-g") < order.index("bc95")


@pytest.mark.parametrize(
    ("said_by_modem", "name"),
    [
        ("Quectel\nBC95-B5\nRevision:BC95B5HBR01A02W16", "bc95"),
        ("BC95HB-02-STD_900\nSECURITY,V100R100C10B657SP3", "bc95"),
        ("BC95\nSECURITY_A,V150R100C20B300SP5", "bc95-g"),
        ("Quectel\nBC28\nRevision:BC28JAR01A03", "bc95-g"),
        ("BC35-G\nRevision:BC35GJBR01A04W", "bc95-g"),
        ("Quectel_Ltd\nQuectel_BC66\nRevision: BC66NBR01A11", "bc66"),
        ("Quectel_Ltd\nQuectel_BC26\nRevision: BC26NBR01A03", "bc66"),
    ],
)
def test_a_modem_is_recognised_by_what_it_says(said_by_modem: str, name: str) -> None:
    matching = [p.name for p in profiles().values() if re.search(p.models, said_by_modem)]
    assert matching[0] == name


@pytest.mark.parametrize("name", NAMES)
def test_the_probes_cannot_be_mixed_up(name: str) -> None:
    probes = profiles()[name].dialect.probes
    assert len(probes) >= 2
    prefixes = {probe.answer.prefix for probe in probes if probe.answer}
    assert len(prefixes) == len(probes)
    assert all(probe.repeatable and probe.least == 1 for probe in probes)
