"""The page over HTTP: its files, logging in, and behind that the Engine API.

Every request is checked first: for whom the browser asks and by which name it knows us (`api.webpages`), then for
the session's cookie and key.  What the API answers is for the page's scripts alone and never a document of its own, so
that nothing that containers write is shown as a page of this origin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from ketch.api import errors, jsontext
from ketch.api.connection import Connection
from ketch.api.routes.websockets import PAGE_PROTOCOL
from ketch.api.webpages import WebPages
from ketch.errors import KetchError, NotFound, PermissionDenied, Unauthenticated
from ketch.ui import assets

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from ketch.ui.sessions import PageSession, PageSessions

    Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

_TOKEN = "Ketch-Page-Token"  # the header with a one-time token
_KEY = "Ketch-Page-Key"  # … with a session's key
_KEY_PROTOCOL = "key."  # the key behind it, of a WebSocket, whose headers scripts cannot choose
_DOORS = ("/", "/login")
_OF_SCRIPTS = ("", "empty", "websocket")  # Sec-Fetch-Dest; older browsers send none


class Page:
    """The handler of one listener.

    ``api`` answers what is no file of the page, ``names`` are those by which clients know the machine, beside its own.
    """

    def __init__(self, api: Handler, sessions: PageSessions, names: Iterable[str], port: int) -> None:
        self._api = api
        self._sessions = sessions
        self._web_pages = WebPages(names)
        self._cookie = f"ketch-ui-{port}"  # browsers send cookies to every port

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request."""
        try:
            self._web_pages.check_host(request)  # names count behind TLS, too
            if not _is_visit(request):
                self._web_pages.check_origin(request)
            answer = self._own(request)
            if answer is not None:
                return answer
            session = self._session(request)
            if request.path == "/logout":
                _check_method(request, "POST")
                self._sessions.end(session)
                return web.Response(status=204, headers=assets.HEADERS)
            if request.headers.get("Sec-Fetch-Dest", "").lower() not in _OF_SCRIPTS:
                raise PermissionDenied("the API's answers are for the page's scripts")
        except KetchError as e:
            return _refusal(request, e)
        assert isinstance(request.protocol, Connection)
        request.protocol.may_be_taken = False  # a session's end must reach it
        with self._sessions.use(session, request.protocol.abort):
            return await self._api(request)

    def _own(self, request: web.BaseRequest) -> web.StreamResponse | None:
        """The answer to what needs no session: files, and the way to one; None for all else."""
        if request.path == "/login" and request.method == "POST":
            return self._log_in(request)
        if request.path in _DOORS:
            _check_method(request, "GET")
            if request.path == "/login" or "token" in request.query:
                return assets.answer("login.html")
            known = self._sessions.knows(request.cookies.get(self._cookie, ""))
            return assets.answer("index.html") if known else assets.answer("login.html", 401)
        if request.path.startswith("/static/"):
            _check_method(request, "GET")
            return assets.answer(request.path.removeprefix("/static/"))
        return None

    def _log_in(self, request: web.BaseRequest) -> web.Response:
        """Exchange a token for a session's cookie, and its key for the script that asks (Unauthenticated)."""
        secrets = self._sessions.begin(request.headers.get(_TOKEN, "").strip())
        if secrets is None:
            raise Unauthenticated("this token has been used or is too old", hint="`ketch ui` prints a new one")
        headers = {**assets.HEADERS, "Cache-Control": "no-store", "Content-Type": "application/json"}
        answer = web.Response(body=jsontext.line({"key": secrets.key}), headers=headers)
        secure = isinstance(request.protocol, Connection) and request.protocol.listener == "tls"
        answer.set_cookie(self._cookie, secrets.cookie, httponly=True, samesite="Strict", secure=secure)
        return answer

    def _session(self, request: web.BaseRequest) -> PageSession:
        """The session that a request is of (Unauthenticated)."""
        session = self._sessions.find(request.cookies.get(self._cookie, ""), _key_of(request))
        if session is None:
            raise Unauthenticated("no session", hint="`ketch ui` prints an address with a one-time token")
        return session


def _is_visit(request: web.BaseRequest) -> bool:
    """Whether somebody opens the page, perhaps by another page's link: it tells that one nothing and does nothing."""
    headers = request.headers
    opened = headers.get("Sec-Fetch-Mode") == "navigate" and headers.get("Sec-Fetch-Dest") == "document"
    return opened and request.method == "GET" and request.path in _DOORS and "Origin" not in headers


def _key_of(request: web.BaseRequest) -> str:
    """The key that a request shows, in its header or, for a WebSocket, among the protocols that it offers."""
    if request.headers.get("Upgrade", "").lower() != "websocket":
        return request.headers.get(_KEY, "")
    offered = [one.strip() for one in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
    keys = [one.removeprefix(_KEY_PROTOCOL) for one in offered if one.startswith(_KEY_PROTOCOL)]
    return keys[0] if PAGE_PROTOCOL in offered and keys else ""


def _check_method(request: web.BaseRequest, wanted: str) -> None:
    if request.method != wanted:
        raise NotFound("page not found")


def _refusal(request: web.BaseRequest, error: KetchError) -> web.Response:
    """An error: a sentence for a person who opens a page, JSON for scripts."""
    message = errors.message_of(error)
    headers = dict(assets.HEADERS)
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = "Ketch-Page"  # the session is over; the API's own answers do not have it
    if request.headers.get("Sec-Fetch-Dest", "") == "document":
        return web.Response(text=f"Ketch: {message}\n", status=errors.status_of(error), headers=headers)
    headers["Content-Type"] = "application/json"
    body = jsontext.line(errors.body_of(message, error.kind))
    return web.Response(body=body, status=errors.status_of(error), headers=headers)
