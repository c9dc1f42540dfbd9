"""The page of a daemon, and requests to it as a browser sends them."""

from __future__ import annotations

import http.client
import json
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from tests.support.waiting import patient

if TYPE_CHECKING:
    from tests.support.engines import Engine


class Answer(NamedTuple):
    """What a request was answered."""

    status: int
    headers: dict[str, str]
    body: str


class Served:
    """The page of a daemon."""

    def __init__(self, engine: Engine, port: int) -> None:
        self.engine = engine
        self.port = port
        self.origin = f"http://127.0.0.1:{port}"

    def address(self) -> str:
        """An address that logs in once."""
        return self.engine.ketch("ui").out.strip()

    def begin(self, path: str, **headers: str) -> http.client.HTTPResponse:
        """An answer that has begun, the caller's to read."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=patient(10))
        connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        return connection.getresponse()

    def ask(self, path: str, *, method: str = "GET", host: str = "", body: str = "", **headers: str) -> Answer:
        """One request; ``Sec_Fetch_Site="none"`` is that header."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=patient(10))
        try:
            connection.putrequest(method, path, skip_host=True)
            connection.putheader("Host", host or f"127.0.0.1:{self.port}")
            for name, value in headers.items():
                connection.putheader(name.replace("_", "-"), value)
            if body:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body.encode() or None)
            answer = connection.getresponse()
            names = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, names, answer.read().decode())
        finally:
            connection.close()

    def token(self) -> str:
        """A new token."""
        return urlsplit(self.address()).query.removeprefix("token=")

    def log_in(self, token: str, **headers: str) -> Answer:
        """The answer to a token."""
        return self.ask("/login", method="POST", Ketch_Page_Token=token, **headers)

    def session(self) -> dict[str, str]:
        """What requests of a new session have: its cookie and its key."""
        answer = self.log_in(self.token())
        assert answer.status == 200
        cookie = answer.headers["set-cookie"].partition(";")[0]
        return {"Cookie": cookie, "Ketch_Page_Key": json.loads(answer.body)["key"]}
