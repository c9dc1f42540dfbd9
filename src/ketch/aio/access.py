"""The way to an engine: one of the program's own, or a daemon's; the requests and the session with it."""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import weakref
from typing import TYPE_CHECKING, Protocol

from ketch import places
from ketch.aio import private
from ketch.aio.http import Http
from ketch.aio.waiting import Asyncio
from ketch.client import addresses, contexts
from ketch.client.http import is_waiting
from ketch.errors import AlreadyExists, Conflict, FailedPrecondition, InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ketch.aio.streams import Stream
    from ketch.aio.waiting import Waiter


_NETWORK = "programs"


class HasAccess(Protocol):
    """An engine, whoever waits for it."""

    @property
    def access(self) -> Access: ...


class Access:
    """Access to one engine, which is started at its first use, if it is the program's own."""

    def __init__(
        self,
        state: str | os.PathLike[str] | None = None,
        *,
        url: str = "",
        waiter: Waiter | None = None,
        anywhere: bool = False,
    ) -> None:
        """A ``url`` that is plain text is trusted as Docker's variables say.

        ``anywhere``: a daemon here is used in place of one's own.
        """
        self._anywhere = anywhere and not url
        self.state = "" if url else os.path.realpath(state or f"{places.mine().data_root}-python")
        if not url:
            url = f"unix://{self.state}/ketch.sock"
        elif not isinstance(url, addresses.Address):
            url = addresses.trusted(url, addresses.wanted_tls())
        self.url = url
        self.waiter = waiter or Asyncio()
        self._http = Http(self.url, self.waiter)
        self._session: Stream | None = None
        self._opened = self._has_network = False
        self._facts: dict[str, Any] = {}
        self._lock = threading.Lock()
        _ALL.add(self)

    @property
    def access(self) -> Access:
        """Itself: it can be named where an engine can."""
        return self

    async def http(self) -> Http:
        """The connections to it, which runs now."""
        if not self._is_open():
            await self.waiter.called(self._open)
        return self._http

    async def default_network(self) -> str:
        """The network of containers that want one and name none; an engine of one's own makes it when it is needed."""
        http = await self.http()
        if not self.state:
            return "default"
        if not self._has_network:
            with contextlib.suppress(Conflict, AlreadyExists):
                await http.request("POST", "/networks/create", None, {"Name": _NETWORK})
            self._has_network = True
        return _NETWORK

    async def check_limits(self, wanted: Mapping[str, str]) -> None:
        """FailedPrecondition for a limit that the engine cannot set; ``wanted``: their names, and those in ``info``.

        An engine leaves such a limit out with a warning, and nobody would read that.
        """
        if wanted and not self._facts:
            self._facts = await (await self.http()).json("GET", "/info")
        missing = [name for name, fact in wanted.items() if not self._facts.get(fact)]
        if missing:
            raise FailedPrecondition(
                f"limit {' and '.join(missing)}: the engine has no cgroup in which it could",
                hint="leave it out, run as root, or see `Limits` in docs/rootless.md",
            )

    async def close(self) -> None:
        """End what this program has made; an engine of its own ends if no other program uses it."""
        session, self._session, self._opened = self._session, None, False
        self._http.close()
        if session is None:
            return
        session.end()
        try:
            while await session.receive():
                pass  # the other end closes when nothing is left
        finally:
            session.close()

    @property
    def is_ketch(self) -> bool:
        """Whether it is Ketch's engine, which has sessions, and starts programs in one request."""
        return self._session is not None

    def _is_open(self) -> bool:
        """Whether it runs, and knows this program."""
        if not self._opened:
            return False
        return self._session is None or is_waiting(self._session.sock)

    def _open(self) -> None:
        """Start it, if it is to be started, and make this program known to it."""
        with self._lock:
            if self._is_open():
                return
            self._http.close()
            if self._anywhere and (daemon := private.daemon_here()):
                self.state, self.url, self._http.host = "", daemon, daemon
            self._anywhere = False
            self._session, ident = private.joined(self.state, self.url)
            self._http.headers = {private.SESSION: ident} if ident else {}
            self._opened, self._has_network, self._facts = True, False, {}

    def forget(self) -> None:
        """Close connections, and tell nobody: in a forked child, which begins anew, or at the program's end."""
        self._lock = threading.Lock()
        self._http.forget()
        if self._session is not None:
            self._session.sock.close()
        self._session, self._opened = None, False


def daemon_url(url: str, context: str) -> str:
    """The URL of a daemon, also of a context's, or of the one that is meant where neither is named (KetchError)."""
    if url and context:
        raise InvalidArgument(f"connect to {url} and to the context `{context}`", hint="name one of them")
    return contexts.address(context) if context else url or addresses.named() or places.answering().host


def default(waiter: Waiter) -> Access:
    """Access to the engine that is used where none is named: a daemon, if one is named or answers, else one's own."""
    kind = type(waiter)
    with _lock:
        if kind not in _defaults:
            _defaults[kind] = Access(url=addresses.named(), waiter=waiter, anywhere=True)
        return _defaults[kind]


def _forget() -> None:
    """In a forked child, locks are free, and connections the parent's."""
    global _lock
    _lock = threading.Lock()
    for access in list(_ALL):
        access.forget()


def _leave() -> None:
    """Close the connections that a program has never seen, at its end."""
    for access in _defaults.values():
        access.forget()


_ALL: weakref.WeakSet[Access] = weakref.WeakSet()
_defaults: dict[type, Access] = {}
_lock = threading.Lock()
os.register_at_fork(after_in_child=_forget)
atexit.register(_leave)
