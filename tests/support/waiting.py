"""Polling for effects of other processes, where there is no event."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


_USUAL = 3.0  # a machine may be so much busier than one on which a limit is plenty
# How many times longer tests wait for others before they give up: on an emulated or a very busy machine.
PATIENCE = float(os.environ.get("KETCH_TEST_PATIENCE", _USUAL))


def patient(limit_s: float) -> float:
    """A limit of waiting for this machine, from what is plenty on a quiet one."""
    return limit_s * PATIENCE


def slowed(time_s: float) -> float:
    """A time that a test itself spends, longer where others take longer."""
    return time_s * max(PATIENCE / _USUAL, 1)


def until(condition: Callable[[], object], what: str | Callable[[], str], timeout_s: float = 20) -> None:
    """Look again and again until it is true; ``what`` (or what it returns) is said when it does not become so."""
    limit_s = patient(timeout_s)
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {limit_s:g} s: {what() if callable(what) else what}"
        time.sleep(0.01)


async def eventually(condition: Callable[[], object], what: str | Callable[[], str], timeout_s: float = 20) -> None:
    """`until`, in an event loop that goes on meanwhile."""
    limit_s = patient(timeout_s)
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {limit_s:g} s: {what() if callable(what) else what}"
        await asyncio.sleep(0.01)
