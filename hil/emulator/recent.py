"""A list that remembers its latest entries only: a soak of days must not fill the memory."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")


class Recent(list[T]):
    """A list whose `append` forgets the oldest entries beyond `limit`."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit
        self.forgotten = 0
        """Entries that are gone."""

    @property
    def total(self) -> int:
        """All entries there ever were."""
        return self.forgotten + len(self)

    def append(self, item: T, /) -> None:
        super().append(item)
        if len(self) > self.limit + self.limit // 4:  # not at each one: it moves the whole list
            self.trim()

    def trim(self) -> None:
        """Forget what is too much now."""
        surplus = max(len(self) - self.limit, 0)
        del self[:surplus]
        self.forgotten += surplus
