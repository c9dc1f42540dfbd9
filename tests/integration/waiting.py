"""Waiting for what other processes do, when nothing tells."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def until(condition: Callable[[], object], what: str | Callable[[], str], timeout_s: float = 20) -> None:
    """Look again and again until it is true; ``what`` (or what it returns) is said when it does not become so."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s:g} s: {what() if callable(what) else what}"
        time.sleep(0.01)
