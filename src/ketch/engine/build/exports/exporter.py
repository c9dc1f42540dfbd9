"""Export of what was built: images here, archives and trees of files for the client, pushes to registries."""

from __future__ import annotations

import asyncio
import base64
import functools
import time
from contextlib import aclosing
from typing import IO, TYPE_CHECKING, TypeVar

import msgspec
from msgspec import Struct, field

from ketch.build.export import attestations, index
from ketch.build.export import image as images
from ketch.build.export.annotations import OutputAnnotations
from ketch.engine.build.exports import outputs
from ketch.engine.build.exports.outputs import Output
from ketch.engine.build.exports.sinks import NamedTree, check_apart
from ketch.engine.build.phases import phase
from ketch.engine.images.push import MadeImages, PushedTag, PushTarget
from ketch.engine.model.building.builds import OutputRequest
from ketch.images.archives.save import InLayout, save_as
from ketch.oci import manifest as oci
from ketch.oci import platform as platforms
from ketch.oci import reference
from ketch.storage.archive import packing
from ketch.threads import to_the_end

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from ketch.build.export.product import Product
    from ketch.build.progress import SolveStatus
    from ketch.build.providers import BuildSnapshots
    from ketch.engine.build.phases import Phase
    from ketch.engine.events.bus import EventBus
    from ketch.engine.images.push import PushService
    from ketch.images.model import Image
    from ketch.images.store import ImageStore
    from ketch.remote.credentials import Credentials
    from ketch.storage.content.leases import Lease

T = TypeVar("T")
_KEPT = Output(OutputRequest(kind="image"))


class ExportOrder(Struct, frozen=True, kw_only=True, eq=False):
    """An order for a build's products: what is to become of them.

    Without outputs an image is kept.  ``names`` are those of every image; ``credentials`` knows those for a registry;
    ``tell`` hears of the progress.
    """

    outputs: Sequence[Output]
    names: Sequence[str]
    credentials: Callable[[str], Awaitable[Credentials | None]]
    tell: Callable[[SolveStatus], None]


class Exported(Struct, frozen=True, kw_only=True):
    """The results of an export.

    ``image`` and ``names`` are of what is kept here, ``top`` is what the names mean; ``metadata`` as BuildKit's
    exporters answer.
    """

    image: str = ""
    names: list[str] = field(default_factory=list)
    metadata: dict[str, str] = field(default_factory=dict)
    top: oci.Descriptor | None = None


class Exporter(Struct, frozen=True, eq=False):
    """The exports of all builds."""

    store: ImageStore
    snapshots: BuildSnapshots
    pushes: PushService
    events: EventBus

    async def export(self, order: ExportOrder, products: Sequence[Product], lease: Lease) -> Exported:
        """Make all outputs (KetchError)."""
        work = _Export(self, order, products, lease)
        for output in order.outputs or [_KEPT]:
            await work.output(output)
        return work.result()


