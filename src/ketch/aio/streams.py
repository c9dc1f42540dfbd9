"""Connections to an engine, read and written by whoever waits for them; the frames of attached processes."""

from __future__ import annotations

import _socket
import contextlib
import threading
from typing import TYPE_CHECKING, NamedTuple

from ketch.errors import Unavailable
from ketch.notation import stream_frames

if TYPE_CHECKING:
    from ketch.aio.waiting import Deadline, Waiter

_CHUNK = 1 << 18
_LONGEST = 1 << 20


class Stream:
    """One connection; its socket is its own.  Data that is queued is sent while input is awaited.

    It can be closed while others wait for it: they wake up, and the last of them closes the socket.  Nobody watches
    a descriptor then that is another socket's already.
    """

    def __init__(self, sock: _socket.socket, waiter: Waiter) -> None:
        sock.setblocking(False)
        self.sock = sock
        self._waiter = waiter
        self._queue = memoryview(b"")
        self._ends = False
        self._lock = threading.Lock()
        self._waiting = 0
        self._closed = False

    async def send(self, data: bytes | memoryview, deadline: Deadline = None) -> None:
        """Send all of it (BrokenPipeError: nobody reads any more; TimeoutError)."""
        view = memoryview(data)
        while view:
            if self._closed:
                raise BrokenPipeError("the connection is closed")
            try:
                view = view[self.sock.send(view) :]
            except BlockingIOError:
                await self._ready(read=False, write=True, deadline=deadline)

    def queue(self, data: bytes, *, end: bool) -> None:
        """Send it while `receive` waits; ``end``: there is no more after it."""
        self._queue, self._ends = memoryview(data), end

    async def receive(self, deadline: Deadline = None) -> bytes:
        """The next piece of what the other end says; nothing at its end, or ours (TimeoutError, Unavailable)."""
        while not self._closed:
            self._send_queued()
            try:
                return self.sock.recv(_CHUNK)
            except BlockingIOError:
                await self._ready(read=True, write=bool(self._queue), deadline=deadline)
            except ConnectionResetError:
                return b""
            except OSError as e:
                raise Unavailable(f"read from the engine: {e.strerror}") from e
        return b""

    async def _ready(self, *, read: bool, write: bool, deadline: Deadline) -> None:
        with self._lock:
            if self._closed:
                return
            self._waiting += 1
        try:
            await self._waiter.ready(self.sock, read=read, write=write, deadline=deadline)
        finally:
            with self._lock:
                self._waiting -= 1
                if self._closed and not self._waiting:
                    self.sock.close()

    def _send_queued(self) -> None:
        """Send as much of the queue as the connection takes; who has ended reads no more of it."""
        try:
            while self._queue:
                self._queue = self._queue[self.sock.send(self._queue) :]
        except BlockingIOError:
            return
        except (BrokenPipeError, ConnectionResetError):
            self._queue = memoryview(b"")
        if self._ends:
            self._ends = False
            self.end()

    def end(self) -> None:
        """Say that no more comes from here."""
        with contextlib.suppress(OSError):  # the other end has gone
            self.sock.shutdown(_socket.SHUT_WR)

    def close(self) -> None:
        """Close the connection; the other end sees it, whatever forked children have inherited."""
        with self._lock:
            self._closed = True
            with contextlib.suppress(OSError):
                self.sock.shutdown(_socket.SHUT_RDWR)
            if not self._waiting:
                self.sock.close()


class Chunk(NamedTuple):
    """A piece of a process's output; ``stream`` is ``stdout`` or ``stderr``."""

    stream: str
    data: bytes


class Frames:
    """The frames in a stream of bytes: complete or not, payload is passed on at once."""

    def __init__(self) -> None:
        self._head = b""
        self._stream = 0
        self._left = 0
        self.result = b""
        """The payload of the last frame, as far as it has come."""

    def fed(self, data: bytes) -> list[Chunk]:
        """The pieces of output in the next bytes."""
        found = []
        at = 0
        while at < len(data):
            if not self._left:
                wanted = stream_frames.HEADER.size - len(self._head)
                self._head += data[at : at + wanted]
                at += wanted
                if len(self._head) == stream_frames.HEADER.size:
                    self._stream, self._left = stream_frames.HEADER.unpack(self._head)
                    self._head = b""
                continue
            piece = data[at : at + self._left]
            at += len(piece)
            self._left -= len(piece)
            if self._stream == stream_frames.ENDING:
                self.result += piece
            else:
                found.append(Chunk("stderr" if self._stream == stream_frames.STDERR else "stdout", piece))
        return found


class Lines:
    """Output cut into lines, each with its end; a last line without one comes when the output ends.

    A line of more than `_LONGEST` bytes comes in pieces: a program need not end any.
    """

    def __init__(self) -> None:
        self._rest = {"stdout": b"", "stderr": b""}

    def fed(self, chunk: Chunk) -> list[Chunk]:
        """The lines that are complete now."""
        *lines, rest = (self._rest[chunk.stream] + chunk.data).split(b"\n")
        found = [Chunk(chunk.stream, line + b"\n") for line in lines]
        if len(rest) > _LONGEST:
            found.append(Chunk(chunk.stream, rest))
            rest = b""
        self._rest[chunk.stream] = rest
        return found

    def ended(self) -> list[Chunk]:
        """The lines without an end."""
        left = [Chunk(stream, rest) for stream, rest in self._rest.items() if rest]
        self._rest = dict.fromkeys(self._rest, b"")
        return left
