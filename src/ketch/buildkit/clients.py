"""Connections of BuildKit's clients, from all listeners; what serves them is imported with the first one.

A client of Docker's API asks for its connection to become one of gRPC's (``POST /grpc``) or a session, in which the
daemon calls the client (``POST /session``).  Those of a listener of its own speak gRPC from the first byte, and have
their session inside of a call.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Coroutine, Mapping, Sequence
    from typing import Any

    from ketch.buildkit.control.server import BuildKitServer
    from ketch.engine.engine import Engine
    from ketch.rpc.bytestream import ByteStream

log = logging.getLogger(__name__)
_HANDSHAKE_S = 10.0


class BuildKitClients:
    """All of them, of one daemon."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._made: BuildKitServer | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def server(self) -> BuildKitServer:
        """The server, made at the first call."""
        if self._made is None:
            from ketch.buildkit.control.server import BuildKitServer

            self._made = BuildKitServer(self._engine)
        return self._made

    def take_calls(self, sock: socket.socket, initial: bytes) -> None:
        """Serve calls on a connection, which is ours from now on; ``initial`` has come already."""
        self._begin(sock, initial, self.server().serve)

    def take_session(self, sock: socket.socket, initial: bytes, headers: Mapping[str, Sequence[str]]) -> None:
        """Serve a session on a connection, which is ours from now on; the request's headers tell whose it is."""
        server = self.server()
        self._begin(sock, initial, lambda stream: server.serve_session(stream, headers))

    async def serve(self, sock: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        """Serve a connection that speaks gRPC from the first byte, to its end."""
        from ketch.rpc.bytestream import TransportStream

        loop = asyncio.get_running_loop()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # a host that is gone says nothing
        try:
            _, stream = await loop.connect_accepted_socket(
                TransportStream, sock, ssl=tls, ssl_handshake_timeout=_HANDSHAKE_S if tls is not None else None
            )
        except (OSError, TimeoutError) as e:  # SSLError is an OSError
            sock.close()
            log.info("TLS handshake of a client of BuildKit's failed: %s", e or "timed out")
            return
        await self.server().serve(stream)

    async def close(self) -> None:
        """End the connections that are left."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._made is not None:
            await self._made.close()

    def _begin(
        self, sock: socket.socket, initial: bytes, serve: Callable[[ByteStream], Coroutine[Any, Any, None]]
    ) -> None:
        task = asyncio.create_task(_serve(sock, initial, serve), name="buildkit-client")
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("a client of BuildKit's: %s", error)


async def _serve(sock: socket.socket, initial: bytes, serve: Callable[[ByteStream], Coroutine[Any, Any, None]]) -> None:
    from ketch.rpc.bytestream import over_socket

    try:
        stream = await over_socket(sock, initial)
    except BaseException:
        sock.close()
        raise
    await serve(stream)
