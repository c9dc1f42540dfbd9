"""Methods of builders."""

from __future__ import annotations

from typing import ClassVar

from ketch.buildkit.wire.control import control_pb2
from ketch.rpc.method import Method, Service


class ControlService(Service, of=control_pb2.DESCRIPTOR.services_by_name["Control"]):
    """moby.buildkit.v1.Control."""

    DiskUsage: ClassVar[Method[control_pb2.DiskUsageRequest, control_pb2.DiskUsageResponse]]
    Prune: ClassVar[Method[control_pb2.PruneRequest, control_pb2.UsageRecord]]
    Solve: ClassVar[Method[control_pb2.SolveRequest, control_pb2.SolveResponse]]
    Status: ClassVar[Method[control_pb2.StatusRequest, control_pb2.StatusResponse]]
    Session: ClassVar[Method[control_pb2.BytesMessage, control_pb2.BytesMessage]]
    ListWorkers: ClassVar[Method[control_pb2.ListWorkersRequest, control_pb2.ListWorkersResponse]]
    Info: ClassVar[Method[control_pb2.InfoRequest, control_pb2.InfoResponse]]
    ListenBuildHistory: ClassVar[Method[control_pb2.BuildHistoryRequest, control_pb2.BuildHistoryEvent]]
    UpdateBuildHistory: ClassVar[Method[control_pb2.UpdateBuildHistoryRequest, control_pb2.UpdateBuildHistoryResponse]]
