"""Fuzz targets, their corpus, and what runs them: see fuzz/README.md."""

TARGETS = ("at_parser", "answers", "session", "coap", "emulator", "settings")
