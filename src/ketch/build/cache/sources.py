"""Sources of cached results beside this machine's own records: caches that a build imports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.build.operation import Work
    from ketch.build.tree import Tree


class ImportedResult(Protocol):
    """A result of an imported cache, not yet here."""

    @property
    def created(self) -> int:
        """The time at which it was made, in ns since 1970."""
        ...

    async def load(self, work: Work) -> Tree:
        """Bring it here; the work's lease holds it (KetchError: it cannot be had, and is made anew)."""
        ...


class CacheSource(Protocol):
    """A cache that a build imports.  From the event loop, and from memory."""

    def targets(self, source: str, number: int, step: str, selector: str) -> Sequence[str]:
        """The keys to which links lead from a key of input ``number``, through a step (`keys.root_key`)."""
        ...

    def results(self, key: str) -> Sequence[ImportedResult]:
        """The results of a key, the best first."""
        ...