class _Export:
    """The export of one build."""

    def __init__(self, to: Exporter, order: ExportOrder, products: Sequence[Product], lease: Lease) -> None:
        self._to, self._order, self._products, self._lease = to, order, products, lease
        self._images: list[Image] = []
        self._kept: list[str] = []
        self._here = self._index = ""
        self._metadata: dict[str, str] = {}
        self._noted: Mapping[str, str] = {}
        self._top: oci.Descriptor | None = None
        self._target: oci.Descriptor | None = None
        self._finished = time.time_ns()

    def result(self) -> Exported:
        """The result."""
        return Exported(image=self._here, names=self._kept, metadata=self._metadata, top=self._top)

    async def output(self, output: Output) -> None:
        """Make one output (KetchError)."""
        kind, sink = output.request.kind, output.sink
        if kind in outputs.NOTHING:
            return
        if kind in outputs.FILES:
            with phase("exporting to client tarball" if kind == "tar" else "copying files", self._order.tell):
                if sink is not None:
                    split = outputs.asked(output.request, "platform-split", usual=len(self._products) > 1)
                    await sink.files(await self._run(functools.partial(self._trees, split=split)))
            return
        with phase(
            "exporting to image" if sink is None else f"exporting to {kind} image format", self._order.tell
        ) as step:
            names = outputs.tags([*self._order.names, *output.request.attrs.get("name", "").split(",")])
            made = await self._make(names, step, output)
            if sink is not None:
                index_digest = self._index if kind != "docker" else ""
                await sink.archive(lambda file: self._save(names, file, index_digest), made)
            elif outputs.asked(output.request, "push"):
                for name in names:
                    await self._push(name, step, output)
            if outputs.known_by_digest(output):
                await self._run(functools.partial(self._remember, names))

    async def _run(self, work: Callable[[], T]) -> T:
        """Run blocking work; cancelled, it is over before this returns, for it relies on the lease."""
        return await to_the_end(asyncio.to_thread(work), self._lease.break_off)

    def _trees(self, *, split: bool) -> list[NamedTree]:
        """The files, and what is said of them; with ``split`` each platform's in a directory of its own.  Blocking."""
        together = len(self._products) > 1 and not split
        found = []
        for one in self._products:
            name = platforms.text(one.platform).replace("/", "_")
            suffix = f".{name}" if together else ""
            tree = attestations.beside_files(self._to.snapshots, self._lease, one, self._finished, suffix=suffix)
            found.append(NamedTree(name if split else "", tree))
        if together:
            names = [platforms.text(one.platform) for one in self._products]
            check_apart(self._to.snapshots, [*zip(names, (one.tree for one in found), strict=True)])
        return found

    # -- images ----------------------------------------------------------------------------------

    async def _make(self, names: Sequence[str], step: Phase, output: Output) -> Mapping[str, str]:
        """Put the images into the store where they are kept, with these names; several platforms with an index.

        Returns what is told of them.
        """
        keep = outputs.kept(output)
        shown = [reference.parse(name).familiar for name in names] if outputs.named(output) else []
        self._images, top = await self._run(functools.partial(self._add, names, output))
        told = {"containerimage.config.digest": self._images[0].id}
        self._noted = top.annotations or {}
        told["containerimage.descriptor"] = _encoded(top)
        # Of an image that stays here it is the image's id, as with Docker's own store: Compose makes a container
        # anew when it is another one, and an index has the time of the build in it.
        told["containerimage.digest"] = self._images[0].id if keep else top.digest
        if names:
            told["image.name"] = ",".join(
                map(_whole, [one for one in output.request.attrs.get("name", "").split(",") if one] or names)
            )
        for image in self._images:
            step.part(f"writing image {image.id}")
        self._target = top
        if keep:
            self._top = top
            self._here, self._kept = self._images[0].id, [*dict.fromkeys((*self._kept, *shown))]
            for image in self._images:
                self._to.events.of_image(image, "create")
            for name in shown:
                step.part(f"naming to {reference.parse(name)}")
                self._to.events.of_image(self._images[0], "tag", name)
        self._metadata |= told
        return told

    def _add(self, names: Sequence[str], output: Output) -> tuple[list[Image], oci.Descriptor]:
        """The images, and what names mean: the index of several, or the manifest of one.  Blocking.

        With attestations one image has an index, too.
        """
        store, lease = self._to.store, self._lease
        listed = len(self._products) > 1 or attestations.asked(self._products)
        notes = OutputAnnotations(output.request.attrs)
        made, attested = [], []
        docker_types = self._docker_types(output.request)
        for one in self._products:
            image = self._image(one, output.request, notes.of("manifest", one.platform), docker_types=docker_types)
            made.append(image)
            attested += attestations.of_image(store, lease, one, image, names, self._finished)
        kept = list(names) if outputs.named(output) else []
        stored = store.add if outputs.kept(output) else _unstored
        of_each = [notes.of("manifest-descriptor", one.platform) for one in self._products]
        if not listed:
            top = index.described(store, made[0].manifest, of_each[0], made[0])
            return stored([(made[0], kept)]), top
        parts = [index.described(store, image.manifest, more, image) for image, more in zip(made, of_each, strict=True)]
        media_type = oci.DOCKER_INDEX if docker_types else oci.INDEX
        self._index = index.write(store, lease, [*parts, *attested], notes.of("index"), media_type=media_type)
        wanted = [(image, kept if number == 0 else []) for number, image in enumerate(made)]
        top = index.described(store, self._index, notes.of("index-descriptor"))
        return stored(wanted, dict.fromkeys(kept, self._index)), top

    def _remember(self, names: Sequence[str]) -> None:
        """Have the image known by its digest, too.  Blocking."""
        assert self._target is not None
        for repository in {reference.parse(name).repository for name in names}:
            self._to.store.remember(f"{repository}@{self._target.digest}", self._images[0].id)

    def _docker_types(self, output: OutputRequest) -> bool:
        """Whether manifests have Docker's types, which know neither attestations nor annotations."""
        noted = OutputAnnotations(output.attrs)
        return outputs.docker_types(output) and not noted and not attestations.asked(self._products)

    def _image(
        self, product: Product, output: OutputRequest, annotations: Mapping[str, str], *, docker_types: bool
    ) -> Image:
        """The record of one image, as an output wants it; not in the store yet.  Blocking."""
        store, lease, how = self._to.store, self._lease, outputs.compression_of(output)
        if outputs.asked(output, "rewrite-timestamp"):
            product = images.with_its_time(store, lease, product)
        image = images.make(store, self._to.snapshots, lease, product)
        if annotations:
            images.annotated(store, lease, image, annotations)
        if how is not None:
            image = images.in_form(store, lease, image, how)
        return images.with_docker_types(store, lease, image) if docker_types else image

    async def _push(self, name: str, step: Phase, output: Output) -> None:
        """Push what was made, by a name (KetchError)."""
        parsed, target, request = reference.parse(name), self._target, output.request
        assert target is not None
        by_digest, insecure = (outputs.asked(request, one) for one in ("push-by-digest", "registry.insecure"))
        found = await self._order.credentials(parsed.domain)
        if outputs.named(output):
            how = outputs.compression_of(request)
            plain = how is not None and how.compression.kind == packing.UNCOMPRESSED
            pushing = self._to.pushes.push(parsed.familiar, "", "", found, compress=not plain, insecure=insecure)
        else:
            to = PushTarget(name=name, credentials=found, by_digest=by_digest, insecure=insecure)
            pushing = self._to.pushes.push_made(MadeImages(target.digest, self._images), to)
        async with aclosing(pushing) as items:
            async for item in items:
                if "digest:" in item.get("status", ""):
                    step.part(f"pushing manifest for {parsed.familiar}: {item['status']}")
                if aux := item.get("aux"):
                    pushed = msgspec.convert(aux, PushedTag)
                    self._pushed(msgspec.structs.replace(target, digest=pushed.digest, size=pushed.size))

    def _pushed(self, target: oci.Descriptor) -> None:
        """Note what was pushed: a manifest whose layers were compressed for it is another one."""
        if self._top is self._target:
            self._top = target
        self._target = target
        self._metadata["containerimage.digest"] = target.digest
        self._metadata["containerimage.descriptor"] = _encoded(target)

    def _save(self, names: Sequence[str], file: IO[bytes], index_digest: str) -> None:
        """Write an archive of the images."""
        save_as(self._to.store, self._images, names, file, InLayout(index_digest, self._noted))


def _unstored(made: Sequence[tuple[Image, Sequence[str]]], _targets: Mapping[str, str] | None = None) -> list[Image]:
    """Images that the store does not learn of: the lease alone holds them."""
    return [image for image, _ in made]


def _encoded(descriptor: oci.Descriptor) -> str:
    return base64.b64encode(oci.encode(descriptor)).decode()


def _whole(name: str) -> str:
    """A name with its registry and, where it is written so, its tag: as BuildKit's clients get it back."""
    parsed = reference.parse(name)
    return str(parsed) if set(":@") & set(name.rpartition("/")[2]) else parsed.repository
