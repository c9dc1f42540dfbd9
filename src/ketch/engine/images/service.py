"""Images for the API: the blocking image store, called from the event loop.

Long work (load, import, save, bootstrap) runs in a thread; its progress arrives as dicts in the shape
of Docker's JSON progress stream.  A client that goes away cancels the work at its next read.
"""

from __future__ import annotations

import asyncio
import functools
import io
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from ketch.build.dockerfile import changes
from ketch.engine.aio.transfer import BodyReader, written
from ketch.engine.model import pending
from ketch.errors import InvalidArgument, NotFound
from ketch.images.archives.bootstrap import bootstrap
from ketch.images.archives.importer import Said, import_rootfs
from ketch.images.archives.load import load
from ketch.images.archives.save import named_images, save
from ketch.images.commit import check_name
from ketch.images.progress import Meter, Metered
from ketch.oci import platform as platforms
from ketch.oci import reference
from ketch.oci.config import History, RunConfig
from ketch.remote import download
from ketch.threads import in_own_thread, run_to_end

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Sequence

    from ketch.engine.aio.background import BackgroundTasks
    from ketch.engine.events.bus import EventBus
    from ketch.engine.model.records import Container
    from ketch.engine.model.requests import ImportOptions
    from ketch.engine.model.store import ContainerStore
    from ketch.images.model import Image
    from ketch.images.progress import ProgressItem, Report
    from ketch.images.removal import DryRun
    from ketch.images.store import HistoryRows, ImageStore, RemovalRows

Strings = list[str]
Users = list[tuple[str, bool]]
_END = None


