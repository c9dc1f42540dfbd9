"""Export of what was built: images here, archives and trees of files for the client, pushes to registries."""

from __future__ import annotations

import asyncio
import os
from contextlib import aclosing
from typing import IO, TYPE_CHECKING, NamedTuple

from msgspec import Struct

from ketch.build.export import image as images
from ketch.build.export import index
from ketch.engine.aio.transfer import in_own_thread, written
from ketch.engine.build.run import naming
from ketch.engine.build.run.phases import phase
from ketch.engine.build.run.session import given_credentials
from ketch.engine.model.building.builds import BuildResult, OutputRequest
from ketch.errors import InvalidArgument, Unavailable, Unimplemented
from ketch.images.archives.save import save_as
from ketch.notation import booleans
from ketch.oci import platform as platforms
from ketch.oci import reference
from ketch.storage.archive.write import write_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ketch.build.providers import BuildSnapshots
    from ketch.engine.aio.background import BackgroundTasks
    from ketch.engine.build.run.listener import BuildListener
    from ketch.engine.build.run.phases import Phase
    from ketch.engine.build.run.products import Product
    from ketch.engine.events.bus import EventBus
    from ketch.engine.images.push import PushService
    from ketch.engine.model.building.builds import ImageBuild
    from ketch.images.model import Image
    from ketch.images.store import ImageStore
    from ketch.storage.content.leases import Lease

_IMAGES = ("image", "moby", "docker", "oci")
_FILES = ("local", "tar")
_NOTHING = ("none", "cacheonly")
_PIECE = 64 << 10  # bytes of an output that are told at once


class Exporter(Struct, frozen=True, eq=False):
    """The exports of all builds."""

    store: ImageStore
    snapshots: BuildSnapshots
    pushes: PushService
    events: EventBus
    tasks: BackgroundTasks

    async def export(
        self,
        request: ImageBuild,
        names: Sequence[str],
        products: Sequence[Product],
        lease: Lease,
        listener: BuildListener,
    ) -> BuildResult:
        """Make all outputs, or, where none are asked for, an image here with these names (KetchError)."""
        work = _Export(self, request, names, products, lease, listener)
        outputs = request.outputs or [OutputRequest(kind="image")]
        for number, output in enumerate(outputs):
            await work.output(number, output)
        return work.result()


class _Export:
    """The export of one build."""

    def __init__(
        self,
        to: Exporter,
        request: ImageBuild,
        names: Sequence[str],
        products: Sequence[Product],
        lease: Lease,
        listener: BuildListener,
    ) -> None:
        self._to, self._request, self._names, self._products = to, request, names, products
        self._lease, self._listener = lease, listener
        self._images: list[Image] = []
        self._kept: list[str] = []
        self._here = False
        self._metadata: dict[str, object] = {}

    def result(self) -> BuildResult:
        """The end of the build."""
        image = self._images[0].id if self._images and self._here else ""
        return BuildResult(image=image, names=self._kept, metadata=self._metadata)

    async def output(self, number: int, output: OutputRequest) -> None:
        """Make one output (KetchError)."""
        to_client = output.fd >= 0 or output.streamed
        if output.kind in _NOTHING:
            return
        if output.kind in _FILES:
            with phase("exporting to client tarball" if output.kind == "tar" else "copying files", self._tell):
                await self._send(number, output, self._write_files)
            return
        with phase(
            "exporting to image" if not to_client else f"exporting to {output.kind} image format", self._tell
        ) as step:
            names = naming.tags([*self._names, *output.attrs.get("name", "").split(",")])
            await self._make(names, step, output, keep=not to_client)
            if to_client:
                await self._send(number, output, lambda file: self._save(names, file))
            elif _asked(output, "push"):
                for name in names:
                    await self._push(name, step)

    def _tell(self, status: object) -> None:
        self._listener.status(status)  # type: ignore[arg-type]

    # -- images ----------------------------------------------------------------------------------

    async def _make(self, names: Sequence[str], step: Phase, output: OutputRequest, *, keep: bool) -> None:
        """Put the images into the store, with these names where they are kept; several platforms with an index."""
        shown = [reference.parse(name).familiar for name in names]
        self._images = await asyncio.to_thread(self._add, names if keep else (), output)
        self._metadata |= {"containerimage.config.digest": self._images[0].id}
        if self._images[0].manifest:
            self._metadata["containerimage.digest"] = self._images[0].manifest
        if names:
            self._metadata["image.name"] = ",".join(str(reference.parse(name)) for name in names)
        for image in self._images:
            step.part(f"writing image {image.id}")
        if keep:
            self._here, self._kept = True, [*dict.fromkeys((*self._kept, *shown))]
            for name in shown:
                step.part(f"naming to {reference.parse(name)}")
                self._to.events.of_image(self._images[0], "tag", name)

    def _add(self, names: Sequence[str], output: OutputRequest) -> list[Image]:
        store, lease = self._to.store, self._lease
        rewrite, notes = _asked(output, "rewrite-timestamp"), _annotations(output, many=len(self._products) > 1)
        made = []
        for one in self._products:
            tree = images.with_times_of(store, lease, one.conversion, one.tree) if rewrite else one.tree
            image = images.make(store, self._to.snapshots, lease, one.conversion, tree, one.cache)
            if notes.of_manifests:
                images.annotated(store, lease, image, notes.of_manifests)
            made.append(image)
        if len(made) == 1:
            return self._to.store.add([(made[0], list(names))])
        target = index.write(store, lease, made, notes.of_index)
        added = [(image, list(names) if number == 0 else []) for number, image in enumerate(made)]
        return self._to.store.add(added, dict.fromkeys(names, target))

    async def _push(self, name: str, step: Phase) -> None:
        """Push a name (KetchError)."""
        parsed = reference.parse(name)
        found = given_credentials(self._request.credentials, parsed.domain)
        async with aclosing(self._to.pushes.push(parsed.familiar, "", "", found)) as items:
            async for item in items:
                if "digest:" in item.get("status", ""):
                    step.part(f"pushing manifest for {parsed.familiar}: {item['status']}")
                if aux := item.get("aux"):
                    self._metadata["containerimage.digest"] = aux.get("Digest")

    def _save(self, names: Sequence[str], file: IO[bytes]) -> None:
        """Write an archive of the images."""
        save_as(self._to.store, self._images, names, file)

    # -- bytes for the client ----------------------------------------------------------------------

    def _write_files(self, file: IO[bytes]) -> None:
        """Write the trees as one tar; those of several platforms each into a directory of its own."""
        many = len(self._products) > 1
        for one in self._products:
            with self._to.snapshots.opened(one.tree) as fd:
                name = platforms.text(one.platform).replace("/", "_") if many else None
                write_directory(fd, name, file)

    async def _send(self, number: int, output: OutputRequest, write: Callable[[IO[bytes]], None]) -> None:
        if output.streamed:
            async with aclosing(written(self._to.tasks.start, write)) as chunks:
                async for chunk in chunks:
                    for begin in range(0, len(chunk), _PIECE):
                        await self._listener.room()
                        self._listener.output(number, chunk[begin : begin + _PIECE])
            return
        if output.fd < 0:
            raise InvalidArgument(f"output `{output.kind}`: where to is not told", hint="give dest=PATH")
        fd = os.dup(output.fd)

        def work() -> None:
            try:
                with open(fd, "wb") as file:
                    write(file)
            except BrokenPipeError as e:
                raise Unavailable(f"output `{output.kind}`: its reader is gone") from e

        await in_own_thread(work)


