"""Sessions of the page's users, and the one-time tokens that they begin with.

A session has two secrets: a cookie, which the page's scripts cannot read but which browsers send to every port of the
host (each container that publishes one gets it), and a key, which the scripts keep where only pages of this port find
it.  Both are needed.

Only digests are kept: who reads this process's memory later finds nothing to log in with.  All of it ends with ketchd.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import secrets
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TOKEN_S = 600.0  # for a token to be used
_IDLE_S = 12 * 3600.0  # until a session that nobody uses is over
_MOST = 64  # of each; the oldest gives way


class Secrets(NamedTuple):
    """The two that a browser is given at the start of a session, and shows with each request."""

    cookie: str
    key: str


class PageSession:
    """One browser's session."""

    def __init__(self, cookie: bytes, key: bytes, until: float) -> None:
        self.cookie = cookie  # digests
        self.key = key
        self.until = until
        self.connections: set[Callable[[], object]] = set()  # how to close those on which a request is being answered


class PageSessions:
    """The tokens and sessions of one page."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._tokens: dict[bytes, float] = {}  # digest → until when; the oldest first
        self._sessions: dict[bytes, PageSession] = {}  # by the cookie's digest; the one not used for longest first

    def token(self) -> str:
        """A new token, good for one session."""
        while len(self._tokens) >= _MOST:
            del self._tokens[next(iter(self._tokens))]
        token = secrets.token_urlsafe(32)
        self._tokens[_digest(token)] = self._now() + TOKEN_S
        return token

    def begin(self, token: str) -> Secrets | None:
        """The secrets of a new session, for a token that nobody has used; else None."""
        if self._now() >= self._tokens.pop(_digest(token), 0.0):
            return None
        while len(self._sessions) >= _MOST:
            self.end(next(iter(self._sessions.values())))
        new = Secrets(secrets.token_urlsafe(32), secrets.token_urlsafe(32))
        session = PageSession(_digest(new.cookie), _digest(new.key), self._now() + _IDLE_S)
        self._sessions[session.cookie] = session
        return new

    def knows(self, cookie: str) -> bool:
        """Whether this is the cookie of a session, which alone permits nothing."""
        return self._alive(cookie) is not None

    def find(self, cookie: str, key: str) -> PageSession | None:
        """The session with these secrets, which goes on; else None."""
        session = self._alive(cookie)
        if session is None or not hmac.compare_digest(session.key, _digest(key)):
            return None
        session.until = self._now() + _IDLE_S
        self._sessions[session.cookie] = self._sessions.pop(session.cookie)
        return session

    @contextlib.contextmanager
    def use(self, session: PageSession, close: Callable[[], object]) -> Iterator[None]:
        """Context in which a session is used for a request; ``close`` is called if it ends meanwhile."""
        session.connections.add(close)
        try:
            yield
        finally:
            session.connections.discard(close)
            session.until = self._now() + _IDLE_S

    def end(self, session: PageSession) -> None:
        """End a session, and what is being answered in it."""
        self._sessions.pop(session.cookie, None)
        for close in list(session.connections):
            close()

    def end_all(self) -> int:
        """End every session, and take back the tokens that nobody has used; returns the number of sessions."""
        self._tokens.clear()
        ended = list(self._sessions.values())
        for session in ended:
            self.end(session)
        return len(ended)

    def _alive(self, cookie: str) -> PageSession | None:
        session = self._sessions.get(_digest(cookie))
        if session is not None and not session.connections and self._now() >= session.until:
            self.end(session)
            return None
        return session


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
