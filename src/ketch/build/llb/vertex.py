"""Vertices of a build graph: an operation, named by the digest of its bytes, and the outputs of others that it needs.

The bytes are made once and kept, since the digest is of just these: a message that is decoded and encoded again can
be written otherwise (fields that this version does not know).  What does not change the result (names to show, whether
the cache is used, limits) stands beside them in the metadata.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

from ketch.build.llb import ops_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


class Edge(NamedTuple):
    """One output of a vertex."""

    vertex: Vertex
    output: int = 0


class Vertex:
    """An operation with its inputs; two that do the same to the same inputs have one digest."""

    __slots__ = ("data", "digest", "inputs", "metadata", "op")

    def __init__(self, op: pb.Op, data: bytes, inputs: Sequence[Edge], metadata: pb.OpMetadata) -> None:
        self.op = op
        self.data = data
        self.digest = "sha256:" + hashlib.sha256(data).hexdigest()
        self.inputs = tuple(inputs)
        self.metadata = metadata

    def __repr__(self) -> str:
        return f"<{self.kind} {self.digest[7:19]}>"

    @property
    def kind(self) -> str:
        """Which operation: exec, source, file, build, merge, diff, passthrough."""
        return self.op.WhichOneof("op") or ""

    @property
    def name(self) -> str:
        """Its name for people: the description given to it, else what it does, in short."""
        return self.metadata.description.get("llb.customname") or _described(self.op)


def vertex(op: pb.Op, inputs: Sequence[Edge] = (), metadata: pb.OpMetadata | None = None) -> Vertex:
    """A vertex of an operation, into which the digests of its inputs are written."""
    del op.inputs[:]
    op.inputs.extend(pb.Input(digest=edge.vertex.digest, index=edge.output) for edge in inputs)
    return Vertex(op, _encoded(op), inputs, metadata or pb.OpMetadata())


def _encoded(op: pb.Op) -> bytes:
    """The operation's bytes as Go's protobuf writes them: fields by number, and the one of a choice after the others.

    Any order means the same, but only this one has the digest that BuildKit's clients give to the same operation.
    """
    rest, chosen = pb.Op(), pb.Op()
    rest.CopyFrom(op)
    if kind := op.WhichOneof("op"):
        rest.ClearField(kind)
        getattr(chosen, kind).CopyFrom(getattr(op, kind))
    return rest.SerializeToString(deterministic=True) + chosen.SerializeToString(deterministic=True)


def in_order(roots: Iterable[Vertex]) -> Iterator[Vertex]:
    """Vertices and all that they need, each once, inputs first.  Graphs may be deep: this does not recurse."""
    seen: set[str] = set()
    stack = [iter(tuple(roots))]
    path: list[Vertex] = []
    while stack:
        found = next((one for one in stack[-1] if one.digest not in seen), None)
        if found is not None:
            seen.add(found.digest)
            path.append(found)
            stack.append(iter([edge.vertex for edge in found.inputs]))
            continue
        stack.pop()
        if path:
            yield path.pop()


def _described(op: pb.Op) -> str:
    match op.WhichOneof("op"):
        case "source":
            return op.source.identifier
        case "exec":
            return " ".join(op.exec.meta.args)
        case "file":
            return ", ".join(_action(action) for action in op.file.actions)
        case kind:
            return kind or "nothing"


def _action(action: pb.FileAction) -> str:
    match action.WhichOneof("action"):
        case "copy":
            return f"copy {action.copy.src} {action.copy.dest}"
        case "mkfile":
            return f"mkfile {action.mkfile.path}"
        case "mkdir":
            return f"mkdir {action.mkdir.path}"
        case "rm":
            return f"rm {action.rm.path}"
        case "symlink":
            return f"symlink {action.symlink.newpath}"
        case _:
            return "nothing"
