"""Errors of builds as BuildKit's clients are told them: with the step that failed and the lines that it comes from."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import msgspec
from google.protobuf import json_format
from google.protobuf.any_pb2 import Any as Detail

from ketch.build.dockerfile.errors import DockerfileError
from ketch.build.errors import CommandFailed, SolveError
from ketch.buildkit.gateway.served import ReturnedError
from ketch.buildkit.wire.errors import errdefs_pb2
from ketch.engine.build.frontends.errors import PlacedError, UnsupportedCapability, UnsupportedSubrequest
from ketch.errors import KetchError
from ketch.rpc.status import Code, RpcError

if TYPE_CHECKING:
    from ketch.build.llb import ops_pb2 as pb
    from ketch.buildkit.gateway.served import GatewayBuild, LeftMounts
    from ketch.engine.build.frontends.errors import SourcePlace

_ERRDEFS = "github.com/moby/buildkit/errdefs."
EXIT = "github.com/moby/buildkit/gatewayapi.ExitMessage"


async def told_in(build: GatewayBuild, error: KetchError) -> RpcError:
    """The status of an error for the front end of a build, which may look at what a failed command left."""
    cause: BaseException | None = error
    while isinstance(cause, PlacedError | SolveError):
        cause = cause.cause
    return told(error, await build.keep_left(cause.mounts if isinstance(cause, CommandFailed) else ()))


def told(error: KetchError, left: LeftMounts | None = None) -> RpcError:
    """The status of an error, with details for programs: buildx shows the lines, and debuggers begin with ``left``.

    As with BuildKit, errors have no code: clients show one in front of the message.  What to do is said in a line
    below it.
    """
    if isinstance(error, ReturnedError):
        code = Code(error.code) if error.code in Code.__members__.values() else Code.UNKNOWN
        return RpcError(code, error.message, [one for one in error.details if isinstance(one, Detail)])
    if isinstance(error, RpcError):
        return error
    details: list[Detail] = []
    cause: BaseException | None = error
    while isinstance(cause, KetchError):
        if isinstance(cause, PlacedError):
            if left is not None and cause.op is not None:
                details.append(_step(cause.op, left))
            details += [_detail(f"{_ERRDEFS}Source", _source(place)) for place in cause.places]
        elif isinstance(cause, SolveError):
            details.append(_detail(f"{_ERRDEFS}Vertex", {"digest": cause.vertex}))
        elif isinstance(cause, CommandFailed):
            details.append(_detail(EXIT, {"Code": cause.exit_code}))
        elif isinstance(cause, DockerfileError):
            details.insert(0, _detail(f"{_ERRDEFS}Frontend", {"name": "dockerfile.v0"}))
        elif isinstance(cause, UnsupportedCapability):
            details.append(_detail(f"{_ERRDEFS}FrontendCap", {"name": cause.name}))
        elif isinstance(cause, UnsupportedSubrequest):
            details.append(_detail(f"{_ERRDEFS}Subrequest", {"name": cause.name}))
        cause = cause.cause if isinstance(cause, PlacedError | SolveError) else cause.__cause__
    message = f"{error.message}\n  {error.hint}" if error.hint else error.message
    return RpcError(Code.UNKNOWN, message, details)


def _detail(name: str, value: dict[str, Any]) -> Detail:
    """A message in JSON, as BuildKit's own errors carry it."""
    return Detail(type_url=f"{name}+json", value=msgspec.json.encode(value))


def _step(op: pb.Op, left: LeftMounts) -> Detail:
    """The failed step itself, in protobuf's JSON: its operation's digest is the same when the client encodes it."""
    step = errdefs_pb2.Solve(inputIDs=left.before, mountIDs=left.after, op=op)
    text = json_format.MessageToJson(step, indent=None)
    return Detail(type_url=f"{_ERRDEFS}Solve+json", value=text.encode())


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
