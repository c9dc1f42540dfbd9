"""One stream of a connection: messages in both directions, headers before and behind them."""

from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING, Protocol

from ketch.rpc import limits
from ketch.rpc.frames import ConnectionFailure, H2Error
from ketch.rpc.status import Code, RpcError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ketch.rpc.metadata import Headers

_HEAD = struct.Struct(">BI")  # before a message: whether it is compressed, its length
_PREFIX = _HEAD.size
_STEP = limits.WINDOW // 4  # a window is opened by steps

_RESETS = {
    H2Error.CANCEL: Code.CANCELLED,
    H2Error.REFUSED_STREAM: Code.UNAVAILABLE,
    H2Error.ENHANCE_YOUR_CALM: Code.RESOURCE_EXHAUSTED,
    H2Error.INADEQUATE_SECURITY: Code.PERMISSION_DENIED,
}


class _Connection(Protocol):
    """A stream's connection, as the stream needs it."""

    held: int

    async def send_data(self, stream: Stream, data: bytes, *, end: bool) -> None: ...

    def send_headers(self, stream: Stream, headers: Headers, *, end: bool) -> None: ...

    def send_reset(self, number: int, code: H2Error) -> None: ...

    def send_window_update(self, number: int, size: int) -> None: ...

    def released(self, size: int) -> None: ...

    def forget(self, stream: Stream) -> None: ...


