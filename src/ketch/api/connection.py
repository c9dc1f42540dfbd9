"""HTTP connections that can be hijacked, and clients that close their side early.

``attach`` and ``exec start`` take the connection over, with or without ``Upgrade``, and so do BuildKit's
clients.  A client may send its first input in the same packet as the request: to an HTTP parser it would be the next
request.  So these requests are given to the parser alone, and what comes behind them is kept for the container.

A client may also shut its sending side down as soon as it has asked (``nc -N``): it is answered all the same.
"""

from __future__ import annotations

import asyncio
import re
import select
import socket
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web

from ketch.api import errors
from ketch.errors import InvalidArgument
from ketch.storage.peer_descriptors import SentDescriptors

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp import StreamReader
    from aiohttp.abc import AbstractStreamWriter
    from aiohttp.http_parser import RawRequestMessage

    from ketch.api.webpages import Listener

# Go's own bound. (Compose sends filters with an id for each container: longer than the 8 KiB of most web servers.)
MAX_HEADER = 1 << 20
LARGEST_JSON = 8 << 20  # bytes of a body that is read as a whole; archives are streams and are not counted
_TAKES_OVER = re.compile(
    rb"POST (?:/v[\d.]+)?/{1,2}(?:containers/[^ ]+/attach|exec/[^ ]+/start|grpc|session"
    rb"|ketch/(?:session|descriptors|run|containers/[^ ]+/exec))[? ]"
)
_LENGTH = re.compile(rb"\r\nContent-Length:[ \t]*(\d{1,15})[ \t]*\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\nTransfer-Encoding:", re.IGNORECASE)
_LARGEST = 1 << 16  # of such a request, head and body
_LAST_REQUESTS_S = 0.25
_UNANSWERED_S = 5.0  # at the end, as dockerd; after it the handler is told, and has as long again


