"""Remotes of git: their addresses, credentials for them, and the repositories that are kept of them here."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import re
import secrets
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from ketch.errors import InvalidArgument, NotFound
from ketch.failpoints import failpoint
from ketch.storage import removal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from ketch.build.providers import BuildSession
    from ketch.build.sources.git_program import Git

_TRANSPORT = re.compile(r"(?:https?|ssh|git)://")
_SSH_STYLE = re.compile(r"(?:[\w.-]+@)(?P<host>[\w.-]+|\[[0-9a-fA-F:]+\]):(?P<path>[^#]*)", re.ASCII)
_GITHUB = ("https://github.com/", "https://www.github.com/")
_COMMIT = re.compile(r"[0-9a-f]{40}\Z")
_MOST = 32
_NEW = ".new-"
_LEFT = re.compile(r"(?:[a-z-]+\.lock|index-[0-9a-f]{16}(?:\.lock)?)\Z")


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


class GitRepositories:
    """Bare repositories by remote; used in the event loop, one build at a time for each."""

    def __init__(self, root: str) -> None:
        os.makedirs(root, mode=0o700, exist_ok=True)
        for path in removal.those(root, lambda name: name.startswith(_NEW)):  # their maker was killed
            removal.try_to_remove(path)
        self.root = self._root = root
        self._locks: dict[str, asyncio.Lock] = {}

    @asynccontextmanager
    async def of(self, remote: GitRemote, git: Git) -> AsyncIterator[str]:
        """The path of a remote's repository, which is made where it is missing, for the caller alone."""
        name = hashlib.sha256(remote.url.encode()).hexdigest()[:32]
        async with self._locks.setdefault(name, asyncio.Lock()):
            path = os.path.join(self._root, name)
            if not await asyncio.to_thread(self._prepared, path):
                await self._make(path, git)
            yield path

    async def _make(self, path: str, git: Git) -> None:
        """Make a repository, which has its name when it is whole."""
        new = os.path.join(self._root, f"{_NEW}{secrets.token_hex(8)}")
        try:
            await git.run("init", "--quiet", "--bare", new)
            await git.run("--git-dir", new, "config", "uploadpack.allowAnySHA1InWant", "true")
            failpoint("source.repository-made")
            await asyncio.to_thread(os.rename, new, path)
        except BaseException:
            await asyncio.shield(asyncio.to_thread(removal.try_to_remove, new))
            raise

    def _prepared(self, path: str) -> bool:
        """Note that a repository is used, and remove those that were not for the longest time; False: it is new."""
        try:
            os.utime(path)
        except FileNotFoundError:
            found = False
        else:
            found = True
            _remove_left(path)
        paths = removal.those(self._root, lambda name: not name.startswith(_NEW) and not self._in_use(name))
        for old in sorted(paths, key=os.path.getmtime)[:-_MOST]:
            removal.try_to_remove(old)
        return found

    def _in_use(self, name: str) -> bool:
        lock = self._locks.get(name)
        return lock is not None and lock.locked()


def _remove_left(repository: str) -> None:
    """Remove what killed runs of git have left in a repository that nobody uses."""
    left = removal.those(repository, lambda name: _LEFT.match(name) is not None)
    packs = os.path.join(repository, "objects", "pack")
    for path in (*left, *removal.those(packs, lambda name: name.startswith("tmp_"))):
        removal.try_to_remove(path)
