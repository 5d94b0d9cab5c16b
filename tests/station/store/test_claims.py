"""Many stations claim at once: the measurement, small."""

from __future__ import annotations

from pathlib import Path

import pytest

from nbiot.station.vault import Vault
from tests.station.claims import measure
from tests.station.postgres import Server


@pytest.mark.unhygienic  # multiprocessing keeps a pipe
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_processes_that_claim_at_once_get_an_identity_each(
    database: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    Vault.create(tmp_path / "key")
    if database == "sqlite":
        url = f"sqlite+aiosqlite:///{tmp_path / 'station.db'}"
    else:
        server: Server = request.getfixturevalue("postgresql")
        url = server.url(server.new_database())
    result = measure(url, tmp_path / "key", count=80, stations=2, slots=4)
    assert result.distinct == len(result.claimed) == 80
