"""RUN: a command in a container, and what it writes to its root and to the mounts that are kept.

    op.exec, inputs ──► BuildCommand ──► Executor ──► a tree for each output

What comes from the client (secrets, its ssh agent) is asked for when the command is about to run: nothing of it is in
the graph, in a cache, or on a disk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ketch.build.cache.maps import exec_map
from ketch.build.errors import CommandFailed, MountStates
from ketch.build.llb import ops_pb2 as pb
from ketch.build.llb.operations import NOTHING
from ketch.build.ops.mounts import command_mount, place, secret_variables
from ketch.build.providers import BuildCommand
from ketch.build.tree import EMPTY, Tree
from ketch.errors import InvalidArgument
from ketch.oci.manifest import Platform

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.build.cache.contents import ContentDigests
    from ketch.build.llb.vertex import Vertex
    from ketch.build.operation import CacheMap, Work
    from ketch.build.providers import Executor, Written

_ROOT = "/"
NETWORKS = {pb.UNSET: "default", pb.HOST: "host", pb.NONE: "none"}
_WITH_FILES = (pb.BIND, pb.CACHE)  # mounts that may have an input
_PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy")


class ExecOperation:
    """The operation of a vertex that is a command."""

    def __init__(self, vertex: Vertex, executor: Executor, contents: ContentDigests) -> None:
        self._vertex, self._executor, self._contents = vertex, executor, contents
        self._exec = vertex.op.exec

    async def cache_maps(self, work: Work) -> Sequence[CacheMap]:
        """The command and its inputs, without what its result does not depend on."""
        del work
        return [exec_map(self._vertex.op, self._contents)]

    async def run(self, work: Work, inputs: Sequence[Tree]) -> Sequence[Tree]:
        """Run the command (CommandFailed, NotFound: a secret, other KetchErrors)."""
        command = await self._command(work, inputs)
        try:
            written = await self._executor.run(command, work.lease, work.log.write)
        except CommandFailed as e:
            e.mounts = [self._states(mount, inputs, e.left) for mount in self._exec.mounts]
            raise
        return self._outputs(written, inputs)

    # -- what is run -------------------------------------------------------------------------------

    async def _command(self, work: Work, inputs: Sequence[Tree]) -> BuildCommand:
        meta, op, sessions = self._exec.meta, self._exec, work.sessions
        root = self._root()
        mounts = [
            await command_mount(mount, meta.cwd, _input(mount, inputs), sessions)
            for mount in op.mounts
            if mount.dest != _ROOT
        ]
        resources = self._vertex.metadata.linux_resources
        platform = self._vertex.op.platform
        return BuildCommand(
            args=list(meta.args),
            env=list(meta.env),
            secret_env=await secret_variables(op.secretenv, sessions),
            cwd=meta.cwd or "/",
            user=meta.user,
            root=_input(root, inputs),
            root_selector=root.selector,
            root_readonly=root.readonly,
            root_kept=root.output != NOTHING,
            mounts=[mount for mount in mounts if mount is not None],
            network=op.network_name or NETWORKS[op.network],
            insecure=op.security == pb.INSECURE,
            devices=[device.name for device in op.cdiDevices if not device.optional],
            hostname=meta.hostname,
            hosts=[(host.Host, host.IP) for host in meta.extraHosts],
            limits=[(limit.Name, limit.Soft, limit.Hard) for limit in meta.ulimit],
            cgroup_parent=meta.cgroupParent,
            resources={field.name: value for field, value in resources.ListFields()},
            valid_exit_codes=list(meta.validExitCodes),
            proxy_env=_proxies(meta.proxy_env),
            platform=Platform(os=platform.OS, architecture=platform.Architecture, variant=platform.Variant or None)
            if platform.Architecture
            else None,
        )

    def _root(self) -> pb.Mount:
        for mount in self._exec.mounts:
            if mount.dest == _ROOT:
                if mount.mountType != pb.BIND:
                    raise InvalidArgument(f"invalid mount type {pb.MountType.Name(mount.mountType)} for /")
                return mount
        raise InvalidArgument("a command has no root: there is no mount at /")

    # -- what it leaves ----------------------------------------------------------------------------

    def _outputs(self, written: Written, inputs: Sequence[Tree]) -> list[Tree]:
        """The trees of the outputs, by their numbers."""
        found: dict[int, Tree] = {}
        for mount in self._exec.mounts:
            if mount.output == NOTHING:
                continue
            if mount.dest == _ROOT:
                found[mount.output] = written.root
            elif mount.mountType == pb.BIND:
                found[mount.output] = written.mounts[place(mount, self._exec.meta.cwd)]
            elif mount.mountType == pb.CACHE and mount.input != NOTHING:
                found[mount.output] = _input(mount, inputs)
        return [found.get(number, EMPTY) for number in range(max(found, default=-1) + 1)]

    def _states(self, mount: pb.Mount, inputs: Sequence[Tree], left: Written | None) -> MountStates:
        """The files of a mount before the command, and as it left them."""
        given = mount.input != NOTHING and mount.mountType in _WITH_FILES
        before = _input(mount, inputs) if given else None
        if left is None or mount.mountType != pb.BIND:
            return MountStates(before, before)
        if mount.dest == _ROOT:
            return MountStates(before, left.root)
        return MountStates(before, left.mounts.get(place(mount, self._exec.meta.cwd), before))


def _input(mount: pb.Mount, inputs: Sequence[Tree]) -> Tree:
    """The tree that a mount begins with."""
    if mount.input == NOTHING or mount.mountType not in _WITH_FILES:
        return EMPTY
    if not 0 <= mount.input < len(inputs):
        raise InvalidArgument(f"mount {mount.dest}: missing input {mount.input}")
    return inputs[mount.input]


def _proxies(proxies: pb.ProxyEnv) -> list[str]:
    found = []
    for name in _PROXIES:
        if value := getattr(proxies, name):
            found += [f"{name.upper()}={value}", f"{name}={value}"]
    return found
