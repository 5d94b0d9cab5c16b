"""Every test fails when the event loop stood still for over 50 ms, or a descriptor stayed open."""

import os
import signal

from tests.hygiene import hygiene, pytest_configure

__all__ = ["hygiene", "pytest_configure"]

# A shell that runs the tests in the background has them ignore Ctrl-C, and so would every program
# that they start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Programs that tests start may keep their byte code: compiling is half of what each start costs.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
