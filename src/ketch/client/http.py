"""The Engine API over a plain socket: a small HTTP/1.1 client, because importing one costs more than a start.

Speaks what the API needs: JSON requests, answers with a length, in chunks or until the end, and connections
that stop being HTTP (``hijack``).  Errors of the daemon are raised as ``ketch.errors`` with its own words.
"""

from __future__ import annotations

import _socket
import os

from ketch import errors
from ketch.client.errors import error_in
from ketch.client.transport import connect
from ketch.contexts import suppress
from ketch.notation import documents

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    Query = dict[str, Any]  # parameters: texts, numbers, switches, and lists of texts; None is left out

_VERSION = b"HTTP/1."
_LONGEST_HEAD = 1 << 16
_SAFE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-~/:")


class UnansweredError(errors.Unavailable):
    """A connection that ended before the head of its answer had come."""

    def __init__(self) -> None:
        super().__init__("the daemon closed the connection without an answer", hint="look at its log")


def may_repeat(method: str) -> bool:
    """Whether a request can be sent again when the daemon closed an idle connection just then (RFC 9110 §9.2.2)."""
    return method in ("GET", "HEAD")


def quote(text: str) -> str:
    """Percent-encode for a path or a query value (RFC 3986); names of files need not be UTF-8."""
    return "".join(chr(b) if b in _SAFE else f"%{b:02X}" for b in os.fsencode(text))


def _has_empty_name(method: str, path: str) -> bool:
    """Whether the object's name in a path is empty: without it, the path may be that of all objects."""
    parts = [part for part in path.split("/") if part]
    if path.count("/") == len(parts) or not parts:  # nothing in it is empty
        return False
    # A name may begin or end with a slash; behind it stands a verb, but where it is the path's end.
    ends_with_name = method == "DELETE" or (method == "GET" and parts[0] in ("networks", "volumes"))
    return len(parts) - (parts[0] == "ketch") < (2 if ends_with_name else 3)


