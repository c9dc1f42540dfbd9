"""``pull`` for the API: names to references, one tag or all, progress, events.

A client that goes away cancels its pull; what others pull at the same time goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from ketch.errors import InvalidArgument, PermissionDenied
from ketch.images.transfer.fetch import Downloads
from ketch.images.transfer.layers import LayerService
from ketch.images.transfer.pull import Puller
from ketch.oci import digest as digests
from ketch.oci import platform as platforms
from ketch.oci import reference
from ketch.oci.reference import Reference

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from ketch.engine.events.bus import EventBus
    from ketch.engine.images.registries import Registries
    from ketch.images.progress import ProgressItem, Report
    from ketch.images.store import ImageStore
    from ketch.remote.credentials import Credentials


class PullService:
    """Pulls of one daemon; constructed in its event loop.  ``layers`` are shared with builds."""

    def __init__(self, store: ImageStore, registries: Registries, events: EventBus) -> None:
        self._store = store
        self._registries = registries
        self._events = events
        self.layers = LayerService(store, Downloads(store.content, registries.max_downloads, registries.attempts))

    def pull(
        self, name: str, tag: str = "", platform: str = "", credentials: Credentials | None = None
    ) -> AsyncGenerator[ProgressItem, None]:
        """Pull ``name`` with a tag or digest, of it or beside it; without any, all tags of the repository."""
        ref = parse(name.removesuffix(":"), tag)  # so Docker's own client asked for all tags
        if platform:
            platforms.parse(platform)
        repository = self._registries.remotes.repository(ref, credentials)

        async def work(report: Report) -> None:
            puller = Puller(self._store, self.layers, repository, report)
            new = False
            for tag in [ref.tag] if ref.tag or ref.digest else await repository.tags():
                tagged = Reference(ref.domain, ref.path, tag, ref.digest)
                pulled = await puller.pull(tagged, platform)
                report({"status": f"Digest: {pulled.digest}"})
                new = new or pulled.new
                name = tagged.familiar_whole
                self._events.publish("image", "pull", name, {"name": tagged.familiar_repository})
            outcome = "Downloaded newer image for" if new else "Image is up to date for"
            shown = ref.familiar_whole if ref.tag or ref.digest else ref.familiar_repository
            report({"status": f"Status: {outcome} {shown}"})
            if mismatch := puller.mismatch:
                report({"status": f"WARNING: {mismatch}"})

        return streamed(work)

    def sweep(self) -> int:
        """Remove old partial downloads; returns the bytes."""
        return self.layers.downloads.sweep()


def parse(name: str, tag: str) -> Reference:
    """The reference of ``fromImage`` and ``tag`` together; without tag and digest: all tags.

    InvalidArgument, and PermissionDenied for a reserved name.
    """
    ref = reference.parse(name)
    if ref.domain == reference.DEFAULT_DOMAIN and ref.path == "library/scratch":
        raise PermissionDenied("'scratch' is a reserved name")
    if tag and not (reference.is_tag(tag) or digests.valid(tag)):
        raise InvalidArgument("invalid tag format")
    if digests.valid(tag):
        return Reference(ref.domain, ref.path, digest=tag)
    if tag:
        return Reference(ref.domain, ref.path, tag, ref.digest)
    if not ref.digest and not name.endswith(f":{ref.tag}"):
        return Reference(ref.domain, ref.path)
    return ref


async def streamed(work: Callable[[Report], Awaitable[None]]) -> AsyncGenerator[ProgressItem, None]:
    """Run ``work(report)`` and yield its reports; closing the iterator cancels it and waits for its end."""
    queue: asyncio.Queue[ProgressItem | None] = asyncio.Queue()

    async def run() -> None:
        try:
            await work(queue.put_nowait)
        finally:
            queue.put_nowait(None)

    task = asyncio.create_task(run())
    try:
        while (item := await queue.get()) is not None:
            yield item
        await task
    finally:
        if not task.done():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([task])
