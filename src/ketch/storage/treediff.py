"""What changed between two whole trees, written as the upper directory that overlay would have had.

That form is what ``docker diff``, commit and size already read.  An entry counts as changed when its kind, owner, mode,
device, size, time, link target or xattrs differ; of a directory, time and size do not count.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from ketch.storage.treecopy import DIRECTORY, Copier, copy_metadata, xattrs

if TYPE_CHECKING:
    from collections.abc import Iterator

Stats = dict[str, os.stat_result]


def write_upper(new_fd: int, old_fd: int, upper_fd: int) -> None:
    """Fill an empty directory with what is new in the first tree, and whiteouts for what is gone from it."""
    _write(new_fd, old_fd, upper_fd, "", Copier(upper_fd))
    copy_metadata(new_fd, ".", upper_fd, ".", os.fstat(new_fd))


def changed_bytes(new_fd: int, old_fd: int) -> int:
    """Bytes of the files that are new or changed in the first tree; one with several names counts once."""
    seen: set[int] = set()
    return sum(_sizes(new_fd, old_fd, seen))


def _sizes(new_fd: int, old_fd: int, seen: set[int]) -> Iterator[int]:
    olds = _entries(old_fd)
    for name, new in _entries(new_fd).items():
        old = olds.get(name)
        if stat.S_ISDIR(new.st_mode):
            inside = old is not None and stat.S_ISDIR(old.st_mode)
            inner_fd = os.open(name, DIRECTORY, dir_fd=new_fd)
            below_fd = os.open(name, DIRECTORY, dir_fd=old_fd) if inside else -1
            try:
                yield from _sizes(inner_fd, below_fd, seen)
            finally:
                _close(inner_fd, below_fd)
        elif (old is None or _differs(new_fd, old_fd, name, new, old)) and new.st_ino not in seen:
            seen.add(new.st_ino)
            yield new.st_size


def _write(new_fd: int, old_fd: int, upper_fd: int, prefix: str, copier: Copier) -> bool:
    """Whether there was any change."""
    news, olds = _entries(new_fd), _entries(old_fd)
    found = False
    for name in olds.keys() - news.keys():
        os.mknod(name, stat.S_IFCHR, 0, dir_fd=upper_fd)
        found = True
    for name, new in news.items():
        old = olds.get(name)
        if old is not None and stat.S_ISDIR(new.st_mode) and stat.S_ISDIR(old.st_mode):
            found |= _write_directory(new_fd, old_fd, upper_fd, prefix + name, copier)
        elif old is None or _differs(new_fd, old_fd, name, new, old):
            try:
                copier.entry(new_fd, name, upper_fd, prefix + name)
            except FileNotFoundError:  # removed while this went on
                continue
            found = True
    return found


def _write_directory(new_fd: int, old_fd: int, upper_fd: int, path: str, copier: Copier) -> bool:
    name = path.rpartition("/")[2]
    os.mkdir(name, 0o700, dir_fd=upper_fd)
    fds = [os.open(name, DIRECTORY, dir_fd=fd) for fd in (new_fd, old_fd, upper_fd)]
    try:
        new, old = os.fstat(fds[0]), os.fstat(fds[1])
        found = _write(fds[0], fds[1], fds[2], path + "/", copier)
    finally:
        _close(*fds)
    if not found and not _differs(new_fd, old_fd, name, new, old):
        os.rmdir(name, dir_fd=upper_fd)
        return False
    copy_metadata(new_fd, name, upper_fd, name, new)
    return True


def _differs(new_fd: int, old_fd: int, name: str, new: os.stat_result, old: os.stat_result) -> bool:
    if (new.st_mode, new.st_uid, new.st_gid) != (old.st_mode, old.st_uid, old.st_gid):
        return True
    if not stat.S_ISDIR(new.st_mode):
        if (new.st_size, new.st_mtime_ns, new.st_rdev) != (old.st_size, old.st_mtime_ns, old.st_rdev):
            return True
        if stat.S_ISLNK(new.st_mode) and os.readlink(name, dir_fd=new_fd) != os.readlink(name, dir_fd=old_fd):
            return True
    return xattrs(f"/proc/self/fd/{new_fd}/{name}") != xattrs(f"/proc/self/fd/{old_fd}/{name}")


def _entries(fd: int) -> Stats:
    if fd < 0:
        return {}
    found: Stats = {}
    for name in os.listdir(fd):
        try:
            found[name] = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            continue
    return found


def _close(*fds: int) -> None:
    for fd in fds:
        if fd >= 0:
            os.close(fd)
