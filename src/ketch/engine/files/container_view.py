"""Opening the files of a container, whether it runs or not, for one piece of work.

What runs is seen through copies of its own mounts.  What does not run is put together from its layers: read-only for
reading, with nothing locked; for writing with its own upper directory, while the caller holds the container's
lock, so that no start comes in between (the kernel does not like one upper directory in two mounts).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from typing import TYPE_CHECKING, Any

from ketch.engine.spec import bundle
from ketch.engine.volumes import mount_plan
from ketch.errors import Conflict, DataLoss, NotFound, Unavailable
from ketch.runtime.rootfs import view
from ketch.undo import Undo

if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.engine.model.records import Container
    from ketch.engine.parts import Context

_PATIENCE_S = 1.0
_TRIES = 10
_FILES = ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf")


class Files:
    """``root_fd`` leads to the container's files until `close`, which may be called in any thread, once."""

    def __init__(self, root_fd: int, *closers: Callable[[], object]) -> None:
        self.root_fd = root_fd
        self._closers = closers

    def close(self) -> None:
        """Give everything back."""
        with Undo() as stack:
            for closer in self._closers:
                stack.callback(closer)

    def __enter__(self) -> Files:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


Found = tuple[Files, list[str]]  # and the mounts that have no place in the root


async def open_files(ctx: Context, container: Container) -> Files:
    """The container's files with its volumes, to be read (or, if it runs, written); the caller closes them."""
    return await _patiently(
        ctx, container, lambda: _of_process(ctx, container), lambda: _of_snapshot(ctx, container, readonly=True)
    )


async def open_root(ctx: Context, container: Container) -> Files:
    """The container's root alone, read-only: places where something is mounted are as they are below it."""

    def running() -> Files:
        fd = view.root_of_process(container.state.pid, container.id)
        return Files(fd, lambda: os.close(fd))

    def stopped() -> Found:
        one = view.of_snapshot(_root(ctx, container, readonly=True), [], ctx.paths.directory(container.id))
        return Files(one.root_fd, one.close), one.missing

    return await _patiently(ctx, container, running, stopped)


async def open_writable(ctx: Context, container: Container) -> Files:
    """The container's files with its volumes, to be written; if it does not run, it is locked until they are closed."""
    loop, lock = asyncio.get_running_loop(), ctx.live.of(container.id).lock
    for _ in range(_TRIES):
        check(ctx, container)
        if container.state.running:
            if files := await _running(ctx, container, lambda: _of_process(ctx, container)):
                return files
            continue
        await lock.acquire()
        try:
            check(ctx, container)
            if not container.state.running:
                files = (await asyncio.to_thread(_of_snapshot, ctx, container, readonly=False))[0]
                return Files(files.root_fd, lambda: loop.call_soon_threadsafe(lock.release), files.close)
        except BaseException:
            lock.release()
            raise
        lock.release()
    raise _restless(container)


async def _patiently(
    ctx: Context, container: Container, running: Callable[[], Files], stopped: Callable[[], Found]
) -> Files:
    for _ in range(_TRIES):
        check(ctx, container)
        if not container.state.running:
            return await _stopped(ctx, container, stopped)
        if files := await _running(ctx, container, running):
            return files
    raise _restless(container)


async def _running(ctx: Context, container: Container, look: Callable[[], Files]) -> Files | None:
    """None when its process has just ended, and the news has come."""
    try:
        return await asyncio.to_thread(look)
    except OSError as e:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ctx.live.of(container.id).exited.wait(), _PATIENCE_S)
        if container.state.running and not isinstance(e, ProcessLookupError):
            raise
    return None


def _restless(container: Container) -> Unavailable:
    return Unavailable(f"look into container {container.name}: it starts and ends all the time", hint="try again")


async def _stopped(ctx: Context, container: Container, look: Callable[[], Found]) -> Files:
    files, missing = await asyncio.to_thread(look)
    if not missing:
        return files
    files.close()
    async with ctx.live.of(container.id).lock:  # it never ran: places for its volumes are made as a start would
        check(ctx, container)
        if not container.state.running:
            (await asyncio.to_thread(_of_snapshot, ctx, container, readonly=False))[0].close()
    return (await asyncio.to_thread(look))[0]


def check(ctx: Context, container: Container) -> None:
    """NotFound or Conflict for a container that is gone or going."""
    if container.id not in ctx.store.ids:
        raise NotFound(f"No such container: {container.id}")
    if container.state.going:
        raise Conflict(f"container {container.id} is being removed")
    check_files(ctx, container)


def check_files(ctx: Context, container: Container) -> None:
    """DataLoss when somebody has taken away what the container has on the disk."""
    if not ctx.snapshots.exists(container.id):
        raise DataLoss(
            f"container {container.name}: its files are missing in `{ctx.paths.directory(container.id)}`",
            hint="all that is left to do is to remove it",
        )


def _of_process(ctx: Context, container: Container) -> Files:
    host = container.host
    places = {point.destination for point in container.mounts} | set(host.tmpfs or ()) | set(_FILES)
    one = view.of_process(
        container.state.pid, sorted(places, key=lambda p: (p.count("/"), p)), ctx.paths.directory(container.id),
        container.id,
    )  # fmt: skip
    return Files(one.root_fd, one.close)


def _root(ctx: Context, container: Container, *, readonly: bool) -> list[dict[str, Any]]:
    image = ctx.images.resolve(container.image_id)
    return ctx.snapshots.mounts(container.id, image.chain_ids, readonly=readonly)


def _of_snapshot(ctx: Context, container: Container, *, readonly: bool) -> Found:
    user = f"files-{secrets.token_hex(8)}"
    names = [point.name for point in container.mounts if point.type == "volume"]
    directory = ctx.paths.directory(container.id)
    with Undo() as undo:
        ctx.volumes.attach(names, user)
        undo.callback(ctx.volumes.detach, names, user)
        entries = mount_plan.oci_mounts(container.mounts, container.host) + bundle.file_mounts(directory, container)
        # A tmpfs is empty until the start; a source that is gone is the start's to complain about.
        entries = [
            e for e in entries if e["type"] == "overlay" or (e["type"] == "bind" and os.path.exists(e["source"]))
        ]
        one = view.of_snapshot(_root(ctx, container, readonly=readonly), entries, directory)
        undo.pop_all()
    return Files(one.root_fd, lambda: ctx.volumes.detach(names, user), one.close), one.missing
