"""``/metrics`` for Prometheus, at an address of its own, whose every client is answered, as by dockerd."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from aiohttp import web

from ketch.api.acceptor import Acceptor
from ketch.api.connection import Server
from ketch.api.webpages import WebPages
from ketch.daemon import activation
from ketch.engine.metrics.service import EngineMetrics
from ketch.errors import PermissionDenied
from ketch.notation.metrics.exposition import CONTENT_TYPE

if TYPE_CHECKING:
    import socket
    from contextlib import AsyncExitStack

    from ketch.engine.engine import Engine

log = logging.getLogger("ketchd")


async def serve(engine: Engine, listener: socket.socket, names: list[str], stack: AsyncExitStack) -> None:
    """Answer on a bound socket, the caller's to close, until ``stack`` is left.

    ``names`` are those by which clients know this daemon.  On loopback web pages are kept away, which have no other way
    to what is there.
    """
    metrics = EngineMetrics(engine)
    pages = WebPages(names) if activation.is_local(listener) else None

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        try:
            if pages is not None:
                pages.check(request, "tcp")
        except PermissionDenied as e:
            return web.Response(status=403, text=f"{e.message}\n")
        if request.path != "/metrics":
            return web.Response(status=404, text="404 page not found\n")
        if request.method not in ("GET", "HEAD"):
            return web.Response(status=405, text="Method Not Allowed\n", headers={"Allow": "GET, HEAD"})
        return web.Response(body=(await metrics.text()).encode(), headers={"Content-Type": CONTENT_TYPE})

    server = Server(handle)
    runner = web.ServerRunner(server, handle_signals=False, shutdown_timeout=0.5)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)

    async def connected(connection: socket.socket) -> None:
        await asyncio.get_running_loop().connect_accepted_socket(server, connection)

    acceptor = Acceptor(listener, connected, hands_over=True)
    acceptor.start()
    stack.push_async_callback(acceptor.close)
    host, port = listener.getsockname()[:2]
    log.info("metrics at http://%s/metrics", f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
