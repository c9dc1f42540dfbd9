"""Operations as vertices: what a front end states, with the numbers of inputs and outputs filled in.

Made as BuildKit's own client makes them (client/llb), so that equal steps have equal digests whoever made the graph.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ketch.build.llb import ops_pb2 as pb
from ketch.build.llb.vertex import Edge, Vertex, vertex

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

NOTHING = -1  # as an input: an empty directory; as an output: what is written is not kept
_OF_A_PLATFORM = ("docker-image://", "oci-layout://")


class MountInput(NamedTuple):
    """A mount of a command: the message without its numbers, and what is mounted (None: an empty directory)."""

    mount: pb.Mount
    source: Edge | None = None


class Action(NamedTuple):
    """A step of a file operation: the message without its numbers, and where its files come from, for a copy."""

    action: pb.FileAction
    source: Edge | None = None


def source(
    identifier: str,
    attrs: Mapping[str, str] | None = None,
    platform: pb.Platform | None = None,
    metadata: pb.OpMetadata | None = None,
) -> Edge:
    """Files that come from elsewhere: an image, the client's directory, git, a URL."""
    op = _op(platform if identifier.startswith(_OF_A_PLATFORM) else None)
    op.source.identifier = identifier
    op.source.attrs.update(attrs or {})
    return Edge(vertex(op, (), metadata))


def execute(
    command: pb.ExecOp,
    mounts: Iterable[MountInput],
    platform: pb.Platform,
    metadata: pb.OpMetadata | None = None,
) -> Vertex:
    """A command; :func:`output_at` tells which output is what was written at a mount.

    Mounts are in order of their destinations, those of secrets and of agents' sockets after the others.
    """
    op = _op(platform)
    op.exec.CopyFrom(command)
    op.exec.meta.removeMountStubsRecursive = True
    inputs: list[Edge] = []
    outputs = 0
    for point in sorted(mounts, key=lambda one: (_late(one.mount), "" if _late(one.mount) else one.mount.dest)):
        mount = op.exec.mounts.add()
        mount.CopyFrom(point.mount)
        mount.input = _index(inputs, point.source)
        if _late(mount):
            continue
        if _kept(mount):
            mount.output, outputs = outputs, outputs + 1
        else:
            mount.output = NOTHING
    return vertex(op, inputs, metadata)


def output_at(command: Vertex, dest: str) -> Edge:
    """The output that a command leaves at a mount (KeyError: none is there; ValueError: what it writes is not kept)."""
    for mount in command.op.exec.mounts:
        if mount.dest == dest:
            if mount.output == NOTHING:
                raise ValueError(f"what is written at {dest} is not kept")
            return Edge(command, mount.output)
    raise KeyError(dest)


def _late(mount: pb.Mount) -> bool:
    return mount.mountType in (pb.SECRET, pb.SSH)


def _kept(mount: pb.Mount) -> bool:
    return mount.mountType == pb.BIND and not mount.readonly and mount.output != NOTHING


def files(
    base: Edge | None,
    actions: Sequence[Action],
    platform: pb.Platform | None = None,
    metadata: pb.OpMetadata | None = None,
) -> Edge:
    """Files copied, made and removed on top of a base, one action after another."""
    op = _op(platform)
    inputs: list[Edge] = []
    base_index = there = _index(inputs, base)
    sources = [_index(inputs, one.source) for one in actions]
    for position, (one, copied) in enumerate(zip(actions, sources, strict=True)):
        action = op.file.actions.add()
        action.CopyFrom(one.action)
        action.input, action.secondaryInput = there, copied
        for name in _names(action):
            name.input = base_index
        last = position == len(actions) - 1
        action.output = 0 if last else NOTHING
        there = len(inputs) + position
    return Edge(vertex(op, inputs, metadata))


def _names(action: pb.FileAction) -> list[pb.NamedUserOpt]:
    """The names of an action's owner, which the files of its base explain."""
    message = getattr(action, action.WhichOneof("action") or "copy")
    if isinstance(message, pb.FileActionRm) or not message.HasField("owner"):
        return []
    both = (message.owner.user, message.owner.group)
    return [one.byName for one in both if one.WhichOneof("user") == "byName"]


def merge(
    edges: Sequence[Edge | None], platform: pb.Platform | None = None, metadata: pb.OpMetadata | None = None
) -> Edge | None:
    """Trees laid one upon the other, each as it differs from nothing; of one, that one."""
    inputs = [edge for edge in edges if edge is not None]
    if len(inputs) < 2:
        return inputs[0] if inputs else None
    op = _op(platform)
    op.merge.inputs.extend(pb.MergeInput(input=index) for index in range(len(inputs)))
    return Edge(vertex(op, inputs, metadata))


def difference(
    lower: Edge | None, upper: Edge | None, platform: pb.Platform | None = None, metadata: pb.OpMetadata | None = None
) -> Edge | None:
    """The changes that make the upper tree of the lower one; those of nothing are the whole upper tree."""
    if lower is None:
        return upper
    op = _op(platform)
    inputs: list[Edge] = []
    op.diff.lower.input = _index(inputs, lower)
    op.diff.upper.input = _index(inputs, upper)
    return Edge(vertex(op, inputs, metadata))


def _op(platform: pb.Platform | None) -> pb.Op:
    op = pb.Op()
    if platform is not None:
        op.platform.CopyFrom(platform)
    op.constraints.SetInParent()  # written, and empty, by every client
    return op


def _index(inputs: list[Edge], edge: Edge | None) -> int:
    """The number of an input, which is added when it is not there yet."""
    if edge is None:
        return NOTHING
    for index, other in enumerate(inputs):
        if (other.vertex.digest, other.output) == (edge.vertex.digest, edge.output):
            return index
    inputs.append(edge)
    return len(inputs) - 1
