"""An HTTP/2 connection (RFC 9113) as gRPC needs it, in either role.

    Channel, serve        calls: methods, messages, statuses, deadlines, cancelling
    Stream                one call's bytes in each direction, its windows
    H2Connection          frames, headers, flow control, what a peer may not do
    ByteStream            a socket after its upgrade, a container's standard streams, a tunnel in another call

Memory is bounded by windows: what an application has not taken yet is never more than a stream's window, and a window
opens when the application takes a message.  A peer that breaks HTTP/2's rules, or only keeps a side busy, loses the
connection.

One task reads frames and gives them to streams, another writes what is queued.  Senders wait while much is queued, so
that a peer that does not read costs a queue's length; answers to pings and settings do not wait, and are counted.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING

import hpack

from ketch.rpc import limits
from ketch.rpc.frames import (
    ACK,
    END_HEADERS,
    END_STREAM,
    FRAME,
    LARGEST_WINDOW,
    PREFACE,
    ConnectionFailure,
    Frame,
    FrameKind,
    FrameReader,
    H2Error,
    H2Setting,
    StreamFailure,
    frame,
    head,
    header_frames,
    read_settings,
    settings,
    without_padding,
)
from ketch.rpc.metadata import text_headers
from ketch.rpc.status import Code
from ketch.rpc.stream import Stream

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ketch.rpc.bytestream import ByteStream
    from ketch.rpc.metadata import Headers

log = logging.getLogger(__name__)
_DEFAULT_WINDOW = (1 << 16) - 1


class H2Connection:
    """One connection: a client's, or with ``accept``, which gets each call's stream and headers, a server's."""

    def __init__(self, stream: ByteStream, accept: Callable[[Stream, Headers], None] | None = None) -> None:
        self._stream, self._accept = stream, accept
        self._streams: dict[int, Stream] = {}
        self._last = 0  # the newest stream: the peer's, or ours as a client
        self._leaving: str | None = None  # why no new streams are taken or opened
        self._given_up = self.why = ""  # why we end it; why it ended
        self._reader, self._allowance = FrameReader(), limits.Allowance()
        self._encoder, self._decoder = hpack.Encoder(), hpack.Decoder(max_header_list_size=limits.HEADERS)
        self._block: tuple[Frame, bytearray] | None = None  # headers that go on in the next frame
        self._greeted = False
        # receiving
        self.held = 0  # bytes of all streams that nobody has taken
        self._uncredited = 0
        self._room = limits.CONNECTION_WINDOW
        # sending
        self._out: list[bytes | memoryview] = []
        self._queued = 0
        self._window = self._initial_window = _DEFAULT_WINDOW
        self._largest_frame = FRAME
        self._peer_streams = 100  # until it has said how many
        self._waiting: deque[asyncio.Future[None]] = deque()  # senders, and who wants to open a stream
        self._writable = asyncio.Event()
        self._finishing = False
        self._handlers: dict[int, Callable[[Frame], None]] = {
            FrameKind.DATA: self._on_data,
            FrameKind.HEADERS: self._on_headers,
            FrameKind.CONTINUATION: self._on_continuation,
            FrameKind.RST_STREAM: self._on_reset,
            FrameKind.SETTINGS: self._on_settings,
            FrameKind.PING: self._on_ping,
            FrameKind.GOAWAY: self._on_goaway,
            FrameKind.WINDOW_UPDATE: self._on_window_update,
            FrameKind.PUSH_PROMISE: self._on_push,
        }
        self._greet()

    # its life

    async def run(self) -> None:
        """Serve the connection to its end; what a peer does is never raised, streams are told."""
        reader = asyncio.create_task(self._read(), name="rpc-reader")
        writer = asyncio.create_task(self._write(), name="rpc-writer")
        try:
            await asyncio.wait((reader, writer), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.why = self._given_up or _reason(reader) or _reason(writer) or "the peer closed the connection"
            self._lose(self.why)
            reader.cancel()
            await self._finish(writer)
            await asyncio.gather(reader, writer, return_exceptions=True)
            await self._stream.close()

    async def _finish(self, writer: asyncio.Task[None]) -> None:
        self._finishing = True
        self._writable.set()
        await asyncio.wait((writer,), timeout=limits.FAREWELL_S)
        writer.cancel()

    def _greet(self) -> None:
        mine = {
            H2Setting.INITIAL_WINDOW_SIZE: limits.WINDOW,
            H2Setting.MAX_HEADER_LIST_SIZE: limits.HEADERS,
        }
        if self._accept is None:
            self._put(PREFACE)
            mine[H2Setting.ENABLE_PUSH] = 0
        else:
            mine[H2Setting.MAX_CONCURRENT_STREAMS] = limits.STREAMS
        self._put(settings(mine))
        self.send_window_update(0, limits.CONNECTION_WINDOW - _DEFAULT_WINDOW)

    def leave(self, code: H2Error, why: str) -> None:
        """Tell the peer that no new streams are taken, and why."""
        if self._leaving is None:
            self._leaving = why
            last = self._last if self._accept is not None else 0
            self._put(frame(FrameKind.GOAWAY, 0, 0, last.to_bytes(4) + int(code).to_bytes(4) + why.encode()[:200]))

    def give_up(self, why: str) -> None:
        """Tell the peer that this is the end, and when it comes those who wait for calls why."""
        self._given_up = why
        self.leave(H2Error.NO_ERROR, why)

    def _lose(self, why: str) -> None:
        self._leaving = self._leaving or why
        for stream in list(self._streams.values()):
            stream.lost(Code.UNAVAILABLE, why)
        self._streams.clear()
        self._admit()

    # streams

    async def open(self) -> Stream:
        """A new stream of a client; waits while the peer has as many as it wants."""
        while self._leaving is None and len(self._streams) >= self._peer_streams:
            await self._turn()
        if self._leaving is None and self._last >= LARGEST_WINDOW - 2:
            self.leave(H2Error.NO_ERROR, "all numbers of streams have been used")
        stream = Stream(self, self._last + 2 if self._last else 1, self._initial_window)
        if self._leaving is not None:
            stream.lost(Code.UNAVAILABLE, self._leaving)
            return stream
        self._last = stream.number
        self._streams[stream.number] = stream
        return stream

    def forget(self, stream: Stream) -> None:
        """Stop counting a stream that is closed."""
        if self._streams.pop(stream.number, None) is not None:
            self._admit()

    async def _turn(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        await waiter

    def _admit(self) -> None:
        """Let those who wait look again."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)

    # sending

    def _put(self, data: bytes) -> None:
        self._out.append(data)
        self._queued += len(data)
        self._writable.set()

    async def _write(self) -> None:
        while self._out or not self._finishing:
            if not self._out:
                self._writable.clear()
                await self._writable.wait()
                continue
            data = b"".join(self._out)
            self._out.clear()
            await self._stream.send(data)
            self._queued -= len(data)
            if self._waiting:
                self._admit()

    async def send_data(self, stream: Stream, data: bytes, *, end: bool) -> None:
        """Send data in frames, as far as windows and queue allow, and wait for the rest."""
        at, size = 0, len(data)
        with memoryview(data) as view:
            try:
                while True:
                    _check_open(stream, client=self._accept is None)
                    room = min(stream.window, self._window, self._largest_frame, size - at)
                    if self._queued >= limits.QUEUED or room <= 0 < size:
                        await self._room_for(stream)
                        continue
                    at += room
                    self._put_data(stream, bytes(view[at - room : at]), end=end and at == size)
                    if at == size:
                        return
            except BaseException:
                if at:
                    stream.reset()  # the peer has half of a message
                raise

    def _put_data(self, stream: Stream, data: bytes, *, end: bool) -> None:
        stream.window -= len(data)
        self._window -= len(data)
        self._out.append(head(FrameKind.DATA, END_STREAM if end else 0, stream.number, len(data)))
        self._out.append(data)
        self._queued += len(data) + 9
        self._allowance.earn()
        self._writable.set()
        if end:
            self._ended(stream)

    async def _room_for(self, stream: Stream) -> None:
        """Wait until a stream may send again, or has ended."""
        stream.sender = asyncio.get_running_loop().create_future()
        if self._queued >= limits.QUEUED or self._window <= 0:
            self._waiting.append(stream.sender)
        try:
            await stream.sender
        finally:
            stream.sender = None

    def send_headers(self, stream: Stream, headers: Headers, *, end: bool) -> None:
        """Send headers of a stream."""
        block = self._encoder.encode(headers, huffman=False)
        for piece in header_frames(stream.number, block, end=end, largest=self._largest_frame):
            self._put(piece)
        if end:
            self._ended(stream)

    def _ended(self, stream: Stream) -> None:
        stream.local_ended = True
        if stream.remote_ended:
            self.forget(stream)

    def send_reset(self, number: int, code: H2Error) -> None:
        """Give a stream up."""
        if self._leaving is None or self._streams:
            self._put(frame(FrameKind.RST_STREAM, 0, number, int(code).to_bytes(4)))

    def send_window_update(self, number: int, size: int) -> None:
        """Let the peer send more: of a stream, or with 0 of all of them."""
        self._put(frame(FrameKind.WINDOW_UPDATE, 0, number, size.to_bytes(4)))

    def released(self, size: int) -> None:
        """An application has taken bytes that were held."""
        self.held -= size
        self._credit()

    def _credit(self) -> None:
        if self._uncredited >= limits.CONNECTION_WINDOW // 4 and self.held <= limits.HELD:
            self._room += self._uncredited
            self.send_window_update(0, self._uncredited)
            self._uncredited = 0

    # receiving

    async def _read(self) -> None:
        try:
            async with asyncio.timeout(limits.GREETING_S):
                data = await self._preface() if self._accept is not None else b""
                while not self._greeted:
                    self._frames(data or await self._receive())
                    data = b""
            while True:
                self._frames(await self._receive())
        except ConnectionFailure as e:
            log.info("connection ended: %s (%s)", e.message, e.code.name)
            self.leave(e.code, e.message)
            raise
        except hpack.HPACKError as e:
            self.leave(H2Error.COMPRESSION_ERROR, str(e))
            raise

    async def _receive(self) -> bytes:
        data = await self._stream.receive()
        if not data:
            raise ConnectionResetError("the peer closed the connection")
        return data

    async def _preface(self) -> bytes:
        data = b""
        while len(data) < len(PREFACE):
            data += await self._receive()
            if data[: len(PREFACE)] != PREFACE[: len(data)]:
                raise ConnectionFailure(H2Error.PROTOCOL_ERROR, "the peer does not speak HTTP/2")
        return data[len(PREFACE) :]

    def _frames(self, data: bytes) -> None:
        """Handle the frames that are whole; plain ones of data that follow each other, of one stream, together."""
        run: list[memoryview] = []
        number = 0
        for received in self._reader.read(data):
            kind, flags, stream, content = received
            if kind == FrameKind.DATA and not flags and content and self._block is None and self._greeted:
                if stream != number and run:
                    self._run(number, run)
                    run = []
                number = stream
                run.append(content)
                continue
            if run:
                self._run(number, run)
                run = []
            self._frame(received)
        if run:
            self._run(number, run)

    def _frame(self, received: Frame) -> None:
        if self._block is not None and received.kind != FrameKind.CONTINUATION:
            raise ConnectionFailure(H2Error.PROTOCOL_ERROR, "headers that do not go on")
        if not self._greeted:
            if received.kind != FrameKind.SETTINGS:
                raise ConnectionFailure(H2Error.PROTOCOL_ERROR, "the first frame is not of settings")
            self._greeted = True
        handler = self._handlers.get(received.kind)
        if handler is None:
            self._allowance.spend("frame of an unknown kind, or a priority")
            return
        try:
            handler(received)
        except StreamFailure as e:
            self._refuse(received.stream, e.code)
        if self._queued > limits.UNREAD:
            raise ConnectionFailure(H2Error.ENHANCE_YOUR_CALM, "answers are not read")

    def _run(self, number: int, contents: Sequence[memoryview]) -> None:
        """Handle plain frames of data of one stream, each with some."""
        size = sum(map(len, contents))
        self._counted(size)
        try:
            stream = self._known(number)
            for _ in contents:
                if stream is None:
                    self._allowance.spend("frame of data without a use")
                else:
                    self._allowance.earn()
            if stream is not None:
                if stream.remote_ended:
                    raise StreamFailure(H2Error.STREAM_CLOSED, "data behind the end")
                stream.data(contents, size, end=False)
        except StreamFailure as e:
            self._refuse(number, e.code)
        self._credit()

    def _refuse(self, number: int, code: H2Error) -> None:
        self._allowance.spend("refused stream")
        stream = self._streams.pop(number, None)
        self.send_reset(number, code)
        if stream is not None:
            stream.lost(Code.INTERNAL, f"the peer broke the protocol: {code.name}")

    def _known(self, number: int) -> Stream | None:
        """A stream, None when it has ended; one that never was ends the connection."""
        stream = self._streams.get(number)
        if stream is None and (number > self._last or number % 2 == 0):
            raise ConnectionFailure(H2Error.PROTOCOL_ERROR, f"stream {number} was never opened")
        return stream

    def _counted(self, size: int) -> None:
        """Count data for the connection's window."""
        self._room -= size
        if self._room < 0:
            raise ConnectionFailure(H2Error.FLOW_CONTROL_ERROR, "more than the connection's window")
        self._uncredited += size

    def _on_data(self, received: Frame) -> None:
        size = len(received.content)
        self._counted(size)
        content, end = without_padding(received), bool(received.flags & END_STREAM)
        stream = self._known(received.stream)
        if content and stream is not None:
            self._allowance.earn()
        elif not end:
            self._allowance.spend("frame of data without a use")
        if stream is not None:
            if stream.remote_ended:
                raise StreamFailure(H2Error.STREAM_CLOSED, "data behind the end")
            stream.data((content,), size, end=end)
            if end and stream.local_ended:
                self.forget(stream)
        self._credit()

    def _on_headers(self, received: Frame) -> None:
        block = without_padding(received)
        if received.flags & END_HEADERS:
            self._headers(received, block)
        else:
            self._block = received, bytearray(block)

    def _on_continuation(self, received: Frame) -> None:
        self._allowance.spend("continuation")
        if self._block is None or self._block[0].stream != received.stream:
            raise ConnectionFailure(H2Error.PROTOCOL_ERROR, "a continuation of nothing")
        first, block = self._block
        block += received.content
        if len(block) > limits.HEADERS:
            raise ConnectionFailure(H2Error.ENHANCE_YOUR_CALM, "too many headers")
        if received.flags & END_HEADERS:
            self._block = None
            self._headers(first, memoryview(block))

    def _headers(self, first: Frame, block: memoryview) -> None:
        number, end = first.stream, bool(first.flags & END_STREAM)
        raw = self._decoder.decode(bytes(block), raw=True)
        if self._accept is not None and number > self._last:
            self._request(number, text_headers(raw), end=end)
            return
        stream = self._known(number)
        if stream is None:
            self._allowance.spend("block of headers of an ended stream")
            return
        if stream.remote_ended or (self._accept is not None and not end):
            raise StreamFailure(H2Error.PROTOCOL_ERROR, "headers behind the end")
        headers = text_headers(raw)
        if not (not end and self._accept is None and headers[:1] and headers[0] == (":status", "100")):
            stream.headers(headers, end=end)
        if end and stream.local_ended:
            self.forget(stream)

    def _request(self, number: int, headers: Headers, *, end: bool) -> None:
        if number % 2 == 0:
            raise ConnectionFailure(H2Error.PROTOCOL_ERROR, f"a client cannot open stream {number}")
        if self._leaving is not None:
            return  # the peer knows which streams were not taken
        self._last = number
        if len(self._streams) >= limits.STREAMS:
            raise StreamFailure(H2Error.REFUSED_STREAM, "too many streams")
        stream = Stream(self, number, self._initial_window)
        stream.remote_ended = end
        stream.head.set_result(headers)
        self._streams[number] = stream
        assert self._accept is not None
        self._accept(stream, headers)

    def _on_reset(self, received: Frame) -> None:
        self._allowance.spend("reset")
        if len(received.content) != 4:
            raise ConnectionFailure(H2Error.FRAME_SIZE_ERROR, "a reset of another size")
        stream = self._known(received.stream)
        if stream is not None:
            self.forget(stream)
            stream.was_reset(int.from_bytes(received.content))

    def _on_settings(self, received: Frame) -> None:
        _check_whole(received, "settings")
        if received.flags & ACK:
            if received.content:
                raise ConnectionFailure(H2Error.FRAME_SIZE_ERROR, "settings in an acknowledgement")
            return
        self._allowance.spend("frame of settings")
        for key, value in read_settings(received.content):
            self._allowance.spend("setting")  # a frame has room for thousands, and one can change all streams
            if key == H2Setting.INITIAL_WINDOW_SIZE:
                self._set_initial_window(value)
            elif key == H2Setting.MAX_FRAME_SIZE:
                if not FRAME <= value < 1 << 24:
                    raise ConnectionFailure(H2Error.PROTOCOL_ERROR, f"frames of {value} bytes")
                self._largest_frame = min(value, 1 << 16)
            elif key == H2Setting.HEADER_TABLE_SIZE:
                self._encoder.header_table_size = min(value, 4096)
            elif key == H2Setting.MAX_CONCURRENT_STREAMS:
                self._peer_streams = value
        self._put(frame(FrameKind.SETTINGS, ACK, 0))
        self._admit()

    def _set_initial_window(self, value: int) -> None:
        if value > LARGEST_WINDOW:
            raise ConnectionFailure(H2Error.FLOW_CONTROL_ERROR, f"a window of {value} bytes")
        change, self._initial_window = value - self._initial_window, value
        for stream in self._streams.values():
            if stream.window + change > LARGEST_WINDOW:
                raise ConnectionFailure(H2Error.FLOW_CONTROL_ERROR, "settings that widen a window beyond all measure")
            self._widen(stream, change)

    def _widen(self, stream: Stream, change: int) -> None:
        stream.window += change
        if stream.window > LARGEST_WINDOW:
            raise StreamFailure(H2Error.FLOW_CONTROL_ERROR, "a window beyond all measure")
        if stream.sender is not None and not stream.sender.done():
            stream.sender.set_result(None)

    def _on_ping(self, received: Frame) -> None:
        _check_whole(received, "ping")
        if len(received.content) != 8:
            raise ConnectionFailure(H2Error.FRAME_SIZE_ERROR, "a malformed ping")
        self._allowance.spend("ping")
        if not received.flags & ACK:
            self._put(frame(FrameKind.PING, ACK, 0, bytes(received.content)))

    def _on_goaway(self, received: Frame) -> None:
        _check_whole(received, "farewell")
        if len(received.content) < 8:
            raise ConnectionFailure(H2Error.FRAME_SIZE_ERROR, "a malformed farewell")
        self._allowance.spend("farewell")
        last, code = int.from_bytes(received.content[:4]) & LARGEST_WINDOW, int.from_bytes(received.content[4:8])
        words = bytes(received.content[8:208]).decode("utf-8", "replace")
        self._leaving = self._leaving or f"the peer takes no more calls (HTTP/2 error {code}) {words}".rstrip()
        if self._accept is None:
            for number in [number for number in self._streams if number > last]:
                self._streams.pop(number).lost(Code.UNAVAILABLE, self._leaving)
        self._admit()

    def _on_window_update(self, received: Frame) -> None:
        if len(received.content) != 4:
            raise ConnectionFailure(H2Error.FRAME_SIZE_ERROR, "a malformed update of a window")
        self._allowance.spend("update of a window")
        size = int.from_bytes(received.content) & LARGEST_WINDOW
        if received.stream:
            stream = self._known(received.stream)
            if not size:
                raise StreamFailure(H2Error.PROTOCOL_ERROR, "a window widened by nothing")
            if stream is not None:
                self._widen(stream, size)
            return
        if not size:
            raise ConnectionFailure(H2Error.PROTOCOL_ERROR, "the connection's window widened by nothing")
        self._window += size
        if self._window > LARGEST_WINDOW:
            raise ConnectionFailure(H2Error.FLOW_CONTROL_ERROR, f"the connection's window widened by {size}")
        self._admit()

    def _on_push(self, _received: Frame) -> None:
        raise ConnectionFailure(H2Error.PROTOCOL_ERROR, "pushed answers were not asked for")


def _check_whole(received: Frame, what: str) -> None:
    """Refuse a frame that is of the whole connection, and was sent in a stream."""
    if received.stream:
        raise ConnectionFailure(H2Error.PROTOCOL_ERROR, f"{what} in stream {received.stream}")


def _check_open(stream: Stream, *, client: bool) -> None:
    """Raise when nothing can be sent; a server that has answered takes no more of a call."""
    if not (client and stream.remote_ended):
        stream.check()
    if stream.local_ended or (client and stream.remote_ended):
        raise ConnectionResetError("the call has ended")


def _reason(task: asyncio.Task[None]) -> str | None:
    """The error that ended a connection's task, if one did."""
    if not task.done() or task.cancelled():
        return None
    error = task.exception()
    if error is not None and not isinstance(error, (OSError, ConnectionFailure, hpack.HPACKError, TimeoutError)):
        log.error("connection failed", exc_info=error)
    return f"the connection ended: {error}" if error is not None else None
