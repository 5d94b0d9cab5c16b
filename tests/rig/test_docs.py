"""docs/rig.md against the program."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from hil import power
from hil.examine import OtherModem
from hil.rig import _KEYS, load

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/rig.md").read_text()


def test_the_example_is_taken(tmp_path: Path) -> None:
    found = re.search(r"```toml\n(.*?)```", PAGE, re.S)
    assert found is not None
    path = tmp_path / "rig.toml"
    path.write_text(found[1])
    path.chmod(0o600)
    assert [slot.name for slot in load(path, ports=False).slots] == ["roof", "desk", "trial"]


def test_each_key_is_told() -> None:
    for key in _KEYS:
        assert f"`{key}`" in PAGE


@pytest.mark.parametrize("name", power.backends())
def test_each_backend_and_its_keys_are_told(name: str) -> None:
    (line,) = (line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |"))
    for field in fields(power._backend(name)):
        if field.name not in ("slot", "role"):
            assert f"`{field.name}`" in line


def test_exit_codes_are_told() -> None:
    codes = (ROOT / "docs/exit-codes.md").read_text()
    for kind in (OtherModem, power.PowerError):
        (line,) = (line for line in codes.splitlines() if f".{kind.__name__}`" in line)
        assert line.startswith(f"| {kind.exit_code} | |")
