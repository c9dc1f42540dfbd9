"""One attached client: gets output in its own format, gives input, and never holds anybody up.

A client that reads as fast as the container writes is *live*: each chunk goes straight to its socket.
When the socket is full the client is *lagging*: what it misses is not kept in memory, it is read from the
log when the socket has room again, until the client has caught up.  Where there is no log (exec, driver
``none``) a small buffer is kept, and when that is full the process has to wait.
"""

from __future__ import annotations

import os
from struct import Struct

from ketch.runtime import logformat
from ketch.runtime.process import farewell
from ketch.runtime.process.loop import GONE, READ, WRITE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.runtime.process.detach import Matcher
    from ketch.runtime.process.loop import Loop
    from ketch.runtime.process.streams import Streams

_MUX = Struct(">B3xI")
_CHUNK = 1 << 16
BUFFER_LIMIT = 1 << 20
MUX, RAW, FRAMES = 0, 1, 2


class Client:
    """A socket with what its owner asked to see; closed by ``close`` only."""

    def __init__(
        self, loop: Loop, fd: int, streams: Streams, *, wanted: tuple[bool, bool, bool], form: int, keys: Matcher | None
    ) -> None:
        self.fd = fd
        self._loop = loop
        self._streams = streams
        self.stdin, stdout, stderr = wanted
        self._wanted = (False, stdout, stderr)
        self._form = form
        self._keys = keys
        self._pending = bytearray()
        self._lag_fd = -1
        self._lag_offset = 0
        self.finishing = False
        self.closed = False
        os.set_blocking(fd, False)
        loop.add(fd, READ if self.stdin and streams.accepts_input else 0, self._ready)

    @property
    def behind(self) -> bool:
        """Whether there is something that it has not got yet."""
        return bool(self._pending) or self._lag_fd >= 0

    @property
    def full(self) -> bool:
        """Whether the process must wait for this client (only where there is no log)."""
        return self._lag_fd < 0 and len(self._pending) > BUFFER_LIMIT

    # -- output ----------------------------------------------------------------------------------

    def deliver(self, stream: int, data: bytes, frame: tuple[bytes, bytes] | None) -> None:
        """Send one chunk; ``frame`` is the header and trailer that it has in the log, which now ends behind it."""
        if self._lag_fd >= 0 or not (self._wanted[stream] or self._form == FRAMES):
            return
        parts = self._parts(stream, data, frame)
        size = sum(map(len, parts))
        if not size:
            return
        if self._pending:
            self._wait_for_room(b"".join(parts))
            return
        try:
            sent = os.writev(self.fd, parts)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._streams.drop(self)
            return
        if sent < size:
            self._wait_for_room(b"".join(parts)[sent:])

    def _parts(self, stream: int, data: bytes, frame: tuple[bytes, bytes] | None) -> tuple[bytes, ...]:
        if self._form == MUX:
            return _MUX.pack(stream, len(data)), data
        if self._form == FRAMES:
            # Without a frame the log could not be written: a reader of frames cannot have it either.
            return (frame[0], data, frame[1]) if frame else ()
        return (data,)

    def _wait_for_room(self, rest: bytes) -> None:
        self._pending += rest
        log = self._streams.log
        if log is not None:
            self.lag(os.dup(log.fd), log.offset)
        self._watch()

    def lag(self, log_fd: int, offset: int) -> None:
        """Continue from a position in the log (the descriptor is the client's from now on)."""
        self._lag_fd, self._lag_offset = log_fd, offset
        self._watch()

    def _watch(self) -> None:
        reading = READ if self.stdin and self._streams.accepts_input else 0
        self._loop.change(self.fd, reading | (WRITE if self.behind else 0))

    def _catch_up(self) -> None:
        """The socket has room: send what is pending, then frames from the log, until it is full or all is sent."""
        for _ in range(16):  # then give the others a turn
            if self._pending:
                try:
                    sent = os.write(self.fd, self._pending)
                except BlockingIOError:
                    return
                except OSError:
                    self._streams.drop(self)
                    return
                del self._pending[:sent]
                self._streams.taken += sent
                if self._pending:
                    return
            if self._lag_fd < 0:
                break
            self._refill()
        self._watch()
        self._streams.caught_up(self)

    def _refill(self) -> None:
        """Read the next frames of the log into ``_pending``, or find that there are none and be live again."""
        available = self._streams.available(self._lag_fd, self._lag_offset)
        chunk = os.pread(self._lag_fd, max(min(_CHUNK, available), 0), self._lag_offset)
        if len(chunk) >= logformat.HEADER.size:
            need = min(logformat.HEADER.unpack_from(chunk)[1] + logformat.OVERHEAD, available)
            if need > len(chunk):
                chunk = os.pread(self._lag_fd, need, self._lag_offset)
            position = 0
            while position + logformat.OVERHEAD <= len(chunk):
                _, length, stream, _ = logformat.HEADER.unpack_from(chunk, position)
                end = position + logformat.OVERHEAD + length
                if end > len(chunk):
                    break
                self._take_frame(chunk, position, length, stream)
                position = end
            self._lag_offset += position
            if position:
                return
        following = self._streams.next_log(self._lag_fd)
        os.close(self._lag_fd)
        self._lag_fd, self._lag_offset = following, 0

    def _take_frame(self, chunk: bytes, position: int, length: int, stream: int) -> None:
        start = position + logformat.HEADER.size
        if self._form == FRAMES:
            self._pending += chunk[position : start + length + logformat.TRAILER.size]
        elif stream < 3 and self._wanted[stream]:
            if self._form == MUX:
                self._pending += _MUX.pack(stream, length)
            self._pending += chunk[start : start + length]

    # -- input -----------------------------------------------------------------------------------

    def _ready(self, events: int) -> None:
        if events & WRITE:
            self._catch_up()
        if not self.closed and events & READ and self.stdin:
            self._read()
        if not self.closed and events & GONE and not events & READ:
            self._streams.drop(self)

    def _read(self) -> None:
        try:
            data = os.read(self.fd, _CHUNK)
        except BlockingIOError:
            return
        except OSError:
            self._streams.drop(self)
            return
        if data:
            self.take(data)
            return
        self.stdin = False  # half-closed: it may still want the output
        if self._keys is not None and (held := self._keys.flush()):
            self._streams.feed(held)
        self._watch()
        self._streams.input_ended(self)

    def take(self, data: bytes) -> None:
        """Input from the client: look for the detach keys, pass the rest to the process."""
        detach = False
        if self._keys is not None:
            data, detach = self._keys.feed(data)
        if data:
            self._streams.feed(data)
        if detach:
            self._streams.detach(self)

    def room_changed(self) -> None:
        """The process's stdin became full or has room again."""
        if not self.closed:
            self._watch()

    def close(self, *, quietly: bool = False) -> bool:
        """Give the socket up, ending the connection unless ``quietly`` (somebody else still uses it).

        True when that takes until the client's own end; `Streams.parted` is called then.
        """
        if self.closed:
            return False
        self.closed = True
        self._loop.remove(self.fd)
        if self._lag_fd >= 0:
            os.close(self._lag_fd)
            self._lag_fd = -1
        self._pending = bytearray()
        if quietly:
            os.close(self.fd)
            return False
        return farewell.part(self._loop, self.fd, self._streams.parted)
