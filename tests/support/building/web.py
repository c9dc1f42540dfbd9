"""A web server on loopback with files that a test gives it."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    files: Mapping[str, bytes]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is what some tests are about."""


class _File(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        data = self.server.files.get(self.path.partition("?")[0])
        self.send_response(404 if data is None else 200)
        self.send_header("Content-Length", str(len(data or b"")))
        if data is not None:
            self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.end_headers()
        self.wfile.write(data or b"")

    def log_message(self, *_arguments: Any) -> None:
        pass


@contextlib.contextmanager
def served(files: Mapping[str, bytes]) -> Iterator[str]:
    """Serve files by their paths (``/name``); the address of the server."""
    server = _Server(("127.0.0.1", 0), _File)
    server.files = files
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
