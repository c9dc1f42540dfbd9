"""Authentication to registries: Basic, or tokens from the server that a challenge names.

Tokens (distribution's token specification): ``GET realm?service=…&scope=…`` with Basic authentication or none, or with
an identity token ``POST realm`` (OAuth 2, RFC 6749 §6).  They are kept until shortly before they expire.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from yarl import URL

from ketch.errors import PermissionDenied, Unauthenticated, Unavailable
from ketch.remote import headers
from ketch.remote.bodies import whole
from ketch.remote.credentials import KeptCredentials, check_token
from ketch.remote.errors import LOG_IN, RegistryError
from ketch.remote.transport import Request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.remote.credentials import CredentialKeeper, Credentials, IssuedToken
    from ketch.remote.headers import Challenge
    from ketch.remote.transport import Transport

_LARGEST = 1 << 20
_SHORTEST_S = 60
_MARGIN_S = 5


class _Answer(msgspec.Struct):
    token: str = ""
    access_token: str = ""
    refresh_token: str = ""
    expires_in: float | None = None


class Token(NamedTuple):
    """A bearer token, the moment (monotonic) until which it serves, and an identity token when one was given."""

    text: str
    until: float
    identity: str = ""


class TokenCache:
    """The tokens of one daemon, by credentials, server and scope."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._kept: dict[tuple[str, ...], Token] = {}

    async def header(
        self, challenge: Challenge | None, credentials: Credentials | None, scopes: Sequence[str], verify: bool
    ) -> str | None:
        """The header ``Authorization`` for a challenge; None without a challenge or credentials."""
        if credentials and credentials.registry_token:
            return f"Bearer {check_token(credentials.registry_token)}"
        if challenge is None:
            return None
        if isinstance(credentials, KeptCredentials):
            if challenge.scheme != "basic" and (issued := await self._issued(challenge, credentials.keeper, scopes)):
                return f"Bearer {check_token(issued.text)}"
            credentials = await credentials.keeper.revealed()
        if challenge.scheme == "basic":
            return credentials.basic() if credentials and credentials.username else None
        return f"Bearer {(await self.token(challenge, credentials, scopes, verify)).text}"

    def forget(self, challenge: Challenge, credentials: Credentials | None, scopes: Sequence[str]) -> None:
        """Drop a token that the registry refused."""
        if isinstance(credentials, KeptCredentials):
            parameters = challenge.parameters
            credentials.keeper.forget(parameters.get("realm", ""), parameters.get("service", ""), scopes)
            credentials = credentials.keeper.known
        self._kept.pop(_key(challenge, credentials, scopes), None)

    @staticmethod
    async def _issued(challenge: Challenge, keeper: CredentialKeeper, scopes: Sequence[str]) -> IssuedToken | None:
        """A token that the client gets; it keeps them itself as long as they serve."""
        parameters = challenge.parameters
        return await keeper.token(parameters.get("realm", ""), parameters.get("service", ""), scopes)

    async def token(
        self, challenge: Challenge, credentials: Credentials | None, scopes: Sequence[str], verify: bool
    ) -> Token:
        """A token for these scopes (Unauthenticated when the token server refuses us)."""
        key = _key(challenge, credentials, scopes)
        kept = self._kept.get(key)
        if kept is None or kept.until < time.monotonic():
            kept = self._kept[key] = await self._fetch(challenge, credentials, scopes, verify)
        return kept

    async def _fetch(
        self, challenge: Challenge, credentials: Credentials | None, scopes: Sequence[str], verify: bool
    ) -> Token:
        named = challenge.parameters.get("realm", "")
        try:
            realm = URL(named)
        except ValueError as e:
            raise Unavailable(f"authenticate: the registry's token server `{named[:100]}` is no address") from e
        service = challenge.parameters.get("service", "")
        if realm.scheme not in ("http", "https"):
            raise Unavailable(f"authenticate: the registry names no token server (realm `{realm}`)")
        header: dict[str, str] = {}
        body = None
        method, url = "GET", realm.update_query([("service", service)] if service else [])
        if credentials and credentials.identity_token:
            method, url = "POST", realm
            header["Content-Type"] = "application/x-www-form-urlencoded"
            form = {
                "grant_type": "refresh_token",
                "service": service,
                "client_id": "ketch",
                "scope": " ".join(scopes),
                "refresh_token": credentials.identity_token,
            }
            body = URL().with_query(form).raw_query_string.encode()
        else:
            url = url.extend_query([("scope", scope) for scope in scopes])
            if credentials and credentials.username:
                header["Authorization"] = credentials.basic()
                url = url.extend_query([("account", credentials.username), ("offline_token", "true")])
        try:
            async with self._transport.request(Request(method, header, body), url, verify=verify) as response:
                raw = await whole(response, _LARGEST, "token")
        except RegistryError as e:
            if e.status == 403:
                raise PermissionDenied(f"denied: {e.text or 'requested access to the resource is denied'}") from e
            if e.status in (400, 401):
                message = e.text or "incorrect username or password"
                raise Unauthenticated(f"unauthorized: {message}", hint=LOG_IN) from e
            raise e.as_ketch() from e
        return _read(raw, realm)


def _read(raw: bytes, realm: URL) -> Token:
    try:
        answer = msgspec.json.decode(raw, type=_Answer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise Unavailable(f"unable to decode token response: {e}", hint=f"of {realm.host}") from e
    text = answer.token or answer.access_token
    if not text or not (text.isascii() and text.isprintable()):
        raise Unavailable("authorization server did not include a token in the response", hint=f"it is {realm.host}")
    lasts = max(answer.expires_in or _SHORTEST_S, _MARGIN_S)
    return Token(text, time.monotonic() + lasts - _MARGIN_S, answer.refresh_token)


def _key(challenge: Challenge, credentials: Credentials | None, scopes: Sequence[str]) -> tuple[str, ...]:
    who = (credentials.username, credentials.password, credentials.identity_token) if credentials else ()
    parameters = challenge.parameters
    return (parameters.get("realm", ""), parameters.get("service", ""), " ".join(scopes), *who)


def wanted(text: str) -> Challenge | None:
    """The challenge to meet: Bearer rather than Basic; None when there is none of both."""
    found = {challenge.scheme: challenge for challenge in reversed(headers.challenges(text))}
    return found.get("bearer") or found.get("basic")
