"""Steps of a build, as a provenance tells them: operations in JSON, by number, and the lines that they come from."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, NamedTuple

from google.protobuf.message import Message

from ketch.build.attest.addresses import without_password
from ketch.build.llb import ops_pb2 as pb
from ketch.build.llb.vertex import in_order, vertex

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ketch.build.llb.vertex import Edge

_OF_SESSIONS = ("local.session", "local.unique")  # attributes that say nothing of the files
_ADDRESSES = ("git.fullurl",)


class Steps(NamedTuple):
    """Steps in JSON, inputs first, and the number of each by its vertex's digest."""

    rows: list[dict[str, Any]]
    numbers: Mapping[str, int]

    def config(self) -> dict[str, Any]:
        """The build's configuration in a provenance."""
        return {
            "llbDefinition": self.rows,
            "digestMapping": {digest: _name(number) for digest, number in self.numbers.items()},
        }

    def output(self, edge: Edge) -> str:
        """The name of an output, ``step3:0``."""
        return f"{_name(self.numbers[edge.vertex.digest])}:{edge.output}"


def steps(result: Edge) -> Steps:
    """The steps of a result's graph; the last one names the result."""
    last = vertex(pb.Op(), [result])
    order = list(in_order([last]))
    numbers = {one.digest: number for number, one in enumerate(order)}
    rows = []
    for number, one in enumerate(order):
        row: dict[str, Any] = {"id": _name(number), "op": _operation(one.op)}
        if one.inputs:
            row["inputs"] = [f"{_name(numbers[edge.vertex.digest])}:{edge.output}" for edge in one.inputs]
        rows.append(row)
    return Steps(rows, numbers)


def source_map(found: Steps, source: pb.Source) -> dict[str, Any]:
    """The lines of steps, and the files that these are lines of."""
    places = {
        _name(found.numbers[digest]): _plain(places)
        for digest, places in source.locations.items()
        if digest in found.numbers
    }
    infos = []
    for info in source.infos:
        row = {"filename": info.filename, "language": info.language, "data": base64.b64encode(info.data).decode()}
        infos.append({name: value for name, value in row.items() if value})
    return {"locations": places, "infos": infos}


def _name(number: int) -> str:
    return f"step{number}"


def _operation(op: pb.Op) -> dict[str, Any]:
    """An operation without its inputs, which are told beside it."""
    found: dict[str, Any] = {}
    kind = op.WhichOneof("op")
    if not kind:  # the one that names the result
        return {"Op": {}}
    found["Op"] = {kind: _plain(getattr(op, kind))}
    if op.HasField("platform"):
        found["platform"] = _plain(op.platform)
    if op.HasField("constraints"):
        found["constraints"] = _plain(op.constraints)
    if kind == "source":
        attrs = found["Op"][kind].get("attrs", {})
        for name in _OF_SESSIONS:
            attrs.pop(name, None)
        attrs.update((name, without_password(attrs[name])) for name in _ADDRESSES if name in attrs)
        found["Op"][kind]["identifier"] = without_password(op.source.identifier)
    return found


def _plain(value: Any) -> Any:
    """A value as Go's JSON has it: fields that are not set are left out, choices have a level of their own."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, pb.FileAction):
        kind = value.WhichOneof("action")
        numbers = {name: getattr(value, name) for name in ("input", "secondaryInput", "output")}
        return {"Action": {kind: _plain(getattr(value, kind))} if kind else None, **numbers}
    if isinstance(value, pb.UserOpt):
        kind = value.WhichOneof("user")
        return {"User": {kind if kind == "byName" else "byId": _plain(getattr(value, kind))} if kind else None}
    if isinstance(value, Message):
        return {field.name: _plain(one) for field, one in value.ListFields()}
    if isinstance(value, str | int | float):
        return value
    if hasattr(value, "items"):
        return {str(key): _plain(value[key]) for key in sorted(value)}
    return [_plain(one) for one in value]
