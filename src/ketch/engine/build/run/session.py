"""The client of one build: its directories, secrets, agents and credentials, as the request brought them."""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING

from ketch.build.providers import LocalDirectory
from ketch.errors import NotFound
from ketch.storage.content.layout_directory import LayoutDirectory

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from ketch.engine.model.building.builds import ImageBuild
    from ketch.remote.credentials import CredentialKeeper, Credentials

_HUB = ("docker.io", "index.docker.io", "registry-1.docker.io")
_DEFAULT_AGENT = "default"


class RequestSession:
    """A request's own things; its descriptors stay the request's."""

    def __init__(self, request: ImageBuild) -> None:
        self.id = secrets.token_hex(12)
        self._request = request
        self._private: dict[str, int] = {}
        self._names: dict[str, str] = {}  # further ones

    def add(self, name: str, fd: int) -> None:
        """Give a directory that nobody else can change; the descriptor stays the caller's."""
        self._private[name] = fd

    def also(self, name: str, other: str) -> None:
        """Give a directory by a further name."""
        self._names[name] = other

    async def directory(self, name: str) -> LocalDirectory:
        """A directory by the name that sources give it (NotFound)."""
        name = self._names.get(name, name)
        if name in self._private:
            return LocalDirectory(fd=self._private[name], private=True)
        if name in self._request.directories:
            return LocalDirectory(fd=self._request.directories[name], private=False)
        raise NotFound(f"the client has given no directory `{name}`")

    async def layout(self, name: str) -> LayoutDirectory:
        """An OCI layout in a directory that the request has opened (NotFound)."""
        return LayoutDirectory((await self.directory(name)).fd)

    async def secret(self, name: str) -> bytes | None:
        """A secret; None: the client has none of that name."""
        return self._request.secrets.get(name)

    async def ssh_agent(self, name: str) -> str | None:
        """The path of the socket of an agent, as any process of this machine's root can connect to it."""
        fd = self._request.agents.get(name or _DEFAULT_AGENT)
        return None if fd is None else f"/proc/{os.getpid()}/fd/{fd}"

    async def credentials(self, host: str) -> tuple[str, str] | None:
        """User and password, or an empty user and a token, for a registry."""
        found = given_credentials(self._request.credentials, host)
        if found is None:
            return None
        token = found.registry_token or found.identity_token
        return ("", token) if token else (found.username, found.password)

    def keeper(self, host: str) -> CredentialKeeper | None:
        """Nothing: a request has the credentials."""
        return None

    def uploaded(self, host: str, path: str) -> AsyncIterator[bytes]:
        """Nothing (NotFound)."""
        raise NotFound(f"the client keeps nothing at http://{host}{path}")


def given_credentials(credentials: Mapping[str, Credentials], host: str) -> Credentials | None:
    """The credentials for a registry, and for no other one, among those that a request gives by address."""
    names = _HUB if host in _HUB else (host,)
    for name, found in credentials.items():
        bare = name.partition("://")[2] or name
        if bare.partition("/")[0] in names and found:
            return found
    return None
