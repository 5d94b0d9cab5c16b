"""The key of the secrets' column."""

from __future__ import annotations

import base64
import pickle
import stat
from pathlib import Path

import pytest

from nbiot.errors import VaultError
from nbiot.signing import Secret
from nbiot.station.vault import PREFIX, Vault


@pytest.fixture
def key(tmp_path: Path) -> Path:
    Vault.create(tmp_path / "key")
    return tmp_path / "key"


def test_a_secret_comes_back_and_looks_different_each_time(key: Path) -> None:
    vault = Vault.open(f"file:{key}")
    sealed = vault.encrypt(Secret("secret-1"), "pk12", "dev1")
    assert vault.decrypt(sealed, "pk12", "dev1") == Secret("secret-1")
    assert sealed != vault.encrypt(Secret("secret-1"), "pk12", "dev1")
    assert b"secret-1" not in sealed


def test_a_secret_of_another_row_does_not_decrypt(key: Path) -> None:
    vault = Vault.open(f"file:{key}")
    sealed = vault.encrypt(Secret("secret-1"), "pk12", "dev1")
    for product_key, device_key in (("pk12", "dev2"), ("pk13", "dev1"), ("pk1", "2dev1")):
        with pytest.raises(VaultError, match=device_key):
            vault.decrypt(sealed, product_key, device_key)


@pytest.mark.parametrize("spoil", [lambda s: b"", lambda s: s[:20], lambda s: b"\x02" + s[1:]])
def test_damage_is_named(key: Path, spoil: object) -> None:
    vault = Vault.open(f"file:{key}")
    sealed = vault.encrypt(Secret("secret-1"), "pk12", "dev1")
    with pytest.raises(VaultError, match=r"dev1(.|\n)*backup"):
        vault.decrypt(spoil(sealed), "pk12", "dev1")  # type: ignore[operator]
    flipped = sealed[:-1] + bytes([sealed[-1] ^ 1])
    with pytest.raises(VaultError, match="damaged"):
        vault.decrypt(flipped, "pk12", "dev1")


def test_another_key_is_named_by_its_id(key: Path, tmp_path: Path) -> None:
    vault, other = Vault.open(f"file:{key}"), Vault.create(tmp_path / "other")
    sealed = vault.encrypt(Secret("secret-1"), "pk12", "dev1")
    with pytest.raises(VaultError, match=rf"{vault.key_id}.*{other.key_id}"):
        other.decrypt(sealed, "pk12", "dev1")
    assert vault.fits(vault.check_value())
    assert not other.fits(vault.check_value())
    assert not vault.fits(b"")


def test_the_key_file_is_its_owner_s_and_is_not_overwritten(key: Path) -> None:
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    before = key.read_text()
    with pytest.raises(VaultError, match="exists already"):
        Vault.create(key)
    assert key.read_text() == before


def test_a_key_that_others_may_read_is_refused(key: Path) -> None:
    key.chmod(0o640)
    with pytest.raises(VaultError, match=r"(?s)open to other users.*chmod 600"):
        Vault.open(f"file:{key}")


def test_a_missing_key_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(VaultError, match=r"(?s)cannot be opened"):
        Vault.open(f"file:{tmp_path / 'none'}")
    with pytest.raises(VaultError, match="cannot be written"):
        Vault.create(tmp_path / "no" / "folder")


@pytest.mark.parametrize(
    "text",
    ["hello", PREFIX, PREFIX + "AAAA", PREFIX + "!" * 44, base64.b64encode(b"k" * 32).decode()],
)
def test_what_is_no_key_is_refused_and_not_shown(tmp_path: Path, text: str) -> None:
    path = tmp_path / "key"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(VaultError) as raised:
        Vault.open(f"file:{path}")
    assert text.removeprefix(PREFIX) not in str(raised.value) or text == PREFIX
    assert str(path) in str(raised.value)


def test_the_key_comes_from_the_environment_too(key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINE_KEY", key.read_text().strip())
    assert Vault.open("env:LINE_KEY").key_id == Vault.open(f"file:{key}").key_id


def test_a_vault_shows_only_its_id(key: Path) -> None:
    vault = Vault.open(f"file:{key}")
    assert repr(vault) == f"<Vault {vault.key_id}>"
    with pytest.raises((TypeError, AttributeError)):
        pickle.dumps(vault)
