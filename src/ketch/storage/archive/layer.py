"""Layers from an overlay's upper directory: a tar in the form of image-spec v1.1.

A character device 0/0 stands for a removed name and becomes an empty file ``.wh.NAME``; a directory with
``trusted.overlay.opaque`` hides what is below it and gets a ``.wh..wh..opq`` (Linux, filesystems/overlayfs.rst).
"""

from __future__ import annotations

import os
import stat
import tarfile
from typing import IO

from ketch.errors import InvalidArgument
from ketch.storage.archive.write import TreeWriter, archive_to, header

WHITEOUT, OPAQUE = ".wh.", ".wh..wh..opq"


def write_layer(upper_fd: int, left_out: frozenset[str], target: IO[bytes]) -> int:
    """Write an open upper directory, which stays the caller's; returns the bytes of its files.

    ``left_out`` are paths such as ``/etc/hosts``.  Raises InvalidArgument for names that a layer cannot have.
    """
    with archive_to(target) as archive:
        writer = _LayerWriter(archive, left_out)
        writer.content(upper_fd, "")
        return writer.size


def is_whiteout(status: os.stat_result) -> bool:
    """Whether an entry is an overlay whiteout."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def is_opaque(fd: int) -> bool:
    """Whether an open directory is opaque: it hides those of the same name in the layers below."""
    try:
        return os.getxattr(fd, "trusted.overlay.opaque") == b"y"
    except OSError:  # it has no such attribute
        return False


class _LayerWriter(TreeWriter):
    def __init__(self, archive: tarfile.TarFile, left_out: frozenset[str]) -> None:
        super().__init__(archive)
        self._left_out = left_out

    def wanted(self, name: str, path: str) -> bool:
        if "/" + path in self._left_out:
            return False
        if name.startswith(WHITEOUT):
            raise InvalidArgument(
                f"commit `/{path}`: a name that begins with {WHITEOUT} means a removed file in layers"
            )
        return True

    def entered(self, fd: int, path: str) -> None:
        if is_opaque(fd):
            self._marker(f"{path}/{OPAQUE}", os.fstat(fd))

    def special(self, dir_fd: int, name: str, path: str, status: os.stat_result) -> None:
        if is_whiteout(status):
            self._marker(path[: len(path) - len(name)] + WHITEOUT + name, status)
        else:
            super().special(dir_fd, name, path, status)

    def _marker(self, path: str, like: os.stat_result) -> None:
        marker = header(path, like, {}, tarfile.REGTYPE)
        marker.mode = 0o600
        self.archive.addfile(marker)