class _Annotations(NamedTuple):
    """Annotations of the manifest of each platform, and of the index of several."""

    of_manifests: dict[str, str]
    of_index: dict[str, str]


def _annotations(output: OutputRequest, *, many: bool) -> _Annotations:
    """The annotations among the attributes (Unimplemented: of descriptors, or of some platforms only)."""
    found = _Annotations({}, {})
    for name, value in output.attrs.items():
        where, point, key = name.partition(".")
        if not point or not where.startswith("annotation"):
            continue
        if where in ("annotation", "annotation-manifest"):
            found.of_manifests[key] = value
        elif where == "annotation-index" and many:
            found.of_index[key] = value
        elif where.removeprefix("annotation") != "-index":
            raise Unimplemented(
                f"output `{output.kind}`: {where} is not written", hint="use annotation or annotation-index"
            )
        else:
            raise InvalidArgument(f"output `{output.kind}`: {name}: there is no index of a single platform")
    return found


def check(outputs: Sequence[OutputRequest], *, many: bool) -> None:
    """Refuse outputs that cannot be made, before anything is built (InvalidArgument, Unimplemented).

    ``many``: for several platforms.
    """
    for output in outputs:
        attrs = output.attrs
        if output.kind not in (*_IMAGES, *_FILES, *_NOTHING):
            known = ", ".join((*_IMAGES, *_FILES, _NOTHING[0]))
            raise InvalidArgument(f'exporter "{output.kind}" could not be found', hint=f"known: {known}")
        if attrs.get("compression", "gzip") not in ("gzip", "uncompressed"):
            text = f"output `{output.kind}`: compression={attrs['compression']}: layers are gzip when they are sent"
            raise Unimplemented(text, hint="leave it out")
        if output.kind in ("docker", "oci") and attrs.get("tar", "true") in ("false", "0"):
            raise Unimplemented(f"output `{output.kind}`: tar=false: it is one archive", hint="unpack it with tar")
        _annotations(output, many=many)
        _asked(output, "rewrite-timestamp")
        _asked(output, "push")


def _asked(output: OutputRequest, name: str) -> bool:
    """A truth value among the attributes (InvalidArgument)."""
    text = output.attrs.get(name, "")
    try:
        return booleans.strict(text) if text else False
    except booleans.NotABooleanError as e:
        raise InvalidArgument(f"output `{output.kind}`: {name}={text}: {e}") from e
