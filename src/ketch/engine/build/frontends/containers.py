"""Containers of front ends, over results of their build: with them people look around in a step, before it or after.

    asked for              first process                    released, or the build ends
    mounts, secrets  ────► a container runs; more may  ───► nothing of it is left
    are looked up          be added until it ends

What is written in one is lost.
"""

from __future__ import annotations

import asyncio
import logging
import os
import posixpath
import signal
from typing import TYPE_CHECKING, TypeVar

import msgspec
from msgspec import Struct

from ketch import threads
from ketch.build import entitlements
from ketch.build.llb import ops_pb2 as pb
from ketch.build.llb.definition import check_mount, check_network
from ketch.build.ops.exec import NETWORKS
from ketch.build.ops.mounts import command_mount, place, secret_variables
from ketch.build.providers import BuildCommand
from ketch.build.solver.flight import ended
from ketch.errors import AlreadyExists, Conflict, InvalidArgument, KetchError, NotFound, ResourceExhausted
from ketch.runtime.rootfs import paths

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ketch.build.providers import BuildSnapshots
    from ketch.build.tree import Tree
    from ketch.engine.build.command.interactive import InteractiveContainer, InteractiveProcess
    from ketch.engine.build.executor import BuildExecutor
    from ketch.engine.build.frontends.bridge import Bridge
    from ketch.oci.manifest import Platform
    from ketch.storage.archive.owners import Owners

log = logging.getLogger(__name__)
_T = TypeVar("_T")
_ROOT = "/"
_MOST = 64  # containers of one build
_MOST_PROCESSES = 256  # that run in one container
_TERMINAL = "TERM=xterm"


class ContainerMount(Struct, frozen=True):
    """A mount of a container, and the tree that it shows."""

    mount: pb.Mount
    tree: Tree


class ContainerOptions(Struct, frozen=True, kw_only=True):
    """A container that a front end asks for; ``hosts`` are (name, address), ``network`` is LLB's mode."""

    mounts: Sequence[ContainerMount]
    network: pb.NetMode = pb.UNSET
    hostname: str = ""
    hosts: Sequence[tuple[str, str]] = ()
    platform: Platform | None = None


class ProcessOptions(Struct, frozen=True, kw_only=True):
    """A process that a front end asks for."""

    args: Sequence[str]
    env: Sequence[str] = ()
    cwd: str = ""
    user: str = ""
    tty: bool = False
    insecure: bool = False
    secret_env: Sequence[pb.SecretEnv] = ()


class FrontendContainer:
    """One container."""

    def __init__(self, bridge: Bridge, executor: BuildExecutor, template: BuildCommand, mounts: list[ContainerMount]):
        self._bridge, self._executor, self._template, self._mounts = bridge, executor, template, mounts
        self._count = 0  # processes that somebody holds
        self._owners: dict[asyncio.Task[None], bool] = {}  # that have a container: whether they were told to end it
        self._running: asyncio.Future[InteractiveContainer] | None = None
        self._released = False

    async def start(self, options: ProcessOptions) -> InteractiveProcess:
        """Start a process; the first one starts the container (Conflict: it has ended; other KetchErrors).

        The process is the caller's, who takes leave of it with `let_go`.
        """
        command = await self._command(options)
        if self._released:
            raise NotFound("start a process in a build's container: it was released")
        if self._count >= _MOST_PROCESSES:
            raise ResourceExhausted(f"start a process in a build's container: at most {_MOST_PROCESSES} run in one")
        self._count += 1
        try:
            if self._running is None:
                return await self._first(command)
            return await self._added(await asyncio.shield(self._running), command)
        except BaseException:
            self._count -= 1
            raise

    async def _command(self, options: ProcessOptions) -> BuildCommand:
        if options.insecure:
            self._bridge.require(entitlements.SECURITY_INSECURE)
        if not options.args:
            raise InvalidArgument("start a process in a build's container: it has no command")
        env = list(options.env)
        if options.tty and not any(variable.startswith("TERM=") for variable in env):
            env.append(_TERMINAL)
        return msgspec.structs.replace(
            self._template,
            args=list(options.args),
            env=env,
            secret_env=await secret_variables(options.secret_env, [self._bridge.session]),
            cwd=options.cwd or "/",
            user=options.user,
            tty=options.tty,
            insecure=options.insecure,
        )

    async def _first(self, command: BuildCommand) -> InteractiveProcess:
        """Start the container; when that fails, the next process is the first one."""
        self._running = running = asyncio.get_running_loop().create_future()
        owner = asyncio.create_task(self._own(command, running))
        self._owners[owner] = False
        owner.add_done_callback(lambda _owner: self._ended(owner, running))
        try:
            container: InteractiveContainer = await asyncio.shield(running)
        except asyncio.CancelledError:
            self._stop(owner)
            raise
        return container.process

    def _stop(self, owner: asyncio.Task[None]) -> None:
        """Have a container ended, once: who is ending it is not to be disturbed."""
        if not self._owners.get(owner, True):
            self._owners[owner] = True
            owner.cancel()

    def _ended(self, owner: asyncio.Task[None], running: asyncio.Future[InteractiveContainer]) -> None:
        del self._owners[owner]
        if not running.done():  # it was cancelled, maybe before its first step
            running.set_exception(Conflict("start a build's container: it was released"))
        if running.exception() is not None and self._running is running:
            self._running = None
        if not owner.cancelled() and (error := owner.exception()) is not None:
            log.error("end a build's container: %s", error)

    async def _added(self, container: InteractiveContainer, command: BuildCommand) -> InteractiveProcess:
        """Add a process; one that nobody waits for any more when it has begun is killed."""
        adding = asyncio.create_task(container.add(command))
        try:
            return await asyncio.shield(adding)
        except asyncio.CancelledError:
            try:
                await ended([adding])
            finally:
                if not adding.cancelled() and adding.exception() is None:
                    await _killed(adding.result())
            raise

    async def _own(self, command: BuildCommand, running: asyncio.Future[InteractiveContainer]) -> None:
        """Have the container until this is cancelled; a container that cannot be started leaves nothing."""
        try:
            async with self._executor.interactive(command) as container:
                running.set_result(container)
                await asyncio.get_running_loop().create_future()
        except Exception as e:
            if running.done():
                raise
            self._running = None
            running.set_exception(e)

    async def let_go(self, process: InteractiveProcess) -> None:
        """Take leave of a process: if it runs, it is killed."""
        self._count -= 1
        await _killed(process)

    async def release(self) -> None:
        """End it; nothing of it is left."""
        self._released = True
        owners = list(self._owners)
        for owner in owners:
            self._stop(owner)
        await ended(owners)

    async def looked(self, number: int, look: Callable[[int, str, Owners | None], _T]) -> _T:
        """Look at the files of a mount, by its number (InvalidArgument, Conflict: the container has ended).

        ``look`` is called in a thread, with a descriptor of a tree, where in it the mount's files are, and the user
        namespace through which it is seen.
        """
        if not 0 <= number < len(self._mounts):
            raise InvalidArgument(f"mount index {number} is out of bounds ({len(self._mounts)} available)")
        mount, tree = self._mounts[number].mount, self._mounts[number].tree
        running = self._running
        if running is None:
            if mount.mountType not in (pb.BIND, pb.CACHE):
                raise Conflict(f"mount {mount.dest}: it has no files before the container has begun")
            return await asyncio.to_thread(_in_tree, self._bridge.builder.snapshots, tree, mount.selector, look)
        container = await asyncio.shield(running)
        root_fd = container.borrowed_root()
        try:
            return await threads.run_to_end(_in_root, root_fd, mount, look, container.users)
        finally:
            os.close(root_fd)


