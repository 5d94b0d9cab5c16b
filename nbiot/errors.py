"""Everything that can go wrong, as classes that a caller can act on.

Each message says what was seen, what is allowed and what to try next. Each class has an
``exit_code`` for the command line; the table is in docs/exit-codes.md. Nothing here carries a
secret.
"""

from __future__ import annotations


class NbiotError(Exception):
    """Root of this project's errors.

    ``hint`` is the next thing to try, in plain words; it is part of ``str(error)``.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class BadInput(NbiotError):
    """A value that cannot be used: which field, what was given, what is allowed."""

    exit_code = 2

    def __init__(self, field: str, given: object, allowed: str, *, hint: str = "") -> None:
        super().__init__(f"{field}: {given!r} cannot be used; allowed: {allowed}", hint=hint)
        self.field = field
        self.given = given
        self.allowed = allowed


# --- the port -------------------------------------------------------------------------------


class PortError(NbiotError):
    """The serial port (or the connection that stands for it) cannot be used."""

    exit_code = 10


class PortMissing(PortError):
    """There is no such port."""

    exit_code = 10


class PortBusy(PortError):
    """Another program has the port."""

    exit_code = 11


class PortNotPermitted(PortError):
    """This user may not open the port."""

    exit_code = 12


class PortLost(PortError):
    """The port went away while it was open (cable pulled, device re-enumerated, hang-up)."""

    exit_code = 13


# --- the modem ------------------------------------------------------------------------------


class ModemError(NbiotError):
    """The modem did not do what it was asked."""

    exit_code = 20


class ModemSilent(ModemError):
    """Nothing that looks like an AT answer came back."""

    exit_code = 20


class ModemUnknown(ModemError):
    """A modem answered, but no profile knows it."""

    exit_code = 21


class ModemRebooted(ModemError):
    """The modem restarted: its sockets and volatile settings are gone."""

    exit_code = 22


class CommandTimeout(ModemError):
    """No final result code within the time allowed for this command."""

    exit_code = 23


class CommandRefused(ModemError):
    """The modem answered ERROR, +CME ERROR or another negative final result code."""

    exit_code = 24

    def __init__(
        self,
        command: str,
        result: str,
        *,
        code: int | None = None,
        meaning: str = "",
        hint: str = "",
    ) -> None:
        words = f" ({meaning})" if meaning else ""
        super().__init__(f"the modem refused {command}: {result}{words}", hint=hint)
        self.command = command
        self.result = result
        self.code = code
        self.meaning = meaning


class UnexpectedAnswer(ModemError):
    """A final result code came, but the answer that this command must bring did not."""

    exit_code = 25


class Unsupported(ModemError):
    """This modem, its profile, or the protocol cannot do what was asked."""

    exit_code = 26


# --- SIM and network ------------------------------------------------------------------------


class SimError(NbiotError):
    """The SIM cannot be used."""

    exit_code = 30


class SimMissing(SimError):
    """No SIM, or one that cannot be read."""

    exit_code = 30


class SimLocked(SimError):
    """The SIM wants a PIN or PUK."""

    exit_code = 31


class NotRegistered(NbiotError):
    """The network was not joined in time, or refused."""

    exit_code = 32


class NameNotResolved(NbiotError):
    """The server's name has no address."""

    exit_code = 33


class DatagramTooLong(NbiotError):
    """More bytes than this modem puts into one UDP datagram."""

    exit_code = 34


class SocketError(NbiotError):
    """The modem's socket could not be opened, or is gone."""

    exit_code = 35


# --- CoAP and EnOS --------------------------------------------------------------------------


class CoapError(NbiotError):
    """The CoAP exchange did not end with a response."""

    exit_code = 40


class NoResponse(CoapError):
    """The server did not answer, retransmissions included."""

    exit_code = 40


class ResponseReset(CoapError):
    """The server answered with RST: it does not want this message."""

    exit_code = 41


class BadDatagram(CoapError):
    """Bytes that are not a CoAP message (RFC 7252, section 3)."""

    exit_code = 42


class BadReply(CoapError):
    """A response that came in whole but says nothing that can be understood."""

    exit_code = 43


class ResponseLost(CoapError):
    """The server answered, but not all of its response could be had. It may have carried out the
    request."""

    exit_code = 44


class AuthRefused(NbiotError):
    """EnOS refused the authentication. ``code`` is the CoAP code as "4.01"."""

    exit_code = 50

    def __init__(self, message: str, *, code: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code


class ServerFault(AuthRefused):
    """EnOS failed inside (5.xx)."""

    exit_code = 51


class RateLimited(NbiotError):
    """Sending now would break a limit of EnOS. ``wait`` is the time until it is allowed (s)."""

    exit_code = 52

    def __init__(self, message: str, *, wait: float, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.wait = wait


class RequestRefused(NbiotError):
    """The server has the message and refuses it. ``code``: CoAP's ("4.04") or the body's ("1220").

    Nothing was accepted.
    """

    exit_code = 54

    def __init__(self, message: str, *, code: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code


class SecretUnavailable(NbiotError):
    """The device secret could not be read from where it should be."""

    exit_code = 53


# --- the station ----------------------------------------------------------------------------


class StationError(NbiotError):
    """The station cannot do what was asked."""

    exit_code = 60


class StoreUnavailable(StationError):
    """The database does not answer, or is not one of ours. What was asked may be asked again."""

    exit_code = 60


class PoolEmpty(StationError):
    """No free identity is left."""

    exit_code = 61


class AlreadyProven(StationError):
    """A board with this IMEI has its identity, and was proven."""

    exit_code = 62


class ImeiTaken(StationError):
    """This IMEI is another board's, or is being worked on in another slot."""

    exit_code = 63


class LeaseLost(StationError):
    """The identity is no longer this run's: its lease ran out and another run has it."""

    exit_code = 64


class VaultError(StationError):
    """The key of the secrets' column is missing, or is another one."""

    exit_code = 65


class PrinterError(StationError):
    """The label was not printed."""

    exit_code = 66


class RestError(StationError):
    """EnOS's REST interface refused, or did not answer. ``code`` is its code, 0 when none came."""

    exit_code = 67

    def __init__(self, message: str, *, code: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code
