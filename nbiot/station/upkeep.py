"""What ``nbiot station rotate-key`` does."""

from __future__ import annotations

import asyncio
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nbiot.errors import BadInput, NbiotError, StoreUnavailable

if TYPE_CHECKING:
    from nbiot.station.config import Config
    from nbiot.station.vault import Vault

RECENT = 86_400.0  # s: a station that reported since then is in use


@dataclass(frozen=True)
class Rotated:
    """``vault``: what the station file must say from now on; ``old_vault``: what it says."""

    secrets: int
    vault: str
    key_id: str
    old_vault: str
    old_key_id: str
    stations: list[str]


async def rotate_key(config: Config, out: Path | None, *, who: str) -> Rotated:
    """Make a new key, and encrypt all secrets with it. The old key file stays.

    out: the new key file; None: beside the old one

    Raises BadInput (the old key is not in a file, and no ``out``), VaultError, StoreUnavailable.
    """
    from nbiot.station.runner import store_of
    from nbiot.station.vault import Vault

    old = await asyncio.to_thread(Vault.open, config.vault)
    async with await asyncio.to_thread(store_of, config) as store:  # it checks the old key
        stations = [row.name for row in await store.stations() if row.age < RECENT]
        path = await asyncio.to_thread(_new_path, config.vault, out)
        new = await asyncio.to_thread(_made, path, config.vault)
        try:
            secrets = await store.rotate(new, who=who)
        except StoreUnavailable as error:  # before the commit, or after it
            raise StoreUnavailable(
                f"{error.message}; whether the secrets have the new key, nobody knows",
                hint=f"Keep both keys: {old.key_id} is in {config.vault}, {new.key_id} in {path}. "
                "`nbiot station doctor` tells which one the database has.",
            ) from error
        except NbiotError:  # rolled back: nothing was encrypted with it
            await asyncio.to_thread(path.unlink)
            raise
    return Rotated(secrets, f"file:{path}", new.key_id, config.vault, old.key_id, stations)


def _new_path(source: str, out: Path | None) -> Path:
    """``vault-2.key`` beside ``vault.key``, or the next number that is not taken."""
    if out is not None:
        return out.absolute()
    old = _file_of(source)
    if old is None:
        raise BadInput("out", "none", f"a file for the new key: the old one is in {source}")
    stem = re.sub(r"-[0-9]+$", "", old.stem)
    number = 2
    while (path := old.with_name(f"{stem}-{number}{old.suffix}")).exists():
        number += 1
    return path


def _file_of(source: str) -> Path | None:
    kind, _, rest = source.partition(":")
    return Path(rest).expanduser().absolute() if kind == "file" else None


def _made(path: Path, source: str) -> Vault:
    """A new key in a file of the old one's owner: root may type this for the station's user."""
    from nbiot.station.vault import Vault

    new = Vault.create(path)
    if (old := _file_of(source)) is not None:
        owner = old.stat()
        if owner.st_uid != os.geteuid():
            os.chown(path, owner.st_uid, owner.st_gid)
    return new
