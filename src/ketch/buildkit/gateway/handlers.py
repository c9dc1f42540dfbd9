"""LLBBridge: what front ends elsewhere ask of the builder, from the client or from a container."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ketch.build.progress import VertexWarning
from ketch.buildkit.gateway import capabilities, containers, processes, sources, stats
from ketch.buildkit.gateway.failures import told_in
from ketch.buildkit.gateway.policies import policies_of
from ketch.buildkit.services.gateway import LLBBridgeService
from ketch.buildkit.wire.gateway import gateway_pb2 as pb
from ketch.engine.build.frontends.bridge import FrontendRequest
from ketch.engine.model.building.builds import CachePlace
from ketch.errors import InvalidArgument, KetchError
from ketch.rpc.server import unary

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from typing import Any

    from ketch.build.llb import ops_pb2
    from ketch.buildkit.gateway.served import GatewayBuild
    from ketch.engine.build.frontends.results import Ref
    from ketch.rpc.method import Method
    from ketch.rpc.server import Handler, Handlers

    Metadata = Mapping[str, Sequence[str]]
    Find = Callable[[Metadata], Awaitable[GatewayBuild]]


def handlers(find: Find) -> Handlers:
    """The handlers of LLBBridge's calls; ``find`` gives the build that a call is of (KetchError: there is none)."""

    def of(method: Method[Any, Any], answer: Callable[[GatewayBuild, Any], Awaitable[Any]]) -> tuple[Any, Handler]:
        async def answered(request: Any, metadata: Metadata) -> Any:
            build = await find(metadata)
            try:
                return await answer(build, request)
            except KetchError as e:
                raise await told_in(build, e) from e

        return method, unary(answered)

    def of_container(
        method: Method[Any, Any], answer: Callable[[GatewayBuild, Any], Awaitable[Any]]
    ) -> tuple[Any, Handler]:
        async def answered(request: Any, metadata: Metadata) -> Any:
            return await answer(await find(metadata), request)  # these errors have codes

        return method, unary(answered)

    async def hold(call: Any) -> None:
        await processes.serve(await find(call.metadata), call)

    found: dict[Method[Any, Any], Callable[[GatewayBuild, Any], Awaitable[Any]]] = {
        LLBBridgeService.Ping: _ping,
        LLBBridgeService.Solve: _solve,
        LLBBridgeService.ResolveImageConfig: sources.resolve_image,
        LLBBridgeService.ResolveSourceMeta: sources.resolve_source,
        LLBBridgeService.ReadFile: _read_file,
        LLBBridgeService.ReadDir: _read_directory,
        LLBBridgeService.StatFile: _status,
        LLBBridgeService.Evaluate: _evaluate,
        LLBBridgeService.Inputs: _inputs,
        LLBBridgeService.Warn: _warn,
        LLBBridgeService.Return: _return,
    }
    of_containers: dict[Method[Any, Any], Callable[[GatewayBuild, Any], Awaitable[Any]]] = {
        LLBBridgeService.NewContainer: containers.new,
        LLBBridgeService.ReleaseContainer: containers.release,
        LLBBridgeService.ReadFileContainer: containers.read_file,
        LLBBridgeService.ReadDirContainer: containers.read_directory,
        LLBBridgeService.StatFileContainer: containers.status,
    }
    return {
        **{method.path: of(method, answer) for method, answer in found.items()},
        **{method.path: of_container(method, answer) for method, answer in of_containers.items()},
        LLBBridgeService.ExecProcess.path: (LLBBridgeService.ExecProcess, hold),
    }


async def _ping(build: GatewayBuild, _request: pb.PingRequest) -> pb.PongResponse:
    return pb.PongResponse(
        FrontendAPICaps=capabilities.of_frontends(), LLBCaps=capabilities.of_graphs(), Workers=build.workers
    )


async def _solve(build: GatewayBuild, request: pb.SolveRequest) -> pb.SolveResponse:
    bridge = build.bridge
    for one in policies_of(request.SourcePolicies):
        if one not in bridge.policies:
            bridge.policies.append(one)
    wanted = FrontendRequest(
        frontend=request.Frontend,
        attrs=dict(request.FrontendOpt),
        definition=request.Definition if request.HasField("Definition") else None,
        inputs=dict(request.FrontendInputs),
        evaluate=request.Evaluate,
        caches=[CachePlace(kind=one.Type, attrs=dict(one.Attrs)) for one in request.CacheImports],
    )
    result = await bridge.solve(wanted)
    if not request.allowResultReturn:
        ref = next(iter(result.refs.values()), None)
        return pb.SolveResponse(ref=build.keep(ref) if ref is not None and ref.edge is not None else "")
    return pb.SolveResponse(result=build.message_of(result))


# -- files -----------------------------------------------------------------------------------------


def _asked(build: GatewayBuild, id: str) -> Ref:
    found = build.ref(id)
    if found is None:
        raise InvalidArgument("no ref: an empty result has no files")
    return found


async def _read_file(build: GatewayBuild, request: pb.ReadFileRequest) -> pb.ReadFileResponse:
    part = request.Range
    data = await build.bridge.read_file(_asked(build, request.Ref), request.FilePath, part.Offset, part.Length)
    return pb.ReadFileResponse(Data=data)


async def _read_directory(build: GatewayBuild, request: pb.ReadDirRequest) -> pb.ReadDirResponse:
    ref = _asked(build, request.Ref)
    found = await build.bridge.read_directory(ref, request.DirPath, request.IncludePattern)
    return pb.ReadDirResponse(entries=[stats.of(one) for one in found])


async def _status(build: GatewayBuild, request: pb.StatFileRequest) -> pb.StatFileResponse:
    return pb.StatFileResponse(stat=stats.of(await build.bridge.status(_asked(build, request.Ref), request.Path)))


async def _evaluate(build: GatewayBuild, request: pb.EvaluateRequest) -> pb.EvaluateResponse:
    ref = build.ref(request.Ref)
    if ref is not None:
        await ref.tree()
    return pb.EvaluateResponse()


# -- the rest --------------------------------------------------------------------------------------


async def _inputs(build: GatewayBuild, _request: pb.InputsRequest) -> pb.InputsResponse:
    return pb.InputsResponse(Definitions=build.inputs)


async def _warn(build: GatewayBuild, request: pb.WarnRequest) -> pb.WarnResponse:
    info = request.info if request.HasField("info") else None
    build.bridge.warn(
        VertexWarning(
            vertex=request.digest,
            level=request.level,
            short=request.short,
            detail=list(request.detail),
            url=request.url,
            source_info={"filename": info.filename, "data": info.data, "language": info.language} if info else None,
            range=[_range(one) for one in request.ranges] or None,
        )
    )
    return pb.WarnResponse()


def _range(one: ops_pb2.Range) -> dict[str, dict[str, int]]:
    return {name: {"line": at.line, "character": at.character} for name, at in (("start", one.start), ("end", one.end))}


async def _return(build: GatewayBuild, request: pb.ReturnRequest) -> pb.ReturnResponse:
    build.returns(request)
    return pb.ReturnResponse()