def request_head(method: str, path: str, query: Query | None, headers: dict[str, str]) -> bytes:
    """The first line and the headers of a request, to the empty line behind them (InvalidArgument: an empty name)."""
    if _has_empty_name(method, path):
        raise errors.InvalidArgument("invalid name or ID: value is empty")
    # A name may begin or end with a slash, which dockerd would redirect.
    target = quote("/" + "/".join(part for part in path.split("/") if part))
    pairs = [(k, v) for k, vs in (query or {}).items() for v in (vs if isinstance(vs, list) else [vs])]
    if pairs:
        target += "?" + "&".join(f"{quote(k)}={_value(v)}" for k, v in pairs if v is not None)
    lines = [f"{method} {target} HTTP/1.1", "Host: ketch", "User-Agent: ketch"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def check_begun(data: bytes) -> None:
    """Check what has come of an answer's head: a server of something else may say no more (Unavailable)."""
    too_long = len(data) > _LONGEST_HEAD and b"\r\n\r\n" not in data
    if too_long or not (data.startswith(_VERSION) or _VERSION.startswith(data)):
        raise _not_http()


def answer_head(head: bytes) -> tuple[int, dict[str, str]]:
    """The status and the headers, with names in lower case, of what stands before an answer's empty line."""
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    status, length = first.partition(" ")[2][:3], headers.get("content-length", "0")
    if len(status) < 3 or not all(text.isascii() and text.isdigit() and len(text) < 20 for text in (status, length)):
        raise _not_http()
    return int(status), headers


def json_value(body: bytes) -> Any:
    """The value of an answer in JSON (Unavailable: it is none)."""
    try:
        return documents.loads(body)
    except (ValueError, RecursionError):
        raise errors.Unavailable(
            "read the daemon's answer: it is not JSON", hint="is it a daemon that has this address?"
        ) from None


def _not_http() -> errors.Unavailable:
    return errors.Unavailable("read the daemon's answer: it is not HTTP", hint="is it a daemon that has this address?")


class Response:
    """An answer whose body is read as it comes."""

    def __init__(self, sock: _socket.socket, status: int, headers: dict[str, str], rest: bytes) -> None:
        self.status = status
        self.headers = headers
        self._sock = sock
        self._buffer = rest
        self._chunked = headers.get("transfer-encoding", "").lower() == "chunked"
        length = headers.get("content-length")
        self._left = int(length) if length is not None and not self._chunked else None

    def _more(self) -> bool:
        try:
            data = self._sock.recv(1 << 18)
        except OSError as e:
            raise errors.Unavailable(f"the daemon's answer broke off: {e.strerror or e}", hint="look at its log") from e
        self._buffer += data
        return bool(data)

    def iter_chunks(self) -> Iterator[bytes]:
        """The body in pieces, as they arrive."""
        if self.status in (204, 304) or self._left == 0:
            return
        if self._chunked:
            yield from self._iter_chunked()
            return
        while self._left is None or self._left > 0:
            if not self._buffer and not self._more():
                if self._left:
                    raise errors.Unavailable("the daemon's answer broke off", hint="look at its log")
                return
            data, self._buffer = self._buffer, b""
            if self._left is not None:
                self._left -= len(data)
            yield data

    def _iter_chunked(self) -> Iterator[bytes]:
        while True:
            while b"\r\n" not in self._buffer:
                if not self._more():
                    raise errors.Unavailable("the daemon's answer broke off", hint="look at its log")
            line, _, self._buffer = self._buffer.partition(b"\r\n")
            try:
                size = int(line.split(b";")[0], 16)
            except ValueError:
                raise errors.Unavailable("the daemon's answer broke off", hint="look at its log") from None
            if size == 0:
                return
            while len(self._buffer) < size + 2:
                if not self._more():
                    raise errors.Unavailable("the daemon's answer broke off", hint="look at its log")
            data, self._buffer = self._buffer[:size], self._buffer[size + 2 :]
            yield data

    def read(self) -> bytes:
        """The whole body."""
        return b"".join(self.iter_chunks())

    def json(self) -> Any:
        """The body as JSON; None when it is empty."""
        body = self.read()
        return json_value(body) if body.strip() else None

    def stream_lines(self) -> Iterator[Any]:
        """One JSON value a line, as they arrive."""
        rest = b""
        for chunk in self.iter_chunks():
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                if line.strip():
                    yield json_value(line)
        if rest.strip():
            yield json_value(rest)

    def close(self) -> None:
        """Close the connection."""
        self._sock.close()


class _Uploading(Response):
    """An answer that comes while the request's body is sent, which may fail."""

    def __init__(self, response: Response, failure: list[BaseException]) -> None:
        super().__init__(response._sock, response.status, response.headers, response._buffer)
        self._failure = failure

    def _more(self) -> bool:
        try:
            more = super()._more()
        except errors.Unavailable:
            if self._failure:
                raise self._failure[0] from None
            raise
        if not more and self._failure:
            raise self._failure[0]
        return more


class Hijacked:
    """A connection that is not HTTP any more, and the bytes that came with the answer."""

    def __init__(self, sock: _socket.socket, initial: bytes, headers: dict[str, str]) -> None:
        self.sock = sock
        self.initial = initial
        self.headers = headers
        self.content_type = headers.get("content-type", "")


class Client:
    """Requests to one daemon; every request has a connection of its own until it is read, then it is reused."""

    def __init__(self, host: str) -> None:
        self.host = host
        self._idle: _socket.socket | None = None

    def request(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        body: Any = None,
        *,
        stream: bool = False,
        headers: dict[str, str] | None = None,
    ) -> Response:
        """Send a request; an error status is raised.  With ``stream`` the body is left to the caller.

        ``body`` is a JSON value, bytes, or an iterable of bytes (sent in chunks).
        """
        idle = self._idle_connection()
        sock = idle or connect(self.host)
        with suppress(BrokenPipeError, ConnectionResetError):  # the daemon may answer before it has read everything
            self._send(sock, method, path, query, body, headers or {})
        try:
            response = self._receive(sock)
        except UnansweredError:
            if idle is None or not may_repeat(method):
                raise
            return self.request(method, path, query, body, stream=stream, headers=headers)
        if method == "HEAD":  # its headers are those of a body that does not come (RFC 9110 §9.3.2)
            response._left, response._chunked = 0, False
        if response.status >= 400:
            raise error_in(response.status, response.read())
        if not stream:
            body_bytes = response.read()
            response._buffer, response._left, response._chunked = body_bytes, len(body_bytes), False
            if response.headers.get("connection", "").lower() != "close" and not response.headers.get("upgrade"):
                self._idle = sock
        return response

    def upload(
        self,
        method: str,
        path: str,
        body: Iterable[bytes],
        query: Query | None = None,
        headers: dict[str, str] | None = None,
    ) -> Response:
        """Send a body of any length while the answer comes, which the caller reads; an error status is raised.

        An error of ``body`` itself ends the request, and is raised when the answer breaks off.
        """
        import threading  # here: most commands have no use for it, and each start would pay for it

        sock = connect(self.host)
        failure: list[BaseException] = []

        def send() -> None:
            try:
                with suppress(BrokenPipeError, ConnectionResetError):  # it may have been answered already
                    self._send(sock, method, path, query, iter(body), headers or {})
            except BaseException as e:
                failure.append(e)
                with suppress(OSError):
                    sock.shutdown(_socket.SHUT_RDWR)

        threading.Thread(target=send, name="upload", daemon=True).start()
        try:
            response = _Uploading(self._receive(sock), failure)
        except errors.Unavailable:
            if failure:
                raise failure[0] from None
            raise
        if response.status >= 400:
            raise error_in(response.status, response.read())
        return response

    def _idle_connection(self) -> _socket.socket | None:
        """The idle connection, unless the daemon has closed it, as it does after some minutes."""
        sock, self._idle = self._idle, None
        if sock is None or is_waiting(sock):
            return sock
        sock.close()
        return None

    def hijack(self, method: str, path: str, query: Query | None = None, body: Any = None) -> Hijacked:
        """Ask for the connection itself (101, or 200 from older daemons)."""
        sock = connect(self.host)
        self._send(sock, method, path, query, body, {"Connection": "Upgrade", "Upgrade": "tcp"})
        response = self._receive(sock)
        if response.status >= 400:
            raise error_in(response.status, response.read())
        return Hijacked(sock, response._buffer, response.headers)

    def _send(
        self,
        sock: _socket.socket,
        method: str,
        path: str,
        query: Query | None,
        body: Any,
        headers: dict[str, str],
    ) -> None:
        payload = b""
        chunks: Iterable[bytes] | None = None
        given = {}
        if isinstance(body, bytes):
            payload = body
        elif body is not None and not isinstance(body, (dict, list, str)):
            chunks = body
            given = {"Transfer-Encoding": "chunked", "Content-Type": "application/x-tar"}
        elif body is not None:
            payload = documents.dumps(body).encode()
            given = {"Content-Type": "application/json"}
        if chunks is None and (payload or method == "POST"):
            given["Content-Length"] = str(len(payload))
        sock.sendall(request_head(method, path, query, {**given, **headers}) + payload)
        if chunks is not None:
            for chunk in chunks:
                if chunk:
                    sock.sendall(b"%x\r\n%b\r\n" % (len(chunk), chunk))
            sock.sendall(b"0\r\n\r\n")

    def _receive(self, sock: _socket.socket) -> Response:
        data = b""
        while b"\r\n\r\n" not in data:
            try:
                more = sock.recv(1 << 16)
            except ConnectionResetError:
                more = b""
            except OSError as e:
                raise errors.Unavailable(f"read the daemon's answer: {e.strerror}") from e
            if not more:
                sock.close()
                raise UnansweredError
            data += more
            check_begun(data)
        head, _, rest = data.partition(b"\r\n\r\n")
        return Response(sock, *answer_head(head), rest)


def is_waiting(sock: _socket.socket) -> bool:
    """Whether an idle connection can be reused: the other end has neither closed it nor sent anything."""
    try:
        sock.recv(1, _socket.MSG_PEEK | _socket.MSG_DONTWAIT)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "1" if value else "0"
    return quote(value if isinstance(value, str) else documents.dumps(value)).replace("/", "%2F").replace(":", "%3A")
