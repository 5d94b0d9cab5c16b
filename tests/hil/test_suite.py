"""The suite passes on the software modems, by the command that people type."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

FILES = ("--json", "r.json", "--html", "r.html", "--junit", "r.xml")


@pytest.mark.unhygienic
def test_every_check_on_every_software_modem(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "nbiot", "hil", "run", "--jobs", "3", "--soak", "2", *FILES],
        cwd=tmp_path,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout
    assert "FAILED" not in done.stdout
    found = json.loads((tmp_path / "r.json").read_text())
    assert found["good"]
    assert found["counts"]["passed"] > 200
    assert {slot["name"]: slot["model"] for slot in found["slots"]} == {
        "bc95": "BC95-B8",
        "bc95-g": "BC95-G",
        "bc66": "BC66",
    }
    skipped = {check["words"] for check in found["checks"] if check["outcome"] == "skipped"}
    assert all("BC95" in words for words in skipped), f"skipped on software modems: {skipped}"
    workers = {(check["slot"], check["worker"]) for check in found["checks"]}
    assert len(workers) == 3, f"a slot had two workers: {workers}"
    assert len({worker for _, worker in workers}) == 3
    assert len(list(ET.parse(tmp_path / "r.xml").iter("testcase"))) == len(found["checks"])
    assert not (tmp_path / "at-traces").exists()
