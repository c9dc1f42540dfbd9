"""``push`` for the API: one tag or all of a repository's, progress, events."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ketch.engine.images.pull import parse, streamed
from ketch.errors import InvalidArgument, NotFound
from ketch.images.single_flight import SingleFlight
from ketch.images.transfer.push import Pusher
from ketch.oci import reference

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from ketch.engine.events.bus import EventBus
    from ketch.engine.images.registries import Registries
    from ketch.images.progress import ProgressItem, Report
    from ketch.images.store import ImageStore
    from ketch.remote.credentials import Credentials


class PushService:
    """Pushes of one daemon; constructed in its event loop."""

    def __init__(self, store: ImageStore, registries: Registries, events: EventBus) -> None:
        self._store = store
        self._registries = registries
        self._events = events
        self._uploads: SingleFlight[str] = SingleFlight()
        self._slots = asyncio.Semaphore(registries.max_uploads)

    def push(
        self,
        name: str,
        tag: str = "",
        platform: str = "",
        credentials: Credentials | None = None,
        *,
        compress: bool = True,
    ) -> AsyncGenerator[ProgressItem, None]:
        """Push a tag of a repository, or, without one, all that are here; without any, progress ends in NotFound.

        Plain layers go as they are unless ``compress``.  PlatformMismatch: the image is for another platform than asked
        for.
        """
        ref = parse(name, tag)
        here = sorted(self._store.names_in(ref.repository))
        names = [str(ref)] if ref.tag else here
        for name in {*names}.intersection(here) if platform else ():
            self._store.resolve(reference.parse(name).familiar, platform)
        repository = self._registries.remotes.repository(ref, credentials, push=True)

        async def work(report: Report) -> None:
            report({"status": f"The push refers to repository [{ref.repository}]"})
            if not here:
                raise NotFound(f"An image does not exist locally with the tag: {ref.familiar_repository}")
            await repository.reach()
            if ref.digest:
                raise InvalidArgument("cannot push a digest reference")
            if not set(names) & set(here):
                raise NotFound(f"tag does not exist: {ref.familiar}")
            pusher = Pusher(self._store, repository, self._uploads, self._slots, report, compress)
            for name in names:
                tag = name.rpartition(":")[2]
                pushed = await pusher.push(name, platform)
                report({"status": f"{tag}: digest: {pushed.digest} size: {pushed.size}"})
                report({"progressDetail": {}, "aux": {"Tag": tag, "Digest": pushed.digest, "Size": pushed.size}})
                self._events.publish(
                    "image", "push", f"{ref.familiar_repository}:{tag}", {"name": ref.familiar_repository}
                )

        return streamed(work)
