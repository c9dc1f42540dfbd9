"""Explanations: why a vertex was not found in the cache, by the record that is nearest to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from google.protobuf.message import DecodeError

from ketch.build.cache.keys import root_key
from ketch.build.llb import ops_pb2 as pb
from ketch.build.solver.job import Explanation
from ketch.build.solver.lookup import definition, input_key, sources

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from google.protobuf.message import Message

    from ketch.build.cache.records import CacheRecords
    from ketch.build.cache.schema import CacheKey, CacheResult
    from ketch.build.solver.edge import EdgeNode

_SHOWN = 100  # letters of a value


class Difference(NamedTuple):
    """The reason why an edge is made, and the older result whose files tell more (None: they do not)."""

    reason: str
    details: Sequence[str] = ()
    compared: CacheResult | None = None

    def explained(self, edge: EdgeNode, files: Sequence[str] = ()) -> Explanation:
        """The explanation of an edge, with the files that differ."""
        vertex = edge.state.vertex
        return Explanation(vertex=vertex.digest, name=vertex.name, reason=self.reason, details=[*self.details, *files])


def difference(edge: EdgeNode, records: CacheRecords) -> Difference:
    """The difference between an edge that is to be made and the nearest record."""
    if edge.state.ignores_cache:
        return Difference("the cache was not to be used for it")
    if not edge.state.maps:
        return Difference("it is never cached")
    nearest = _nearest(edge, records)
    if nearest is None:
        return Difference("nothing like it is in the cache")
    if nearest.operation != definition(edge.state)[0]:
        changes = _changes(records.definition(nearest.operation), edge)
        if changes or nearest.name == edge.state.vertex.name:
            return Difference("the instruction is not the one that was built before", changes)
        return Difference("nothing like it is in the cache")
    maps = edge.state.maps or ()
    number = next((i for i, one in enumerate(maps) if root_key(one.digest, edge.output) == nearest.step), None)
    if number is None:
        return Difference("what it stands for is not what it was before: " + _subject(edge))
    return _of_inputs(edge, number, nearest, records)


def _nearest(edge: EdgeNode, records: CacheRecords) -> CacheKey | None:
    """The record that has most in common: step, operation, name, or all inputs; the newest of those."""
    vertex = edge.state.vertex
    steps = {root_key(one.digest, edge.output) for one in edge.state.maps or ()}
    operation = definition(edge.state)[0]
    nearest, best = None, (0, 0, 0)
    for key in records.all_keys():
        likeness = 4 * (key.step in steps) + 2 * (key.operation == operation) + (key.name == vertex.name)
        common = _common_inputs(edge, key) if likeness >= 4 or not likeness else 0
        rank = (likeness, common, key.created)
        # One in the place of which an instruction was written that has another name stands on the same inputs.
        if (likeness or 0 < len(edge.inputs) == len(key.inputs) == common) and rank > best:
            nearest, best = key, rank
    return nearest


def _common_inputs(edge: EdgeNode, key: CacheKey) -> int:
    return sum(not _differs(edge, 0, i, key) for i in range(len(edge.inputs)))


def _differs(edge: EdgeNode, number: int, i: int, key: CacheKey) -> bool:
    known = {(one.source, one.selector) for one in key.inputs[i]} if i < len(key.inputs) else set()
    return known.isdisjoint((one.key, one.selector) for one in sources(edge, number, i, recorded=True))


def _of_inputs(edge: EdgeNode, number: int, nearest: CacheKey, records: CacheRecords) -> Difference:
    found = [i for i in range(len(edge.inputs)) if _differs(edge, number, i, nearest)]
    if not found:
        return Difference("its result was removed from the cache, or its layer is damaged")
    by_contents = [i for i in found if input_key(edge, number, i).contents is not None]
    names = ", ".join(f"`{edge.inputs[i].state.vertex.name}`" for i in found)
    if not by_contents:
        return Difference(f"what it is built on has changed: {names}")
    older = next(iter(records.results_of(nearest.id)), None)
    files = older if edge.state.vertex.kind == "file" and len(by_contents) == len(found) else None
    return Difference(f"files that it uses have changed: {names}", (), files)


def _subject(edge: EdgeNode) -> str:
    source = edge.state.vertex.op.source.identifier
    return f"`{source or edge.state.vertex.name}`"


def _changes(older: bytes | None, edge: EdgeNode) -> list[str]:
    """The parts of an operation that are others than in an older one."""
    new = edge.state.vertex.op
    try:
        old = pb.Op.FromString(older or b"")
    except DecodeError:
        return []
    if old.WhichOneof("op") != new.WhichOneof("op"):
        return []
    if new.WhichOneof("op") == "exec":
        return _command_changes(old.exec, new.exec)
    if new.WhichOneof("op") == "source":
        attrs = _mapping_changes("attribute", dict(old.source.attrs), dict(new.source.attrs))
        return [*_value_changes("source", old.source.identifier, new.source.identifier), *attrs]
    if new.WhichOneof("op") == "file":
        return _action_changes(old.file, new.file)
    return []


def _command_changes(old: pb.ExecOp, new: pb.ExecOp) -> list[str]:
    found = _value_changes("command", " ".join(old.meta.args), " ".join(new.meta.args))
    found += _mapping_changes("variable", _variables(old), _variables(new))
    found += _value_changes("directory", old.meta.cwd, new.meta.cwd)
    found += _value_changes("user", old.meta.user, new.meta.user)
    found += _value_changes("network", pb.NetMode.Name(old.network), pb.NetMode.Name(new.network))
    found += _value_changes("security", pb.SecurityMode.Name(old.security), pb.SecurityMode.Name(new.security))
    found += _mapping_changes("mount", _mounts(old), _mounts(new))
    found += _mapping_changes("secret", _secrets(old), _secrets(new))
    found += _mapping_changes("host", _hosts(old), _hosts(new))
    found += _mapping_changes("limit", _limits(old), _limits(new))
    return found or ["options of the command"]


def _action_changes(old: pb.FileOp, new: pb.FileOp) -> list[str]:
    before, after = ([_text(action) for action in one.actions] for one in (old, new))
    if len(before) != len(after):
        return [f"{len(after)} actions instead of {len(before)}"]
    return [line for one, other in zip(before, after, strict=True) for line in _value_changes("action", one, other)]


def _mounts(command: pb.ExecOp) -> dict[str, str]:
    """The options of mounts by their places, without those of which input or output they are."""
    found = {}
    for mount in command.mounts:
        options = pb.Mount()
        options.CopyFrom(mount)
        for field in ("dest", "input", "output"):
            options.ClearField(field)
        if mount.dest != "/":
            found[mount.dest] = _text(options)
    return found


def _secrets(command: pb.ExecOp) -> dict[str, str]:
    return {one.name: _text(one) for one in command.secretenv}


def _hosts(command: pb.ExecOp) -> dict[str, str]:
    return {one.Host: one.IP for one in command.meta.extraHosts}


def _limits(command: pb.ExecOp) -> dict[str, str]:
    return {one.Name: f"{one.Soft}:{one.Hard}" for one in command.meta.ulimit}


def _text(message: Message) -> str:
    return str(message).replace("\n", " ").strip()


def _variables(command: pb.ExecOp) -> dict[str, str]:
    parts = (one.partition("=") for one in command.meta.env)
    return {name: value for name, _, value in parts}


def _mapping_changes(kind: str, old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    found = []
    for name in sorted(old.keys() | new.keys()):
        if name not in old:
            found.append(f"{kind} {name} is new: {_short(new[name])}")
        elif name not in new:
            found.append(f"{kind} {name} is gone")
        else:
            found += _value_changes(f"{kind} {name}", old[name], new[name])
    return found


def _value_changes(kind: str, old: str, new: str) -> list[str]:
    return [] if old == new else [f"{kind}: {_short(old)} -> {_short(new)}"]


def _short(text: str) -> str:
    return f"`{text}`" if len(text) <= _SHOWN else f"`{text[:_SHOWN]}…`"
