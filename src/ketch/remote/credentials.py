"""Credentials for registries, as ``docker login`` keeps them and ``X-Registry-Auth`` carries them."""

from __future__ import annotations

import base64
import binascii
import logging
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec

from ketch.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Sequence

log = logging.getLogger(__name__)


class Credentials(msgspec.Struct, kw_only=True, frozen=True):
    """User and password, or an identity token to get others with, or a token for the registry itself."""

    username: str = ""
    password: str = ""
    identity_token: str = msgspec.field(name="identitytoken", default="")
    registry_token: str = msgspec.field(name="registrytoken", default="")
    server_address: str = msgspec.field(name="serveraddress", default="")
    auth: str = ""

    def __bool__(self) -> bool:
        return bool(self.username or self.identity_token or self.registry_token)

    def __repr__(self) -> str:
        return f"Credentials(username={self.username!r}, server_address={self.server_address!r}, …)"

    def basic(self) -> str:
        """The header ``Authorization`` of Basic authentication (RFC 7617)."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode("ascii")


class IssuedToken(NamedTuple):
    """A bearer token that somebody else has got, and for how many seconds it serves (0: nobody said)."""

    text: str
    lasts_s: float


class CredentialKeeper(Protocol):
    """A client that keeps its credentials for a registry to itself, and gets tokens with them.

    ``known``: what it has revealed.
    """

    known: Credentials | None

    async def token(self, realm: str, service: str, scopes: Sequence[str]) -> IssuedToken | None:
        """A token of a token server (Unauthenticated); None: it gets none, and has to be asked for what it keeps."""
        ...

    def forget(self, realm: str, service: str, scopes: Sequence[str]) -> None:
        """Drop a token that the registry refused."""
        ...

    async def revealed(self) -> Credentials | None:
        """The credentials, for a registry that wants a password."""
        ...


class KeptCredentials(Credentials, kw_only=True, frozen=True):
    """Credentials that a client keeps."""

    keeper: CredentialKeeper

    def __bool__(self) -> bool:
        return True


def completed(given: Credentials) -> Credentials:
    """The credentials with user and password from ``auth`` (base64 of both), which old clients send."""
    if not given.auth or given.username:
        return given
    try:
        username, _, password = base64.b64decode(given.auth + "==").decode().partition(":")
    except ValueError as e:  # no base64, not of ASCII characters, or of something else than text
        raise InvalidArgument("registry credentials: `auth` is not base64 of user:password") from e
    return msgspec.structs.replace(given, username=username, password=password.rstrip("\0"), auth="")


def from_header(text: str | None) -> Credentials | None:
    """``X-Registry-Auth`` (base64url of JSON); None when there is none in it, or it cannot be read (as dockerd)."""
    if not text:
        return None
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        found = msgspec.json.decode(raw, type=Credentials) if raw.strip() else Credentials()
        return completed(found) or None
    except (binascii.Error, msgspec.DecodeError, ValueError, RecursionError, InvalidArgument) as e:
        log.info("credentials of a request cannot be read, it is anonymous: X-Registry-Auth: %s", e)
        return None


def check_token(text: str) -> str:
    """``text``, when it can be a bearer token: it becomes a part of a header (InvalidArgument)."""
    if not (text.isascii() and text.isprintable()):
        raise InvalidArgument("registry credentials: the token has characters that no header can have")
    return text
