"""What the engine's services share: the concrete parts that the daemon built, and the containers' live side.

A container's *record* (``model.Container``) is durable.  Its *live side* (``Live``) exists in memory
only: a lock that orders its state changes, the monitor's connection while it runs, clients that attached
before the start, and those who wait for an exit or a removal.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from ketch.engine.model import bundle_file
from ketch.engine.model.records import LogConfig
from ketch.errors import Conflict, InvalidArgument, Unavailable
from ketch.runtime.logs import journald

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from ketch.engine.aio.streams import AttachOptions, ClientStream
    from ketch.engine.events.bus import EventBus
    from ketch.engine.images.registries import Registries
    from ketch.engine.model.records import Container
    from ketch.engine.model.store import ContainerStore
    from ketch.engine.monitors.launcher import Launcher
    from ketch.engine.monitors.monitor_client import Monitor
    from ketch.engine.monitors.takeover import Pursuit
    from ketch.engine.networks.legacy_links import Links
    from ketch.engine.networks.sandbox import Sandboxes
    from ketch.engine.volumes.store import VolumeStore
    from ketch.images.store import ImageStore
    from ketch.network.manager import NetworkManager
    from ketch.storage.removal import Remover
    from ketch.storage.snapshots.overlay import Snapshots

T = TypeVar("T")
_RECORDED_S = 10.0
_REACH_S = 5.0
_LAST_S = 5.0


@dataclass(eq=False)
class Live:
    """The part of a container that lives in memory; guarded by ``lock`` where it decides about state."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    monitor: Monitor | None = None
    pursuit: Pursuit | None = None  # of a monitor that could not be reached at the daemon's start
    early: list[tuple[AttachOptions, ClientStream]] = field(default_factory=list)
    held: list[int] = field(default_factory=list)
    exit_waiters: set[asyncio.Future[tuple[int, str]]] = field(default_factory=set)
    removed_waiters: set[asyncio.Future[tuple[int, str]]] = field(default_factory=set)
    exited: asyncio.Event = field(default_factory=asyncio.Event)
    restart_task: asyncio.Task[None] | None = None
    removing: bool = False
    cgroup_path: str = ""  # of its last start; see ``Context.cgroup_path``
    staying: int = 0  # how many are at work that end it and need it afterwards: ``--rm`` has no say

    @contextlib.contextmanager
    def stays(self) -> Iterator[None]:
        """While this lasts the container's end does not take a ``--rm`` container away."""
        self.staying += 1
        try:
            yield
        finally:
            self.staying -= 1

    async def reach(self, container: Container) -> Monitor:
        """The monitor of a running container, waited for while it is about to be taken over.

        Conflict when the container does not run, Unavailable when its monitor cannot be had.
        """
        if self.monitor is None and self.pursuit is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.pursuit.over.wait(), _REACH_S)
        if self.monitor is not None:
            return self.monitor
        if self.pursuit is not None:
            raise Unavailable(
                f"container {container.id}: {self.pursuit.why}",
                hint="the container runs on; what does without its monitor (stop, kill, rm -f, pause, top) works",
            )
        raise Conflict(f"container {container.id} is not running")

    async def recorded(self) -> None:
        """Wait for an end that is known already to be in the record: who saw a stream end may ask how at once."""
        if self.monitor is not None and self.monitor.exited.done():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.exited.wait(), _RECORDED_S)

    def release_held(self) -> None:
        """Close the sockets of clients that waited for a start which does not come."""
        while self.held:
            os.close(self.held.pop())

    def resolve(self, waiters: set[asyncio.Future[tuple[int, str]]], code: int, error: str = "") -> None:
        """Wake everybody in ``waiters`` with an exit code and forget them."""
        for future in waiters:
            if not future.done():
                future.set_result((code, error))
        waiters.clear()


