"""The EnOS signature, and where the device secret comes from.

Source of the algorithm: EnOS documentation, "CoAP, non-DTLS" (2.0.8 ... 2.4.4). It is a plain
hash of a text with the secret at its end, not an HMAC.

A secret lives in a :class:`Secret`, which shows itself nowhere. Code here keeps the plain text out
of local variables wherever an exception may pass, because tools print the locals of a traceback.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import stat
from typing import TYPE_CHECKING, ClassVar, NoReturn, Protocol, runtime_checkable

from nbiot.errors import BadInput, SecretUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

SECURE_MODE = 2
"""One secret per device: the only mode EnOS documents for CoAP without DTLS."""
LIFETIME_MIN, LIFETIME_MAX = 30, 86400
"""Seconds without traffic until EnOS calls the device offline."""
SECRET_FILE_MAX = 4096
"""Bytes; a longer file is not a secret but a mistake."""

_ALNUM = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789")
_DEVICE_KEY_CHARS = _ALNUM | frozenset("-_.:")


# --- input checks -----------------------------------------------------------------------------


def _check_key(field: str, value: object, chars: frozenset[str], allowed: str) -> str:
    if isinstance(value, str) and 4 <= len(value) <= 64 and chars.issuperset(value):
        return value
    raise BadInput(field, value, allowed)


def check_product_key(value: object) -> str:
    """Return ``value`` if it is 4 to 64 ASCII letters and digits, else raise BadInput."""
    return _check_key("productKey", value, _ALNUM, "4 to 64 ASCII letters and digits")


def check_device_key(value: object) -> str:
    """Return ``value`` if it is 4 to 64 ASCII letters, digits and ``-_.:``, else raise BadInput."""
    allowed = "4 to 64 ASCII letters, digits and - _ . :"
    return _check_key("deviceKey", value, _DEVICE_KEY_CHARS, allowed)


def check_lifetime(value: object) -> int:
    """Return ``value`` if it is an integer of 30 to 86400 (seconds), else raise BadInput."""
    if type(value) is int and LIFETIME_MIN <= value <= LIFETIME_MAX:
        return value
    raise BadInput("lifetime", value, f"an integer from {LIFETIME_MIN} to {LIFETIME_MAX} (seconds)")


def check_secure_mode(value: object) -> int:
    """Return ``value`` if it is the integer 2, else raise BadInput."""
    if type(value) is int and value == SECURE_MODE:
        return value
    raise BadInput("secureMode", value, "2 (one secret per device)")


# --- the secret -------------------------------------------------------------------------------


def _problem(text: str) -> str:
    """What is wrong with the text of a secret, without showing it; empty when nothing is."""
    if not text:
        return "an empty text"
    if text.isspace():
        return "a text of white space only"
    if not text.isprintable():  # control and zero-width characters, bytes that are not UTF-8
        return "a text with control or other unprintable characters, or not UTF-8"
    if text.strip() != text:
        return "a text with white space at its start or end"
    return ""


def _hidden(text: str) -> Callable[[], str]:
    """Wrap a text in a closure: nothing that shows variables or attributes looks in there."""
    return lambda: text


class Secret:
    """A device secret that never shows itself: not in repr, str, format, logs or pickles.

    Raises BadInput, without the value, when ``text`` is empty, has white space at an end, or has
    control characters.
    """

    __slots__ = ("_reveal",)
    __hash__: ClassVar[None]  # type: ignore[assignment]  # a hash of the value would tell about it

    def __init__(self, text: str) -> None:
        problem = _problem(text) if isinstance(text, str) else f"a {type(text).__name__}"
        self._reveal = _hidden(text)
        del text  # so that a traceback that shows locals does not show it
        if problem:
            allowed = "printable text without white space at its ends"
            raise BadInput("deviceSecret", problem, allowed)

    def reveal(self) -> str:
        """The plain text. Use it inside an expression; do not keep it in a variable."""
        return self._reveal()

    def __eq__(self, other: object) -> bool:
        """Compare in constant time."""
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._reveal().encode(), other._reveal().encode())

    def __repr__(self) -> str:
        return "<Secret>"

    def __format__(self, spec: str) -> str:
        return format(repr(self), spec)

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a Secret is not for pickling: hand over where it comes from instead")


class Signer(Protocol):
    """Whatever can sign. A station may keep its secrets elsewhere behind this."""

    def sign(
        self, product_key: str, device_key: str, lifetime: int, secure_mode: int = SECURE_MODE
    ) -> str:
        """The signature as EnOS wants it: 64 upper-case hexadecimal digits.

        Called in the event loop: a signer that blocks (a network, a smart card) must be called
        in a thread by its caller, and must bear that.
        """
        ...


@runtime_checkable
class PskHolder(Protocol):
    """A signer that also has the key for DTLS: a pre-shared key cannot stay elsewhere."""

    def psk(self) -> bytes:
        """The 16 bytes of the key, as worth hiding as the secret. Called in a thread."""
        ...


class SecretSigner:
    """Signs with a secret held in this process, and makes the key for DTLS of it."""

    __slots__ = ("_secret",)

    def __init__(self, secret: Secret) -> None:
        self._secret = secret

    def sign(
        self, product_key: str, device_key: str, lifetime: int, secure_mode: int = SECURE_MODE
    ) -> str:
        """See :meth:`Signer.sign`; ``lifetime`` in seconds. Raises BadInput naming the field."""
        public = (
            f"deviceKey{check_device_key(device_key)}lifetime{check_lifetime(lifetime)}"
            f"productKey{check_product_key(product_key)}secureMode{check_secure_mode(secure_mode)}"
        )
        return hashlib.sha256((public + self._secret.reveal()).encode()).hexdigest().upper()

    def psk(self) -> bytes:
        """See :meth:`PskHolder.psk`: bytes 9 to 24 of the secret's SHA-256 (EnOS documentation,
        "CoAP, DTLS"). Use it inside an expression; do not keep it in a variable.
        """
        return hashlib.sha256(self._secret.reveal().encode()).digest()[8:24]


# --- where a secret comes from ----------------------------------------------------------------


def secret_from(source: str) -> Secret:
    """Read the secret from ``env:NAME``, ``file:PATH``, ``keyring:SERVICE/USER`` or ``prompt``.

    Blocks (disk, keyring daemon, a person typing): call it before the event loop or in a thread.
    Raises BadInput (unknown source, unusable text) or SecretUnavailable.
    """
    kind, _, rest = source.partition(":")
    reader = _READERS.get(kind) if (kind == "prompt") == (not rest) else None
    if reader is not None:
        return reader(rest)
    del source, kind, rest  # it may be the secret itself, given by mistake
    raise BadInput(
        "secret source",
        "a text that names no source (not shown: it may be the secret itself)",
        "env:NAME, file:PATH, keyring:SERVICE/USER or prompt",
    )


def _from_env(name: str) -> Secret:
    if name not in os.environ:
        raise SecretUnavailable(
            f"the environment variable {name} is not set",
            hint=f"Set it (read -rs {name} && export {name}) or use file:PATH or prompt.",
        )
    return Secret(os.environ[name])


def _from_file(path: str) -> Secret:
    path = os.path.expanduser(path)
    try:  # non-blocking, so that a FIFO does not hold us before we can see what it is
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        raise SecretUnavailable(
            f"the secret file {path} cannot be opened: {getattr(error, 'strerror', error)}",
            hint="Check the path, and that this user may read the file.",
        ) from error
    try:
        _check_secret_file(path, os.fstat(fd))
        return Secret(_text(os.read(fd, SECRET_FILE_MAX + 1)))
    finally:
        os.close(fd)


def _text(raw: bytes) -> str:
    """The text of a secret file. Never raises: a UnicodeDecodeError carries all the bytes."""
    return raw.decode("utf-8", "surrogateescape").removesuffix("\n").removesuffix("\r")


def _check_secret_file(path: str, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise SecretUnavailable(
            f"{path} is not a regular file", hint="Give a file that holds only the secret."
        )
    if found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        import shlex

        mode = stat.S_IMODE(found.st_mode)
        raise SecretUnavailable(
            f"the secret file {path} is open to other users (mode {mode:04o})",
            hint=f"Type: chmod 600 {shlex.quote(path)}",
        )
    if found.st_size > SECRET_FILE_MAX:
        raise SecretUnavailable(
            f"{path} has {found.st_size} bytes; a secret file has at most {SECRET_FILE_MAX}",
            hint="Give a file that holds only the secret.",
        )


def _from_keyring(name: str) -> Secret:
    service, _, user = name.rpartition("/")
    if not service or not user:
        raise BadInput("secret source", f"keyring:{name}", "keyring:SERVICE/USER")
    try:
        import keyring
    except ImportError:
        raise SecretUnavailable(
            "the keyring package is not installed",
            hint="Type: pip install 'nbiot-driver[keyring]'",
        ) from None
    try:
        entry = _hidden(keyring.get_password(service, user) or "")
    except Exception as error:  # each backend has its own exceptions
        raise SecretUnavailable(
            f"the keyring did not answer: {type(error).__name__}",
            hint="Unlock the keyring, or use file:PATH or prompt.",
        ) from None
    if not entry():
        raise SecretUnavailable(
            f"the keyring has no entry for service {service!r}, user {user!r}",
            hint=f"Type: keyring set {service} {user}",
        )
    return Secret(entry())


def _from_prompt(_: str) -> Secret:
    import getpass

    try:  # getpass would fall back to reading, and echoing, stdin
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
        return Secret(getpass.getpass("Device secret (not shown): "))
    except (OSError, EOFError):
        raise SecretUnavailable(
            "there is no terminal to ask for the secret",
            hint="Use env:NAME, file:PATH or keyring:SERVICE/USER.",
        ) from None


_READERS: dict[str, Callable[[str], Secret]] = {
    "env": _from_env,
    "file": _from_file,
    "keyring": _from_keyring,
    "prompt": _from_prompt,
}
