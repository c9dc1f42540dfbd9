"""Builds, as the API calls them: begun, cancelled, remembered; the cache they leave.

The builder itself is made when the first build begins (`factory`): what it imports is not needed before, and what
others here need for builds alone is imported in their functions.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from ketch.build.attest.addresses import without_password
from ketch.engine import os_errors
from ketch.engine.build.history import CANCELED
from ketch.engine.build.status_log import StatusLog, unpacked
from ketch.engine.model.building.records import BuildRecord
from ketch.errors import KetchError, Unavailable
from ketch.failpoints import failpoint
from ketch.storage.contexts import receive

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence

    from ketch.build.cache.pruning.keeper import CacheKeeper
    from ketch.build.cache.pruning.policy import PruneOptions
    from ketch.build.cache.pruning.usage import UsageRow
    from ketch.engine.build.builder import Builder
    from ketch.engine.build.executor import BuildExecutor
    from ketch.engine.build.history import BuildHistory
    from ketch.engine.build.run.listener import BuildListener
    from ketch.engine.build.run.run import BuildRun
    from ketch.engine.events.bus import EventBus
    from ketch.engine.model.building.builds import (
        BuildEvent,
        BuildFailure,
        BuildResult,
        CachePrune,
        CachePruned,
        ImageBuild,
    )
    from ketch.notation.api_objects import ApiObject

log = logging.getLogger(__name__)


class ServiceParts(Struct, frozen=True, kw_only=True, eq=False):
    """The parts that are there before the first build; ``root``: where contexts that came as a tar are unpacked."""

    history: BuildHistory
    keeper: CacheKeeper
    executor: BuildExecutor
    events: EventBus
    root: str


ENDING = "build: the daemon is about to end"


class BuildService:
    """All builds of one daemon."""

    def __init__(self, parts: ServiceParts, factory: Callable[[], Builder]) -> None:
        self.history, self._parts = parts.history, parts
        self._factory = factory
        self._builder: Builder | None = None
        self.frontends: dict[str, Callable[[Any, Any], Awaitable[Any]]] = {}  # of others, for the builder
        self._running: dict[asyncio.Task[Any], str] = {}
        self._closing = False

    async def build(self, request: ImageBuild, body: AsyncIterator[bytes]) -> AsyncGenerator[BuildEvent, None]:
        """Build; the last event is the result or the failure.  Closing the iterator cancels the build."""
        from ketch.engine.build.run.streams import EventListener

        listener = EventListener()
        work = _Work(self, request, listener)

        async def run() -> None:
            try:
                listener.events.put(await work.run(body))
            except KetchError as e:
                listener.events.put(work.failure(e))
            finally:
                listener.events.put(None)

        async with _running(self, request, run()) as task:
            while (event := await listener.events.get()) is not None:
                yield event
            if not await _to_its_end(task):
                yield work.failure(KetchError(CANCELED))

    async def classic(
        self, request: ImageBuild, body: AsyncIterator[bytes], *, quiet: bool
    ) -> AsyncGenerator[ApiObject, None]:
        """Build, and tell it in the lines of the old API; ``quiet``: only the image's id.

        KetchError for what is refused before the first line; what fails later is the last line.
        """
        from ketch.engine.build.run.streams import ClassicListener

        listener = ClassicListener(request)
        work = _Work(self, request, listener)
        ends: list[ApiObject] = []

        async def run() -> None:
            try:
                result = await work.run(body)
                listener.finish(result)
                ends.append({"stream": f"{result.image}\n"})
            except KetchError as e:
                items = listener.failure(e)
                if not items:
                    raise
                for item in items[:-1]:
                    listener.items.put(item)
                ends.append(items[-1])
            finally:
                listener.items.put(None)

        async with _running(self, request, run()) as task:
            kept: list[ApiObject] = []
            while (item := await listener.items.get()) is not None:
                if not quiet:
                    yield item
                else:
                    kept.append(item)
            if not await _to_its_end(task):
                ends.append({"errorDetail": {"message": CANCELED}, "error": CANCELED})
            failed = ends and "error" in ends[0]
            for item in kept if failed else ():
                yield item
            if failed or quiet:
                yield ends[0]

    def cancel(self, build_id: str) -> None:
        """Cancel the builds of that name; there may be none: dockerd does not tell either."""
        for task, name in list(self._running.items()):
            if name == build_id:
                task.cancel()

    def interrupt(self) -> None:
        """Cancel all builds, and let none begin: the daemon is about to end."""
        self._closing = True
        for task in list(self._running):
            task.cancel()

    @property
    def closing(self) -> bool:
        """Whether the daemon is about to end, for which builds are cancelled."""
        return self._closing

    async def interrupted(self) -> None:
        """Cancel all builds, and wait until they have ended, and their clients been told why."""
        self.interrupt()
        if self._running:
            await asyncio.wait(list(self._running))

    async def close(self) -> None:
        """Cancel all builds, and wait until nothing of them runs."""
        await self.interrupted()
        await self._parts.executor.close()
        if self._builder is not None:
            await self._builder.solver.close()
        await self._parts.keeper.close()

    def resume(self) -> None:
        """Remove what builds of a former daemon left, and note that they were cut off.  Blocking."""
        if self.history.end_all():
            from ketch.build.sources import git_program

            git_program.end_left(self._parts.root)
        receive.sweep(self._parts.root)

    def logged(self, ref: str) -> list[bytes]:
        """The messages of a build that has ended, each as JSON (NotFound).  Blocking."""
        return unpacked(self.history.log(ref))

    async def usage(self) -> Sequence[UsageRow]:
        """The records of the build cache."""
        await self._settled()
        return await self._parts.keeper.usage()

    @property
    def rules(self) -> Sequence[PruneOptions]:
        """The collections of the cache that are done after builds."""
        return self._parts.keeper.rules

    async def prune(self, request: CachePrune, wanted: Callable[[UsageRow], bool] | None = None) -> CachePruned:
        """Remove what a request names of the build cache, and is wanted (InvalidArgument)."""
        from ketch.build.cache.pruning import policy
        from ketch.engine.model.building.builds import CachePruned

        spaces = (request.reserved, request.max_used, request.min_free)
        options = policy.parse(request.filters, time.time_ns(), everything=request.everything, spaces=spaces)
        options = msgspec.structs.replace(options, wanted=wanted, keep_ns=request.keep_ns or options.keep_ns)
        await self._settled()
        rows = await self._parts.keeper.prune(options)
        freed = sum(row.size for row in rows)
        self._parts.events.publish("builder", "prune", "", {"reclaimed": str(freed)})
        return CachePruned(rows, freed)

    async def _settled(self) -> None:
        """Return when what builds have made is measured: until then it has no size."""
        if self._builder is not None:
            await self._builder.solver.settled()

    def builder(self) -> Builder:
        """The builder, made at the first call."""
        if self._builder is None:
            self._builder = self._factory()
            self._builder.frontends.update(self.frontends)
        return self._builder

    @property
    def executor(self) -> BuildExecutor:
        """The executor of commands."""
        return self._parts.executor

    def begin(self, task: asyncio.Task[Any], name: str) -> None:
        """Take note of a build's task (Unavailable: the daemon ends)."""
        if self._closing:
            task.cancel()
            raise Unavailable(ENDING)
        self._running[task] = name
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.pop(task, None)
        if not self._closing:
            self._parts.keeper.collect_later()


