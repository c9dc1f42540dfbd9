"""Graphs as definitions, which clients and front ends send: written, and read with every check that the solver needs.

A definition that was read has no cycle: an operation names its inputs by the digest of their bytes, which are there
before it.  (BuildKit's llbsolver/vertex.go says which definitions are refused and how.)
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from ketch.build.llb import ops_pb2 as pb
from ketch.build.llb.capabilities import CAPABILITIES
from ketch.build.llb.vertex import Edge, Vertex, in_order, vertex
from ketch.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable

_KNOWN = frozenset(CAPABILITIES)
MOST_VERTICES = 100_000  # of one definition: no front end makes more than some thousand


def define(result: Edge, source: pb.Source | None = None) -> pb.Definition:
    """A graph as a definition, whose last operation points at the result."""
    found = pb.Definition()
    last = vertex(pb.Op(), [result])
    for one in in_order([last]):
        getattr(found, "def").append(one.data)
        found.metadata[one.digest].CopyFrom(one.metadata)
    if source is not None:
        found.Source.CopyFrom(source)
    return found


def load(definition: pb.Definition) -> Edge:
    """The result that a definition describes (InvalidArgument: it describes none that can be built)."""
    try:
        return _loaded(definition)
    except InvalidArgument as e:
        raise InvalidArgument(f"failed to load LLB: {e.message}", hint=e.hint) from e


def _loaded(definition: pb.Definition) -> Edge:
    for metadata in definition.metadata.values():
        for name in metadata.caps:
            if name not in _KNOWN:
                raise InvalidArgument(f"unknown API capability {name}", hint="this builder is too old for it")
    operations = list(getattr(definition, "def"))
    if not operations:
        raise InvalidArgument("invalid empty definition")
    if len(operations) > MOST_VERTICES:
        raise InvalidArgument(f"definition of {len(operations)} vertices: at most {MOST_VERTICES} are solved")
    ops = {_digest(data): (data, _decoded(data)) for data in operations}
    last = _digest(operations[-1])
    order = _inputs_first(last, ops)
    if len(ops) < 2:
        raise InvalidArgument(f"invalid LLB with {len(ops)} vertexes")
    made: dict[str, Vertex] = {}
    for digest in order:
        data, op = ops[digest]
        if digest != last:
            validate(op)
        if any(one.index < 0 for one in op.inputs):
            raise InvalidArgument("invalid input index below 0")
        inputs = [Edge(made[one.digest], one.index) for one in op.inputs]
        made[digest] = Vertex(op, data, inputs, definition.metadata[digest])
    if len(made[last].inputs) != 1:
        raise InvalidArgument(f"invalid LLB with {len(made[last].inputs) or 'no'} inputs on last vertex")
    return made[last].inputs[0]


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _decoded(data: bytes) -> pb.Op:
    try:
        return pb.Op.FromString(data)
    except DecodeError as e:
        raise InvalidArgument(f"failed to parse llb proto op: {e}") from e


def _inputs_first(last: str, ops: dict[str, tuple[bytes, pb.Op]]) -> list[str]:
    """Digests from the deepest input to the last operation."""
    order: list[str] = []
    entered: set[str] = set()
    stack = [(last, False)]
    while stack:
        digest, inputs_done = stack.pop()
        if inputs_done:
            order.append(digest)
            continue
        if digest in entered:
            continue
        if digest not in ops:
            raise InvalidArgument(f"invalid missing input digest {digest}")
        entered.add(digest)
        stack.append((digest, True))
        stack.extend((one.digest, False) for one in reversed(ops[digest][1].inputs))
    return order


def validate(op: pb.Op) -> None:
    """Refuse an operation that cannot be carried out, whatever its inputs are (InvalidArgument)."""
    kind = op.WhichOneof("op")
    if kind is None:
        raise InvalidArgument("invalid nil op: the operation is of no kind that this builder knows")
    check = _CHECKS.get(kind)
    if check is not None:
        check(op)


def _input(op: pb.Op, index: int, what: str, *, none: bool = True) -> None:
    lowest = -1 if none else 0
    if not lowest <= index < len(op.inputs):
        raise InvalidArgument(f"invalid input {index} of {what}: the operation has {len(op.inputs)}")


def _check_source(op: pb.Op) -> None:
    if not op.source.identifier:
        raise InvalidArgument("invalid source op with no source")


def _check_exec(op: pb.Op) -> None:
    if not op.exec.HasField("meta"):
        raise InvalidArgument("invalid exec op with no meta")
    if not op.exec.meta.args:
        raise InvalidArgument("invalid exec op with no args")
    if not op.exec.mounts:
        raise InvalidArgument("invalid exec op with no mounts")
    if all(mount.dest != "/" for mount in op.exec.mounts):
        raise InvalidArgument("invalid exec op with no rootfs")
    check_network(op.exec.network)
    for mount in op.exec.mounts:
        check_mount(mount)
        _input(op, mount.input, f"mount {mount.dest}")


def check_network(mode: int) -> None:
    """Refuse a network mode that there is not (InvalidArgument)."""
    if mode not in pb.NetMode.values():
        raise InvalidArgument(f"unknown network mode {mode}")


def check_mount(mount: pb.Mount) -> None:
    """Refuse a mount that cannot be made, whatever it shows (InvalidArgument)."""
    if mount.mountType not in pb.MountType.values():
        raise InvalidArgument(f"mount type {mount.mountType} not implemented")
    if mount.mountType == pb.CACHE and not mount.HasField("cacheOpt"):
        raise InvalidArgument("missing cache mount options")
    if mount.mountType == pb.SECRET and not mount.HasField("secretOpt"):
        raise InvalidArgument("invalid secret mount options")
    if mount.cacheOpt.sharing not in pb.CacheSharingOpt.values():
        raise InvalidArgument(f"unknown sharing {mount.cacheOpt.sharing} of cache mount {mount.dest}")


def _check_file(op: pb.Op) -> None:
    if not op.file.actions:
        raise InvalidArgument("invalid file op with no actions")
    for position, action in enumerate(op.file.actions):
        there = len(op.inputs) + position  # an action takes what the ones before it made, too
        if action.WhichOneof("action") is None:
            raise InvalidArgument(f"invalid nil action {position} of file op")
        for index in (action.input, action.secondaryInput):
            if not -1 <= index < there:
                raise InvalidArgument(f"invalid input {index} of action {position}: there are {there}")


def _check_merge(op: pb.Op) -> None:
    if not op.merge.inputs:
        raise InvalidArgument("invalid merge op with no inputs")
    for one in op.merge.inputs:
        _input(op, one.input, "merge", none=False)


def _check_diff(op: pb.Op) -> None:
    _input(op, op.diff.lower.input, "diff's lower side")
    _input(op, op.diff.upper.input, "diff's upper side")


def _check_build(op: pb.Op) -> None:
    for name, one in op.build.inputs.items():
        _input(op, one.input, f"build's {name}", none=False)


_CHECKS: dict[str, Callable[[pb.Op], None]] = {
    "source": _check_source,
    "exec": _check_exec,
    "file": _check_file,
    "merge": _check_merge,
    "diff": _check_diff,
    "build": _check_build,
}
