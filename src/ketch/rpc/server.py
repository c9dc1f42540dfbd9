"""The side of a connection that is called."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ketch.errors import KetchError
from ketch.rpc import limits
from ketch.rpc.connection import H2Connection
from ketch.rpc.frames import H2Error
from ketch.rpc.messages import read, write
from ketch.rpc.metadata import CONTENT_TYPE, as_metadata, checked, decode_timeout
from ketch.rpc.status import Code, RpcError, as_rpc_error, trailers_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
    from typing import TypeAlias

    from ketch.rpc.bytestream import ByteStream
    from ketch.rpc.metadata import Headers, Metadata
    from ketch.rpc.method import Message, Method
    from ketch.rpc.stream import Stream

    Handler: TypeAlias = Callable[["ServerCall[Any, Any]"], Awaitable[None]]
    Handlers: TypeAlias = Mapping[str, tuple[Method[Any, Any], Handler]]

Q = TypeVar("Q", bound="Message | bytes")
A = TypeVar("A", bound="Message | bytes")
log = logging.getLogger(__name__)
_HEAD = [(":status", "200"), ("content-type", CONTENT_TYPE), ("grpc-accept-encoding", "identity")]


class ServerCall(Generic[Q, A]):
    """A call, for its handler: requests come in, answers go out."""

    def __init__(self, stream: Stream, method: Method[Q, A], metadata: Mapping[str, Sequence[str]]) -> None:
        self.metadata = metadata
        self.method = method
        self.trailers: Metadata = {}  # metadata at the answer's end
        self._stream = stream
        self._begun = False

    async def receive(self) -> Q | None:
        """The next request; None when the client has sent all."""
        data = await self._stream.receive()
        return None if data is None else read(self.method.request, data)

    async def receive_many(self) -> list[Q]:
        """All requests that are here, at least one; none when the client has sent all."""
        return [read(self.method.request, data) for data in await self._stream.receive_many()]

    async def __aiter__(self) -> AsyncIterator[Q]:
        while (request := await self.receive()) is not None:
            yield request

    def begin(self, metadata: Metadata | None = None) -> None:
        """Send the answer's first headers now; otherwise they go with the first message."""
        if not self._begun:
            self._begun = True
            self._stream.send_headers([*_HEAD, *checked(metadata or {})])

    async def send(self, answer: A) -> None:
        """Send an answer; waits while the client does not read."""
        self.begin()
        await self._stream.send(write(answer))

    async def send_many(self, answers: Sequence[A]) -> None:
        """Send several answers."""
        self.begin()
        await self._stream.send_many([write(answer) for answer in answers])

    def finish(self, error: RpcError | None) -> None:
        """Send how the call ended; only the server itself does that."""
        head = [] if self._begun else _HEAD
        self._stream.send_headers([*head, *trailers_of(error), *checked(self.trailers)], end=True)
        self._stream.reset(H2Error.NO_ERROR)


def unary(answer: Callable[[Q, Mapping[str, Sequence[str]]], Awaitable[A]]) -> Handler:
    """A handler of calls with one request and one answer."""

    async def handle(call: ServerCall[Q, A]) -> None:
        request = await call.receive()
        if request is None:
            raise RpcError(Code.INTERNAL, f"{call.method.path} was called without a request")
        await call.send(await answer(request, call.metadata))

    return handle


async def serve(stream: ByteStream, handlers: Handlers) -> None:
    """Answer calls on a connection until the peer goes; then, or when this is cancelled, what still runs is cancelled.

    ``handlers`` by paths.  A handler that returns ends its call well, one that raises with the error's status.
    """
    calls = _Calls(handlers)
    try:
        await H2Connection(stream, calls.accept).run()
    finally:
        await calls.cancel()


class _Calls:
    """The calls of one connection."""

    def __init__(self, handlers: Handlers) -> None:
        self._handlers = handlers
        self._tasks: set[asyncio.Task[None]] = set()

    def accept(self, stream: Stream, headers: Headers) -> None:
        """A new call."""
        if len(self._tasks) >= limits.STREAMS:  # some have been given up, and have not noticed it yet
            stream.reset(H2Error.REFUSED_STREAM)
            return
        http = dict(headers)
        if http.get(":method") != "POST" or not http.get("content-type", "").startswith(CONTENT_TYPE):
            stream.send_headers([(":status", "415"), ("content-type", "text/plain")], end=True)
            stream.reset(H2Error.NO_ERROR)
            return
        task = asyncio.create_task(self._run(stream, http.get(":path", ""), as_metadata(headers)), name="rpc-call")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        stream.on_lost = task.cancel

    async def cancel(self) -> None:
        """Cancel what runs, and wait for it."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, stream: Stream, path: str, metadata: dict[str, list[str]]) -> None:
        found = self._handlers.get(path)
        if found is None:
            stream.send_headers([*_HEAD, *trailers_of(_unknown(path, self._handlers))], end=True)
            stream.reset(H2Error.NO_ERROR)
            return
        method, handler = found
        call: ServerCall[Any, Any] = ServerCall(stream, method, metadata)
        try:
            call.finish(await _outcome(call, handler))
        finally:
            stream.reset()


async def _outcome(call: ServerCall[Any, Any], handler: Handler) -> RpcError | None:
    """Run a handler; the error with which it ended."""
    try:
        _check_encoding(call.metadata)
        timeout = call.metadata.get("grpc-timeout")
        async with asyncio.timeout(decode_timeout(timeout[0]) if timeout else None) as limit:
            await handler(call)
    except KetchError as e:
        return as_rpc_error(e)
    except TimeoutError as e:
        if limit.expired():
            return RpcError(Code.DEADLINE_EXCEEDED, f"{call.method.path} was not ready in time")
        log.exception("%s failed", call.method.path)
        return RpcError(Code.UNKNOWN, str(e) or "timed out")
    except Exception as e:
        log.exception("%s failed", call.method.path)
        return RpcError(Code.UNKNOWN, f"{type(e).__name__}: {e}")
    return None


def _check_encoding(metadata: Mapping[str, Sequence[str]]) -> None:
    encoding = metadata.get("grpc-encoding", ("identity",))[0]
    if encoding != "identity":
        raise RpcError(Code.UNIMPLEMENTED, f"messages compressed with {encoding[:40]!r} are not understood")


def _unknown(path: str, handlers: Handlers) -> RpcError:
    service, _, method = path.lstrip("/").rpartition("/")
    if any(known.startswith(f"/{service}/") for known in handlers):
        return RpcError(Code.UNIMPLEMENTED, f"unknown method {method} for service {service}")
    return RpcError(Code.UNIMPLEMENTED, f"unknown service {service}")
