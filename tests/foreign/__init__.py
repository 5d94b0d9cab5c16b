"""AT programs written elsewhere, against the software modems. Each is skipped when missing."""
