"""Copies of files' bytes: as reflinks where the file system can share blocks, else by the kernel; holes stay holes."""

from __future__ import annotations

import errno
import fcntl
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_FICLONE = 0x40049409
_REFUSED = (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EPERM)
_PIECE = 16 << 20  # of one call, which nothing but the process's death interrupts
_SMALL = 64 << 10  # not worth the questions whether blocks can be shared


class ByteCopier:
    """A copier of files' bytes from one file system to one other; it remembers what they refuse.

    ``check`` is called now and then; what it raises ends the copy.
    """

    def __init__(self, check: Callable[[], None] = lambda: None) -> None:
        self._check = check
        self._clones = self._ranges = True  # as long as nothing has refused

    def copy(self, from_fd: int, to_fd: int, status: os.stat_result) -> None:
        """Copy a file's bytes to an empty one."""
        size = status.st_size
        if not size:
            return
        if size <= _SMALL and status.st_blocks * 512 >= size:
            self._range(from_fd, to_fd, 0, size)
            return
        if self._clones:
            try:
                fcntl.ioctl(to_fd, _FICLONE, from_fd)
                return
            except OSError as e:
                if e.errno not in _REFUSED:
                    raise
                self._clones = e.errno == errno.EINVAL  # of this file alone
        os.ftruncate(to_fd, size)
        offset = 0
        while offset < size:
            try:
                offset = os.lseek(from_fd, offset, os.SEEK_DATA)
            except OSError as e:
                if e.errno != errno.ENXIO:
                    raise
                return
            end = min(os.lseek(from_fd, offset, os.SEEK_HOLE), size)
            if not self._range(from_fd, to_fd, offset, end):
                return
            offset = end

    def _range(self, from_fd: int, to_fd: int, offset: int, end: int) -> bool:
        """Copy a file's bytes between two offsets; False when it has become shorter."""
        os.lseek(to_fd, offset, os.SEEK_SET)
        while offset < end:
            self._check()
            copied = self._some(from_fd, to_fd, offset, min(end - offset, _PIECE))
            if not copied:
                return False
            offset += copied
        return True

    def _some(self, from_fd: int, to_fd: int, offset: int, length: int) -> int:
        """Copy some bytes to where the target's offset is, which goes on."""
        if self._ranges:
            try:
                return os.copy_file_range(from_fd, to_fd, length, offset)
            except OSError as e:
                if e.errno not in _REFUSED:
                    raise
                self._ranges = False
        return os.sendfile(to_fd, from_fd, offset, length)
