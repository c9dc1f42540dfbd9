"""Errors of builds as BuildKit's clients are told them: with the step that failed and the lines that it comes from."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import msgspec
from google.protobuf.any_pb2 import Any as Detail

from ketch.build.dockerfile.errors import DockerfileError
from ketch.build.errors import CommandFailed, SolveError
from ketch.buildkit.gateway.served import ReturnedError
from ketch.engine.build.frontends.errors import PlacedError, UnsupportedCapability, UnsupportedSubrequest
from ketch.errors import KetchError
from ketch.rpc.status import Code, RpcError, as_rpc_error

if TYPE_CHECKING:
    from ketch.build.llb import ops_pb2 as pb
    from ketch.engine.build.frontends.errors import SourcePlace

_ERRDEFS = "github.com/moby/buildkit/errdefs."
_EXIT = "github.com/moby/buildkit/gatewayapi.ExitMessage"


def told(error: KetchError) -> RpcError:
    """The status of an error, with details for programs: buildx shows the lines.

    As with BuildKit, most errors have no code of their own: clients show one in front of the message.
    """
    if isinstance(error, ReturnedError):
        return RpcError(Code(error.code), error.message, [one for one in error.details if isinstance(one, Detail)])
    found = as_rpc_error(error)
    coded = isinstance(error, RpcError | UnsupportedCapability | UnsupportedSubrequest)
    code, details = found.code if coded else Code.UNKNOWN, list(found.details)
    cause: BaseException | None = error
    while isinstance(cause, KetchError):
        if isinstance(cause, PlacedError):
            details += [_detail(f"{_ERRDEFS}Source", _source(place)) for place in cause.places]
        elif isinstance(cause, SolveError):
            details.append(_detail(f"{_ERRDEFS}Vertex", {"digest": cause.vertex}))
        elif isinstance(cause, CommandFailed):
            details.append(_detail(_EXIT, {"Code": cause.exit_code}))
        elif isinstance(cause, DockerfileError):
            details.insert(0, _detail(f"{_ERRDEFS}Frontend", {"name": "dockerfile.v0"}))
        elif isinstance(cause, UnsupportedCapability):
            details.append(_detail(f"{_ERRDEFS}FrontendCap", {"name": cause.name}))
        elif isinstance(cause, UnsupportedSubrequest):
            details.append(_detail(f"{_ERRDEFS}Subrequest", {"name": cause.name}))
        cause = cause.cause if isinstance(cause, PlacedError | SolveError) else cause.__cause__
    return RpcError(code, found.message, details)


def _detail(name: str, value: dict[str, Any]) -> Detail:
    """A message in JSON, as BuildKit's own errors carry it."""
    return Detail(type_url=f"{name}+json", value=msgspec.json.encode(value))


def _source(place: SourcePlace) -> dict[str, Any]:
    info = {
        "filename": place.info.filename,
        "data": base64.b64encode(place.info.data).decode("ascii"),
        "language": place.info.language,
    }
    return {
        "info": info,
        "ranges": [{"start": _position(one.start), "end": _position(one.end)} for one in place.ranges],
    }


def _position(one: pb.Position) -> dict[str, int]:
    return {"line": one.line, "character": one.character} if one.character else {"line": one.line}
