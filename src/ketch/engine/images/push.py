"""``push`` for the API: one tag or all of a repository's, progress, events."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from ketch.engine.images.pull import parse, streamed
from ketch.errors import InvalidArgument, NotFound
from ketch.images.single_flight import SingleFlight
from ketch.images.transfer.push import Pusher
from ketch.oci import reference

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from ketch.engine.events.bus import EventBus
    from ketch.engine.images.registries import Registries
    from ketch.images.model import Image
    from ketch.images.progress import ProgressItem, Report
    from ketch.images.store import ImageStore
    from ketch.images.transfer.push import Pushed
    from ketch.remote.credentials import Credentials


class MadeImages(Struct, frozen=True):
    """Images, and the digest of what is pushed of them: the manifest of one, or an index."""

    target: str
    images: Sequence[Image]


class PushedTag(Struct, frozen=True, rename="pascal"):
    """The result of a push, as its progress tells it: without a tag what is known by its digest alone."""

    tag: str
    digest: str
    size: int


class PushTarget(Struct, frozen=True, kw_only=True):
    """The place of a push: a name, whose tag does not count if what is pushed is known ``by_digest`` alone.

    ``insecure``: the registry may be used without TLS.
    """

    name: str
    credentials: Credentials | None
    by_digest: bool
    insecure: bool


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
        insecure: bool = False,
    ) -> AsyncGenerator[ProgressItem, None]:
        """Push a tag of a repository, or, without one, all that are here; without any, progress ends in NotFound.

        Plain layers go as they are unless ``compress``; ``insecure`` trusts the registry.  PlatformMismatch: the image
        is for another platform than asked for.
        """
        ref = parse(name, tag)
        here = sorted(self._store.names_in(ref.repository))
        names = [str(ref)] if ref.tag else here
        for name in {*names}.intersection(here) if platform else ():
            self._store.resolve(reference.parse(name).familiar, platform)
        repository = self._registries.remotes.repository(ref, credentials, push=True, insecure=insecure)

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
                self._tell(report, ref, name.rpartition(":")[2], await pusher.push(name, platform))

        return streamed(work)

    def push_made(self, made: MadeImages, to: PushTarget) -> AsyncGenerator[ProgressItem, None]:
        """Push what the caller holds, which needs no name here, or not even be in the store."""
        ref = reference.parse(to.name)
        repository = self._registries.remotes.repository(ref, to.credentials, push=True, insecure=to.insecure)

        async def work(report: Report) -> None:
            report({"status": f"The push refers to repository [{ref.repository}]"})
            await repository.reach()
            pusher = Pusher(self._store, repository, self._uploads, self._slots, report)
            tag = "" if to.by_digest else ref.tag
            self._tell(report, ref, tag, await pusher.push_made(made.target, made.images, tag))

        return streamed(work)

    def _tell(self, report: Report, ref: reference.Reference, tag: str, pushed: Pushed) -> None:
        report({"status": f"{tag or ref.familiar_repository}: digest: {pushed.digest} size: {pushed.size}"})
        report({"progressDetail": {}, "aux": msgspec.to_builtins(PushedTag(tag, pushed.digest, pushed.size))})
        name = f"{ref.familiar_repository}{f':{tag}' if tag else f'@{pushed.digest}'}"
        self._events.publish("image", "push", name, {"name": ref.familiar_repository})
