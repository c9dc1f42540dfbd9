"""Paths inside a root: found with openat2(2), so that no symbolic link of an image can lead out.

A root is a directory descriptor.  Everything here returns O_PATH descriptors, close-on-exec, the
caller's to close, and raises OSError.
"""

from __future__ import annotations

import os
from errno import EEXIST, EINVAL, EISDIR, ELOOP, ENOENT
from stat import S_ISDIR, S_ISLNK, S_ISREG

from ketch.linux.openat2 import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, openat2

O_PATH = os.O_PATH | os.O_CLOEXEC
_MAX_LINKS = 40  # the kernel's own limit (MAXSYMLINKS)


def open_in(root_fd: int, path: str, flags: int = O_PATH, *, links: bool = True) -> int:
    """Open ``path`` as if ``root_fd`` were ``/``; absolute links and ``..`` stay inside, magic links fail (ELOOP).

    Without ``links`` every symbolic link fails so.
    """
    resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | (0 if links else RESOLVE_NO_SYMLINKS)
    return openat2(root_fd, path or ".", flags, 0, resolve)


def make_dirs(root_fd: int, path: str, mode: int = 0o755, owner: tuple[int, int] = (-1, -1)) -> int:
    """Open the directory ``path`` in the root, making what is missing (also behind dangling links).

    What is made belongs to ``owner`` (user, group), -1: to whoever makes it.
    """
    try:
        return open_in(root_fd, path, O_PATH | os.O_DIRECTORY)
    except FileNotFoundError:
        return _make_missing(root_fd, path, mode, owner)


def make_file(root_fd: int, path: str, mode: int = 0o644) -> int:
    """Open the non-directory ``path`` in the root, making an empty regular file if nothing is there."""
    try:
        return open_in(root_fd, path)
    except FileNotFoundError:
        pass
    path = _follow_dangling(root_fd, path)
    parent_fd = make_dirs(root_fd, os.path.dirname(path) or "/")
    try:
        name = os.path.basename(path)
        flags = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_WRONLY
        os.close(os.open(name, flags, mode, dir_fd=parent_fd))
        return os.open(name, O_PATH | os.O_NOFOLLOW, dir_fd=parent_fd)
    finally:
        os.close(parent_fd)


def open_regular(root_fd: int, path: str) -> int:
    """Open a regular file in the root for reading; FIFOs and devices are refused (EINVAL), directories too (EISDIR).

    What is there is looked at before it is opened: to open a device may do something (a watchdog's begins to count),
    and whoever made the root may have put one there.  One that says that it is empty is not opened either (-1): so do
    those of proc(5), and to read /proc/kmsg waits, and takes the kernel's messages from those who log them.
    """
    path_fd = open_in(root_fd, path)
    try:
        status = os.fstat(path_fd)
        if S_ISDIR(status.st_mode):
            raise IsADirectoryError(EISDIR, "is a directory", path)
        if not S_ISREG(status.st_mode):
            raise OSError(EINVAL, "not a regular file", path)
        if not status.st_size:
            return -1
        try:
            return os.open(f"/proc/self/fd/{path_fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            # In a root without proc(5): there, only the container's own processes and devices are at hand.
            return open_in(root_fd, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    finally:
        os.close(path_fd)


def _make_missing(root_fd: int, path: str, mode: int, owner: tuple[int, int]) -> int:
    current = "/"
    parts = [part for part in path.split("/") if part and part != "."]
    links = 0
    while parts:
        name = parts.pop(0)
        if name == "..":
            current = os.path.dirname(current)
            continue
        here = os.path.join(current, name)
        try:
            os.close(open_in(root_fd, here, O_PATH | os.O_DIRECTORY))
        except FileNotFoundError:
            target = _make_one(root_fd, current, name, mode, owner)
            if target is not None:  # a dangling link: go on along its target
                links += 1
                if links > _MAX_LINKS:
                    raise OSError(ELOOP, os.strerror(ELOOP), path) from None
                parts[:0] = [part for part in target.split("/") if part and part != "."]
                current = "/" if target.startswith("/") else current
                continue
        current = here
    return open_in(root_fd, current, O_PATH | os.O_DIRECTORY)


def _make_one(root_fd: int, parent: str, name: str, mode: int, owner: tuple[int, int]) -> str | None:
    """Make one directory; for a dangling link, return its target instead."""
    parent_fd = open_in(root_fd, parent, O_PATH | os.O_DIRECTORY)
    try:
        os.mkdir(name, mode, dir_fd=parent_fd)
        if owner != (-1, -1):
            os.chown(name, *owner, dir_fd=parent_fd, follow_symlinks=False)
    except OSError as e:
        if e.errno != EEXIST:
            raise
        if S_ISLNK(os.stat(name, dir_fd=parent_fd, follow_symlinks=False).st_mode):
            return os.readlink(name, dir_fd=parent_fd)
    finally:
        os.close(parent_fd)
    return None


def _follow_dangling(root_fd: int, path: str) -> str:
    """The path to create when ``path`` may be a chain of links to something that is not there."""
    for _ in range(_MAX_LINKS):
        try:
            fd = open_in(root_fd, path, O_PATH | os.O_NOFOLLOW)
        except OSError as e:
            if e.errno == ENOENT:
                return path
            raise
        try:
            target = os.readlink("", dir_fd=fd)
        finally:
            os.close(fd)
        path = target if target.startswith("/") else os.path.join(os.path.dirname(path), target)
    raise OSError(ELOOP, os.strerror(ELOOP), path)
