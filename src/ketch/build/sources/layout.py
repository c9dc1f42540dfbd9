"""Images in OCI layouts that a client has in directories (``oci-layout://NAME@DIGEST``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ketch.build.cache.maps import image_maps
from ketch.build.sources.attributes import layer_limit
from ketch.build.sources.image import platform_message, read_platform
from ketch.build.tree import Tree
from ketch.errors import InvalidArgument, NotFound
from ketch.oci import digest as digests

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ketch.build.llb import ops_pb2 as pb
    from ketch.build.operation import CacheMap, Work
    from ketch.build.providers import BuildLayout, BuildLayouts, BuildSession, FoundImage

SCHEME = "oci-layout://"


class LayoutSource:
    """The operation of an image in a layout."""

    def __init__(
        self, identifier: str, attrs: Mapping[str, str], platform: pb.Platform | None, layouts: BuildLayouts
    ) -> None:
        """InvalidArgument: there is no digest, or attributes are wrong."""
        name, _, self._digest = identifier.removeprefix(SCHEME).rpartition("@")
        if not digests.valid(self._digest):
            raise InvalidArgument(
                f"{identifier[:200]}: an image in a layout is named by a digest", hint="add @sha256:…"
            )
        self._directory = attrs.get("oci.store") or name
        self._session = attrs.get("oci.session", "")
        self._limit = layer_limit(attrs)
        self._platform = read_platform(platform)
        self._layouts = layouts

    async def cache_maps(self, work: Work) -> Sequence[CacheMap]:
        """The maps: by the digest, and by the layers."""
        found = await self.image(work.sessions)
        diff_ids = found.config.rootfs.diff_ids
        return image_maps(self._digest, platform_message(self._platform), diff_ids, self._limit)

    async def image(self, sessions: Sequence[BuildSession]) -> FoundImage:
        """The image (NotFound, InvalidArgument, DataLoss)."""
        return await self._layouts.find(await self._found(sessions), self._digest, self._platform)

    async def run(self, work: Work, inputs: Sequence[Tree]) -> Sequence[Tree]:
        """Bring the layers here."""
        del inputs
        layout = await self._found(work.sessions)
        tree = await self._layouts.fetch(layout, self._digest, self._platform, work.lease)
        return [Tree(tree.layers[: self._limit or None])]

    async def _found(self, sessions: Sequence[BuildSession]) -> BuildLayout:
        """The client's layout: of the session that the source names, else of any that has it (NotFound)."""
        missing: NotFound | None = None
        for session in sorted(sessions, key=lambda one: one.id != self._session):
            try:
                return await session.layout(self._directory)
            except NotFound as e:
                missing = missing or e
        raise missing or NotFound(f"no client gives the OCI layout {self._directory}")
