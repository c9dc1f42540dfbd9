"""Connections of BuildKit's clients, from all listeners; what serves them is imported with the first one.

A client of Docker's API asks for its connection to become one of gRPC's (``POST /grpc``) or a session, in which the
daemon calls the client (``POST /session``).  Those of a listener of its own speak gRPC from the first byte, and have
their session inside of a call.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Coroutine
    from typing import Any

    from ketch.buildkit.control.server import BuildKitServer
    from ketch.engine.build.frontends.bridge import Bridge, FrontendRequest
    from ketch.engine.build.frontends.results import FrontendResult
    from ketch.engine.engine import Engine
    from ketch.rpc.bytestream import ByteStream

log = logging.getLogger(__name__)
_HANDSHAKE_S = 10.0
_PROBED_S, _PROBES = 15, 9  # as often as Go's listeners probe: a host is given up after two minutes
_GATEWAY = "gateway.v0"


class BuildKitClients:
    """All of them, of one daemon."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._made: BuildKitServer | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        engine.builds.frontends[_GATEWAY] = self._gateway

    async def _gateway(self, bridge: Bridge, request: FrontendRequest) -> FrontendResult:
        """The front end that runs an image."""
        from ketch.buildkit.control.workers import worker
        from ketch.buildkit.gateway.frontend import GatewayFrontend

        frontend = GatewayFrontend(self._engine.builds.executor, lambda: [worker(self._engine)])
        return await frontend(bridge, request)

    async def server(self) -> BuildKitServer:
        """The server, made at the first call: in a thread, since others want to be answered meanwhile."""
        if self._made is None:
            module = await asyncio.to_thread(importlib.import_module, "ketch.buildkit.control.server")
            self._made = self._made or module.BuildKitServer(self._engine)
        assert self._made is not None
        return self._made

    def take(
        self, sock: socket.socket, initial: bytes, serve: Callable[[ByteStream], Coroutine[Any, Any, None]]
    ) -> None:
        """Serve a connection, which is ours from now on, in a way of the server's; ``initial`` has come already."""
        task = asyncio.create_task(_serve(sock, initial, serve), name="buildkit-client")
        self._tasks.add(task)
        task.add_done_callback(self._done)

    async def serve(self, sock: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        """Serve a connection that speaks gRPC from the first byte, to its end."""
        loop = asyncio.get_running_loop()
        try:
            server = await self.server()
            from ketch.rpc.bytestream import TransportStream

            _keep_alive(sock)
            _, stream = await loop.connect_accepted_socket(
                TransportStream, sock, ssl=tls, ssl_handshake_timeout=_HANDSHAKE_S if tls is not None else None
            )
        except (OSError, TimeoutError) as e:  # SSLError is an OSError
            sock.close()
            log.info("TLS handshake of a client of BuildKit's failed: %s", e or "timed out")
            return
        except BaseException:
            sock.close()
            raise
        await server.serve(stream)

    async def close(self) -> None:
        """End the connections that are left, when builds have ended and their clients know why."""
        if self._made is not None:
            await self._engine.builds.interrupted()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._made is not None:
            await self._made.close()

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("a client of BuildKit's: %s", error)


def _keep_alive(sock: socket.socket) -> None:
    """Have a host that is gone noticed, which says nothing; one whose client only waits answers."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _PROBED_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _PROBED_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _PROBES)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _PROBED_S * _PROBES * 1000)  # of what is on the way


async def _serve(sock: socket.socket, initial: bytes, serve: Callable[[ByteStream], Coroutine[Any, Any, None]]) -> None:
    from ketch.rpc.bytestream import over_socket

    try:
        _keep_alive(sock)
        stream = await over_socket(sock, initial)
    except BaseException:
        sock.close()
        raise
    await serve(stream)
