"""freezer controller, v1."""

from __future__ import annotations

import os
import time
from errno import ENODEV, ENOENT

from ketch.errors import RuntimeFailure
from ketch.runtime.cgroups import files, tree


def freeze(directory: str, frozen: bool, timeout_s: float = 5.0) -> None:
    """Freeze or thaw the cgroup; returns when every process has followed.

    Freezing is not atomic: with a fork under way the kernel stays at FREEZING until it is told again.
    """
    wanted = "FROZEN" if frozen else "THAWED"
    deadline = time.monotonic() + timeout_s
    pause = 0.0001
    while True:
        files.write(directory, "freezer.state", wanted)
        if files.read(directory, "freezer.state") == wanted:
            return
        if time.monotonic() > deadline:
            if frozen:
                files.write(directory, "freezer.state", "THAWED")
            raise RuntimeFailure(f"freeze cgroup `{directory}`: not {wanted} after {timeout_s:g} s", step="freeze")
        time.sleep(pause)  # v1 has nothing to wait on
        pause = min(pause * 2, 0.02)


def is_frozen(directory: str) -> bool:
    """True while the processes are stopped or being stopped."""
    return files.read_or(directory, "freezer.state") not in ("", "THAWED")


def thaw_below(directory: str) -> None:
    """Thaw every cgroup below, and this one; one that is removed meanwhile is no error."""
    for fd in tree.walk(directory):
        try:
            state = os.open("freezer.state", os.O_WRONLY | os.O_CLOEXEC, dir_fd=fd)
        except OSError as e:
            if e.errno not in (ENOENT, ENODEV):
                raise
            continue
        try:
            os.write(state, b"THAWED")
        except OSError as e:
            if e.errno not in (ENOENT, ENODEV):
                raise
        finally:
            os.close(state)
