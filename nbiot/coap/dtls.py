"""DTLS 1.2 with a pre-shared key, over any datagram carrier.

No I/O and no clock of its own, as in :mod:`nbiot.coap.exchange`: datagrams and times go in,
datagrams and plain text come out. The protocol itself is OpenSSL's, through pyOpenSSL on memory
buffers; it is imported when the first session is made. pyOpenSSL has no method for a pre-shared
key, so the key is handed over through the OpenSSL binding beneath it, in ``_offer_key``.
"""

from __future__ import annotations

import importlib
import random
from contextlib import suppress
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from nbiot.coap.exchange import Timing
from nbiot.errors import BadInput, CoapError, DatagramTooLong, NoResponse, Unsupported

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MTU = 512
"""Bytes of UDP payload: what the least of our modems takes."""
MTU_LEAST, MTU_MOST = 256, 1472

_IDENTITY_MAX = 128  # RFC 4279, 5.3
_KEY_MAX = 64
_DTLS_1_2 = 0xFEFD
_RECORD_HEADER = 13
_CLIENT_KEY_EXCHANGE = 16  # handshake message type (RFC 5246, 7.4)
_PSK_CALLBACK = (
    "unsigned int(SSL *, const char *, char *, unsigned int, unsigned char *, unsigned int)"
)


class Suite(StrEnum):
    """The cipher suites that EnOS takes; the values are OpenSSL's names."""

    CCM_8 = "PSK-AES128-CCM8"  # TLS_PSK_WITH_AES_128_CCM_8, 0xC0A8: 29 bytes a datagram
    CBC_SHA256 = "PSK-AES128-CBC-SHA256"  # TLS_PSK_WITH_AES_128_CBC_SHA256, 0x00AE: 62 to 77


class DtlsError(CoapError):
    """The session cannot begin, or go on."""

    exit_code = 40


class DtlsRefused(DtlsError):
    """The server ended the session with a fatal alert, most often over identity or key."""

    exit_code = 50


class DtlsClosed(DtlsError):
    """The session is over: closed by either side, or failed before."""

    exit_code = 40


