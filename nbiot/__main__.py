"""``python -m nbiot`` is the command ``nbiot``."""

from __future__ import annotations

from nbiot.cli import main

main()
