"""At the daemon's start: what the last one left, brought in line with what is true now.

For each container that was up: its monitor is alive (take charge again), or it left an exit record
(handle the exit now), or both are gone (it died with the machine: exit code 137).  Then whatever belongs to
no container is removed: directories, cgroups, interfaces and port mappings.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import logging
import os
import time
from typing import TYPE_CHECKING

from ketch import faults
from ketch.engine.containers import directories as container_directories
from ketch.engine.containers import orphans, restart_policy, snapshot_work, update
from ketch.engine.live import takeover
from ketch.engine.model.records import Status
from ketch.engine.monitors import process as monitor_process
from ketch.engine.monitors.run_directory import Exit, read_exit
from ketch.errors import KetchError, Unavailable
from ketch.storage.database.db import REPAIR
from ketch.storage.lost import Lost, is_ours
from ketch.storage.snapshots import quota

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ketch.engine.containers.lifecycle import Lifecycle
    from ketch.engine.execs.service import ExecService
    from ketch.engine.model.records import Container
    from ketch.engine.monitors.monitor_client import Monitor
    from ketch.engine.parts import Context

log = logging.getLogger(__name__)
_AT_ONCE = 64  # monitors that are asked at the same time: each has to wake up first
_PATIENCE_S, _LEAST_PATIENCE_S = 1.5, 0.1  # for all of them, and for each
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 30.0


async def restore(ctx: Context, life: Lifecycle, execs: ExecService) -> None:
    """Reconnect, record, clean up; a container that fails is logged and does not stop the others."""
    everything = ctx.store.all()
    turn = asyncio.Semaphore(_AT_ONCE)
    deadline = time.monotonic() + _PATIENCE_S

    async def at_once(container: Container, monitor: Monitor | None) -> None:
        await _settle(ctx, life, execs, container, monitor)

    async def settle(container: Container, monitor: Monitor | None) -> None:
        await at_once(container, monitor)
        if monitor is not None:
            await _serve_again(ctx, container)

    async def restore_one(container: Container) -> None:
        async with turn:
            try:
                patience_s = max(deadline - time.monotonic(), _LEAST_PATIENCE_S)
                try:
                    await takeover.attempt(ctx, container, patience_s, at_once)
                except (Unavailable, OSError) as e:
                    await takeover.pursue(ctx, container, e, settle)
            except (KetchError, OSError):
                log.exception("restore container %s", container.id[:12])
            faults.point("daemon.container-restored")

    await asyncio.gather(*map(restore_one, everything))
    try:
        await asyncio.to_thread(_sweep, ctx)
    except OSError as e:
        if e.errno not in (errno.EMFILE, errno.ENFILE):
            raise
        log.warning("look for what is left of former containers: %s; the next start does it", e.strerror)
    faults.point("daemon.swept")
    up = [c.id for c in ctx.store.all() if c.state.running]
    await ctx.network_thread.run(ctx.network.reconcile, [*up, *ctx.store.unreadable])
    faults.point("daemon.reconciled")
    await asyncio.gather(*(_serve_again(ctx, c) for c in everything if c.state.running))
    await asyncio.to_thread(ctx.volumes.unmount_unused)
    await asyncio.to_thread(ctx.volumes.finish_pending)
    life.restored.set()
    for container in _in_order(c for c in ctx.store.all() if restart_policy.wanted_at_boot(c)):
        if container.state.running:
            continue  # it ended while nobody was there, and its policy has brought it back already
        if container.state.status is Status.RESTARTING:
            if ctx.live.of(container.id).restart_task is None:  # its count and what is left of its pause are kept
                life.restart_later(container)
            continue
        try:
            await life.start(container)
        except (KetchError, OSError) as e:
            log.warning("restart container %s: %s", container.id[:12], e)


def _in_order(containers_: Iterable[Container]) -> list[Container]:
    """Oldest first, and those that live in another container's namespace after all others."""

    def key(container: Container) -> tuple[bool, int]:
        return bool(container.host.joined), container.created

    return sorted(containers_, key=key)


async def _settle(
    ctx: Context, life: Lifecycle, execs: ExecService, container: Container, monitor: Monitor | None
) -> None:
    """Take charge of a container that runs, or handle its end."""
    state = container.state
    if state.status is Status.REMOVING:
        ctx.store.remove(container)
        return
    if monitor is not None:
        _take_over(ctx, container, monitor)
        life.adopt(container, monitor)
        execs.recover(container, monitor.execs)
        return
    end = read_exit(ctx.paths.run_dir(container.id))
    unheard = end is not None and end.at_ns > max(state.finished_at, container.created)
    await _find_directory(ctx, container)
    if not state.running and not unheard:
        if container.host.auto_remove and state.status is Status.EXITED:
            await life.listeners.remove(container)
        return
    live = ctx.live.of(container.id)
    async with live.lock:
        await asyncio.to_thread(orphans.clear, ctx, container)
        await life.on_exit(container, live, end or Exit(137, time.time_ns(), False))


