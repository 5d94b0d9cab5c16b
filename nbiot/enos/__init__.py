"""The EnOS device protocol over CoAP without DTLS."""

from __future__ import annotations

from nbiot.enos.auth import AuthResult, Device, Server, authenticate
from nbiot.enos.limits import AuthLimit

__all__ = ["AuthLimit", "AuthResult", "Device", "Server", "authenticate"]
