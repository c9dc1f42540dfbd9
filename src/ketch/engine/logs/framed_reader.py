"""Reading a container's log: from frames to the bytes that ``GET /containers/{id}/logs`` sends.

    log files ──blocks──► Formatter ──► wire bytes
    monitor ──frames (from where the files' reading stopped)──► the same Formatter
    log files again: what the monitor could not deliver any more when it ended

Frames hold what was read from the container in one go.  On the wire each line is a message of its own, and one of more
than 16 KiB is several, as with Docker (`runtime.logs.log_lines`); a terminal's output is passed on as it was read.
Each line has the time of the frame in which it begins.  Half a line waits for its other half: a moment when the log is
followed, else to the log's end.
"""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING

from ketch.engine.logs.framed_files import FramedFiles, read_block
from ketch.engine.monitors.monitor_client import StreamOptions
from ketch.notation import stream_frames, times
from ketch.runtime.logs import log_format
from ketch.runtime.logs.log_lines import Splitter

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator
    from typing import Literal

    from ketch.engine.aio.streams import LogOptions
    from ketch.engine.logs.follow import Follower
    from ketch.engine.logs.framed_files import Position
    from ketch.runtime.protocol import LogPosition

_RECEIVE = 1 << 18
_HALF_LINE_S = 0.1  # programs write a line in several goes; a prompt shall be seen all the same


class Formatter:
    """Converter of frames to wire bytes; keeps the state of a line that continues in the next frame.

    ``details`` stand before each line as they are; ``raw``: no frames on the wire, as for a ``tty``.
    ``last_at`` is the time of the last frame seen, ``done`` becomes True behind ``until_ns``.
    """

    def __init__(self, options: LogOptions, *, details: str = "", tty: bool = False, raw: bool = False) -> None:
        self.wanted = (False, options.stdout, options.stderr)
        self._since, self._until = options.since_ns, options.until_ns
        self._timestamps = options.timestamps
        self._details = details.encode()
        self.raw = tty or raw
        self._skip = 0
        self._splitters = (Splitter(), Splitter(), Splitter())
        self._begun: list[bytes | None] = [None, None, None]  # what stands before the line that is not complete yet
        self._open = [False, False, False]  # raw: the stream's last frame ended inside a line
        self._dropping = [False, False, False]  # the stream's last frame ended inside a line that is left out
        self._clock = times.Clock()
        self.last_at = 0
        self.done = False

    @property
    def plain(self) -> bool:
        """Whether every line of the wanted streams is sent as it is."""
        return not (self._timestamps or self._details or self._since or self._until or self._skip)

    @property
    def holds(self) -> bool:
        """Whether half a line is held back."""
        return any(splitter.held for splitter in self._splitters)

    def skip_lines(self, count: int) -> None:
        """Skip this many lines of the wanted streams."""
        self._skip = count

    def block(self, data: bytes) -> tuple[bytes, int]:
        """Take as many whole frames as ``data`` begins with; returns wire bytes and how many of ``data`` were used."""
        plain = self.plain
        unpack, header, trailer = log_format.HEADER.unpack_from, log_format.HEADER.size, log_format.TRAILER.size
        wanted, wire = self.wanted, self._raw if self.raw else self._messages
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
            text = data[start:end] if plain else self._chosen(at, stream, data[start:end])
            if text:
                out.append(wire(at, stream, text))
            elif self.done:
                break
        self.last_at = at
        return b"".join(out), position

    def rest(self) -> bytes:
        """The wire bytes of half a line that was held back: its other half has not come."""
        out = b""
        for stream, splitter in enumerate(self._splitters):
            if held := splitter.rest():
                out += stream_frames.frame(stream, (self._begun[stream] or b"") + held)
                self._begun[stream] = b""
        return out

    def _chosen(self, at: int, stream: int, payload: bytes) -> bytes:
        """The rest of one frame when lines are filtered."""
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
        return payload

    def _messages(self, at: int, stream: int, text: bytes) -> bytes:
        """Each line, or 16 KiB of a longer one, with its header; half a line at the end is held back."""
        prefix, splitter, out = self._prefix(at), self._splitters[stream], []
        for block, partial in splitter.take(text):
            begun = self._begun[stream]
            if partial:
                self._begun[stream] = before = prefix if begun is None else begun
                out.append(stream_frames.frame(stream, before + block))
                continue
            if begun is not None:
                self._begun[stream] = None
                end, newline, block = block.partition(b"\n")
                out.append(stream_frames.frame(stream, begun + end + newline))
            if block:
                out.append(stream_frames.line_frames(stream, _prefixed(block, prefix)))
        if splitter.held and self._begun[stream] is None:
            self._begun[stream] = prefix
        return b"".join(out)

    def _raw(self, at: int, stream: int, text: bytes) -> bytes:
        prefix = self._prefix(at)
        if not prefix:
            return text
        begun = b"" if self._open[stream] else prefix
        self._open[stream] = not text.endswith(b"\n")
        if self._open[stream]:
            return begun + text.replace(b"\n", b"\n" + prefix)
        return begun + _prefixed(text, prefix)[len(prefix) :]

    def _prefix(self, at: int) -> bytes:
        """The text before a line: ``2024-01-02T03:04:05.123456789Z `` with nine digits always, and the details."""
        return f"{self._clock.fixed(at)} ".encode() + self._details if self._timestamps else self._details


