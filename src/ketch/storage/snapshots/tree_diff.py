"""Differences between two whole trees, written as the upper directory that overlay would have had.

That form is what ``docker diff``, commit and size already read.  An entry counts as changed when its kind, owner, mode,
device, size, time, link target or xattrs differ; of a directory, time and size do not count.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

from ketch import trees
from ketch.storage.tree_copy import Copier, copy_metadata, xattrs

if TYPE_CHECKING:
    from collections.abc import Callable


def write_upper(new_fd: int, old_fd: int, upper_fd: int, check: Callable[[], None] = lambda: None) -> None:
    """Fill an empty directory with the first tree's changes, and whiteouts for its deletions.

    ``check`` is called now and then; what it raises ends it.
    """
    copier = Copier(upper_fd, check)
    with trees.Descent(new_fd) as new, trees.Beside(old_fd) as old, trees.Descent(upper_fd) as upper:
        found = [_write_whiteouts(new.fd, old.fd, upper.fd)]  # whether there was a change, level by level
        for name in new.walk():
            check()
            if name is None:
                changed = _end(new, old.fd, upper.fd) or found[-1]
                found.pop()
                inner = upper.name
                upper.leave()
                old.leave()
                if changed:
                    found[-1] = True
                else:
                    os.rmdir(inner, dir_fd=upper.fd)
                continue
            with contextlib.suppress(FileNotFoundError):  # removed while this went on
                status, former = _status(new.fd, name), _former(old.fd, name)
                if former is None or not (stat.S_ISDIR(status.st_mode) and stat.S_ISDIR(former.st_mode)):
                    if former is None or _differs(new.fd, old.fd, name, status, former):
                        copier.entry(new.fd, name, upper.fd, upper.prefix + name)
                        found[-1] = True
                    continue
                new.enter(name)
                old.enter(name)
                os.mkdir(name, 0o700, dir_fd=upper.fd)
                upper.enter(name)
                found.append(_write_whiteouts(new.fd, old.fd, upper.fd))
    copy_metadata(new_fd, upper_fd, os.fstat(new_fd))


def _end(new: trees.Descent, old_fd: int, upper_fd: int) -> bool:
    """Copy a directory's metadata after its content; returns whether the directory itself differs."""
    if new.lost:
        return True
    status = os.fstat(new.fd)
    copy_metadata(new.fd, upper_fd, status)
    return old_fd < 0 or _differs(new.fd, old_fd, ".", status, os.fstat(old_fd))


def _write_whiteouts(new_fd: int, old_fd: int, upper_fd: int) -> bool:
    """Write a directory's whiteouts; returns whether there are any."""
    gone = set(os.listdir(old_fd) if old_fd >= 0 else ()).difference(os.listdir(new_fd))
    for name in gone:
        os.mknod(name, stat.S_IFCHR, 0, dir_fd=upper_fd)
    return bool(gone)


def changed_bytes(new_fd: int, old_fd: int) -> int:
    """Bytes of the new or changed files of the first tree; hard links count once."""
    seen: set[int] = set()
    total = 0
    with trees.Descent(new_fd) as new, trees.Beside(old_fd) as old:
        for name in new.walk():
            if name is None:
                old.leave()
                continue
            with contextlib.suppress(FileNotFoundError):
                status = _status(new.fd, name)
                if stat.S_ISDIR(status.st_mode):
                    new.enter(name)
                    old.enter(name)
                    continue
                former = _former(old.fd, name)
                changed = former is None or _differs(new.fd, old.fd, name, status, former)
                if changed and status.st_ino not in seen:
                    seen.add(status.st_ino)
                    total += status.st_size
    return total


def _differs(new_fd: int, old_fd: int, name: str, new: os.stat_result, old: os.stat_result) -> bool:
    if (new.st_mode, new.st_uid, new.st_gid) != (old.st_mode, old.st_uid, old.st_gid):
        return True
    if not stat.S_ISDIR(new.st_mode):
        if (new.st_size, new.st_mtime_ns, new.st_rdev) != (old.st_size, old.st_mtime_ns, old.st_rdev):
            return True
        if stat.S_ISLNK(new.st_mode) and os.readlink(name, dir_fd=new_fd) != os.readlink(name, dir_fd=old_fd):
            return True
    return xattrs(f"/proc/self/fd/{new_fd}/{name}") != xattrs(f"/proc/self/fd/{old_fd}/{name}")


def _status(fd: int, name: str) -> os.stat_result:
    return os.stat(name, dir_fd=fd, follow_symlinks=False)


def _former(fd: int, name: str) -> os.stat_result | None:
    """The status of the entry in the old tree."""
    if fd < 0:
        return None
    try:
        return _status(fd, name)
    except FileNotFoundError:
        return None