async def _find_directory(ctx: Context, container: Container) -> None:
    """Directories that were made just before a power cut may be lost although the row is there: they were empty."""
    if not ctx.snapshots.exists(container.id):
        log.warning("container %s (%s): its directory was lost; it begins anew", container.name, container.id[:12])
        chain_ids = ctx.images.resolve(container.image_id).chain_ids
        size = quota.parse(container.host.storage_opt)
        await snapshot_work.whole(ctx.snapshots, ctx.snapshots.prepare, container.id, chain_ids, size)


def _take_over(ctx: Context, container: Container, monitor: Monitor) -> None:
    """Bring the record in line with a container that runs; whether it is frozen, its cgroup knows."""
    state = container.state
    known = (state.status, state.pid, state.started_at)
    unwritten = not state.running
    if unwritten:  # the daemon died between the program's start and the record of it
        state.exit_code, state.error, state.finished_at, state.oom_killed = 0, "", 0, False
        container.own_hosts = ""
    state.status = Status.PAUSED if ctx.cgroups.of(container).is_frozen() else Status.RUNNING
    state.pid = monitor.pid
    state.started_at = monitor.started_at or state.started_at
    if container.limits_pending:
        try:
            update.apply(ctx, container)
        except (KetchError, OSError) as e:
            log.warning("apply the limits of container %s: %s", container.id[:12], e)
    if known != (state.status, state.pid, state.started_at):  # else a write for each container would be for nothing
        ctx.store.keep(container, durable=unwritten)


async def _serve_again(ctx: Context, container: Container) -> None:
    await _answer_names(ctx, container, ctx.live.of(container.id).monitor)
    await _attach_volumes(ctx, container)


async def _answer_names(ctx: Context, container: Container, monitor: Monitor | None) -> None:
    """Serve the container's resolver again, with the sockets that its monitor kept; without it know its names only."""
    if not await _answered(ctx, container, monitor):
        ctx.tasks.watch(_answer_names_later(ctx, container, monitor))


async def _answered(ctx: Context, container: Container, monitor: Monitor | None) -> bool:
    """`_answer_names`; False when that can be done later, for want of descriptors."""
    kept = monitor.kept if monitor is not None else None
    try:
        fresh = await ctx.sandboxes.adopt(container, kept)
    except (KetchError, OSError) as e:
        log.warning("answer names for container %s: %s", container.id[:12], e)
        if any(isinstance(one, OSError) and one.errno in (errno.EMFILE, errno.ENFILE) for one in (e, e.__cause__)):
            return False
        fresh = []
    if monitor is not None:
        monitor.kept = []
        if fresh and not kept:
            monitor.keep(fresh)
    return True


async def _answer_names_later(ctx: Context, container: Container, monitor: Monitor | None) -> None:
    pause_s = _FIRST_PAUSE_S
    while True:
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
        if ctx.live.of(container.id).monitor is not monitor or not container.state.running:
            return  # its next take-over, or its end, has seen to it
        if await _answered(ctx, container, monitor):
            return


async def _attach_volumes(ctx: Context, container: Container) -> None:
    """Know again who uses which volumes; what is mounted stays mounted."""
    names = [point.name for point in container.mounts if point.type == "volume"]
    if not names:
        return
    try:
        await asyncio.to_thread(ctx.volumes.attach, names, container.id)
    except (KetchError, OSError) as e:
        log.warning("volumes of container %s: %s", container.id[:12], e)


def _sweep(ctx: Context) -> None:
    """Remove cgroups and directories of containers that are no more; those that have lost their rows are kept."""
    orphans.clear_stopped(ctx)
    lost, removals = Lost(ctx.paths.data_root), ctx.store.removals.pending()
    for name in filter(is_ours, orphans.unknown(ctx)):
        known_to_go = name in removals or not os.path.isdir(ctx.paths.directory(name)) or ctx.snapshots.is_blank(name)
        if not known_to_go and monitor_process.find(ctx.paths.run_dir(name), name, 0):
            log.warning("container %s runs, and its row is lost: it is left alone; %s", name[:12], REPAIR)
        elif not orphans.end(ctx, name):
            continue
        elif known_to_go:
            log.info("remove what is left of container %s", name[:12])
            ctx.remover.later(functools.partial(container_directories.remove_files, ctx, name))
        else:
            lost.put("containers", ctx.paths.directory(name))
    ctx.store.removals.end(name for name in removals if not os.path.lexists(ctx.paths.directory(name)))
