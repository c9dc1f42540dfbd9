"""A slow client's position in the log's files, from which it is served without buffers in memory.

The position moves through the files, oldest to newest, while the log is written and rotated.  `Frames` reads the
framed log (`runtime.logs.log_format`), `Lines` what the ``json-file`` driver wrote (`runtime.logs.json_log`).
"""

from __future__ import annotations

import os

from ketch.notation import documents, stream_frames
from ketch.runtime.logs import log_format
from ketch.runtime.logs.log_lines import Splitter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    from ketch.runtime.logs.json_log import JsonLogWriter
    from ketch.runtime.protocol import LogPosition

    Wanted = tuple[bool, bool, bool]

    class Log(Protocol):
        """A log that can be read while it is written; ``inode`` and ``offset`` are the position of its end."""

        inode: int
        offset: int

        def files(self) -> list[str]:
            """The log's files, oldest first."""
            ...


MUX, RAW, FRAMES, BELL = 0, 1, 2, 3
_CHUNK = 1 << 16


class Backlog:
    """A position in a log's files; ``more`` until it is None, then ``close``."""

    def __init__(self, log: Log, fd: int, offset: int) -> None:
        self.log = log
        self._fd = fd
        self._offset = offset

    def more(self, output_format: int, wanted: Wanted) -> bytearray | None:
        """The next piece in the client's format (possibly empty); None at the log's end."""
        while True:
            out = self._read(output_format, wanted)
            if out is not None:
                return out
            following = self._following()
            if following < 0:
                return None
            os.close(self._fd)
            self._fd, self._offset = following, 0

    def _read(self, output_format: int, wanted: Wanted) -> bytearray | None:
        raise NotImplementedError

    def _available(self) -> int:
        """The number of bytes after the position that are of this run: a later one appends to the same file."""
        status = os.fstat(self._fd)
        return (self.log.offset if status.st_ino == self.log.inode else status.st_size) - self._offset

    def _following(self) -> int:
        """The file after this one, -1 when this is the newest."""
        inode = os.fstat(self._fd).st_ino
        if inode == self.log.inode:
            return -1
        files = self.log.files()
        inodes = [os.stat(path).st_ino for path in files]
        following = inodes.index(inode) + 1 if inode in inodes else 0
        return os.open(files[min(following, len(files) - 1)], os.O_RDONLY | os.O_CLOEXEC)

    def rest(self, _output_format: int, _wanted: Wanted) -> bytearray:
        """The bytes that follow the log's end, after which the client is live."""
        return bytearray()

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


class Frames(Backlog):
    """The framed log; ``by_line``: each line is a message of its own to clients with headers, as from `logs`.

    A client that is merely slow gets what it would have got: the output as it was read.
    """

    def __init__(self, log: Log, fd: int, offset: int, *, by_line: bool = False) -> None:
        super().__init__(log, fd, offset)
        self._splitters = (Splitter(), Splitter(), Splitter()) if by_line else ()

    def _read(self, output_format: int, wanted: Wanted) -> bytearray | None:
        available = self._available()
        chunk = os.pread(self._fd, max(min(_CHUNK, available), 0), self._offset)
        if len(chunk) < log_format.HEADER.size:
            return None
        need = min(log_format.HEADER.unpack_from(chunk)[1] + log_format.OVERHEAD, available)
        if need > len(chunk):
            chunk = os.pread(self._fd, need, self._offset)
        out, position = bytearray(), 0
        while position + log_format.OVERHEAD <= len(chunk):
            _, length, stream, _ = log_format.HEADER.unpack_from(chunk, position)
            start, end = position + log_format.HEADER.size, position + log_format.OVERHEAD + length
            if end > len(chunk):
                break
            if output_format == FRAMES:
                out += chunk[position:end]
            elif stream < 3 and self._splitters and output_format == MUX:
                if wanted[stream]:
                    self._add_lines(out, stream, chunk[start : start + length])
            elif stream < 3:
                add(out, stream, chunk[start : start + length], output_format, wanted)
            position = end
        self._offset += position
        return out if position else None

    def _add_lines(self, out: bytearray, stream: int, payload: bytes) -> None:
        for block, partial in self._splitters[stream].take(payload):
            out += stream_frames.frame(stream, block) if partial else stream_frames.line_frames(stream, block)

    def rest(self, output_format: int, wanted: Wanted) -> bytearray:
        """The unfinished lines."""
        out = bytearray()
        for stream, splitter in enumerate(self._splitters):
            add(out, stream, splitter.rest(), output_format, wanted)
        return out


class Lines(Backlog):
    """The ``json-file`` log; at its end follow unfinished lines, which are not in the file yet."""

    log: JsonLogWriter

    def _read(self, output_format: int, wanted: Wanted) -> bytearray | None:
        available = max(self._available(), 0)
        size = _CHUNK
        while True:
            chunk = os.pread(self._fd, min(size, available), self._offset)
            end = chunk.rfind(b"\n") + 1
            if end or size >= available:
                break
            size *= 4
        if not end:
            return None
        self._offset += end
        out = bytearray()
        for line in chunk[:end].splitlines():
            add(out, *_message(line), output_format, wanted)
        return out

    def rest(self, output_format: int, wanted: Wanted) -> bytearray:
        """The unfinished lines."""
        out = bytearray()
        for stream in (1, 2):
            add(out, stream, self.log.held(stream), output_format, wanted)
        return out


def add(out: bytearray, stream: int, payload: bytes, output_format: int, wanted: Wanted) -> None:
    """Append a payload in a client's format."""
    if payload and wanted[stream]:
        if output_format == MUX:
            out += stream_frames.HEADER.pack(stream, len(payload))
        out += payload


def _message(line: bytes) -> tuple[int, bytes]:
    try:
        entry: Any = documents.loads(line)
        return (2 if entry["stream"] == "stderr" else 1), entry["log"].encode()
    except (ValueError, KeyError, TypeError, AttributeError):  # somebody else wrote it
        return 0, b""


def replay_frames(log: Log, position: LogPosition | str) -> Frames:
    """The framed log from ``"start"`` or {"inode", "offset"}; from the oldest file if that is gone (OSError)."""
    return Frames(log, *_begin(log, position), by_line=True)


def replay_lines(log: JsonLogWriter, position: LogPosition | str) -> Lines:
    """The ``json-file`` log, likewise."""
    return Lines(log, *_begin(log, position))


def _begin(log: Log, position: LogPosition | str) -> tuple[int, int]:
    files = log.files()
    path, offset = files[0], 0
    if not isinstance(position, str):
        for candidate in files:
            if os.stat(candidate).st_ino == position["inode"]:
                path, offset = candidate, int(position["offset"])
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC), offset
