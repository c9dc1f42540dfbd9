"""Parts of a tree that an operation uses, of which the content is a cache key."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable


class Selection(NamedTuple):
    """A path of a tree, or what matches it, and what of it counts (BuildKit's opsutils.Selector).

    ``wildcard``: the path is a pattern; ``follow``: a link at its end stands for what it leads to, within the tree.
    ``include`` and ``exclude`` are patterns as in ``.dockerignore``, relative to what is selected.
    """

    path: str = ""
    wildcard: bool = False
    follow: bool = False
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    @property
    def filtered(self) -> bool:
        """Whether it is more than one path with all below it."""
        return bool(self.wildcard or self.include or self.exclude)


def nested_dropped(paths: Iterable[str]) -> list[str]:
    """Paths without those below others, each once, in order."""
    chosen = set(paths)
    return sorted((path for path in chosen if not _is_below(path, chosen)), key=str.encode)


def _is_below(path: str, others: set[str]) -> bool:
    ends = [at for at, char in enumerate(path) if char == "/"]
    return any(path[:at] in others or (at + 1 < len(path) and path[: at + 1] in others) for at in ends)
