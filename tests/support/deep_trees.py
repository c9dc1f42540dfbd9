"""Trees far deeper than PATH_MAX or Python's stack."""

from __future__ import annotations

import os
import stat

from ketch import trees


def make(root, depth: int, name: str = "d") -> None:
    """A chain of directories with a file in every hundredth, and at its end."""
    root.mkdir()
    fd = os.open(root, trees.DIRECTORY)
    for level in range(depth):
        os.mkdir(name, dir_fd=fd)
        below = os.open(name, trees.DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = below
        if level % 100 == 99 or level == depth - 1:
            file = os.open("file", os.O_WRONLY | os.O_CREAT, 0o640, dir_fd=fd)
            os.write(file, b"content")
            os.close(file)
    os.close(fd)


def census(root, *, files_only: bool = False) -> list[tuple[int, str, int]]:
    """(depth, name, mode) of everything."""
    found = []
    fd = os.open(root, trees.DIRECTORY)
    with trees.Descent(fd) as at:
        for name in at.walk():
            if name is not None:
                try:
                    status = os.stat(name, dir_fd=at.fd, follow_symlinks=False)
                    if stat.S_ISDIR(status.st_mode):
                        at.enter(name)
                except FileNotFoundError:
                    continue  # it was moved away
                if not (files_only and stat.S_ISDIR(status.st_mode)):
                    found.append((at.depth - stat.S_ISDIR(status.st_mode), name, status.st_mode))
    os.close(fd)
    return found
