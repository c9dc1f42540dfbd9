"""One attached client of a process's streams: output in its own format, input; it never blocks others.

A client that reads as fast as the container writes is *live*: each chunk goes straight to its socket.
When the socket is full the client is *lagging*: what it misses is not kept in memory, it is read from the
log (or, where that is not the output as it was, from a spool) when the socket has room again, until the
client has caught up.  Where there is neither (exec, driver ``none``) a small buffer is kept, and when that is
full the process has to wait.
"""

from __future__ import annotations

import os

from ketch.notation import stream_frames
from ketch.runtime.process.io import graceful_close
from ketch.runtime.process.io.backlog import BELL, FRAMES, MUX, Frames
from ketch.runtime.process.loop import GONE, READ, WRITE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from ketch.runtime.logs import log_format
    from ketch.runtime.process.io.backlog import Backlog
    from ketch.runtime.process.io.detach import Matcher
    from ketch.runtime.process.loop import Loop

    class Stdio(Protocol):
        """The interface of the streams that a client is attached to."""

        taken: int

        @property
        def accepts_input(self) -> bool:
            """Whether clients should be read from."""

        def feed(self, data: bytes) -> None:
            """Accept input for the process."""

        def input_ended(self, client: AttachedClient | None) -> None:
            """Handle the client's end of input."""

        def lag_log(self) -> log_format.FramedLogWriter | None:
            """The log that a slow client reads; None when there is none."""

        def caught_up(self, client: AttachedClient) -> None:
            """Handle a client that has caught up."""

        def detach(self, client: AttachedClient) -> None:
            """Handle the client's detach keys."""

        def drop(self, client: AttachedClient) -> None:
            """Handle the loss of the client."""

        def client_closed(self) -> None:
            """Handle the client's close after the end."""


_CHUNK = 1 << 16
BUFFER_LIMIT = 1 << 20


class AttachedClient:
    """A client's socket and the streams that it asked for; closed by ``close`` only."""

    def __init__(
        self,
        loop: Loop,
        fd: int,
        streams: Stdio,
        *,
        wanted: tuple[bool, bool, bool],
        output_format: int,
        keys: Matcher | None,
    ) -> None:
        self.fd = fd
        self._loop = loop
        self._streams = streams
        self.stdin, stdout, stderr = wanted
        self._wanted = (False, stdout, stderr)
        self._output_format = output_format
        self._keys = keys
        self.told_ending = False
        self._ending = b""
        self._pending = bytearray()
        self._backlog: Backlog | None = None
        self.finishing = False
        self.closed = False
        os.set_blocking(fd, False)
        loop.add(fd, READ if self.stdin and streams.accepts_input else 0, self._ready)

    @property
    def behind(self) -> bool:
        """Whether the client has not received all output yet."""
        return bool(self._pending) or self._backlog is not None

    @property
    def reads(self) -> object:
        """The log whose files the client reads at the moment."""
        return self._backlog.log if self._backlog is not None else None

    @property
    def full(self) -> bool:
        """Whether the process must wait for this client (only where there is no log)."""
        return self._backlog is None and len(self._pending) > BUFFER_LIMIT

    # -- output ----------------------------------------------------------------------------------

    def deliver(self, stream: int, data: bytes, frame: tuple[bytes, bytes] | None) -> None:
        """Send one chunk; ``frame`` is its header and trailer in the log, which now ends after it."""
        if self._backlog is not None or not (self._wanted[stream] or self._output_format >= FRAMES):
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
        if sent < size and self._output_format != BELL:  # a bell that has not been heard yet rings still
            self._wait_for_room(b"".join(parts)[sent:])

    def _parts(self, stream: int, data: bytes, frame: tuple[bytes, bytes] | None) -> tuple[bytes, ...]:
        if self._output_format == MUX:
            return stream_frames.HEADER.pack(stream, len(data)), data
        if self._output_format == FRAMES:
            # Without a frame the log could not be written: a reader of frames cannot have it either.
            return (frame[0], data, frame[1]) if frame else ()
        return (b"!",) if self._output_format == BELL else (data,)

    def _wait_for_room(self, rest: bytes) -> None:
        self._pending += rest
        log = self._streams.lag_log()
        if log is not None:
            self._backlog = Frames(log, os.dup(log.fd), log.offset)
        self._watch()

    def conclude(self, ending: bytes) -> None:
        """Send the last frame, which says how the process ended, behind all output, if the client wants it."""
        self.finishing = True
        if not self.told_ending:
            return
        if self._backlog is not None:
            self._ending = ending
            return
        waiting = bool(self._pending)
        self._pending += ending
        self._watch()
        if not waiting:
            self._catch_up()

    def catch_up_from(self, backlog: Backlog) -> None:
        """Continue from a position in the log (the backlog is the client's from now on)."""
        self._backlog = backlog
        self._watch()

    def _watch(self) -> None:
        reading = READ if self.stdin and self._streams.accepts_input else 0
        self._loop.change(self.fd, reading | (WRITE if self.behind else 0))

    def _catch_up(self) -> None:
        """Send the pending bytes, then frames from the log, until the socket is full or all is sent."""
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
            if self._backlog is None:
                break
            self._refill(self._backlog)
        self._watch()
        self._streams.caught_up(self)

    def _refill(self, backlog: Backlog) -> None:
        """Read more of the log into ``_pending``; at its end the client is live again."""
        more = backlog.more(self._output_format, self._wanted)
        if more is not None:
            self._pending += more
            return
        self._backlog = None
        self._pending += backlog.rest(self._output_format, self._wanted) + self._ending
        backlog.close()

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
        """Read the client's input: find the detach keys, pass the rest to the process."""
        detach = False
        if self._keys is not None:
            data, detach = self._keys.feed(data)
        if data:
            self._streams.feed(data)
        if detach:
            self._streams.detach(self)

    def room_changed(self) -> None:
        """Handle a change of the room in the process's stdin."""
        if not self.closed:
            self._watch()

    def close(self, *, quietly: bool = False) -> bool:
        """Close the socket, and end the connection unless ``quietly`` (it is used elsewhere).

        True when that takes until the client's own end; `Stdio.client_closed` is called then.
        """
        if self.closed:
            return False
        self.closed = True
        self._loop.remove(self.fd)
        if self._backlog is not None:
            self._backlog.close()
            self._backlog = None
        self._pending = bytearray()
        if quietly or self.told_ending:  # its connection is ketchd's to end
            os.close(self.fd)
            return False
        return graceful_close.close(self._loop, self.fd, self._streams.client_closed)
