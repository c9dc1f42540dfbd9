"""How a container's upper directory differs from the layers below it: what ``docker diff`` lists.

Both sides are walked together by descriptor, for the container may be running.  A directory counts as modified when
something in it was changed, added or removed, or when its own owner or mode was; its time alone does not count, nor
does a file that overlay copied up and nobody changed.  This is how dockerd compares trees.
"""

from __future__ import annotations

import os
import stat
from contextlib import ExitStack
from typing import TYPE_CHECKING

from ketch.errors import InvalidArgument
from ketch.linux.openat2 import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2
from ketch.storage.archive.layer import is_opaque, is_whiteout

if TYPE_CHECKING:
    from collections.abc import Iterable

MODIFIED, ADDED, DELETED = 0, 1, 2
_DEPTH = 256
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# What the runtime puts into a root so that something can be mounted there: Docker has it in a layer of its own.
_PLACES = ("/proc", "/sys", "/dev", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/sbin/docker-init")
Change = tuple[str, int]


def changes(upper_fd: int, lower_fd: int) -> list[Change]:
    """(path, kind) for everything that differs, by path.

    ``lower_fd`` is the merged layers' root, -1 when there is none.  Both are readable directories, and the caller's.
    """
    walker = _Walker(places_made(upper_fd, lower_fd))
    walker.walk(upper_fd, lower_fd, "")
    return sorted(walker.found)


def places_made(upper_fd: int, lower_fd: int) -> frozenset[str]:
    """Those paths that exist in the upper directory only because something was mounted there."""
    made = {path for path in _PLACES if _is_empty(upper_fd, path) and not _exists(lower_fd, path)}
    for parent in ("/etc", "/sbin"):
        inside = {path for path in made if path.startswith(parent + "/")}
        if inside and not _exists(lower_fd, parent) and set(_names(upper_fd, parent)) == inside:
            made.add(parent)
    return frozenset(made)


def _open(root_fd: int, path: str, flags: int) -> int:
    return openat2(root_fd, path[1:], flags, 0, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)


def _exists(root_fd: int, path: str) -> bool:
    if root_fd < 0:
        return False
    try:
        os.close(_open(root_fd, path, os.O_PATH | os.O_NOFOLLOW))
    except OSError:  # not there, or behind something that is no directory
        return False
    return True


def _is_empty(root_fd: int, path: str) -> bool:
    try:
        fd = _open(root_fd, path, os.O_PATH | os.O_NOFOLLOW)
    except OSError:  # not there
        return False
    try:
        status = os.fstat(fd)
        if stat.S_ISDIR(status.st_mode):
            return not _names(root_fd, path)
        return stat.S_ISREG(status.st_mode) and status.st_size == 0
    finally:
        os.close(fd)


def _names(root_fd: int, path: str) -> list[str]:
    fd = _open(root_fd, path, _DIRECTORY)
    try:
        return [f"{path}/{name}" for name in os.listdir(fd)]
    finally:
        os.close(fd)


class _Walker:
    def __init__(self, ignored: frozenset[str]) -> None:
        self._ignored = ignored
        self.found: list[Change] = []

    def walk(self, upper_fd: int, lower_fd: int, path: str) -> None:
        if path.count("/") > _DEPTH:
            raise InvalidArgument(f"compare `{path[:200]}…`: more than {_DEPTH} directories deep")
        for name in os.listdir(upper_fd):
            here = f"{path}/{name}"
            if here not in self._ignored:
                self._compare(upper_fd, lower_fd, name, here)

    def _compare(self, upper_fd: int, lower_fd: int, name: str, path: str) -> None:
        new = _status(upper_fd, name)
        if new is None:
            return  # it went meanwhile
        old = _status(lower_fd, name) if lower_fd >= 0 else None
        if is_whiteout(new):
            if old is not None:
                self.found.append((path, DELETED))
            return
        before = len(self.found)
        if stat.S_ISDIR(new.st_mode):
            self._descend(upper_fd, lower_fd if old is not None and stat.S_ISDIR(old.st_mode) else -1, name, path)
        if old is None:
            self.found.append((path, ADDED))
        elif len(self.found) > before or _differ(old, new) or _capabilities(lower_fd, upper_fd, name, new):
            self.found.append((path, MODIFIED))

    def _descend(self, upper_fd: int, lower_fd: int, name: str, path: str) -> None:
        with ExitStack() as stack:
            try:
                inner_fd = os.open(name, _DIRECTORY, dir_fd=upper_fd)
            except (FileNotFoundError, NotADirectoryError):
                return  # it went meanwhile, or something else is there now
            stack.callback(os.close, inner_fd)
            below_fd = -1
            if lower_fd >= 0:
                below_fd = os.open(name, _DIRECTORY, dir_fd=lower_fd)
                stack.callback(os.close, below_fd)
            self.walk(inner_fd, below_fd, path)
            if below_fd >= 0 and is_opaque(inner_fd):
                self._hidden(os.listdir(below_fd), set(os.listdir(inner_fd)), path)

    def _hidden(self, below: Iterable[str], here: set[str], path: str) -> None:
        """In a directory that was removed and made anew: what of the old one is not in it."""
        self.found += [(f"{path}/{name}", DELETED) for name in below if name not in here]


def _status(dir_fd: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _differ(old: os.stat_result, new: os.stat_result) -> bool:
    if (old.st_mode, old.st_uid, old.st_gid, old.st_rdev) != (new.st_mode, new.st_uid, new.st_gid, new.st_rdev):
        return True
    return not stat.S_ISDIR(new.st_mode) and (old.st_mtime_ns, old.st_size) != (new.st_mtime_ns, new.st_size)


def _capabilities(lower_fd: int, upper_fd: int, name: str, status: os.stat_result) -> bool:
    """Whether a file's capabilities are others now."""
    if not stat.S_ISREG(status.st_mode):
        return False
    values = []
    for fd in (lower_fd, upper_fd):
        try:
            values.append(os.getxattr(f"/proc/self/fd/{fd}/{name}", "security.capability", follow_symlinks=False))
        except OSError:  # none, or it went meanwhile
            values.append(b"")
    return values[0] != values[1]
