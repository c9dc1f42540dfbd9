"""Differences between a container's upper directory and the layers below, as ``docker diff`` lists them.

Both sides are walked together by descriptor, for the container may be running.  A directory counts as modified when
something in it was changed, added or removed, or when its own owner or mode was; its time alone does not count, nor
does a file that overlay copied up and nobody changed.  This is how dockerd compares trees.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

from ketch import trees
from ketch.linux.openat2 import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2
from ketch.storage.archive.layer import is_opaque, is_whiteout

if TYPE_CHECKING:
    from collections.abc import Iterator

MODIFIED, ADDED, DELETED = 0, 1, 2
# What the runtime puts into a root, for mounts and for programs that look for it: Docker has it in a layer of its own.
_MTAB, _MOUNTS = "/etc/mtab", "/proc/mounts"
_PLACES = (
    "/.dockerenv",
    "/proc",
    "/sys",
    "/dev",
    "/etc/hostname",
    "/etc/hosts",
    _MTAB,
    "/etc/resolv.conf",
    "/sbin/docker-init",
)
Change = tuple[str, int]


def changes(upper_fd: int, lower_fd: int) -> list[Change]:
    """The differences as (path, kind), by path.

    ``lower_fd`` is the merged layers' root, -1 when there is none.  Both are readable directories, and the caller's.
    """
    return trees.in_order(found(upper_fd, lower_fd))


def places_made(upper_fd: int, lower_fd: int) -> frozenset[str]:
    """The paths that exist in the upper directory only because the runtime put them there."""
    made = {path for path in _PLACES if _is_empty(upper_fd, path) and not _exists(lower_fd, path)}
    for parent in ("/etc", "/sbin"):
        inside = {path for path in made if path.startswith(parent + "/")}
        if inside and not _exists(lower_fd, parent) and set(_names(upper_fd, parent)) == inside:
            made.add(parent)
    return frozenset(made)


def bytes_made(upper_fd: int, lower_fd: int = -1) -> int:
    """The bytes of what the runtime put there, which the container has not written."""
    return len(_MOUNTS) if _is_empty(upper_fd, _MTAB) and not _exists(lower_fd, _MTAB) else 0


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
        if stat.S_ISLNK(status.st_mode):
            return path == _MTAB and os.readlink("", dir_fd=fd) == _MOUNTS
        return stat.S_ISREG(status.st_mode) and status.st_size == 0
    finally:
        os.close(fd)


def _names(root_fd: int, path: str) -> list[str]:
    fd = _open(root_fd, path, trees.DIRECTORY)
    try:
        return [f"{path}/{name}" for name in os.listdir(fd)]
    finally:
        os.close(fd)


def found(upper_fd: int, lower_fd: int) -> Iterator[Change]:
    """The differences in order of the walk: a directory's content before the directory."""
    ignored = places_made(upper_fd, lower_fd)
    opened: list[_Opened] = []
    with trees.Descent(upper_fd) as upper, trees.Beside(lower_fd) as lower:
        for name in upper.walk():
            if name is None:
                inside = opened.pop()
                yield from _end(inside, upper, lower)
                lower.leave()
                if opened:
                    opened[-1].changed |= inside.changed
                continue
            path = f"/{upper.prefix}{name}"
            if path in ignored:
                continue
            new = _status(upper.fd, name)
            if new is None:
                continue  # it went meanwhile
            old = _status(lower.fd, name) if lower.fd >= 0 else None
            if stat.S_ISDIR(new.st_mode):
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # it has just gone
                    upper.enter(name)
                    lower.enter(name)
                    opened.append(_Opened(path, old, new))
                continue
            if is_whiteout(new):
                kind = DELETED if old is not None else None
            elif old is None:
                kind = ADDED
            else:
                changed = _differ(old, new) or _capabilities(lower.fd, upper.fd, name, new)
                kind = MODIFIED if changed else None
            if kind is not None:
                yield path, kind
                if opened:
                    opened[-1].changed = True


class _Opened:
    """A directory of the walk; ``changed`` when something in it differs."""

    def __init__(self, path: str, old: os.stat_result | None, new: os.stat_result) -> None:
        self.path = path
        self.old = old
        self.new = new
        self.changed = False


def _end(here: _Opened, upper: trees.Descent, lower: trees.Beside) -> Iterator[Change]:
    """The difference of a directory, after its content."""
    if lower.fd >= 0 and not upper.lost and is_opaque(upper.fd):
        # It was removed and made anew: what of the old one is not in it.
        for name in set(os.listdir(lower.fd)).difference(os.listdir(upper.fd)):
            here.changed = True
            yield f"{here.path}/{name}", DELETED
    if here.old is None:
        here.changed = True
        yield here.path, ADDED
    elif here.changed or _differ(here.old, here.new):
        here.changed = True
        yield here.path, MODIFIED


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
    """Whether a file's capabilities differ."""
    if not stat.S_ISREG(status.st_mode):
        return False
    values = []
    for fd in (lower_fd, upper_fd):
        try:
            values.append(os.getxattr(f"/proc/self/fd/{fd}/{name}", "security.capability", follow_symlinks=False))
        except OSError:  # none, or it went meanwhile
            values.append(b"")
    return values[0] != values[1]