class Stream:
    """One call as HTTP/2 sees it.

    What has been received is kept as it came, so that it takes no more memory than the window allows, however the
    peer cuts it; a message is cut out of it when the application asks for the next one.
    """

    def __init__(self, connection: _Connection, number: int, window: int) -> None:
        self.number = number
        self.window = window  # bytes that the peer takes
        self.head: asyncio.Future[Headers] = asyncio.get_running_loop().create_future()  # an answer's first headers
        self.trailers: Headers | None = None
        self.sender: asyncio.Future[None] | None = None  # who waits for the window
        self.sending = asyncio.Lock()
        self.local_ended = self.remote_ended = False
        self.on_lost: Callable[[], object] = lambda: None  # the peer gave it up, or the connection broke
        self._connection = connection
        self._failure: tuple[Code, str] | None = None
        self._unread = bytearray()
        self._uncredited = 0  # bytes for which the window has not been opened again
        self._room = limits.WINDOW  # bytes that the peer may still send
        self._reader: asyncio.Future[None] | None = None

    @property
    def closed(self) -> bool:
        """Whether nothing can be sent or received any more."""
        return self._failure is not None or (self.local_ended and self.remote_ended)

    def check(self) -> None:
        """Raise the error that ended it, if one did."""
        if self._failure is not None:
            raise RpcError(*self._failure)

    # what the connection reports

    def data(self, contents: Sequence[memoryview], size: int, *, end: bool) -> None:
        """Data from the peer; ``size`` counts for the window, with padding."""
        self._room -= size
        if self._room < 0:
            raise ConnectionFailure(H2Error.FLOW_CONTROL_ERROR, f"stream {self.number}: more than its window")
        self._uncredited += size
        before = len(self._unread)
        for content in contents:
            self._unread += content
        self._connection.held += len(self._unread) - before
        if end:
            self.remote_ended = True
        self._wake(self._reader)

    def headers(self, headers: Headers, *, end: bool) -> None:
        """Headers of an answer, or those at the end of a side."""
        if end:
            self.trailers = headers
            self.remote_ended = True
        if not self.head.done():
            self.head.set_result(headers)
        elif not end:
            raise ConnectionFailure(H2Error.PROTOCOL_ERROR, f"stream {self.number}: headers in the middle")
        if end:
            self._wake(self._reader)
            self._wake(self.sender)

    def was_reset(self, code: int) -> None:
        """The peer gave it up, or takes no more of it after its answer."""
        if self.trailers is not None:
            self.local_ended = True
            self._wake(self.sender)
            return
        known = H2Error(code) if code in H2Error.__members__.values() else H2Error.INTERNAL_ERROR
        self.lost(_RESETS.get(known, Code.INTERNAL), f"the peer ended the call: {known.name}")

    def lost(self, code: Code, message: str) -> None:
        """Nothing more comes or goes, and this is why."""
        if self._failure is None:
            if not self.remote_ended:
                self._drop()
            self._fail(code, message)
            self.on_lost()

    # what the application does

    async def receive(self) -> bytes | None:
        """The next message; None when the peer has ended its side."""
        while True:
            message = self._take()
            if message is not None:
                return message
            if self.remote_ended:
                if self._unread:
                    raise RpcError(Code.INTERNAL, "the peer ended the call inside a message")
                return None
            self.check()
            await self._more()

    async def receive_many(self) -> list[bytes]:
        """All messages that are here, at least one; none when the peer has ended its side."""
        first = await self.receive()
        if first is None:
            return []
        return [first, *self._take_all()]

    async def send(self, message: bytes, *, end: bool = False) -> None:
        """Send a message, the last one with ``end``; waits until the peer and the queue take it."""
        async with self.sending:
            await self._connection.send_data(self, b"\0" + len(message).to_bytes(4) + message, end=end)

    async def send_many(self, messages: Sequence[bytes]) -> None:
        """Send several."""
        pieces = [piece for message in messages for piece in (b"\0" + len(message).to_bytes(4), message)]
        async with self.sending:
            await self._connection.send_data(self, b"".join(pieces), end=False)

    def send_headers(self, headers: Headers, *, end: bool = False) -> None:
        """Send headers; nothing when the stream is closed."""
        if not self.closed and not self.local_ended:
            self._connection.send_headers(self, headers, end=end)

    async def end(self) -> None:
        """End our side, behind what is being sent."""
        async with self.sending:
            if not self.closed and not self.local_ended:
                await self._connection.send_data(self, b"", end=True)

    def reset(self, code: H2Error = H2Error.CANCEL) -> None:
        """Give it up, if it has not ended; what was received and not taken is dropped."""
        if not self.closed:
            self._connection.send_reset(self.number, code)
        self._drop()
        self._fail(Code.CANCELLED, "the call was given up")
        self._connection.forget(self)

    # inside

    def _take(self) -> bytes | None:
        """The next message that is here."""
        end = self._message_end(0)
        if end < 0:
            return None
        with memoryview(self._unread) as view:
            message = bytes(view[_PREFIX:end])
        self._taken(end)
        return message

    def _take_all(self) -> list[bytes]:
        """All messages that are here."""
        messages, at = [], 0
        with memoryview(self._unread) as view:
            while (end := self._message_end(at)) >= 0:
                messages.append(bytes(view[at + _PREFIX : end]))
                at = end
        if at:
            self._taken(at)
        return messages

    def _message_end(self, at: int) -> int:
        """The end of the message that begins there; -1: not all of it is here (RpcError)."""
        unread = self._unread
        if len(unread) - at < _PREFIX:
            return -1
        compressed, size = _HEAD.unpack_from(unread, at)
        if size > limits.MESSAGE:
            text = f"a message of {size} bytes was received, and at most {limits.MESSAGE} are allowed"
            raise RpcError(Code.RESOURCE_EXHAUSTED, text)
        if compressed:
            raise RpcError(Code.INTERNAL, "a compressed message was received, and no compression was agreed on")
        end = at + _PREFIX + int(size)
        return end if end <= len(unread) else -1

    def _taken(self, size: int) -> None:
        """Forget bytes that were taken, and let the peer send as many."""
        del self._unread[:size]
        self._connection.released(size)
        self._credit(len(self._unread))

    async def _more(self) -> None:
        """Wait for data; for a message that is longer than the window, the window is opened."""
        if self._unread and self._connection.held > limits.HELD:
            raise RpcError(Code.RESOURCE_EXHAUSTED, "too much of unfinished messages was received at once")
        self._credit(0)
        self._reader = asyncio.get_running_loop().create_future()
        try:
            await self._reader
        finally:
            self._reader = None

    def _credit(self, keep: int) -> None:
        """Open the window for what was received, but for as many bytes as are kept."""
        credit = self._uncredited - keep
        if credit >= _STEP and not self.remote_ended and self._failure is None:
            self._uncredited -= credit
            self._room += credit
            self._connection.send_window_update(self.number, credit)

    def _drop(self) -> None:
        size, self._unread = len(self._unread), bytearray()
        self._connection.released(size)

    def _fail(self, code: Code, message: str) -> None:
        self._failure = self._failure or (code, message)
        if not self.head.done():
            self.head.cancel()
        self._wake(self._reader)
        self._wake(self.sender)

    @staticmethod
    def _wake(waiter: asyncio.Future[None] | None) -> None:
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
