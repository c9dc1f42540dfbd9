"""Trees of cgroup directories: making, listing and removing.

What is below a container's cgroup the container makes, as deep as it likes where it may (privileged): nothing here
recurses, and what is below is reached by descriptors, not by paths.
"""

from __future__ import annotations

import os
import time
from errno import EBUSY, ENODEV, ENOENT, ENOTEMPTY, EOPNOTSUPP

from ketch import trees

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_GONE = (ENOENT, ENODEV)


def make(directory: str) -> None:
    """mkdir -p."""
    trees.make_path(directory, 0o755)


def children(directory: str) -> list[str]:
    """The sub-cgroups, as full paths."""
    try:
        with os.scandir(directory) as entries:
            return [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []


def walk(directory: str) -> Iterator[int]:
    """A descriptor of the cgroup and of each below it, parents first; valid until the next one."""
    try:
        fd = os.open(directory, trees.DIRECTORY)
    except FileNotFoundError:
        return
    try:
        with trees.Descent(fd) as at:
            yield fd
            for name in at.walk(_names_below):
                if name is not None and _enter(at, name):
                    yield at.fd
    finally:
        os.close(fd)


def _names_below(fd: int) -> list[str]:
    try:
        with os.scandir(fd) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError as e:
        if e.errno not in _GONE:
            raise
        return []


def _enter(at: trees.Descent, name: str) -> bool:
    try:
        at.enter(name)
    except OSError as e:
        if e.errno not in _GONE:
            raise
        return False
    return True


def pids(directory: str) -> list[int]:
    """The processes of a cgroup and of everything below it."""
    found = []
    for fd in walk(directory):
        found += [int(line) for line in _processes(fd).split()]
    return found


def _processes(fd: int) -> bytes:
    """The pids in ``cgroup.procs``; a threaded cgroup has none of its own: its domain's file names them."""
    data = b""
    try:
        procs = os.open("cgroup.procs", os.O_RDONLY | os.O_CLOEXEC, dir_fd=fd)
        try:
            while more := os.read(procs, 65536):
                data += more
        finally:
            os.close(procs)
    except OSError as e:
        if e.errno not in (*_GONE, EOPNOTSUPP):
            raise
    return data


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
        if not _remove_below(directory):
            time.sleep(pause)
            pause = min(pause * 2, 0.02)


def _remove_below(directory: str) -> bool:
    """Remove the sub-cgroups that can be removed; returns whether there was one."""
    try:
        fd = os.open(directory, trees.DIRECTORY)
    except FileNotFoundError:
        return False
    removed = False
    try:
        with trees.Descent(fd) as at:
            left = ""  # the one that was left last, seen from where we stand now
            for name in at.walk(_names_below):
                removed = _remove_one(at.fd, left) or removed
                left = at.name if name is None and not at.lost else ""
                if name is not None:
                    _enter(at, name)
            removed = _remove_one(at.fd, left) or removed
    finally:
        os.close(fd)
    return removed


def _remove_one(fd: int, name: str) -> bool:
    if not name:
        return False
    try:
        os.rmdir(name, dir_fd=fd)
    except OSError as e:
        if e.errno not in (*_GONE, EBUSY, ENOTEMPTY):
            raise
        return False
    return True
