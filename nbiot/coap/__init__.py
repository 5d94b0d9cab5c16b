"""CoAP (RFC 7252) over a modem: host-built datagrams, or the modem's own client."""
