"""Hardware-in-the-loop tools."""
