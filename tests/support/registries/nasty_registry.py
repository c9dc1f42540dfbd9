"""A registry that does what it should not: real HTTP on loopback, with the images and the faults that a test gives it.

with NastyRegistry() as one:
    one.add("app", "1", image)
    one.faults.append(Fault(path="/blobs/", cut_at=1000, times=2))
"""

from __future__ import annotations

import http.server
import json
import select
import socket
import ssl
import struct
import threading
import time
import urllib.parse
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.support.registries.made_images import Made, digest
from tests.support.waiting import patient

if TYPE_CHECKING:
    from typing import Any


@dataclass
class Fault:
    """What goes wrong with requests whose path contains ``path``, ``times`` times (-1: always).

    ``stall_at``/``cut_at``/``reset_at``: after so many bytes of the body; ``end``: the body ends there although its
    length says more, with a proper close.
    """

    path: str
    times: int = -1
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    stall_at: int = -1
    cut_at: int = -1
    reset_at: int = -1
    method: str = "GET"


@dataclass
class Request:
    """One request that came."""

    method: str
    path: str
    headers: dict[str, str]

    @property
    def offset(self) -> int:
        """Where the ``Range`` begins; 0 without."""
        return int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])


class NastyRegistry:
    """The server; ``token``: it wants a bearer token, each good for ``uses`` requests; ``tls``: certificate, key."""

    def __init__(
        self, *, ranges: bool = True, token: bool = False, uses: int = 1_000_000, tls: tuple[str, str] | None = None
    ) -> None:
        self.ranges, self.token, self.uses = ranges, token, uses
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.manifests: dict[str, tuple[bytes, str]] = {}
        self.blobs: dict[str, bytes] = {}
        self.left: dict[str, int] = {}
        self.rate = 0  # bytes a second; 0: as fast as it goes
        self.given_up = 0  # stalled answers whose client went away
        self.ended = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.registry = self
        if tls is not None:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(*tls)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.host = f"127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> NastyRegistry:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.ended.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def add(self, repository: str, tag: str, made: Made) -> None:
        """Have an image, with all that it needs."""
        for one in made.manifests:
            self.add(repository, one.digest, one)
        self.blobs.update(made.blobs)
        for ref in (tag, made.digest):
            self.manifests[f"{repository}/manifests/{ref}"] = (made.data, made.media_type)

    def clear_faults(self) -> None:
        """Behave from now on."""
        self.faults.clear()

    def asked(self, part: str) -> list[Request]:
        """The requests whose path contains this."""
        return [one for one in self.requests if part in one.path]


class _Server(http.server.ThreadingHTTPServer):
    registry: NastyRegistry
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is what many tests are about."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        self._serve()

    def do_HEAD(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def do_PATCH(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def log_message(self, *_arguments: Any) -> None:
        pass

    def _serve(self) -> None:
        one = self.server.registry
        one.requests.append(Request(self.command, self.path, dict(self.headers)))
        fault = next((f for f in one.faults if f.path in self.path and f.method == self.command and f.times), None)
        if fault is not None:
            fault.times -= 1
        path = urllib.parse.urlsplit(self.path).path
        if path == "/token":
            return self._token(fault)
        if one.token and not self._allowed():
            realm = f'Bearer realm="http://{one.host}/token",service="nasty",scope="repository:app:pull"'
            return self._answer(
                401,
                b'{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}',
                fault,
                {"WWW-Authenticate": realm},
            )
        status, body, kind = self._find(path)
        headers = {"Content-Type": kind}
        wanted = self.headers.get("Range")
        if wanted and one.ranges and status == 200 and "/blobs/" in path:
            start = int(wanted.removeprefix("bytes=").partition("-")[0])
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
            status, body = 206, body[start:]
        return self._answer(status, body, fault, headers)

    def _token(self, fault: Fault | None) -> None:
        one = self.server.registry
        text = f"token-{len(one.left)}"
        one.left[text] = one.uses
        self._answer(200, json.dumps({"token": text, "expires_in": 300}).encode(), fault, {})

    def _allowed(self) -> bool:
        left = self.server.registry.left
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        left[token] = left.get(token, 0) - 1
        return left[token] >= 0

    def _find(self, path: str) -> tuple[int, bytes, str]:
        one = self.server.registry
        rest = path.removeprefix("/v2/")
        if rest.endswith("/tags/list"):
            manifests = rest.removesuffix("tags/list") + "manifests/"
            refs = [ref.removeprefix(manifests) for ref in one.manifests if ref.startswith(manifests)]
            tags = sorted(ref for ref in refs if ":" not in ref)
            if tags:
                return 200, json.dumps({"tags": tags}).encode(), "application/json"
        if not rest:
            return 200, b"{}", "application/json"
        if rest in one.manifests:
            return 200, *one.manifests[rest]
        name = rest.rpartition("/")[2]
        if "/blobs/" in rest and name in one.blobs:
            return 200, one.blobs[name], "application/octet-stream"
        return 404, b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}', "application/json"

    def _answer(self, status: int, body: bytes, fault: Fault | None, headers: dict[str, str]) -> None:
        if fault is not None:
            status = fault.status or status
            body = fault.body if fault.body is not None else body
            headers = {**headers, **fault.headers}
        self.send_response(status)
        for name, value in {"Docker-Content-Digest": digest(body), **headers}.items():
            if value:
                self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self._send(body, fault)

    def _stall(self, one: NastyRegistry) -> None:
        """Send nothing until the client goes away, the registry ends, or half a minute is over."""
        deadline = time.monotonic() + patient(30)
        while not one.ended.wait(0.02) and time.monotonic() < deadline:
            if select.select([self.connection], [], [], 0)[0]:
                one.given_up += 1
                return

    def _send(self, body: bytes, fault: Fault | None) -> None:
        one = self.server.registry
        stops = [at for at in (fault.stall_at, fault.cut_at, fault.reset_at) if at >= 0] if fault else []
        end = min([*stops, len(body)])
        step = max(one.rate // 20, 1) if one.rate else 1 << 20
        for start in range(0, end, step):
            self.wfile.write(body[start : min(start + step, end)])
            self.wfile.flush()
            if one.rate:
                time.sleep(0.05)
        if fault is None or not stops:
            return
        if fault.stall_at >= 0:
            self._stall(one)
        if fault.reset_at >= 0:
            one.ended.wait(0.3)  # what the other side has not read yet goes with the connection
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        self.close_connection = True
