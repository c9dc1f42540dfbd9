"""Requests to an engine: HTTP/1.1 on connections that are used again."""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING

from ketch.aio.streams import Stream
from ketch.client import http, transport
from ketch.client.errors import error_in
from ketch.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from ketch.aio.waiting import Deadline, Waiter
    from ketch.client.http import Query

_BROKEN = "the engine's answer broke off"


class Answer:
    """An answer whose body is read as it comes; whole ones leave the connection to the next request."""

    def __init__(self, stream: Stream, status: int, headers: dict[str, str], rest: bytes) -> None:
        self.stream = stream
        self.status = status
        self.headers = headers
        self.rest = rest
        self._chunked = headers.get("transfer-encoding", "").lower() == "chunked"
        length = headers.get("content-length")
        self._left = int(length) if length is not None and not self._chunked else None
        if status in (204, 304):
            self._left, self._chunked = 0, False

    @property
    def reusable(self) -> bool:
        """Whether the connection can be used again, now that the body is read."""
        return self._left == 0 and not self.rest and self.headers.get("connection", "").lower() != "close"

    async def _more(self, deadline: Deadline) -> None:
        data = await self.stream.receive(deadline)
        if not data:
            raise Unavailable(_BROKEN, hint="look at its log")
        self.rest += data

    async def next(self, deadline: Deadline = None) -> bytes:
        """The next piece of the body; nothing at its end (Unavailable when it breaks off)."""
        if self._chunked:
            return await self._next_chunk(deadline)
        if self._left == 0:
            return b""
        if not self.rest:
            self.rest = await self.stream.receive(deadline)
            if not self.rest and self._left is not None:
                raise Unavailable(_BROKEN, hint="look at its log")
        piece = self.rest if self._left is None else self.rest[: self._left]
        self.rest = self.rest[len(piece) :]
        if self._left is not None:
            self._left -= len(piece)
        return piece

    async def _next_chunk(self, deadline: Deadline) -> bytes:
        while b"\r\n" not in self.rest:
            await self._more(deadline)
        line, _, rest = self.rest.partition(b"\r\n")
        try:
            size = int(line.split(b";")[0], 16)
        except ValueError:
            raise Unavailable(_BROKEN, hint="look at its log") from None
        while len(rest) < size + 2:
            await self._more(deadline)
            rest = self.rest[len(line) + 2 :]
        self.rest = rest[size + 2 :]
        if not size:
            self._chunked, self._left = False, 0
        return rest[:size]

    async def read(self, deadline: Deadline = None) -> bytes:
        """The rest of the body."""
        pieces = []
        while piece := await self.next(deadline):
            pieces.append(piece)
        return b"".join(pieces)


class Http:
    """The connections to one engine; threads and tasks may share it, and forked children get connections of their own.

    ``headers`` go with each request.
    """

    def __init__(self, host: str, waiter: Waiter) -> None:
        self.host = host
        self.waiter = waiter
        self.headers: dict[str, str] = {}
        self._idle: list[Stream] = []
        self._pid = os.getpid()

    async def request(
        self, method: str, path: str, query: Query | None = None, body: Any = None, *, deadline: Deadline = None
    ) -> bytes:
        """Send a request, and return the body of its answer; an error status is raised."""
        answer = await self.open(method, path, query, body, deadline=deadline)
        try:
            content = await answer.read(deadline)
        except BaseException:
            answer.stream.close()
            raise
        if answer.reusable:
            self._idle.append(answer.stream)
        else:
            answer.stream.close()
        return content

    async def json(
        self, method: str, path: str, query: Query | None = None, body: Any = None, *, deadline: Deadline = None
    ) -> Any:
        """The same for an answer in JSON; None when it is empty."""
        content = await self.request(method, path, query, body, deadline=deadline)
        return http.json_value(content) if content.strip() else None

    async def open(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        body: Any = None,
        *,
        headers: dict[str, str] | None = None,
        deadline: Deadline = None,
    ) -> Answer:
        """Send a request, and return its answer, whose body and connection are the caller's.

        ``body`` is a JSON value, bytes, or an iterable of bytes, which is read in pieces while it is sent.
        """
        idle = self._idle_connection()
        stream = idle or await self._connect()
        try:
            await self._send(stream, (method, path, query), body, headers or {}, deadline)
            return await self._head(stream, deadline)
        except http.UnansweredError:
            stream.close()
            if idle is None or not http.may_repeat(method):
                raise
        except BaseException:
            stream.close()
            raise
        return await self.open(method, path, query, body, headers=headers, deadline=deadline)

    async def upgrade(
        self, method: str, path: str, query: Query | None = None, body: Any = None, *, deadline: Deadline = None
    ) -> Answer:
        """Ask for the connection itself: ``rest`` of the answer is what came with it already."""
        stream = await self._connect()
        try:
            upgrade = {"Connection": "Upgrade", "Upgrade": "tcp"}
            await self._send(stream, (method, path, query), body, upgrade, deadline)
            return await self._head(stream, deadline)
        except BaseException:
            stream.close()
            raise

    def close(self) -> None:
        """Close the connections that nobody uses."""
        while self._idle:
            self._idle.pop().sock.close()

    def forget(self) -> None:
        """Leave the connections to the process that this one was forked from."""
        self._pid = os.getpid()
        self.close()

    def _idle_connection(self) -> Stream | None:
        if self._pid != os.getpid():
            self.forget()
        with contextlib.suppress(IndexError):
            while True:
                stream = self._idle.pop()
                if http.is_waiting(stream.sock):
                    return stream
                stream.sock.close()
        return None

    async def _connect(self) -> Stream:
        if self.host.startswith("unix://"):  # where nothing is waited for
            return Stream(transport.connect_unix(self.host.removeprefix("unix://")), self.waiter)
        return Stream(await self.waiter.called(lambda: transport.connect(self.host)), self.waiter)

    async def _send(
        self,
        stream: Stream,
        target: tuple[str, str, Query | None],
        body: Any,
        headers: dict[str, str],
        deadline: Deadline,
    ) -> None:
        given = {**self.headers, **headers}
        if body is None or isinstance(body, bytes):
            payload = body or b""
        elif isinstance(body, dict | list | str):
            payload = json.dumps(body).encode()
            given["Content-Type"] = "application/json"
        else:
            given |= {"Transfer-Encoding": "chunked", "Content-Type": "application/x-tar"}
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it answers before it has read all
                await stream.send(http.request_head(*target, given), deadline)
                await self._send_pieces(stream, body, deadline)
            return
        given["Content-Length"] = str(len(payload))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            await stream.send(http.request_head(*target, given) + payload, deadline)

    async def _send_pieces(self, stream: Stream, body: Iterable[bytes], deadline: Deadline) -> None:
        pieces = iter(body)
        while (piece := await self.waiter.called(lambda: next(pieces, None))) is not None:
            if piece:
                await stream.send(b"%x\r\n%b\r\n" % (len(piece), piece), deadline)
        await stream.send(b"0\r\n\r\n", deadline)

    async def _head(self, stream: Stream, deadline: Deadline) -> Answer:
        data = b""
        while b"\r\n\r\n" not in data:
            more = await stream.receive(deadline)
            if not more:
                raise http.UnansweredError
            data += more
            http.check_begun(data)
        head, _, rest = data.partition(b"\r\n\r\n")
        answer = Answer(stream, *http.answer_head(head), rest)
        if answer.status >= 400:
            raise error_in(answer.status, await answer.read(deadline))
        return answer
