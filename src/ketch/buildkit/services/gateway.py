"""Methods of the solver, for front ends."""

from __future__ import annotations

from typing import ClassVar

from ketch.buildkit.wire.gateway import gateway_pb2
from ketch.rpc.method import Method, Service


class LLBBridgeService(Service, of=gateway_pb2.DESCRIPTOR.services_by_name["LLBBridge"]):
    """moby.buildkit.v1.frontend.LLBBridge."""

    ResolveImageConfig: ClassVar[Method[gateway_pb2.ResolveImageConfigRequest, gateway_pb2.ResolveImageConfigResponse]]
    ResolveSourceMeta: ClassVar[Method[gateway_pb2.ResolveSourceMetaRequest, gateway_pb2.ResolveSourceMetaResponse]]
    Solve: ClassVar[Method[gateway_pb2.SolveRequest, gateway_pb2.SolveResponse]]
    ReadFile: ClassVar[Method[gateway_pb2.ReadFileRequest, gateway_pb2.ReadFileResponse]]
    ReadDir: ClassVar[Method[gateway_pb2.ReadDirRequest, gateway_pb2.ReadDirResponse]]
    StatFile: ClassVar[Method[gateway_pb2.StatFileRequest, gateway_pb2.StatFileResponse]]
    Evaluate: ClassVar[Method[gateway_pb2.EvaluateRequest, gateway_pb2.EvaluateResponse]]
    Ping: ClassVar[Method[gateway_pb2.PingRequest, gateway_pb2.PongResponse]]
    Return: ClassVar[Method[gateway_pb2.ReturnRequest, gateway_pb2.ReturnResponse]]
    Inputs: ClassVar[Method[gateway_pb2.InputsRequest, gateway_pb2.InputsResponse]]
    NewContainer: ClassVar[Method[gateway_pb2.NewContainerRequest, gateway_pb2.NewContainerResponse]]
    ReleaseContainer: ClassVar[Method[gateway_pb2.ReleaseContainerRequest, gateway_pb2.ReleaseContainerResponse]]
    ExecProcess: ClassVar[Method[gateway_pb2.ExecMessage, gateway_pb2.ExecMessage]]
    ReadFileContainer: ClassVar[Method[gateway_pb2.ReadFileRequest, gateway_pb2.ReadFileResponse]]
    ReadDirContainer: ClassVar[Method[gateway_pb2.ReadDirRequest, gateway_pb2.ReadDirResponse]]
    StatFileContainer: ClassVar[Method[gateway_pb2.StatFileRequest, gateway_pb2.StatFileResponse]]
    Warn: ClassVar[Method[gateway_pb2.WarnRequest, gateway_pb2.WarnResponse]]
