"""One registry: its address, use of TLS, and authentication.

Docker Hub has other names than its images have.  A host that may be insecure is asked with TLS first.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from msgspec.structs import replace
from yarl import URL

from ketch.errors import InvalidArgument, KetchError, Unauthenticated, Unavailable
from ketch.oci.reference import DEFAULT_DOMAIN
from ketch.remote import auth
from ketch.remote.errors import RegistryError, phrase, shown
from ketch.remote.transport import Request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    import aiohttp

    from ketch.remote.credentials import Credentials
    from ketch.remote.headers import Challenge
    from ketch.remote.transport import Transport

_NOT_IN_HOSTS = re.compile(r"[^A-Za-z0-9._~:\[\]%!$&'()*+,;=-]", re.ASCII)
HUB = "registry-1.docker.io"


class RegistryEndpoint:
    """A registry at one address; its protocol is found out at the first request."""

    def __init__(
        self,
        transport: Transport,
        tokens: auth.TokenCache,
        address: str,
        *,
        mirror: bool = False,
        insecure: bool = False,
    ) -> None:
        self._transport, self._tokens = transport, tokens
        self.mirror = mirror
        url = URL(address) if "://" in address else None
        self.host = (url.authority if url is not None else address) or address
        self._given = url
        self.insecure = insecure or transport.settings.is_insecure(self.host)
        self._base: URL | None = None
        self._challenge: Challenge | None = None
        self._lock = asyncio.Lock()

    async def base(self) -> URL:
        """The base URL of the registry (Unavailable)."""
        async with self._lock:
            if self._base is None:
                self._base, self._challenge = await self._find()
            return self._base

    def _candidates(self) -> list[URL]:
        if self._given is not None:
            return [self._given]
        host = HUB if self.host == DEFAULT_DOMAIN else self.host
        if wrong := _NOT_IN_HOSTS.search(host):
            raise InvalidArgument(
                f'unable to parse server address: parse "https://{host}": invalid character "{wrong[0]}" in host name'
            )
        try:
            URL(f"https://{host}")
        except ValueError as e:
            raise InvalidArgument(f'unable to parse server address: parse "https://{host}": {e}') from e
        return [URL(f"https://{host}"), *([URL(f"http://{host}")] if self.insecure else [])]

    async def _find(self) -> tuple[URL, Challenge | None]:
        candidates = self._candidates()
        for last, url in ((url is candidates[-1], url) for url in candidates):
            try:
                request = Request("GET", accepted=(200, 401), attempts=None if last else 1)
                async with self._transport.request(request, url / "v2/", verify=not self.insecure) as response:
                    return url, auth.wanted(response.headers.get("WWW-Authenticate", ""))
            except RegistryError as e:
                if last:
                    raise e.as_ketch() from e
            except Unavailable:
                if last:
                    raise
        raise Unavailable(f"registry {self.host}: no address to try")

    async def challenge(self) -> Challenge | None:
        """The registry's authentication challenge; None: no authentication."""
        await self.base()
        return self._challenge

    @asynccontextmanager
    async def request(
        self,
        request: Request,
        path: str | URL,
        *,
        credentials: Credentials | None = None,
        scopes: Sequence[str] = (),
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send an authenticated request to a path (or to a URL from an answer).

        RegistryError for statuses that are not accepted; a token that has expired is renewed once.
        """
        base = await self.base()
        url = path if isinstance(path, URL) else base.join(URL(base.path.rstrip("/") + path, encoded=True))
        ours = url.host == base.host
        async with AsyncExitStack() as stack:
            for renewed in (False, True):
                with _asked(request, url):
                    proof = await self._proof(credentials, scopes) if ours else None
                proved = replace(request, header={**request.header, "Authorization": proof}) if proof else request
                asked = self._transport.request(proved, url, verify=not self.insecure)
                try:
                    response = await stack.enter_async_context(asked)
                    break
                except RegistryError as e:
                    if e.status != 401 or renewed or not ours or not self._renew(e, credentials, scopes):
                        e.anonymous = e.status == 401 and ours and not proof and self._asks_for_password(e)
                        raise
            yield response

    async def _proof(self, credentials: Credentials | None, scopes: Sequence[str]) -> str | None:
        try:
            return await self._tokens.header(self._challenge, credentials, scopes, not self.insecure)
        except (Unauthenticated, Unavailable):
            if not await self._has_changed():
                raise
        return await self._tokens.header(self._challenge, credentials, scopes, not self.insecure)

    async def _has_changed(self) -> bool:
        """Whether the registry makes another challenge than it did: it may have been set up anew since."""
        async with self._lock:
            before = self._challenge
            self._base, self._challenge = await self._find()
            return before != self._challenge

    def _renew(self, error: RegistryError, credentials: Credentials | None, scopes: Sequence[str]) -> bool:
        """Whether to repeat a request: with a new token, or after a first challenge."""
        challenge = auth.wanted(error.challenge)
        if challenge is None:
            return False
        before, self._challenge = self._challenge, challenge
        if challenge.scheme == "bearer":
            self._tokens.forget(challenge, credentials, scopes)
            return True
        return before is None and credentials is not None

    @staticmethod
    def _asks_for_password(error: RegistryError) -> bool:
        challenge = auth.wanted(error.challenge)
        return challenge is not None and challenge.scheme == "basic"

    async def login(self, credentials: Credentials) -> str:
        """Log in; returns an identity token if the registry gives one (Unauthenticated, KetchError)."""
        challenge = await self.challenge()
        try:
            async with self.request(Request("GET"), "/v2/", credentials=credentials):
                pass
        except RegistryError as e:
            if e.anonymous:
                raise e.as_ketch() from e
            status = f"{e.status} {phrase(e.status)}".rstrip()
            hint = "unauthorized: incorrect username or password" if e.status == 401 else e.text or None
            raise KetchError(f"login attempt to {shown(e.url)} failed with status: {status}", hint=hint) from e
        if challenge is None or challenge.scheme != "bearer":
            return ""
        return (await self._tokens.token(challenge, credentials, (), not self.insecure)).identity


@contextmanager
def _asked(request: Request, url: URL) -> Iterator[None]:
    """Put before what a token server says, as Docker does it, which request the token was for (but uploads)."""
    try:
        yield
    except KetchError as e:
        if request.method == "GET":
            method = "Head" if "/manifests/" in url.path else "Get"  # Docker looks for a manifest before it gets it
            e.message = f'{method} "{shown(url)}": {e.message}'
        raise
