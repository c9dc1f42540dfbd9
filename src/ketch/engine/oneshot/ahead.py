"""A container that is made ahead, for a client that wants another one like the last.

Everything of it is there but its program: its first process waits, and is told what to execute when somebody asks for a
container that differs in nothing else.  It is nobody's: it has no row, and no place in any list; a monitor that loses
its daemon takes it back, and the next daemon removes its directories, which are recorded as to go until it is taken.

There is one at most.  What depends on the moment at which a container is made, as binds and networks do, or is seen by
others, as volumes are, is not made ahead.

    make ──► making ──► waiting         ours: no longer wanted, it is given back
                │          │
                └── taken ─┤            whose request it is: unless it is adopted, it is given back
                           ▼
                        adopted         a container with a row like any other: the start that fails undoes the rest of
                                        it (`Startup`), and so does its removal (`Removal`), whichever comes first

Giving back is a task in the background: whoever finds one that is of no use, or is cancelled, waits for nothing.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from ketch.engine.model.records import HostConfig
from ketch.engine.model.requests import NewContainer
from ketch.engine.monitors import process as monitor_process
from ketch.engine.spec import bundle
from ketch.errors import FailedPrecondition, KetchError
from ketch.notation import documents
from ketch.threads import in_own_thread
from ketch.undo import Undo

if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.engine.aio.background import BackgroundTasks
    from ketch.engine.cgroups import ContainerCgroups
    from ketch.engine.containers.creation import Creation
    from ketch.engine.containers.startup import Startup
    from ketch.engine.live.containers import LiveContainers, PreparedStart
    from ketch.engine.model.records import Container

Program = list[str] | str | None

log = logging.getLogger(__name__)
_KEPT_S = 30.0
_LARGEST_PROGRAM = 1 << 16  # of the arguments' text as they are sent: in one message, of twice that at most
# What it may be asked for: the same whenever it is made.
_FIELDS = frozenset(
    [
        "auto_remove",
        "cap_add",
        "cap_drop",
        "cpu_period",
        "cpu_quota",
        "cpu_shares",
        "cpuset_cpus",
        "group_add",
        "init",
        "log_config",
        "masked_paths",
        "memory",
        "memory_reservation",
        "memory_swap",
        "memory_swappiness",
        "mounts",
        "nano_cpus",
        "network_mode",
        "oom_score_adj",
        "pids_limit",
        "readonly_paths",
        "readonly_rootfs",
        "security_opt",
        "shm_size",
        "sysctls",
        "tmpfs",
        "ulimits",
    ]
)
_DEFAULTS = HostConfig()
_NOTHING = (b"", None)


class ContainerAhead(Struct, eq=False):
    """Makes the container that may be wanted next; ``enabled``: else there is none."""

    enabled: bool
    creation: Creation
    startup: Startup
    live: LiveContainers
    cgroups: ContainerCgroups
    tasks: BackgroundTasks
    _next: tuple[bytes, Program] = _NOTHING
    _like: bytes = b""
    _making: asyncio.Task[Container] | None = None
    _timer: asyncio.TimerHandle | None = None

    def kind(self, wanted: NewContainer) -> bytes:
        """The kind of a request: all but its program; empty: none is made ahead for it."""
        return _kind(wanted) if self.enabled else b""

    async def taken(self, kind: bytes, wanted: NewContainer, check: Callable[[], None]) -> Container | None:
        """The container of this kind, which is the caller's now, in the state `created`; None: there is none.

        ``check`` is called when nothing more is waited for, and may raise.
        """
        if not kind or kind != self._like or (making := self._forget()) is None:
            return None
        with Undo() as undo:
            undo.callback(self._give_back, making)
            try:
                container = await making
            except (KetchError, OSError) as e:
                log.debug("make a container ahead: %s", e)
                return None
            prepared = self.live.of(container.id).prepared
            if prepared is None or not self._is_good(container, prepared, wanted):
                return None
            check()
            self.creation.adopt(container, wanted)
            prepared.args = bundle.arguments(container)
            undo.pop_all()
        return container

    def expect(self, kind: bytes, program: Program) -> None:
        """Have `make` make one of this kind, unless it is empty; ``program``: an example."""
        self._next = kind, program

    def make(self) -> None:
        """Make the expected one in the background, in the place of another."""
        (kind, program), self._next = self._next, _NOTHING
        if not kind or not self.enabled:
            return
        if kind != self._like:
            self._drop()
            self._like, self._making = kind, self.tasks.watch(self._made(kind, program))
            self._making.add_done_callback(self._forget_failed)
        self._stop_timer()
        self._timer = asyncio.get_running_loop().call_later(_KEPT_S, self._drop)

    async def close(self) -> None:
        """Make none any more, and take back the one that there is."""
        self.enabled = False
        if (making := self._forget()) is not None:
            await self._given_back(making)

    def _forget(self) -> asyncio.Task[Container] | None:
        self._stop_timer()
        making, self._making, self._like = self._making, None, b""
        return making

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _drop(self) -> None:
        if (making := self._forget()) is not None:
            self._give_back(making)

    def _forget_failed(self, making: asyncio.Task[Container]) -> None:
        """Forget one that could not be made; whoever awaits it is told why."""
        if (making.cancelled() or making.exception() is not None) and making is self._making:
            self._forget()

    def _give_back(self, making: asyncio.Task[Container]) -> None:
        self.tasks.start(self._given_back(making))

    async def _given_back(self, making: asyncio.Task[Container]) -> None:
        try:
            container = await making
        except (KetchError, OSError, asyncio.CancelledError):
            return  # which has left nothing
        await self._discard(container)

    async def _made(self, kind: bytes, program: Program) -> Container:
        wanted = msgspec.json.decode(kind, type=NewContainer)
        image = self.creation.images.resolve(wanted.config.image, wanted.platform or "")
        if image.config.config is not None and image.config.config.volumes:
            raise FailedPrecondition(f"make a container of {wanted.config.image} ahead: the image has volumes")
        wanted.config.cmd, wanted.ahead = program, True
        container, _ = await self.creation.create(wanted)
        try:
            self.live.of(container.id).prepared = await self.startup.prepare(container)
        except BaseException:
            await self._discard(container)
            raise
        return container

    def _is_good(self, container: Container, prepared: PreparedStart, wanted: NewContainer) -> bool:
        """Whether it is what would be made now, and lives."""
        if self.creation.images.resolve(wanted.config.image, wanted.platform or "").id != container.image_id:
            return False
        if len(documents.dumps(wanted.config.cmd or [])) > _LARGEST_PROGRAM:
            return False
        monitor = prepared.monitor.process
        return monitor_process.lives(monitor, container.id) and monitor_process.has_child(monitor, prepared.pid)

    async def _discard(self, container: Container) -> None:
        """Remove one that nobody wants."""
        live = self.live.of(container.id)
        prepared, live.prepared = live.prepared, None
        try:
            if prepared is not None:
                await prepared.undo.aclose()
            if container.id in self.creation.store.ids:
                self.creation.store.remove(container)
            await in_own_thread(functools.partial(self.creation.directories.remove, container.id))
            await self.creation.volumes.discard(container.id)
        except (KetchError, OSError) as e:
            log.warning("remove container %s, which was made ahead: %s", container.id[:12], e)
        self.live.forget(container.id)
        self.cgroups.forget(container.id)


def _kind(wanted: NewContainer) -> bytes:
    config, host = wanted.config, wanted.host
    if wanted.name or host.network_mode != "none" or wanted.networking:
        return b""
    if config.tty or config.volumes or config.healthcheck or any(mount.type != "tmpfs" for mount in host.mounts or ()):
        return b""
    for name in HostConfig.__struct_fields__:
        value = getattr(host, name)
        if value and name not in _FIELDS and value != getattr(_DEFAULTS, name):
            return b""
    like = msgspec.structs.replace(wanted, config=msgspec.structs.replace(config, cmd=None), session="")
    return msgspec.json.encode(like)
