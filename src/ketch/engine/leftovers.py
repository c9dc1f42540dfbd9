"""What a killed process left behind, found and ended: processes, cgroups, directories, monitors that cannot be reached.

monitor alive, its socket there          connect                            (`shim.Monitor.connect`)
monitor alive, the exec root was wiped   SIGUSR1: it makes its socket anew, connect
monitor gone, exit record there          the container has ended
monitor gone, no record                  kill what is in the cgroup: exit code 137
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from typing import TYPE_CHECKING

from ketch.engine import bundlefile, stats
from ketch.engine.rundir import end_of, monitor_pid
from ketch.engine.shim import Monitor
from ketch.errors import KetchError
from ketch.runtime.cgroups import common
from ketch.runtime.process import messages

if TYPE_CHECKING:
    from ketch.engine.context import Context
    from ketch.engine.model import Container

log = logging.getLogger(__name__)
_AGAIN_S = 5.0


def clear(ctx: Context, container: Container) -> None:
    """Make sure that nothing of a container that has ended is left: processes, cgroup, names; blocking.

    Processes that left their parent or their session are found all the same.  A failure is logged: the end of
    the container must be told in any case, and the next start looks again.
    """
    try:
        cgroup = stats.cgroups_of(ctx, container)
        if exists(cgroup.describe()):
            cgroup.kill()
            cgroup.remove()
        for name in (messages.PID_FILE, messages.CONTROL_SOCKET):  # a monitor that ends by itself takes them away
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(ctx.run_dir(container.id), name))
    except (KetchError, OSError) as e:
        log.error("end what is left of container %s: %s", container.id[:12], e)


async def abandon(ctx: Context, container: Container, monitor: Monitor) -> None:
    """Give a start up, and wait until its monitor has undone it: the next one uses the same names and cgroup."""
    pid = monitor_pid(ctx.run_dir(container.id), container.id)
    await monitor.abandon()
    if pid:
        await end_of(pid)
    await asyncio.to_thread(clear, ctx, container)  # it was killed, perhaps


def exists(described: dict[str, object]) -> bool:
    """Whether a cgroup has a directory in any hierarchy."""
    dirs = described.get("dirs")
    places = set(dirs.values()) if isinstance(dirs, dict) else {described.get("dir")}
    return any(isinstance(place, str) and os.path.isdir(place) for place in places)


def clear_stopped(ctx: Context) -> None:
    """Remove the cgroups of containers that do not run, as a killed monitor leaves them; blocking."""
    for container in ctx.store.all():
        if not container.state.running:
            clear(ctx, container)
    if foreign := _foreign_cgroups(ctx):
        log.info("left alone in cgroup %s, as not of this data root: %s", ctx.cgroup_parent, ", ".join(foreign))


def unknown(ctx: Context) -> list[str]:
    """Ids of containers that have a directory under one of our roots and no row: what a removal left half-done.

    The directories are made before anything of the container is, so whatever has none is somebody else's.
    """
    found: dict[str, None] = {}
    for root in (os.path.join(ctx.data_root, "containers"), os.path.join(ctx.exec_root, "run")):
        for name in os.listdir(root) if os.path.isdir(root) else ():
            if not ctx.store.knows(name):
                found[name] = None
    return list(found)


def end(ctx: Context, container_id: str) -> bool:
    """Kill and remove the cgroup of a container that has no row; blocking.

    False, with a line in the log, when something of it stays: its directory must stay then, too.
    """
    path = bundlefile.cgroups_path(ctx.directory(container_id)) or os.path.join("/", ctx.cgroup_parent, container_id)
    try:
        cgroup = common.at(path)
        if exists(cgroup.describe()):
            log.info("remove the cgroup of container %s, which is no more", container_id[:12])
            cgroup.kill()
            cgroup.remove()
    except (KetchError, OSError) as e:
        log.error("remove the cgroup of container %s: %s", container_id[:12], e)
        return False
    return True


def _foreign_cgroups(ctx: Context) -> list[str]:
    """Names under our parent cgroup, shortened, of containers that neither the store nor our directories know."""
    here, found = common.layout(), set()
    for root in {*here.hierarchies.values(), *((here.unified,) if here.unified else ())}:
        parent = root + os.path.normpath("/" + ctx.cgroup_parent)
        found |= {name for name in (os.listdir(parent) if os.path.isdir(parent) else ()) if len(name) == 64}
    mine = set(unknown(ctx))
    return sorted(name[:12] for name in found if name not in mine and not ctx.store.knows(name))


async def reach(ctx: Context, container: Container) -> Monitor | None:
    """Connect to the container's monitor; None when there is none, or its container was never told to start."""
    run_dir = ctx.run_dir(container.id)
    monitor = await Monitor.connect(run_dir)
    if monitor is not None or not container.state.running:
        return monitor
    pid = _monitor_of(container)
    if not pid or os.path.exists(os.path.join(run_dir, messages.CONTROL_SOCKET)):
        return None
    log.warning("container %s: its run directory was lost; asking its monitor for another", container.id[:12])
    os.makedirs(run_dir, mode=0o700, exist_ok=True)
    os.kill(pid, signal.SIGUSR1)
    deadline = asyncio.get_running_loop().time() + _AGAIN_S
    while monitor is None and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(0.005)
        monitor = await Monitor.connect(run_dir)
    return monitor


def _monitor_of(container: Container) -> int:
    """The pid of a monitor that listens to SIGUSR1: the parent of the container's PID 1; 0 when it is none."""
    try:
        with open(f"/proc/{container.state.pid}/stat", encoding="utf-8", errors="replace") as f:
            parent = int(f.read().rpartition(")")[2].split()[1])
        with open(f"/proc/{parent}/cmdline", "rb") as f:
            mine = f.read().rstrip(b"\0") == f"ketch-monitor {container.id}".encode()
        with open(f"/proc/{parent}/status", encoding="ascii", errors="replace") as f:
            caught = next(int(line.split()[1], 16) for line in f if line.startswith("SigCgt:"))
    except (OSError, ValueError, IndexError, StopIteration):
        return 0
    return parent if mine and caught >> (signal.SIGUSR1 - 1) & 1 else 0
