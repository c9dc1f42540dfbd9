"""Authorization of requests: by a file of users (htpasswd, bcrypt), or by tokens that another server signs (JWT).

Either may be combined with anonymous reading.  A password that was right is remembered for a while as a keyed hash,
because bcrypt takes a tenth of a second on purpose.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import functools
import hashlib
import hmac
import os
import re
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

from ketch.errors import FailedPrecondition, InvalidArgument
from ketch.registry.errors import DENIED, TOOMANYREQUESTS, UNAUTHORIZED, Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_REMEMBERED_S = 300.0
_MOST = 10_000
_COST = 10
_VERIFIERS, _MOST_WAITING = 2, 100
_BCRYPT = re.compile(r"\$2[aby]\$(?:0[4-9]|[12]\d|3[01])\$[./A-Za-z0-9]{53}")
_ALGORITHMS = ["RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "EdDSA"]

_Claims = dict[str, Any]  # of a JSON web token (RFC 7519): some are the issuer's own


class Access(NamedTuple):
    """An access that a request needs: ``action`` is pull, push, delete, or * for the catalog."""

    kind: str
    name: str
    action: str


class Htpasswd:
    """Users and passwords from a file, which is read again when it changes."""

    def __init__(self, path: str, realm: str = "ketch", anonymous_pull: bool = False) -> None:
        self._path, self._realm, self._anonymous = path, realm, anonymous_pull
        self._users: dict[str, bytes] = {}
        self._costs: list[int] = []
        self._secret = b""
        self._stamp = (0, 0)
        self._key = secrets.token_bytes(32)
        self._right: dict[bytes, float] = {}
        # Threads of their own: whoever tries many passwords keeps nobody else from the disk.
        self._verifiers = ThreadPoolExecutor(_VERIFIERS, "login")
        self._waiting = 0
        self._load()

    def _load(self) -> None:
        try:
            status = os.stat(self._path)
            if (status.st_mtime_ns, status.st_size) == self._stamp:
                return
            with open(self._path, encoding="utf-8") as f:
                lines = [line.strip() for line in f]
        except OSError as e:
            raise FailedPrecondition(f"read `{self._path}`: {e.strerror}") from e
        except UnicodeDecodeError as e:
            raise FailedPrecondition(f"read `{self._path}`: it is not UTF-8", hint="use only such names") from e
        users = {}
        for number, line in enumerate(lines, 1):
            user, _, hashed = line.partition(":")
            if not line or line.startswith("#"):
                continue
            if not _BCRYPT.fullmatch(hashed):
                raise FailedPrecondition(
                    f"read `{self._path}`: line {number} has no bcrypt hash",
                    hint="make one with: ketch registry htpasswd",
                )
            users[user] = hashed.encode()
        self._users, self._stamp = users, (status.st_mtime_ns, status.st_size)
        self._costs = [int(hashed.split(b"$")[2]) for hashed in users.values()] or [_COST]
        self._secret = hashlib.sha256("\n".join(lines).encode()).digest()
        self._right.clear()

    async def check(self, header: str, access: Sequence[Access]) -> str:
        """Authenticate a request; returns the user's name, empty if anonymous (UNAUTHORIZED with the challenge)."""
        self._load()
        if not header and self._anonymous and all(needed.action == "pull" for needed in access):
            return ""
        try:
            user, password = _basic(header)
        except ValueError:
            raise self._refused() from None
        mark = hmac.digest(self._key, f"{user}\0{password}".encode(), hashlib.sha256)
        if self._right.get(mark, 0) > time.monotonic():
            return user
        hashed = self._users.get(user)
        if not await self._try(functools.partial(_verify, password, hashed, self._cost_of(user))):
            raise self._refused()
        if len(self._right) >= _MOST:
            self._right.clear()
        self._right[mark] = time.monotonic() + _REMEMBERED_S
        return user

    async def _try(self, verify: Callable[[], bool]) -> bool:
        """Verify a password in a thread (TOOMANYREQUESTS: too many are waiting)."""
        if self._waiting >= _MOST_WAITING:
            raise Refused(TOOMANYREQUESTS, headers={"Retry-After": "5"})
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._verifiers, verify)
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Stop verifying passwords; waiting ones are dropped."""
        self._verifiers.shutdown(wait=False, cancel_futures=True)

    def _cost_of(self, user: str) -> int:
        """The cost of an unknown user's hash: that of one of the file's, always the same for a name.

        Where the users' hashes are of different costs, nobody can tell from the time which of them are there; all
        processes that read the file agree.
        """
        lot = int.from_bytes(hmac.digest(self._secret, user.encode(), hashlib.sha256)[:8], "big")
        return self._costs[lot % len(self._costs)]

    def _refused(self) -> Refused:
        return Refused(UNAUTHORIZED, headers={"WWW-Authenticate": f'Basic realm="{self._realm}"'})


def _verify(password: str, hashed: bytes | None, cost: int) -> bool:
    """Whether a password is right; without a hash, False after as long as a hash of that cost takes."""
    import bcrypt

    against = hashed or bcrypt.gensalt(cost) + b"." * 31
    try:
        right = bcrypt.checkpw(password.encode()[:72], against)
    except ValueError:  # a NUL, which no password has
        return False
    return right and hashed is not None


def _basic(header: str) -> tuple[str, str]:
    scheme, _, rest = header.partition(" ")
    if scheme.lower() != "basic":
        raise ValueError
    try:
        user, colon, password = base64.b64decode(rest, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError) as e:
        raise ValueError from e
    if not colon:
        raise ValueError
    return user, password


class TokenVerifier:
    """The verifier of a token server's bearer tokens: signature, service, age and access."""

    def close(self) -> None:
        """Nothing to close."""

    def __init__(self, realm: str, service: str, issuer: str, bundle: str, anonymous_pull: bool = False) -> None:
        self._realm, self._service, self._issuer, self._anonymous = realm, service, issuer, anonymous_pull
        self._keys = _public_keys(bundle)

    async def check(self, header: str, access: Sequence[Access]) -> str:
        """Verify a token; returns its subject (UNAUTHORIZED with the token server, DENIED: another access)."""
        if not header and self._anonymous and access and all(needed.action == "pull" for needed in access):
            return ""
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise self._refused(access, "")
        claims = self._claims(token, access)
        granted = {
            (grant.get("type"), grant.get("name"), action)
            for grant in claims.get("access") or ()
            for action in grant.get("actions") or ()
        }
        for needed in access:
            if not {(needed.kind, needed.name, needed.action), (needed.kind, needed.name, "*")} & granted:
                raise self._refused(access, "insufficient_scope")
        return str(claims.get("sub") or "")

    def _claims(self, token: str, access: Sequence[Access]) -> _Claims:
        import jwt

        for key in self._keys:
            try:
                claims: _Claims = jwt.decode(
                    token,
                    key,
                    algorithms=_ALGORITHMS,
                    audience=self._service,
                    issuer=self._issuer,
                    leeway=10,
                    options={"require": ["exp", "iss", "aud"]},
                )
            except jwt.InvalidTokenError:
                continue
            except (TypeError, ValueError):  # an algorithm that is not for this kind of key
                continue
            return claims
        raise self._refused(access, "invalid_token")

    def _refused(self, access: Sequence[Access], error: str) -> Refused:
        scopes: dict[tuple[str, str], list[str]] = {}
        for needed in access:
            scopes.setdefault((needed.kind, needed.name), []).append(needed.action)
        scope = " ".join(f"{kind}:{name}:{','.join(actions)}" for (kind, name), actions in scopes.items())
        header = f'Bearer realm="{self._realm}",service="{self._service}"'
        header += f',scope="{scope}"' if scope else ""
        header += f',error="{error}"' if error else ""
        kind = DENIED if error == "insufficient_scope" else UNAUTHORIZED
        return Refused(UNAUTHORIZED if kind is UNAUTHORIZED else kind, headers={"WWW-Authenticate": header})


def _public_keys(bundle: str) -> list[Any]:
    """The keys of a file of certificates or public keys (PEM)."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        with open(bundle, "rb") as f:
            data = f.read()
        if b"BEGIN CERTIFICATE" in data:
            return [certificate.public_key() for certificate in x509.load_pem_x509_certificates(data)]
        return [load_pem_public_key(data)]
    except (OSError, ValueError) as e:
        raise InvalidArgument(f"read the keys of the token server in `{bundle}`: {e}") from e