class Connection(web.RequestHandler):
    """One client's connection."""

    __slots__ = (
        "_begun",
        "_early",
        "_first",
        "_last_payload",
        "_taking",
        "listener",
        "may_be_taken",
        "on_lost",
        "sent",
    )

    def __init__(
        self, *arguments: Any, sent: SentDescriptors, listener: Listener | None = None, **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        self.sent = sent
        self.listener: Listener = listener or "tcp"  # a unix socket is known when the connection is there
        self.may_be_taken = True  # out of ketchd's hands, by an upgrade
        self._begun = b""  # of a request that may take the connection over, not whole yet
        self._taking = False  # such a request is being served …
        self._early = b""  # … and this came behind it
        self._last_payload: Any = None
        self._first: asyncio.Future[None] | None = None
        self.on_lost: Callable[[], object] = lambda: None  # for an answer that may wait for long

    def abort(self) -> None:
        """End the connection at once, with what is being answered."""
        if self.transport is not None:
            self.transport.abort()

    def take_early(self) -> bytes:
        """The bytes that the client has sent after its request."""
        early, self._early = self._early, b""
        return early

    @property
    def has_asked(self) -> bool:
        """Whether the client has sent a request."""
        return bool(self._request_count or self._messages)

    @property
    def owes_answer(self) -> bool:
        """Whether there is a request of which the client has heard nothing, but for those that take it over."""
        request = self._current_request
        return request is not None and not self._taking and request.writer.output_size == 0

    def first_request(self) -> asyncio.Future[None]:
        """Future that is done when the client, which has sent no request yet, sends one."""
        self._first = self._loop.create_future()
        return self._first

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is there."""
        super().connection_made(transport)
        if self.listener == "tcp" and transport.get_extra_info("socket").family == socket.AF_UNIX:
            self.listener = "unix"

    def connection_lost(self, exc: BaseException | None) -> None:
        """The connection has ended."""
        super().connection_lost(exc)
        self.on_lost()

    def data_received(self, data: bytes) -> None:
        """Bytes from the client."""
        between = not self._messages and self._current_request is None
        if self._taking:
            if not (between and self._waiter is not None):
                self._early += data
                return
            self._taking = False  # it was refused
            if self._early:
                self.force_close()  # what came behind it was no HTTP
                return
        if self._begun or (between and data[:6] == b"POST /"[: len(data)]):
            data = self._begun + data
            size = _size_of_takeover(data)
            if size > len(data):
                self._begun = data
                return
            self._begun = b""
            if size:
                self._taking, self._early = True, data[size:]
                data = data[:size]
        self._parse(data)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer a request that cannot be parsed, in JSON as well."""
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has been sent already")
        text = (message or str(exc) or "malformed request").partition("\n")[0]
        kind = errors.INTERNAL if status >= 500 else InvalidArgument.kind
        body = msgspec.json.encode(errors.body_of(text.rstrip(": ")[:500], kind))
        answer = web.Response(body=body, status=status, content_type="application/json")
        answer.force_close()
        return answer

    def _parse(self, data: bytes) -> None:
        super().data_received(data)
        if self._messages:
            self._last_payload = self._messages[-1][1]
            if self._first is not None and not self._first.done():
                self._first.set_result(None)

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """Handle the client's end of input; True keeps the connection open for the answer."""
        if self._begun:
            self._parse(self._begun)
            self._begun = b""
        answering = self._request_count and (self._waiter is None or self._waiter.done())
        whole = self._last_payload is not None and self._last_payload.is_eof()
        if self.transport is None or not answering or not whole or self._payload_parser is not None:
            return None
        if _gone(self.transport.get_extra_info("socket")):
            return None
        self.close()  # when it has been answered
        return True


class Server(web.Server):
    """Makes a `Connection` for each client."""

    def __init__(self, handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]) -> None:
        super().__init__(handler)
        self._options: dict[str, Any] = {
            "sent": SentDescriptors(),
            "access_log": None,
            "tcp_keepalive": True,
            "keepalive_timeout": 300,
            "max_line_size": MAX_HEADER,
            "max_field_size": MAX_HEADER,
            "auto_decompress": False,  # as dockerd: a body is what was sent, and its size is what is counted
        }

    def __call__(self) -> web.RequestHandler:
        """A protocol for a new connection."""
        return Connection(self, loop=self._loop, **self._options)

    def behind_tls(self) -> web.RequestHandler:
        """A protocol for a connection that `api.tls` decrypts."""
        return Connection(self, loop=self._loop, listener="tls", **self._options)

    async def shutdown(self, timeout: float | None = None) -> None:
        """Wait for running requests, then cancel them: ``timeout`` for streams, longer for who has no answer yet."""
        found = list(self._connections)
        await asyncio.gather(
            *(
                one.shutdown(_UNANSWERED_S if isinstance(one, Connection) and one.owes_answer else timeout)
                for one in found
            )
        )
        self._connections.clear()

    async def hear_last_requests(self) -> None:
        """Wait until the clients that connected last have asked: they do so at once, and are answered then."""
        new = [one.first_request() for one in self.connections if isinstance(one, Connection) and not one.has_asked]
        if new:
            await asyncio.wait(new, timeout=_LAST_REQUESTS_S)
        await asyncio.sleep(0)  # their handlers have begun

    def _make_request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: web.RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> web.BaseRequest:
        return web.BaseRequest(message, payload, protocol, writer, task, self._loop, client_max_size=LARGEST_JSON)


def _size_of_takeover(data: bytes) -> int:
    """The length of the hijack request at the start of ``data``; 0 when the request is no hijack.

    More than there is: it must be looked at again when more has come.
    """
    line = data.find(b"\r\n")
    if line < 0:
        return len(data) + 1 if len(data) < _LARGEST else 0
    if not _TAKES_OVER.match(data):
        return 0
    head = data.find(b"\r\n\r\n")
    if head < 0:
        return len(data) + 1 if len(data) < _LARGEST else 0
    if _CHUNKED.search(data, 0, head + 4):
        return 0
    length = _LENGTH.search(data, 0, head + 4)
    size = head + 4 + (int(length[1]) if length else 0)
    return size if size <= _LARGEST else 0


def _gone(sock: socket.socket) -> bool:
    """Whether the client has closed both directions, as far as that can be known (over TCP it cannot)."""
    poll = select.poll()
    poll.register(sock.fileno(), 0)
    return bool(poll.poll(0))
