"""Metadata of files: owner, mode, times, extended attributes."""

from __future__ import annotations

import os
import stat
from errno import EOPNOTSUPP
from typing import NamedTuple

from ketch.storage import overlay_notes, ownership


class FileMetadata(NamedTuple):
    """Owner, permissions, times and extended attributes (overlay's own are none) of an entry."""

    uid: int
    gid: int
    mode: int
    atime_ns: int
    mtime_ns: int
    xattrs: dict[str, bytes]

    def set_on(self, fd: int) -> None:
        """Give them to an open file or directory; the order matters (chown takes capabilities and set-id bits)."""
        ownership.give_with_mode(fd, self.uid, self.gid, self.mode)
        for key in open_xattrs(fd).keys() - self.xattrs.keys():
            os.removexattr(fd, key)
        for key, value in self.xattrs.items():
            _set_xattr(fd, key, value)
        os.utime(fd, ns=(self.atime_ns, self.mtime_ns))

    def set_by_name(self, dir_fd: int, name: str, kind: int) -> None:
        """Give them to an entry that cannot be opened (to open a device or a FIFO does something)."""
        ownership.give(name, self.uid, self.gid, dir_fd)
        if kind != stat.S_IFLNK:
            os.chmod(name, self.mode, dir_fd=dir_fd)
        for key, value in self.xattrs.items():
            _set_xattr(f"/proc/self/fd/{dir_fd}/{name}", key, value)
        os.utime(name, ns=(self.atime_ns, self.mtime_ns), dir_fd=dir_fd, follow_symlinks=False)


def metadata_of(status: os.stat_result, attributes: dict[str, bytes]) -> FileMetadata:
    """The metadata that lstat and the attributes tell."""
    mode = stat.S_IMODE(status.st_mode)
    return FileMetadata(status.st_uid, status.st_gid, mode, status.st_atime_ns, status.st_mtime_ns, attributes)


def of_directory(fd: int) -> FileMetadata:
    """The metadata of an open file or directory."""
    return metadata_of(os.fstat(fd), open_xattrs(fd))


def open_xattrs(fd: int) -> dict[str, bytes]:
    """The extended attributes of an open file or directory."""
    try:
        keys = os.listxattr(fd)
    except OSError as e:
        if e.errno != EOPNOTSUPP:
            raise
        return {}
    return {key: os.getxattr(fd, key) for key in keys if not key.startswith(overlay_notes.PREFIX)}


def _set_xattr(target: int | str, key: str, value: bytes) -> None:
    """Set an attribute, unless the file system has no such attributes."""
    try:
        if isinstance(target, int):
            os.setxattr(target, key, value)
        else:
            os.setxattr(target, key, value, follow_symlinks=False)
    except OSError as e:
        if e.errno != EOPNOTSUPP:
            raise
