"""Images for the conversion of a Dockerfile: found here or in registries, with what a client is told of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ketch.build.dockerfile.convert.options import ResolvedImage
from ketch.build.sources.resolver import SessionImages
from ketch.engine.build.images import NamingBuildImages
from ketch.engine.build.phases import phase
from ketch.errors import NotFound
from ketch.oci import reference as references

if TYPE_CHECKING:
    from ketch.build.providers import BuildSession, FoundImage
    from ketch.engine.build.builder import Builder
    from ketch.engine.build.phases import Phase
    from ketch.engine.build.run.listener import BuildListener
    from ketch.images.progress import ProgressItem
    from ketch.oci.manifest import Platform


class SessionResolver:
    """The images of one build."""

    def __init__(
        self, builder: Builder, session: BuildSession, mode: str, listener: BuildListener, *, named: bool
    ) -> None:
        """``named``: images that are not here are pulled whole, with their names."""
        self._builder, self._session, self._mode, self._listener = builder, session, mode, listener
        self._named = named
        self._found: dict[str, FoundImage] = {}

    async def image(self, reference: str, platform: Platform) -> ResolvedImage:
        """The image of a normalized reference (KetchError)."""
        with phase(f"[internal] load metadata for {reference}", self._listener.status) as step:
            found = await self._find(reference, platform, step)
        self._found[found.reference] = found
        return ResolvedImage(reference=found.reference, config=found.config)

    async def _find(self, reference: str, platform: Platform, step: Phase) -> FoundImage:
        if not self._named:
            return await SessionImages(self._builder.images, self._session, self._mode).find(reference, platform)

        def report(item: ProgressItem) -> None:
            self._listener.pulled(item)
            detail = item.get("progressDetail") or {}
            if name := item.get("id"):
                step.status(name, detail.get("current", 0), detail.get("total", 0))

        images = NamingBuildImages(self._builder.images, self._builder.pulls, report)
        return await images.find(reference, platform, self._mode, self._session)

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
