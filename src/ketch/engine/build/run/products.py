"""Products of a build before they are exported."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.build.dockerfile.convert.conversion import Conversion
    from ketch.build.tree import Tree
    from ketch.oci.manifest import Platform


class Product(Struct, frozen=True, kw_only=True):
    """The files and the configuration that were built for one platform.

    ``keys``: those of the last step's result; ``cache``: the records that the image is to have within itself.
    """

    platform: Platform
    conversion: Conversion
    tree: Tree
    keys: Sequence[str] = ()
    cache: str | None = None
