"""``cp``, ``diff`` and ``export``: the files of containers, read and written from outside.

Blocking work runs in threads of its own, as long as the client takes.  What runs is never locked for it; a container
that does not run cannot be started while something is written into it.
"""

from __future__ import annotations

import asyncio
import io
import os
from contextlib import ExitStack
from typing import IO, TYPE_CHECKING

from msgspec import Struct

from ketch.engine.aio.tar_stream import TarStream
from ketch.engine.aio.transfer import BodyReader, written
from ketch.engine.files import container_paths, upper_dir
from ketch.engine.model.reports import PathChange
from ketch.engine.stats.counters import timed
from ketch.errors import DataLoss, InvalidArgument, KetchError, NotFound, UnclassifiedArgument
from ketch.runtime.rootfs import paths, view
from ketch.runtime.security import users
from ketch.storage.archive import compression
from ketch.storage.archive.into import Ownership, extract_into
from ketch.storage.archive.write import write_directory
from ketch.threads import in_own_thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from ketch.engine.aio.background import BackgroundTasks
    from ketch.engine.events.bus import EventBus
    from ketch.engine.files.container_view import ContainerViews, Files
    from ketch.engine.model.path_stat import PathStat
    from ketch.engine.model.records import Container
    from ketch.engine.model.store import ContainerStore
    from ketch.engine.stats.counters import Counters
    from ketch.images.store import ImageStore
    from ketch.storage.snapshots.overlay import Snapshots

_DRAIN = 1 << 20


class FileService(Struct, frozen=True, eq=False):
    """The files of all containers."""

    store: ContainerStore
    views: ContainerViews
    images: ImageStore
    snapshots: Snapshots
    events: EventBus
    tasks: BackgroundTasks
    counters: Counters

    async def stat(self, ref: str, path: str) -> PathStat:
        """The status of a path (NotFound, InvalidArgument); a symbolic link at its end is not followed."""
        path = container_paths.absolute(path)
        files = await self.views.open_files(self.store.get(ref))

        def work() -> PathStat:
            with files:
                found = container_paths.Located(files.root_fd, path, ref)
                found.close()
                return found.stat

        return await in_own_thread(work)

    async def archive(self, ref: str, path: str) -> tuple[PathStat, TarStream]:
        """The status of a path, and its tree as a tar stream."""
        path = container_paths.absolute(path)
        container = self.store.get(ref)
        files = await self.views.open_files(container)
        try:
            found = await in_own_thread(lambda: container_paths.Located(files.root_fd, path, ref, files.owners))
        except BaseException:
            files.close()
            raise
        self.events.of_container(container, "archive-path")
        return found.stat, self._stream(container, found.write, files, found.close)

    async def export(self, ref: str) -> TarStream:
        """The container's whole root as a tar stream, without what is mounted in it."""
        container = self.store.get(ref)
        files = await self.views.open_root(container)

        def write(target: IO[bytes]) -> None:
            root_fd = paths.open_in(files.root_fd, "/", os.O_RDONLY | os.O_DIRECTORY)
            try:
                write_directory(root_fd, None, target, files.owners)
            finally:
                os.close(root_fd)

        self.events.of_container(container, "export")
        return self._stream(container, write, files)

    def _stream(
        self, container: Container, write: Callable[[IO[bytes]], None], files: Files, *closers: Callable[[], None]
    ) -> TarStream:
        """The output of ``write``, whose thread closes the files: it may outlast the client."""
        upper = self.snapshots.upper(container.id)
        stack = ExitStack()
        stack.enter_context(files)
        for closer in closers:
            stack.callback(closer)

        def work(target: IO[bytes]) -> None:
            with stack:
                _reading(container, write, target)
                if not os.path.isdir(upper):  # what was removed in the meantime looks like an end of it
                    raise DataLoss(f"container {container.id} was removed while it was read")

        return TarStream(written(self.tasks.start, work), stack.close)

    async def extract(
        self, ref: str, path: str, body: AsyncIterator[bytes], *, replace: bool = True, as_user: bool = False
    ) -> None:
        """Unpack a tar archive (plain, gzip, zstd …) into a directory of the container.

        NotFound, InvalidArgument (no directory, a broken archive), PermissionDenied (read-only).  Without ``replace``
        directories and others do not take each other's place; with ``as_user`` all belongs to the container's user.
        """
        path = container_paths.absolute(path)
        container = self.store.get(ref)
        target = _Destination(container, ref, path)
        files = await self.views.open_writable(container)
        reader = BodyReader(body, asyncio.get_running_loop())

        def unpack() -> None:
            with files:
                _extract(target, files, reader, replace=replace, as_user=as_user)

        work = self.tasks.start(in_own_thread(unpack))
        try:
            await asyncio.shield(work)
        finally:
            await reader.abandon()
        self.events.of_container(container, "extract-to-dir")

    @timed("changes")
    async def changes(self, ref: str) -> list[PathChange]:
        """The changes in the container's root: ``{"Path": …, "Kind": …}``, by path."""
        container = self.store.get(ref)
        self.views.check(container)

        def look() -> list[PathChange]:
            found = upper_dir.changes(self.images, self.snapshots, container)
            return [PathChange(path, kind) for path, kind in found]

        return await in_own_thread(look)


def _reading(container: Container, write: Callable[[IO[bytes]], None], target: IO[bytes]) -> None:
    """Call ``write``; errors of the container's files become errors of the request, not of the daemon."""
    try:
        write(target)
    except BrokenPipeError:
        raise  # the client's end of it
    except FileNotFoundError as e:
        raise NotFound(f"container {container.id}: what was to be read is gone meanwhile") from e
    except OSError as e:
        raise KetchError(f"container {container.id}: read its files: {e.strerror or e}") from e


class _Destination(Struct, frozen=True):
    """A path in a container, which its user calls ``ref``."""

    container: Container
    ref: str
    path: str


def _extract(target: _Destination, files: Files, reader: BodyReader, *, replace: bool, as_user: bool) -> None:
    container, root_fd = target.container, files.root_fd
    try:
        target_fd = paths.open_in(root_fd, target.path, paths.O_PATH)
    except OSError as e:
        raise container_paths.explain(e, target.path, target.ref) from e
    try:
        if not container_paths.is_directory(target_fd):
            raise InvalidArgument("extraction point is not a directory")
        _check_writable(container, root_fd, target_fd)
        owner = None
        if as_user and container.config.user:
            user = users.lookup(root_fd, container.config.user)
            owner = (user.uid, user.gid)
        source = io.BufferedReader(reader, 1 << 20)
        if not source.peek(1):
            return  # nothing is an archive of nothing, for Docker
        try:
            with compression.reader(source, "archive") as plain:
                whose = Ownership(owner, files.owners)
                extract_into(plain, root_fd, target.path, target_fd, replace=replace, whose=whose)
                while plain.read(_DRAIN):
                    pass
        except InvalidArgument as e:
            raise UnclassifiedArgument(e.message, hint=e.hint) from e  # as with Docker, whatever is wrong with it
    finally:
        os.close(target_fd)


def _check_writable(container: Container, root_fd: int, target_fd: int) -> None:
    """PermissionDenied for a target on a read-only root or volume, in Docker's words."""
    (root_mount, _), (mount, readonly) = view.mount_of(root_fd), view.mount_of(target_fd)
    if mount == root_mount and (readonly or container.host.readonly_rootfs):
        raise InvalidArgument("container rootfs is marked read-only")
    if readonly:
        raise InvalidArgument("mounted volume is marked read-only")
