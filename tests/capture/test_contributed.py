"""Captures that users recorded and gave to tests/captures: the emulators say the same."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from hil.verify import Level, verify
from nbiot.capture import ID, SOURCE, read_captures

FOLDER = Path(__file__).parents[1] / "captures"

KNOWN: dict[str, tuple[int, ...]] = {}
"""Exchanges in which an emulator is known to say it otherwise, by capture."""


def contributed(folder: Path = FOLDER) -> dict[str, tuple[Path, dict[str, Any]]]:
    lines = [
        (p, line) for p in sorted(folder.glob("*.jsonl")) for line in p.read_text().splitlines()
    ]
    found = [(path, json.loads(line)) for path, line in lines]
    return {r["id"]: (path, r) for path, r in found if r["source"].startswith(SOURCE)}


def check(path: Path, record: dict[str, Any], known: tuple[int, ...] = ()) -> None:
    """What a contributed capture must fulfil."""
    assert re.fullmatch(ID, record["id"])
    assert record["evidence"] == "recorded", "a software modem said this, no real one"
    assert record["redacted"], "nothing in it was redacted"
    (capture,) = read_captures(Path(f"{path}#{record['id']}"))
    verdict = verify(capture)
    assert verdict.model, f"no software modem for {capture.modem!r}"
    differ = {c.exchange.number for c in verdict.compared if c.level is Level.FORM}
    assert differ == set(known), (
        f"{path.name}#{record['id']} and the emulator differ in form; look at it with:"
        f" nbiot hil verify-emulator '{path}#{record['id']}'; mend hil/emulator, or name the"
        " exchanges in KNOWN"
    )


def test_the_emulators_say_what_the_contributed_captures_say() -> None:
    for name, (path, record) in contributed().items():
        check(path, record, KNOWN.get(name, ()))


def test_what_a_software_modem_said_is_no_contribution(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    exchange = {"tx": "AT", "tx_raw": "AT\r", "rx": ["OK"], "rx_raw": "AT\r\r\nOK\r\n"}
    fields: dict[str, Any] = {"id": "bc66-x", "modem": "BC66", "firmware": ""}
    fields["source"] = f"{SOURCE} 1"
    fields |= {"exchanges": [exchange], "redacted": {"IMEI": 1}}
    path.write_text(json.dumps(fields | {"evidence": "recorded"}) + "\n")
    check(*contributed(tmp_path)["bc66-x"])
    path.write_text(json.dumps(fields | {"evidence": "emulated"}) + "\n")
    with pytest.raises(AssertionError, match="no real one"):
        check(*contributed(tmp_path)["bc66-x"])
    exchange["rx_raw"] = "AT\r\nOK\r\n"
    path.write_text(json.dumps(fields | {"evidence": "recorded"}) + "\n")
    with pytest.raises(AssertionError, match="differ in form"):
        check(*contributed(tmp_path)["bc66-x"])
