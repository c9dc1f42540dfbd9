"""Images (``docker-image://REFERENCE``): found first, brought here when a result needs their files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ketch.build.cache.maps import image_maps
from ketch.build.llb import ops_pb2 as pb
from ketch.build.sources.attributes import layer_limit
from ketch.build.tree import Tree
from ketch.errors import InvalidArgument
from ketch.oci import platform as platforms
from ketch.oci import reference as references
from ketch.oci.manifest import Platform

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ketch.build.operation import CacheMap, Work
    from ketch.build.providers import BuildImages, FoundImage

SCHEME = "docker-image://"
_MODES = {"": "default", "default": "default", "local": "local", "pull": "pull"}


class ImageSource:
    """The operation of an image."""

    def __init__(
        self, identifier: str, attrs: Mapping[str, str], platform: pb.Platform | None, images: BuildImages
    ) -> None:
        """InvalidArgument: reference or attributes are wrong.  Without a ``platform`` it is this machine's."""
        self._reference = str(references.parse(identifier.removeprefix(SCHEME)))
        mode = attrs.get("image.resolvemode", "")
        if mode not in _MODES:
            raise InvalidArgument(f"invalid value for resolvemode: {mode}", hint="there are default, local and pull")
        self._mode = _MODES[mode]
        self._limit = layer_limit(attrs)
        self._platform = read_platform(platform)
        self._images = images
        self._found: FoundImage | None = None

    async def cache_maps(self, work: Work) -> Sequence[CacheMap]:
        """The maps: by the digest in its reference, if it has one, and by its layers."""
        found = await self._find(work)
        ref = references.parse(found.reference)
        work.pin(ref.digest or found.manifest)
        maps = image_maps(
            ref.digest or found.manifest, platform_message(self._platform), found.config.rootfs.diff_ids, self._limit
        )
        return maps if ref.digest else maps[-1:]

    async def run(self, work: Work, inputs: Sequence[Tree]) -> Sequence[Tree]:
        """Bring the layers here."""
        del inputs
        found = await self._find(work)
        told: set[str] = set()

        def progress(name: str, current: int, total: int) -> None:
            if name not in told:
                if current >= total:
                    told.add(name)
                work.log.status(name, current, total, done=current >= total)

        tree = await self._images.fetch(found, self._platform, work.lease, work.sessions[0], progress)
        return [Tree(tree.layers[: self._limit or None])]

    async def _find(self, work: Work) -> FoundImage:
        """The image, which is looked for once."""
        if self._found is None:
            name = f"resolve {self._reference}"
            work.log.status(name, 0)
            self._found = await self._images.find(self._reference, self._platform, self._mode, work.sessions[0])
            work.log.status(name, 0, done=True)
        return self._found


def read_platform(message: pb.Platform | None) -> Platform:
    """The platform of an operation; without any this machine's."""
    if message is None:
        return platforms.host()
    return Platform(
        os=message.OS,
        architecture=message.Architecture,
        variant=message.Variant or None,
        os_version=message.OSVersion or None,
        os_features=list(message.OSFeatures) or None,
    )


def platform_message(platform: Platform) -> pb.Platform:
    """A platform as operations have it."""
    return pb.Platform(
        OS=platform.os,
        Architecture=platform.architecture,
        Variant=platform.variant or "",
        OSVersion=platform.os_version or "",
        OSFeatures=platform.os_features or (),
    )
