"""View of a container's files, opened for one operation, whether the container runs or not.

What runs is seen through copies of its own mounts.  What does not run is put together from its layers: read-only for
reading, with nothing locked; for writing with its own upper directory, while the caller holds the container's
lock, so that no start comes in between (the kernel does not like one upper directory in two mounts).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from msgspec import Struct

from ketch.engine.model.namespaces.user import through
from ketch.engine.spec import bundle
from ketch.engine.volumes import mount_plan
from ketch.errors import Conflict, DataLoss, NotFound, Unavailable
from ketch.runtime.rootfs import view
from ketch.undo import Undo

if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.engine.live.containers import LiveContainers
    from ketch.engine.model.namespaces.user import UserNamespace
    from ketch.engine.model.records import Container
    from ketch.engine.model.store import ContainerStore
    from ketch.engine.paths import ContainerPaths
    from ketch.engine.volumes.store import VolumeStore
    from ketch.images.store import ImageStore
    from ketch.runtime.oci_types import OciIdMapping, OciMount
    from ketch.storage.snapshots.overlay import Snapshots

_PATIENCE_S = 1.0
_TRIES = 10
_FILES = ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf")


class Files:
    """``root_fd`` leads to the container's files until `close`, which may be called in any thread, once.

    ``owners`` is the user namespace through whose mapping they are seen.
    """

    def __init__(self, root_fd: int, *closers: Callable[[], object], owners: UserNamespace | None = None) -> None:
        self.root_fd = root_fd
        self.owners = owners
        self._closers = closers

    def close(self) -> None:
        """Release the view."""
        with Undo() as stack:
            for closer in self._closers:
                stack.callback(closer)

    def __enter__(self) -> Files:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


Found = tuple[Files, list[str]]  # and the mounts that have no place in the root


class ContainerViews(Struct, frozen=True, eq=False):
    """Opens the files of containers."""

    store: ContainerStore
    live: LiveContainers
    paths: ContainerPaths
    images: ImageStore
    snapshots: Snapshots
    volumes: VolumeStore

    async def open_files(self, container: Container) -> Files:
        """The container's files with its volumes, to be read (or, if it runs, written); the caller closes them."""
        return await self._patiently(
            container,
            running=lambda: self._of_process(container),
            stopped=lambda: self._of_snapshot(container, readonly=True),
        )

    async def open_root(self, container: Container) -> Files:
        """The container's root alone, read-only: places where something is mounted are as they are below it."""

        def running() -> Files:
            fd = view.root_of_process(container.state.pid, container.id)
            return Files(fd, lambda: os.close(fd), owners=container.user_namespace)

        def stopped() -> Found:
            root = self._root(container, readonly=True)
            found = view.of_snapshot(root, [], self.paths.directory(container.id), _maps(container))
            return Files(found.root_fd, found.close, owners=container.user_namespace), found.missing

        return await self._patiently(container, running, stopped)

    async def open_writable(self, container: Container) -> Files:
        """The container's files with its volumes, to be written.

        A container that does not run is locked until they are closed.
        """
        loop, lock = asyncio.get_running_loop(), self.live.of(container.id).lock
        for _ in range(_TRIES):
            self.check(container)
            if container.state.running:
                if files := await self._running(container, lambda: self._of_process(container)):
                    return files
                continue
            await lock.acquire()
            try:
                self.check(container)
                if not container.state.running:
                    files = (await asyncio.to_thread(self._of_snapshot, container, readonly=False))[0]
                    release = partial(loop.call_soon_threadsafe, lock.release)
                    return Files(files.root_fd, release, files.close, owners=container.user_namespace)
            except BaseException:
                lock.release()
                raise
            lock.release()
        raise _restless(container)

    async def _patiently(
        self, container: Container, running: Callable[[], Files], stopped: Callable[[], Found]
    ) -> Files:
        for _ in range(_TRIES):
            self.check(container)
            if not container.state.running:
                return await self._stopped(container, stopped)
            if files := await self._running(container, running):
                return files
        raise _restless(container)

    async def _running(self, container: Container, look: Callable[[], Files]) -> Files | None:
        """The files of a running container; None when its process has just ended."""
        try:
            return await asyncio.to_thread(look)
        except OSError as e:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.live.of(container.id).exited.wait(), _PATIENCE_S)
            if container.state.running and not isinstance(e, ProcessLookupError):
                self.volumes.check_directories(p.name for p in container.mounts if p.type == "volume")
                raise
        return None

    async def _stopped(self, container: Container, look: Callable[[], Found]) -> Files:
        files, missing = await asyncio.to_thread(look)
        if not missing:
            return files
        files.close()
        async with self.live.of(container.id).lock:  # it never ran: places for its volumes are made as a start would
            self.check(container)
            if not container.state.running:
                (await asyncio.to_thread(self._of_snapshot, container, readonly=False))[0].close()
        return (await asyncio.to_thread(look))[0]

    def check(self, container: Container) -> None:
        """NotFound or Conflict for a container that is gone or going."""
        if container.id not in self.store.ids:
            raise NotFound(f"No such container: {container.id}")
        if container.state.going:
            raise Conflict(f"container {container.id} is being removed")
        self.check_files(container)

    def check_files(self, container: Container) -> None:
        """Raise DataLoss when the container's directory is missing."""
        if not self.snapshots.exists(container.id):
            raise DataLoss(
                f"container {container.name}: its files are missing in `{self.paths.directory(container.id)}`",
                hint="all that is left to do is to remove it",
            )

    def _of_process(self, container: Container) -> Files:
        host = container.host
        paths = {point.destination for point in container.mounts} | set(host.tmpfs or ()) | set(_FILES)
        found = view.of_process(
            container.state.pid,
            sorted(paths, key=lambda p: (p.count("/"), p)),
            self.paths.directory(container.id),
            container.id,
            container.user_namespace.outside(0, 0) if container.user_namespace is not None else (0, 0),
        )
        return Files(found.root_fd, found.close, owners=container.user_namespace)

    def _root(self, container: Container, *, readonly: bool) -> list[OciMount]:
        image = self.images.resolve(container.image_id)
        mounts = self.snapshots.mounts(container.id, image.chain_ids, readonly=readonly)
        return cast("list[OciMount]", through(container.user_namespace, mounts))

    def _of_snapshot(self, container: Container, *, readonly: bool) -> Found:
        user = f"files-{secrets.token_hex(8)}"
        names = [point.name for point in container.mounts if point.type == "volume"]
        directory = self.paths.directory(container.id)
        with Undo() as undo:
            using = contextlib.ExitStack()
            using.enter_context(self.volumes.used(names, user))
            undo.callback(using.close)
            if not readonly:  # what is written there belongs into the source, which the start would make
                mount_plan.make_sources([point for point in container.mounts if point.spec is None])
            within = container.user_namespace
            entries: list[Any] = mount_plan.oci_mounts(container.mounts, container.host, within)
            entries += bundle.file_mounts(directory, container, within)
            # A tmpfs is empty until the start; a source that is gone is the start's to complain about.
            entries = [
                e for e in entries if e["type"] == "overlay" or (e["type"] == "bind" and os.path.exists(e["source"]))
            ]
            found = view.of_snapshot(self._root(container, readonly=readonly), entries, directory, _maps(container))
            undo.pop_all()
        return Files(found.root_fd, using.close, found.close, owners=within), found.missing


def _maps(container: Container) -> tuple[list[OciIdMapping], list[OciIdMapping]] | None:
    return container.user_namespace.oci() if container.user_namespace is not None else None


def _restless(container: Container) -> Unavailable:
    return Unavailable(f"look into container {container.name}: it starts and ends all the time", hint="try again")
