"""Layers from an overlay's upper directory: a tar in the form of image-spec v1.1.

A character device 0/0 stands for a removed name and becomes an empty file ``.wh.NAME``; a directory with
``trusted.overlay.opaque`` hides what is below it and gets a ``.wh..wh..opq`` (Linux, filesystems/overlayfs.rst).
These markers have neither owner nor time: what is unpacked from the tar has none of theirs, and gives the same tar.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from ketch.errors import InvalidArgument
from ketch.storage import overlay_notes
from ketch.storage.archive.write import TreeWriter

if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.storage.archive.write import Xattrs

WHITEOUT, OPAQUE = ".wh.", ".wh..wh..opq"


def write_layer(upper_fd: int, write: Callable[[bytes | memoryview], object]) -> int:
    """Write an open upper directory, which stays the caller's; returns the bytes of its files.

    ``write`` gets buffers that are used again.  Raises InvalidArgument for names that a layer cannot have.
    """
    writer = LayerWriter(write)
    writer.content(upper_fd, "")
    writer.end()
    return writer.size


def is_whiteout(status: os.stat_result) -> bool:
    """Whether an entry is an overlay whiteout."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def is_opaque(fd: int) -> bool:
    """Whether an open directory is opaque: it hides those of the same name in the layers below."""
    try:
        return os.getxattr(fd, overlay_notes.OPAQUE) == b"y"
    except OSError:  # it has no such attribute
        return False


class LayerWriter(TreeWriter):
    """A writer of upper directories as layers' tars."""

    def wanted(self, name: str, path: str) -> bool:
        """Refuse names that a layer cannot have (InvalidArgument)."""
        if name.startswith(WHITEOUT):
            raise InvalidArgument(
                f"make a layer of `/{path}`: a name that begins with {WHITEOUT} means a removed file in layers"
            )
        return True

    def entered(self, fd: int, path: str, status: os.stat_result, xattrs: Xattrs) -> None:
        """Tell of an opaque directory."""
        del status, xattrs
        if is_opaque(fd):
            self.marker(f"{path}/{OPAQUE}")

    def special(self, dir_fd: int, name: str, path: str, status: os.stat_result) -> None:
        """Add what is neither a file nor a directory; of a whiteout, what it stands for."""
        if is_whiteout(status):
            self.marker(path[: len(path) - len(name)] + WHITEOUT + name)
            self.made(name, status)
        else:
            super().special(dir_fd, name, path, status)
