"""The build cache, as BuildKit's clients list and prune it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ketch.buildkit.control import filters
from ketch.buildkit.control.timestamps import timestamp
from ketch.buildkit.services.control import ControlService
from ketch.buildkit.wire.control.control_pb2 import DiskUsageRequest, DiskUsageResponse, PruneRequest, UsageRecord
from ketch.engine.model.building.builds import CachePrune
from ketch.rpc.server import unary

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ketch.build.cache.pruning.usage import UsageRow
    from ketch.engine.build.service import BuildService
    from ketch.rpc.server import Handlers, ServerCall


def handlers(builds: BuildService) -> Handlers:
    """The handlers of what is asked about the cache."""

    async def disk_usage(request: DiskUsageRequest, _metadata: Mapping[str, Sequence[str]]) -> DiskUsageResponse:
        wanted = filters.parse(request.filter, "diskusage")
        rows = await builds.usage()
        return DiskUsageResponse(record=[_record(row) for row in rows if wanted(_fields(row))])

    async def prune(call: ServerCall[PruneRequest, UsageRecord]) -> None:
        request = await call.receive() or PruneRequest()
        wanted = filters.parse(request.filter, "prune")
        options = CachePrune(
            everything=request.all,
            keep_ns=max(request.keepDuration, 0),
            reserved=max(request.reservedSpace, 0),
            max_used=max(request.maxUsedSpace, 0),
            min_free=max(request.minFreeSpace, 0),
        )
        done = await builds.prune(options, lambda row: wanted(_fields(row)))
        for row in done.rows:
            await call.send(_record(row))

    return {
        ControlService.DiskUsage.path: (ControlService.DiskUsage, unary(disk_usage)),
        ControlService.Prune.path: (ControlService.Prune, prune),
    }


def _record(row: UsageRow) -> UsageRecord:
    return UsageRecord(
        ID=row.id,
        Mutable=row.mutable,
        InUse=row.in_use,
        Size=row.size,
        CreatedAt=timestamp(row.created),
        LastUsedAt=timestamp(row.last_used),
        UsageCount=row.usage_count,
        Description=row.description,
        RecordType=row.kind,
        Shared=row.shared,
        Parents=row.parents,
    )


def _fields(row: UsageRow) -> dict[str, str]:
    """The fields that filters name; one that is empty, or false, is not there."""
    fields = {
        "id": row.id,
        "parents": ";".join(row.parents),
        "description": row.description,
        "type": row.kind,
    }
    flags = {
        "inuse": row.in_use,
        "mutable": row.mutable,
        "immutable": not row.mutable,
        "shared": row.shared,
        "private": not row.shared,
    }
    return {name: value for name, value in fields.items() if value} | {
        name: "" for name, is_so in flags.items() if is_so
    }
