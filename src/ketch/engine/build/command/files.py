"""Files of one command of a build: its directory, what it writes to, what it is shown; made, taken as layers, removed.

    containers/build-<random>/{upper,work}      its root's changes (or ``root``, with the driver vfs)
    containers/build-<random>/{hosts,resolv.conf,bundle}
    containers/build-<random>.<n>/{upper,work}  the changes of a mount that it may write to
    run/build-<random>/                         its monitor's (exec root), and sockets of agents

The names tell a start of the daemon what they are of.  A layer is the directory of changes itself, renamed.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
from typing import TYPE_CHECKING, cast

import msgspec

from ketch.build.providers import Written
from ketch.build.tree import Tree
from ketch.engine.build.command import bundle, emulation, mount_stubs
from ketch.engine.paths import OF_A_BUILD
from ketch.engine.spec.bundle import new_namespaces
from ketch.errors import InvalidArgument, KetchError
from ketch.runtime.rootfs.secrets import MOUNT
from ketch.storage import removal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ketch.build.providers import BuildCommand, BuildSnapshots, CommandMount
    from ketch.engine.build.command.networks import CommandNetwork
    from ketch.engine.model.namespaces.user import UserNamespace
    from ketch.engine.paths import ContainerPaths
    from ketch.runtime.oci_types import OciMount
    from ketch.runtime.protocol import StartContainer
    from ketch.storage.content.leases import Lease
    from ketch.storage.snapshots.overlay import Snapshots

log = logging.getLogger(__name__)
_ROOT = "/"
_NO_LOG = 1 << 20
_SAFE = ["nosuid", "nodev", "noexec"]
_encode = msgspec.json.Encoder().encode


class CommandFiles:
    """The files of one command.  Blocking; `forget`, then `remove`, take back whatever was made.

    ``users``: the user namespace that it runs in, through whose mapping it sees them.
    """

    def __init__(
        self,
        command: BuildCommand,
        paths: ContainerPaths,
        snapshots: Snapshots,
        layers: BuildSnapshots,
        apparmor_profile: str,
        users: UserNamespace | None = None,
    ) -> None:
        self.name = OF_A_BUILD + secrets.token_hex(16)
        self.directory = paths.directory(self.name)
        self.bundle = os.path.join(self.directory, "bundle")
        self.run_dir = paths.run_dir(self.name)
        self._rootfs: list[OciMount] = []
        self._namespaces: list[str] = []
        self._command, self._apparmor_profile, self.users = command, apparmor_profile, users
        self._mapped = ["idmap"] if users is not None else []
        self._paths, self._snapshots, self._layers = paths, snapshots, layers
        self._changes: dict[str, str] = {}  # places → snapshots
        self._secrets: list[int] = []

    def begin(self) -> None:
        """Make the directories, unless they are there.  Blocking."""
        for path, mode in ((self.directory, 0o710), (self.bundle, 0o700), (self.run_dir, 0o700)):
            os.makedirs(path, mode=mode, exist_ok=True)

    def message(self, cgroup: str) -> StartContainer:
        """The launcher's message, when all is prepared."""
        return {
            "op": "start",
            "id": self.name,
            "bundle": self.bundle,
            "run_dir": self.run_dir,
            "rootfs": self._rootfs,
            "tty": False,
            "stdin": False,
            "stdin_once": False,
            "pidns": "new",
            "namespaces": self._namespaces,
            "userns": self.users is not None,
            "cgroup": cgroup,
            "log": {"driver": "none", "dir": self.bundle, "max_size": _NO_LOG, "max_files": 1},
        }

    def prepare(
        self, cgroup: str, network: CommandNetwork, shown: Mapping[str, str], agents: Mapping[str, str]
    ) -> None:
        """Make everything that a start needs.

        ``shown``: directories of caches by their places, ``agents``: sockets by their places.
        """
        self.begin()
        command = self._command
        if command.platform is not None and emulation.is_foreign(command.platform):
            with self._layers.opened(command.root) as root_fd:
                emulation.check(command.platform, root_fd)
        self._rootfs = cast("list[OciMount]", self._writable(_ROOT, command.root, self.name))
        mounts = [
            self._mount(number, mount, shown.get(mount.dest, ""), agents.get(mount.dest, ""))
            for number, mount in enumerate(command.mounts)
        ]
        variables = [f"{name}={value}" for name, value in command.secret_env.items()]
        source = self._in_memory(json.dumps(variables).encode()) if variables else ""
        for name, text in network.etc.items():
            path = os.path.join(self.directory, name)
            with open(path, "w", encoding="utf-8") as f:
                os.fchmod(f.fileno(), 0o644)  # for every user of the root, whatever ketchd's umask is or was
                f.write(text)
        around = bundle.Surroundings(
            network=network,
            users=self.users,
            directory=self.directory,
            cgroup=cgroup,
            secret_env=source,
            apparmor_profile=self._apparmor_profile,
        )
        spec = bundle.build(command, around, mounts)
        self._namespaces = new_namespaces(spec)
        with open(os.path.join(self.bundle, "config.json"), "wb") as f:
            f.write(_encode(spec))

    def _writable(self, place: str, tree: Tree, name: str) -> list[dict[str, object]]:
        """The mounts of a tree whose changes are kept apart.

        Overlay neither waits for the disk when the command asks for it nor at the end: a layer is brought there by
        those who record it, and what does not become one need not be.
        """
        self._changes[place] = name
        mounts = self._snapshots.prepare(name, tree.layers, mapped=self.users is not None)
        for mount in mounts:
            if mount["type"] == "overlay" and "volatile" not in mount["options"]:
                mount["options"].append("volatile")
            mount["options"] += self._mapped
        return cast("list[dict[str, object]]", mounts)

    def _mount(self, number: int, mount: CommandMount, directory: str, socket: str) -> OciMount:
        access = ["ro"] if mount.readonly else []
        found: OciMount = {"destination": mount.dest}
        if mount.kind == "bind":
            found |= self._bind(number, mount)  # type: ignore[typeddict-item]
        elif mount.kind == "cache":
            found |= {"type": "bind", "source": directory, "options": ["bind", *access, *self._mapped]}
        elif mount.kind == "tmpfs":
            size = [f"size={mount.size}"] if mount.size else []
            found |= {"type": "tmpfs", "source": "tmpfs", "options": ["nosuid", *access, *size]}
        elif mount.kind == "secret":
            owner = [f"mode={mount.mode & 0o7777:o}", f"uid={mount.uid}", f"gid={mount.gid}"]
            found |= {"type": MOUNT, "source": self._in_memory(mount.data), "options": [*_SAFE, *owner]}
        elif mount.kind == "ssh":
            found |= {"type": "bind", "source": socket, "options": ["bind"]}
        else:
            raise InvalidArgument(f"mount {mount.dest}: there are no mounts of the kind `{mount.kind}`")
        return found

    def _bind(self, number: int, mount: CommandMount) -> dict[str, object]:
        if mount.readonly and mount.tree.layers:
            found: dict[str, object] = {"type": "overlay", "source": "overlay"}
            options = [*self._snapshots.view(mount.tree.layers), *self._mapped]
        else:
            [found] = self._writable(mount.dest, mount.tree, f"{self.name}.{number}")
            options = [*cast("list[str]", found["options"]), *(["ro"] if mount.readonly else [])]
        if mount.selector.strip("/"):
            options.append(f"X-mount.subdir={mount.selector}")
        return {**found, "options": options}

    def _in_memory(self, data: bytes) -> str:
        """A path of a file in memory with ``data``, as long as these files are there."""
        fd = os.memfd_create("secret", os.MFD_CLOEXEC)
        self._secrets.append(fd)
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        return f"/proc/{os.getpid()}/fd/{fd}"

    # -- the end -----------------------------------------------------------------------------------

    def take(self, lease: Lease, everything: bool) -> Written:
        """Make layers of what the ended command wrote and is to be kept, or of ``everything`` (KetchError)."""
        command = self._command
        root = command.root
        if (command.root_kept or everything) and not command.root_readonly:
            self._remove_stubs()
            root = self._layer(_ROOT, root, lease)
        kept = {mount.dest: mount for mount in command.mounts if mount.kind == "bind" and (mount.kept or everything)}
        mounts = {
            dest: mount.tree if mount.readonly else self._layer(dest, mount.tree, lease) for dest, mount in kept.items()
        }
        return Written(root=root, mounts=mounts)

    def _layer(self, place: str, below: Tree, lease: Lease) -> Tree:
        draft = self._layers.begin(lease)
        try:
            with self._snapshots.delta(self._changes[place]) as directory:
                os.rename(directory, draft.directory)
            return Tree((*below.layers, draft.commit()))
        except BaseException:
            draft.abort()
            raise

    def _remove_stubs(self) -> None:
        upper_fd = os.open(self._snapshots.upper(self.name), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if not os.listdir(upper_fd):
                return
            places = ["/etc/resolv.conf", "/etc/hosts", *(mount.dest for mount in self._command.mounts)]
            with self._layers.opened(self._command.root) as lower_fd:
                mount_stubs.remove(upper_fd, lower_fd, places)
        finally:
            os.close(upper_fd)

    def forget(self) -> None:
        """Close the secrets."""
        while self._secrets:
            os.close(self._secrets.pop())

    def remove(self) -> None:
        """Remove the directories; what cannot be removed is told in the log, and found again by the next start."""
        for name in {self.name, *self._changes.values()}:
            try:
                remove_all(name, self._paths, self._snapshots)
            except (KetchError, OSError) as e:
                log.warning("remove the files of a build's command (%s): %s", name, e)


def remove_all(name: str, paths: ContainerPaths, snapshots: Snapshots) -> None:
    """Remove the directories of a command; blocking (KetchError, OSError)."""
    snapshots.remove(name)
    removal.remove_tree(paths.directory(name))
    removal.remove_tree(paths.run_dir(name))


def names(paths: ContainerPaths) -> list[str]:
    """The names of all directories of commands that are here."""
    found: dict[str, None] = {}
    for root in (os.path.join(paths.data_root, "containers"), os.path.join(paths.exec_root, "run")):
        with contextlib.suppress(FileNotFoundError):
            found |= dict.fromkeys(name for name in sorted(os.listdir(root)) if name.startswith(OF_A_BUILD))
    return list(found)
