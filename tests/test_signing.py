from __future__ import annotations

import copy
import io
import json
import logging
import os
import pickle
import subprocess
import sys
import traceback
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbiot.errors import BadInput, NbiotError, SecretUnavailable
from nbiot.signing import (
    PskHolder,
    Secret,
    SecretSigner,
    Signer,
    check_device_key,
    check_lifetime,
    check_product_key,
    check_secure_mode,
    secret_from,
)

PK, DK, TEXT = "KV315idW", "tPbZGCdmaE", "M3yy874uGY8INjEGddTR"
VECTORS = {
    30: "72D5EC0D69361D2F10933015BCF9D38AE8977E6E61BEAFA9634F524FF8B8DCE3",
    3600: "51CC3D49A254DE334BBFFEC60E20DC897EC9697C954AA60CA9686B1EEF5B221C",
    86400: "08A54CCB1D939821E277BB66FB23E205E1740BC683FDBAD3B3F6AFB3BD4BABAD",
}


def everything_printed(error: BaseException) -> str:
    """What the most talkative tools print: the chain with all locals, and the repr of the error."""
    shown = traceback.TracebackException.from_exception(error, capture_locals=True)
    return "".join(shown.format()) + repr(error) + str(vars(error))


def error_of(source: str) -> NbiotError:
    with pytest.raises(NbiotError) as caught:
        secret_from(source)
    return caught.value


# --- signature ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("lifetime", "expected"), VECTORS.items())
def test_vectors(lifetime: int, expected: str) -> None:
    signer: Signer = SecretSigner(Secret(TEXT))
    assert signer.sign(PK, DK, lifetime) == expected


def test_the_key_for_dtls_is_made_as_enos_says() -> None:
    # printf M3yy874uGY8INjEGddTR | sha256sum | cut -c17-48
    assert SecretSigner(Secret(TEXT)).psk().hex() == "43e307fffce19a0176803de3445fe0e3"
    # printf schlüssel | sha256sum | cut -c17-48
    assert SecretSigner(Secret("schlüssel")).psk().hex() == "6b308a81f438e1d07a59c8c896b4f237"


def test_a_signer_may_have_no_key_for_dtls() -> None:
    class Elsewhere:
        def sign(self, *_: object) -> str:
            return ""

    assert isinstance(SecretSigner(Secret(TEXT)), PskHolder)
    assert not isinstance(Elsewhere(), PskHolder)


def test_secret_is_utf8() -> None:
    # printf deviceKeytPbZGCdmaElifetime30productKeyKV315idWsecureMode2schlüssel | sha256sum
    signed = SecretSigner(Secret("schlüssel")).sign(PK, DK, 30)
    assert signed == "58C229518A5FC98D0DD02F6BB60C213D56385C249BA0B9CB611AFABAD3816E39"


@pytest.mark.parametrize(
    ("args", "field"),
    [
        (("", DK, 30), "productKey"),
        ((PK, "ab", 30), "deviceKey"),
        ((PK, DK, 29), "lifetime"),
        ((PK, DK, 30, 3), "secureMode"),
    ],
)
def test_sign_checks_its_input(args: tuple[str, str, int], field: str) -> None:
    with pytest.raises(BadInput) as caught:
        SecretSigner(Secret(TEXT)).sign(*args)
    assert caught.value.field == field
    assert TEXT not in everything_printed(caught.value)


# --- input checks -------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["abcd", "A1b2", "x" * 64])
def test_good_keys(key: str) -> None:
    assert check_product_key(key) == check_device_key(key) == key


def test_device_key_has_more_characters() -> None:
    assert check_device_key("a-_.:9") == "a-_.:9"


BAD_KEYS = [
    "",
    "abc",
    "x" * 65,
    "abc d",
    "abcd\n",
    "abcd/",
    "\uff21\uff22\uff23\uff24",
    "abc٣",
    "abcé",
    b"abcd",
    None,
]


@pytest.mark.parametrize("key", [*BAD_KEYS, "ab-cd", "ab.cd"])
def test_bad_product_keys(key: object) -> None:
    with pytest.raises(BadInput, match="productKey"):
        check_product_key(key)


@pytest.mark.parametrize("key", [*BAD_KEYS, "abc%", "abc+"])
def test_bad_device_keys(key: object) -> None:
    with pytest.raises(BadInput, match="deviceKey"):
        check_device_key(key)


@given(st.text(st.sampled_from("aZ09-_.:\u0663\xe9\uff21\xb2 "), min_size=3, max_size=66))
def test_keys_are_ascii_letters_and_digits(key: str) -> None:
    good = 4 <= len(key) <= 64 and set(key) <= set("aZ09")
    try:
        check_product_key(key)
    except BadInput:
        assert not good
    else:
        assert good


@pytest.mark.parametrize("value", [30, 86400])
def test_good_lifetimes(value: int) -> None:
    assert check_lifetime(value) == value


