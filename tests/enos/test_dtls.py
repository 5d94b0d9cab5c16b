"""Where EnOS's DTLS server is, how a device names itself there, and where its secret is kept."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from nbiot.coap.dtls import Suite
from nbiot.enos import Device, EnosSession, Server
from nbiot.enos.dtls import DtlsServer, psk_identity, store_in_file
from nbiot.enos.session import EnosCloud, EnosDtlsCloud
from nbiot.errors import BadInput, SecretUnavailable
from nbiot.session import Handshaking
from nbiot.signing import Secret, SecretSigner, secret_from

DEVICE = Device("KV315idW", "tPbZGCdmaE", SecretSigner(Secret("M3yy874uGY8INjEGddTR")))


class NoModem:
    recoveries = 0

    async def call(self, operation: object, *, repeat: bool = False) -> None: ...


# --- the server ---------------------------------------------------------------------------------


def test_the_port_is_5684_unless_another_is_given() -> None:
    assert DtlsServer("a.b").port == 5684
    assert str(DtlsServer.of_enos("https://abc.def.com")) == "coap-abc.def.com:5684"
    assert DtlsServer.parse("a.b") == DtlsServer("a.b")
    assert DtlsServer.parse("coaps://a.b/") == DtlsServer("a.b")
    assert DtlsServer.parse("coaps://a.b:15684") == DtlsServer("a.b", 15684)
    assert DtlsServer.parse("10.0.0.1:15684") == DtlsServer("10.0.0.1", 15684)
    assert DtlsServer("a.b").suites == (Suite.CCM_8, Suite.CBC_SHA256)


@pytest.mark.parametrize("text", ["coap://a.b", "http://a.b", "", "a b", "a.b:0", "a.b:x"])
def test_what_is_no_dtls_server_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match=r"^server:"):
        DtlsServer.parse(text)


@pytest.mark.parametrize("suites", [(), ("PSK-AES128-CCM8",)])
def test_suites_are_checked(suites: tuple[Suite, ...]) -> None:
    with pytest.raises(BadInput, match=r"^suites:"):
        DtlsServer("a.b", suites=suites)


def test_the_server_says_whether_a_session_is_encrypted() -> None:
    plain = EnosSession(NoModem(), DEVICE, Server("a.b"))
    assert type(plain.enos) is EnosCloud
    assert not isinstance(plain.enos, Handshaking)
    encrypted = EnosSession(NoModem(), DEVICE, DtlsServer("a.b"))
    assert isinstance(encrypted.enos, EnosDtlsCloud)
    assert isinstance(encrypted.enos, Handshaking)
    assert encrypted.enos.port == 5684


def test_a_handshake_is_no_keep_alive() -> None:
    assert EnosCloud(DEVICE, Server("a.b")).keep_alive() is None
    assert EnosDtlsCloud(DEVICE, DtlsServer("a.b")).keep_alive() is not None


# --- the identity -------------------------------------------------------------------------------


def test_the_identity_is_made_as_enos_says() -> None:
    assert psk_identity("MuGsF6W4", "15bBZlRknc") == "MuGsF6W4,15bBZlRknc,2,3600"
    assert psk_identity("MuGsF6W4", "15bBZlRknc", 3, 30) == "MuGsF6W4,15bBZlRknc,3,30"
    assert len(psk_identity("A" * 64, "b" * 64, 2, 86400)) > 128  # which DtlsSession refuses


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("productKey", ("a,b,c", "tPbZGCdmaE", 2, 3600)),
        ("deviceKey", ("KV315idW", "a,b,c", 2, 3600)),
        ("secureMode", ("KV315idW", "tPbZGCdmaE", 1, 3600)),
        ("secureMode", ("KV315idW", "tPbZGCdmaE", True, 3600)),
        ("lifetime", ("KV315idW", "tPbZGCdmaE", 2, 29)),
    ],
)
def test_an_identity_that_enos_cannot_read_is_not_made(
    field: str, values: tuple[str, str, int, int]
) -> None:
    with pytest.raises(BadInput, match=f"^{field}:"):
        psk_identity(*values)


# --- the file -----------------------------------------------------------------------------------


async def test_a_secret_is_kept_for_this_user_alone_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    umask = os.umask(0)
    try:
        await store_in_file(path)(Secret("schlüssel"))
    finally:
        os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert secret_from(f"file:{path}") == Secret("schlüssel")
    assert os.listdir(tmp_path) == ["secret"]


async def test_the_same_secret_may_be_stored_again(tmp_path: Path) -> None:
    store = store_in_file(tmp_path / "secret")
    for _ in range(2):
        await store(Secret("the-same"))
    assert os.listdir(tmp_path) == ["secret"]


async def test_another_secret_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    store = store_in_file(path)
    await store(Secret("the-first"))
    with pytest.raises(BadInput, match="not overwritten") as caught:
        await store(Secret("the-second"))
    assert "the-" not in str(caught.value)
    assert secret_from(f"file:{path}") == Secret("the-first")
    assert os.listdir(tmp_path) == ["secret"]


async def test_a_link_is_not_followed_to_be_written(tmp_path: Path) -> None:
    target = tmp_path / "target"
    (tmp_path / "secret").symlink_to(target)
    with pytest.raises(SecretUnavailable):
        await store_in_file(tmp_path / "secret")(Secret("the-first"))
    assert not target.exists()


async def test_a_disk_that_fails_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(SecretUnavailable, match="No space left"):
        await store_in_file(tmp_path / "secret")(Secret("the-first"))
    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_missing_is_told_before_the_activation(tmp_path: Path) -> None:
    with pytest.raises(SecretUnavailable, match="no folder"):
        store_in_file(tmp_path / "missing" / "secret")
