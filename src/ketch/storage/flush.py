"""Writes that are waited for until they are on the disk."""

from __future__ import annotations

import os

from ketch.linux.openat2 import syncfs


def file_system(directory: str) -> None:
    """Write everything of the file system that holds a directory to the disk (syncfs(2), OSError)."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        syncfs(fd)
    finally:
        os.close(fd)
