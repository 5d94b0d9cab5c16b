"""The key that device secrets are encrypted with in the database: AES-256-GCM, one key per line.

An encrypted secret is ``version (1 byte) | key id (4) | nonce (12) | ciphertext and tag``. Product
key and device key are bound to it as associated data: a secret that was moved to another row of the
database does not decrypt.

The key is a text of one line, ``nbiot-vault-1:`` and 32 bytes in base64, in a file that only its
owner may read or in the keyring. Whoever has it and the database has every device's secret; who
loses it loses the secrets of all identities that were not given to a board yet. See
docs/station-database.md for copies of it and for its rotation.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from nbiot.errors import NbiotError, VaultError
from nbiot.signing import Secret, secret_from

PREFIX = "nbiot-vault-1:"
_VERSION = b"\x01"
_KEY, _KEY_ID, _NONCE, _TAG = 32, 4, 12, 16  # bytes
_HEAD = len(_VERSION) + _KEY_ID + _NONCE
_CHECK = b"nbiot station: this is the right key"
_CHECK_FOR = b"nbiot station key check"


class Vault:
    """Encrypts and decrypts device secrets. Shows nothing of the key but ``key_id``."""

    __slots__ = ("_cipher", "key_id")

    def __init__(self, key: Secret) -> None:
        """``key``: the line of a key file. Raises VaultError, which does not show it."""
        cipher, self.key_id = _opened(key)
        self._cipher: Callable[[], AESGCM] = lambda: cipher

    @classmethod
    def open(cls, source: str) -> Vault:
        """Read the key from ``file:PATH``, ``keyring:SERVICE/USER`` or ``env:NAME``.

        Blocks. Raises VaultError: there is none, others may read it, or it is no such key.
        """
        try:
            return cls(secret_from(source))
        except VaultError as error:
            raise VaultError(f"{source}: {error.message}", hint=error.hint) from None
        except NbiotError as error:
            raise VaultError(
                f"the key of the vault cannot be read: {error.message}",
                hint=error.hint or "Type: nbiot station init",
            ) from None

    @classmethod
    def create(cls, path: str | os.PathLike[str]) -> Vault:
        """Make a key and write it to a new file, mode 0600; it is on disk when this returns.

        Blocks. Raises VaultError where there is a file already: its key may be in use.
        """
        path = Path(path)
        key = Secret(PREFIX + base64.b64encode(os.urandom(_KEY)).decode())
        try:
            _write_new(path, key)
        except FileExistsError:
            raise VaultError(
                f"the key file {path} exists already, and is not overwritten",
                hint="Use it, or choose another name. Without the old key, secrets that were "
                "encrypted with it are lost.",
            ) from None
        except OSError as error:
            raise VaultError(
                f"the key file {path} cannot be written: {error.strerror}",
                hint="Choose a folder that this user may write to.",
            ) from error
        return cls(key)

    def encrypt(self, secret: Secret, product_key: str, device_key: str) -> bytes:
        """The secret as it stands in the database. Each call gives other bytes."""
        nonce = os.urandom(_NONCE)
        sealed = self._cipher().encrypt(
            nonce, secret.reveal().encode(), _owner(product_key, device_key)
        )
        return _VERSION + bytes.fromhex(self.key_id) + nonce + sealed

    def decrypt(self, sealed: bytes, product_key: str, device_key: str) -> Secret:
        """The opposite. Raises VaultError: another key's, another device's, or damaged."""
        whose = f"the secret of device {device_key} (product {product_key})"
        if len(sealed) < _HEAD + _TAG or sealed[:1] != _VERSION:
            raise VaultError(
                f"{whose} is damaged in the database: {len(sealed)} bytes that no vault wrote",
                hint="Restore the row from a backup of the database.",
            )
        key_id = sealed[1 : 1 + _KEY_ID].hex()
        if key_id != self.key_id:
            raise wrong_key(self.key_id, key_id, whose)
        try:
            return Secret(
                self._cipher()
                .decrypt(
                    sealed[_HEAD - _NONCE : _HEAD], sealed[_HEAD:], _owner(product_key, device_key)
                )
                .decode()
            )
        except InvalidTag:
            raise VaultError(
                f"{whose} does not decrypt with key {self.key_id}: damaged, or another device's",
                hint="Restore the row from a backup of the database.",
            ) from None

    def check_value(self) -> bytes:
        """What is kept beside the secrets, to know the right key from a wrong one."""
        nonce = os.urandom(_NONCE)
        return nonce + self._cipher().encrypt(nonce, _CHECK, _CHECK_FOR)

    def fits(self, check_value: bytes) -> bool:
        """Whether this key made ``check_value``."""
        with suppress(InvalidTag, ValueError):
            nonce, sealed = check_value[:_NONCE], check_value[_NONCE:]
            return self._cipher().decrypt(nonce, sealed, _CHECK_FOR) == _CHECK
        return False

    def __repr__(self) -> str:
        return f"<Vault {self.key_id}>"


def wrong_key(mine: str, theirs: str, what: str) -> VaultError:
    """The key that this station has is not the one of ``what``."""
    return VaultError(
        f"{what} is encrypted with key {theirs}; this station's key is {mine}",
        hint=f"Give the station the file with key {theirs} (setting: key of the vault).",
    )


def _opened(key: Secret) -> tuple[AESGCM, str]:
    try:
        raw = base64.b64decode(key.reveal().removeprefix(PREFIX), validate=True)
    except ValueError:
        raw = b""
    if len(raw) != _KEY or not key.reveal().startswith(PREFIX):
        raise VaultError(
            f"this is no key of a vault (not shown); allowed: {PREFIX} and {_KEY} bytes in base64",
            hint="nbiot station init makes one.",
        )
    # Public: it tells nothing of a key of 256 random bits.
    key_id = hashlib.sha256(b"nbiot vault key id" + raw).digest()[:_KEY_ID].hex()
    return AESGCM(raw), key_id


def _owner(product_key: str, device_key: str) -> bytes:
    return f"{product_key}\0{device_key}".encode()


def _write_new(path: Path, key: Secret) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, f"{key.reveal()}\n".encode())
        os.fsync(fd)
    finally:
        os.close(fd)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)  # the name, too, must survive a power cut
    finally:
        os.close(folder)
