"""An image as the rest of the engine sees it."""

from __future__ import annotations

import msgspec

from ketch.oci.config import ImageConfig  # noqa: TC001 - msgspec reads the annotation at run time
from ketch.oci.manifest import Platform


class Image(msgspec.Struct, kw_only=True):
    """One image of one platform.

    ``id`` is the digest of the configuration; ``chain_ids`` name the unpacked layers, lowest first;
    ``size`` is the sum of ``layer_sizes``, the bytes of the layers' files; times are ns since the epoch.
    ``hidden``: removed by force, and kept because containers were made from it.
    """

    id: str
    manifest: str
    config: ImageConfig
    diff_ids: list[str]
    chain_ids: list[str]
    blobs: list[str]
    layer_sizes: list[int]
    created: int
    last_tagged: int = 0
    hidden: bool = False
    repo_tags: list[str] = msgspec.field(default_factory=list)
    repo_digests: list[str] = msgspec.field(default_factory=list)

    @property
    def size(self) -> int:
        return sum(self.layer_sizes)

    @property
    def platform(self) -> Platform:
        return Platform(architecture=self.config.architecture, os=self.config.os, variant=self.config.variant)

    def parts(self) -> set[str]:
        """The digests of its blobs and the chain ids of its layers: what must stay as long as it does."""
        return {self.id, self.manifest, *self.blobs, *self.chain_ids}
