"""Every test fails when the event loop stood still for over 50 ms, or a descriptor stayed open."""

from tests.hygiene import hygiene, pytest_configure

__all__ = ["hygiene", "pytest_configure"]
