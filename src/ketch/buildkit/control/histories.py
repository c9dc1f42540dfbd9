"""The history of builds, as BuildKit's clients read and change it."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from ketch.buildkit.control import history_filters
from ketch.buildkit.control.timestamps import timestamp
from ketch.buildkit.gateway.failures import told
from ketch.buildkit.services.control import ControlService
from ketch.buildkit.wire.control import control_pb2 as pb
from ketch.engine.build.history import CANCELED
from ketch.engine.model.building.records import RecordedBlob
from ketch.errors import KetchError, NotFound
from ketch.oci.attestation import PREDICATE_TYPE
from ketch.rpc.server import unary
from ketch.rpc.status import Code, RpcError
from ketch.rpc.wire.status_pb2 import Status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from ketch.build.attest.provenance import Provenance
    from ketch.buildkit.control.contents import BuildContents
    from ketch.buildkit.control.jobs import BuildJob
    from ketch.engine.build.history import BuildHistory
    from ketch.engine.model.building.records import BuildRecord
    from ketch.oci import manifest as oci
    from ketch.rpc.server import Handlers, ServerCall

_STATUS = "application/vnd.googeapis.google.rpc.status+proto"  # BuildKit's name of it, as it is written there
_STATEMENT = "application/vnd.in-toto+json"
_WAITING = 1000  # changes for a listener
_OF_THE_MOMENT = ("stack.Stack", "errdefs.Solve")  # in the types of details


@asynccontextmanager
async def recorded(history: BuildHistory, job: BuildJob, record: BuildRecord) -> AsyncIterator[BuildRecord]:
    """A build in the history: begun, and how it ended, with what ``job`` has kept of it.

    Who makes the build fills in the record, its steps and what came of it.
    """
    await history.begun(record)
    record.status, record.error = "canceled", CANCELED
    try:
        yield record
        record.status, record.error = "completed", ""
    except KetchError as e:
        record.status, record.error = "error", e.message
        record.failure = await asyncio.to_thread(history.keep, record.ref, _STATUS, _status(told(e)))
        raise
    except Exception as e:
        record.status, record.error = "error", f"{type(e).__name__}: {e}"
        raise
    finally:
        record.completed = time.time_ns()
        log = job.packed()
        await history.ended(record, lambda: log)


def note_provenance(history: BuildHistory, record: BuildRecord, provenances: Sequence[Provenance]) -> None:
    """Keep how the products of a build came about with its record.  Blocking."""
    for one in provenances:
        found = one.attestation(time.time_ns(), {})
        notes = {PREDICATE_TYPE: found.predicate_type}
        record.attestations.append(history.keep(record.ref, _STATEMENT, found.predicate, notes))


def note_result(record: BuildRecord, descriptor: oci.Descriptor) -> None:
    """Note the manifest or the index that a build made."""
    record.results.append(
        RecordedBlob(
            media_type=descriptor.media_type,
            digest=descriptor.digest,
            size=descriptor.size,
            annotations=descriptor.annotations or {},
        )
    )


class _Changes:
    """Changes that wait for a listener; one that does not read misses the later ones, and is told so."""

    def __init__(self) -> None:
        self._items: asyncio.Queue[tuple[str, BuildRecord]] = asyncio.Queue(_WAITING)
        self._missed = False

    def put(self, kind: str, record: BuildRecord) -> None:
        """Append a change."""
        self._missed = self._missed or self._items.full()
        if not self._missed:
            self._items.put_nowait((kind, record))

    async def get(self) -> tuple[str, BuildRecord]:
        """The next change (RpcError: it was missed)."""
        if self._missed and self._items.empty():
            raise RpcError(Code.RESOURCE_EXHAUSTED, f"more than {_WAITING} changes of the history waited to be read")
        return await self._items.get()


def handlers(history: BuildHistory, contents: BuildContents) -> Handlers:
    """The handlers of what is asked about the history; ``contents`` has the blobs that records name."""

    async def listen(call: ServerCall[pb.BuildHistoryRequest, pb.BuildHistoryEvent]) -> None:
        request = await call.receive() or pb.BuildHistoryRequest()
        wanted, logs = history_filters.parse(request.Filter), bool(request.Ref)
        loop = asyncio.get_running_loop()
        changes = _Changes()

        def heard(kind: str, record: BuildRecord) -> None:
            loop.call_soon_threadsafe(changes.put, kind, record)

        with history.heard_by(heard):
            call.begin()
            for record in await asyncio.to_thread(_chosen, history, request, wanted):
                await call.send(await asyncio.to_thread(_told, contents, record, logs=logs))
            while not request.EarlyExit:
                kind, record = await changes.get()
                if request.Ref in ("", record.ref) and wanted(record):
                    gone = kind == "deleted"
                    await call.send(await asyncio.to_thread(_told, contents, record, logs=logs, deleted=gone))

    async def update(
        request: pb.UpdateBuildHistoryRequest, _metadata: Mapping[str, Sequence[str]]
    ) -> pb.UpdateBuildHistoryResponse:
        await asyncio.to_thread(_update, history, request)
        return pb.UpdateBuildHistoryResponse()

    return {
        ControlService.ListenBuildHistory.path: (ControlService.ListenBuildHistory, listen),
        ControlService.UpdateBuildHistory.path: (ControlService.UpdateBuildHistory, unary(update)),
    }


def _told(contents: BuildContents, record: BuildRecord, *, logs: bool, deleted: bool = False) -> pb.BuildHistoryEvent:
    """A record as an event, with those results that are still there.  Blocking."""
    event = _event(record, deleted=deleted)
    for one in record.results:
        if contents.exists(one.digest):
            result = event.record.Result
            result.Results[len(result.Results)].CopyFrom(_descriptor(one))
            if len(result.Results) == 1:
                result.ResultDeprecated.CopyFrom(_descriptor(one))
    if logs and (found := contents.log(record.ref)) is not None:
        event.record.logs.CopyFrom(found)  # as a rule a list needs none, and each takes a while
    return event


def _chosen(
    history: BuildHistory, request: pb.BuildHistoryRequest, wanted: Callable[[BuildRecord], bool]
) -> list[BuildRecord]:
    """The records of a request, oldest first; of a limit those that are newest.  Blocking."""
    found = [record for record in history.all() if request.Ref in ("", record.ref) and wanted(record)]
    if request.ActiveOnly:
        found = [record for record in found if record.status == "running"]
    return list(reversed(found[: request.Limit] if request.Limit > 0 else found))


def _update(history: BuildHistory, request: pb.UpdateBuildHistoryRequest) -> None:
    """Change the history.  Blocking."""
    if request.Delete:
        history.remove(_exact(history, request.Ref).ref)
    elif not request.Finalize:  # what a record consists of is there when its build ends
        record = _exact(history, request.Ref)
        record.pinned = request.Pinned
        history.write(record)


def _exact(history: BuildHistory, ref: str) -> BuildRecord:
    record = history.get(ref)
    if record.ref != ref:
        raise NotFound(f"no build has the ref {ref}")
    return record


def _event(record: BuildRecord, *, deleted: bool = False) -> pb.BuildHistoryEvent:
    kind = pb.STARTED if record.status == "running" else pb.COMPLETE
    return pb.BuildHistoryEvent(type=pb.DELETED if deleted else kind, record=_message(record))


def _message(record: BuildRecord) -> pb.BuildHistoryRecord:
    ended = record.completed
    if not ended and record.status != "running":
        ended = record.created  # when the daemon died is not known, and without an end clients take it for running
    attributes = dict(record.attributes)
    if not attributes:  # a build of another protocol: what clients make its name of
        attributes = {"context": record.context, "filename": record.dockerfile, "target": record.target}
    found = pb.BuildHistoryRecord(
        Ref=record.ref,
        Frontend=record.frontend or "dockerfile.v0",
        FrontendAttrs={name: value for name, value in attributes.items() if value},
        Exporters=[pb.Exporter(Type=one.kind, Attrs=one.attributes) for one in record.exporters],
        error=_error(record),
        CreatedAt=timestamp(record.created),
        CompletedAt=timestamp(ended),
        ExporterResponse=record.response,
        pinned=record.pinned,
        numCachedSteps=record.cached_steps,
        numTotalSteps=record.total_steps,
        numCompletedSteps=record.completed_steps,
        numWarnings=record.warnings,
    )
    if record.attestations:
        found.Result.Attestations.extend(map(_descriptor, record.attestations))
    if record.failure is not None:
        found.externalError.CopyFrom(_descriptor(record.failure))
    return found


def _descriptor(blob: RecordedBlob) -> pb.Descriptor:
    return pb.Descriptor(media_type=blob.media_type, digest=blob.digest, size=blob.size, annotations=blob.annotations)


def _status(error: RpcError) -> bytes:
    """An error as it is kept: without the stacks of programs, which have their command lines in them, and the step.

    What a step's operation is serves debuggers, as long as the build is there.
    """
    details = [one for one in error.details if not any(kind in one.type_url for kind in _OF_THE_MOMENT)]
    return Status(code=error.code, message=error.message, details=details).SerializeToString()


def _error(record: BuildRecord) -> Status | None:
    if record.status not in ("error", "canceled"):
        return None
    code = Code.CANCELLED if record.status == "canceled" else Code.UNKNOWN
    return Status(code=code, message=record.error)
