"""Sizes of directories that containers wrote, of any depth, during writes; all blocking."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from ketch import trees

if TYPE_CHECKING:
    from collections.abc import Callable


def size_on_disk(directory: str) -> int:
    """Bytes on the disk of everything below a directory, except directories themselves."""
    return _sum(directory, lambda status: status.st_blocks * 512)


def written_bytes(directory: str) -> int:
    """Bytes of files and link targets below a directory; a file with several names counts once."""
    seen: set[int] = set()

    def size(status: os.stat_result) -> int:
        if status.st_nlink > 1 and stat.S_ISREG(status.st_mode):
            if status.st_ino in seen:
                return 0
            seen.add(status.st_ino)
        return status.st_size

    return _sum(directory, size)


def _sum(directory: str, size: Callable[[os.stat_result], int]) -> int:
    try:
        root_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    total = 0
    try:
        with trees.Descent(root_fd) as at:
            for name in at.walk():
                if name is None:
                    continue
                try:
                    status = os.stat(name, dir_fd=at.fd, follow_symlinks=False)
                    if stat.S_ISDIR(status.st_mode):
                        at.enter(name)
                    else:
                        total += size(status)
                except (FileNotFoundError, NotADirectoryError):
                    continue  # it went, or something else took its place
    finally:
        os.close(root_fd)
    return total