@contextlib.asynccontextmanager
async def _running(service: BuildService, request: ImageBuild, work: Any) -> AsyncIterator[asyncio.Task[None]]:
    """A build's task; at the context's end it has ended, and the request's descriptors are closed."""
    task: asyncio.Task[None] = asyncio.create_task(work)
    try:
        service.begin(task, request.id)
        yield task
    finally:
        if not task.done():
            task.cancel()
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        if not task.cancelled():
            task.exception()
        for fd in request.descriptors():
            os.close(fd)


async def _to_its_end(task: asyncio.Task[None]) -> bool:
    """Wait for a task's end (what it raised); False: somebody else has cancelled it."""
    await asyncio.wait([task])
    if task.cancelled():
        return False
    task.result()
    return True


class _Work:
    """One build with its place in the history."""

    def __init__(self, service: BuildService, request: ImageBuild, listener: BuildListener) -> None:
        self._service, self._request, self._log = service, request, StatusLog(listener)
        self._run: BuildRun | None = None
        given = {name: value or "" for name, value in request.args.items()}
        self.record = BuildRecord(
            ref="",
            name=request.name or (request.tags[0] if request.tags else request.target or request.dockerfile_path),
            created=0,
            target=request.target,
            platforms=list(request.platforms),
            context=request.place or without_password(request.remote),
            arguments=given,
        )

    async def run(self, body: AsyncIterator[bytes]) -> BuildResult:
        """Build (KetchError)."""
        from ketch.engine.build.run.run import BuildRun

        history, record = self._service.history, self.record
        kept = self._request.call == "build"
        if kept:
            await history.begun(record)
            failpoint("build.begun")
        self._run = run = BuildRun(self._service.builder(), self._request, self._log, record)
        record.status = "canceled"
        try:
            result = await run.run(body)
            record.status, record.image = "completed", result.image
            return result
        except KetchError as e:
            record.status, record.error = "error", e.message
            raise
        except OSError as e:
            error = os_errors.explained(e, "build")
            record.status, record.error = "error", error.message
            raise error from e
        except asyncio.CancelledError:
            record.error = CANCELED
            raise
        except Exception as e:
            record.status, record.error = "error", f"{type(e).__name__}: {e}"
            log.exception("build %s", record.ref)
            raise KetchError(f"internal error in ketchd (its log has the trace): {record.error}") from e
        finally:
            run.count()
            record.completed = time.time_ns()
            if kept:
                await history.ended(record, self._log.packed)
                failpoint("build.recorded")

    def failure(self, error: KetchError) -> BuildFailure:
        """The end of the build's events."""
        from ketch.engine.model.building.builds import BuildFailure

        if self._run is not None:
            return self._run.failure(error)
        return BuildFailure(message=error.message, kind=error.kind, hint=error.hint or "")
