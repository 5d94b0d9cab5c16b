"""The CoAP layer: codec, exchange, clients, and what independent peers think of them."""