@pytest.mark.parametrize("value", [29, 86401, -30, True, 30.0, "30", None])
def test_bad_lifetimes(value: object) -> None:
    with pytest.raises(BadInput, match="lifetime"):
        check_lifetime(value)


@pytest.mark.parametrize("value", [1, 3, True, 2.0, "2", None])
def test_bad_secure_modes(value: object) -> None:
    with pytest.raises(BadInput, match="secureMode"):
        check_secure_mode(value)


# --- a secret does not show itself --------------------------------------------------------------


def test_secret_in_texts() -> None:
    secret = Secret(TEXT)
    stream = io.StringIO()
    log = logging.Logger("of this test")
    log.addHandler(logging.StreamHandler(stream))
    log.warning("%s %r %s", secret, secret, [secret])
    attributes = [repr(getattr(secret, name, None)) for name in dir(secret)]
    texts = [repr(secret), str(secret), f"{secret:>30}", f"{secret!r}", "%s" % secret]  # noqa: UP031
    assert TEXT not in "".join([*texts, *attributes, stream.getvalue(), repr(SecretSigner(secret))])
    assert secret.reveal() == TEXT


def test_secret_does_not_travel() -> None:
    secret = Secret(TEXT)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="pickling"):
            pickle.dumps(secret, protocol)
    with pytest.raises(TypeError):
        json.dumps(secret)
    assert copy.copy(secret) is copy.deepcopy(secret) is secret


def test_secret_equality() -> None:
    assert Secret(TEXT) == Secret(TEXT)
    assert Secret(TEXT) != Secret(TEXT + "x")
    assert Secret("ü") == Secret("ü")
    assert Secret(TEXT) != TEXT
    with pytest.raises(TypeError):
        hash(Secret(TEXT))


def test_secret_equality_takes_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[bytes, ...]] = []

    def compare(*args: bytes) -> bool:
        seen.append(args)
        return True

    monkeypatch.setattr("hmac.compare_digest", compare)
    assert Secret("one") == Secret("two")
    assert seen == [(b"one", b"two")]


@pytest.mark.parametrize(
    "around", ["{}\n", "{}\0", "\t{}", " {}", "{} ", "{}\x7f", "{}\u200b", "{}\udcff"]
)
def test_bad_secret_is_not_shown(around: str) -> None:
    with pytest.raises(BadInput) as caught:
        Secret("".join([around[: around.index("{")], TEXT, around[around.index("}") + 1 :]]))
    assert TEXT not in everything_printed(caught.value)
    assert caught.value.field == "deviceSecret"


@pytest.mark.parametrize("text", ["", " ", "\n", "\u3000"])
def test_empty_secret(text: str) -> None:
    with pytest.raises(BadInput, match=r"empty|white space only"):
        Secret(text)


def test_bytes_are_no_secret() -> None:
    with pytest.raises(BadInput, match="a bytes") as caught:
        Secret(TEXT.encode())  # type: ignore[arg-type]
    assert TEXT not in everything_printed(caught.value)


# --- sources ------------------------------------------------------------------------------------


def test_import_is_cheap() -> None:
    heavy = "{'getpass', 'keyring', 'dataclasses', 'asyncio', 'logging'}"
    code = f"import sys, nbiot.signing; print(*{heavy} & {{*sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    assert (done.stdout.strip(), done.stderr) == ("", "")


def test_env(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NBIOT_TEST_SECRET", TEXT)
    assert secret_from("env:NBIOT_TEST_SECRET") == Secret(TEXT)


def test_env_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NBIOT_TEST_SECRET", raising=False)
    error = error_of("env:NBIOT_TEST_SECRET")
    assert isinstance(error, SecretUnavailable)
    assert "NBIOT_TEST_SECRET is not set" in str(error)


def test_env_bad_value_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NBIOT_TEST_SECRET", TEXT + "\n")
    assert TEXT not in everything_printed(error_of("env:NBIOT_TEST_SECRET"))


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    path = tmp_path / "the secret"
    path.write_text(TEXT)
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_file(secret_file: Path, end: str) -> None:
    secret_file.write_bytes((TEXT + end).encode())
    secret_file.chmod(0o400)
    assert secret_from(f"file:{secret_file}") == Secret(TEXT)


def test_file_in_home(secret_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(secret_file.parent))
    assert secret_from("file:~/the secret") == Secret(TEXT)


@pytest.mark.parametrize("content", [b"%s\n\n", b"%s\xff", b"%s\nmore", b"\xef\xbb\xbf%s"])
def test_file_bad_content_is_not_shown(secret_file: Path, content: bytes) -> None:
    secret_file.write_bytes(content % TEXT.encode())
    error = error_of(f"file:{secret_file}")
    assert isinstance(error, BadInput)
    assert TEXT not in everything_printed(error)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620])
