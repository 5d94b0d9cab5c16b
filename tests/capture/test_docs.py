"""docs/captures.md does not promise what is not there."""

from __future__ import annotations

import re
from pathlib import Path

from click.testing import CliRunner

from nbiot.capture import check_commands, read_commands
from nbiot.cli import nbiot

DOC = Path(__file__).parents[2] / "docs" / "captures.md"


def test_its_options_exist() -> None:
    text = DOC.read_text()
    helps = "".join(
        CliRunner().invoke(nbiot, [*words, "--help"]).output
        for words in (["capture"], ["hil", "verify-emulator"])
    )
    for option in set(re.findall(r"--[a-z]+", text)):
        assert option in helps, option


def test_its_file_of_commands_can_be_used(tmp_path: Path) -> None:
    match = re.search(r"\$ cat sockets.txt\n(.*?)\n    \$ ", DOC.read_text(), re.DOTALL)
    assert match is not None
    file = tmp_path / "sockets.txt"
    file.write_text(match[1])
    steps = read_commands(file)
    check_commands(steps, sure=False)
    assert [step.text for step in steps if step.payload] == ["AT+QISEND=0,5"]
