"""A directory as it is sent to a client: its entries in the order of a walk, and the content of its files."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from ketch import trees
from ketch.linux.openat2 import RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, openat2
from ketch.storage.contexts.attributes import attributes
from ketch.storage.contexts.sent import SentEntry

if TYPE_CHECKING:
    from collections.abc import Iterator

_BELOW = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC


class DirectoryListing:
    """A directory that nobody changes; the descriptor stays the caller's.  Blocking."""

    def __init__(self, fd: int, mtime_ns: int | None = None) -> None:
        """``mtime_ns``: a time for all entries, instead of their own."""
        self._fd, self._mtime_ns = fd, mtime_ns
        self._first: dict[tuple[int, int], str] = {}  # of files with several names the first one

    def entries(self) -> Iterator[SentEntry]:
        """All entries: parents first, names in the order of their bytes."""
        with trees.Descent(self._fd) as at:
            for name in at.walk(_names):
                if name is None:
                    continue
                prefix = at.prefix
                status = os.stat(name, dir_fd=at.fd, follow_symlinks=False)
                yield self._entry(at.fd, name, f"{prefix}{name}", status)
                if stat.S_ISDIR(status.st_mode):
                    at.enter(name)

    def _entry(self, dir_fd: int, name: str, path: str, status: os.stat_result) -> SentEntry:
        mode, size, link, device = status.st_mode, 0, "", 0
        if stat.S_ISLNK(mode):
            link = os.readlink(name, dir_fd=dir_fd)
            size = status.st_size
        elif stat.S_ISREG(mode):
            link = self._linked(path, status)
            size = 0 if link else status.st_size
        elif stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            device = status.st_rdev
        mtime_ns = status.st_mtime_ns if self._mtime_ns is None else self._mtime_ns
        given = _attributes(dir_fd, name, mode)
        return SentEntry(path, mode, size, mtime_ns, status.st_uid, status.st_gid, link, device, given)

    def _linked(self, path: str, status: os.stat_result) -> str:
        """The first name of a file that was met before; empty for this one."""
        if status.st_nlink == 1:
            return ""
        first = self._first.setdefault((status.st_dev, status.st_ino), path)
        return "" if first == path else first

    def open(self, path: str) -> int:
        """Open a file to be read; the descriptor is the caller's."""
        return openat2(self._fd, path, _READ, 0, _BELOW)


def _names(fd: int) -> list[str]:
    return sorted(os.listdir(fd), key=os.fsencode)


def _attributes(dir_fd: int, name: str, mode: int) -> tuple[tuple[str, bytes], ...]:
    """The extended attributes of a file or directory; of others none, which clients cannot have anyway."""
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        return ()
    fd = os.open(name, _READ, dir_fd=dir_fd)
    try:
        return tuple(sorted(attributes(fd).items()))
    finally:
        os.close(fd)