def test_file_open_to_others(secret_file: Path, mode: int) -> None:
    secret_file.chmod(mode)
    error = error_of(f"file:{secret_file}")
    assert isinstance(error, SecretUnavailable)
    command = error.hint.removeprefix("Type: ")
    assert command == f"chmod 600 '{secret_file}'"
    subprocess.run(command, shell=True, check=True)
    assert secret_from(f"file:{secret_file}") == Secret(TEXT)


@pytest.mark.parametrize("when", ["before", "after"])
def test_the_open_file_is_checked(
    secret_file: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """What counts is the file that was opened, not what the path meant before or means after."""
    other = secret_file.with_name("other")
    other.write_text(TEXT)
    bad = other if when == "before" else secret_file
    other.chmod(0o600)
    bad.chmod(0o644)
    real_open = os.open

    def swapping(path: str, *args: int) -> int:
        if when == "before":
            other.replace(secret_file)
        fd = real_open(path, *args)
        if when == "after":
            other.replace(secret_file)
        return fd

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", swapping)
        error = error_of(f"file:{secret_file}")
    assert "open to other users (mode 0644)" in str(error)


def test_file_too_big(secret_file: Path) -> None:
    secret_file.write_text("x" * 4096)
    assert len(secret_from(f"file:{secret_file}").reveal()) == 4096
    secret_file.write_text("x" * 4097)
    assert "4097 bytes" in str(error_of(f"file:{secret_file}"))


def test_file_not_regular(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo, 0o600)
    for path in (fifo, tmp_path):
        assert "not a regular file" in str(error_of(f"file:{path}"))


@pytest.mark.parametrize("name", ["missing", "nul\0byte"])
def test_file_missing(tmp_path: Path, name: str) -> None:
    assert "cannot be opened" in str(error_of(f"file:{tmp_path}/{name}"))


def test_file_leaves_no_descriptor(secret_file: Path, tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    secret_from(f"file:{secret_file}")
    error_of(f"file:{tmp_path}")
    assert os.listdir("/proc/self/fd") == before


class FakeKeyring(ModuleType):
    def __init__(self, **entries: str) -> None:
        super().__init__("keyring")
        self.entries = entries

    def get_password(self, service: str, user: str) -> str | None:
        if user == "locked":
            raise RuntimeError("the keyring is locked")
        return self.entries.get(f"{service}/{user}".replace("/", "_"))


def test_keyring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keyring", FakeKeyring(a_b_me=TEXT, s_bad=TEXT + "\n"))
    assert secret_from("keyring:a/b/me") == Secret(TEXT)
    assert "keyring set s me" in str(error_of("keyring:s/me"))
    assert "RuntimeError" in str(error_of("keyring:s/locked"))
    assert TEXT not in everything_printed(error_of("keyring:s/bad"))
    for source in ("keyring:alone", "keyring:/me", "keyring:s/"):
        assert isinstance(error_of(source), BadInput)


def test_keyring_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keyring", None)
    error = error_of("keyring:s/me")
    assert isinstance(error, SecretUnavailable)
    assert "pip install 'nbiot-driver[keyring]'" in error.hint


@pytest.mark.parametrize(
    "source", [TEXT, f"secret:{TEXT}", f"prompt:{TEXT}", "env:", "file:", "", ":"]
)
def test_unknown_source_is_not_shown(source: str) -> None:
    error = error_of("".join(source))
    assert isinstance(error, BadInput)
    assert "env:NAME" in str(error)
    shown = traceback.TracebackException.from_exception(error, capture_locals=True)
    assert TEXT not in str(error)
    assert TEXT not in str(shown.stack[-1].locals)


PROMPT = """
import fcntl, os, sys, termios
if sys.argv[1:]:
    fcntl.ioctl(int(sys.argv[1]), termios.TIOCSCTTY, 0)
from nbiot.errors import SecretUnavailable
from nbiot.signing import secret_from
try:
    print(len(secret_from("prompt").reveal()))
except SecretUnavailable as error:
    print(error)
"""


def run_prompt(*args: str, fds: tuple[int, ...] = ()) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROMPT, *args],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        pass_fds=fds,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )


def test_prompt_does_not_echo() -> None:
    master, slave = os.openpty()
    with run_prompt(str(slave), fds=(slave,)) as child:
        shown = b""
        while b": " not in shown:
            shown += os.read(master, 100)
        os.write(master, f"{TEXT}\n".encode())
        out, _ = child.communicate(timeout=10)
        assert out == f"{len(TEXT)}\n"
        os.set_blocking(master, False)
        shown += os.read(master, 1000)
    os.close(slave)
    os.close(master)
    assert TEXT.encode() not in shown


def test_prompt_without_terminal() -> None:
    with run_prompt() as child:
        out, _ = child.communicate(timeout=10)
    assert out.startswith("there is no terminal")
