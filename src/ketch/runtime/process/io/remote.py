"""Remote logs: messages to a log server, queued within bounds while it is slow or away.

What waits is kept as it was read, in blocks of at most 16 KiB; a message is made when its turn has come.
``blocking``: at ``limit`` bytes the container waits (`Streams` asks ``full``), and nothing is lost as long as
the far end is there.  Otherwise, and while the far end is away, what comes at the limit is dropped.
"""

from __future__ import annotations

from _socket import SO_ERROR, SOCK_STREAM, SOL_SOCKET
from errno import EINPROGRESS, EMSGSIZE
from time import monotonic, time_ns

from ketch.contexts import suppress
from ketch.runtime.logs.log_lines import Splitter
from ketch.runtime.process.loop import GONE, READ, WRITE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable

    from ketch.runtime.logs.destination import Destination
    from ketch.runtime.process.loop import Loop


_TURN = 256  # messages that are sent before others are served
_BLOCKING_LIMIT = 256 << 10
_BLOCK_COST = 200  # bytes that a block takes in memory beside its own


class Remote:
    """Sends a container's output line by line; ``pending`` is True while there is something that can be sent."""

    def __init__(self, loop: Loop, message_format: Destination, *, blocking: bool, limit: int) -> None:
        self._loop = loop
        self._message_format = message_format
        self._blocking = blocking
        self._limit = _BLOCKING_LIMIT if blocking else limit
        self._patient = blocking
        self._splitters = {1: Splitter(), 2: Splitter()}
        self._queue: list[tuple[int, int, bool, bytes]] = []  # time, stream, partial, block
        self._size = 0
        self._position = 0  # in the first block: what stands before it has been sent
        self._message = b""  # the message whose turn it is, …
        self._sent = 0  # … and how much of it is on its way
        self._after = 0  # the position behind it
        self._answer: bytes | None = None  # what has come of the server's confirmation while it is waited for
        self._failures = 0  # attempts to connect, one after the other
        self._socket: socket | None = None
        self._stream = False
        self._connected = self._met = False
        self._tried = 0.0
        self._watching = False
        self.on_drain: Callable[[int], None] = lambda _size: None
        self._connect()

    @property
    def full(self) -> bool:
        """Whether the container must wait (the queue is full)."""
        return self._patient and self._there and self._size > self._limit

    @property
    def _there(self) -> bool:
        """Whether the server is connected, or about to be for the first time."""
        return self._connected or (self._socket is not None and not self._met)

    @property
    def pending(self) -> bool:
        """Whether the server is connected and has not received everything."""
        return bool(self._queue) and self._socket is not None

    def write(self, stream: int, data: bytes) -> None:
        """Queue output of the container."""
        now = time_ns()
        for block, partial in self._splitters[stream].take(data):
            self._put(now, stream, partial, block)
        self._pump()

    def finish(self) -> None:
        """Handle the end of the output."""
        for stream, splitter in self._splitters.items():
            if rest := splitter.rest():
                self._put(time_ns(), stream, True, rest)
        self._pump()

    def stop_backpressure(self) -> None:
        """Queue without waiting once the container has ended: the rest of its pipes is bounded, too."""
        self._patient = False

    def _put(self, now: int, stream: int, partial: bool, block: bytes) -> None:
        waits = self._blocking and self._there  # then `full` sees to it that there is not much more
        cost = len(block) + _BLOCK_COST
        if not waits and self._queue and self._size + cost > self._limit:
            return
        self._queue.append((now, stream, partial, block))
        self._size += cost

    # -- the socket ------------------------------------------------------------------------------

    def _connect(self) -> None:
        self._tried = monotonic()
        self._failures += 1  # until it is connected
        with suppress(OSError):
            self._socket, status = self._message_format.connect()
            self._stream = self._socket.type & 0xF == SOCK_STREAM
            self._connected = status != EINPROGRESS
            if self._connected:
                self._failures = 0
            self._sent = 0  # what the last connection has of a message is lost with it
            self._watching = not self._connected
            self._loop.add(self._socket.fileno(), self._interest(), self._ready)

    def _interest(self) -> int:
        return (READ if self._stream else 0) | (WRITE if self._watching else 0)

    def _watch(self, watching: bool) -> None:
        if self._socket is not None and watching != self._watching:
            self._watching = watching
            self._loop.change(self._socket.fileno(), self._interest())

    def _lost(self) -> None:
        if self._socket is not None:
            self._loop.remove(self._socket.fileno())
            self._socket.close()
        self._socket, self._connected, self._watching, self._met = None, False, False, True
        self._answer = None

    def _ready(self, events: int) -> None:
        assert self._socket is not None
        if not self._connected and events & (WRITE | GONE):
            self._connected = self._socket.getsockopt(SOL_SOCKET, SO_ERROR) == 0
            if self._connected:
                self._failures = 0
            else:
                self._lost()
        elif events & (READ | GONE) and not self._is_connected():
            self._lost()
        if self._socket is not None and self._connected:
            self._pump()
        self.on_drain(0)

    def _is_connected(self) -> bool:
        """Whether the server is still connected; what it sends is a confirmation, or is dropped."""
        assert self._socket is not None
        if not self._stream:
            return self._socket.getsockopt(SOL_SOCKET, SO_ERROR) == 0
        try:
            data = self._socket.recv(4096)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return bool(data) and self._take_answer(data)

    def _take_answer(self, data: bytes) -> bool:
        """Take a part of a confirmation; False when it is none of the last message, which is then sent again."""
        if self._answer is None:
            return True
        self._answer += data
        confirmed = self._message_format.acknowledged(self._answer)
        if confirmed:
            self._answer = None
            self.on_drain(self._done())
        return confirmed is not False

    # -- sending ---------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Send messages while the socket has room."""
        if self._socket is None and self._queue and monotonic() >= self._tried + self._message_format.retry_s:
            self._give_up()
            self._connect()
        taken = 0
        for _ in range(_TURN):
            if not self._connected or self._answer is not None or not self._next():
                break
            if not self._send():
                break
            if self._message_format.acknowledges:
                self._answer = b""
                break
            taken += self._done()
        wants = bool(self._queue) and self._answer is None
        self._watch(wants if self._connected else self._socket is not None)
        if taken:
            self.on_drain(taken)

    def _give_up(self) -> None:
        """Drop the message for which the server has been tried as often as its settings say."""
        if self._message_format.retries and self._failures >= self._message_format.retries and self._next():
            self._failures = 0
            self._done()

    def _next(self) -> bool:
        """Make the next message; False when there is none."""
        if self._message:
            return True
        if not self._queue:
            return False
        now, stream, partial, block = self._queue[0]
        end = len(block) if partial else block.find(b"\n", self._position)
        line = block[self._position : end] if end >= 0 else block[self._position :]
        self._after = len(block) if end < 0 else end + 1
        self._message, self._sent = self._message_format.message(now, stream, line, partial), 0
        return True

    def _send(self) -> bool:
        """Send the message; True when all of it is sent, or it can never be."""
        assert self._socket is not None
        if not self._message:
            return True
        for attempt in (1, 2):
            try:
                if self._stream:
                    self._sent += self._socket.send(self._message[self._sent :])
                    return self._sent == len(self._message)
                self._send_datagram(self._socket)
                return True
            except BlockingIOError:
                return False
            except OSError:
                self._lost()
                if self._stream or attempt == 2:
                    return not self._stream  # a datagram for nobody is lost
                self._connect()  # the far end may have been started again
                if self._socket is None or not self._connected:
                    return True
        return True

    def _send_datagram(self, sock: socket) -> None:
        if len(self._message) <= self._message_format.largest:
            try:
                sock.send(self._message)
            except OSError as e:
                if e.errno != EMSGSIZE:
                    raise
            else:
                return
        try:
            self._message_format.send_large(sock, self._message)
        except BlockingIOError:
            raise
        except OSError:  # it is too large, or for nobody: it is lost
            return

    def _done(self) -> int:
        """Remove the sent message from the queue; returns its size."""
        block = self._queue[0][3]
        size = self._after - self._position
        self._message, self._position = b"", self._after
        if self._position >= len(block):
            del self._queue[0]
            self._size -= len(block) + _BLOCK_COST
            self._position = 0
        return size
