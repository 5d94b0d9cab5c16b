"""Tests of the stand-in for the EnOS CoAP server, by CoAP clients which are not ours."""
