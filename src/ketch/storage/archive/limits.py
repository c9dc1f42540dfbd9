"""Limits of unpacking: an archive must not fill the disk."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ketch.errors import ResourceExhausted

if TYPE_CHECKING:
    from ketch.storage.archive.tar import Source

_RESERVE = 64 << 20  # stays free for the database and logs
_EVERY = 32 << 20
_FILES = 64  # one in so many of the file system's files stays free, too


class Reserve:
    """A check of the free space while something is written to a file system: a part of it is kept for others."""

    def __init__(self, directory_fd: int, what: str) -> None:
        """``what`` is done, for the message."""
        self._directory_fd, self._what = directory_fd, what
        self._until = 0
        self._passed = 0

    def take(self, size: int) -> None:
        """Count bytes that are written (ResourceExhausted)."""
        self._passed += size
        if self._passed >= self._until:
            self._until = self._passed + _EVERY
            free = os.fstatvfs(self._directory_fd)
            if free.f_bavail * free.f_frsize < _RESERVE or free.f_favail < free.f_files // _FILES:
                raise ResourceExhausted(
                    f"{self._what}: no space left on device", hint="make room, for instance with: docker system prune"
                )


class Guard:
    """A tar stream that checks the free space at intervals (ResourceExhausted).

    A bomb is bounded by the disk and taken away again when it fails; what it may not do is to leave nothing for others.
    """

    def __init__(self, source: Source, directory_fd: int, doing: str = "unpack layer") -> None:
        """``doing``: what errors say that is done."""
        self._source = source
        self._reserve = Reserve(directory_fd, doing)

    def read(self, size: int = -1, /) -> bytes:
        """The next piece."""
        data = self._source.read(size)
        self._reserve.take(len(data))
        return data