class DtlsSession:
    """A client's session: ``start``, then ``feed`` until ``established``, then ``send``.

    Send what ``start``, ``timed_out``, ``send`` and ``close`` return, and ``outgoing()`` after
    each ``feed``; call ``timed_out`` when ``deadline`` has passed, and ``sent`` when a slow carrier
    has taken a flight, so that its time begins only then. ``timing`` counts for the handshake
    (its ``response_timeout`` does not); afterwards nothing is repeated here, as CoAP does that.

    OpenSSL repeats a flight after 1 s, on its own and by the machine's clock, which over NB-IoT
    would be nearly always for nothing. What it repeats early is held back until our own time has
    come. So ``ack_timeout`` is the first wait if it is more than 1 s; less cannot be had.
    """

    def __init__(
        self,
        identity: str,
        key: bytes,
        *,
        suites: Sequence[Suite] = tuple(Suite),
        mtu: int = MTU,
        timing: Timing | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.deadline = float("inf")
        self.established = False
        self.closed = False
        self.retransmissions = 0  # of the flight that is out
        self._gave_keys = False  # our last flight is out: the server checks the key now
        self._mtu = mtu
        self._timing = timing or Timing()
        self._timeout = self._timing.ack_timeout * (rng or random).uniform(
            1.0, self._timing.random_factor
        )
        self._reason = "the session is closed"
        self._outgoing: list[bytes] = []
        self._held = b""  # the flight as OpenSSL has repeated it early
        length = len(key)
        offer = _hidden(identity.encode(), key)
        del key  # so that a traceback that shows locals does not show it
        if not 0 < len(identity.encode()) <= _IDENTITY_MAX or "\0" in identity:
            raise BadInput("identity", identity, f"1 to {_IDENTITY_MAX} bytes without NUL")
        if not 0 < length <= _KEY_MAX:
            raise BadInput("key", f"{length} bytes", f"1 to {_KEY_MAX} bytes; EnOS: 16")
        if not suites or not all(isinstance(suite, Suite) for suite in suites):
            raise BadInput("suites", suites, "one or more of Suite")
        if not MTU_LEAST <= mtu <= MTU_MOST:
            raise BadInput("mtu", mtu, f"{MTU_LEAST} to {MTU_MOST} (bytes)")
        self._ssl, lib, ffi = _openssl()
        context = self._ssl.Context(self._ssl.DTLS_CLIENT_METHOD)
        context.set_min_proto_version(_DTLS_1_2)
        context.set_max_proto_version(_DTLS_1_2)
        # OpenSSL counts CCM_8's 8-byte tag as 64 bits of strength, which only level 0 admits. What
        # is offered is these suites and this version, whatever the level.
        context.set_cipher_list(":".join([*suites, "@SECLEVEL=0"]).encode())
        context.set_options(
            self._ssl.OP_NO_QUERY_MTU | self._ssl.OP_NO_TICKET | self._ssl.OP_NO_RENEGOTIATION
        )
        self._offering = _offer_key(context, offer, lib, ffi)  # must live as long
        self._connection = self._ssl.Connection(context, None)
        self._connection.set_ciphertext_mtu(mtu)
        self._connection.set_connect_state()

    def __repr__(self) -> str:
        state = "closed" if self.closed else "established" if self.established else "handshake"
        return f"<DtlsSession {state}>"

    @property
    def suite(self) -> Suite | None:
        """The suite that was agreed upon."""
        return Suite(self._connection.get_cipher_name()) if self.established else None

    @property
    def max_plaintext(self) -> int:
        """The most bytes that ``send`` takes; the session must be established."""
        return int(self._connection.get_cleartext_mtu())

    def start(self, now: float) -> list[bytes]:
        """The first flight of the handshake."""
        self._handshake(now)
        return self.outgoing()

    def sent(self, now: float) -> None:
        """The carrier has taken the flight: the wait for the answer begins."""
        if not self.established and not self.closed:
            self.deadline = now + self._timeout * 2**self.retransmissions

    def feed(self, datagram: bytes, now: float) -> list[bytes]:
        """The plain texts in a received datagram, mostly one or none; see ``outgoing``, too.

        What is not a valid record of this session is ignored. Raises DtlsRefused, DtlsClosed and
        DtlsError.
        """
        self.check_open()
        if not datagram:
            return []
        if not self.established:
            self._hold_early_repeat()
        self._connection.bio_write(datagram)
        if not self.established:
            self._handshake(now)
        return self._read() if self.established else []

    def outgoing(self) -> list[bytes]:
        """The datagrams that are to be sent now."""
        found, self._outgoing = self._outgoing, []
        return found

    def timed_out(self, now: float) -> list[bytes]:
        """``deadline`` has passed. The flight again, or NoResponse."""
        self.check_open()
        if now < self.deadline:
            return []
        if self.retransmissions >= self._timing.max_retransmit:
            self._end("the handshake had no answer")
            raise self._unanswered()
        left = self._connection.DTLSv1_get_timeout()
        if left and not self._held:  # before its own time OpenSSL repeats nothing
            self.deadline = now + left
            return []
        self._hold_early_repeat()
        flight, self._held = self._held, b""
        self.retransmissions += 1
        self._hand_out(flight)
        self.sent(now)
        return self.outgoing()

    def send(self, plaintext: bytes) -> list[bytes]:
        """The datagram that carries ``plaintext``."""
        self.check_open()
        if not self.established:
            raise DtlsError("the DTLS handshake is not finished")
        if not plaintext:
            raise BadInput("plaintext", plaintext, "at least one byte")
        if len(plaintext) > self.max_plaintext:
            raise DatagramTooLong(
                f"{len(plaintext)} bytes do not fit into a DTLS datagram of {self._mtu} bytes;"
                f" {self.max_plaintext} do"
            )
        try:
            self._connection.send(plaintext)
        except self._ssl.Error as error:
            raise self._failed(error) from None
        self._collect()
        return self.outgoing()

    def close(self) -> list[bytes]:
        """Tell the server that this was all. Closing twice does nothing."""
        if self.closed:
            return []
        if self.established:
            with suppress(self._ssl.Error):  # there is nobody to tell
                self._connection.shutdown()
            self._collect()
        self._end("the session is closed")
        return self.outgoing()

    def check_open(self) -> None:
        """Raises DtlsClosed, saying why, if the session is over."""
        if self.closed:
            raise DtlsClosed(self._reason, hint="Begin a new session.")

    def _unanswered(self) -> NoResponse:
        tries = self.retransmissions + 1
        times = "1 transmission" if tries == 1 else f"{tries} transmissions"
        if self._gave_keys:
            return NoResponse(
                f"the server began the DTLS handshake, but did not answer our key in {times}",
                hint="Most likely the secret or the identity is wrong: most servers do not answer a"
                " wrong key.",
            )
        return NoResponse(
            f"no answer to the DTLS handshake in {times}",
            hint="Check the server's name and port (mostly 5684), and whether this SIM's APN"
            " reaches it.",
        )

    def _handshake(self, now: float) -> None:
        self.check_open()
        try:
            self._connection.do_handshake()
        except self._ssl.WantReadError:
            pass
        except self._ssl.Error as error:
            raise self._failed(error) from None
        else:
            self._collect()
            self.established = True
            self.deadline = float("inf")
            return
        if flight := self._drain():  # the next one
            self._held = b""
            self._hand_out(flight)
            self.retransmissions = 0
            self.sent(now)

    def _read(self) -> list[bytes]:
        texts: list[bytes] = []
        try:
            while True:
                texts.append(self._connection.recv(16384))
        except self._ssl.WantReadError:
            pass
        except self._ssl.ZeroReturnError:
            self._end("the server closed the DTLS session")
            if not texts:
                self.check_open()
        except self._ssl.Error as error:
            raise self._failed(error) from None
        self._collect()
        return texts

    def _hold_early_repeat(self) -> None:
        """Let OpenSSL repeat the flight if it wants to, now rather than in front of an answer.

        Servers repeat at OpenSSL's pace, too: a repeat that was thrown away here, and asked for
        anew later, met the server's next one each time, for two minutes.
        """
        try:
            self._connection.DTLSv1_handle_timeout()
        except self._ssl.Error as error:
            raise self._failed(error) from None
        self._held = self._drain() or self._held

    def _collect(self) -> None:
        """Hand out what OpenSSL wants to send."""
        self._hand_out(self._drain())

    def _hand_out(self, data: bytes) -> None:
        records = _records(data)
        if not self._gave_keys:
            self._gave_keys = any(_is_key_exchange(record) for record in records)
        self._outgoing += _packed(records, self._mtu)

    def _drain(self) -> bytes:
        data = b""
        try:
            while True:
                data += self._connection.bio_read(65536)
        except self._ssl.WantReadError:
            return data

    def _failed(self, error: Exception) -> DtlsError:
        self._collect()  # our alert
        reason = _reason(error)
        self._end(f"the DTLS session failed: {reason}")
        if " alert " in f" {reason} ":
            return DtlsRefused(
                f"the server refused the DTLS session: {reason}",
                hint="Check product key, device key, secret, secure mode and lifetime.",
            )
        return DtlsError(f"the DTLS session failed: {reason}")

    def _end(self, reason: str) -> None:
        self.closed = True
        self.deadline = float("inf")
        self._reason = reason


def _hidden(identity: bytes, key: bytes) -> Callable[[], tuple[bytes, bytes]]:
    """Both, in a closure: nothing that shows variables or attributes looks in there."""
    return lambda: (identity, key)


def _openssl() -> tuple[Any, Any, Any]:
    """pyOpenSSL, and the binding and its FFI beneath it. Raises Unsupported."""
    try:
        ssl = importlib.import_module("OpenSSL.SSL")
        util = importlib.import_module("OpenSSL._util")
    except ImportError as error:
        raise Unsupported(
            "DTLS needs pyOpenSSL, which is not installed",
            hint="pip install 'nbiot-driver[dtls]'",
        ) from error
    if not getattr(util.lib, "Cryptography_HAS_PSK", 0):
        raise Unsupported(
            "the OpenSSL beneath the installed cryptography has no pre-shared keys",
            hint="pip install --upgrade 'nbiot-driver[dtls]' (cryptography's wheels have them)",
        )
    return ssl, util.lib, util.ffi


def _offer_key(
    context: Any, identity_and_key: Callable[[], tuple[bytes, bytes]], lib: Any, ffi: Any
) -> object:
    """Have ``context`` answer with identity and key; the result must outlive it."""

    def answer(_ssl: Any, _hint: Any, name: Any, name_max: int, key: Any, key_max: int) -> int:
        identity, secret = identity_and_key()
        if len(identity) >= name_max or len(secret) > key_max:
            return 0  # "no key": OpenSSL gives up
        ffi.memmove(name, identity + b"\0", len(identity) + 1)
        ffi.memmove(key, secret, len(secret))
        return len(secret)

    callback: object = ffi.callback(_PSK_CALLBACK, answer)
    lib.SSL_CTX_set_psk_client_callback(context._context, callback)
    return callback


def _records(data: bytes) -> list[bytes]:
    """The DTLS records in what OpenSSL wrote: its memory buffer keeps no datagram's bounds."""
    records: list[bytes] = []
    while data:
        end = _RECORD_HEADER + int.from_bytes(data[_RECORD_HEADER - 2 : _RECORD_HEADER], "big")
        records.append(data[:end])
        data = data[end:]
    return records


def _is_key_exchange(record: bytes) -> bool:
    return record[0] == 22 and record[_RECORD_HEADER : _RECORD_HEADER + 1] == bytes(
        [_CLIENT_KEY_EXCHANGE]
    )


def _packed(records: Sequence[bytes], mtu: int) -> list[bytes]:
    """Datagrams of whole records."""
    datagrams: list[bytes] = []
    for record in records:
        if datagrams and len(datagrams[-1]) + len(record) <= mtu:
            datagrams[-1] += record
        else:
            datagrams.append(record)
    return datagrams


def _reason(error: Exception) -> str:
    """OpenSSL's words for it."""
    found = error.args[0] if error.args else None
    if isinstance(found, list) and found:
        return ", ".join(str(entry[-1]) for entry in found)
    return str(error) or type(error).__name__
