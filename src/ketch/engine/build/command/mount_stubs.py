"""Stubs: empty files and directories that a command's root got only because something had to be mounted there.

A layer must not have them.  What lies below is looked at afterwards, since it never changes: a place is a stub when the
tree below has nothing there.  Directories above it that were made for it go, too, and a directory keeps its times when
a stub is taken out of it, as BuildKit leaves them.
"""

from __future__ import annotations

import os
import stat
from errno import ELOOP, ENOENT, ENOTDIR
from typing import TYPE_CHECKING

from ketch.runtime.rootfs import paths

if TYPE_CHECKING:
    from collections.abc import Iterable

_MOST_LINKS = 40  # the kernel's own limit


def remove(upper_fd: int, lower_fd: int, places: Iterable[str]) -> None:
    """Remove the stubs at these places from a directory of changes (OSError); ``lower_fd`` is the tree below."""
    for place in places:
        parts = _real(lower_fd, place)
        while parts and not _exists(lower_fd, parts):
            if not _removed(upper_fd, parts):
                break
            parts = parts[:-1]


def _real(root_fd: int, place: str) -> list[str]:
    """The names that a path consists of when its links are followed; empty when they lead in a circle."""
    done: list[str] = []
    left = place.split("/")[::-1]
    links = 0
    while left:
        name = left.pop()
        if name in ("", "."):
            continue
        if name == "..":
            del done[-1:]
            continue
        target = _link(root_fd, [*done, name])
        if target is None:
            done.append(name)
            continue
        links += 1
        if links > _MOST_LINKS:
            return []
        if target.startswith("/"):
            done = []
        left += target.split("/")[::-1]
    return done


def _open(root_fd: int, parts: list[str], flags: int = 0) -> int:
    return paths.open_in(root_fd, "/".join(parts), paths.O_PATH | os.O_NOFOLLOW | flags, links=not parts)


def _link(root_fd: int, parts: list[str]) -> str | None:
    try:
        fd = _open_last(root_fd, parts)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return os.readlink("", dir_fd=fd) if stat.S_ISLNK(os.fstat(fd).st_mode) else None
    finally:
        os.close(fd)


def _open_last(root_fd: int, parts: list[str]) -> int:
    """A descriptor of an entry itself, be it a link; the directories above it are none."""
    parent_fd = _open(root_fd, parts[:-1], os.O_DIRECTORY)
    try:
        return os.open(parts[-1], paths.O_PATH | os.O_NOFOLLOW, dir_fd=parent_fd)
    finally:
        os.close(parent_fd)


def _exists(root_fd: int, parts: list[str]) -> bool:
    try:
        os.close(_open_last(root_fd, parts))
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _removed(upper_fd: int, parts: list[str]) -> bool:
    """Remove an empty file or directory; False when it is not there, or not empty."""
    try:
        parent_fd = _open(upper_fd, parts[:-1], os.O_DIRECTORY)
    except OSError as e:
        if e.errno not in (ENOENT, ENOTDIR, ELOOP):  # the last: the command has put a link there
            raise
        return False
    try:
        return _removed_from(parent_fd, parts[-1])
    except FileNotFoundError:
        return False
    finally:
        os.close(parent_fd)


def _removed_from(parent_fd: int, name: str) -> bool:
    status, before = os.stat(name, dir_fd=parent_fd, follow_symlinks=False), os.fstat(parent_fd)
    if stat.S_ISDIR(status.st_mode):
        if not _is_empty(parent_fd, name):
            return False
        os.rmdir(name, dir_fd=parent_fd)
    elif stat.S_ISREG(status.st_mode) and not status.st_size:
        os.unlink(name, dir_fd=parent_fd)
    else:
        return False
    os.utime(f"/proc/self/fd/{parent_fd}", ns=(before.st_atime_ns, before.st_mtime_ns))
    return True


def _is_empty(parent_fd: int, name: str) -> bool:
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent_fd)
    try:
        with os.scandir(fd) as entries:
            return next(entries, None) is None
    finally:
        os.close(fd)
