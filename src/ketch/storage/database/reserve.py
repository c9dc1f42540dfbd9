"""Reserved space of the state database, with which objects can be removed on a full disk.

    ketch.db            some more than its pages: taking the log in must not need space
    ketch.db-wal        while the database is open: at least SIZE bytes long, and SQLite writes over them
    ketch.db-reserve    while it is closed: the same file under another name (SQLite removes its log when it closes)
    ketch.db-spare      while it is closed: an inode for ketch.db-shm

So the space is never given back in between, and no container that writes can have it.  On file systems that write
elsewhere instead of over (btrfs with copy-on-write) this is no promise.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
from errno import EDQUOT, ENOSPC

from ketch.storage.database import wal

log = logging.getLogger(__name__)
SIZE = 4 << 20
GROWTH = 1 << 20  # what the database may grow by between two checkpoints
_SHM = 256 << 10  # what SQLite's index of the log takes, and some more
FULL = (ENOSPC, EDQUOT)


def free_bytes(path: str) -> int:
    """The bytes that root can still write on the file system of ``path``."""
    status = os.statvfs(path)
    return status.f_bfree * status.f_frsize


def may_grow(path: str, size: int) -> bool:
    """Whether so many bytes more can be written beside ``path``; of a user's quota statvfs does not know."""
    if free_bytes(path) < size:
        return False
    probe = path + "-probe"
    try:
        fd = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as e:
        return e.errno not in FULL
    try:
        os.posix_fallocate(fd, 0, size)
    except OSError as e:
        return e.errno not in FULL
    finally:
        os.close(fd)
        os.unlink(probe)
    return True


def put_back(path: str) -> None:
    """Make the reserved space the log again, before the database ``path`` is opened."""
    kept = path + "-reserve"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path + "-spare")
    if not os.path.lexists(kept):
        return
    # Not closed; or a link, which SQLite would not follow: no file of ours.
    if os.path.exists(path + "-wal") or not stat.S_ISREG(os.lstat(kept).st_mode):
        os.unlink(kept)
        return
    _blank(kept)
    if free_bytes(path) < _SHM:
        os.truncate(kept, max(SIZE - _SHM, 0))
    os.rename(kept, path + "-wal")


def keep(path: str) -> None:
    """Keep the log's space under a second name, before the database ``path`` is closed."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path + "-reserve")
    with contextlib.suppress(OSError):  # a file system without links, or no log: then without
        os.link(path + "-wal", path + "-reserve")


def kept(path: str) -> None:
    """Clear the reserved space of the log's content, after the database was closed."""
    with contextlib.suppress(OSError):
        os.close(os.open(path + "-spare", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    if os.path.exists(path + "-reserve") and not os.path.exists(path + "-wal"):
        _blank(path + "-reserve")
        os.truncate(path + "-reserve", SIZE)


def _blank(path: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.pwrite(fd, bytes(wal.HEADER), 0)
    finally:
        os.close(fd)


def fill(fd: int, path: str, size: int = SIZE) -> None:
    """Extend the log, or the database, to ``size``, if there is more room than that."""
    if os.fstat(fd).st_size >= size or free_bytes(path) < 2 * SIZE:
        return
    try:
        os.posix_fallocate(fd, 0, size)
    except OSError as e:
        log.warning("keep space for the state database: %s", e.strerror)