async def _killed(process: InteractiveProcess) -> None:
    """Kill a process, if it runs, and let go of it."""
    try:
        await process.signal(signal.SIGKILL)
    except KetchError as e:  # it ends with its container
        log.warning("kill a process that nobody holds any more: %s", e)
    process.close()


def _in_tree(snapshots: BuildSnapshots, tree: Tree, selector: str, look: Callable[[int, str, None], _T]) -> _T:
    with snapshots.opened(tree) as root:
        return look(root, posixpath.join("/", selector), None)


def _in_root(root_fd: int, mount: pb.Mount, look: Callable[[int, str, Owners | None], _T], owners: Owners | None) -> _T:
    try:
        fd = paths.open_in(root_fd, place(mount, ""), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return look(fd, "/", owners)
        finally:
            os.close(fd)
    except OSError as e:
        raise InvalidArgument(f"look at mount {mount.dest}: {e.strerror}") from e


class FrontendContainers:
    """The containers of one build, by the ids that its front end gives them."""

    def __init__(self, bridge: Bridge, executor: BuildExecutor) -> None:
        self._bridge, self._executor = bridge, executor
        self._all: dict[str, FrontendContainer] = {}
        self._closed = False

    async def make(self, id: str, options: ContainerOptions) -> None:
        """Make a container, which its first process starts (AlreadyExists, PermissionDenied, other KetchErrors)."""
        check_network(options.network)
        for one in options.mounts:
            check_mount(one.mount)
        if options.network == pb.HOST:
            self._bridge.require(entitlements.NETWORK_HOST)
        sessions = [self._bridge.session]
        root, mounts = None, []
        for one in options.mounts:
            if place(one.mount, "") != _ROOT:
                mounts.append(await command_mount(one.mount, "", one.tree, sessions))
            elif one.mount.mountType != pb.BIND:
                raise InvalidArgument(f"invalid mount type {pb.MountType.Name(one.mount.mountType)} for /")
            else:
                root = one
        if root is None:
            raise InvalidArgument(f"container {id} has no root: there is no mount at /")
        template = BuildCommand(
            args=(),
            root=root.tree,
            root_selector=root.mount.selector,
            root_readonly=root.mount.readonly,
            mounts=[mount for mount in mounts if mount is not None],
            network=NETWORKS[options.network],
            hostname=options.hostname,
            hosts=options.hosts,
            platform=options.platform,
        )
        if self._closed:
            raise NotFound(f"make container {id}: its build has ended")
        if id in self._all:
            raise AlreadyExists(f"Container {id} already exists")
        if len(self._all) >= _MOST:
            raise ResourceExhausted(f"a build has at most {_MOST} containers", hint="release those that have ended")
        self._all[id] = FrontendContainer(self._bridge, self._executor, template, list(options.mounts))

    def find(self, id: str) -> FrontendContainer:
        """A container (NotFound)."""
        found = self._all.get(id)
        if found is None:
            raise NotFound(f'container "{id}" previously released or not created')
        return found

    async def release(self, id: str) -> None:
        """Release a container (NotFound)."""
        if id not in self._all:
            raise NotFound(f"container details for {id} not found")
        await self._all.pop(id).release()

    async def close(self) -> None:
        """Release all, and make none any more."""
        self._closed = True
        found = list(self._all.values())
        self._all.clear()
        await asyncio.gather(*(one.release() for one in found))
