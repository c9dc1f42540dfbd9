"""The one worker of a daemon: its labels, platforms and rules of collection, as clients list them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ketch.build.llb import ops_pb2
from ketch.buildkit.control import filters
from ketch.buildkit.services.control import ControlService
from ketch.buildkit.wire.control.control_pb2 import InfoRequest, InfoResponse, ListWorkersRequest, ListWorkersResponse
from ketch.buildkit.wire.control.worker_pb2 import BuildkitVersion, GCPolicy, WorkerRecord
from ketch.engine.build.command import emulation
from ketch.rpc.server import unary

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ketch.build.cache.pruning.policy import PruneOptions
    from ketch.engine.engine import Engine
    from ketch.oci.manifest import Platform
    from ketch.rpc.server import Handlers

# Clients decide by the version what they may ask for: it is that of the BuildKit whose protocol this is.
_PACKAGE, _VERSION = "github.com/moby/buildkit", "v0.25.2+ketch"
_LABELS = "org.mobyproject.buildkit.worker."


def handlers(engine: Engine) -> Handlers:
    """The handlers of what is asked about the builder itself."""

    async def info(_request: InfoRequest, _metadata: Mapping[str, Sequence[str]]) -> InfoResponse:
        return InfoResponse(buildkitVersion=version())

    async def list_workers(request: ListWorkersRequest, _: Mapping[str, Sequence[str]]) -> ListWorkersResponse:
        wanted = filters.parse(request.filter, "worker")
        record = worker(engine)
        fields = {"id": record.ID, **{f"labels.{name}": value for name, value in record.Labels.items()}}
        return ListWorkersResponse(record=[record] if wanted(fields) else [])

    return {
        ControlService.Info.path: (ControlService.Info, unary(info)),
        ControlService.ListWorkers.path: (ControlService.ListWorkers, unary(list_workers)),
    }


def version() -> BuildkitVersion:
    """The builder's version."""
    return BuildkitVersion(package=_PACKAGE, version=_VERSION)


def worker(engine: Engine) -> WorkerRecord:
    """The worker's record."""
    labels = {
        "executor": "containerd",
        "hostname": os.uname().nodename,
        "moby.host-gateway-ip": next(iter(engine.parts.host_gateway()), _bridge_address(engine)),
        "network": "host",
        "snapshotter": "overlayfs",
    }
    policies: Any = [_policy(rule) for rule in engine.builds.rules]  # the stub takes the field for its type
    return WorkerRecord(
        ID=engine.parts.engine_id,
        Labels={_LABELS + name: value for name, value in labels.items() if value},
        platforms=[_platform(one) for one in emulation.runnable()],
        GCPolicy=policies,
        BuildkitVersion=version(),
    )


def _bridge_address(engine: Engine) -> str:
    """The host's address in the default network, which clients put in the place of ``host-gateway``."""
    default = next((network for network in engine.parts.network.list() if network.is_default), None)
    pool = default.pool(4) if default is not None else None
    return pool.gateway if pool is not None else ""


def _platform(platform: Platform) -> ops_pb2.Platform:
    return ops_pb2.Platform(OS=platform.os, Architecture=platform.architecture, Variant=platform.variant or "")


def _policy(rule: PruneOptions) -> GCPolicy:
    kinds = ",".join(f"type=={kind}" for kind in rule.kinds)
    fields = [f"{name}=={value}" if value else name for name, value in rule.fields.items()]
    return GCPolicy(
        all=rule.everything,
        keepDuration=rule.keep_ns,
        filters=[*([kinds] if kinds else []), *fields],
        reservedSpace=rule.reserved_space,
        maxUsedSpace=rule.max_used_space,
        minFreeSpace=rule.min_free_space,
    )
