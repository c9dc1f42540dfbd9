"""Images for a Dockerfile: their configurations, by name and platform, through the client of one build."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ketch.build.dockerfile.convert.options import ResolvedImage
from ketch.build.errors import UnresolvedImage
from ketch.errors import KetchError

if TYPE_CHECKING:
    from ketch.build.providers import BuildImages, BuildSession, FoundImage
    from ketch.oci.manifest import Platform


class SessionImages:
    """The `ImageResolver` of one build; ``mode`` as in `BuildImages.find`."""

    def __init__(self, images: BuildImages, session: BuildSession, mode: str) -> None:
        self._images, self._session, self._mode = images, session, mode

    async def find(self, reference: str, platform: Platform) -> FoundImage:
        """The image of a normalized reference (UnresolvedImage)."""
        try:
            return await self._images.find(reference, platform, self._mode, self._session)
        except KetchError as e:
            raise UnresolvedImage(reference, e) from e

    async def image(self, reference: str, platform: Platform) -> ResolvedImage:
        """The same for a conversion (UnresolvedImage)."""
        found = await self.find(reference, platform)
        return ResolvedImage(reference=found.reference, config=found.config)
