"""RUN: a command in a container, and what it writes to its root and to the mounts that are kept.

    op.exec, inputs ──► BuildCommand ──► Executor ──► a tree for each output

What comes from the client (secrets, its ssh agent) is asked for when the command is about to run: nothing of it is in
the graph, in a cache, or on a disk.
"""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

from ketch.build.cache.maps import exec_map
from ketch.build.llb import ops_pb2 as pb
from ketch.build.llb.operations import NOTHING
from ketch.build.providers import BuildCommand, CommandMount
from ketch.build.tree import EMPTY, Tree
from ketch.errors import InvalidArgument, NotFound
from ketch.oci.manifest import Platform

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.build.cache.contents import ContentDigests
    from ketch.build.llb.vertex import Vertex
    from ketch.build.operation import CacheMap, Work
    from ketch.build.providers import BuildSession, Executor, Written

_ROOT = "/"
_NETWORKS = {pb.UNSET: "default", pb.HOST: "host", pb.NONE: "none"}
_SHARING = {pb.SHARED: "shared", pb.PRIVATE: "private", pb.LOCKED: "locked"}
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
        written = await self._executor.run(command, work.lease, work.log.write)
        return self._outputs(written, inputs)

    # -- what is run -------------------------------------------------------------------------------

    async def _command(self, work: Work, inputs: Sequence[Tree]) -> BuildCommand:
        meta, op, sessions = self._exec.meta, self._exec, work.sessions
        root = self._root()
        mounts = [await self._mount(mount, sessions, inputs) for mount in op.mounts if mount.dest != _ROOT]
        resources = self._vertex.metadata.linux_resources
        platform = self._vertex.op.platform
        return BuildCommand(
            args=list(meta.args),
            env=list(meta.env),
            secret_env=await self._secret_env(sessions),
            cwd=meta.cwd or "/",
            user=meta.user,
            root=_input(root, inputs),
            root_selector=root.selector,
            root_readonly=root.readonly,
            root_kept=root.output != NOTHING,
            mounts=[mount for mount in mounts if mount is not None],
            network=op.network_name or _NETWORKS[op.network],
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

    async def _mount(
        self, mount: pb.Mount, sessions: Sequence[BuildSession], inputs: Sequence[Tree]
    ) -> CommandMount | None:
        """A mount of the command; None for what it can do without, and the client has not."""
        dest = posixpath.normpath(posixpath.join("/", self._exec.meta.cwd, mount.dest))
        match mount.mountType:
            case pb.CACHE:
                return CommandMount(
                    dest=dest,
                    kind="cache",
                    tree=_input(mount, inputs),
                    selector=mount.selector,
                    readonly=mount.readonly,
                    cache_id=mount.cacheOpt.ID,
                    sharing=_SHARING[mount.cacheOpt.sharing],
                )
            case pb.TMPFS:
                return CommandMount(dest=dest, kind="tmpfs", size=mount.TmpfsOpt.size, readonly=mount.readonly)
            case pb.SECRET:
                return await _secret_file(dest, mount.secretOpt, sessions)
            case pb.SSH:
                return await _agent(dest, mount.SSHOpt, sessions)
        return CommandMount(
            dest=dest,
            tree=_input(mount, inputs),
            selector=mount.selector,
            readonly=mount.readonly,
            kept=mount.output != NOTHING,
        )

    async def _secret_env(self, sessions: Sequence[BuildSession]) -> dict[str, str]:
        found = {}
        for wanted in self._exec.secretenv:
            if not wanted.ID:
                raise InvalidArgument(f'secret ID missing for "{wanted.name}" environment variable')
            data = await _secret(wanted.ID, wanted.optional, sessions)
            if data is not None:
                if b"\0" in data:
                    raise InvalidArgument(f"secret {wanted.ID}: a variable cannot have a NUL byte")
                found[wanted.name] = data.decode("utf-8", "surrogateescape")
        return found

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
                dest = posixpath.normpath(posixpath.join("/", self._exec.meta.cwd, mount.dest))
                found[mount.output] = written.mounts[dest]
            elif mount.mountType == pb.CACHE and mount.input != NOTHING:
                found[mount.output] = _input(mount, inputs)
        return [found.get(number, EMPTY) for number in range(max(found, default=-1) + 1)]


def _input(mount: pb.Mount, inputs: Sequence[Tree]) -> Tree:
    if mount.input == NOTHING:
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


async def _secret(name: str, optional: bool, sessions: Sequence[BuildSession]) -> bytes | None:
    for session in sessions:
        if (data := await session.secret(name)) is not None:
            return data
    if optional:
        return None
    raise NotFound(f"secret {name}: not found", hint=f"give it with --secret id={name},src=FILE")


async def _secret_file(dest: str, wanted: pb.SecretOpt, sessions: Sequence[BuildSession]) -> CommandMount | None:
    if not wanted.ID:
        raise InvalidArgument("secret ID missing from mount options")
    data = await _secret(wanted.ID, wanted.optional, sessions)
    if data is None:
        return None
    return CommandMount(
        dest=dest, kind="secret", data=data, uid=wanted.uid, gid=wanted.gid, mode=wanted.mode, readonly=True
    )


async def _agent(dest: str, wanted: pb.SSHOpt, sessions: Sequence[BuildSession]) -> CommandMount | None:
    name = wanted.ID or "default"
    for session in sessions:
        if (path := await session.ssh_agent(name)) is not None:
            return CommandMount(
                dest=dest, kind="ssh", socket_path=path, uid=wanted.uid, gid=wanted.gid, mode=wanted.mode
            )
    if wanted.optional:
        return None
    raise NotFound(f"unset ssh forward key {name}", hint=f"give an agent with --ssh {name}")
