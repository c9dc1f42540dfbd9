"""The machine's own network namespace, for a daemon whose bridges are in another one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Outside:
    """A thread that stays where it was made: what it opens is in the machine's namespace, whoever asks for it."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, "outside")
        self._executor.submit(int).result()  # threads begin with their first call, in the namespace of who calls

    def call(self, function: Callable[..., T], *args: Any) -> T:
        """The result of a short call on the thread."""
        return self._executor.submit(function, *args).result()

    def close(self) -> None:
        """End the thread."""
        self._executor.shutdown()
