"""Commands of the profiles, found by what a capture sent."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from nbiot.at import Command, Shape, Template


def command_for(tx: str, table: Mapping[str, Template]) -> Command:
    """The command of the first row in ``table`` that fits ``tx``; else one with free text."""
    for template in table.values():
        literal = re.split(r"\{(\w+)\}", template.text)
        pattern = "".join(
            f"(?P<{part}>[^,]*)" if i % 2 else re.escape(part) for i, part in enumerate(literal)
        )
        found = re.fullmatch(pattern + "(?:,.*)?" if "{" in template.text else pattern, tx)
        if found:
            gaps = {k: int(v) if v.isdecimal() else v for k, v in found.groupdict().items()}
            return replace(template(payload=b"", **gaps), line=tx.encode())
    return Command(tx.encode(), Shape("<text:line>"), 0, 50)
