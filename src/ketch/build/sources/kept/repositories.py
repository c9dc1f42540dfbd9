"""Bare repositories of git that are kept for the next builds.

<root>/<name>/              a repository; its name is of the remote's address
<root>/<name>/ketch.json    what it is of, and when it was used
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import logging
import os
import re
import secrets
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol

import msgspec

from ketch import threads
from ketch.build.providers import KeptRecord
from ketch.failpoints import failpoint
from ketch.storage import removal, sizes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    Later = Callable[[Callable[[], None]], object]

log = logging.getLogger(__name__)
_MOST = 32
_NEW = ".new-"  # of what is being made, or removed
_RECORD = "ketch.json"
_LEFT = re.compile(r"(?:[a-z-]+\.lock|index-[0-9a-f]{16}(?:\.lock)?)\Z")


class RemoteAddress(Protocol):
    """A remote's address, for git and for people."""

    @property
    def url(self) -> str: ...

    @property
    def shown(self) -> str: ...


class GitProgram(Protocol):
    """The program git."""

    async def run(self, *arguments: str) -> str:
        """Run it to its end (KetchError)."""
        ...


class _Stored(msgspec.Struct):
    """The record of a repository; times in ns since 1970."""

    remote: str
    created: int
    last_used: int
    usage_count: int = 0


class GitRepositories:
    """The repositories by remote; used in the event loop, one build at a time for each."""

    def __init__(self, root: str, later: Later) -> None:
        """``later`` runs removals in the background."""
        os.makedirs(root, mode=0o700, exist_ok=True)
        for path in removal.those(root, lambda name: name.startswith(_NEW)):  # their maker was killed
            later(functools.partial(removal.try_to_remove, path))
        self.root = self._root = root
        self._locks: dict[str, asyncio.Lock] = {}
        names = [name for name in os.listdir(root) if not name.startswith(_NEW)]
        self._known = {name: _read(os.path.join(root, name)) for name in names}

    @asynccontextmanager
    async def of(self, remote: RemoteAddress, git: GitProgram) -> AsyncIterator[str]:
        """The path of a remote's repository, which is made where it is missing, for the caller alone."""
        name = hashlib.sha256(remote.url.encode()).hexdigest()[:32]
        async with self._locks.setdefault(name, asyncio.Lock()):
            path, now = os.path.join(self._root, name), time.time_ns()
            stored = self._known.get(name) or _Stored(remote.shown, now, now)
            stored.remote, stored.last_used, stored.usage_count = remote.shown, now, stored.usage_count + 1
            if not await threads.run_to_end(_prepared, path, stored):
                await self._make(path, git, stored)
            self._known[name] = stored
            await self._remove_oldest()
            yield path

    async def _make(self, path: str, git: GitProgram, stored: _Stored) -> None:
        """Make a repository, which has its name when it is whole."""
        new = os.path.join(self._root, f"{_NEW}{secrets.token_hex(8)}")
        try:
            await git.run("init", "--quiet", "--bare", new)
            await git.run("--git-dir", new, "config", "uploadpack.allowAnySHA1InWant", "true")
            failpoint("source.repository-made")
            await threads.run_to_end(_prepared, new, stored)
            await threads.run_to_end(os.rename, new, path)
        except BaseException:
            await threads.run_to_end(removal.try_to_remove, new)
            raise

    async def _remove_oldest(self) -> None:
        """Remove the repositories that were not used for the longest time, beyond those that may be kept."""
        by_use = sorted(self._known, key=lambda name: self._known[name].last_used)
        for name in by_use[:-_MOST]:
            await self.remove(name)

    # -- for those who count and remove (`KeptStore`) ------------------------------------------------

    def records(self) -> list[KeptRecord]:
        """All repositories."""
        return [
            KeptRecord(
                name=name,
                kind="source.git.checkout",
                description=f"shared git repo for {one.remote}",
                created=one.created,
                last_used=one.last_used,
                usage_count=one.usage_count,
                in_use=self._in_use(name),
            )
            for name, one in sorted(self._known.items())
        ]

    def size(self, name: str) -> int:
        """The bytes of a repository, 0 when it is gone; blocking, from any thread."""
        return sizes.written_bytes(os.path.join(self._root, name))

    async def remove(self, name: str) -> int:
        """Remove a repository and return the bytes that it had; -1 when it is in use, or gone."""
        if name not in self._known or self._in_use(name):
            return -1
        aside = os.path.join(self._root, _NEW + secrets.token_hex(8))
        with contextlib.suppress(FileNotFoundError):
            os.rename(os.path.join(self._root, name), aside)
        del self._known[name]
        return await threads.run_to_end(_removed, aside)

    def _in_use(self, name: str) -> bool:
        lock = self._locks.get(name)
        return lock is not None and lock.locked()


def _prepared(path: str, stored: _Stored) -> bool:
    """Note that a repository is used, and remove what killed runs of git have left in it; False: it is not there."""
    record = os.path.join(path, _RECORD)
    new = f"{record}.new"
    try:
        with open(new, "wb") as f:
            f.write(msgspec.json.encode(stored))
    except FileNotFoundError:
        return False
    os.rename(new, record)
    left = removal.those(path, lambda name: _LEFT.match(name) is not None)
    packs = os.path.join(path, "objects", "pack")
    for one in (*left, *removal.those(packs, lambda name: name.startswith("tmp_"))):
        removal.try_to_remove(one)
    return True


def _removed(path: str) -> int:
    size = sizes.written_bytes(path)
    removal.try_to_remove(path)
    return size


def _read(path: str) -> _Stored:
    """The record of a repository; of one that has none, as older versions left them, what can be told."""
    try:
        with open(os.path.join(path, _RECORD), "rb") as f:
            return msgspec.json.decode(f.read(), type=_Stored)
    except (OSError, msgspec.DecodeError) as e:
        log.info("what the repository `%s` is of is not known: %s", path, e)
        used = os.stat(path).st_mtime_ns
        return _Stored("", used, used)
