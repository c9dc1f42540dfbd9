"""Operations, as the solver sees them: what their result depends on, and how it is made."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from ketch.build.progress import VertexLog
    from ketch.build.providers import BuildSession
    from ketch.build.tree import Tree
    from ketch.storage.content.leases import Lease

    Contents = Callable[[Tree], Awaitable[str]]


class InputKey(NamedTuple):
    """The dependence of a result on one input.

    ``selector``: a digest of which part of it is used, empty for all.  ``contents``: computes a digest of that part's
    content, by which the result is found again although the input came about in another way; None where only the
    input's own key counts.
    """

    selector: str = ""
    contents: Contents | None = None


class CacheMap(NamedTuple):
    """On what a result depends: a digest of the operation without its inputs, and each input's part.

    (BuildKit's solver.CacheMap; the digests are equal to BuildKit's, so that caches can be exchanged.)
    """

    digest: str
    inputs: Sequence[InputKey] = ()


class Work(Protocol):
    """One vertex at work for those builds that need it."""

    @property
    def lease(self) -> Lease:
        """Holds what is made."""
        ...

    @property
    def sessions(self) -> Sequence[BuildSession]:
        """The clients of the builds that need it, the first first; at least one."""
        ...

    def pin(self, found: str) -> None:
        """Tell what a source stands for now: a commit, the digest of a file or of an image."""
        ...

    @property
    def log(self) -> VertexLog:
        """The sink of its output and its progress."""
        ...


class Operation(Protocol):
    """An operation of a vertex."""

    async def cache_maps(self, work: Work) -> Sequence[CacheMap]:
        """One map, or several, of which each finds the same result: the most telling first (KetchError)."""
        ...

    async def run(self, work: Work, inputs: Sequence[Tree]) -> Sequence[Tree]:
        """Make the outputs, which the work's lease holds.  Cancelled, it leaves nothing (KetchError)."""
        ...
