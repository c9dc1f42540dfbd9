"""Remotes of git: their addresses, and credentials for them."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from ketch.errors import InvalidArgument, NotFound

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ketch.build.providers import BuildSession

_TRANSPORT = re.compile(r"(?:https?|ssh|git)://")
_SSH_STYLE = re.compile(r"(?:[\w.-]+@)(?P<host>[\w.-]+|\[[0-9a-fA-F:]+\]):(?P<path>[^#]*)", re.ASCII)
_GITHUB = ("https://github.com/", "https://www.github.com/")
_COMMIT = re.compile(r"[0-9a-f]{40}\Z")


class GitRemote(NamedTuple):
    """A remote's address, for git and for people."""

    url: str

    @classmethod
    def of(cls, text: str) -> GitRemote:
        """The remote of an address; one without a scheme is https (InvalidArgument)."""
        url = text if _TRANSPORT.match(text) or _SSH_STYLE.match(text) else f"https://{text}"
        if not url.isprintable() or " " in url:
            raise InvalidArgument(f"invalid address of a git repository: {url[:200]!r}")
        return cls(url)

    @property
    def host(self) -> str:
        """The host, with its port."""
        match = _SSH_STYLE.match(self.url)
        return match["host"] if match and "://" not in self.url else self._split().rpartition("@")[2]

    def _split(self) -> str:
        try:
            return urlsplit(self.url).netloc
        except ValueError as e:
            raise InvalidArgument(f"invalid address of a git repository: {self.url[:200]!r}") from e

    @property
    def password(self) -> str:
        """The password within the address, which nobody may see."""
        if "://" not in self.url:
            return ""
        return self._split().rpartition("@")[0].partition(":")[2]

    @property
    def shown(self) -> str:
        """The address with ``xxxxx`` for the password."""
        return self.url.replace(f":{self.password}@", ":xxxxx@", 1) if self.password else self.url


def is_commit(text: str) -> bool:
    """Whether a text is the whole name of a commit."""
    return _COMMIT.match(text) is not None


async def authorization(
    remote: GitRemote, names: Sequence[tuple[str, bool]], sessions: Sequence[BuildSession]
) -> Mapping[str, str]:
    """Configuration of git with the first of the secrets that a client has; nothing without any.

    ``names``: of secrets, each with whether it is a token and not a whole header.  That for the remote's host goes
    before that for all.
    """
    candidates = [(f"{name}.{remote.host}", token) for name, token in names if name]
    candidates += [(name, token) for name, token in names if name]
    for session in sessions:
        for name, token in candidates:
            secret = await session.secret(name)
            if secret is None:
                continue
            value = secret.strip()
            if token:
                value = b"basic " + base64.b64encode(b"x-access-token:" + value)
            text = value.decode("latin-1")
            if not text.isprintable():
                raise InvalidArgument(f"the secret {name} cannot be a header: it has control characters")
            scope = next((prefix for prefix in _GITHUB if remote.url.startswith(prefix)), remote.url)
            return {f"http.{scope}.extraheader": f"Authorization: {text}"}
    return {}


async def agent(name: str, sessions: Sequence[BuildSession]) -> str:
    """The path of the socket of a client's agent; empty without a name (NotFound: no client has it)."""
    if not name:
        return ""
    for session in sessions:
        path = await session.ssh_agent(name)
        if path is not None:
            return path
    raise NotFound(f'no SSH key "{name}" forwarded from the client', hint="build with: --ssh default")
