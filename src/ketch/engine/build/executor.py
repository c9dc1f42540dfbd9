"""Executor of builds: commands in containers of the engine's own runtime, and what they write as layers.

    caches ──► files ──► container ──► layers
    held       made      run to its    the changes, without what was only there to mount on
                         end

A cancelled command is killed, and awaited: nothing of it is left then, neither processes nor mounts, interfaces, nor
its cgroup, and its files are being removed.  What a killed daemon leaves is ended and removed by the next start
(`remains`).
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

from msgspec import Struct, field

from ketch import threads
from ketch.build.dockerfile.convert.gotext import quoted
from ketch.build.errors import CommandFailed
from ketch.engine.build.command.agent_socket import AgentSocket
from ketch.engine.build.command.files import CommandFiles
from ketch.engine.build.command.interactive import InteractiveContainer, attached
from ketch.engine.model.namespaces.user import UsernsKind, UsernsMode
from ketch.errors import FailedPrecondition, InvalidArgument, KetchError, RuntimeFailure
from ketch.failpoints import failpoint
from ketch.undo import AsyncUndo

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from ketch.build.providers import BuildCommand, BuildSnapshots, Written
    from ketch.engine.apparmor.profiles import AppArmorProfiles
    from ketch.engine.build.cache_mounts import CacheMounts
    from ketch.engine.build.command.container import CommandContainers
    from ketch.engine.build.command.networks import CommandNetwork
    from ketch.engine.cgroups import ContainerCgroups
    from ketch.engine.model.namespaces.user import UserNamespace
    from ketch.engine.monitors.monitor_client import MonitorClient
    from ketch.engine.paths import ContainerPaths
    from ketch.engine.userns.service import UserNamespaces
    from ketch.storage.content.leases import Lease
    from ketch.storage.snapshots.overlay import Snapshots

    Output = Callable[[int, bytes], None]

log = logging.getLogger(__name__)
_REMOVAL_S = 0.2


class _Prepared(NamedTuple):
    """The parts that a container is started from."""

    files: CommandFiles
    cgroup: str
    network: CommandNetwork


class BuildExecutor(Struct, frozen=True, kw_only=True, eq=False):
    """The `Executor` of builds."""

    paths: ContainerPaths
    cgroups: ContainerCgroups
    snapshots: Snapshots
    layers: BuildSnapshots
    containers: CommandContainers
    caches: CacheMounts
    user_namespaces: UserNamespaces
    apparmor: AppArmorProfiles
    later: Callable[[Callable[[], None]], object]  # runs removals of files in the background
    _running: set[asyncio.Task[Written]] = field(default_factory=set)
    _needless: list[CommandFiles] = field(default_factory=list)  # to be removed when the next commands have begun

    async def run(self, command: BuildCommand, lease: Lease, output: Output) -> Written:
        """Run a command to its end (see `Executor.run`; KetchError)."""
        _check(command)
        self.cgroups.check_parent(command.cgroup_parent)
        task = asyncio.create_task(self._run(command, lease, output))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait([task])
            raise

    @asynccontextmanager
    async def interactive(self, command: BuildCommand) -> AsyncIterator[InteractiveContainer]:
        """A container whose first process is a command, with its streams; killed at the end of the context.

        Nothing that it writes is kept (KetchError; RuntimeFailure: it cannot be executed).
        """
        _check(command)
        self.cgroups.check_parent(command.cgroup_parent)
        async with AsyncUndo() as undo:
            files, cgroup, network = await self._prepared(command, undo)
            message = files.message(cgroup)
            message["tty"], message["stdin"], message["stdin_once"] = command.tty, True, True

            async def attach(monitor: MonitorClient) -> InteractiveContainer:
                streams = await attached(monitor, tty=command.tty)
                found = InteractiveContainer(monitor, streams, self.apparmor, files.users)
                undo.callback(found.close)
                return found

            _, container = await self.containers.started(message, network, undo, attach)
            container.hold_root()
            yield container

    async def close(self) -> None:
        """End all commands, and wait for it."""
        for task in (running := list(self._running)):
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        self._remove_needless()

    async def _run(self, command: BuildCommand, lease: Lease, output: Output) -> Written:
        words = " ".join(command.args)
        async with AsyncUndo() as undo:
            files, cgroup, network = await self._prepared(command, undo)
            failpoint("build.prepared")
            try:
                end = await self.containers.run(files.message(cgroup), network, output)
            except RuntimeFailure as e:
                raise _not_begun(words, e, output) from e
            failed = end.code not in (command.valid_exit_codes or (0,))
            if failed:
                error = CommandFailed(quoted(words), end.code, "cannot allocate memory" if end.oom else "")
                error.left = await _left(files, lease)
                raise error
            written = await threads.run_to_end(files.take, lease, False)
            failpoint("build.layer-taken")
        return written

    async def _prepared(self, command: BuildCommand, undo: AsyncUndo) -> _Prepared:
        """All that a start needs; ``undo`` removes it (KetchError)."""
        words = " ".join(command.args)
        network = self.containers.networks.find(command)
        users = network.user_namespace
        if not network.namespace:
            await self.user_namespaces.ready(UsernsMode(UsernsKind.DEFAULT))
            wanted = self.user_namespaces.of_command(insecure=command.insecure, host_network=command.network == "host")
            users = undo.enter_context(wanted)
        caches = [mount for mount in command.mounts if mount.kind == "cache"]
        shown = await undo.enter_async_context(self.caches.held(caches, words)) if caches else {}
        profile = await self.apparmor.of_command(insecure=command.insecure)
        files = CommandFiles(command, self.paths, self.snapshots, self.layers, profile, users)
        undo.callback(self._remove_later, files)
        undo.callback(files.forget)
        agents: dict[str, str] = {}
        if any(mount.kind == "ssh" for mount in command.mounts):
            await threads.run_to_end(files.begin)
            agents = await self._agents(command, files, undo, users)
        cgroup = self.cgroups.place(command.cgroup_parent, files.name)
        await threads.run_to_end(files.prepare, cgroup, network, shown, agents)
        return _Prepared(files, cgroup, network)

    def _remove_later(self, files: CommandFiles) -> None:
        """Have files removed in a moment: most commands are followed by others, and nobody waits for this."""
        if not self._needless:
            asyncio.get_running_loop().call_later(_REMOVAL_S, self._remove_needless)
        self._needless.append(files)

    def _remove_needless(self) -> None:
        while self._needless:
            self.later(self._needless.pop().remove)

    @staticmethod
    async def _agents(
        command: BuildCommand, files: CommandFiles, undo: AsyncUndo, users: UserNamespace | None
    ) -> dict[str, str]:
        """The paths of sockets behind which are clients' agents, by the places of their mounts."""
        found = {}
        for number, mount in enumerate(command.mounts):
            if mount.kind == "ssh":
                owner = users.outside(mount.uid, mount.gid) if users is not None else (mount.uid, mount.gid)
                agent = AgentSocket(files.run_dir, f"agent.{number}", mount, owner)
                undo.push_async_callback(agent.close)
                await agent.listen()
                found[mount.dest] = agent.path
        return found


async def _left(files: CommandFiles, lease: Lease) -> Written | None:
    """The files that a failed command left; None if they cannot be kept: its user is to hear how it ended."""
    try:
        return await threads.run_to_end(files.take, lease, True)
    except (KetchError, OSError) as e:
        log.warning("keep what a build's command that failed has left: %s", e)
        return None


def _check(command: BuildCommand) -> None:
    """Refuse what cannot be had (KetchError)."""
    if command.devices:
        names = ", ".join(command.devices)
        raise FailedPrecondition(
            f"CDI device not found: {names}: Ketch knows no devices by such names", hint="run it without --device"
        )
    if command.root_selector.strip("/"):
        raise InvalidArgument(f"run a command in `{command.root_selector}` of a tree: a root is a whole tree")
    if "\0" in command.cgroup_parent:
        raise InvalidArgument("run a command: its cgroup parent has a NUL byte")


def _not_begun(words: str, error: RuntimeFailure, output: Output) -> CommandFailed:
    """The error of a command that could not be begun, told as BuildKit does: mostly in the command's output."""
    if error.step == "user":
        return CommandFailed(quoted(words), 1, error.message)
    output(2, f"{error.message}\n".encode())
    return CommandFailed(quoted(words), 1)