class ImageService(Struct, frozen=True, eq=False):
    """All images of the engine."""

    store: ImageStore
    containers: ContainerStore
    events: EventBus
    tasks: BackgroundTasks

    def get(self, ref: str, platform: str = "") -> Image:
        """The image of a reference, id or id prefix; with a ``platform``, its variant for that (NotFound)."""
        return self.store.resolve(ref, platform)

    def list(self, *, everything: bool = False) -> list[Image]:
        """Every image; nameless ones that others were committed on for ``everything`` alone."""
        return self.store.list(everything=everything)

    def history(self, ref: str, platform: str = "") -> HistoryRows:
        """Docker's history rows, newest first."""
        return self.store.history(ref, platform)

    async def tag(self, ref: str, repo: str, tag: str = "") -> None:
        """Add a name to an image."""
        image = self.store.resolve(ref)
        if tag and not reference.is_tag(tag):
            raise InvalidArgument("invalid tag format")
        if tag:  # it takes the place of that of the name
            parsed = reference.parse(repo)
            repo = repo if parsed.digest else f"{parsed.repository}:{tag}"
        name = repo
        await run_to_end(self.store.tag, ref, name)
        self.events.of_image(image, "tag", reference.parse(name).familiar)

    def containers_of(self, image_id: str) -> Users:
        """The containers made from an image, or mounting it, as (id, running)."""

        def needs(container: Container) -> bool:
            mounted = any(m.type == "image" and m.name == image_id for m in pending.mount_points(container))
            return mounted or container.image_id == image_id

        known = [(c.id, c.state.running) for c in self.containers.all() if needs(c)]
        return known + [(container_id, True) for container_id in self.containers.unreadable_with(image_id)]

    async def remove(
        self,
        ref: str,
        force: bool = False,
        prune: bool = True,
        dry_run: DryRun | None = None,
        without: Collection[str] = (),
    ) -> RemovalRows:
        """Untag and, when nothing else needs it, delete; rows ``{"Untagged": …}`` and ``{"Deleted": …}``.

        With a ``dry_run`` nothing is done; containers ``without`` are taken as gone.
        """

        def users(image_id: str) -> Users:
            return [user for user in self.containers_of(image_id) if user[0] not in without]

        known = self.store.catalog.images
        try:
            named = self.store.resolve(ref)
        except NotFound:  # the row of a name whose image is lost
            named = None
        work = functools.partial(self.store.remove, ref, force, users, dry_run, prune=prune)
        rows = await run_to_end(work)
        for row in rows if dry_run is None else ():
            for action, what in row.items():
                if action == "Untagged" and named is not None:
                    self.events.of_image(named, "untag")
                elif action == "Deleted" and what in known:  # else it is a layer
                    self.events.publish("image", "delete", what, {"name": what})
        return rows

    async def load(
        self, body: AsyncIterator[bytes], quiet: bool = False, platforms: Sequence[str] = ()
    ) -> AsyncGenerator[ProgressItem, None]:
        """Read a docker-save or OCI archive; yields progress."""
        reader = BodyReader(body, asyncio.get_running_loop())
        loaded: dict[str, Image] = {}

        def work(report: Report) -> None:
            for image in load(self.store, io.BufferedReader(reader, 1 << 20), report, platforms):
                loaded[image.id] = image

        async for item in self._run(work, reader):
            if not quiet or "stream" in item:
                yield item
        for image in loaded.values():
            self.events.of_image(image, "load")

    async def import_url(self, source: str, options: ImportOptions) -> AsyncGenerator[ProgressItem, None]:
        """`import_` of a file that a web server has (see `download` for errors)."""
        url = download.address(source)
        async with download.opened(url) as (size, pieces):
            yield {"status": f"Downloading from {url}"}
            async with aclosing(self.import_(pieces, options, origin=str(url), size=size)) as items:
                async for item in items:
                    yield item

    async def import_(
        self, body: AsyncIterator[bytes], options: ImportOptions, *, origin: str = "-", size: int | None = None
    ) -> AsyncGenerator[ProgressItem, None]:
        """Make an image of one layer from a root filesystem's tar; the last item is ``{"status": image id}``.

        ``size``: what a download will have brought, of which progress is reported; 0: that is not known.
        """
        name = check_name(options.repo, options.tag)
        platform = platforms.named(options.platform) if options.platform else None
        if platform is not None and platform.os != "linux":
            raise InvalidArgument("operating system is not supported", hint=f"`{platform.os}`: Ketch runs linux")
        reader = BodyReader(body, asyncio.get_running_loop())
        made: list[Image] = []

        def work(report: Report) -> None:
            config = RunConfig()
            changes.apply(config, options.changes)  # bad instructions are refused before anything is read
            source: io.RawIOBase = reader
            if size is not None:
                source = Metered(reader, Meter(report, "", "Importing", size))
            image = import_rootfs(
                self.store,
                io.BufferedReader(source, 1 << 20),
                name=name,
                config=config,
                said=Said(History(comment=options.message or f"Imported from {origin}"), platform),
                progress=report,
            )
            made.append(image)
            report({"status": image.id})

        async for item in self._run(work, reader):
            yield item
        if name:
            self.events.of_image(made[0], "tag", reference.parse(name).familiar)
        self.events.of_image(made[0], "import")

    async def bootstrap(self, ref: str) -> AsyncGenerator[ProgressItem, None]:
        """Make a base image from the distribution's packages, without a registry."""
        async for item in self._run(lambda report: bootstrap(self.store, ref, report)):
            yield item

    def named(self, ref: str) -> Sequence[Image]:
        """The images that `save` takes for a reference: of a repository without a tag all (NotFound)."""
        return named_images(self.store, ref)

    async def save(self, refs: Strings, platforms: Sequence[str] = ()) -> AsyncGenerator[bytes, None]:
        """One archive with these images, as chunks; of several platforms all that are here, or these."""
        images = {image.id: image for ref in refs for image in self.named(ref)}
        async with aclosing(written(self.tasks.start, lambda f: save(self.store, refs, f, platforms))) as chunks:
            async for chunk in chunks:
                yield chunk
        for image in images.values():
            self.events.of_image(image, "save")

    async def _run(
        self, work: Callable[[Report], Any], reader: BodyReader | None = None
    ) -> AsyncGenerator[ProgressItem, None]:
        """Run ``work(report)`` in a thread and yield its reports; its error is raised at the end."""
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[ProgressItem | None] = asyncio.Queue()

        def report(item: ProgressItem) -> None:
            loop.call_soon_threadsafe(queue.put_nowait, item)

        def run() -> None:
            try:
                work(report)
            finally:
                loop.call_soon_threadsafe(queue.put_nowait, _END)

        task = self.tasks.start(in_own_thread(run))
        try:
            while (item := await queue.get()) is not _END:
                yield item
            await task
        finally:
            if reader is not None:
                await reader.abandon()
