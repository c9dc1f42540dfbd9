"""The API without a client library: one request a connection, and an answer that never comes is an answer, too."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any
from urllib.parse import urlencode

from tests.support.waiting import patient


def connected(path: str) -> socket.socket:
    """A connection to the daemon that listens at ``path``."""
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.connect(path)
    except BaseException:
        sock.close()
        raise
    return sock


class Unix(http.client.HTTPConnection):
    """HTTP over the daemon's socket."""

    def __init__(self, path: str, timeout: float = 10) -> None:
        super().__init__("localhost", timeout=patient(timeout))
        self._path = path

    def connect(self) -> None:
        self.sock = connected(self._path)
        self.sock.settimeout(self.timeout)


class Api:
    """Requests to the daemon that listens at ``path``; status 0: the connection broke before an answer."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __call__(
        self, method: str, path: str, body: Any = None, *, timeout: float = 30, media: str = "", **query: Any
    ) -> tuple[int, Any]:
        """(status, decoded answer); ``body`` as JSON unless it is bytes, which are an archive unless ``media`` says."""
        raw = isinstance(body, bytes)
        data = body if raw else json.dumps(body).encode() if body is not None else None
        kind = media or ("application/x-tar" if raw else "application/json")
        connection = Unix(self.path, timeout)
        try:
            connection.request(
                method, path + (f"?{urlencode(query)}" if query else ""), data, {"Content-Type": kind} if data else {}
            )
            answer = connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException):
            return 0, None
        finally:
            connection.close()
        try:
            return answer.status, json.loads(text) if text else None
        except ValueError:
            return answer.status, text

    def must(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """The answer of a request that has to succeed."""
        status, answer = self(method, path, body, **query)
        assert 200 <= status < 300 or status == 304, (method, path, status, answer)
        return answer
