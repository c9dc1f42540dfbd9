"""The framed log: a frame for each read, files rotated by size.

    log, log.1 … log.N      N = max_files - 1, the highest number is the oldest
    frame = time ns (u64) | length (u32) | stream (u8) | flags (u8) | 2 spare | payload | length (u32)

One frame is one read from the container, written with one ``writev``: there is no encoding in the hot path.
The length stands at both ends, so that a reader can go backwards.  A frame that a crash cut short is
dropped at the next open.
"""

from __future__ import annotations

import os
from struct import Struct
from time import time_ns

from ketch.contexts import suppress
from ketch.failpoints import failpoint

STDOUT, STDERR = 1, 2
HEADER = Struct("<QIBB2x")
TRAILER = Struct("<I")
OVERHEAD = HEADER.size + TRAILER.size
MAX_PAYLOAD = 1 << 20
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC


def names(directory: str) -> list[str]:
    """The log's files that exist, oldest first."""
    numbered = []
    for entry in os.listdir(directory):
        base, dot, number = entry.partition(".")
        if base == "log" and (not dot or number.isdecimal()):
            numbered.append((-int(number or 0), entry))
    return [os.path.join(directory, entry) for _, entry in sorted(numbered)]


def frame_end(fd: int) -> int:
    """The file's size when it ends with a whole frame (or is empty), else -1."""
    size = os.fstat(fd).st_size
    if size == 0:
        return 0
    if size < OVERHEAD:
        return -1
    (length,) = TRAILER.unpack(os.pread(fd, TRAILER.size, size - TRAILER.size))
    start = size - OVERHEAD - length
    return size if start >= 0 and HEADER.unpack(os.pread(fd, HEADER.size, start))[1] == length else -1


def whole_size(fd: int) -> int:
    """Bytes of the file up to the end of its last whole frame; looks at every frame when that is not the last byte."""
    size = frame_end(fd)
    if size >= 0:
        return size
    size, offset = os.fstat(fd).st_size, 0
    while offset + OVERHEAD <= size:
        _, length, _, _ = HEADER.unpack(os.pread(fd, HEADER.size, offset))
        if length > MAX_PAYLOAD or offset + OVERHEAD + length > size:
            break
        offset += OVERHEAD + length
    return offset


class FramedLogWriter:
    """Appends frames; ``inode`` and ``offset`` are the position behind the last one."""

    def __init__(self, directory: str, max_size: int, max_files: int) -> None:
        self._directory = directory
        self._path = os.path.join(directory, "log")
        self._max_size = max_size
        self._max_files = max(max_files, 1)
        self._open()

    def _open(self) -> None:
        fd = os.open(self._path, _FLAGS, 0o640)
        try:
            self.offset = whole_size(fd)
            status = os.fstat(fd)
            if status.st_size != self.offset:
                os.ftruncate(fd, self.offset)
        except BaseException:
            os.close(fd)
            raise
        self.fd, self.inode = fd, status.st_ino

    def files(self) -> list[str]:
        """The log's files, oldest first."""
        return names(self._directory)

    def write(self, stream: int, data: bytes) -> tuple[bytes, bytes]:
        """Append one frame; returns its header and trailer, for those who send it on (OSError: disk full)."""
        header = HEADER.pack(time_ns(), len(data), stream, 0)
        trailer = TRAILER.pack(len(data))
        if self._max_size and self.offset and self.offset + len(data) > self._max_size:
            with suppress(OSError):  # then this file becomes longer than it should
                self._rotate()
        wanted = OVERHEAD + len(data)
        written = os.writev(self.fd, (header, data, trailer))
        if written != wanted:
            os.ftruncate(self.fd, self.offset)
            raise OSError(28, "write log: no space left")
        self.offset += wanted
        return header, trailer

    def _rotate(self) -> None:
        for number in range(self._max_files - 1, 0, -1):
            older = f"{self._path}.{number}"
            newer = f"{self._path}.{number - 1}" if number > 1 else self._path
            if os.path.exists(newer):
                os.rename(newer, older)
        if self._max_files == 1:
            os.unlink(self._path)
        failpoint("monitor.log-rotated")
        old = self.fd
        self._open()
        os.close(old)

    def close(self) -> None:
        """Close the file."""
        os.close(self.fd)
