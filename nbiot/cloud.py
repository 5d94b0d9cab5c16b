"""What a cloud must say so that a session can live with it: see docs/adding-a-cloud.md.

The session (nbiot/session.py) owns sockets, times, limits and re-authentication; a cloud owns
paths, payloads, signatures and options. nbiot/enos is the first.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from nbiot.errors import NbiotError

if TYPE_CHECKING:
    from nbiot.coap.message import Request, Response


@dataclass(frozen=True, slots=True)
class Downlink:
    """A command that came along with a response. ``path``: where it was sent to, in segments.

    ``payload`` None: the cloud only said that there is one; a GET on ``path`` fetches it.
    """

    path: tuple[str, ...]
    payload: bytes | None = field(repr=False)


class Cloud(Protocol):
    """One device's dealings with one cloud. No I/O, no clock."""

    @property
    def host(self) -> str:
        """Name or IPv4 address of the CoAP server."""

    @property
    def port(self) -> int:
        """Its UDP port."""

    @property
    def lifetime(self) -> float:
        """Seconds without traffic after which the device must authenticate again."""

    @property
    def identity(self) -> tuple[str, str, str]:
        """Server, and two words that name the device there: whose authentications are counted."""

    def auth_request(self) -> Request:
        """The request that authenticates. May block (a signer may ask a remote one)."""

    def refusal(self, response: Response) -> NbiotError | None:
        """The error if ``response`` refuses the authentication."""

    def uplink(self, topic: str, payload: bytes) -> Request:
        """A message of the device to ``topic``, written as the cloud's documents do."""

    def keep_alive(self) -> Request | None:
        """The cheapest message that keeps the device online; None: authenticating again is."""

    def needs_auth(self, response: Response) -> bool:
        """Does ``response`` say that the server does not know the device (any more)?"""

    def downlinks(self, response: Response) -> list[Downlink]:
        """The commands that came along with ``response``, in order. Raises nothing."""
