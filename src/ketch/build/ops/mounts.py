"""Mounts of commands: out of messages, with the trees that they show, and with what the client gives for them.

What comes from the client (secrets, its ssh agent) is asked for now: nothing of it is in a graph, in a cache, or on a
disk.
"""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

from ketch.build.llb import ops_pb2 as pb
from ketch.build.llb.operations import NOTHING
from ketch.build.providers import CommandMount
from ketch.errors import InvalidArgument, NotFound

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ketch.build.providers import BuildSession
    from ketch.build.tree import Tree

_SHARING = {pb.SHARED: "shared", pb.PRIVATE: "private", pb.LOCKED: "locked"}


def place(mount: pb.Mount, cwd: str) -> str:
    """The path at which a command sees a mount."""
    return posixpath.normpath(posixpath.join("/", cwd, mount.dest))


async def command_mount(mount: pb.Mount, cwd: str, tree: Tree, sessions: Sequence[BuildSession]) -> CommandMount | None:
    """A mount of a command; None for what it can do without, and the client has not (NotFound, InvalidArgument)."""
    dest = place(mount, cwd)
    match mount.mountType:
        case pb.CACHE:
            return CommandMount(
                dest=dest,
                kind="cache",
                tree=tree,
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
        tree=tree,
        selector=mount.selector,
        readonly=mount.readonly,
        kept=mount.output != NOTHING,
    )


async def secret_variables(asked: Iterable[pb.SecretEnv], sessions: Sequence[BuildSession]) -> dict[str, str]:
    """Variables whose values are secrets (NotFound, InvalidArgument)."""
    found = {}
    for wanted in asked:
        if not wanted.ID:
            raise InvalidArgument(f'secret ID missing for "{wanted.name}" environment variable')
        data = await _secret(wanted.ID, wanted.optional, sessions)
        if data is not None:
            if b"\0" in data:
                raise InvalidArgument(f"secret {wanted.ID}: a variable cannot have a NUL byte")
            found[wanted.name] = data.decode("utf-8", "surrogateescape")
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