@dataclass(eq=False)
class Context:
    """The engine's parts; built once by the daemon."""

    data_root: str
    exec_root: str
    store: ContainerStore
    images: ImageStore
    snapshots: Snapshots
    volumes: VolumeStore
    events: EventBus
    launcher: Launcher
    network: NetworkManager
    registries: Registries
    remover: Remover
    cgroup_parent: str = "/ketch"
    log_default: LogConfig = field(default_factory=LogConfig)
    journald_socket: str = journald.SOCKET
    network_thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "network"))
    sandboxes: Sandboxes = field(init=False)
    links: Links = field(init=False)
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    _live: dict[str, Live] = field(default_factory=dict)
    _brief: set[asyncio.Task[Any]] = field(default_factory=set)
    _watchers: set[asyncio.Task[Any]] = field(default_factory=set)

    def live(self, container_id: str) -> Live:
        """The live side of a container, made at first use."""
        found = self._live.get(container_id)
        if found is None:
            found = self._live[container_id] = Live()
        return found

    def forget(self, container_id: str) -> None:
        """Drop the live side of a container that was removed."""
        self._live.pop(container_id, None)

    def directory(self, container_id: str) -> str:
        """``containers/<id>`` under the data root."""
        return os.path.join(self.data_root, "containers", container_id)

    def run_dir(self, container_id: str) -> str:
        """The container's directory under the exec root (sockets, exit record)."""
        return os.path.join(self.exec_root, "run", container_id)

    def log_dir(self, container_id: str) -> str:
        """Where the monitor writes the container's log."""
        return os.path.join(self.directory(container_id), "log")

    def cgroup_path(self, container: Container) -> str:
        """The cgroup that the container's last start gave it, relative to each hierarchy's root.

        The bundle says so: ``cgroup_parent`` may be another one since the daemon's last start.
        """
        live = self.live(container.id)
        if not live.cgroup_path:
            path = bundle_file.cgroups_path(self.directory(container.id)) or self._cgroup_path(container)
            # Earlier versions took any parent: a cgroup of such a name has never been.
            live.cgroup_path = path if "\0" not in path else os.path.join("/", self.cgroup_parent, container.id)
        return live.cgroup_path

    def next_cgroup_path(self, container: Container) -> str:
        """The cgroup that a start gives it (InvalidArgument: that cannot be)."""
        path = self._cgroup_path(container)
        if "\0" in path:
            raise InvalidArgument(f"start container `{container.name}`: its cgroup parent has a NUL byte")
        return path

    def _cgroup_path(self, container: Container) -> str:
        parent = container.host.cgroup_parent or self.cgroup_parent
        return os.path.join("/", parent, container.id)

    async def in_network(self, call: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run one of the network's blocking calls on its own thread (they are never concurrent)."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.network_thread, lambda: call(*args, **kwargs))

    def from_thread(self, call: Callable[..., None], *args: Any) -> None:
        """Have something called in the event loop's thread, from another one."""
        self._loop.call_soon_threadsafe(call, *args)

    def background(self, work: Coroutine[Any, Any, T], *, brief: bool = True) -> asyncio.Task[T]:
        """A task that the engine keeps a reference to; ``drain`` waits for those that are ``brief``."""
        task = asyncio.get_running_loop().create_task(work)
        tasks = self._brief if brief else self._watchers
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return task

    async def drain(self) -> None:
        """Wait for the work that has begun (commits, loads), but not for long: what it leaves the next start undoes."""
        if pending := [t for t in self._brief if t is not asyncio.current_task()]:
            await asyncio.wait(pending, timeout=_LAST_S)

    def cancel_watchers(self) -> None:
        """Stop waiting for containers to end."""
        for task in list(self._watchers):
            task.cancel()

    def event(self, container: Container, action: str, **attributes: str) -> None:
        """Publish a container event with Docker's usual attributes."""
        labels = container.config.labels or {}
        self.events.publish(
            "container",
            action,
            container.id,
            {**labels, "image": container.image_ref, "name": container.name, **attributes},
        )
