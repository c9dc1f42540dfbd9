"""Cache mounts: directories that commands of different builds share, kept under the data root.

    builder/mounts/<name>/files          what commands see
    builder/mounts/<name>/record.json    for which cache it is, and how it was used
    builder/mounts/.new-<random>/        being made or removed; removed when found at a start

A cache is an id and the tree that it begins with.  It has one directory, or several: commands that want one of their
own (``private``) get another while the first is in use, ``locked`` ones wait for it, ``shared`` ones use it together.
Who uses what is known in memory alone: a start finds all of them free, since no command outlives its daemon.  Nothing
here is synced: a cache may be lost with the machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import secrets
import time
from typing import TYPE_CHECKING

import msgspec

from ketch import trees
from ketch.build.providers import KeptRecord
from ketch.errors import InvalidArgument
from ketch.failpoints import failpoint
from ketch.runtime.rootfs import paths
from ketch.storage import removal, sizes
from ketch.storage.tree_copy import Copier

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from ketch.build.providers import BuildSnapshots, CommandMount

log = logging.getLogger(__name__)
_NEW = ".new-"


class _Stored(msgspec.Struct, kw_only=True):
    """The content of ``record.json``."""

    key: list[str]
    description: str
    created: int
    last_used: int
    usage_count: int = 0


class _Cache:
    """A directory: ``users`` commands have it, ``shared`` says whether others may join them."""

    def __init__(self, name: str, stored: _Stored) -> None:
        self.name, self.stored = name, stored
        self.users, self.shared = 0, False
        self.made: asyncio.Task[None] | None = None


class CacheMounts:
    """The keeper of all cache mounts of a data root."""

    def __init__(self, data_root: str, layers: BuildSnapshots, later: Callable[[Callable[[], None]], object]) -> None:
        """``later`` runs removals in the background."""
        self._root = os.path.join(data_root, "builder", "mounts")
        self._layers = layers
        self._changed = asyncio.Event()
        os.makedirs(self._root, mode=0o700, exist_ok=True)
        self._caches: dict[str, _Cache] = {}
        for name in os.listdir(self._root):
            if (stored := _read(os.path.join(self._root, name))) is not None and not name.startswith(_NEW):
                self._caches[name] = _Cache(name, stored)
            else:
                later(functools.partial(removal.try_to_remove, os.path.join(self._root, name)))

    # -- for commands ------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def held(self, mounts: Sequence[CommandMount], command: str) -> AsyncIterator[dict[str, str]]:
        """The directories of a command's cache mounts by their places, as long as the context lasts (KetchError).

        All of them are taken at once, so that commands do not wait for each other in a circle.
        """
        wanted = {tuple(_key(mount)): mount for mount in reversed(mounts)}
        taken = await self._take(wanted, command)
        try:
            await asyncio.gather(*(asyncio.shield(cache.made) for cache in taken.values() if cache.made is not None))
            yield {mount.dest: self._files(taken[tuple(_key(mount))].name) for mount in mounts}
        finally:
            for cache in taken.values():
                self._release(cache)

    async def _take(self, wanted: dict[tuple[str, ...], CommandMount], command: str) -> dict[tuple[str, ...], _Cache]:
        while True:
            self._changed.clear()
            free = {key: self._free(list(key), mount.sharing) for key, mount in wanted.items()}
            if all(self._may_begin(key, mount, free[key]) for key, mount in wanted.items()):
                break
            await self._changed.wait()
        taken = {}
        for key, mount in wanted.items():
            cache = free[key] or self._new(mount, command)
            cache.users, cache.shared = cache.users + 1, mount.sharing == "shared"
            taken[key] = cache
        return taken

    def _of(self, key: Sequence[str]) -> list[_Cache]:
        found = [cache for cache in self._caches.values() if cache.stored.key == list(key)]
        return sorted(found, key=lambda cache: (cache.stored.created, cache.name))

    def _free(self, key: list[str], sharing: str) -> _Cache | None:
        mine = self._of(key)
        joined = next((cache for cache in mine if cache.users and cache.shared), None) if sharing == "shared" else None
        if joined is not None:
            return joined
        for cache in mine:
            if not cache.users:
                if os.path.isdir(self._files(cache.name)):
                    return cache
                del self._caches[cache.name]  # somebody has removed it by hand
        return None

    def _may_begin(self, key: tuple[str, ...], mount: CommandMount, free: _Cache | None) -> bool:
        return mount.sharing != "locked" or free is not None or not self._of(key)

    def _new(self, mount: CommandMount, command: str) -> _Cache:
        now = time.time_ns()
        what = f"cached mount {mount.dest} from exec {command}"
        if mount.cache_id != mount.dest:
            what += f' with id "{mount.cache_id}"'
        stored = _Stored(key=_key(mount), description=what, created=now, last_used=now)
        cache = _Cache(secrets.token_hex(16), stored)
        self._caches[cache.name] = cache
        cache.made = asyncio.create_task(self._make(cache, mount))
        return cache

    async def _make(self, cache: _Cache, mount: CommandMount) -> None:
        try:
            await asyncio.to_thread(self._fill, cache, mount)
        except BaseException:
            self._caches.pop(cache.name, None)
            raise
        cache.made = None

    def _fill(self, cache: _Cache, mount: CommandMount) -> None:
        new = os.path.join(self._root, _NEW + secrets.token_hex(8))
        target = os.path.join(new, "files")
        os.makedirs(target, mode=0o755)
        os.chmod(target, 0o755)
        try:
            if mount.tree.layers:
                self._copy(mount, target)
            _write(new, cache.stored)
            failpoint("build.cache-mount-filled")
            os.rename(new, os.path.join(self._root, cache.name))
            failpoint("build.cache-mount-named")
        except BaseException:
            removal.try_to_remove(new)
            raise

    def _copy(self, mount: CommandMount, target: str) -> None:
        with contextlib.ExitStack() as stack:
            tree_fd = stack.enter_context(self._layers.opened(mount.tree))
            try:
                part_fd = paths.open_in(tree_fd, mount.selector or "/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except (FileNotFoundError, NotADirectoryError) as e:
                what = "is no directory" if isinstance(e, NotADirectoryError) else "is not there"
                raise InvalidArgument(f"cache mount {mount.dest}: `{mount.selector}` of its source {what}") from e
            stack.callback(os.close, part_fd)
            target_fd = os.open(target, trees.DIRECTORY)
            stack.callback(os.close, target_fd)
            Copier(target_fd).tree(part_fd)

    def _release(self, cache: _Cache) -> None:
        cache.users -= 1
        self._changed.set()
        if cache.users or cache.made is not None or cache.name not in self._caches:
            return
        cache.stored.last_used, cache.stored.usage_count = time.time_ns(), cache.stored.usage_count + 1
        try:
            _write(os.path.join(self._root, cache.name), cache.stored)
        except OSError as e:
            log.warning("record the use of cache mount %s: %s", cache.name, e)

    def _files(self, name: str) -> str:
        return os.path.join(self._root, name, "files")

    # -- for those who count and remove (`KeptStore`) ------------------------------------------

    def records(self) -> list[KeptRecord]:
        """All directories, in the order in which they were made."""
        return [
            KeptRecord(
                name=cache.name,
                kind="exec.cachemount",
                description=cache.stored.description,
                created=cache.stored.created,
                last_used=cache.stored.last_used,
                usage_count=cache.stored.usage_count,
                in_use=cache.users > 0,
            )
            for cache in sorted(self._caches.values(), key=lambda cache: cache.stored.created)
        ]

    def size(self, name: str) -> int:
        """The bytes of a directory's files, 0 when it is gone; blocking, from any thread."""
        return sizes.written_bytes(self._files(name))

    async def remove(self, name: str) -> int:
        """Remove a directory and return the bytes that it had; -1 when it is in use, or gone."""
        cache = self._caches.get(name)
        if cache is None or cache.users or cache.made is not None:
            return -1
        aside = os.path.join(self._root, _NEW + secrets.token_hex(8))
        os.rename(os.path.join(self._root, name), aside)
        failpoint("build.cache-mount-unnamed")
        del self._caches[name]
        size = await asyncio.to_thread(sizes.written_bytes, os.path.join(aside, "files"))
        await asyncio.to_thread(removal.try_to_remove, aside)
        return size


def _key(mount: CommandMount) -> list[str]:
    return [mount.cache_id, *([mount.selector, *mount.tree.layers] if mount.tree.layers else [])]


def _write(directory: str, stored: _Stored) -> None:
    path = os.path.join(directory, "record.json")
    with open(f"{path}.new", "wb") as f:
        f.write(msgspec.json.encode(stored))
    os.rename(f"{path}.new", path)


def _read(directory: str) -> _Stored | None:
    try:
        with open(os.path.join(directory, "record.json"), "rb") as f:
            return msgspec.json.decode(f.read(), type=_Stored)
    except (OSError, msgspec.DecodeError):  # a cache that nobody can tell what it is for is of no use
        return None