def _prefixed(lines: bytes, prefix: bytes) -> bytes:
    """Whole lines with a prefix before each."""
    return prefix + lines[:-1].replace(b"\n", b"\n" + prefix) + b"\n" if prefix else lines


async def with_rest(chunks: AsyncGenerator[bytes, None], formatter: Formatter) -> AsyncGenerator[bytes, None]:
    """The chunks of a reader, and behind them the half line that its formatter holds back."""
    async with aclosing(chunks):
        async for chunk in chunks:
            yield chunk
    if rest := formatter.rest():
        yield rest


async def read_logs(
    log_dir: str, follower: Follower | None, formatter: Formatter, options: LogOptions
) -> AsyncGenerator[bytes, None]:
    """Yield wire bytes: nothing when the files are open, the existing log, then (``follow``) new output."""
    files = FramedFiles(log_dir)
    try:
        yield b""
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
        if not options.follow or follower is None or formatter.done:
            return
        formatter.last_at = 0
        async with aclosing(_live(follower, end, formatter, options.until_ns)) as chunks:
            async for chunk in chunks:
                yield chunk
        async for chunk in _after_live(log_dir, files, end, formatter):
            yield chunk
    finally:
        files.close()


async def _after_live(
    log_dir: str, files: FramedFiles, end: LogPosition | Literal["start"], formatter: Formatter
) -> AsyncIterator[bytes]:
    """The rest of a log whose monitor has ended; ``files``: those of before, for when the log has been removed."""
    seen, now = formatter.last_at, FramedFiles(log_dir)
    try:
        if now.is_empty:
            files.look_again()
        read = files if now.is_empty else now
        async for chunk in _stored(read, read.after(seen) if seen else read.find(end), formatter):
            yield chunk
    finally:
        now.close()


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
) -> AsyncGenerator[bytes, None]:
    """The bytes that the monitor sends until it closes the connection or ``until_ns`` is reached."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours:
        with theirs:
            client = StreamOptions(stdout=True, stderr=True, output="frames", start=start)
            if not await follower.attach(theirs.fileno(), client):
                return
        ours.setblocking(False)
        buffer = b""
        while not formatter.done:
            left = max((until_ns - time.time_ns()) / 1e9, 0) if until_ns else None
            patience = _HALF_LINE_S if formatter.holds and (left is None or left > _HALF_LINE_S) else left
            data = await _receive(ours, patience)
            if data is None and patience != left:
                yield formatter.rest()
                continue
            if not data:
                return
            buffer = buffer + data if buffer else data
            chunk, used = formatter.block(buffer)
            buffer = buffer[used:]
            if chunk:
                yield chunk


async def _receive(sock: socket.socket, patience: float | None) -> bytes | None:
    """The next bytes; None when none come in time (``patience`` None: they are waited for without limit).

    Unlike a cancelled `sock_recv`, this never loses what has just been received.
    """
    with suppress(BlockingIOError):
        return sock.recv(_RECEIVE)
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(sock, _settle, ready)
    try:
        await asyncio.wait_for(ready, patience)
    except TimeoutError:
        return None
    finally:
        loop.remove_reader(sock)
    return sock.recv(_RECEIVE)


def _settle(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
