"""Reading of a container's framed log files: boundaries of frames, and the position to begin at.

The newest file may be growing while it is read.  Positions are (number of the file among those opened, offset).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ketch.runtime.logs import log_format

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Literal

    from ketch.runtime.protocol import LogPosition

    Frame = tuple[int, int, bytes]  # time ns, stream, payload
    Position = tuple[int, int]

_CHUNK = 1 << 20
_PATIENCE = 64


class FramedFiles:
    """The files of a log as they are now, opened, oldest first; ``close`` them."""

    def __init__(self, directory: str) -> None:
        self._fds: list[int] = []
        self._ends: list[int] = []
        for _ in range(_PATIENCE):
            if self._open(directory):
                break
            self.close()
        else:
            self._open(directory)  # it rotates as fast as we look: better a gap than nothing
        self._ends = [last_frame_end(fd) for fd in self._fds]

    def _open(self, directory: str) -> bool:
        """Open the files; False when the log was rotated meanwhile, so that one may have been missed."""
        for path in _paths(directory):
            try:
                self._fds.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
            except FileNotFoundError:
                return False
        try:
            return [os.stat(path).st_ino for path in _paths(directory)] == [os.fstat(fd).st_ino for fd in self._fds]
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """Close every file."""
        for fd in self._fds:
            os.close(fd)
        self._fds = []

    @property
    def is_empty(self) -> bool:
        """Whether there are no files."""
        return not self._fds

    def look_again(self) -> None:
        """See what the open files have got meanwhile."""
        self._ends = [last_frame_end(fd) for fd in self._fds]

    @property
    def end(self) -> Position:
        """The position of the end."""
        return (len(self._fds), 0)

    def blocks(self, position: Position = (0, 0)) -> Iterator[tuple[int, int, int]]:
        """The data after ``position``, as (descriptor, start, end)."""
        for number in range(position[0], len(self._fds)):
            yield self._fds[number], position[1] if number == position[0] else 0, self._ends[number]

    def live_end(self) -> LogPosition | Literal["start"]:
        """The end of the log, as a monitor is to continue from it."""
        if not self._fds:
            return "start"
        return {"inode": os.fstat(self._fds[-1]).st_ino, "offset": self._ends[-1]}

    def find(self, position: LogPosition | str) -> Position:
        """The position of a former ``live_end`` in these files; the oldest one when its file is gone."""
        for number, fd in enumerate(self._fds):
            if not isinstance(position, str) and os.fstat(fd).st_ino == position["inode"]:
                return (number, position["offset"])
        return (0, 0)

    def backwards(self) -> Iterator[tuple[Position, Frame]]:
        """Frames with their positions, from the newest to the oldest."""
        for number in range(len(self._fds) - 1, -1, -1):
            fd, end = self._fds[number], self._ends[number]
            while end >= log_format.OVERHEAD:
                start, length = _last_frame(fd, end)
                data = os.pread(fd, log_format.HEADER.size + length, start)
                at, _, stream, _ = log_format.HEADER.unpack_from(data)
                yield (number, start), (at, stream, data[log_format.HEADER.size :])
                end = start

    def tail(self, lines: int, wanted: tuple[bool, bool, bool], until_ns: int) -> tuple[Position, int]:
        """The start of the last ``lines`` lines: (position, newlines to skip from there)."""
        counted = 0
        position = self.end
        newest = [True, True, True]
        for here, (at, stream, payload) in self.backwards():
            if not wanted[stream] or (until_ns and at > until_ns):
                continue
            # A stream that stops without a newline ends in a line all the same.
            if newest[stream] and not payload.endswith(b"\n"):
                counted += 1
            newest[stream] = False
            counted += payload.count(b"\n")
            position = here
            if counted > lines:
                return position, counted - lines
        return (0, 0) if position != self.end else position, 0

    def since(self, since_ns: int) -> Position:
        """A position at or before the first frame that is not older: files that ended before are left out."""
        for number in range(len(self._fds) - 1, -1, -1):
            fd, end = self._fds[number], self._ends[number]
            if end < log_format.OVERHEAD:
                continue
            start, _ = _last_frame(fd, end)
            if log_format.HEADER.unpack(os.pread(fd, log_format.HEADER.size, start))[0] < since_ns:
                return (number, start)  # this frame is read, too: a line may go on behind it
        return (0, 0)

    def after(self, at_ns: int) -> Position:
        """The position after the newest frame with exactly this time; the oldest position when it is gone."""
        for number in range(len(self._fds) - 1, -1, -1):
            fd, end = self._fds[number], self._ends[number]
            while end >= log_format.OVERHEAD:
                start, _ = _last_frame(fd, end)
                if log_format.HEADER.unpack(os.pread(fd, log_format.HEADER.size, start))[0] == at_ns:
                    return (number, end)
                end = start
        return (0, 0)


def _last_frame(fd: int, end: int) -> tuple[int, int]:
    """(start, bytes of payload) of the frame that ends at ``end``."""
    (length,) = log_format.TRAILER.unpack(os.pread(fd, log_format.TRAILER.size, end - log_format.TRAILER.size))
    return end - log_format.OVERHEAD - length, length


def _paths(directory: str) -> list[str]:
    try:
        return log_format.names(directory)
    except FileNotFoundError:
        return []


def last_frame_end(fd: int) -> int:
    """The offset of the end of the last whole frame.

    A file grows page by page, so that a frame which is just being written may be seen in part; that takes
    microseconds, while finding the end from the front may take a second.
    """
    for _ in range(_PATIENCE):
        size = log_format.frame_end(fd)
        if size >= 0:
            return size
    return log_format.whole_size(fd)


def read_block(fd: int, offset: int, end: int) -> bytes:
    """Up to 1 MiB from ``offset``, more when the frame that begins there is larger."""
    data = os.pread(fd, min(_CHUNK, end - offset), offset)
    if len(data) >= log_format.HEADER.size:
        need = log_format.HEADER.unpack_from(data)[1] + log_format.OVERHEAD
        if need > len(data):
            data = os.pread(fd, min(need, end - offset), offset)
    return data
