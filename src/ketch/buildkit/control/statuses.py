"""Progress of builds as messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from google.protobuf.json_format import ParseDict
from google.protobuf.timestamp_pb2 import Timestamp

from ketch.build.llb import ops_pb2
from ketch.build.progress import SolveStatus
from ketch.buildkit.wire.control import control_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from google.protobuf.message import Message

    from ketch.build.progress import LogLine, VertexState, VertexStatus, VertexWarning

_ROOM = 4 << 20  # bytes of one message; peers take 16 MiB
_decode = msgspec.json.Decoder(SolveStatus).decode


def responses(status: SolveStatus) -> Iterator[pb.StatusResponse]:
    """A change as messages: one, unless the output of commands is too long for it."""
    rest = list(status.logs)
    logs = _taken(rest)
    yield pb.StatusResponse(
        vertexes=[_vertex(one) for one in status.vertexes],
        statuses=[_status(one) for one in status.statuses],
        logs=[_log(one) for one in logs],
        warnings=[_warning(one) for one in status.warnings],
    )
    while rest:
        yield pb.StatusResponse(logs=[_log(one) for one in _taken(rest)])


def responses_of_log(lines: Sequence[bytes]) -> Iterator[pb.StatusResponse]:
    """The kept changes of a build as messages."""
    for line in lines:
        yield from responses(_decode(line))


def _taken(logs: list[LogLine]) -> list[LogLine]:
    taken, size = 0, 0
    while taken < len(logs) and (not taken or size + len(logs[taken].data) <= _ROOM):
        size += len(logs[taken].data)
        taken += 1
    first, logs[:] = logs[:taken], logs[taken:]
    return first


def _vertex(state: VertexState) -> pb.Vertex:
    return pb.Vertex(
        digest=state.digest,
        inputs=state.inputs,
        name=_text(state.name),
        cached=state.cached,
        started=_moment(state.started),
        completed=_moment(state.completed),
        error=_text(state.error),
        progressGroup=_message(state.progress_group, ops_pb2.ProgressGroup()),
    )


def _status(status: VertexStatus) -> pb.VertexStatus:
    return pb.VertexStatus(
        ID=_text(status.id),
        vertex=status.vertex,
        name=_text(status.name),
        current=status.current,
        total=status.total,
        timestamp=_moment(status.timestamp),
        started=_moment(status.started),
        completed=_moment(status.completed),
    )


def _log(line: LogLine) -> pb.VertexLog:
    return pb.VertexLog(vertex=line.vertex, stream=line.stream, msg=line.data, timestamp=_moment(line.timestamp))


def _warning(warning: VertexWarning) -> pb.VertexWarning:
    return pb.VertexWarning(
        vertex=warning.vertex,
        level=warning.level,
        short=warning.short,
        detail=warning.detail,
        url=warning.url,
        info=_message(warning.source_info, ops_pb2.SourceInfo()),
        ranges=[ParseDict(one, ops_pb2.Range(), ignore_unknown_fields=True) for one in warning.range or ()],
    )


def _moment(text: str | None) -> Timestamp | None:
    if not text:
        return None
    moment = Timestamp()
    moment.FromJsonString(text)
    return moment


def _message(fields: dict[str, Any] | None, message: Message) -> Any:
    return ParseDict(fields, message, ignore_unknown_fields=True) if fields else None


def _text(text: str) -> str:
    """Text that a message can have: names of files need not be any."""
    return text.encode("utf-8", "replace").decode()
