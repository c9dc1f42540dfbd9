"""Reading a container's log: from frames to the bytes that ``GET /containers/{id}/logs`` sends.

    log files ──blocks──► Formatter ──► wire bytes
    monitor ──frames (from where the files' reading stopped)──► the same Formatter
    log files again: what the monitor could not deliver any more when it ended

Frames hold what was read from the container in one go.  Where nothing has to be known about lines the payload of
a frame is passed on whole; with ``timestamps``, ``details``, ``since`` or ``tail`` lines count, and
each line has the time of the frame in which it begins.
"""

from __future__ import annotations

import asyncio
import socket
import time
from typing import TYPE_CHECKING

from ketch.engine.logs.framed_files import FramedFiles, read_block
from ketch.engine.monitors.monitor_client import StreamOptions
from ketch.notation import stream_frames, times
from ketch.runtime.logs import log_format

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from typing import Literal

    from ketch.engine.aio.streams import LogOptions
    from ketch.engine.logs.follow import Follower
    from ketch.engine.logs.framed_files import Position
    from ketch.runtime.protocol import LogPosition

_RECEIVE = 1 << 18


class Formatter:
    """Converter of frames to wire bytes; keeps the state of a line that continues in the next frame.

    ``details`` stand before each line as they are; ``raw``: no frames on the wire, as for a ``tty``.
    ``last_at`` is the time of the last frame seen, ``done`` becomes True behind ``until_ns``.
    """

    def __init__(self, options: LogOptions, *, details: str = "", tty: bool = False, raw: bool = False) -> None:
        self.wanted = (False, options.stdout or tty, options.stderr or tty)
        self._since, self._until = options.since_ns, options.until_ns
        self._timestamps = options.timestamps
        self._details = details.encode()
        self.raw = tty or raw
        self._skip = 0
        self._open = [False, False, False]  # the stream's last frame ended inside a line …
        self._dropping = [False, False, False]  # … which is left out
        self._clock = times.Clock()
        self.last_at = 0
        self.done = False

    @property
    def plain(self) -> bool:
        """Whether blocks can be passed on without cutting them into lines."""
        return not (self._timestamps or self._details or self._since or self._until or self._skip)

    def skip_lines(self, count: int) -> None:
        """Skip this many lines of the wanted streams."""
        self._skip = count

    def block(self, data: bytes) -> tuple[bytes, int]:
        """Take as many whole frames as ``data`` begins with; returns wire bytes and how many of ``data`` were used."""
        plain = self.plain
        unpack, header, trailer = log_format.HEADER.unpack_from, log_format.HEADER.size, log_format.TRAILER.size
        wanted, raw, pack = self.wanted, self.raw, stream_frames.HEADER.pack
        out: list[bytes] = []
        at, position, last = self.last_at, 0, len(data) - log_format.OVERHEAD
        while position <= last:
            at, length, stream, _ = unpack(data, position)
            if position + length > last:
                break
            start = position + header
            end = start + length
            position = end + trailer
            if stream > log_format.STDERR or not wanted[stream]:
                continue
            if plain:
                if not raw:
                    out.append(pack(stream, length))
                out.append(data[start:end])
            elif text := self._lines(at, stream, data[start:end]):
                out += (text,) if raw else (pack(stream, len(text)), text)
            elif self.done:
                break
        self.last_at = at
        return b"".join(out), position

    def _lines(self, at: int, stream: int, payload: bytes) -> bytes:
        """The bytes of one frame when lines are filtered or stamped."""
        if self._until and at > self._until:
            self.done = True
            return b""
        if at < self._since:
            self._dropping[stream] = not payload.endswith(b"\n")
            return b""
        if self._dropping[stream]:
            _, newline, payload = payload.partition(b"\n")
            self._dropping[stream] = not newline
        if self._skip:
            parts = payload.split(b"\n", self._skip)
            self._skip -= len(parts) - 1
            # With lines still to be skipped, what is behind the last newline belongs to one of them.
            payload = b"" if self._skip else parts[-1]
        if not payload or not (self._timestamps or self._details):
            return payload
        return self._prefixed(at, stream, payload)

    def _prefixed(self, at: int, stream: int, payload: bytes) -> bytes:
        prefix = self._stamp(at) + self._details if self._timestamps else self._details
        begun = b"" if self._open[stream] else prefix
        self._open[stream] = not payload.endswith(b"\n")
        if self._open[stream]:
            return begun + payload.replace(b"\n", b"\n" + prefix)
        return begun + payload[:-1].replace(b"\n", b"\n" + prefix) + b"\n"

    def _stamp(self, ns: int) -> bytes:
        """``2024-01-02T03:04:05.123456789Z `` with nine digits always."""
        return f"{self._clock.fixed(ns)} ".encode()


async def read_logs(
    log_dir: str, follower: Follower | None, formatter: Formatter, options: LogOptions
) -> AsyncIterator[bytes]:
    """Yield wire bytes: the existing log, then (``follow``, while the container runs) new output."""
    files = FramedFiles(log_dir)
    try:
        position = files.since(options.since_ns) if options.since_ns else (0, 0)
        if options.tail is not None:
            start, skip = files.end, 0
            if options.tail > 0:
                start, skip = files.tail(options.tail, formatter.wanted, options.until_ns)
            position = max(position, start)
            formatter.skip_lines(skip if position == start else 0)
        async for chunk in _stored(files, position, formatter):
            yield chunk
        end = files.live_end()
    finally:
        files.close()
    if not options.follow or follower is None or formatter.done:
        return
    formatter.last_at = 0
    async for chunk in _live(follower, end, formatter, options.until_ns):
        yield chunk
    seen = formatter.last_at
    files = FramedFiles(log_dir)
    try:
        position = files.after(seen) if seen else files.find(end)
        async for chunk in _stored(files, position, formatter):
            yield chunk
    finally:
        files.close()


async def _stored(files: FramedFiles, position: Position, formatter: Formatter) -> AsyncIterator[bytes]:
    for fd, start, end in files.blocks(position):
        offset = start
        while offset < end and not formatter.done:
            chunk, used = formatter.block(read_block(fd, offset, end))
            if not used:
                break
            offset += used
            if chunk:
                yield chunk
            await asyncio.sleep(0)


async def _live(
    follower: Follower, start: LogPosition | Literal["start"], formatter: Formatter, until_ns: int
) -> AsyncIterator[bytes]:
    """The bytes that the monitor sends until it closes the connection or ``until_ns`` is reached."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours:
        with theirs:
            client = StreamOptions(stdout=True, stderr=True, output="frames", start=start)
            if not await follower.attach(theirs.fileno(), client):
                return
        ours.setblocking(False)
        loop = asyncio.get_running_loop()
        buffer = b""
        while not formatter.done:
            left = max((until_ns - time.time_ns()) / 1e9, 0) if until_ns else None
            try:
                data = await asyncio.wait_for(loop.sock_recv(ours, _RECEIVE), left)
            except TimeoutError:
                return
            if not data:
                return
            buffer = buffer + data if buffer else data
            chunk, used = formatter.block(buffer)
            buffer = buffer[used:]
            if chunk:
                yield chunk
