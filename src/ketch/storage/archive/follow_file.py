"""A file that one process follows while another one still writes it, and the memory in which they see how far each is.

    memory shared by both (a memfd)    how many bytes are there, whether that is all, how many have been read
    an eventfd                         wakes the reader when there is more

Reporting never waits for the other side.  Source: memfd_create(2), eventfd(2).
"""

from __future__ import annotations

import io
import mmap
import os
import struct
from typing import Any

_FIELDS = struct.Struct("=QQQ")
_GROWS, _WHOLE, _GIVEN_UP = 0, 1, 2
_CHUNK = 1 << 18


class GivenUp(Exception):
    """The writer has given up: the file remains incomplete."""


class UnpackProgress:
    """The progress of writer and reader, in shared memory; the descriptors are closed by this object."""

    def __init__(self, memory_fd: int, event_fd: int) -> None:
        self.memory_fd, self.event_fd = memory_fd, event_fd
        self._memory = mmap.mmap(memory_fd, _FIELDS.size)

    @classmethod
    def make(cls) -> UnpackProgress:
        """The progress of an empty file."""
        memory_fd = os.memfd_create("progress", os.MFD_CLOEXEC)
        os.ftruncate(memory_fd, _FIELDS.size)
        return cls(memory_fd, os.eventfd(0, os.EFD_CLOEXEC))

    def close(self) -> None:
        """Close the descriptors."""
        self._memory.close()
        os.close(self.memory_fd)
        os.close(self.event_fd)

    def _report(self, size: int, state: int) -> None:
        """Report the size (by the writer)."""
        struct.pack_into("=QQ", self._memory, 0, size, state)
        os.eventfd_write(self.event_fd, 1)

    def grown(self, size: int) -> None:
        """Report a new size (by the writer)."""
        self._report(size, _GROWS)

    def whole(self, size: int) -> None:
        """Report the end of the file (by the writer)."""
        self._report(size, _WHOLE)

    def give_up(self) -> None:
        """Report that the file remains incomplete (by the writer)."""
        self._report(0, _GIVEN_UP)

    def look(self) -> tuple[int, bool]:
        """(bytes written, whether the file is complete), for the reader (GivenUp)."""
        size, state, _ = _FIELDS.unpack_from(self._memory, 0)
        if state == _GIVEN_UP:
            raise GivenUp
        return size, state == _WHOLE

    def wait(self) -> None:
        """Wait for a report (by the reader)."""
        os.eventfd_read(self.event_fd)

    @property
    def consumed(self) -> int:
        """The number of bytes that the reader has read."""
        return int(_FIELDS.unpack_from(self._memory, 0)[2])

    def consume(self, count: int) -> None:
        """Report bytes read (by the reader)."""
        struct.pack_into("=Q", self._memory, 16, count)


class FollowedFile(io.RawIOBase):
    """The reader's side of the file: reads wait for missing bytes; ``fd`` stays the caller's."""

    def __init__(self, fd: int, progress: UnpackProgress) -> None:
        self._fd, self._progress = fd, progress
        self._at = 0
        self._stopped = False

    def stop(self) -> None:
        """Wake a read that waits in another thread, and end it (GivenUp)."""
        self._stopped = True
        os.eventfd_write(self._progress.event_fd, 1)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if size < 0 or size > _CHUNK:
            size = _CHUNK
        while True:
            if self._stopped:
                raise GivenUp
            there, whole = self._progress.look()
            if self._at < there:
                data = os.pread(self._fd, min(size, there - self._at), self._at)
                self._at += len(data)
                self._progress.consume(self._at)
                return data
            if whole:
                return b""
            self._progress.wait()

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
