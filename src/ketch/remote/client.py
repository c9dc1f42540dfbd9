"""The daemon's client of registries: repositories, login, search."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ketch.oci.reference import DEFAULT_DOMAIN
from ketch.remote.auth import TokenCache
from ketch.remote.endpoint import RegistryEndpoint
from ketch.remote.repository import Repository
from ketch.remote.transport import Transport

if TYPE_CHECKING:
    from ketch.oci.reference import Reference
    from ketch.remote.credentials import Credentials
    from ketch.remote.settings import Settings


class Remotes:
    """Connections, tokens and known facts of registries; used from one event loop."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.transport = Transport(settings)
        self._tokens = TokenCache(self.transport)
        self._endpoints: dict[tuple[str, bool], RegistryEndpoint] = {}

    def change(self, settings: Settings) -> None:
        """Use other settings for what is asked from now on."""
        self.settings = self.transport.settings = settings
        self._endpoints.clear()

    async def close(self) -> None:
        """End all connections."""
        await self.transport.close()

    def repository(
        self, ref: Reference, credentials: Credentials | None = None, *, push: bool = False, insecure: bool = False
    ) -> Repository:
        """The repository of a reference; sends no request.

        ``insecure``: it may be used without TLS or with an unverified certificate, whatever the settings say.
        """
        mirrors = self.settings.mirrors if ref.domain == DEFAULT_DOMAIN and not push else ()
        endpoints = [
            *(self._endpoint(url, mirror=True) for url in mirrors),
            self._endpoint(ref.domain, insecure=insecure),
        ]
        return Repository(self.transport, endpoints, ref, credentials, push)

    async def login(self, credentials: Credentials) -> str:
        """Log in to ``server_address``; returns an identity token if it gives one (Unauthenticated)."""
        return await self._endpoint(host_of(credentials.server_address)).login(credentials)

    def _endpoint(self, address: str, *, mirror: bool = False, insecure: bool = False) -> RegistryEndpoint:
        found = self._endpoints.get((address, insecure))
        if found is None:
            found = RegistryEndpoint(self.transport, self._tokens, address, mirror=mirror, insecure=insecure)
            self._endpoints[address, insecure] = found
        return found


def host_of(address: str) -> str:
    """The host of a server address as ``docker login`` gives it; empty and Docker Hub's old address are the Hub."""
    if not address or "index.docker.io" in address:
        return DEFAULT_DOMAIN
    return address.partition("://")[2].partition("/")[0] if "://" in address else address.partition("/")[0]
