"""Links and names in a directory that its owner may be changing, looked up below it alone."""

from __future__ import annotations

import os
import posixpath
from contextlib import suppress
from errno import EINVAL, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR, EXDEV

from ketch.linux.openat2 import RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, openat2
from ketch.trees import Descent, sorted_names

_BELOW = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS
_NOTHING = (ENOENT, ENOTDIR, ELOOP, EXDEV, EINVAL, ENAMETOOLONG)


def link_target(root_fd: int, path: str) -> str | None:
    """The target of a symbolic link; None when there is none at the path, or only beyond another link."""
    directory, name = posixpath.split(path)
    try:
        fd = openat2(root_fd, directory or ".", os.O_PATH | os.O_DIRECTORY, 0, _BELOW)
        try:
            return os.readlink(name, dir_fd=fd)
        finally:
            os.close(fd)
    except OSError as e:
        if e.errno not in _NOTHING:
            raise
        return None


def names_in(root_fd: int, directory: str) -> list[str]:
    """The names in a directory, in order; none when there is no such directory, or only beyond a link."""
    try:
        fd = openat2(root_fd, directory or ".", os.O_RDONLY | os.O_DIRECTORY, 0, _BELOW)
    except OSError as e:
        if e.errno not in _NOTHING:
            raise
        return []
    try:
        return sorted_names(fd)
    finally:
        os.close(fd)


def move_entries(root_fd: int, directory: str, target: str) -> bool:
    """Move all entries of a directory, which no link leads to, to ``target``; False when there is none."""
    try:
        fd = openat2(root_fd, directory, os.O_RDONLY | os.O_DIRECTORY, 0, _BELOW)
    except OSError as e:
        if e.errno not in _NOTHING:
            raise
        return False
    try:
        for name in os.listdir(fd):
            os.rename(name, os.path.join(target, name), src_dir_fd=fd)
    finally:
        os.close(fd)
    return True


def named(root: str, name: str) -> list[str]:
    """The paths of all entries of a name in a tree that nobody changes, of directories not what is in them."""
    found: list[str] = []
    root_fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with Descent(root_fd) as at:
            for one in at.walk():
                if one == name:
                    found.append(os.path.join(root, at.prefix, one))
                elif one is not None:
                    with suppress(NotADirectoryError):
                        at.enter(one)
    finally:
        os.close(root_fd)
    return found
