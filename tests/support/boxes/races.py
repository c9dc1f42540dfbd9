"""An attacker that exchanges files while containers start, and its mounts."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

RACE_S = 6.0

# Swaps NAME with NAME.x, which is a directory or a link, until it is killed.
RENAMER = """
import ctypes, sys, time
libc = ctypes.CDLL(None)
while True:
    for name in sys.argv[1:]:
        libc.renameat2(-100, name.encode(), -100, (name + ".x").encode(), 2)  # RENAME_EXCHANGE
    time.sleep(0.0003)
"""


@contextlib.contextmanager
def racing(*names: str) -> Iterator[None]:
    """Somebody who exchanges each NAME with NAME.x meanwhile."""
    attacker = subprocess.Popen([sys.executable, "-c", RENAMER, *names])
    try:
        yield
        assert attacker.poll() is None
    finally:
        attacker.kill()
        attacker.wait()


def tries(enough: Callable[[], bool]) -> Iterator[None]:
    """Attempts for RACE_S, and longer on a slow machine until there was what makes the test prove something."""
    begin = time.monotonic()
    while (spent := time.monotonic() - begin) < RACE_S or (not enough() and spent < 10 * RACE_S):
        yield


def bind(source: Path, destination: str) -> dict[str, Any]:
    return {"destination": destination, "type": "bind", "source": str(source), "options": ["rbind"]}


def tmpfs(destination: str) -> dict[str, Any]:
    return {"destination": destination, "type": "tmpfs", "source": "tmpfs", "options": []}
