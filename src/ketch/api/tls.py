"""TLS in front of the API: each connection is decrypted here and served as a plain one.

    client ══TLS══ TlsFront ──socketpair── HTTP server (and, after an upgrade, the container's monitor)

asyncio's own TLS closes a connection as soon as the client ends its sending side; `docker run -i` ends its
side first and wants the output after that.  With the plain end a socket like any other, upgrades need no special
case: only the decryption stays in this process.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ketch.api.connection import Server

log = logging.getLogger(__name__)
_CHUNK = 1 << 16
_HANDSHAKE_S = 10.0


class TlsFront:
    """A TLS server in front of an HTTP server, which gets the decrypted bytes."""

    def __init__(self, server: Server, context: ssl.SSLContext) -> None:
        self._server = server
        self._context = context

    async def serve(self, raw: socket.socket) -> None:
        """Serve a connection, which is ours from now on, to its end."""
        loop = asyncio.get_running_loop()
        with raw:
            tunnel = _Tunnel(raw, self._context)
            try:
                await asyncio.wait_for(tunnel.handshake(), _HANDSHAKE_S)
            except (TimeoutError, OSError) as e:  # SSLError is an OSError
                log.info("TLS handshake failed: %s", e or "timed out")
                with suppress(OSError):
                    await tunnel.flush()  # the alert that says why
                return
            near, far = socket.socketpair()
            with near:
                near.setblocking(False)
                far.setblocking(False)
                await loop.connect_accepted_socket(self._server.behind_tls, far)
                await tunnel.relay(near)


class _Tunnel:
    """One TLS connection over a raw socket, through memory buffers (ssl.SSLObject)."""

    def __init__(self, raw: socket.socket, context: ssl.SSLContext) -> None:
        self._raw = raw
        self._loop = asyncio.get_running_loop()
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._sending = asyncio.Lock()

    async def flush(self) -> None:
        """Send TLS's pending bytes, in order."""
        async with self._sending:
            while data := self._outgoing.read():
                await self._loop.sock_sendall(self._raw, data)

    async def _more(self) -> None:
        data = await self._loop.sock_recv(self._raw, _CHUNK)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    async def handshake(self) -> None:
        """Agree on keys (ssl.SSLError, also for a client without the certificate that is asked for)."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self.flush()
                await self._more()
            else:
                await self.flush()
                return

    async def relay(self, plain: socket.socket) -> None:
        """Copy both ways until both sides have ended, or either is gone."""
        inwards = asyncio.ensure_future(self._inwards(plain))
        try:
            await self._outwards(plain)
        except OSError as e:
            log.debug("TLS connection ended: %s", e)
        finally:
            inwards.cancel()
            await asyncio.gather(inwards, return_exceptions=True)

    async def _inwards(self, plain: socket.socket) -> None:
        try:
            while True:
                try:
                    data = self._tls.read(_CHUNK)
                except ssl.SSLWantReadError:
                    await self.flush()
                    await self._more()
                    continue
                if not data:
                    break
                await self._loop.sock_sendall(plain, data)
        except OSError as e:  # also: the client ended without saying so
            log.debug("TLS client ended: %s", e)
        with suppress(OSError):
            plain.shutdown(socket.SHUT_WR)

    async def _outwards(self, plain: socket.socket) -> None:
        while data := await self._loop.sock_recv(plain, _CHUNK):
            self._tls.write(data)
            await self.flush()
        with suppress(ssl.SSLError):  # it wants the client's goodbye, which need not be waited for
            self._tls.unwrap()
        await self.flush()
