"""Source operations by the scheme of their identifiers, and what they share: places on the disk, other parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ketch.build.sources import git, http, image, layout, local
from ketch.errors import InvalidArgument
from ketch.storage.contexts import receive

if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.build.cache.contents import FormerTree
    from ketch.build.llb.vertex import Vertex
    from ketch.build.operation import Operation
    from ketch.build.providers import BuildImages, BuildLayouts, BuildSnapshots
    from ketch.build.sources.kept.stores import SourceStores
    from ketch.build.tree import Tree
    from ketch.storage.contexts.copies import ContextCopies


class Sources:
    """The sources of one daemon's builds; used in the event loop."""

    def __init__(
        self,
        *,
        snapshots: BuildSnapshots,
        images: BuildImages,
        contexts: ContextCopies,
        kept: SourceStores,
        from_client: Callable[[Tree, FormerTree | None], None],
        layouts: BuildLayouts | None = None,
    ) -> None:
        """``kept``: on one file system with layers.

        ``from_client`` is told the trees of clients' directories (`ContentDigests.from_client`).
        """
        self._snapshots, self._images, self._contexts = snapshots, images, contexts
        self._layouts, self._from_client = layouts, from_client
        self._versions, self._repositories = kept.versions, kept.repositories
        self._temporary = kept.temporary
        self._uploads = http.Uploads()
        receive.sweep(self._temporary)

    def operation(self, vertex: Vertex) -> Operation:
        """The operation of a vertex of kind source (InvalidArgument: no such source, or wrong attributes)."""
        op = vertex.op
        identifier, attrs = op.source.identifier, dict(op.source.attrs)
        platform = op.platform if op.HasField("platform") else None
        scheme = identifier.partition("://")[0]
        match f"{scheme}://":
            case image.SCHEME:
                return image.ImageSource(identifier, attrs, platform, self._images)
            case layout.SCHEME if self._layouts is not None:
                return layout.LayoutSource(identifier, attrs, platform, self._layouts)
            case local.SCHEME:
                return local.LocalSource(identifier, attrs, self._snapshots, self._contexts, self._from_client)
            case git.SCHEME:
                return git.GitSource(identifier, attrs, self._snapshots, self._repositories, self._temporary)
            case "http://" | "https://":
                return http.HttpSource(identifier, attrs, self._snapshots, self._versions, self._uploads)
            case _:
                raise InvalidArgument(f"failed to parse source {identifier[:200]!r}: unknown scheme")
