"""Commands of builds, run by the executor of an engine in this process: no API between it and the test.

As a program (``python -m tests.support.boxes.build_box SCRIPT ARGUMENT…``) it is an engine that runs one command, and
ends by being killed; the arguments are ketchd's.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ketch.build.errors import CommandFailed
from ketch.build.providers import BuildCommand, Written
from ketch.build.tree import Tree
from ketch.daemon import parent_cgroup, wiring
from ketch.daemon.settings.load import load
from ketch.engine.build.cache_mounts import CacheMounts
from ketch.engine.build.command import files as command_files
from ketch.engine.build.command.container import CommandContainers
from ketch.engine.build.command.networks import CommandNetworks
from ketch.engine.build.executor import BuildExecutor
from ketch.engine.build.snapshots import EngineBuildSnapshots
from ketch.engine.monitors.launcher import Launcher
from ketch.runtime.cgroups import monitors
from ketch.undo import AsyncUndo
from tests.support.boxes.runtime_box import make_rootfs
from tests.support.leaks import cgroups
from tests.support.waiting import patient, until

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

PATH = "PATH=/bin"


class Ran(NamedTuple):
    """The end of a command: its outputs, both in one as they came, the trees, and the error, if there was one."""

    out: str
    err: str
    both: bytes
    written: Written | None
    error: CommandFailed | None


class BuildBox:
    """An engine in a thread of this process; ``base`` is a tree with busybox."""

    def __init__(self, argv: list[str]) -> None:
        self._argv = argv
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._stack = AsyncUndo()

    def open(self) -> None:
        """Start the engine, and make the base."""
        self._thread.start()
        self.call(self._open())

    def close(self) -> None:
        """End the engine."""
        self.call(self._stack.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def call(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine in the engine's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(patient(60))

    async def _open(self) -> None:
        self.config = config = load(self._argv)
        for path in (config.data_root, config.exec_root):
            os.makedirs(path, mode=0o711, exist_ok=True)
        ours = parent_cgroup.made_here(config.data_root, config.cgroup_parent)
        launcher = await Launcher.start(config.cgroup_parent)
        self._stack.callback(monitors.remove, config.cgroup_parent, with_parent=ours)
        self._stack.push_async_callback(launcher.close)
        await launcher.ready()
        ready = asyncio.Event()
        self.ketch = await wiring.build(config, launcher, self._stack, ready)
        ready.set()
        parts = self.ketch.parts
        self.layers = EngineBuildSnapshots(parts.images, parts.snapshots)
        self.caches = CacheMounts(config.data_root, self.layers, parts.remover.later)
        containers = CommandContainers(parts.launcher, self._networks())
        self.executor = BuildExecutor(
            paths=parts.paths,
            cgroups=parts.cgroups,
            snapshots=parts.snapshots,
            layers=self.layers,
            containers=containers,
            caches=self.caches,
            user_namespaces=parts.user_namespaces,
            apparmor=parts.apparmor,
            later=parts.remover.later,
        )
        self._stack.push_async_callback(self.executor.close)
        self.lease = self._stack.enter_context(self.layers.lease())
        self.base = self.tree(
            lambda root: shutil.copytree(make_rootfs(root / "made"), root, symlinks=True, dirs_exist_ok=True)
        )
        self._bare()

    def _networks(self) -> CommandNetworks:
        parts = self.ketch.parts
        return CommandNetworks(
            manager=parts.network,
            thread=parts.network_thread,
            names=self.ketch.sandboxes.names,
            store=parts.store,
            paths=parts.paths,
            defaults=parts.dns_defaults,
            host_gateway=parts.host_gateway,
        )

    def _bare(self) -> None:
        [layer] = self.base.layers
        shutil.rmtree(os.path.join(self.layers.directory(layer), "made"))

    def tree(self, make: Callable[[Path], object], *below: str) -> Tree:
        """A tree whose last layer has what ``make`` makes."""
        draft = self.layers.begin(self.lease)
        make(Path(draft.directory))
        return Tree((*below, draft.commit()))

    # -- commands ----------------------------------------------------------------------------------

    def run(self, *args: str, **fields: Any) -> Ran:
        """Run a command in the base, or in another ``root``; one argument is for the shell."""
        return self.call(self.ran(*args, **fields))

    async def ran(self, *args: str, heard: Callable[[bytes], object] | None = None, **fields: Any) -> Ran:
        """The same, in the engine's loop; ``heard`` gets the output as it comes."""
        outputs: dict[int, bytearray] = {1: bytearray(), 2: bytearray()}
        both = bytearray()

        def output(stream: int, data: bytes) -> None:
            outputs[stream] += data
            both.extend(data)
            if heard is not None:
                heard(data)

        words = list(args) if len(args) > 1 else ["/bin/sh", "-c", *args]
        command = BuildCommand(args=words, **{"root": self.base, "env": [PATH], **fields})
        written = error = None
        try:
            written = await self.executor.run(command, self.lease, output)
        except CommandFailed as e:
            error = e
        return Ran(*(outputs[n].decode(errors="surrogateescape") for n in (1, 2)), bytes(both), written, error)

    def remains(self) -> list[str]:
        """What is there of commands: directories, interfaces, cgroups, monitors."""
        parts = self.ketch.parts
        names = command_files.names(parts.paths)
        ends = [e.veth for n in parts.network.list() for e in parts.network.endpoints(n.id)]
        below = [path for path in cgroups(self.config.bridge) if f"{self.config.bridge}/build-" in path]
        drafts = [name for name in os.listdir(os.path.join(parts.paths.data_root, "layers")) if name.startswith(".")]
        return [*names, *ends, *below, *drafts]

    def until_gone(self) -> None:
        """Wait until nothing is there: files are removed in the background."""
        until(lambda: not self.remains(), lambda: f"there is still {self.remains()}")

    def newest(self) -> str:
        """The name of the command that was begun last."""
        run = os.path.join(self.ketch.parts.paths.exec_root, "run")
        return max(os.listdir(run), key=lambda name: os.stat(os.path.join(run, name)).st_ctime_ns)

    def layer(self, tree: Tree) -> dict[str, str]:
        """The paths of a tree's uppermost layer, each with what it is: d, f, l, w (a whiteout)."""
        root = self.layers.directory(tree.layers[-1])
        found = {}
        for directory, directories, files in os.walk(root):
            for name in (*directories, *files):
                path = os.path.join(directory, name)
                found[os.path.relpath(path, root)] = _kind(os.lstat(path))
        return found

    def paths(self, tree: Tree, *names: str) -> list[str]:
        """Where entries of a tree's uppermost layer are."""
        return [os.path.join(self.layers.directory(tree.layers[-1]), name) for name in names]


def _kind(status: os.stat_result) -> str:
    if stat.S_ISCHR(status.st_mode) and not status.st_rdev:
        return "w"
    return {stat.S_IFDIR: "d", stat.S_IFREG: "f", stat.S_IFLNK: "l"}.get(stat.S_IFMT(status.st_mode), "?")


def main() -> None:
    """Run one command; its output is this process's."""
    _, script, *argv = sys.argv
    box = BuildBox(argv)
    box.open()
    box.run(script, heard=lambda data: os.write(1, data))


if __name__ == "__main__":
    main()
