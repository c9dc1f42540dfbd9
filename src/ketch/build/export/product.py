"""Products of a build before they are exported."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.build.attest.provenance import Provenance
    from ketch.build.attest.statement import Attestation
    from ketch.build.tree import Tree
    from ketch.oci.config import ImageConfig
    from ketch.oci.manifest import Platform


class Product(Struct, frozen=True, kw_only=True):
    """The files and the configuration that were built for one platform, whoever told what to build.

    ``config`` has the history, and the layers of the image that the build began with: `image.make` puts in all layers
    and times.  ``epoch``: the build's time in seconds since 1970, if it is given; ``keys``: those of the last step's
    result; ``cache``: the records that the image is to have within itself; ``provenance`` and ``attestations``: what is
    to be said of it, if that was asked for.
    """

    platform: Platform
    config: ImageConfig
    tree: Tree
    epoch: int | None = None
    keys: Sequence[str] = ()
    cache: str | None = None
    provenance: Provenance | None = None
    attestations: Sequence[Attestation] = ()
