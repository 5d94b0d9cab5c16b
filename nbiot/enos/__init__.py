"""The EnOS device protocol over CoAP, with DTLS or without."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nbiot.enos.auth import AuthResult, Device, Server, authenticate
    from nbiot.enos.commands import Command, CommandFailed, Kind
    from nbiot.enos.dtls import DtlsServer, activate, store_in_file
    from nbiot.enos.limits import AuthLimit
    from nbiot.enos.session import Answer, EnosSession
    from nbiot.enos.things import Measurepoint
    from nbiot.session import Cost, SessionState, StateChange

__all__ = [
    "Answer",
    "AuthLimit",
    "AuthResult",
    "Command",
    "CommandFailed",
    "Cost",
    "Device",
    "DtlsServer",
    "EnosSession",
    "Kind",
    "Measurepoint",
    "Server",
    "SessionState",
    "StateChange",
    "activate",
    "authenticate",
    "store_in_file",
]

_HOMES = {
    "nbiot.enos.auth": ("AuthResult", "Device", "Server", "authenticate"),
    "nbiot.enos.commands": ("Command", "CommandFailed", "Kind"),
    "nbiot.enos.dtls": ("DtlsServer", "activate", "store_in_file"),
    "nbiot.enos.limits": ("AuthLimit",),
    "nbiot.enos.session": ("Answer", "EnosSession"),
    "nbiot.enos.things": ("Measurepoint",),
    "nbiot.session": ("Cost", "SessionState", "StateChange"),
}


def __getattr__(name: str) -> Any:
    """Imported when first used: `nbiot auth` must find a bad option without loading CoAP."""
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
