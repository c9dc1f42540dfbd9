"""``RUN --mount``: what is mounted for one command."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

from ketch.build.dockerfile.convert.state import joined
from ketch.build.dockerfile.errors import DockerfileError
from ketch.build.llb import ops_pb2 as pb
from ketch.build.llb.operations import NOTHING, Action, MountInput, files

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ketch.build.dockerfile.convert.state import StageState
    from ketch.build.dockerfile.instructions.mounts import RunMount
    from ketch.build.dockerfile.instructions.run import Run
    from ketch.build.llb.vertex import Edge

    Sources = Mapping[int, Edge | None]

_SHARING = {"": pb.SHARED, "shared": pb.SHARED, "private": pb.PRIVATE, "locked": pb.LOCKED}
_AGENT = "/run/buildkit/ssh_agent"


class Mounts:
    """The mounts of a command (DockerfileError); ``late``: secrets, then agents; ``secrets``: those in variables."""

    def __init__(self, state: StageState, one: Run, sources: Sources) -> None:
        self._state, self._sources = state, sources
        self.inputs: list[MountInput] = []
        self.secrets: list[pb.SecretEnv] = []
        self._secret_files: list[MountInput] = []
        self._agents: list[MountInput] = []
        for number, mount in enumerate(one.mounts(lambda text: state.expand(one, text))):
            if mount.type == "secret":
                self._secret(mount)
            elif mount.type == "ssh":
                self._agent(mount)
            else:
                self._place(number, mount)

    @property
    def late(self) -> list[MountInput]:
        """The mounts that come after the files'."""
        return [*self._secret_files, *self._agents]

    @property
    def env(self) -> list[str]:
        """The variable that names the agent's socket, unless the stage sets it."""
        if not self._agents or "SSH_AUTH_SOCK" in self._state.variables:
            return []
        return [f"SSH_AUTH_SOCK={self._agents[0].mount.dest}"]

    def _secret(self, mount: RunMount) -> None:
        name = mount.source or mount.id or posixpath.basename(mount.target.rstrip("/"))
        if mount.env is not None:
            self.secrets.append(pb.SecretEnv(ID=name, name=mount.env, optional=not mount.required))
        if mount.env is None or mount.target:
            options = pb.SecretOpt(
                ID=name,
                uid=mount.uid or 0,
                gid=mount.gid or 0,
                mode=0o400 if mount.mode is None else mount.mode,
                optional=not mount.required,
            )
            dest = mount.target or f"/run/secrets/{posixpath.basename(name.rstrip('/'))}"
            self._secret_files.append(MountInput(pb.Mount(dest=dest, mountType=pb.SECRET, secretOpt=options)))

    def _agent(self, mount: RunMount) -> None:
        if mount.source:
            raise DockerfileError("ssh does not support source")
        options = pb.SSHOpt(
            ID=mount.id,
            uid=mount.uid or 0,
            gid=mount.gid or 0,
            mode=0o600 if mount.mode is None else mount.mode,
            optional=not mount.required,
        )
        dest = mount.target or f"{_AGENT}.{len(self._agents)}"
        self._agents.append(MountInput(pb.Mount(dest=dest, mountType=pb.SSH, SSHOpt=options)))

    def _place(self, number: int, mount: RunMount) -> None:
        """A mount of files: a directory of a source, of a cache, or of memory."""
        dest = joined(self._state.directory, mount.target)
        if dest == "/":
            raise DockerfileError('invalid mount target "/"', hint="name a directory with target=")
        found = pb.Mount(dest=dest, readonly=bool(mount.read_only))
        if mount.type == "tmpfs":
            found.mountType = pb.TMPFS
            found.TmpfsOpt.CopyFrom(pb.TmpfsOpt(size=mount.size))
            self.inputs.append(MountInput(found))
            return
        source = self._source(number, mount)
        if mount.type == "cache":
            found.mountType = pb.CACHE
            name = mount.id or posixpath.normpath(mount.target)
            namespace = self._state.build.options.cache_namespace
            found.cacheOpt.CopyFrom(pb.CacheOpt(ID=f"{namespace}/{name}", sharing=_SHARING[mount.sharing]))
        elif not mount.read_only:
            found.output = NOTHING
        part = joined("/", mount.source)
        if part != "/":
            found.selector = part
        elif any(value is not None for value in (mount.uid, mount.gid, mount.mode)):
            source = self._owned(source, mount)
            found.selector = "/cache"
        self.inputs.append(MountInput(found, source))

    def _source(self, number: int, mount: RunMount) -> Edge | None:
        if mount.source_stage or mount.type == "cache":
            return self._sources.get(number)
        self._state.build.paths.context.add(joined("/", mount.source))
        return self._state.build.context

    def _owned(self, source: Edge | None, mount: RunMount) -> Edge:
        """A directory with an owner and a mode, with which a cache begins."""
        mode = 0o755 if mount.mode is None else mount.mode & 0o777
        made = pb.FileActionMkDir(path="/cache", mode=mode, timestamp=-1)
        owner = pb.ChownOpt(user=pb.UserOpt(byID=mount.uid or 0), group=pb.UserOpt(byID=mount.gid or 0))
        made.owner.CopyFrom(owner)
        metadata = self._state.metadata("[internal] setting cache mount permissions")
        return files(source, [Action(pb.FileAction(mkdir=made))], None, metadata)
