"""The side of a connection that calls."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ketch.rpc.connection import H2Connection
from ketch.rpc.messages import read, write
from ketch.rpc.metadata import CONTENT_TYPE, as_metadata, checked, encode_timeout
from ketch.rpc.status import Code, RpcError, error_of, error_of_http

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

    from ketch.rpc.bytestream import ByteStream
    from ketch.rpc.metadata import Headers, Metadata
    from ketch.rpc.method import Message, Method
    from ketch.rpc.stream import Stream

Q = TypeVar("Q", bound="Message | bytes")
A = TypeVar("A", bound="Message | bytes")


class Channel:
    """A connection to a server, for any number of calls at once."""

    def __init__(self, stream: ByteStream, authority: str = "localhost") -> None:
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()  # when the connection is gone
        self._authority, self._stream = authority, stream
        self._connection = H2Connection(stream)
        self._task = asyncio.create_task(self._connection.run(), name="rpc-connection")
        self._task.add_done_callback(self._ended)

    @staticmethod
    def over(stream: ByteStream) -> Channel:
        """A channel on a stream, which belongs to it from now on."""
        return Channel(stream)

    @property
    def why(self) -> str:
        """The reason for which the connection is gone."""
        return self._connection.why

    def _ended(self, _task: asyncio.Task[None]) -> None:
        if not self.closed.done():
            self.closed.set_result(None)

    async def close(self, why: str = "") -> None:
        """Say farewell, give up the calls that run, close the stream; ``why`` is what these calls are told."""
        self._connection.give_up(why)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._stream.close()  # a task that is cancelled before it began has not

    async def unary(
        self, method: Method[Q, A], request: Q, metadata: Metadata | None = None, timeout: float | None = None
    ) -> A:
        """Call a method with one request and one answer; RpcError with the status that it ends with."""
        async with self.stream(method, metadata, timeout) as call:
            await call.send(request, end=True)
            answer = await call.receive()
            if answer is None:
                raise RpcError(Code.INTERNAL, f"{method.path} answered without a message")
            if await call.receive() is not None:
                raise RpcError(Code.INTERNAL, f"{method.path} answered with several messages")
            return answer

    @asynccontextmanager
    async def stream(
        self, method: Method[Q, A], metadata: Metadata | None = None, timeout: float | None = None
    ) -> AsyncIterator[ClientCall[Q, A]]:
        """A call; leaving it before it has ended gives it up.  ``timeout`` (seconds) bounds all of it."""
        own = checked(metadata or {})
        try:
            async with asyncio.timeout(timeout) as limit:
                stream = await self._connection.open()
                try:
                    stream.check()
                    stream.send_headers(self._headers(method.path, own, timeout))
                    yield ClientCall(stream, method)
                finally:
                    stream.reset()
        except TimeoutError as e:
            if not limit.expired():
                raise
            raise RpcError(Code.DEADLINE_EXCEEDED, f"{method.path} did not end within {timeout} s") from e

    def _headers(self, path: str, own: Headers, timeout: float | None) -> Headers:
        headers = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", self._authority),
            ("te", "trailers"),
            ("content-type", CONTENT_TYPE),
            ("user-agent", "ketch"),
            ("grpc-accept-encoding", "identity"),
        ]
        if timeout is not None:
            headers.append(("grpc-timeout", encode_timeout(timeout)))
        return headers + own


class ClientCall(Generic[Q, A]):
    """A call, for its caller."""

    def __init__(self, stream: Stream, method: Method[Q, A]) -> None:
        self.method = method
        self._stream = stream

    async def send(self, request: Q, *, end: bool = False) -> None:
        """Send a request, the last one with ``end``; waits while the server does not read.

        Raises the status that the server has ended the call with, if it has.
        """
        with self._ending():
            await self._stream.send(write(request), end=end)

    async def send_many(self, requests: Sequence[Q]) -> None:
        """Send several requests."""
        with self._ending():
            await self._stream.send_many([write(request) for request in requests])

    @contextmanager
    def _ending(self) -> Iterator[None]:
        try:
            yield
        except ConnectionResetError as e:
            raise self._status() or RpcError(Code.ABORTED, f"{self.method.path} has ended already") from e

    async def end(self) -> None:
        """End the requests."""
        if not self._stream.remote_ended:
            await self._stream.end()

    async def metadata(self) -> Mapping[str, Sequence[str]]:
        """The answer's first headers; waits for them."""
        try:
            return as_metadata(await asyncio.shield(self._stream.head))
        except asyncio.CancelledError:
            self._stream.check()
            raise

    async def receive(self) -> A | None:
        """The next answer; None at the end, or the error that the call ended with."""
        data = await self._stream.receive()
        if data is not None:
            return read(self.method.answer, data)
        error = self._status()
        if error is not None:
            raise error
        return None

    async def receive_many(self) -> list[A]:
        """All answers that are here, at least one; none at the end, or the error that the call ended with."""
        messages = await self._stream.receive_many()
        if not messages and (error := self._status()) is not None:
            raise error
        return [read(self.method.answer, data) for data in messages]

    async def __aiter__(self) -> AsyncIterator[A]:
        while (answer := await self.receive()) is not None:
            yield answer

    def trailers(self) -> Mapping[str, Sequence[str]]:
        """The headers at the end; empty before it."""
        return as_metadata(self._stream.trailers or ())

    def _status(self) -> RpcError | None:
        trailers = self.trailers()
        if "grpc-status" in trailers or not self._stream.head.done():
            return error_of(trailers)
        head: dict[str, Any] = dict(self._stream.head.result())
        return error_of_http(head.get(":status", "")) if head.get(":status") != "200" else error_of(trailers)
