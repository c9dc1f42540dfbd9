"""cgroup directories as a tree: making, listing and removing them."""

from __future__ import annotations

import os
import time
from errno import EBUSY, ENOENT

from ketch.runtime.cgroups import files


def make(directory: str) -> None:
    """mkdir -p; a parent that is removed at the same moment is made again."""
    for _ in range(8):
        try:
            os.mkdir(directory, 0o755)
            return
        except FileExistsError:
            return
        except FileNotFoundError:
            make(os.path.dirname(directory))
    raise FileNotFoundError(ENOENT, os.strerror(ENOENT), directory)


def children(directory: str) -> list[str]:
    """The sub-cgroups, as full paths."""
    try:
        with os.scandir(directory) as entries:
            return [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []


def pids(directory: str) -> list[int]:
    """The processes of a cgroup and of everything below it."""
    found = [int(line) for line in files.read_or(directory, "cgroup.procs").split()]
    for child in children(directory):
        found += pids(child)
    return found


def remove(directory: str, timeout_s: float = 1.0) -> None:
    """Remove a cgroup with its sub-cgroups; a moment of EBUSY is normal while its last processes are reaped."""
    deadline = time.monotonic() + timeout_s
    pause = 0.0002
    while True:
        try:
            os.rmdir(directory)
            return
        except FileNotFoundError:
            return
        except OSError as e:
            if e.errno != EBUSY or time.monotonic() > deadline:
                raise
        below = children(directory)
        for child in below:
            remove(child, timeout_s)
        if not below:
            time.sleep(pause)
            pause = min(pause * 2, 0.02)
