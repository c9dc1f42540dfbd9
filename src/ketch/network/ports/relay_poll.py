"""Interface of the relay's epoll, as a relayed port uses it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

Ready = Callable[[int], None]


class Poll(Protocol):
    """Calls back when descriptors are ready; not thread-safe."""

    def watch(self, fd: int, ready: Ready, events: int) -> None:
        """Call ``ready`` with the events of a descriptor."""

    def change(self, fd: int, events: int) -> None:
        """Watch for other events."""

    def forget(self, fd: int) -> None:
        """Watch a descriptor no longer, before it is closed."""
