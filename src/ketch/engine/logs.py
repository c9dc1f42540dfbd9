"""Reading a container's log: from frames to the bytes that ``GET /containers/{id}/logs`` sends.

Frames hold what was read from the container in one go.  Where nothing has to be known about lines the
payload of a frame is passed on whole; with ``timestamps`` or ``tail`` it is cut into lines, and
each line has the time of the frame in which it begins.  Following is done by the container's monitor:
it sends frames, from where this reader stopped, into a socketpair.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import time
from typing import TYPE_CHECKING, Any

from ketch.errors import Unavailable
from ketch.runtime import logformat

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from ketch.engine.shim import Monitor

Frame = tuple[int, int, bytes]  # time ns, stream, payload
_CHUNK = 1 << 20
_BATCH = 1 << 18


class Formatter:
    """Frames in, wire bytes out; keeps what it must know about a line that goes on in the next frame."""

    def __init__(
        self, *, stdout: bool, stderr: bool, since_ns: int, until_ns: int, timestamps: bool, details: str, tty: bool
    ) -> None:
        self._wanted = (False, stdout or tty, stderr or tty)
        self._since, self._until = since_ns, until_ns
        self._timestamps = timestamps
        self._details = details.encode()
        self._tty = tty
        self._open_line = [False, False, False]
        self.done = False

    def feed(self, frame: Frame) -> bytes:
        """The bytes for one frame; b"" when it is outside the chosen times or streams."""
        at, stream, payload = frame
        if self._until and at > self._until:
            self.done = True
            return b""
        if not self._wanted[stream] or at < self._since:
            return b""
        if self._timestamps or self._details:
            return self._lines(at, stream, payload)
        return payload if self._tty else struct.pack(">B3xI", stream, len(payload)) + payload

    def _lines(self, at: int, stream: int, payload: bytes) -> bytes:
        prefix = (rfc3339(at) + b" " if self._timestamps else b"") + (self._details + b" " if self._details else b"")
        result = []
        for line in payload.splitlines(keepends=True) if b"\r" not in payload else _lines_of(payload):
            text = line if self._open_line[stream] else prefix + line
            self._open_line[stream] = not line.endswith(b"\n")
            result.append(text if self._tty else struct.pack(">B3xI", stream, len(text)) + text)
        return b"".join(result)


def _lines_of(payload: bytes) -> list[bytes]:
    """Cut after each newline only (splitlines would cut at a carriage return as well)."""
    parts = payload.split(b"\n")
    lines = [part + b"\n" for part in parts[:-1]]
    return [*lines, parts[-1]] if parts[-1] else lines


def rfc3339(ns: int) -> bytes:
    """``2024-01-02T03:04:05.123456789Z``, always with nine digits, as log lines have it."""
    seconds, rest = divmod(ns, 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest:09}Z".encode()


def frames_of(fd: int, start: int, end: int) -> Iterator[Frame]:
    """The frames of a file between two offsets."""
    offset = start
    while offset + logformat.OVERHEAD <= end:
        chunk = os.pread(fd, min(_CHUNK, end - offset), offset)
        if len(chunk) < logformat.HEADER.size:
            return
        need = logformat.HEADER.unpack_from(chunk)[1] + logformat.OVERHEAD
        if need > len(chunk):
            chunk = os.pread(fd, need, offset)
            if len(chunk) < need:
                return
        position = 0
        while position + logformat.OVERHEAD <= len(chunk):
            at, length, stream, _ = logformat.HEADER.unpack_from(chunk, position)
            begin = position + logformat.HEADER.size
            following = begin + length + logformat.TRAILER.size
            if following > len(chunk):
                break
            yield at, stream, chunk[begin : begin + length]
            position = following
        offset += position


class LogFiles:
    """The files of a log as they are now, opened, oldest first; ``close`` them."""

    def __init__(self, directory: str) -> None:
        self._fds: list[int] = []
        self._ends: list[int] = []
        if os.path.isdir(directory):
            for path in logformat.names(directory):
                try:
                    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                except FileNotFoundError:  # rotated away meanwhile
                    continue
                self._fds.append(fd)
                self._ends.append(logformat.whole_size(fd))

    def close(self) -> None:
        """Close every file."""
        for fd in self._fds:
            os.close(fd)
        self._fds = []

    def frames(self, position: tuple[int, int] = (0, 0)) -> Iterator[Frame]:
        """All frames from (file number, offset) on."""
        for number in range(position[0], len(self._fds)):
            start = position[1] if number == position[0] else 0
            yield from frames_of(self._fds[number], start, self._ends[number])

    def end(self) -> dict[str, int] | str:
        """Where the log ends, for a monitor that is to go on from there."""
        if not self._fds:
            return "start"
        return {"inode": os.fstat(self._fds[-1]).st_ino, "offset": self._ends[-1]}

    def backwards(self) -> Iterator[tuple[int, int, Frame]]:
        """(file number, offset, frame) from the newest to the oldest."""
        for number in range(len(self._fds) - 1, -1, -1):
            fd, end = self._fds[number], self._ends[number]
            while end >= logformat.OVERHEAD:
                (length,) = logformat.TRAILER.unpack(os.pread(fd, logformat.TRAILER.size, end - logformat.TRAILER.size))
                start = end - logformat.OVERHEAD - length
                data = os.pread(fd, logformat.HEADER.size + length, start)
                at, _, stream, _ = logformat.HEADER.unpack_from(data)
                yield number, start, (at, stream, data[logformat.HEADER.size :])
                end = start

    def tail(self, lines: int, wanted: tuple[bool, bool, bool], until_ns: int) -> tuple[tuple[int, int], int]:
        """Where the last ``lines`` lines begin: (position, newlines of that frame to leave out)."""
        counted = 0
        position = (len(self._fds), 0)
        unfinished = [True, True, True]  # nothing has been seen after the newest frame of each stream
        for number, start, (at, stream, payload) in self.backwards():
            if not wanted[stream] or (until_ns and at > until_ns):
                continue
            ends = payload.count(b"\n")
            # The last piece is a line of its own only when the stream stops there without a newline.
            if unfinished[stream] and not payload.endswith(b"\n"):
                counted += 1
            unfinished[stream] = False
            counted += ends
            position = (number, start)
            if counted > lines:
                return position, counted - lines
        return position, 0


async def read_logs(
    log_dir: str,
    monitor: Monitor | None,
    *,
    stdout: bool,
    stderr: bool,
    since_ns: int,
    until_ns: int,
    tail: int | None,
    timestamps: bool,
    details: str,
    follow: bool,
    tty: bool,
) -> AsyncIterator[bytes]:
    """Yield wire bytes: what is there, then (``follow``, while the container runs) what comes."""
    formatter = Formatter(
        stdout=stdout, stderr=stderr, since_ns=since_ns, until_ns=until_ns, timestamps=timestamps, details=details, tty=tty
    )  # fmt: skip
    files = LogFiles(log_dir)
    try:
        end = files.end()
        skip = _Skip(0)
        position = (0, 0)
        if tail is not None:
            wanted = (False, stdout or tty, stderr or tty)
            position, left_out = files.tail(tail, wanted, until_ns) if tail else ((len(files._fds), 0), 0)
            skip = _Skip(left_out, wanted)
        async for chunk in _batched(skip.apply(files.frames(position)), formatter):
            yield chunk
    finally:
        files.close()
    if follow and monitor is not None and not formatter.done:
        async for chunk in _follow(monitor, end, formatter, until_ns):
            yield chunk


class _Skip:
    """Leaves out the first ``count`` lines (of the wanted streams): what ``tail`` found to be too much."""

    def __init__(self, count: int, wanted: tuple[bool, bool, bool] = (False, True, True)) -> None:
        self._count = count
        self._wanted = wanted

    def apply(self, frames: Iterator[Frame]) -> Iterator[Frame]:
        for at, stream, payload in frames:
            if self._count and self._wanted[stream]:
                parts = payload.split(b"\n", self._count)
                cut = len(parts) - 1
                if cut < self._count:
                    self._count -= cut
                    continue
                self._count = 0
                if parts[-1]:
                    yield at, stream, parts[-1]
            else:
                yield at, stream, payload


async def _batched(frames: Iterator[Frame], formatter: Formatter) -> AsyncIterator[bytes]:
    batch: list[bytes] = []
    size = 0
    for frame in frames:
        data = formatter.feed(frame)
        if data:
            batch.append(data)
            size += len(data)
        if size >= _BATCH:
            yield b"".join(batch)
            batch, size = [], 0
            await asyncio.sleep(0)
        if formatter.done:
            break
    if batch:
        yield b"".join(batch)


async def _follow(monitor: Monitor, position: Any, formatter: Formatter, until_ns: int) -> AsyncIterator[bytes]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours:
        with theirs:
            try:
                await monitor.attach(theirs.fileno(), stdout=True, stderr=True, frames=True, start=position)
            except Unavailable:
                return  # it ended just now
        ours.setblocking(False)
        loop = asyncio.get_running_loop()
        buffer = b""
        while not formatter.done:
            left = max((until_ns - time.time_ns()) / 1e9, 0) if until_ns else None
            try:
                data = await asyncio.wait_for(loop.sock_recv(ours, _BATCH), left)
            except TimeoutError:
                return
            if not data:
                return
            frames, buffer = _parse(buffer + data)
            chunk = b"".join(map(formatter.feed, frames))
            if chunk:
                yield chunk


def _parse(data: bytes) -> tuple[list[Frame], bytes]:
    """Whole frames and the rest."""
    frames = []
    position = 0
    while position + logformat.OVERHEAD <= len(data):
        at, length, stream, _ = logformat.HEADER.unpack_from(data, position)
        following = position + logformat.OVERHEAD + length
        if following > len(data):
            break
        begin = position + logformat.HEADER.size
        frames.append((at, stream, data[begin : begin + length]))
        position = following
    return frames, data[position:]
