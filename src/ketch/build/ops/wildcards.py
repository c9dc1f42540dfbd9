"""Wildcards in the paths of copies and removals: which entries of a tree they match."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from ketch.errors import NotFound
from ketch.notation import gopaths
from ketch.notation.gopaths import has_wildcards
from ketch.storage.drafts.stack import names, shown

if TYPE_CHECKING:
    import re
    from collections.abc import Sequence

    from ketch.storage.drafts.stack import LayerStack, StackDescent


def matching(tree: LayerStack, path: str, *, follow: bool) -> list[str]:
    """The paths that a path with wildcards matches, in order; one without them is itself, whether it exists or not.

    Wildcards match names of one level each; below them no link is followed.  A pattern that cannot be read matches
    nothing.  (NotFound: nothing is where the wildcards begin.)
    """
    parts = names(path)
    plain = next((count for count, part in enumerate(parts) if has_wildcards(part)), len(parts))
    if plain == len(parts):
        return [shown(parts)]
    start = tree.resolve("/".join(parts[:plain]), follow=follow)
    if start and tree.find(start) is None:
        raise NotFound(f"lstat {shown(start)}: no such file or directory")
    try:
        patterns = [gopaths.compiled(part) for part in parts[plain:]]
    except gopaths.BadPatternError:
        return []
    with tree.walk() as at:
        if not all(map(at.enter, start)):
            return []
        return [shown(start, *found) for found in _matches(at, patterns)]


def _matches(at: StackDescent, patterns: Sequence[re.Pattern[str]]) -> list[tuple[str, ...]]:
    """The names below a place that patterns match, one for each level."""
    found: list[tuple[str, ...]] = []
    levels = [iter(at.entries())]
    above: list[str] = []
    while levels:
        name, _ = next(levels[-1], ("", 0))
        if not name:
            levels.pop()
            if above:
                above.pop()
                at.leave()
            continue
        if not patterns[len(above)].match(name):
            continue
        entry = at.find(name)
        if entry is None:
            continue
        if len(levels) == len(patterns):
            found.append((*above, name))
        elif stat.S_ISDIR(entry.status.st_mode):
            at.enter(name)
            above.append(name)
            levels.append(iter(at.entries()))
    return found
