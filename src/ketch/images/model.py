"""An image as the rest of the engine sees it."""

from __future__ import annotations

import msgspec

from ketch.oci.config import ImageConfig  # noqa: TC001 - msgspec reads the annotation at run time


class Image(msgspec.Struct, kw_only=True):
    """One image of one platform.

    ``id`` is the digest of the configuration; ``chain_ids`` name the unpacked layers, lowest first;
    ``size`` is the sum of ``layer_sizes``, the bytes of the layers' files; times are ns since the epoch.
    """

    id: str
    manifest: str
    config: ImageConfig
    diff_ids: list[str]
    chain_ids: list[str]
    blobs: list[str]
    layer_sizes: list[int]
    created: int
    repo_tags: list[str] = msgspec.field(default_factory=list)
    repo_digests: list[str] = msgspec.field(default_factory=list)

    @property
    def size(self) -> int:
        return sum(self.layer_sizes)
