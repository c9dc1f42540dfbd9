"""Credentials for registries that a build's client keeps to itself: it gets tokens with them (`CredentialKeeper`).

    registry: 401, "Bearer realm=…" ──► GetTokenAuthority: does the client get tokens at all?
                                        FetchToken: realm, service, scopes ──► the client asks the token server
    registry: 401, "Basic …"        ──► Credentials: user and password

So ketchd sees a password only where a registry wants it itself.  (BuildKit also has the client prove by a signature
that two sessions have the same credentials, so that they can share tokens; here each has its own.)
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING

from msgspec import Struct

from ketch.buildkit.services.credentials import AuthService
from ketch.buildkit.wire.credentials import auth_pb2
from ketch.errors import Unauthenticated
from ketch.remote.credentials import Credentials, IssuedToken
from ketch.rpc.status import Code, RpcError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from typing import Any

    Ask = Callable[[Any, Any], Awaitable[Any]]

_CLIENT = "ketch"
_SHORTEST_S, _MARGIN_S = 60.0, 5.0
_NONE = (Code.UNIMPLEMENTED, Code.UNAVAILABLE)  # the second: the client's user has turned it off


class _Kept(Struct, frozen=True):
    token: IssuedToken
    until: float


class ClientCredentials:
    """A client's credentials for one registry; tokens are kept as long as they serve.  In the event loop."""

    def __init__(self, ask: Ask, host: str, reveal: Callable[[], Awaitable[tuple[str, str] | None]]) -> None:
        """``ask`` calls a method of the client; ``host`` is the registry as clients know it."""
        self._ask, self._host, self._reveal = ask, host, reveal
        self._lock = asyncio.Lock()
        self._gets: bool | None = None
        self._kept: dict[tuple[str, str, str], _Kept] = {}
        self.known: Credentials | None = None

    async def token(self, realm: str, service: str, scopes: Sequence[str]) -> IssuedToken | None:
        """A token of a token server (Unauthenticated); None: the client gets none."""
        key = (realm, service, " ".join(scopes))
        async with self._lock:
            kept = self._kept.get(key)
            if kept is not None and time.monotonic() < kept.until:
                return kept.token
            if not await self._gets_tokens():
                return None
            token = await self._fetched(realm, service, scopes)
            lasts_s = max(token.lasts_s or _SHORTEST_S, _MARGIN_S) - _MARGIN_S
            self._kept[key] = _Kept(token, time.monotonic() + lasts_s)
            return token

    async def revealed(self) -> Credentials | None:
        """User and password, or an identity token."""
        async with self._lock:
            if self.known is None and (given := await self._reveal()) is not None:
                user, secret = given
                self.known = Credentials(username=user, password=secret) if user else Credentials(identity_token=secret)
            return self.known

    def forget(self, realm: str, service: str, scopes: Sequence[str]) -> None:
        """Drop a token that the registry refused."""
        self._kept.pop((realm, service, " ".join(scopes)), None)

    async def _gets_tokens(self) -> bool:
        if self._gets is None:
            asked = auth_pb2.GetTokenAuthorityRequest(Host=self._host, Salt=os.urandom(32))
            try:
                await self._ask(AuthService.GetTokenAuthority, asked)
                self._gets = True
            except RpcError as e:
                if e.code not in _NONE:
                    raise
                self._gets = False
        return self._gets

    async def _fetched(self, realm: str, service: str, scopes: Sequence[str]) -> IssuedToken:
        asked = auth_pb2.FetchTokenRequest(
            ClientID=_CLIENT, Host=self._host, Realm=realm, Service=service, Scopes=list(scopes)
        )
        try:
            answer = await self._ask(AuthService.FetchToken, asked)
        except RpcError as e:
            raise Unauthenticated(f"failed to authorize: {e.message}") from e
        if not answer.Token:
            raise Unauthenticated("failed to authorize: the client's token is empty")
        return IssuedToken(answer.Token, float(answer.ExpiresIn))
