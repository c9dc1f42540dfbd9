"""The page's listener, opened at the daemon's start or when somebody asks for it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from ketch.api.acceptor import Acceptor
from ketch.api.connection import Server
from ketch.api.tls import TlsFront
from ketch.errors import AlreadyExists
from ketch.ui import address as addresses
from ketch.ui.page import Page
from ketch.ui.sessions import TOKEN_S, PageSessions

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Awaitable, Callable, Iterable

    from ketch.api.call import Call
    from ketch.ui.address import PageAddress
    from ketch.ui.page import Handler

log = logging.getLogger(__name__)


class _Wish(msgspec.Struct, rename="pascal"):
    """The body of ``POST /ketch/ui``."""

    address: str = ""


class _Listening(msgspec.Struct):
    """The place at which the page is served."""

    address: PageAddress
    port: int
    secured: bool

    def url(self, token: str) -> str:
        """An address that logs in."""
        host = os.uname().nodename if self.address.is_everywhere else self.address.host
        authority = self.address._replace(host=host, port=self.port).authority
        return f"{'https' if self.secured else 'http'}://{authority}/?token={token}"


class UserInterface:
    """The page of one daemon.

    ``api`` makes the handler of the API behind it, ``bind`` a socket for a ``tcp://`` address, ``tls`` is for addresses
    beyond loopback.
    """

    def __init__(
        self,
        api: Callable[[], Handler],
        names: Iterable[str],
        bind: Callable[[str], socket.socket],
        tls: ssl.SSLContext | None,
    ) -> None:
        self._api = api
        self._names = list(names)
        self._bind = bind
        self._tls = tls
        self._sessions = PageSessions()
        self._opening = asyncio.Lock()
        self._listening: _Listening | None = None
        self._undo = contextlib.AsyncExitStack()

    async def open(self, call: Call) -> web.StreamResponse:
        """The handler of ``POST /ketch/ui``: a URL with a new token; the page is served from now on."""
        wish: _Wish = await call.body(_Wish, optional=True)
        async with self._opening:
            if self._listening is None:
                address = addresses.parse(wish.address or addresses.DEFAULT, secured=self._tls is not None)
                listener = self._bind(address.url)
                self._undo.callback(listener.close)
                await self.listen(address, listener)
            here = self._listening
        assert here is not None
        if wish.address and addresses.parse(wish.address, secured=True) not in (
            here.address,
            here.address._replace(port=here.port),
        ):
            authority = here.address._replace(port=here.port).authority
            raise AlreadyExists(f"serve the page on `{wish.address}`: it is served on {authority} already")
        return call.json({"Url": here.url(self._sessions.token()), "ValidSeconds": int(TOKEN_S)})

    async def log_out(self, call: Call) -> web.StreamResponse:
        """The handler of ``DELETE /ketch/ui/sessions``: whoever has logged in, wherever, has to do so again."""
        return call.json({"Ended": self._sessions.end_all()})

    @property
    def routes(self) -> list[tuple[str, str, Callable[[Call], Awaitable[web.StreamResponse]]]]:
        """The routes of the daemon's own sockets; the page has none of them."""
        return [("POST", "/ketch/ui", self.open), ("DELETE", "/ketch/ui/sessions", self.log_out)]

    async def listen(self, address: PageAddress, listener: socket.socket) -> None:
        """Serve the page on a bound socket, the caller's to close."""
        port = listener.getsockname()[1]
        names = [*self._names, address.host]
        server = Server(Page(self._api(), self._sessions, names, port).handle)
        runner = web.ServerRunner(server, handle_signals=False, shutdown_timeout=0.5)
        await runner.setup()
        self._undo.push_async_callback(runner.cleanup)
        tls = None if address.is_loopback else self._tls

        async def plain(connection: socket.socket) -> None:
            await asyncio.get_running_loop().connect_accepted_socket(server, connection)

        serve = plain if tls is None else TlsFront(server, tls).serve
        acceptor = Acceptor(listener, serve, hands_over=tls is None)
        acceptor.start()
        self._undo.push_async_callback(acceptor.close)
        self._listening = _Listening(address, port, tls is not None)
        log.info("the page is served on %s: `ketch ui` prints how to log in", address._replace(port=port).authority)

    async def close(self) -> None:
        """Serve it no more."""
        await self._undo.aclose()
