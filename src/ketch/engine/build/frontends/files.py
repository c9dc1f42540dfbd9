"""Files of results, as front ends look at them: bytes, directories, what stat says.  Blocking.

``root`` is a descriptor of the tree's top.  Paths are those of the tree: links stay in it, whoever made them.
"""

from __future__ import annotations

import os
import stat
from errno import EFBIG, EOPNOTSUPP
from typing import TYPE_CHECKING, NamedTuple

from ketch.build.cache.globs import compiled
from ketch.errors import InvalidArgument, NotFound, ResourceExhausted
from ketch.runtime.rootfs import paths
from ketch.storage import overlay_notes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ketch.storage.archive.owners import Owners

LARGEST = 16 << 20  # bytes that are read at once: no message has more


class TreeFile(NamedTuple):
    """A file of a tree: its name, what stat says, its owner, where a link leads, its extended attributes."""

    path: str
    status: os.stat_result
    owner: tuple[int, int]
    target: str
    xattrs: Mapping[str, bytes]


def read(root: int, path: str, offset: int = 0, length: int = 0, *, most: int = LARGEST) -> bytes:
    """The bytes of a file, or ``length`` of them from an offset on (NotFound, InvalidArgument, ResourceExhausted)."""
    if offset < 0:
        raise InvalidArgument(f"read {path}: the offset is {offset}")
    try:
        fd = paths.open_regular(root, path)
    except OSError as e:
        raise _told(e, "open", path) from e
    if fd < 0:
        return b""
    try:
        left = os.fstat(fd).st_size - offset
        wanted = min(length, left) if length > 0 else left
        if wanted > most:
            raise ResourceExhausted(f"read {path}: {os.strerror(EFBIG)}: at most {most >> 20} MiB are read")
        return os.pread(fd, max(0, wanted), offset)
    finally:
        os.close(fd)


def directory(root: int, path: str, pattern: str = "", owners: Owners | None = None) -> list[TreeFile]:
    """The entries of a directory, by name; those that match a pattern (NotFound, InvalidArgument).

    ``owners``: the user namespace through whose mapping the tree is seen.
    """
    wanted = compiled(pattern) if pattern else None
    try:
        fd = paths.open_in(root, path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as e:
        raise _told(e, "open", path) from e
    try:
        names = sorted(name for name in os.listdir(fd) if wanted is None or wanted.match(name))
        return [_file(fd, name, owners) for name in names]
    except OSError as e:
        raise _told(e, "readdir", path) from e
    finally:
        os.close(fd)


def status(root: int, path: str, owners: Owners | None = None) -> TreeFile:
    """A file's status, of that to which links lead, under its name (NotFound, InvalidArgument)."""
    try:
        fd = paths.open_in(root, path)
    except OSError as e:
        raise _told(e, "lstat", path) from e
    try:
        place = f"/proc/self/fd/{fd}"
        found = os.fstat(fd)
        name, xattrs = os.path.basename(os.readlink(place)) or "/", _xattrs(place, found, follow=True)
        return TreeFile(name, found, _owner(found, owners), "", xattrs)
    except OSError as e:
        raise _told(e, "stat", path) from e
    finally:
        os.close(fd)


def _owner(found: os.stat_result, owners: Owners | None) -> tuple[int, int]:
    return (found.st_uid, found.st_gid) if owners is None else owners.inside(found.st_uid, found.st_gid)


def _file(dir_fd: int, name: str, owners: Owners | None) -> TreeFile:
    found = os.lstat(name, dir_fd=dir_fd)
    target = os.readlink(name, dir_fd=dir_fd) if stat.S_ISLNK(found.st_mode) else ""
    xattrs = _xattrs(f"/proc/self/fd/{dir_fd}/{name}", found, follow=False)
    return TreeFile(name, found, _owner(found, owners), target, xattrs)


def _xattrs(path: str, found: os.stat_result, *, follow: bool) -> dict[str, bytes]:
    """The extended attributes of a file; those of links, pipes and devices are not told."""
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        return {}
    try:
        names = os.listxattr(path, follow_symlinks=follow)
    except OSError as e:
        if e.errno != EOPNOTSUPP:
            raise
        return {}
    kept = [one for one in names if not one.startswith(overlay_notes.PREFIX)]
    return {one: os.getxattr(path, one, follow_symlinks=follow) for one in kept}


def _told(error: OSError, what: str, path: str) -> NotFound | InvalidArgument:
    """The system's error in the words in which Go tells it."""
    message = f"{what} {path}: {(error.strerror or str(error)).removeprefix('openat2: ').lower()}"
    return NotFound(message) if isinstance(error, FileNotFoundError) else InvalidArgument(message)
