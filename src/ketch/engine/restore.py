"""At the daemon's start: what the last one left, brought in line with what is true now.

For each container that was up: its monitor is alive (take charge again), or it left an exit record
(handle the exit now), or both are gone (it died with the machine: exit code 137).  Then whatever belongs to
no container is removed: directories, cgroups, interfaces and port mappings.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from typing import TYPE_CHECKING

from ketch.engine import containers, restarts, stats
from ketch.engine.shim import Exit, Monitor, read_exit
from ketch.errors import KetchError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ketch.engine.context import Context
    from ketch.engine.execs import ExecService
    from ketch.engine.lifecycle import Lifecycle
    from ketch.engine.model import Container

log = logging.getLogger(__name__)
_AT_ONCE = 64  # monitors that are asked at the same time: each has to wake up first


async def restore(ctx: Context, life: Lifecycle, execs: ExecService) -> None:
    """Reconnect, record, clean up; a container that fails is logged and does not stop the others."""
    everything = ctx.store.all()
    turn = asyncio.Semaphore(_AT_ONCE)

    async def restore_one(container: Container) -> None:
        async with turn:
            try:
                await _restore_one(ctx, life, execs, container)
            except (KetchError, OSError):
                log.exception("restore container %s", container.id[:12])

    await asyncio.gather(*map(restore_one, everything))
    await asyncio.to_thread(_sweep, ctx)
    await ctx.in_network(ctx.network.reconcile, [c.id for c in ctx.store.all() if c.state.running])
    await asyncio.gather(*(_serve_again(ctx, c) for c in everything if c.state.running))
    await asyncio.to_thread(ctx.volumes.unmount_unused)
    life.restored.set()
    for container in _in_order(c for c in ctx.store.all() if restarts.wanted_at_boot(c)):
        coming = ctx.live(container.id).restart_task
        if container.state.running or (coming is not None and not coming.done()):
            continue  # it ended while nobody was there, and its policy is bringing it back already
        try:
            await life.start(container)
        except KetchError as e:
            log.warning("restart container %s: %s", container.id[:12], e.message)


def _in_order(containers_: Iterable[Container]) -> list[Container]:
    """Oldest first, and those that live in another container's namespace after all others."""

    def key(container: Container) -> tuple[bool, int]:
        host = container.host
        borrowed = any(m.startswith("container:") for m in (host.network_mode, host.pid_mode, host.ipc_mode))
        return borrowed, container.created

    return sorted(containers_, key=key)


async def _restore_one(ctx: Context, life: Lifecycle, execs: ExecService, container: Container) -> None:
    run_dir, live = ctx.run_dir(container.id), ctx.live(container.id)
    if container.state.status == "removing":
        ctx.store.remove(container)
        return
    monitor = await Monitor.connect(run_dir)
    if monitor is not None:
        state = container.state
        known = (state.status, state.pid, state.started_at)
        state.status = state.status if state.status == "paused" else "running"
        state.pid, state.started_at = monitor.pid, monitor.started_at or state.started_at
        if known != (state.status, state.pid, state.started_at):  # else a write for each container would be for nothing
            ctx.store.save(container)
        life.adopt(container, monitor)
        execs.recover(container, monitor.execs)
        return
    if not container.state.running:
        if container.host.auto_remove and container.state.status == "exited" and life.remove is not None:
            await life.remove(container)
        return
    async with live.lock:
        exit_ = read_exit(run_dir)
        if exit_ is None:
            exit_ = await asyncio.to_thread(_vanished, ctx, container)
        await life.on_exit(container, live, exit_)


async def _serve_again(ctx: Context, container: Container) -> None:
    monitor = ctx.live(container.id).monitor
    if monitor is not None:
        await _answer_names(ctx, container, monitor)
        await _attach_volumes(ctx, container)


async def _answer_names(ctx: Context, container: Container, monitor: Monitor) -> None:
    """Serve the container's resolver again, with the sockets that its monitor kept."""
    kept, monitor.kept = monitor.kept, []
    try:
        fresh = await ctx.sandboxes.adopt(container, kept)
        if fresh and not kept:
            monitor.keep(fresh)
    except (KetchError, OSError) as e:
        log.warning("answer names for container %s: %s", container.id[:12], e)


async def _attach_volumes(ctx: Context, container: Container) -> None:
    """Know again who uses which volumes; what is mounted stays mounted."""
    names = [point.name for point in container.mounts if point.type == "volume"]
    if not names:
        return
    try:
        await asyncio.to_thread(ctx.volumes.attach, names, container.id)
    except (KetchError, OSError) as e:
        log.warning("volumes of container %s: %s", container.id[:12], e)


def _vanished(ctx: Context, container: Container) -> Exit:
    """A monitor that is gone without a record: make sure that its processes are, too."""
    cgroup = stats.cgroups_of(ctx, container)
    cgroup.kill()
    cgroup.remove()
    return Exit(137, time.time_ns(), False)


def _sweep(ctx: Context) -> None:
    """Remove directories that belong to no container."""
    for root in (os.path.join(ctx.data_root, "containers"), os.path.join(ctx.exec_root, "run")):
        for name in os.listdir(root) if os.path.isdir(root) else ():
            if name not in ctx.store.ids:
                log.info("remove what is left of container %s", name[:12])
                containers.remove_files(ctx, name)
