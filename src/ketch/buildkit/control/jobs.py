"""Builds that clients have asked for, by their refs: their progress, for whoever asks, also before they begin."""

from __future__ import annotations

import asyncio
import zlib
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import msgspec

from ketch.build.progress import LogLine, SolveStatus
from ketch.buildkit.control.statuses import responses, responses_of_log
from ketch.buildkit.services.control import ControlService
from ketch.engine.build.run.waiting import WaitingItems
from ketch.errors import AlreadyExists, NotFound
from ketch.rpc.status import Code, RpcError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from ketch.buildkit.wire.control import control_pb2 as pb
    from ketch.engine.build.service import BuildService
    from ketch.rpc.server import Handlers, ServerCall

_ROOM = 2 << 20  # bytes of output that are kept for those who ask later, and for the history; then only the steps are
_WAIT_S = 6.0  # for a build that is asked for first and begun then
_KEPT_S = 10.0  # after its end, for a question that comes late
_LEFT_OUT = b"[output is left out here: the client did not read it]\n"


class BuildJob:
    """One build; from the event loop only."""

    def __init__(self, ref: str) -> None:
        self.ref = ref
        self._kept: list[SolveStatus] = []
        self._size = 0
        self._followers: set[WaitingItems[SolveStatus | None]] = set()
        self.ended = False

    def status(self, status: SolveStatus) -> None:
        """Hear of a change."""
        size = _size_of(status)
        if self._size <= _ROOM:
            self._kept.append(status)
            self._size += size
        elif status.vertexes:
            self._kept.append(SolveStatus(vertexes=status.vertexes))
        for follower in self._followers:
            told = status
            if follower.full and (status.logs or status.warnings):
                first = [LogLine(vertex=one.vertex, data=_LEFT_OUT, timestamp=one.timestamp) for one in status.logs[:1]]
                told = msgspec.structs.replace(status, logs=first, warnings=[])
            follower.put(told, size)

    def end(self) -> None:
        """Tell that nothing more comes."""
        self.ended = True
        for follower in self._followers:
            follower.put(None)

    async def follow(self) -> AsyncGenerator[SolveStatus, None]:
        """All changes, from the beginning to the end."""
        follower: WaitingItems[SolveStatus | None] = WaitingItems()
        for kept in self._kept:
            follower.put(kept)
        if self.ended:
            follower.put(None)
        self._followers.add(follower)
        try:
            while (status := await follower.get()) is not None:
                yield status
        finally:
            self._followers.discard(follower)

    def packed(self) -> bytes:
        """The changes that the history keeps."""
        lines = []
        for status in self._kept:
            with suppress(UnicodeEncodeError):  # a name that is no text, which no message could have
                lines.append(msgspec.json.encode(status) + b"\n")
        return zlib.compress(b"".join(lines), 1)


class BuildJobs:
    """The builds that run, and for some seconds those that have ended."""

    def __init__(self) -> None:
        self._jobs: dict[str, BuildJob] = {}
        self._waiting: dict[str, list[asyncio.Future[BuildJob]]] = {}

    @asynccontextmanager
    async def begin(self, ref: str) -> AsyncIterator[BuildJob]:
        """A build as long as the context lasts (AlreadyExists: one of this ref runs)."""
        known = self._jobs.get(ref)
        if known is not None and not known.ended:
            raise AlreadyExists(f"job ID {ref} exists", hint="give each build a ref of its own")
        job = self._jobs[ref] = BuildJob(ref)
        for waiter in self._waiting.pop(ref, ()):
            if not waiter.done():
                waiter.set_result(job)
        try:
            yield job
        finally:
            job.end()
            asyncio.get_running_loop().call_later(_KEPT_S, self._forget, job)

    def find(self, ref: str) -> BuildJob | None:
        """A build that runs, or has just ended."""
        return self._jobs.get(ref)

    async def get(self, ref: str, wait_s: float = _WAIT_S) -> BuildJob:
        """The same, or one that begins within some seconds (NotFound)."""
        if ref in self._jobs:
            return self._jobs[ref]
        waiter: asyncio.Future[BuildJob] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(ref, []).append(waiter)
        try:
            return await asyncio.wait_for(waiter, wait_s)
        except TimeoutError:
            raise NotFound(f"no such job {ref}") from None
        finally:
            if (waiting := self._waiting.get(ref)) is not None:
                waiting.remove(waiter)
                if not waiting:
                    del self._waiting[ref]

    def _forget(self, job: BuildJob) -> None:
        if self._jobs.get(job.ref) is job:
            del self._jobs[job.ref]


def handlers(jobs: BuildJobs, builds: BuildService) -> Handlers:
    """The handler of questions about progress: of builds that run, and of those in the history."""

    async def status(call: ServerCall[pb.StatusRequest, pb.StatusResponse]) -> None:
        request = await call.receive()
        if request is None or not request.Ref:
            raise RpcError(Code.INVALID_ARGUMENT, "the progress of which build? the ref is missing")
        call.begin()
        if jobs.find(request.Ref) is None and (lines := await _remembered(builds, request.Ref)) is not None:
            for response in responses_of_log(lines):
                await call.send(response)
            return
        job = await jobs.get(request.Ref)
        async for change in job.follow():
            for response in responses(change):
                await call.send(response)

    return {ControlService.Status.path: (ControlService.Status, status)}


async def _remembered(builds: BuildService, ref: str) -> list[bytes] | None:
    try:
        return await asyncio.to_thread(builds.logged, ref)
    except NotFound:
        return None


def _size_of(status: SolveStatus) -> int:
    """About as many bytes as it takes."""
    size = 100 + sum(len(line.data) for line in status.logs)
    if status.warnings:
        size += len(msgspec.json.encode(status.warnings))
    size += sum(200 + len(one.name) + len(one.error) for one in status.vertexes)
    return size + sum(200 + len(one.id) + len(one.name) for one in status.statuses)
