"""The record of an image."""

from __future__ import annotations

import msgspec

from ketch.oci.config import ImageConfig  # noqa: TC001 - msgspec reads the annotation at run time
from ketch.oci.manifest import Platform


class Image(msgspec.Struct, kw_only=True):
    """One image of one platform.

    ``id`` is the digest of the configuration; ``chain_ids`` name the unpacked layers, lowest first;
    ``size`` is the sum of ``layer_sizes``, the bytes of the layers' files; times are ns since the epoch.
    ``last_tagged``: the last tag of this engine's own making (not of a pull or a load), 0 for none.
    ``hidden``: removed by force, and kept because containers were made from it.
    ``base``: brought here for builds alone; hidden as well, and gone with the last that needs its uppermost layer.
    ``parent``: the image that this one was committed on, empty for others.
    ``manifest`` and ``blobs`` are the form in which it came last; ``forms`` are others that names or indexes still mean
    (the same layers, compressed in another way): manifest → blobs.
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
    base: bool = False
    parent: str = ""
    forms: dict[str, list[str]] = msgspec.field(default_factory=dict)
    repo_tags: list[str] = msgspec.field(default_factory=list)
    repo_digests: list[str] = msgspec.field(default_factory=list)

    @property
    def size(self) -> int:
        return sum(self.layer_sizes)

    @property
    def platform(self) -> Platform:
        config = self.config
        return Platform(architecture=config.architecture or "", os=config.os or "linux", variant=config.variant)

    def parts(self) -> set[str]:
        """The digests of the image's blobs and the chain ids of its layers."""
        others = {part for manifest, blobs in self.forms.items() for part in (manifest, *blobs)}
        return {self.id, self.manifest, *self.blobs, *self.chain_ids, *others}

    def blobs_of(self, manifest: str) -> list[str]:
        """The layers' blobs, lowest first, by the manifest of this digest (KeyError)."""
        return self.blobs if manifest == self.manifest else self.forms[manifest]
