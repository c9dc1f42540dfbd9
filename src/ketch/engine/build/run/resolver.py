"""Images for the conversion of a Dockerfile: found here, or pulled, with what a client is told of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ketch.build.dockerfile.convert.options import ResolvedImage
from ketch.engine.build.images import NamingBuildImages
from ketch.engine.build.run.phases import phase
from ketch.errors import NotFound
from ketch.oci import reference as references

if TYPE_CHECKING:
    from ketch.build.providers import BuildSession, FoundImage
    from ketch.engine.build.run.builder import Builder
    from ketch.engine.build.run.listener import BuildListener
    from ketch.images.progress import ProgressItem
    from ketch.oci.manifest import Platform


class SessionResolver:
    """The images of one build; those that are not here are pulled and named."""

    def __init__(self, builder: Builder, session: BuildSession, mode: str, listener: BuildListener) -> None:
        self._builder, self._session, self._mode, self._listener = builder, session, mode, listener
        self._found: dict[str, FoundImage] = {}

    async def image(self, reference: str, platform: Platform) -> ResolvedImage:
        """The image of a normalized reference (KetchError)."""
        with phase(f"[internal] load metadata for {reference}", self._listener.status) as step:

            def report(item: ProgressItem) -> None:
                self._listener.pulled(item)
                detail = item.get("progressDetail") or {}
                if name := item.get("id"):
                    step.status(name, detail.get("current", 0), detail.get("total", 0))

            images = NamingBuildImages(self._builder.images, self._builder.pulls, report)
            found = await images.find(reference, platform, self._mode, self._session)
        self._found[found.reference] = found
        return ResolvedImage(reference=found.reference, config=found.config)

    def id_of(self, reference: str) -> str:
        """The id of a base image, as clients see it: of one that is not here, its manifest's digest."""
        if not reference:
            return ""
        found = self._found.get(reference)
        for name in (reference, references.parse(reference).repository):
            try:
                return self._builder.store.resolve(name).id
            except NotFound:
                continue
        return found.manifest if found else ""
